//! Reads mazes from a CSV file that the user names, in the layout of Maze-Hard: one maze a line, one character a cell.
//!
//! In: lines of question and perhaps answer (`# SGo`), with or without a header. Out: checked mazes. Must not: trust
//! anything in the file, take spaces away, hold more of it than a line and the mazes, or leave a row out that nobody
//! counts.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ergometer_files::counted;

use super::grid::{MazeGrid, SIDES};
use super::paths::{is_path, shortest};
use super::{MAX_EXAMPLES, Maze};
use crate::error::SuiteError;
use crate::text::{self, fields, next_line};

/// Longest line: several times question and answer of the largest maze.
const MAX_LINE: usize = 16 << 10;
/// What may stand between fields; the first wins where several fit equally.
const DELIMITERS: [u8; 4] = *b",;\t|";
/// Names of the column of mazes, in lower case; of several that are there the first here is read.
const QUESTIONS: [&str; 7] = ["question", "questions", "maze", "mazes", "puzzle", "input", "grid"];
/// Names of the column of mazes with their paths, likewise.
const ANSWERS: [&str; 9] =
    ["answer", "answers", "solution", "solutions", "path", "target", "label", "output", "result"];

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct WantedMazes {
    /// Side of every maze; that of the first row where nothing is said.
    pub side: Option<usize>,
    /// At most so many rows are read; all, up to [`MAX_EXAMPLES`], where nothing is said.
    pub limit: Option<usize>,
    /// Rows that are wrong are left out and counted, instead of ending the reading.
    pub skip_bad: bool,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub struct MazeFile {
    /// Side of every maze.
    pub side: usize,
    /// The mazes in order, no two alike; at least one. One with an answer has that path, which is as short as any.
    pub mazes: Vec<Maze>,
    /// Rows left out because they repeat an earlier maze.
    pub repeated: usize,
    /// Mazes that came without an answer and were solved here.
    pub solved: usize,
    /// Rows left out because they are wrong, where that is allowed.
    pub skipped: usize,
    /// What was wrong with the first of them, with its line.
    pub first_skipped: Option<String>,
}

/// Reads rows and checks each: characters, lengths, one start and one goal, that the answer is the same maze with a
/// path from start to goal that is as short as any. A row without an answer is solved here, and must have one shortest
/// path.
///
/// # Errors
/// The first row that is wrong, by file and line, unless such rows are skipped.
pub fn read(file: &Path, wanted: WantedMazes) -> Result<MazeFile, SuiteError> {
    let opened = text::open(file).map_err(|mut e| {
        e.message = format!("cannot read the mazes: {}", e.message);
        e.hint("name a CSV file; a path in a suite starts at the suite file's folder")
    })?;
    read_from(BufReader::new(opened), wanted).map_err(|e| e.in_file(file))
}

/// [`read`] from anything.
pub(super) fn read_from(mut from: impl BufRead, wanted: WantedMazes) -> Result<MazeFile, SuiteError> {
    let mut rows = MazeFile {
        side: wanted.side.unwrap_or(0),
        mazes: Vec::new(),
        repeated: 0,
        solved: 0,
        skipped: 0,
        first_skipped: None,
    };
    let (mut seen, mut columns) = (HashSet::new(), None);
    let (mut number, mut taken, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        number += 1;
        let place = |e: SuiteError| e.at(format!("line {number}"));
        if wanted.limit.is_some_and(|l| taken >= l) || !next_line(&mut from, &mut line, MAX_LINE).map_err(place)? {
            break;
        }
        let text = text_of(&line, number == 1).map_err(place)?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let columns = match &columns {
            Some(known) => known,
            None => {
                let (found, header) = MazeColumns::of(text).map_err(place)?;
                let found = columns.insert(found);
                if header {
                    continue;
                }
                found
            }
        };
        taken += 1;
        if taken as u64 > MAX_EXAMPLES {
            return Err(place(SuiteError::new(format!("more than {MAX_EXAMPLES} rows")).hint("set `limit`")));
        }
        match columns.row(text, Some(rows.side).filter(|s| *s > 0)) {
            Ok((maze, was_solved)) => {
                rows.side = maze.grid.side();
                rows.solved += usize::from(was_solved);
                if seen.insert(maze.grid.tokens(&[])) {
                    rows.mazes.push(maze);
                } else {
                    rows.repeated += 1;
                }
            }
            Err(e) if wanted.skip_bad => {
                rows.skipped += 1;
                rows.first_skipped.get_or_insert_with(|| format!("line {number}: {}", e.message));
            }
            Err(e) => return Err(place(e)),
        }
    }
    if !rows.mazes.is_empty() {
        return Ok(rows);
    }
    Err(match rows.first_skipped {
        Some(first) => SuiteError::new(format!("holds no maze: {} left out; {first}", counted(rows.skipped, "row"))),
        None => SuiteError::new("holds no maze"),
    }
    .hint("write one `question,answer` a line, one character a cell: `#` wall, space free, `S`, `G`, `o` path"))
}

/// A line that can be text; of the first one without its byte order mark, and named for what it is where it is none.
fn text_of(line: &[u8], first: bool) -> Result<&[u8], SuiteError> {
    let mut line = line;
    if first {
        if let Some((what, hint)) = text::sniff(line) {
            return Err(SuiteError::new(format!("is {what}")).hint(hint));
        }
        line = text::without_mark(line);
        if line.starts_with(b"{") || line.starts_with(b"[") {
            return Err(SuiteError::new("is JSON; mazes are read from CSV")
                .hint("write one `question,answer` a line: two columns, with or without a header"));
        }
    }
    if line.contains(&0) {
        return Err(SuiteError::new("a NUL byte, which no text has")
            .hint("the file is damaged, cut short by a full disk, or no text: copy it again"));
    }
    Ok(line)
}

/// Whether a field has the characters and the length of a maze.
fn is_board(field: &str) -> bool {
    let count = field.chars().count();
    let side = count.isqrt();
    side * side == count && SIDES.contains(&side) && field.chars().all(|c| "# .SGo".contains(c))
}

/// The place of a column's name among these.
fn rank(field: &str, names: &[&str]) -> Option<usize> {
    let name = field.trim().to_lowercase();
    names.iter().position(|n| *n == name)
}

/// Where a row has what.
struct MazeColumns {
    delimiter: u8,
    question: usize,
    answer: Option<usize>,
}

impl MazeColumns {
    /// By the first line, and whether that is a header.
    fn of(line: &[u8]) -> Result<(Self, bool), SuiteError> {
        let named = |f: &String| rank(f, &QUESTIONS).is_some() || rank(f, &ANSWERS).is_some();
        let split = DELIMITERS.map(|d| (d, fields(line, d)));
        let telling = |fields: &[String]| fields.iter().filter(|f| named(f) || is_board(f)).count();
        let most = split.iter().map(|(_, f)| telling(f)).max().unwrap_or(0);
        let [first, ..] = &split;
        let (delimiter, fields) = split.iter().find(|(_, f)| telling(f) == most).unwrap_or(first);
        let column = |names: &[&str]| {
            let found = fields.iter().enumerate().filter_map(|(i, f)| Some((rank(f, names)?, i)));
            found.min().map(|(_, i)| i)
        };
        let (question, answer) = (column(&QUESTIONS), column(&ANSWERS));
        if let Some(question) = question {
            return Ok((Self { delimiter: *delimiter, question, answer }, true));
        }
        let word = |f: &String| f.trim().len() > 1 && f.trim().chars().all(|c| c.is_alphanumeric() || c == '_');
        if answer.is_some() || (!fields.iter().any(|f| is_board(f)) && fields.iter().all(word)) {
            return Err(SuiteError::new("the header names no column of mazes").hint(format!(
                "name the column of mazes {}, and that of mazes with their paths, if there is one, {}; or leave the header out",
                QUESTIONS[..3].join(", "),
                ANSWERS[..4].join(", ")
            )));
        }
        let boards: Vec<usize> = (0..fields.len()).filter(|&i| is_board(&fields[i])).collect();
        let question = boards.iter().copied().find(|&i| !fields[i].contains('o')).unwrap_or(0);
        let answer = boards.into_iter().find(|&i| i != question);
        let answer = answer.or((question + 1 < fields.len()).then_some(question + 1));
        Ok((Self { delimiter: *delimiter, question, answer }, false))
    }

    /// A row's maze, and whether it was solved here.
    fn row(&self, line: &[u8], side: Option<usize>) -> Result<(Maze, bool), SuiteError> {
        let skip = "`skip_bad = true` leaves wrong rows out and counts them";
        if line.iter().filter(|b| **b == b'"').count() % 2 == 1 {
            return Err(SuiteError::new("a quote is not closed in its line")
                .hint(format!("close it, or take it out; a maze is written without ends of lines; {skip}")));
        }
        let fields = fields(line, self.delimiter);
        let question = fields.get(self.question).ok_or_else(|| {
            let (has, at) = (counted(fields.len(), "column"), self.question + 1);
            SuiteError::new(format!("has {has}; the mazes are in column {at}"))
                .hint(format!("rows are `question,answer`; {skip}"))
        })?;
        let in_column = |column: usize, mut e: SuiteError| {
            e.message = format!("column {}: {}", column + 1, e.message);
            e
        };
        let (grid, marks) = MazeGrid::parse(question).map_err(|e| in_column(self.question, e))?;
        if let Some(wanted) = side.filter(|s| *s != grid.side()) {
            let has = grid.side();
            return Err(SuiteError::new(format!("the maze is {has}x{has}, not {wanted}x{wanted}"))
                .hint(format!("all mazes of a file have one size; {skip}")));
        }
        if !marks.is_empty() {
            return Err(SuiteError::new("the maze has a path in it already")
                .hint(format!("the question is the maze without `o`; are the columns the right way round? {skip}")));
        }
        let best = shortest(&grid)
            .ok_or_else(|| SuiteError::new("no way leads from `S` to `G`").hint(format!("correct the row; {skip}")))?;
        let answer = self.answer.and_then(|c| Some((c, fields.get(c).filter(|a| !a.trim().is_empty())?)));
        let Some((column, answer)) = answer else {
            if best.count > 1 {
                return Err(SuiteError::new("the maze has more than one shortest path, and the row has no answer")
                    .hint(format!("give the path that is meant; {skip}")));
            }
            return Ok((Maze { grid, path: best }, true));
        };
        let (same, marks) = MazeGrid::parse(answer).map_err(|e| in_column(column, e))?;
        if same.side() != grid.side() {
            let (a, b) = (grid.side(), same.side());
            return Err(SuiteError::new(format!("the maze is {a}x{a} and its answer {b}x{b}"))
                .hint(format!("correct the row; {skip}")));
        }
        let (asked, given) = (grid.tokens(&[]), same.tokens(&[]));
        if let Some(cell) = (0..asked.len()).find(|&c| asked[c] != given[c]) {
            let (row, column) = (cell / grid.side() + 1, cell % grid.side() + 1);
            return Err(SuiteError::new(format!("maze and answer differ at row {row}, column {column}"))
                .hint(format!("an answer is the maze with `o` on free cells; {skip}")));
        }
        if !is_path(&grid, &marks) {
            return Err(SuiteError::new("the marks of the answer are no path from `S` to `G`")
                .hint(format!("`o` stands on every cell between them, and nowhere else; {skip}")));
        }
        let steps = marks.len() as u32 + 1;
        if steps != best.steps {
            let least = best.steps;
            return Err(SuiteError::new(format!("the marked path has {steps} steps, the shortest {least}"))
                .hint(format!("mark a shortest path; {skip}")));
        }
        Ok((Maze { path: super::ShortestPath { marks, ..best }, grid }, false))
    }
}
