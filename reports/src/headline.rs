//! What a terminal shows of a run: the strip, a table of every task, reasons.
//!
//! In: a [`Report`] and the width of the terminal in characters. Out: plain text. Must not: use colour, run over the
//! width, or leave out a number without saying so.
//!
//! A table has one line a case. Where intervals do not fit they are left out; where even that is too wide each case is
//! a card. What is left out, columns without any number too, is said once, under the last table, with the reason.

use crate::{
    case::{Case, Verdict},
    clean::clean,
    footnotes::{Footnotes, cell_of, columns, gaps},
    labels::Labels,
    metric::HEADLINE,
    report::Report,
    strip::Strip,
    studies::studies,
    table::{Row, Speedups, Table, reason, tables},
    targets::{self, targets},
};

/// Where the text of the strip's lines begins.
const INDENT: usize = 15;

/// The strip, the table of every task, then the footnotes.
pub fn headline(report: &Report, width: usize) -> String {
    let width = width.max(20);
    let (tables, footnotes) = tables(report);
    let mut notes = Footnotes::of(&tables, &footnotes);
    let mut text = String::new();
    for line in Strip::of(report).lines {
        let mut lines = wrapped(&plain(&line.text()), width.saturating_sub(INDENT), "").into_iter();
        text += &format!("{:<INDENT$}{}\n", line.title, lines.next().unwrap_or_default());
        lines.for_each(|l| text += &format!("{:INDENT$}{l}\n", ""));
    }
    text.push('\n');
    let mut needed = 0;
    for table in &tables {
        text += &one(table, width, &mut notes, &mut needed);
        let uncompared = accuracy_only(report, &table.task);
        if !uncompared.is_empty() {
            let line = format!("accuracy only, nobody compared their outputs: {}", uncompared.join(", "));
            text += &joined(&plain(&line), width, "  ");
        }
        text.push('\n');
    }
    let tables_of_targets = targets(report);
    if !tables_of_targets.is_empty() {
        text += &joined(&format!("What an accuracy costs. {}", targets::ABOUT), width, "  ");
    }
    for table in tables_of_targets {
        text += &joined(&plain(&table.task), width, "  ");
        let head = std::iter::once("at least").chain(targets::TITLES);
        let body = table.rows.iter().map(|row| std::iter::once(&*row.target).chain(row.cells()).map(plain).collect());
        let grid: Vec<Vec<String>> = std::iter::once(head.map(str::to_owned).collect()).chain(body).collect();
        text += &fitted(&grid, width);
        text.push('\n');
    }
    for study in studies(report) {
        text += &joined(&plain(&format!("{}. {}", study.title, study.about)), width, "  ");
        let lines = std::iter::once(&study.titles).chain(study.rows.iter().map(|row| &row.cells));
        let cell = |text: &String| plain(text).replace('\u{202f}', " ");
        let grid: Vec<Vec<String>> = lines.map(|line| line.iter().map(cell).collect()).collect();
        text += &fitted(&grid, width);
        text.push('\n');
    }
    if needed > 0 {
        let line = format!("Intervals that do not fit are left out: they need {needed} columns; the report has them.");
        text += &joined(&line, width, "  ");
    }
    for line in gaps(&tables, &notes) {
        text += &joined(&plain(&line), width, "  ");
    }
    for footnote in notes.lines() {
        text += &joined(&plain(&footnote), width, "    ");
    }
    text
}

/// Cases of a task that were not compared with anything.
fn accuracy_only(report: &Report, task: &str) -> Vec<String> {
    let cases: Vec<&Case> = report.run.cases.iter().map(|c| &c.case).filter(|c| c.key.task == task).collect();
    let labels = Labels::of(cases.iter().copied());
    // of a case without an accuracy it stands behind its name
    let uncompared = |c: &&&Case| {
        report.error(c).is_none() && c.unscored.is_none() && matches!(c.verdict, Some(Verdict::AccuracyOnly))
    };
    cases.iter().filter(uncompared).map(|c| labels.short(&c.id).to_string()).collect()
}

/// One task. `needed` becomes the width that the intervals of some table would need, where it is more than there is.
fn one(table: &Table, width: usize, notes: &mut Footnotes, needed: &mut usize) -> String {
    // an extra blank line would be all that an empty list of shared parts adds
    let title = if table.common.contains(&table.task) || table.common.is_empty() {
        plain(&table.common)
    } else {
        plain(&format!("{} · {}", table.task, table.common))
    };
    let mut text = joined(if title.is_empty() { &table.task } else { &title }, width, "  ");
    let rows: Vec<&Row> = table.rows.iter().filter(|r| r.error.is_none()).collect();
    let shown = columns(table);
    let grid = |intervals: bool, notes: &mut Footnotes| -> Vec<Vec<String>> {
        let head = std::iter::once("case".to_string()).chain(shown.iter().map(|i| HEADLINE[*i].short.to_string()));
        let body = rows.iter().map(|row| {
            let cells =
                shown.iter().map(|i| cell_of(row, *i).map_or_else(|| "–".into(), |c| cell(c, intervals, notes)));
            std::iter::once(plain(&row.name)).chain(cells).collect()
        });
        std::iter::once(head.collect()).chain(body).collect()
    };
    // numbers of footnotes are given in the order in which they are met
    let whole = grid(true, notes);
    let bare = grid(false, notes);
    let fits = |grid: &[Vec<String>]| widths(grid).iter().map(|w| w + 2).sum::<usize>() <= width + 2;
    if rows.is_empty() {
    } else if fits(&whole) {
        text += &aligned(&whole);
    } else if fits(&bare) {
        text += &aligned(&bare);
        *needed = (*needed).max(widths(&whole).iter().map(|w| w + 2).sum::<usize>() - 2);
    } else {
        for line in &whole[1..] {
            text += &joined(&line[0], width, "  ");
            for (title, cell) in whole[0][1..].iter().zip(&line[1..]) {
                text += &format!("  {title:<11} {cell}\n");
            }
        }
    }
    if !table.baselines.is_empty() {
        let line = plain(&format!("Without a model: {}.", table.baselines)).replace('\u{202f}', " ");
        text += &joined(&line, width, "  ");
    }
    for (why, word, cases) in reasons(table) {
        let line = match &cases[..] {
            [one] => format!("{word}{one}: {why}"),
            _ => format!("{word}{} cases: {why}: {}", cases.len(), cases.join("; ")),
        };
        text += &joined(&plain(&line), width, "    ");
    }
    for interleaved in &table.speedups {
        text += &speedups(interleaved, width, notes);
    }
    text
}

/// Why cases have no numbers, each reason once in the order in which they are met: the reason, a word before it, the
/// cases.
fn reasons(table: &Table) -> Vec<(String, &'static str, Vec<&str>)> {
    let mut all: Vec<(String, &str, Vec<&str>)> = Vec::new();
    for row in &table.rows {
        let Some(error) = &row.error else { continue };
        // what cannot be had here did not fail; its reason begins with that word
        let word = if error.kind == "unavailable" { "" } else { "failed: " };
        let why = reason(error);
        match all.iter_mut().find(|(known, ..)| *known == why) {
            Some((.., cases)) => cases.push(&row.name),
            None => all.push((why, word, vec![&row.name])),
        }
    }
    all
}

fn widths(grid: &[Vec<String>]) -> Vec<usize> {
    let columns = 0..grid.first().map_or(0, Vec::len);
    columns.map(|i| grid.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)).collect()
}

/// A grid with its titles; where it is wider than the terminal, a list of its lines.
fn fitted(grid: &[Vec<String>], width: usize) -> String {
    let wide = widths(grid).iter().map(|w| w + 2).sum::<usize>() > width + 2;
    match wide {
        true => grid[1..].iter().map(|line| joined(&titled(&grid[0], line), width, "    ")).collect(),
        false => aligned(grid),
    }
}

/// A line of a grid as text, each part but the first with its title before it.
fn titled(titles: &[String], line: &[String]) -> String {
    let parts = titles.iter().zip(line).enumerate();
    let named = parts.map(|(i, (title, cell))| if i == 0 { cell.clone() } else { format!("{title}: {cell}") });
    named.collect::<Vec<_>>().join("; ")
}

/// The first column to the left, all others to the right.
fn aligned(grid: &[Vec<String>]) -> String {
    let widths = widths(grid);
    let mut text = String::new();
    for line in grid {
        let mut out = format!("{:<1$}", line[0], widths[0]);
        for (cell, width) in line[1..].iter().zip(&widths[1..]) {
            out += &format!("  {cell:>width$}");
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

/// Speed-ups of one interleaved group, a line a case.
fn speedups(interleaved: &Speedups, width: usize, notes: &mut Footnotes) -> String {
    let title = format!("Speed-up over {}, cases in turns ({}):", interleaved.base, interleaved.common);
    let mut text = String::from("\n") + &joined(&plain(&title.replace(" ()", "")), width, "  ");
    let room = interleaved.rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0);
    for row in &interleaved.rows {
        let shown = row
            .error
            .as_ref()
            .map_or_else(|| row.cells.iter().map(|c| cell(c, true, notes)).collect(), |e| plain(&e.kind));
        let name = plain(&row.name);
        text += &format!("  {name:<room$}  {shown}\n");
    }
    text
}

fn cell(cell: &crate::table::Cell, intervals: bool, notes: &mut Footnotes) -> String {
    let interval = cell.interval.as_ref().filter(|_| intervals).map(|i| format!(" ({i})")).unwrap_or_default();
    let footnote = cell.footnote.map(|f| format!(" [{}]", notes.number(f))).unwrap_or_default();
    format!("{}{interval}{footnote}", cell.value).replace('\u{202f}', " ")
}

/// A message of an untrusted worker must not steer the terminal.
fn plain(text: &str) -> String {
    clean(text).into_owned()
}

fn joined(text: &str, width: usize, indent: &str) -> String {
    wrapped(text, width, indent).join("\n") + "\n"
}

/// Breaks a text at blanks; further lines begin with `indent`.
fn wrapped(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > width.max(20) {
            lines.push(line.trim_end().to_owned());
            line = indent.to_owned();
        } else if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines.push(line.trim_end().to_owned());
    lines
}
