//! Tables of recorded runs in a Markdown page: what stands between two marks is made again from the records of a run.
//!
//! In: a page, and the records of the folders that its marks name. Out: the page with every such table made anew. Must
//! not: change what stands outside the marks, or leave a table that it cannot make.
//!
//! A table stands between two comments, which a reader of the page does not see:
//!
//! ```text
//! <!-- records run=recorded/a-run metric=speedup rows=model,scenario columns=backend,precision where=threads:2 -->
//! <!-- /records -->
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{error::ReportError, natural, record::Record, render::md::escaped, shown};

/// How a mark begins, and what ends its table.
const OPEN: &str = "<!-- records ";
const CLOSE: &str = "<!-- /records -->";
const EXAMPLE: &str = "<!-- records run=FOLDER metric=latency rows=model columns=backend,precision -->";

/// Fields of a key that rows, columns and conditions may name.
const FIELDS: [&str; 9] = ["task", "model", "family", "backend", "precision", "scenario", "threads", "depth", "isa"];

fn field(record: &Record, name: &str) -> String {
    match name {
        "task" => record.task.clone(),
        "model" => record.model.clone(),
        "family" => record.family.clone(),
        "backend" => record.backend.clone(),
        "precision" => record.precision.clone(),
        "scenario" if record.scenario == "offline" => format!("offline-b{}", record.batch),
        "scenario" => record.scenario.clone(),
        "threads" => record.threads.to_string(),
        "depth" => record.depth.clone(),
        _ => record.isa.clone(),
    }
}

/// One table as its mark asks for it.
#[derive(Debug, Default)]
struct TableRequest {
    run: String,
    metric: String,
    rows: Vec<String>,
    columns: Vec<String>,
    conditions: Vec<(String, String)>,
}

/// The page with every marked table made from the records that `read` gives for the folder a mark names.
///
/// # Errors
/// A mark that is not understood or not closed, records that cannot be read, a table without rows, a cell with more
/// than one record.
pub fn splice(
    page: &Path,
    text: &str,
    mut read: impl FnMut(&str) -> Result<Vec<Record>, ReportError>,
) -> Result<String, ReportError> {
    let mut made = String::with_capacity(text.len());
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        made += line;
        made.push('\n');
        let bad = |message: String, hint: &str| ReportError::bad(page, Some(number), message, hint);
        if line.trim() == CLOSE {
            return Err(bad(format!("`{CLOSE}` ends no table"), "remove it, or write the mark that opens its table"));
        }
        let Some(mark) = line.trim().strip_prefix(OPEN) else { continue };
        let request = request(mark).map_err(|message| bad(message, &format!("a mark looks like `{EXAMPLE}`")))?;
        if !lines.by_ref().any(|(_, line)| line.trim() == CLOSE) {
            return Err(bad(
                "the table that begins here has no end".into(),
                &format!("write `{CLOSE}` on a line after it"),
            ));
        }
        let table = table(&request, &read(&request.run)?).map_err(|message| {
            bad(message, "`ergometer list metrics` names metrics; records.csv of the run shows its cases")
        })?;
        made += &table;
        made += CLOSE;
        made.push('\n');
    }
    if !text.ends_with('\n') {
        made.pop();
    }
    Ok(made)
}

/// What a mark asks for.
fn request(mark: &str) -> Result<TableRequest, String> {
    let words = mark.trim().strip_suffix("-->").ok_or("a mark is one comment in one line")?;
    let mut request = TableRequest::default();
    for word in words.split_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not key=value"))?;
        let fields = || {
            let names: Vec<String> = value.split(',').map(str::to_owned).collect();
            match names.iter().find(|n| !FIELDS.contains(&n.as_str())) {
                Some(unknown) => Err(format!("`{unknown}` is no field of a case: these are {}", FIELDS.join(", "))),
                None => Ok(names),
            }
        };
        match key {
            "run" => request.run = value.into(),
            "metric" => request.metric = value.into(),
            "rows" => request.rows = fields()?,
            "columns" => request.columns = fields()?,
            "where" => {
                for condition in value.split(',') {
                    let (name, wanted) = condition
                        .split_once(':')
                        .filter(|(name, _)| FIELDS.contains(name))
                        .ok_or_else(|| format!("`{condition}` is not FIELD:VALUE with one of {}", FIELDS.join(", ")))?;
                    request.conditions.push((name.into(), wanted.into()));
                }
            }
            _ => return Err(format!("unknown key `{key}`: they are run, metric, rows, columns, where")),
        }
    }
    for (name, empty) in [
        ("run", request.run.is_empty()),
        ("metric", request.metric.is_empty()),
        ("rows", request.rows.is_empty()),
        ("columns", request.columns.is_empty()),
    ] {
        if empty {
            return Err(format!("`{name}=` is missing"));
        }
    }
    Ok(request)
}

/// Names of a group of cases, which order as people expect of numbers in names.
#[derive(Clone, PartialEq, Eq)]
struct Names(Vec<String>);

impl PartialOrd for Names {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Names {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let orders = self.0.iter().zip(&other.0).map(|(a, b)| natural::compare(a, b));
        orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    }
}

fn table(request: &TableRequest, records: &[Record]) -> Result<String, String> {
    let names = |r: &Record, of: &[String]| Names(of.iter().map(|name| field(r, name)).collect());
    let all = |r: &Record| request.conditions.iter().all(|(name, wanted)| field(r, name) == *wanted);
    // by row and column
    let mut cells: BTreeMap<Names, BTreeMap<Names, &Record>> = BTreeMap::new();
    for record in records.iter().filter(|r| r.metric == request.metric && all(r)) {
        let row = cells.entry(names(record, &request.rows)).or_default();
        if row.insert(names(record, &request.columns), record).is_some() {
            return Err(format!(
                "more than one case for a cell of the table, one is `{}`: name another field in rows, columns or where",
                record.path
            ));
        }
    }
    if cells.is_empty() {
        return Err(format!("no case of `{}` has `{}` and what the mark asks for", request.run, request.metric));
    }
    let columns: BTreeSet<&Names> = cells.values().flat_map(BTreeMap::keys).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let escape = |texts: &[String]| texts.iter().map(|t| escaped(t)).collect::<Vec<_>>();
    let mut head = escape(&request.rows);
    head.extend(columns.iter().map(|c| escape(&c.0).join(" ")));
    let mut text = line(head.clone()) + &format!("|{}\n", "---|".repeat(head.len()));
    for (name, row) in &cells {
        let values = columns.iter().map(|column| row.get(*column).map_or_else(String::new, |r| shown::full(r)));
        text += &line(escape(&name.0).into_iter().chain(values).collect());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(model: &str, precision: &str, batch: u32, value: Option<f64>) -> Record {
        let text = |s: &str| s.to_owned();
        Record {
            case_id: text("0"),
            path: format!("t/{model}/{precision}/native/offline-b{batch}/t2/fixed-1"),
            task: text("t"),
            model: model.into(),
            family: text("dense"),
            backend: text("native"),
            precision: precision.into(),
            scenario: text("offline"),
            batch,
            threads: 2,
            depth: text("fixed-1"),
            isa: text("avx2"),
            metric: text("speedup"),
            unit: text("1"),
            better: crate::metric::Better::Higher,
            value,
            lower: value.map(|v| v - 0.1),
            upper: value.map(|v| v + 0.1),
            confidence: value.map(|_| 0.95),
            n: 10,
            method: text("m"),
            note: None,
            missing: None,
            baselines: Vec::new(),
            protocol: None,
        }
    }

    fn records() -> Vec<Record> {
        vec![
            record("wide-512", "bf16", 8, Some(2.0)),
            record("wide-512", "f32", 8, Some(1.0)),
            record("wide-64", "f32", 16, None),
            record("wide-64", "f32", 8, Some(0.5)),
        ]
    }

    fn made(page: &str) -> Result<String, String> {
        splice(Path::new("page.md"), page, |run| {
            assert_eq!(run, "here");
            Ok(records())
        })
        .map_err(|e| e.to_string())
    }

    const PAGE: &str = "# Title\n\n<!-- records run=here metric=speedup rows=model,scenario columns=backend,precision where=threads:2 -->\nold\n<!-- /records -->\nend";

    #[test]
    fn a_table_is_made_between_its_marks_and_nowhere_else() {
        let page = made(PAGE).unwrap();
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[..2], ["# Title", ""]);
        assert_eq!(lines[3], "| model | scenario | native bf16 | native f32 |");
        assert_eq!(lines[5], "| wide-64 | offline-b8 |  | 0.500 (0.400–0.600) |");
        assert_eq!(lines[6], "| wide-64 | offline-b16 |  | – |");
        assert_eq!(lines[7], "| wide-512 | offline-b8 | 2.00 (1.90–2.10) | 1.00 (0.900–1.10) |");
        assert_eq!(lines[8..], ["<!-- /records -->", "end"]);
        assert_eq!(made(&page).unwrap(), page, "a page that is up to date stays");
        assert_eq!(made("no marks\n").unwrap(), "no marks\n");
    }

    #[test]
    fn what_cannot_be_made_is_named_with_its_line() {
        for (from, to, said) in [
            ("rows=model,scenario", "rows=model", "more than one case for a cell"),
            ("rows=model,scenario", "rows=colour", "`colour` is no field of a case"),
            ("threads:2", "threads:3", "no case of `here`"),
            ("threads:2", "threads", "is not FIELD:VALUE"),
            ("metric=speedup ", "", "`metric=` is missing"),
            ("metric=speedup", "speedup", "is not key=value"),
            ("run=here", "path=here", "unknown key `path`"),
            ("<!-- /records -->", "", "has no end"),
        ] {
            let error = made(&PAGE.replace(from, to)).unwrap_err();
            assert!(
                error.contains("page.md`, line 3") && error.contains(said) && error.contains("\nhint: "),
                "{error}"
            );
        }
        assert!(made("a\n<!-- /records -->").unwrap_err().contains("line 2"));
    }
}
