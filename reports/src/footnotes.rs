//! Footnotes of a report's tables, those that differ in a number alone merged into one; and the columns in which no
//! case has a number, each told once for the whole run.
//!
//! In: tables and their footnotes, or any texts. Out: numbers for cells, and lines. Must not: merge what differs in
//! more than a number or two, or drop a note that a shown cell refers to.

use crate::{
    metric::HEADLINE,
    table::{Cell, Row, Table},
};

/// Most numbers in which notes that are merged may differ.
const MOST: usize = 2;

/// All notes, in groups.
pub struct Footnotes {
    /// Group of each footnote, in the order of the tables' own numbers.
    group: Vec<usize>,
    /// Text of each group.
    texts: Vec<String>,
    /// Groups that shown cells refer to, in the order in which they are met.
    shown: Vec<usize>,
}

impl Footnotes {
    /// Groups the notes of these tables.
    pub fn of(tables: &[Table], footnotes: &[String]) -> Self {
        // of one kind of reason alone: what merely speaks of a number keeps its own line
        let groups = groups(footnotes, is_reason);
        let mut group = vec![0; footnotes.len()];
        for (at, (_, members)) in groups.iter().enumerate() {
            members.iter().for_each(|i| group[*i] = at);
        }
        let cases = |members: &[usize]| {
            let rows = tables.iter().flat_map(|t| &t.rows);
            rows.filter(|r| r.cells.iter().any(|c| c.footnote.is_some_and(|f| members.contains(&(f - 1))))).count()
        };
        let texts = groups.iter().map(|(parts, members)| {
            let text = whole(parts);
            match cases(members) {
                0 | 1 => text,
                n => format!("{text} ({n} cases)"),
            }
        });
        Self { texts: texts.collect(), group, shown: Vec::new() }
    }

    /// Number under which a footnote of the tables is shown.
    pub fn number(&mut self, footnote: usize) -> usize {
        let group = self.group[footnote - 1];
        match self.shown.iter().position(|g| *g == group) {
            Some(at) => at + 1,
            None => {
                self.shown.push(group);
                self.shown.len()
            }
        }
    }

    /// The texts of these footnotes in one line, each once.
    pub fn take(&self, footnotes: impl Iterator<Item = usize>) -> String {
        ergometer_files::joined(self.groups(footnotes).into_iter().map(|g| &self.texts[g]))
    }

    /// The same, but of what has a line of its own its number.
    fn refer(&self, footnotes: impl Iterator<Item = usize>) -> String {
        let entry = |g: usize| match self.shown.iter().position(|shown| *shown == g) {
            Some(at) => format!("[{}]", at + 1),
            None => self.texts[g].clone(),
        };
        ergometer_files::joined(self.groups(footnotes).into_iter().map(entry))
    }

    fn groups(&self, footnotes: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut groups: Vec<usize> = footnotes.map(|f| self.group[f - 1]).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The texts that shown cells refer to, by rising number.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.shown.iter().map(|g| self.texts[*g].as_str())
    }

    /// The same as lines with their numbers.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.texts().enumerate().map(|(i, text)| format!("[{}] {text}", i + 1))
    }
}

/// Each of these texts once; those that differ in a number or two alone as one, with the least and the largest of it.
pub fn merged(texts: &[String]) -> Vec<String> {
    groups(texts, |_| true).iter().map(|(parts, _)| whole(parts)).collect()
}

/// Texts that are merged into one: their parts, and their places among all. Only those that `may` be are.
fn groups(texts: &[String], may: impl Fn(&str) -> bool) -> Vec<(Vec<Part>, Vec<usize>)> {
    let mut groups: Vec<(Vec<Part>, Vec<usize>)> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let parts = parts(text);
        let fits = |members: &[Part]| {
            let same = |(a, b): (&Part, &Part)| match (a, b) {
                (Part::Text(a), Part::Text(b)) => a == b,
                (Part::Number { .. }, Part::Number { .. }) => true,
                _ => false,
            };
            members.len() == parts.len() && members.iter().zip(&parts).all(same)
        };
        let widened = |members: &[Part]| members.iter().zip(&parts).map(|(a, b)| a.with(b)).collect::<Vec<_>>();
        let few = |members: &[Part]| widened(members).iter().filter(|p| p.varies()).count() <= MOST;
        let alike = |members: &[Part]| (may(text) || whole(members) == *text) && fits(members) && few(members);
        match groups.iter_mut().find(|(members, _)| alike(members)) {
            Some(group) => {
                group.0 = widened(&group.0);
                group.1.push(i);
            }
            None => groups.push((parts, vec![i])),
        }
    }
    groups
}

fn whole(parts: &[Part]) -> String {
    parts.iter().map(Part::text).collect()
}

/// Cases of a table that did not fail.
fn rows(table: &Table) -> impl Iterator<Item = &Row> {
    table.rows.iter().filter(|r| r.error.is_none())
}

/// The cell of a column, by its place in [`HEADLINE`].
pub fn cell_of(row: &Row, column: usize) -> Option<&Cell> {
    row.cells.iter().find(|c| c.title == HEADLINE[column].title)
}

/// The columns of a table, by their places in [`HEADLINE`], in which some case has a number.
pub fn columns(table: &Table) -> Vec<usize> {
    let has = |i: usize| rows(table).any(|r| cell_of(r, i).is_some_and(|c| c.value != "–"));
    (0..HEADLINE.len()).filter(|i| has(*i)).collect()
}

/// A line for each column that a table lacks because none of its cases has a number, with the reason: one where all
/// tables lack it, else one for those that lack it for the same reason.
pub fn gaps(tables: &[Table], notes: &Footnotes) -> Vec<String> {
    let tables: Vec<&Table> = tables.iter().filter(|t| rows(t).next().is_some()).collect();
    let mut found: Vec<(usize, String, Vec<&str>)> = Vec::new();
    let reasons_of = |column: usize, of: &[&Table]| {
        let footnotes = of.iter().flat_map(|t| rows(t)).filter_map(|r| cell_of(r, column)?.footnote);
        let reasons = notes.refer(footnotes);
        if reasons.is_empty() { "not recorded".to_owned() } else { reasons }
    };
    // a metric that no case of a table is asked for is no gap of it
    let asked = |i: usize, table: &Table| rows(table).any(|r| cell_of(r, i).is_some());
    let nowhere: Vec<usize> = (0..HEADLINE.len())
        .filter(|&i| tables.iter().all(|t| !columns(t).contains(&i)) && tables.iter().any(|t| asked(i, t)))
        .collect();
    if !tables.is_empty() {
        let tasks = || tables.iter().map(|t| t.task.as_str()).collect();
        found.extend(nowhere.iter().map(|i| (*i, reasons_of(*i, &tables), tasks())));
    }
    for table in &tables {
        let shown = columns(table);
        for i in (0..HEADLINE.len()).filter(|i| !shown.contains(i) && !nowhere.contains(i) && asked(*i, table)) {
            let reasons = reasons_of(i, &[table]);
            match found.iter_mut().find(|(column, why, _)| *column == i && *why == reasons) {
                Some((.., tasks)) => tasks.push(&table.task),
                None => found.push((i, reasons, vec![&table.task])),
            }
        }
    }
    found.sort_by_key(|(column, ..)| *column);
    let line = |(column, why, tasks): &(usize, String, Vec<&str>)| {
        let of = if tasks.len() == tables.len() { String::new() } else { format!(" of {}", tasks.join(", ")) };
        format!("No case{of} has {}: {why}", HEADLINE[*column].title)
    };
    found.iter().map(line).collect()
}

/// Begins with a kind, as the reason for a missing number does.
fn is_reason(note: &str) -> bool {
    note.split_once(": ").is_some_and(|(kind, _)| kind.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

/// A piece of a note.
#[derive(Clone, Debug)]
enum Part {
    Text(String),
    /// The least and the largest, as written.
    Number {
        least: String,
        most: String,
    },
}

impl Part {
    fn varies(&self) -> bool {
        matches!(self, Part::Number { least, most } if least != most)
    }

    fn with(&self, other: &Part) -> Part {
        let value = |s: &str| s.parse::<f64>().unwrap_or(0.0);
        match (self, other) {
            (Part::Number { least, most }, Part::Number { least: a, most: b }) => Part::Number {
                least: if value(a) < value(least) { a } else { least }.clone(),
                most: if value(b) > value(most) { b } else { most }.clone(),
            },
            _ => self.clone(),
        }
    }

    fn text(&self) -> String {
        match self {
            Part::Text(text) => text.clone(),
            Part::Number { least, most } if least == most => least.clone(),
            Part::Number { least, most } => format!("{least} to {most}"),
        }
    }
}

/// Numbers and what stands between them.
fn parts(note: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = note;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        if text > 0 {
            parts.push(Part::Text(rest[..text].into()));
            rest = &rest[text..];
            continue;
        }
        let mut end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        // a full stop ends a sentence
        while rest[..end].ends_with('.') {
            end -= 1;
        }
        let number = rest[..end].to_string();
        parts.push(Part::Number { least: number.clone(), most: number });
        rest = &rest[end..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_in_a_number_are_merged() {
        let texts = ["over 5 blocks", "over 10 blocks", "over 10 starts", "over 5 blocks"].map(String::from);
        assert_eq!(merged(&texts), ["over 5 to 10 blocks", "over 10 starts"]);
        assert!(merged(&[]).is_empty());
    }

    #[test]
    fn notes_that_differ_in_a_number_are_one() {
        let notes = [
            "too-few: n = 30 is too small, it needs 662",
            "too-few: n = 300 is too small, it needs 662",
            "it took 7.81 steps",
            "it took 7.9 steps",
            "unavailable: no powercap",
        ];
        let notes = notes.map(String::from);
        let mut all = Footnotes::of(&[], &notes);
        assert_eq!((all.number(2), all.number(1), all.number(4), all.number(3)), (1, 1, 2, 3));
        let lines: Vec<String> = all.lines().collect();
        assert_eq!(
            lines,
            [
                "[1] too-few: n = 30 to 300 is too small, it needs 662",
                "[2] it took 7.9 steps",
                "[3] it took 7.81 steps"
            ]
        );
        assert_eq!(
            all.take([5, 1, 2].into_iter()),
            "too-few: n = 30 to 300 is too small, it needs 662; unavailable: no powercap"
        );
        assert_eq!(all.refer([5, 1, 2].into_iter()), "[1]; unavailable: no powercap");
    }

    #[test]
    fn odd_notes_come_back_as_they_are() {
        for note in ["", "1", "a.", "1.2.3", "ü 5 µs", "..", "5."] {
            assert_eq!(parts(note).iter().map(Part::text).collect::<String>(), note);
        }
    }
}
