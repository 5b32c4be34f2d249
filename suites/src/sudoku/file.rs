//! Reads puzzles from a CSV file that the user names.
//!
//! In: rows of puzzle and perhaps solution, with or without a header, fields apart by `,`, `;`, tab or `|`. Out:
//! checked puzzles with their rating. Must not: trust anything in the file, hold more of it than a few lines and the
//! puzzles, or leave a row out that nobody counts.

use std::collections::{HashSet, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::Path;

use ergometer_files::counted;

use super::board::Size;
use super::solver::solve;
use super::table::{CsvRecord, CsvRecords, PuzzleColumns, RecordFault};
use super::{MAX_EXAMPLES, MAX_GUESSES, Puzzle};
use crate::error::SuiteError;
use crate::text;

/// Rows that are looked at to tell columns of boards from columns that are only called so.
const LOOK: usize = 16;

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
pub struct PuzzleFile {
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
    /// Which columns were chosen, where several could be meant.
    pub columns: Option<String>,
}

/// Reads rows and checks each: characters, lengths, that the solution is solved and agrees with the clues, and that
/// there is no other. A row without a solution is solved here, and must have exactly one.
///
/// Columns are found by name and by what stands in them; without a header the first rows tell which are boards, with
/// empty cells and without. Empty cells are `0`, `.`, `_` or a space. Lines that begin with `#` are comments; a field
/// in quotes may go on in the next line.
///
/// Errors: the first row that is wrong, by file and line, unless such rows are skipped.
pub fn read(file: &Path, wanted: Wanted) -> Result<PuzzleFile, SuiteError> {
    let opened = text::open(file).map_err(|mut e| {
        e.message = format!("cannot read the puzzles: {}", e.message);
        e.hint("name a CSV file; a path in a suite starts at the suite file's folder")
    })?;
    read_from(BufReader::new(opened), wanted).map_err(|e| e.in_file(file))
}

/// [`read`] from anything.
pub(super) fn read_from(from: impl BufRead, wanted: Wanted) -> Result<PuzzleFile, SuiteError> {
    let mut size = wanted.size;
    let (mut puzzles, mut seen) = (Vec::new(), HashSet::new());
    let (mut repeated, mut solved, mut skipped, mut first_skipped) = (0, 0, 0, None);
    let mut taken = 0;
    let mut records = CsvRecords::new(from);
    let mut ahead: VecDeque<Result<CsvRecord, RecordFault>> = records.by_ref().take(LOOK + 1).collect();
    let columns = match ahead.front() {
        None => PuzzleColumns::of_rows(&[]),
        Some(Err(fault)) => return Err(fault.error.clone().at(format!("line {}", fault.line))),
        Some(Ok(first)) => {
            let under: Vec<&CsvRecord> = ahead.iter().skip(1).filter_map(|r| r.as_ref().ok()).collect();
            let named =
                PuzzleColumns::of_header(&first.fields, &under).map_err(|e| e.at(format!("line {}", first.line)))?;
            let header = named.is_some();
            let columns = named.unwrap_or_else(|| {
                let rows: Vec<&CsvRecord> = std::iter::once(first).chain(under).collect();
                PuzzleColumns::of_rows(&rows)
            });
            if header {
                ahead.pop_front();
            }
            columns
        }
    };
    for record in ahead.into_iter().chain(records) {
        if wanted.limit.is_some_and(|l| taken >= l) {
            break;
        }
        taken += 1;
        let line = record.as_ref().map_or_else(|f| f.line, |r| r.line);
        let place = |e: SuiteError| e.at(format!("line {line}"));
        if taken as u64 > MAX_EXAMPLES {
            return Err(place(SuiteError::new(format!("more than {MAX_EXAMPLES} rows")).hint("set `limit`")));
        }
        let read = match record {
            Err(fault) if fault.ends => return Err(place(fault.error)),
            Err(fault) => Err(fault.error),
            Ok(record) => row(&record.fields, &columns, size),
        };
        match read {
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
                first_skipped.get_or_insert_with(|| format!("line {line}: {}", e.message));
            }
            Err(e) => return Err(place(e)),
        }
    }
    match size.filter(|_| !puzzles.is_empty()) {
        Some(size) => Ok(PuzzleFile { size, puzzles, repeated, solved, skipped, first_skipped, columns: columns.note }),
        None => Err(match first_skipped {
            Some(first) => SuiteError::new(format!("holds no puzzle: {} left out; {first}", counted(skipped, "row"))),
            None => SuiteError::new("holds no puzzle"),
        }
        .hint("write one `puzzle,solution` a line")),
    }
}

/// A row's puzzle, and whether it was solved here.
fn row(fields: &[String], columns: &PuzzleColumns, wanted: Option<Size>) -> Result<(Puzzle, bool), SuiteError> {
    // of spaces alone there can be a board of sixteen
    if fields.iter().all(|f| f.trim().is_empty() && Size::from_cells(f.chars().count()).is_none()) {
        return Err(
            SuiteError::new("an empty row").hint("take it out, or write `skip_bad = true` to leave such rows out")
        );
    }
    let clues = fields.get(columns.puzzle).ok_or_else(|| {
        let has = counted(fields.len(), "column");
        SuiteError::new(format!("has {has}; the {} is wanted", ordinal(columns.puzzle)))
            .hint("rows are `puzzle,solution`, or `skip_bad = true` leaves wrong rows out and counts them")
    })?;
    // a board may be written row by row, a line each
    let clues = &clues.replace('\n', "");
    let solution = columns.solution.and_then(|c| fields.get(c)).filter(|s| !s.trim().is_empty());
    let solution = solution.map(|s| s.replace('\n', ""));
    let length = counted(clues.trim().chars().count(), "cell");
    let (size, clues) = sized(clues, wanted).ok_or_else(|| {
        let sides = wanted.map_or_else(|| "16, 36 or 81".to_owned(), |w| w.cells().to_string());
        SuiteError::new(format!("column {}: the puzzle has {length}, not {sides}", columns.puzzle + 1)).hint(
            "cells are written one after another, row by row; all puzzles of a file have one size; `skip_bad = true` leaves wrong rows \
             out and counts them",
        )
    })?;
    let clues = cells(size, "puzzle", columns.puzzle, clues)?;
    if let Some(solution) = &solution {
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
