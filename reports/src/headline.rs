//! The headline table for a terminal.
//!
//! In: a [`Report`] and the width of the terminal in characters. Out: plain text. Must not: use colour, or run over the width with a table that
//! would fit as a list.

use crate::{
    report::Report,
    shown::clean,
    table::{Row, Speedups, TITLES, Table, reason, tables},
};

/// The headline table of every task, then the footnotes.
pub fn headline(report: &Report, width: usize) -> String {
    let (tables, footnotes) = tables(report);
    let mut text = String::new();
    for table in &tables {
        text += &one(table, width);
        text.push('\n');
    }
    for (i, footnote) in footnotes.iter().enumerate() {
        text += &wrapped(&format!("[{}] {}", i + 1, plain(footnote)), width, "    ");
    }
    text
}

fn one(table: &Table, width: usize) -> String {
    // an extra blank line would be all that an empty list of shared parts adds
    let title = if table.common.contains(&table.task) || table.common.is_empty() {
        plain(&table.common)
    } else {
        plain(&format!("{} · {}", table.task, table.common))
    };
    let mut text = wrapped(if title.is_empty() { &table.task } else { &title }, width, "  ");
    let mut grid: Vec<Vec<String>> = vec![vec!["case".into()]];
    grid[0].extend(TITLES.map(|t| t.replace("joules per right answer", "J per right")));
    for row in table.rows.iter().filter(|r| r.error.is_none()) {
        grid.push(std::iter::once(plain(&row.name)).chain(cells(row)).collect());
    }
    let widths: Vec<usize> = (0..grid[0].len())
        .map(|i| grid.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let fits = widths.iter().sum::<usize>() + 2 * (widths.len() - 1) <= width;
    if fits {
        for line in grid.iter().filter(|_| grid.len() > 1) {
            let mut out = format!("{:<1$}", line[0], widths[0]);
            for (cell, width) in line[1..].iter().zip(&widths[1..]) {
                out += &format!("  {cell:>width$}");
            }
            text += out.trim_end();
            text.push('\n');
        }
    } else {
        for line in &grid[1..] {
            text += &wrapped(&line[0], width, "  ");
            let items: Vec<String> =
                grid[0][1..].iter().zip(&line[1..]).map(|(t, cell)| format!("{t} {cell}")).collect();
            text += &filled(&items, width);
        }
    }
    if !table.baselines.is_empty() {
        let line = plain(&format!("Without a model: {}.", table.baselines)).replace('\u{202f}', " ");
        text += &wrapped(&line, width, "  ");
    }
    for row in &table.rows {
        if let Some(error) = &row.error {
            text += &wrapped(&plain(&format!("{}: {}", row.name, reason(error))), width, "    ");
        }
    }
    for sitting in &table.speedups {
        text += &speedups(sitting, width);
    }
    text
}

/// Speed-ups of one sitting, a line a case.
fn speedups(sitting: &Speedups, width: usize) -> String {
    let title = format!("Speed-up over {}, cases in turns ({}):", sitting.base, sitting.common);
    let mut text = String::from("\n") + &wrapped(&plain(&title.replace(" ()", "")), width, "  ");
    let room = sitting.rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0);
    for row in &sitting.rows {
        let shown = row.error.as_ref().map_or_else(|| cells(row).collect(), |e| plain(&e.kind));
        let name = plain(&row.name);
        text += &format!("  {name:<room$}  {shown}\n");
    }
    text
}

fn cells(row: &Row) -> impl Iterator<Item = String> {
    row.cells.iter().map(|cell| {
        let interval = cell.interval.as_ref().map(|i| format!(" ({i})")).unwrap_or_default();
        let footnote = cell.footnote.map(|f| format!(" [{f}]")).unwrap_or_default();
        format!("{}{interval}{footnote}", cell.value).replace('\u{202f}', " ")
    })
}

/// A message of an untrusted worker must not steer the terminal.
fn plain(text: &str) -> String {
    clean(text).into_owned()
}

/// Items on indented lines, none of them broken.
fn filled(items: &[String], width: usize) -> String {
    let mut lines = String::new();
    let mut used = width;
    for item in items {
        let needed = item.chars().count() + 2;
        if used + needed > width {
            lines += if lines.is_empty() { "  " } else { "\n  " };
            used = 2;
        } else {
            lines += "  ";
            used += 2;
        }
        lines += item;
        used += needed - 2;
    }
    lines + "\n"
}

/// Breaks a line at blanks; further lines begin with `indent`.
fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > width.max(20) {
            lines += line.trim_end();
            lines.push('\n');
            line = indent.to_owned();
        } else if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + line.trim_end() + "\n"
}
