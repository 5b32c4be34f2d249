//! The one writer to stdout and stderr: everything that the program says to people and scripts goes through here.
//!
//! In: text. Out: the same, cleaned of what steers a terminal. Must not: panic where nobody takes the text. Where the reader has gone
//! (`| head`), the rest goes nowhere and the exit code stays that of the work; where the text is lost (a full disk), the end is exit code 2.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI8, AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use ergometer_reports::clean::{clean_json, clean_lines};
use serde::Serialize;

/// Writes a line of data to stdout, like `println!`.
macro_rules! outln {
    () => { $crate::console::out("\n") };
    ($($arg:tt)*) => { $crate::console::out(&(format!($($arg)*) + "\n")) };
}
pub(crate) use outln;

/// Whether colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal that is not dumb, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Whatever the output is.
    Always,
    /// Nowhere.
    Never,
}

/// When the program began, near enough.
static BEGAN: OnceLock<Instant> = OnceLock::new();
static VERBOSITY: AtomicI8 = AtomicI8::new(0);
static COLOR: AtomicU8 = AtomicU8::new(Color::Auto as u8);
/// The reader of stdout has gone, or why text was lost.
static STDOUT: Mutex<Taken> = Mutex::new(Taken::All);

#[derive(Debug)]
enum Taken {
    All,
    /// The reader has gone.
    Gone,
    /// Text was lost, and why.
    Lost(String),
}

/// What `--color` asks for on a command line that is not understood as a whole.
pub fn color_of(words: impl Iterator<Item = std::ffi::OsString>) -> Color {
    let words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let given = words.iter().enumerate().find_map(|(i, word)| match word.strip_prefix("--color") {
        Some("") => words.get(i + 1).map(String::as_str),
        Some(value) => value.strip_prefix('='),
        None => None,
    });
    given.and_then(|value| <Color as clap::ValueEnum>::from_str(value, true).ok()).unwrap_or_default()
}

/// Sets how much is said: below 0 results and errors alone, above 0 details too.
pub fn set(verbosity: i8, color: Color) {
    VERBOSITY.store(verbosity, Ordering::Relaxed);
    COLOR.store(color as u8, Ordering::Relaxed);
    BEGAN.get_or_init(Instant::now);
}

/// Nothing but results and errors is wanted.
pub fn quiet() -> bool {
    VERBOSITY.load(Ordering::Relaxed) < 0
}

/// Details are wanted.
pub fn verbose() -> bool {
    VERBOSITY.load(Ordering::Relaxed) > 0
}

/// Columns of a terminal that does not tell, and of what is no terminal.
const WIDTH: usize = 80;

/// Characters in a line of the terminal that stdout is.
pub fn width() -> usize {
    width_or(WIDTH)
}

/// The same, and something else where stdout is no terminal.
pub fn width_or(other: usize) -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()).map(|size| usize::from(size.ws_col)) {
        Ok(0) => WIDTH,
        Ok(columns) => columns.max(20),
        Err(_) => other,
    }
}

/// A terminal that cannot move its cursor.
pub fn dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Whether what goes to this terminal (or not) may have colours.
fn coloured(terminal: bool) -> bool {
    match COLOR.load(Ordering::Relaxed) {
        x if x == Color::Always as u8 => true,
        x if x == Color::Never as u8 => false,
        _ => terminal && !dumb() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

/// Data for stdout, any number of lines.
pub fn out(text: &str) {
    let text = clean_lines(text);
    to_stdout(&if coloured(std::io::stdout().is_terminal()) { paint(&text) } else { text.into_owned() });
}

/// A value as JSON to stdout.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    json_text(&(serde_json::to_string_pretty(value)? + "\n"));
    Ok(())
}

/// Ready JSON to stdout.
pub fn json_text(text: &str) {
    to_stdout(&clean_json(text));
}

fn to_stdout(text: &str) {
    let mut taken = STDOUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !matches!(*taken, Taken::All) {
        return;
    }
    let mut stdout = std::io::stdout().lock();
    *taken = match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => return,
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Taken::Gone,
        Err(e) => Taken::Lost(e.to_string()),
    };
}

/// A line of progress to stderr; silent where quiet was asked for.
pub fn info(text: impl AsRef<str>) {
    if !quiet() {
        warn(text);
    }
}

/// Details for those who asked for them (`-v`), with the seconds since the program began; the text is made only then.
pub fn detail(text: impl FnOnce() -> String) {
    if verbose() {
        let seconds = BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64();
        warn(format!("[{seconds:8.3}] {}", text().trim_end().replace('\n', "\n           ")));
    }
}

/// A line to stderr that is always said. Where nobody takes it there is nobody to tell.
pub fn warn(text: impl AsRef<str>) {
    let text = clean_lines(text.as_ref());
    let text = if coloured(std::io::stderr().is_terminal()) { paint(&text) } else { text.into_owned() };
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end_matches('\n'));
}

/// The exit code of the process: what the work deserves, or 2 where its output was lost.
pub fn finish(code: ExitCode) -> ExitCode {
    let taken = STDOUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match &*taken {
        Taken::Lost(why) => {
            warn(format!(
                "error: cannot write to stdout: {why}\nhint: make room where the output goes, or send it elsewhere"
            ));
            ExitCode::from(2)
        }
        _ => code,
    }
}

/// Colours by how a line begins; the text itself has none.
fn paint(text: &str) -> String {
    const MARKED: &[(&str, &str)] = &[
        ("error:", "1;31"),
        ("failed", "1;31"),
        ("warning:", "1;33"),
        ("interrupted:", "1;33"),
        ("hint:", "36"),
        ("next:", "1;32"),
        ("Next:", "1;32"),
    ];
    let mut painted = String::new();
    for line in text.split_inclusive('\n') {
        match MARKED.iter().find(|(word, _)| line.starts_with(word)) {
            Some((word, code)) => painted += &format!("\u{1b}[{code}m{word}\u{1b}[0m{}", &line[word.len()..]),
            None => painted += line,
        }
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colour_that_is_asked_for_is_found_in_any_command_line() {
        let of = |words: &[&str]| color_of(words.iter().map(std::ffi::OsString::from));
        assert_eq!(of(&["run", "--color", "never", "--nope"]), Color::Never);
        assert_eq!(of(&["--color=always", "tiem"]), Color::Always);
        for words in [&["run"][..], &["--color"], &["--color", "sometimes"], &["--colors=never"]] {
            assert_eq!(of(words), Color::Auto, "{words:?}");
        }
    }

    #[test]
    fn colours_mark_the_beginning_of_a_line_and_change_no_text() {
        let text = "error: no\nhint: yes\nplain error: no\n";
        let painted = paint(text);
        assert_eq!(painted.matches("\u{1b}[").count(), 4);
        assert_eq!(painted.replace("\u{1b}[1;31m", "").replace("\u{1b}[36m", "").replace("\u{1b}[0m", ""), text);
    }
}
