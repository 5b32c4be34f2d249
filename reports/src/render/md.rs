//! The headline table and what must be known about it, as Markdown.
//!
//! In: a [`Report`]. Out: `report.md`. Must not: let text of a case be read as markup.

use std::fmt::Write;

use super::{Files, html::routing};
use crate::{
    case::Case,
    clean::clean,
    footnotes::{Footnotes, cell_of, columns, gaps},
    format,
    metric::HEADLINE,
    report::Report,
    shown,
    strip::{Line, Strip},
    studies::studies,
    table::{Cell, Speedups, reason, tables},
    targets::{self, targets},
};

/// Makes `report.md`.
pub fn render(report: &Report) -> Files {
    let (tables, footnotes) = tables(report);
    let mut notes = Footnotes::of(&tables, &footnotes);
    let environment = &report.run.environment;
    let mut text = String::new();
    // writing to a String does not fail
    let unlike = Strip::unlike_protocols(report).as_ref().map(Line::text);
    let _ = write_head(&mut text, environment, unlike.as_deref());
    if let Some(limits) = Strip::of(report).line("limits") {
        let _ = writeln!(text, "- limits of the suite: {}", escaped(&limits.text()));
    }
    for table in &tables {
        let _ = write!(text, "\n## {}\n\n", escaped(&table.task));
        if !table.common.is_empty() {
            let _ = write!(text, "All cases: {}.\n\n", escaped(&table.common));
        }
        let columns = columns(table);
        let titles: Vec<&str> = columns.iter().map(|i| HEADLINE[*i].title).collect();
        // of cases that all failed there is one column, for the reasons
        let titles = if titles.is_empty() { vec!["outcome"] } else { titles };
        let _ = writeln!(text, "| case | {} |", titles.join(" | "));
        let _ = writeln!(text, "|:---|{}", "---:|".repeat(titles.len()));
        for row in &table.rows {
            let cells = match &row.error {
                Some(error) => format!("{}{}", escaped(&reason(error)), " |".repeat(titles.len() - 1)),
                None => {
                    let cell = |i: &usize| cell_of(row, *i).map_or_else(|| "–".into(), |c| shown(c, &mut notes));
                    columns.iter().map(cell).collect::<Vec<_>>().join(" | ")
                }
            };
            let _ = writeln!(text, "| {} | {cells} |", escaped(&row.name));
        }
        if !table.baselines.is_empty() {
            let _ = writeln!(text, "\nWithout a model: {}.", escaped(&table.baselines));
        }
        if !table.attempts.is_empty() {
            text += "\n| case | right by first attempts | needed a later attempt | the later attempts |\n|:---|---:|---:|:---|\n";
            for row in &table.attempts {
                let cells = [&row.name, &row.first, &row.later, &row.sources].map(|t| escaped(t)).join(" | ");
                let _ = writeln!(text, "| {cells} |");
            }
        }
        for interleaved in &table.speedups {
            let _ = write_speedups(&mut text, interleaved, &mut notes);
        }
    }
    let _ = write_targets(&mut text, report);
    let _ = write_studies(&mut text, report);
    let gaps = gaps(&tables, &notes);
    if !gaps.is_empty() || notes.lines().next().is_some() {
        text += "\n";
    }
    for line in gaps {
        let _ = writeln!(text, "- {}", escaped(&line));
    }
    for line in notes.lines() {
        let (number, words) = line.split_once(' ').unwrap_or((&line, ""));
        let _ = writeln!(text, "- {number} {}", escaped(words));
    }
    let notes: Vec<_> = report.run.cases.iter().filter(|c| !c.case.notes.is_empty()).collect();
    if !notes.is_empty() {
        text += "\n## Notes\n\n";
        for case in notes {
            let _ = writeln!(
                text,
                "- {}: {}",
                escaped(&case.case.path),
                escaped(&ergometer_files::joined(&case.case.notes))
            );
        }
    }
    let _ = write_experts(&mut text, report);
    let _ = write_ceilings(&mut text, report);
    text += "\nIn parentheses: 95 % intervals. `≤`: an upper bound that holds with 99 % confidence. Energy is gross.\n";
    Ok(vec![("report.md".into(), text.into_bytes())])
}

/// Speed-ups of the cases of one interleaved group.
fn write_speedups(text: &mut String, interleaved: &Speedups, notes: &mut Footnotes) -> std::fmt::Result {
    let common =
        if interleaved.common.is_empty() { String::new() } else { format!(" ({})", escaped(&interleaved.common)) };
    writeln!(
        text,
        "\nSpeed-up over {}, cases in turns{common}:\n\n| case | speed-up |\n|:---|---:|",
        escaped(&interleaved.base)
    )?;
    for row in &interleaved.rows {
        let shown = match &row.error {
            Some(error) => escaped(&error.kind),
            None => row.cells.iter().map(|c| shown(c, notes)).collect(),
        };
        writeln!(text, "| {} | {shown} |", escaped(&row.name))?;
    }
    Ok(())
}

/// What accuracies cost, where models were run at several depths.
fn write_targets(text: &mut String, report: &Report) -> std::fmt::Result {
    for table in targets(report) {
        write!(text, "\n## What an accuracy costs: {}\n\n{}\n\n", escaped(&table.task), targets::ABOUT)?;
        writeln!(text, "| at least | {} |\n|---:|:---|:---|---:|---:|---:|---:|", targets::TITLES.join(" | "))?;
        for row in &table.rows {
            writeln!(text, "| {} | {} |", row.target, row.cells().map(escaped).join(" | "))?;
        }
    }
    Ok(())
}

/// Tables that answer one question across cases.
fn write_studies(text: &mut String, report: &Report) -> std::fmt::Result {
    for study in studies(report) {
        write!(text, "\n## {}\n\n", escaped(&study.title))?;
        if !study.about.is_empty() {
            write!(text, "{}\n\n", escaped(&study.about))?;
        }
        let line = |cells: &[String]| cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" | ");
        let numbers = "---:|".repeat(study.titles.len().saturating_sub(2));
        writeln!(text, "| {} |\n|:---|:---|{numbers}", line(&study.titles))?;
        for row in &study.rows {
            writeln!(text, "| {} |", line(&row.cells))?;
        }
    }
    Ok(())
}

/// Value, interval and footnote.
fn shown(cell: &Cell, notes: &mut Footnotes) -> String {
    let interval = cell.interval.as_ref().map(|i| format!(" ({i})")).unwrap_or_default();
    let footnote = cell.footnote.map(|f| format!(" [{}]", notes.number(f))).unwrap_or_default();
    format!("{}{interval}{footnote}", cell.value)
}

/// Loads of the experts, for the cases that scored them.
fn write_experts(text: &mut String, report: &Report) -> std::fmt::Result {
    let scored = |c: &&crate::store::CaseRun| c.case.accuracy_from.as_ref() == Some(&c.case.id);
    let cases = report.run.cases.iter().filter(scored).map(|c| (&c.case, routing(report, &c.case)));
    let cases: Vec<_> = cases.filter(|(_, layers)| !layers.is_empty()).collect();
    if cases.is_empty() {
        return Ok(());
    }
    text.push_str("\n## Experts\n\n| case | layer | tokens | load of each expert, % of the choices | entropy over its maximum |\n");
    text.push_str("|:---|:---|---:|:---|---:|\n");
    for (case, layers) in cases {
        for l in layers {
            let (path, layer) = (escaped(&case.path), escaped(&l.layer));
            writeln!(text, "| {path} | {layer} | {} | {} | {} |", l.tokens, l.load, l.entropy)?;
        }
    }
    Ok(())
}

/// Share of the machine's ceiling, for the cases that have one.
fn write_ceilings(text: &mut String, report: &Report) -> std::fmt::Result {
    let record = |c: &Case, metric| report.record(c, metric).filter(|r| r.value.is_some());
    let rows = report.run.cases.iter().map(|c| &c.case);
    let rows: Vec<_> =
        rows.filter_map(|c| Some((c, record(c, "flop_rate")?, record(c, "share_of_ceiling")?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    text.push_str("\n## Share of the ceiling\n\n| case | model operations per second | share of what the machine can do at best | of which ceiling |\n");
    text.push_str("|:---|---:|---:|:---|\n");
    for (case, rate, share) in rows {
        let ceilings = report.run.environment.ceilings.as_ref();
        let Some(ceiling) = ceilings.and_then(|c| c.of_case(&case.key).ok()) else { continue };
        let held = format!("{}, {}", ceiling.name, format::scaled(ceiling.best, &ceiling.unit));
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            escaped(&case.path),
            shown::full(rate),
            shown::full(share),
            escaped(&held)
        )?;
    }
    Ok(())
}

/// `unlike`: in what accuracies that stand beside each other are not alike, which is to be known first.
fn write_head(text: &mut String, e: &crate::environment::Environment, unlike: Option<&str>) -> std::fmt::Result {
    write!(text, "# ergometer: {}\n\n", escaped(&e.suite))?;
    if let Some(unlike) = unlike {
        write!(text, "**Not alike:** {}.\n\n", escaped(unlike))?;
    }
    let cpu = format!(
        "{} ({} logical processors{})",
        e.cpu,
        e.cpus,
        if e.virtual_machine { ", virtual machine" } else { "" }
    );
    writeln!(text, "- processor: {}", escaped(&cpu))?;
    if !e.gpus.is_empty() {
        writeln!(text, "- GPUs: {}", escaped(&e.gpus.join(", ")))?;
    }
    writeln!(text, "- system: {}", escaped(&e.os))?;
    writeln!(text, "- ergometer: {}", escaped(&e.ergometer))?;
    writeln!(text, "- started: {}", escaped(&e.started))?;
    writeln!(text, "- command: {}", escaped(&e.command))
}

/// Text that Markdown shows as it is, on one line.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => out.extend(['\\', c]),
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            c => out.push(c),
        }
    }
    out
}
