//! Records of a CSV file as people have it: comments, quotes, a line that names the delimiter, fields with line breaks;
//! and the columns of puzzles and solutions by their names and by what stands in them.
//!
//! In: bytes. Out: records with the line on which each begins. Must not: hold more than a few lines, swallow a file
//! after a quote that is never closed, or choose between columns that are called alike.

use std::collections::VecDeque;
use std::io::BufRead;

use super::board::Size;
use crate::error::SuiteError;
use crate::text;

/// Longest line.
const MAX_LINE: usize = 64 << 10;
/// Most lines of one record: a board row by row, or a remark of a few lines.
const MAX_LINES: usize = 16;
/// What may stand between fields; the first wins where several fit equally.
const DELIMITERS: [u8; 4] = *b",;\t|";
/// And this where none of them tells: a blank can be an empty cell too. Several are one.
const BLANK: u8 = b' ';
/// Names of the column of puzzles, in lower case; of several that are there the first here is read.
const PUZZLES: [&str; 16] = [
    "puzzle",
    "puzzles",
    "question",
    "questions",
    "quiz",
    "quizzes",
    "sudoku",
    "unsolved",
    "problem",
    "board",
    "grid",
    "givens",
    "clues",
    "start",
    "input",
    "initial",
];
/// Names of the column of solutions, likewise.
const SOLUTIONS: [&str; 10] =
    ["solution", "solutions", "solved", "answer", "answers", "target", "label", "output", "result", "final"];

/// One row of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvRecord {
    /// Line on which it begins, from 1.
    pub line: usize,
    /// Its fields as they stand, spaces included: a space can be an empty cell.
    pub fields: Vec<String>,
}

/// What is wrong with a record, or with the file from there on.
#[derive(Clone, Debug)]
pub struct RecordFault {
    /// The line.
    pub line: usize,
    /// The fault.
    pub error: SuiteError,
    /// Nothing after it can be read.
    pub ends: bool,
}

/// The records of a file, in order, without comments and empty lines.
pub struct CsvRecords<R> {
    from: R,
    /// Lines read.
    lines: usize,
    /// Lines that were looked at and are still to be taken.
    waiting: VecDeque<(usize, Vec<u8>)>,
    delimiter: Option<u8>,
    /// No record was given yet.
    header_due: bool,
    ended: bool,
}

impl<R: BufRead> CsvRecords<R> {
    /// Of something to read.
    pub fn new(from: R) -> Self {
        Self { from, lines: 0, waiting: VecDeque::new(), delimiter: None, header_due: true, ended: false }
    }

    /// The next line with its number; none at the end.
    fn line(&mut self) -> Result<Option<(usize, Vec<u8>)>, RecordFault> {
        if let Some(line) = self.waiting.pop_front() {
            return Ok(Some(line));
        }
        let number = self.lines + 1;
        let fault = |error| RecordFault { line: number, error, ends: true };
        let mut line = Vec::new();
        if !text::next_line(&mut self.from, &mut line, MAX_LINE).map_err(fault)? {
            return Ok(None);
        }
        self.lines = number;
        if number == 1 {
            // what is no text at all is named for what it is
            if let Some((what, hint)) = text::sniff(&line) {
                return Err(fault(SuiteError::new(format!("is {what}")).hint(hint)));
            }
            if line.starts_with(text::BOM) {
                line.drain(..text::BOM.len());
            }
        }
        if line.contains(&0) {
            return Err(fault(
                SuiteError::new("a NUL byte, which no text has")
                    .hint("the file is damaged, cut short by a full disk, or no text: copy it again"),
            ));
        }
        Ok(Some((number, line)))
    }

    /// The next record.
    fn record(&mut self) -> Result<Option<CsvRecord>, RecordFault> {
        loop {
            let Some((number, line)) = self.line()? else { return Ok(None) };
            let mut bytes = &line[..];
            let begin = line.trim_ascii_start();
            let first = self.delimiter.is_none();
            if begin.is_empty() {
                continue;
            }
            if first && (begin.starts_with(b"{") || begin.starts_with(b"[")) {
                let error = SuiteError::new("is JSON; puzzles are read from CSV")
                    .hint("write one `puzzle,solution` a line: two columns, with or without a header");
                return Err(RecordFault { line: number, error, ends: true });
            }
            if first && let Some(delimiter) = named_delimiter(begin) {
                self.delimiter = Some(delimiter);
                continue;
            }
            if let Some(rest) = begin.strip_prefix(b"#") {
                // a comment, unless it is the header
                if !self.header_due || !split_first(rest).1.iter().any(|f| rank(f, &PUZZLES).is_some()) {
                    continue;
                }
                bytes = rest;
            }
            self.header_due = false;
            return self.whole(number, bytes.to_vec()).map(Some);
        }
    }

    /// The record that begins with this line: with the lines after it where a quoted field goes on in them.
    fn whole(&mut self, number: usize, mut bytes: Vec<u8>) -> Result<CsvRecord, RecordFault> {
        let marks = self.delimiter.map_or(DELIMITERS.to_vec(), |d| vec![d]);
        let mut more: Vec<(usize, Vec<u8>)> = Vec::new();
        let fault = loop {
            let Some(column) = open_quote(&bytes, &marks) else { break None };
            let unclosed = RecordFault {
                line: number,
                error: SuiteError::new(format!("column {column}: a quote opens here and is not closed"))
                    .hint("close it, or take it out; `skip_bad = true` leaves wrong rows out and counts them"),
                ends: false,
            };
            if more.len() + 1 >= MAX_LINES || bytes.len() > MAX_LINE {
                break Some(unclosed);
            }
            let next = match self.line() {
                Ok(Some(next)) => next,
                Ok(None) => break Some(unclosed),
                // told when its turn comes
                Err(fault) => break Some(fault),
            };
            // a row by itself is no part of a field
            let alone = fields_of(&next.1, self.delimiter.unwrap_or(DELIMITERS[0]));
            let row = alone.iter().any(|f| board(f).is_some());
            bytes.push(b'\n');
            bytes.extend_from_slice(&next.1);
            more.push(next);
            if row {
                break Some(unclosed);
            }
        };
        if let Some(fault) = fault {
            if !fault.ends {
                more.into_iter().rev().for_each(|line| self.waiting.push_front(line));
            }
            return Err(fault);
        }
        let fields = match self.delimiter {
            Some(delimiter) => fields_of(&bytes, delimiter),
            None => {
                let (delimiter, fields) = split_first(&bytes);
                self.delimiter = Some(delimiter);
                fields
            }
        };
        Ok(CsvRecord { line: number, fields })
    }
}

impl<R: BufRead> Iterator for CsvRecords<R> {
    type Item = Result<CsvRecord, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.record();
        self.ended = match &record {
            Ok(record) => record.is_none(),
            Err(fault) => fault.ends,
        };
        record.transpose()
    }
}

/// The delimiter that a first line of its own names, as spreadsheets write it: `sep=;`.
fn named_delimiter(line: &[u8]) -> Option<u8> {
    let text = String::from_utf8_lossy(line).to_lowercase();
    let mark = *text.trim_end_matches(['"', ' ']).trim_start_matches('"').strip_prefix("sep=")?.as_bytes().first()?;
    DELIMITERS.contains(&mark).then_some(mark)
}

/// The column, from 1, whose quote is still open at the end of these bytes; a quote opens at the beginning of a field.
fn open_quote(bytes: &[u8], marks: &[u8]) -> Option<usize> {
    let (mut inside, mut begins, mut column) = (false, true, 1);
    let mut rest = bytes.iter().peekable();
    while let Some(&byte) = rest.next() {
        if inside {
            if byte == b'"' && rest.next_if(|b| **b == b'"').is_none() {
                inside = false;
            }
            continue;
        }
        if begins && byte == b'"' {
            inside = true;
        }
        begins = marks.contains(&byte);
        column += usize::from(begins);
    }
    inside.then_some(column)
}

/// Fields of one record.
fn split(bytes: &[u8], delimiter: u8) -> Vec<String> {
    text::fields(bytes, delimiter).iter().map(|f| unquoted(f).to_owned()).collect()
}

/// Fields of one record, whatever stands between them.
fn fields_of(bytes: &[u8], delimiter: u8) -> Vec<String> {
    match delimiter {
        BLANK => String::from_utf8_lossy(bytes).split_ascii_whitespace().map(|f| unquoted(f).to_owned()).collect(),
        _ => split(bytes, delimiter),
    }
}

/// A field without the single quotes around it, as some programs write them.
fn unquoted(field: &str) -> &str {
    let inner = field.trim().strip_prefix('\'').and_then(|f| f.strip_suffix('\''));
    inner.unwrap_or(field)
}

/// The first record's delimiter: the one by which it names a column or shows a board; of several the one that gives
/// most fields.
fn split_first(bytes: &[u8]) -> (u8, Vec<String>) {
    let split = DELIMITERS.map(|d| (d, split(bytes, d)));
    let named = |f: &str| rank(f, &PUZZLES).is_some() || rank(f, &SOLUTIONS).is_some();
    let telling = |fields: &[String]| fields.iter().filter(|f| named(f) || board(f).is_some()).count();
    let best = split.iter().map(|(_, f)| (telling(f), f.len())).max().unwrap_or_default();
    if best.0 == 0 {
        let words = fields_of(bytes, BLANK);
        let told = |f: &String| named(f) || board(f).is_some();
        if words.len() > 1 && words.iter().all(told) {
            return (BLANK, words);
        }
    }
    let [first, ..] = &split;
    split.iter().find(|(_, f)| (telling(f), f.len()) == best).unwrap_or(first).clone()
}

/// The name of a column.
fn name(field: &str) -> String {
    field.trim().trim_start_matches('#').trim().to_lowercase()
}

/// The place of a column's name among these.
fn rank(field: &str, names: &[&str]) -> Option<usize> {
    let name = name(field);
    names.iter().position(|n| *n == name)
}

/// A field's cells, if there are as many as a board has: as it stands, else without the spaces around it.
fn board(field: &str) -> Option<Size> {
    let lines = field.replace('\n', "");
    let of = |text: &str| Size::from_cells(text.chars().count()).map(|size| (size, text.to_owned()));
    let cell = |c: char| c.is_ascii_digit() || matches!(c, '.' | '_' | ' ');
    let found = of(&lines).or_else(|| of(lines.trim()));
    found.filter(|(_, text)| text.chars().all(cell)).map(|(size, _)| size)
}

/// A board some of whose cells are empty.
fn unsolved(field: &str) -> bool {
    board(field).is_some() && field.trim().contains(['0', '.', '_', ' '])
}

/// Where a row has what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PuzzleColumns {
    /// The puzzle.
    pub puzzle: usize,
    /// Its solution, if there is a column for it.
    pub solution: Option<usize>,
    /// What was chosen between, in words.
    pub note: Option<String>,
}

impl PuzzleColumns {
    /// By the names of a header, and between several that could be meant by what stands in the rows under it; `None` if
    /// the line is a row.
    ///
    /// Errors: no column of puzzles; two columns of one name that both hold boards.
    pub fn of_header(header: &[String], rows: &[&CsvRecord]) -> Result<Option<Self>, SuiteError> {
        let holds = |i: usize| rows.iter().any(|r| r.fields.get(i).is_some_and(|f| board(f).is_some()));
        let mut note = None;
        let mut column = |what: &str, names: &[&str]| -> Result<Option<usize>, SuiteError> {
            let mut found: Vec<(usize, usize)> =
                header.iter().enumerate().filter_map(|(i, f)| Some((rank(f, names)?, i))).collect();
            found.sort_unstable();
            // a number of clues is no puzzle, and a class is no solution
            if found.iter().any(|(_, i)| holds(*i)) {
                found.retain(|(_, i)| holds(*i));
            }
            if let [(a, first), (b, second), ..] = found[..] {
                if a == b {
                    return Err(SuiteError::new(format!(
                        "columns {} and {} are both called `{}`",
                        first + 1,
                        second + 1,
                        names[a]
                    ))
                    .hint("rename one of them: which of them is meant cannot be known"));
                }
                note = Some(format!(
                    "Of the columns that can be the {what} `{}` is read, and not `{}`.",
                    names[a], names[b]
                ));
            }
            Ok(found.first().map(|(_, i)| *i))
        };
        let (named, solution) = (column("puzzle", &PUZZLES)?, column("solution", &SOLUTIONS)?);
        let word = |f: &String| f.trim().starts_with(|c: char| c.is_alphabetic());
        let words = header.iter().any(word) && header.iter().all(|f| f.trim().is_empty() || word(f));
        if named.is_none() && solution.is_none() && !words {
            return Ok(None);
        }
        // without a known name, or where it is that of a number: the one other column of boards with empty cells
        let others = (0..header.len())
            .filter(|i| Some(*i) != solution && rows.iter().any(|r| r.fields.get(*i).is_some_and(|f| unsolved(f))));
        let others: Vec<usize> = others.collect();
        let puzzle = match (named, &others[..]) {
            (Some(named), _) if rows.is_empty() || holds(named) => named,
            (_, [other]) => {
                note = Some(format!("Column {} (`{}`) is read as the puzzles.", other + 1, header[*other].trim()));
                *other
            }
            (Some(named), _) => named,
            (None, _) => {
                return Err(SuiteError::new("the header names no column of puzzles").hint(format!(
                    "name the column of puzzles {}, and that of solutions, if there is one, {}; or leave the header out",
                    PUZZLES[..8].join(", "),
                    SOLUTIONS[..5].join(", ")
                )));
            }
        };
        Ok(Some(Self { puzzle, solution, note }))
    }

    /// Of a file without a header, by its first rows: puzzles are the first column with boards that have empty cells,
    /// solutions another one of boards; where nothing tells, the first two.
    pub fn of_rows(rows: &[&CsvRecord]) -> Self {
        let columns = rows.iter().map(|r| r.fields.len()).max().unwrap_or(0);
        let any = |i: usize, is: fn(&str) -> bool| rows.iter().any(|r| r.fields.get(i).is_some_and(|f| is(f)));
        let boards: Vec<usize> = (0..columns).filter(|i| any(*i, |f| board(f).is_some())).collect();
        let open = boards.iter().copied().find(|i| any(*i, unsolved));
        let puzzle = match (open, &boards[..]) {
            (Some(open), _) => open,
            // boards without an empty cell are solutions; what stands before them was to be the puzzles
            (None, [only]) => only.saturating_sub(1),
            (None, boards) => boards.first().copied().unwrap_or(0),
        };
        let solved = boards.iter().copied().find(|i| *i != puzzle && !any(*i, unsolved));
        let after = boards.iter().copied().find(|i| *i > puzzle).or((puzzle + 1 < columns).then_some(puzzle + 1));
        Self { puzzle, solution: solved.or(after), note: None }
    }
}
