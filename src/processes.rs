//! What `/proc` says of processes: `stat` files, and who is whose child.
//!
//! In: process numbers. Out: [`Stat`]s and lists of children. Must not: read what a program says of itself.

use std::fs;
use std::io;

/// What a `/proc/<pid>/stat` line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// It has ended and is not yet waited for.
    pub over: bool,
    /// Number of its parent.
    pub parent: u32,
    /// Its process group.
    pub group: i32,
    /// Ticks (10 ms) of its own, all threads that ever lived.
    pub used: u64,
    /// Ticks of children that have ended and were waited for.
    pub ended: u64,
    /// Page faults of its own and of children that have ended and were waited for: memory comes by these alone.
    pub faults: u64,
    /// When it began, in ticks since the machine did: with its number its name, since numbers come again.
    pub began: u64,
}

impl Stat {
    /// Of the fields after the name, which stands in brackets and may hold blanks and brackets: counting starts after the last one.
    pub fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
        Some(Self {
            over: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            used: number(11)?.checked_add(number(12)?)?,
            ended: number(13)?.checked_add(number(14)?)?,
            faults: [7, 8, 9, 10].into_iter().try_fold(0u64, |sum, i| sum.checked_add(number(i)?))?,
            began: number(19)?,
        })
    }

    /// Of a process.
    ///
    /// # Errors
    /// There is none of this number, or `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let file = format!("/proc/{pid}/stat");
        let malformed =
            || io::Error::new(io::ErrorKind::InvalidData, format!("{file}: not the fields that Linux documents"));
        Self::parse(&fs::read_to_string(&file)?).ok_or_else(malformed)
    }
}

/// Process numbers of the children of a process, whichever of its threads started them, those among them that have ended and were not waited for.
///
/// # Errors
/// As [`Stat::of`].
pub fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|n| n.parse::<u32>().ok())),
            // a kernel without CONFIG_PROC_CHILDREN, or a thread that has just ended
            Err(_) => return with_parent(pid),
        }
    }
    Ok(found)
}

/// Processes that name this one as their parent.
///
/// # Errors
/// As [`Stat::of`].
pub fn with_parent(pid: u32) -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    Ok(names.filter(|other| Stat::of(*other).is_ok_and(|s| s.parent == pid)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_shift_the_fields() {
        let line = "7 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 25 3 4 20 0 1 0 5 0 0";
        let stat = Stat { over: false, parent: 1, group: 2, used: 175, ended: 7, faults: 34, began: 5 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert!(Stat::parse(&line.replace(") R", ") Z")).unwrap().over);
        assert_eq!(Stat::parse("7 (short) R 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Stat::parse(&text);
        }
    }
}
