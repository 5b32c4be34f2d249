//! Reads puzzles from a CSV file that the user names.
//!
//! In: rows of puzzle and perhaps solution, with or without a header, fields apart by `,`, `;`, tab or `|`. Out: checked puzzles with their
//! rating. Must not: trust anything in the file, hold more of it than one line and the puzzles, or leave a row out that nobody counts.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::board::Size;
use super::solver::solve;
use super::{MAX_EXAMPLES, MAX_GUESSES, Puzzle};
use crate::error::SuiteError;
use crate::text;

/// Longest line.
const MAX_LINE: usize = 64 << 10;
/// What may stand between fields; the first wins where several fit equally.
const DELIMITERS: [u8; 4] = *b",;\t|";
/// Names of the column of puzzles, in lower case.
const PUZZLES: [&str; 7] = ["puzzle", "puzzles", "question", "quizzes", "quiz", "clues", "unsolved"];
/// Names of the column of solutions, in lower case.
const SOLUTIONS: [&str; 6] = ["solution", "solutions", "answer", "answers", "solved", "label"];

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Size of every puzzle; that of the first row where nothing is said.
    pub size: Option<Size>,
    /// At most so many rows are read; all, up to [`MAX_EXAMPLES`], where nothing is said.
    pub limit: Option<usize>,
    /// Rows that are wrong are left out and counted, instead of ending the reading.
    pub skip_bad: bool,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Size of every puzzle.
    pub size: Size,
    /// The puzzles in order, no two alike; at least one.
    pub puzzles: Vec<Puzzle>,
    /// Rows left out because they repeat an earlier puzzle.
    pub repeated: usize,
    /// Rows that came without a solution and were solved here.
    pub solved: usize,
    /// Rows left out because they are wrong, where that is allowed.
    pub skipped: usize,
    /// What was wrong with the first of them, with its line.
    pub first_skipped: Option<String>,
}

/// Reads rows and checks each: characters, lengths, that the solution is solved and agrees with the clues, and that there is no other. A
/// row without a solution is solved here, and must have exactly one.
///
/// Columns are found by name (`PUZZLES`, `SOLUTIONS`); without a header they are the first two that look like boards. Empty cells are
/// `0`, `.`, `_` or a space.
///
/// Errors: the first row that is wrong, by file and line, unless such rows are skipped.
pub fn read(file: &Path, wanted: Wanted) -> Result<Rows, SuiteError> {
    let opened = text::open(file).map_err(|mut e| {
        e.message = format!("cannot read the puzzles: {}", e.message);
        e.hint("name a CSV file; a path in a suite starts at the suite file's folder")
    })?;
    read_from(BufReader::new(opened), wanted).map_err(|e| e.in_file(file))
}

/// Where a row has what.
#[derive(Clone, Copy)]
struct Columns {
    puzzle: usize,
    solution: Option<usize>,
}

/// [`read`] from anything.
pub(super) fn read_from(mut from: impl BufRead, wanted: Wanted) -> Result<Rows, SuiteError> {
    let mut layout: Option<(u8, Columns)> = None;
    let mut size = wanted.size;
    let (mut puzzles, mut seen) = (Vec::new(), HashSet::new());
    let (mut repeated, mut solved, mut skipped, mut first_skipped) = (0, 0, 0, None);
    let mut taken = 0;
    let mut line = Vec::new();
    for number in 1.. {
        if wanted.limit.is_some_and(|l| taken >= l) {
            break;
        }
        let place = |e: SuiteError| e.at(format!("line {number}"));
        if !next_line(&mut from, &mut line).map_err(place)? {
            break;
        }
        let mut bytes = &line[..];
        if number == 1 {
            // what is no text at all is named for what it is
            if let Some((what, hint)) = text::sniff(bytes) {
                return Err(SuiteError::new(format!("is {what}")).hint(hint));
            }
            bytes = bytes.strip_prefix(text::BOM).unwrap_or(bytes);
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        if bytes.contains(&0) {
            return Err(place(
                SuiteError::new("a NUL byte, which no text has")
                    .hint("the file is damaged, cut short by a full disk, or no text: copy it again"),
            ));
        }
        let (delimiter, columns) = match layout {
            Some(known) => known,
            None => {
                let (delimiter, fields) = split_first(bytes);
                let named = header(&fields).map_err(place)?;
                let found = (delimiter, named.unwrap_or_else(|| columns_of(&fields)));
                layout = Some(found);
                if named.is_some() {
                    continue;
                }
                found
            }
        };
        taken += 1;
        if taken as u64 > MAX_EXAMPLES {
            return Err(place(SuiteError::new(format!("more than {MAX_EXAMPLES} rows")).hint("set `limit`")));
        }
        match row(&split(bytes, delimiter), columns, size) {
            Ok((puzzle, was_solved)) => {
                size = Some(puzzle.size);
                solved += usize::from(was_solved);
                if seen.insert(puzzle.clues.clone()) {
                    puzzles.push(puzzle);
                } else {
                    repeated += 1;
                }
            }
            Err(e) if wanted.skip_bad => {
                skipped += 1;
                first_skipped.get_or_insert_with(|| format!("line {number}: {}", e.message));
            }
            Err(e) => return Err(place(e)),
        }
    }
    match size.filter(|_| !puzzles.is_empty()) {
        Some(size) => Ok(Rows { size, puzzles, repeated, solved, skipped, first_skipped }),
        None => Err(match first_skipped {
            Some(first) => SuiteError::new(format!("none of its {skipped} rows is a puzzle; {first}")),
            None => SuiteError::new("holds no puzzle"),
        }
        .hint("write one `puzzle,solution` a line")),
    }
}

/// The next line without its end (`\n`, `\r\n`, or a lone `\r` as old Macs write); false at the end of the file.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, SuiteError> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = from.fill_buf().map_err(|e| SuiteError::new(format!("cannot be read: {e}")))?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|b| matches!(b, b'\n' | b'\r'));
        let n = end.unwrap_or(buffer.len());
        line.extend_from_slice(&buffer[..n.min(MAX_LINE + 1)]);
        if line.len() > MAX_LINE {
            return Err(SuiteError::new(format!("longer than {MAX_LINE} bytes")).hint("is it a CSV file?"));
        }
        let Some(end) = end else {
            from.consume(n);
            continue;
        };
        let returned = buffer[end] == b'\r';
        from.consume(end + 1);
        if returned && from.fill_buf().is_ok_and(|b| b.first() == Some(&b'\n')) {
            from.consume(1);
        }
        return Ok(true);
    }
}

/// Fields of one line as they stand, spaces included: a space can be an empty cell.
fn split(line: &[u8], delimiter: u8) -> Vec<String> {
    // One reader a line, so that an open quote ends with its line instead of swallowing the file.
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .buffer_capacity(line.len().max(1))
        .from_reader(line);
    let mut record = csv::ByteRecord::new();
    let _ = reader.read_byte_record(&mut record);
    record.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect()
}

/// The first line's delimiter: the one by which it names a column or shows a board; of several the one that gives most fields.
fn split_first(line: &[u8]) -> (u8, Vec<String>) {
    let split = DELIMITERS.map(|d| (d, split(line, d)));
    let telling = |fields: &[String]| fields.iter().filter(|f| named(f) || board(f).is_some()).count();
    let best = split.iter().map(|(_, f)| (telling(f), f.len())).max().unwrap_or_default();
    let [first, ..] = &split;
    split.iter().find(|(_, f)| (telling(f), f.len()) == best).unwrap_or(first).clone()
}

fn named(field: &str) -> bool {
    let name = field.trim().to_ascii_lowercase();
    PUZZLES.contains(&name.as_str()) || SOLUTIONS.contains(&name.as_str())
}

/// A field's cells, if there are as many as a board has: as it stands, else without the spaces around it.
fn board(field: &str) -> Option<(Size, &str)> {
    let of = |text: &'_ str| Size::from_cells(text.chars().count());
    let cell = |c: char| c.is_ascii_digit() || matches!(c, '.' | '_' | ' ');
    let found = of(field).map(|s| (s, field)).or_else(|| of(field.trim()).map(|s| (s, field.trim())));
    found.filter(|(_, text)| text.chars().all(cell))
}

/// Columns by the names of a header; `None` if the line is a row.
fn header(fields: &[String]) -> Result<Option<Columns>, SuiteError> {
    let hint = format!(
        "name the column of puzzles {} and that of solutions, if there is one, {}; or leave the header out",
        PUZZLES.join(", "),
        SOLUTIONS.join(", ")
    );
    let column = |names: &[&str]| -> Result<Option<usize>, SuiteError> {
        let is = |f: &String| names.contains(&f.trim().to_ascii_lowercase().as_str());
        let mut places = fields.iter().enumerate().filter(|(_, f)| is(f)).map(|(i, _)| i);
        match (places.next(), places.next()) {
            (Some(a), Some(b)) => Err(SuiteError::new(format!(
                "the header's columns {} (`{}`) and {} (`{}`) both name what only one can be",
                a + 1,
                fields[a].trim(),
                b + 1,
                fields[b].trim()
            ))
            .hint("rename one of them")),
            (found, _) => Ok(found),
        }
    };
    match (column(&PUZZLES)?, column(&SOLUTIONS)?) {
        (Some(puzzle), solution) => Ok(Some(Columns { puzzle, solution })),
        // A first line of letters that names no known column would otherwise read as a malformed puzzle.
        (None, solution)
            if solution.is_some() || fields.iter().all(|f| f.trim().starts_with(|c: char| c.is_alphabetic())) =>
        {
            Err(SuiteError::new("the header names no column of puzzles").hint(hint))
        }
        _ => Ok(None),
    }
}

/// Columns of a file without a header, by its first row: the first two boards, else the first two columns.
fn columns_of(fields: &[String]) -> Columns {
    let mut boards = fields.iter().enumerate().filter(|(_, f)| board(f).is_some()).map(|(i, _)| i);
    let puzzle = boards.next().unwrap_or(0);
    let after = (puzzle + 1 < fields.len()).then_some(puzzle + 1);
    Columns { puzzle, solution: boards.next().or(after) }
}

/// A row's puzzle, and whether it was solved here.
fn row(fields: &[String], columns: Columns, wanted: Option<Size>) -> Result<(Puzzle, bool), SuiteError> {
    if fields.iter().all(|f| f.trim().is_empty()) && fields.iter().all(|f| board(f).is_none()) {
        return Err(
            SuiteError::new("an empty row").hint("take it out, or write `skip_bad = true` to leave such rows out")
        );
    }
    let clues = fields.get(columns.puzzle).ok_or_else(|| {
        SuiteError::new(format!("has {} columns; the {} is wanted", fields.len(), ordinal(columns.puzzle)))
            .hint("rows are `puzzle,solution`, or `skip_bad = true` leaves wrong rows out and counts them")
    })?;
    let solution = columns.solution.and_then(|c| fields.get(c)).filter(|s| !s.trim().is_empty());
    let length = clues.trim().chars().count();
    let (size, clues) = sized(clues, wanted).ok_or_else(|| {
        let sides = wanted.map_or_else(|| "16, 36 or 81".to_owned(), |w| w.cells().to_string());
        SuiteError::new(format!("column {}: the puzzle has {length} cells, not {sides}", columns.puzzle + 1)).hint(
            "cells are written one after another, row by row; all puzzles of a file have one size; `skip_bad = true` leaves wrong rows \
             out and counts them",
        )
    })?;
    let clues = cells(size, "puzzle", columns.puzzle, clues)?;
    if let Some(solution) = solution {
        let column = columns.solution.unwrap_or(0);
        let solution = sized(solution, Some(size)).map_or(solution.trim(), |(_, s)| s);
        let solution = cells(size, "solution", column, solution)?;
        return Puzzle::new(size, clues, solution).map(|p| (p, false));
    }
    let outcome = solve(size, &clues);
    match (outcome.gave_up, outcome.solution) {
        (false, None) => Err(SuiteError::new("the puzzle has no solution").hint("correct the row or leave it out")),
        (true, _) => Err(SuiteError::new(format!("after {MAX_GUESSES} guesses the puzzle is not solved"))
            .hint("leave the row out, or give its solution")),
        (false, Some(solution)) if outcome.solutions == 1 => {
            Ok((Puzzle { size, clues, solution, guesses: outcome.guesses }, true))
        }
        _ => Err(SuiteError::new("the puzzle has more than one solution").hint("leave the row out, or add clues")),
    }
}

/// A field's cells and their size: as it stands, else without the spaces around it.
fn sized(field: &str, wanted: Option<Size>) -> Option<(Size, &str)> {
    let fits = |text: &str| Size::from_cells(text.chars().count()).filter(|s| wanted.is_none_or(|w| w == *s));
    fits(field).map(|s| (s, field)).or_else(|| fits(field.trim()).map(|s| (s, field.trim())))
}

fn cells(size: Size, what: &str, column: usize, text: &str) -> Result<Vec<u8>, SuiteError> {
    let digit = |(at, c): (usize, char)| match c {
        '.' | '_' | ' ' => Ok(0),
        _ => c.to_digit(10).filter(|d| *d as usize <= size.side()).map(|d| d as u8).ok_or_else(|| {
            SuiteError::new(format!("column {}: the {what} has {c:?} as its {} cell", column + 1, ordinal(at)))
                .hint(format!("digits 1 to {}; 0, `.`, `_` or a space for an empty cell", size.side()))
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
