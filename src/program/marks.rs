//! Marks that a metered program writes: where what counts begins and ends, and how much of it is done.
//!
//! In: lines, with the time since the program was started at which each was heard. Out: [`Marked`] windows. Must not: guess what a line means
//! that is no mark, or keep more than a window's sums.
//!
//! ```text
//! ergometer:begin        what is metered begins
//! ergometer:token 17     17 more things (tokens, answers, images) are done since the last mark; without a number 1
//! ergometer:end          it is over
//! ```
//! Windows may come any number of times, one after the other. A mark in a wrong place makes the windows of its run unavailable, and so does a
//! program that keeps its marks in a buffer: what is heard together with the begin of its window was not done within it.

/// The variable that holds the number of the pipe for marks.
pub const VARIABLE: &str = "ERGOMETER_MARKS";

/// What a line of marks begins with.
const PREFIX: &str = "ergometer:";

/// Windows of one run; more than this is no metering.
const MAX_WINDOWS: u64 = 1_000_000;

/// More things than any program counts.
const MAX_COUNT: u64 = 1 << 53;

/// Seconds within which two marks are heard at once: a look at the processes takes part of that.
const AT_ONCE: f64 = 1e-3;

/// One in so many windows may be heard at once, and one in so many of what a window counts together with its begin: we may have been kept
/// from listening.
const SELDOM: u64 = 100;

/// A line that is meant for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A window begins.
    Begin,
    /// So many more things are done.
    Token(u64),
    /// The window is over.
    End,
    /// It begins as a mark and is none: what it says.
    Unknown(String),
}

/// The mark that a line is; `None`: it is none of ours.
pub fn parse(line: &[u8]) -> Option<Mark> {
    let rest = line.trim_ascii().strip_prefix(PREFIX.as_bytes())?;
    let text = String::from_utf8_lossy(&rest[..rest.len().min(100)]).into_owned();
    let mut words = text.split_ascii_whitespace();
    let mark = match (words.next(), words.next(), words.next()) {
        (Some("begin"), None, _) => Mark::Begin,
        (Some("end"), None, _) => Mark::End,
        (Some("token"), None, _) => Mark::Token(1),
        (Some("token"), Some(n), None) => match n.parse() {
            Ok(n) if n <= MAX_COUNT => Mark::Token(n),
            _ => Mark::Unknown(text),
        },
        _ => Mark::Unknown(text),
    };
    Some(mark)
}

/// Sums over the windows of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marked {
    /// Windows that were begun and ended.
    pub windows: u64,
    /// Seconds in them.
    pub seconds: f64,
    /// Things counted in them.
    pub counted: u64,
    /// Seconds from the begin of each window that counted something to its first `token`, summed, and how many such windows there were.
    pub first: (f64, u64),
    /// Seconds from the program's start to the first window.
    pub before: f64,
    /// A run of marks counted 1, 2, 3 and so on, as if they were numbers of things.
    pub counts_up: bool,
    /// Windows whose begin was heard at once with their end, or with what they count: their seconds are not known.
    pub at_once: u64,
    /// Seconds since the start at which the open window began.
    open: Option<f64>,
    /// What the open window has counted, and what of that was heard at once with its begin.
    in_window: (u64, u64),
    /// Whether the open window has counted something; the last number of its marks, while they go up by one from 1.
    counted_in_window: bool,
    run: Option<u64>,
    /// Why there is nothing to be said of windows.
    wrong: Option<String>,
}

/// What a mark asks of the meters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// A window is to be opened.
    Open,
    /// The open one is to be closed.
    Close,
    /// Nothing.
    None,
}

impl Marked {
    /// A mark that was heard so many seconds after the start.
    pub fn heard(&mut self, mark: &Mark, at: f64) -> Edge {
        match (mark, self.open) {
            (Mark::Begin, Some(_)) => self.refuse("`ergometer:begin` came again before `ergometer:end`"),
            (Mark::Begin, None) if self.windows >= MAX_WINDOWS => {
                self.refuse(&format!("more than {MAX_WINDOWS} windows"))
            }
            (Mark::Begin, None) => {
                if self.windows == 0 {
                    self.before = at;
                }
                (self.open, self.counted_in_window, self.run) = (Some(at), false, Some(0));
                self.in_window = (0, 0);
                Edge::Open
            }
            (Mark::End, Some(begin)) => {
                self.windows += 1;
                self.seconds += at - begin;
                self.counts_up |= self.run >= Some(3);
                let (all, early) = self.in_window;
                let at_once = at - begin < AT_ONCE || early.saturating_mul(SELDOM) > all;
                self.at_once += u64::from(at_once);
                self.open = None;
                Edge::Close
            }
            (Mark::Token(n), Some(begin)) => {
                if !std::mem::replace(&mut self.counted_in_window, true) {
                    self.first = (self.first.0 + at - begin, self.first.1 + 1);
                }
                self.counted = self.counted.saturating_add(*n);
                let early = if at - begin < AT_ONCE { *n } else { 0 };
                self.in_window = (self.in_window.0.saturating_add(*n), self.in_window.1.saturating_add(early));
                self.run = self.run.filter(|last| *n == last + 1).map(|_| *n);
                Edge::None
            }
            (Mark::End | Mark::Token(_), None) => {
                self.refuse("a mark came before any `ergometer:begin`, or after `ergometer:end`")
            }
            (Mark::Unknown(text), _) => self.refuse(&format!(
                "`ergometer:{text}` is no mark (there are `ergometer:begin`, `ergometer:token N` and `ergometer:end`)"
            )),
        }
    }

    fn refuse(&mut self, why: &str) -> Edge {
        self.wrong.get_or_insert_with(|| why.to_string());
        Edge::None
    }

    /// The sums once the program has ended. `None`: it wrote no marks.
    pub fn finish(mut self) -> Option<Result<Self, String>> {
        if self.open.is_some() {
            self.refuse("the program ended before `ergometer:end`");
        }
        if self.at_once > 0 && self.at_once.saturating_mul(SELDOM) > self.windows {
            self.refuse(&format!(
                "in {} of {} windows what follows `ergometer:begin` was heard at once with it, so that their time is not known: a program that \
                 writes to a pipe keeps what it prints until much has come together or it ends\nhint: flush after each mark (`python3 -u`, \
                 `print(..., flush=True)`, `fflush(stdout)`, `stdbuf -oL`), or mark longer windows and more things at a time",
                self.at_once, self.windows
            ));
        }
        match self.wrong.take() {
            Some(why) => Some(Err(why)),
            None => (self.windows > 0).then_some(Ok(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(marks: &[(&str, f64)]) -> Option<Result<Marked, String>> {
        let mut marked = Marked::default();
        for (line, at) in marks {
            let mark = parse(format!("ergometer:{line}").as_bytes()).unwrap();
            marked.heard(&mark, *at);
        }
        marked.finish()
    }

    #[test]
    fn lines_are_marks_or_not() {
        assert_eq!(parse(b"ergometer:begin\n"), Some(Mark::Begin));
        assert_eq!(parse(b"  ergometer:token 17 "), Some(Mark::Token(17)));
        assert_eq!(parse(b"ergometer:token"), Some(Mark::Token(1)));
        assert_eq!(parse(b"ergometer:end"), Some(Mark::End));
        for none in ["", "begin", "say ergometer:begin", "ergometer"] {
            assert_eq!(parse(none.as_bytes()), None, "{none}");
        }
        for unknown in ["ergometer:", "ergometer:begin 3", "ergometer:token x", "ergometer:token -1", "ergometer:stop"]
        {
            assert!(matches!(parse(unknown.as_bytes()), Some(Mark::Unknown(_))), "{unknown}");
        }
    }

    #[test]
    fn windows_hold_their_seconds_and_counts_without_what_lies_between() {
        let of = |marks| heard(marks).unwrap().unwrap();
        let marked = of(&[
            ("begin", 2.0),
            ("token 3", 2.5),
            ("token", 3.0),
            ("end", 4.0),
            ("begin", 9.0),
            ("token 6", 9.5),
            ("end", 10.0),
        ]);
        assert_eq!((marked.windows, marked.seconds, marked.counted, marked.before), (2, 3.0, 10, 2.0));
        assert_eq!(marked.first, (1.0, 2));
        assert!(!marked.counts_up && !of(&[("begin", 0.0), ("token 17", 1.0), ("end", 2.0)]).counts_up);
        let up = of(&[("begin", 0.0), ("token 1", 1.0), ("token 2", 2.0), ("token 3", 3.0), ("end", 4.0)]);
        assert!(up.counts_up && up.counted == 6);
        assert!(!of(&[("begin", 0.0), ("token 1", 1.0), ("token 1", 2.0), ("token 1", 3.0), ("end", 4.0)]).counts_up);
    }

    #[test]
    fn marks_in_a_wrong_place_leave_no_windows() {
        assert_eq!(heard(&[]), None);
        let wrong = |marks| heard(marks).unwrap().unwrap_err();
        assert!(wrong(&[("begin", 0.0)]).contains("before `ergometer:end`"));
        assert!(wrong(&[("begin", 0.0), ("begin", 1.0), ("end", 2.0)]).contains("came again"));
        assert!(wrong(&[("end", 0.0)]).contains("before any"));
        assert!(wrong(&[("begin", 0.0), ("end", 1.0), ("token 3", 2.0)]).contains("after `ergometer:end`"));
        assert!(wrong(&[("pause", 0.0)]).contains("`ergometer:pause` is no mark"));
    }

    #[test]
    fn marks_that_come_out_of_a_buffer_leave_no_windows() {
        let wrong = |marks: &[(&str, f64)]| heard(marks).unwrap().unwrap_err();
        let all = wrong(&[("begin", 5.0), ("token 17", 5.0), ("end", 5.0)]);
        assert!(all.contains("1 of 1 windows") && all.contains("hint: flush after each mark"), "{all}");
        // the end of it was read a little later, or came out as the program ended
        wrong(&[("begin", 5.0), ("end", 5.0004)]);
        // half of what it counts came out of the buffer with the begin
        wrong(&[("begin", 5.0), ("token 480", 5.0), ("token 480", 9.0), ("end", 9.0)]);
        // what is counted in one piece is done at its mark, which may be that of the end
        assert_eq!(heard(&[("begin", 5.0), ("token 480", 9.0), ("end", 9.0)]).unwrap().unwrap().seconds, 4.0);
        // the first of thousands may be done at once
        let many = [("begin", 0.0), ("token", 0.0001), ("token 4000", 1.0), ("end", 1.0)];
        assert_eq!(heard(&many).unwrap().unwrap().at_once, 0);
        // one of many windows was heard late
        let mut marks = Vec::new();
        for i in 0..200 {
            let begin = f64::from(i);
            marks.extend([("begin", begin), ("end", begin + if i == 7 { 0.0 } else { 0.5 })]);
        }
        assert_eq!(heard(&marks).unwrap().unwrap().at_once, 1);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..200), marks in prop::collection::vec("(begin|end|token|token [0-9]{1,20})", 0..12)) {
            let _ = parse(&line);
            let mut marked = Marked::default();
            for (i, text) in marks.iter().enumerate() {
                if let Some(mark) = parse(format!("ergometer:{text}").as_bytes()) {
                    marked.heard(&mark, i as f64);
                }
            }
            if let Some(Ok(sums)) = marked.finish() {
                prop_assert!(sums.seconds >= 0.0 && sums.windows > 0);
            }
        }
    }
}
