//! How folders and files come into their place in one step: written aside, flushed to the disk, renamed.
//!
//! In: an open folder, a name, what writes the content. Out: the whole content under that name, or nothing of it. Must
//! not: leave anything under the name that is half written, or overwrite what is there.

use std::{
    fs::File,
    io::{self, Write},
};

use ergometer_files::{Folder, TEMPORARY, temporary};
use serde::Serialize;

use crate::error::ReportError;

/// Makes a folder of what `fill` writes into it. `make_room` runs when all is written: what it leaves under the name
/// makes the renaming fail.
pub(super) fn place(
    parent: &Folder,
    name: &str,
    fill: impl FnOnce(&Folder) -> Result<(), ReportError>,
    make_room: impl FnOnce() -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    let aside = temporary(name);
    let path = parent.path().join(name);
    let folder = parent.make(&aside).map_err(ReportError::io("create the folder", &path))?;
    let placed = fill(&folder)
        .and_then(|()| make_room())
        .and_then(|()| parent.rename(&aside, name).map_err(ReportError::io("move the finished case to", &path)));
    if let Err(error) = placed {
        // what stays after a second failure is a leftover, which the next run removes
        let _ = parent.remove(&aside);
        return Err(error);
    }
    parent.sync().map_err(ReportError::io("flush the folder", parent.path()))
}

/// Removes a folder so that a kill in between leaves no half of it under its name.
pub(super) fn remove(parent: &Folder, name: &str) -> io::Result<()> {
    let aside = temporary(name);
    parent.rename(name, &aside)?;
    parent.remove(&aside)
}

/// Removes the temporary files and folders right below a folder; gives their number.
pub(super) fn remove_temporaries(folder: &Folder) -> Result<usize, ReportError> {
    let names = folder.names().map_err(ReportError::io("list the folder", folder.path()))?;
    let unfinished: Vec<_> = names.iter().filter(|n| n.starts_with(TEMPORARY)).collect();
    for name in &unfinished {
        folder.remove(name).map_err(ReportError::io("remove", &folder.path().join(name)))?;
    }
    Ok(unfinished.len())
}

/// Two-space JSON with a newline at its end.
pub(crate) fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    // our types have string keys and finite numbers, for which serialising to memory does not fail
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data serialises");
    bytes.push(b'\n');
    bytes
}

/// Writes at most `limit` bytes and flushes them to the disk; gives whether that was enough.
pub(super) fn write_csv<T: Serialize>(
    file: File,
    columns: &[&str],
    rows: impl Iterator<Item = T>,
    limit: u64,
) -> io::Result<bool> {
    let mut writer =
        csv::WriterBuilder::new().has_headers(false).from_writer(Limited { file, left: limit, full: false });
    let into_io = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    };
    let write = || -> io::Result<()> {
        writer.write_record(columns).map_err(into_io)?;
        for row in rows {
            writer.serialize(row).map_err(into_io)?;
        }
        writer.flush()?;
        writer.get_ref().file.sync_all()
    };
    match write() {
        Err(_) if writer.get_ref().full => Ok(false),
        written => written.map(|()| true),
    }
}

/// A file that takes so many bytes and no more. The CSV writer in front of it has a buffer of its own.
struct Limited {
    file: File,
    left: u64,
    /// It was given more than it takes.
    full: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.full || bytes.len() as u64 > self.left {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_csv_file_ends_at_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let rows = || (0..5000).map(|i| (i % 10, 7));
        let whole = 4 + 4 * 5000;
        assert!(write_csv(File::create(&path).unwrap(), &["a", "b"], rows(), whole).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
        assert!(!write_csv(File::create(&path).unwrap(), &["a", "b"], rows(), whole - 1).unwrap());
        assert!(fs::metadata(&path).unwrap().len() < whole);
    }

    #[test]
    fn a_folder_is_placed_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let parent = Folder::open(folder.path()).unwrap();
        let fill = |f: &Folder| f.write("file", b"x").map_err(ReportError::io("write", f.path()));
        let full = |_: &Folder| Err(ReportError::render("nothing", "the disk is full"));
        assert!(place(&parent, "case", full, || Ok(())).is_err());
        assert_eq!(parent.names().unwrap(), [""; 0]);
        place(&parent, "case", fill, || Ok(())).unwrap();
        assert_eq!(parent.names().unwrap(), ["case"]);
        // what is there stays, unless it is removed before
        assert!(place(&parent, "case", |_| Ok(()), || Ok(())).is_err());
        assert_eq!(fs::read(folder.path().join("case/file")).unwrap(), b"x");
        place(
            &parent,
            "case",
            |_| Ok(()),
            || remove(&parent, "case").map_err(ReportError::io("remove", parent.path())),
        )
        .unwrap();
        assert_eq!((parent.names().unwrap().len(), folder.path().join("case/file").exists()), (1, false));
        fs::create_dir(folder.path().join(format!("{TEMPORARY}x"))).unwrap();
        assert_eq!(remove_temporaries(&parent).unwrap(), 1);
        assert_eq!(parent.names().unwrap(), ["case"]);
    }
}
