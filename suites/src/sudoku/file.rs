//! Reads puzzles from a CSV file that the user names.
//!
//! In: rows of puzzle and solution, with or without a header. Out: checked puzzles with their rating. Must not: trust anything in the
//! file, or hold more of it than one line and the puzzles.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ergometer_files::{Links, Refusal};

use super::board::Size;
use super::{MAX_EXAMPLES, Puzzle};
use crate::error::SuiteError;

/// Longest line.
const MAX_LINE: u64 = 64 << 10;

/// Largest file, in bytes.
const MAX_BYTES: u64 = 16 << 30;

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Size of every puzzle.
    pub size: Size,
    /// The puzzles in order, no two alike; at least one.
    pub puzzles: Vec<Puzzle>,
    /// Rows left out because they repeat an earlier puzzle.
    pub repeated: usize,
}

/// Reads the first `limit` rows of `file` (all, up to [`MAX_EXAMPLES`], if `None`), and checks each: characters, lengths, that the
/// solution is solved and agrees with the clues, and that there is no other. The size is that of the first row, and `size` if given.
///
/// Columns are found by name (puzzle, question or quizzes; solution, answer or solutions); without a header they are the first two.
/// Empty cells are `0`, `.` or `_`.
///
/// Errors: the first row that is wrong, by file and line.
pub fn read(file: &Path, size: Option<Size>, limit: Option<usize>) -> Result<Rows, SuiteError> {
    let cannot = |e: std::io::Error| {
        SuiteError::new(format!("cannot read the puzzles: {e}"))
            .hint("a path in a suite starts at the suite file's folder")
    };
    let opened = ergometer_files::open(file, MAX_BYTES, Links::Followed).map_err(|e| match Refusal::of(&e) {
        Some(_) => SuiteError::new(e.to_string()).in_file(file).hint("name a CSV file"),
        None => cannot(e).in_file(file),
    })?;
    read_from(BufReader::new(opened), size, limit).map_err(|e| e.in_file(file))
}

/// [`read`] from anything.
pub(super) fn read_from(mut from: impl BufRead, size: Option<Size>, limit: Option<usize>) -> Result<Rows, SuiteError> {
    let mut columns = None;
    let mut rows: Option<Rows> = None;
    let mut seen = HashSet::new();
    let mut taken = 0;
    let mut line = Vec::new();
    for number in 1.. {
        if limit.is_some_and(|l| taken >= l) {
            break;
        }
        let place = |e: SuiteError| e.at(format!("line {number}"));
        line.clear();
        let n = (&mut from).take(MAX_LINE + 1).read_until(b'\n', &mut line);
        if n.map_err(|e| place(SuiteError::new(format!("cannot be read: {e}"))))? == 0 {
            break;
        }
        if line.len() as u64 > MAX_LINE {
            return Err(place(SuiteError::new(format!("longer than {MAX_LINE} bytes")).hint("is it a CSV file?")));
        }
        let text = if number == 1 { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&line) } else { &line };
        let Some(fields) = split(text) else { continue };
        let (puzzle_column, solution_column) = match columns {
            Some(columns) => columns,
            None => {
                let named = header(&fields).map_err(place)?;
                columns = Some(named.unwrap_or((0, 1)));
                if named.is_some() {
                    continue;
                }
                (0, 1)
            }
        };
        let field = |column: usize| {
            fields.get(column).ok_or_else(|| {
                SuiteError::new(format!("has {} columns; the {} is wanted", fields.len(), ordinal(column)))
                    .hint("rows are `puzzle,solution`")
            })
        };
        let wanted = rows.as_ref().map(|r| r.size).or(size);
        let puzzle = field(puzzle_column)
            .and_then(|p| field(solution_column).and_then(|s| check(p, s, wanted)))
            .map_err(place)?;
        taken += 1;
        if taken as u64 > MAX_EXAMPLES {
            return Err(place(SuiteError::new(format!("more than {MAX_EXAMPLES} rows")).hint("set `limit`")));
        }
        let rows = rows.get_or_insert_with(|| Rows { size: puzzle.size, puzzles: Vec::new(), repeated: 0 });
        if seen.insert(puzzle.clues.clone()) {
            rows.puzzles.push(puzzle);
        } else {
            rows.repeated += 1;
        }
    }
    rows.ok_or_else(|| SuiteError::new("holds no puzzle").hint("write one `puzzle,solution` a line"))
}

/// Fields of one line, trimmed; `None` for a blank line.
fn split(line: &[u8]) -> Option<Vec<String>> {
    // One reader a line, so that an open quote ends with its line instead of swallowing the file.
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .buffer_capacity(line.len().max(1))
        .from_reader(line.trim_ascii_end());
    let mut record = csv::ByteRecord::new();
    let found = reader.read_byte_record(&mut record).unwrap_or(false);
    found.then(|| record.iter().map(|f| String::from_utf8_lossy(f.trim_ascii()).into_owned()).collect())
}

/// Columns of puzzle and solution if the line is a header, `None` if it is a puzzle.
fn header(fields: &[String]) -> Result<Option<(usize, usize)>, SuiteError> {
    let column = |names: [&str; 3]| fields.iter().position(|f| names.contains(&f.to_ascii_lowercase().as_str()));
    let puzzle = column(["puzzle", "question", "quizzes"]);
    let solution = column(["solution", "answer", "solutions"]);
    match (puzzle, solution) {
        (Some(puzzle), Some(solution)) => Ok(Some((puzzle, solution))),
        // A first line of letters that names no known column would otherwise read as a malformed puzzle.
        _ if puzzle.is_some()
            || solution.is_some()
            || fields.iter().all(|f| f.starts_with(|c: char| c.is_alphabetic())) =>
        {
            Err(SuiteError::new("the header names no pair of known columns").hint(
                "name them puzzle (or question, quizzes) and solution (or answer, solutions), or leave the header out",
            ))
        }
        _ => Ok(None),
    }
}

fn check(clues: &str, solution: &str, wanted: Option<Size>) -> Result<Puzzle, SuiteError> {
    let length = clues.chars().count();
    let size = Size::from_cells(length).filter(|s| wanted.is_none_or(|w| w == *s)).ok_or_else(|| {
        let sides = wanted.map_or_else(|| "16, 36 or 81".to_owned(), |w| w.cells().to_string());
        SuiteError::new(format!("the puzzle has {length} cells, not {sides}"))
            .hint("cells are written one after another, row by row; all puzzles of a file have one size")
    })?;
    let clues = cells(size, "puzzle", clues)?;
    let solution = cells(size, "solution", solution)?;
    Puzzle::new(size, clues, solution)
}

fn cells(size: Size, what: &str, text: &str) -> Result<Vec<u8>, SuiteError> {
    let digit = |(at, c): (usize, char)| match c {
        '.' | '_' => Ok(0),
        _ => c.to_digit(10).filter(|d| *d as usize <= size.side()).map(|d| d as u8).ok_or_else(|| {
            SuiteError::new(format!("the {what} has {c:?} as its {} cell", ordinal(at)))
                .hint(format!("digits 1 to {}; 0, `.` or `_` for an empty cell", size.side()))
        }),
    };
    text.chars().enumerate().map(digit).collect()
}

fn ordinal(index: usize) -> String {
    let n = index + 1;
    let ending = match (n % 10, n % 100) {
        (1, k) if k != 11 => "st",
        (2, k) if k != 12 => "nd",
        (3, k) if k != 13 => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}
