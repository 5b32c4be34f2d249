//! `ergometer list`: what there is, by kind.
//!
//! In: the tables of the program and the shipped folders. Out: aligned text or JSON, the same in both. Must not: run or probe anything.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use ergometer_files::Links;
use ergometer_reports::metric::METRICS;
use ergometer_suites::error::near_matches;
use ergometer_suites::scenario::SCENARIOS;
use serde::Serialize;

use crate::backends::{BACKENDS, Backend};
use crate::console;
use crate::fetch::{self, FETCHES, FetchState, Fetcher};
use crate::graph::cost::Workload;
use crate::meters::METERS;
use crate::text_table::columns;

/// A kind of thing: its name and how to list it.
type Kind = (&'static str, fn() -> Vec<Entry>);

/// Everything that can be listed.
const KINDS: &[Kind] = &[
    ("models", models),
    ("backends", backends),
    ("tasks", tasks),
    ("scenarios", scenarios),
    ("meters", meters),
    ("metrics", metrics),
    ("suites", suites),
    ("datasets", datasets),
];

/// Their names.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  ergometer list metrics")]
pub struct Args {
    /// models, backends, tasks, scenarios, meters, metrics, suites or datasets
    #[arg(value_name = "KIND")]
    kind: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One line.
#[derive(Debug, PartialEq, Serialize)]
struct Entry {
    name: String,
    /// What decides how it is used: precisions, unit, family, path ...
    detail: String,
    about: String,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let entries = list(&args.kind)?;
    if args.json {
        console::json(&entries)?;
    } else if entries.is_empty() {
        console::warn(format!("no {} here\nhint: {EMPTY}", args.kind));
    } else {
        console::out(&columns(0, &entries.into_iter().map(|e| vec![e.name, e.detail, e.about]).collect::<Vec<_>>()));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(kind: &str) -> anyhow::Result<Vec<Entry>> {
    let names = || KINDS.iter().map(|(name, _)| *name);
    if let Some((_, entries)) = KINDS.iter().find(|(name, _)| *name == kind) {
        return Ok(entries());
    }
    let near = near_matches(kind, names());
    let hint = if near.is_empty() {
        format!("known are {}", names().collect::<Vec<_>>().join(", "))
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    bail!("cannot list `{kind}`\nhint: {hint}")
}

/// Why a kind may be empty.
const EMPTY: &str = "shipped folders are looked for above the program, then above the working directory; ERGOMETER_HOME names another place";

fn entry(name: impl Into<String>, detail: impl Into<String>, about: impl Into<String>) -> Entry {
    Entry { name: name.into(), detail: detail.into(), about: about.into() }
}

fn models() -> Vec<Entry> {
    ergometer_suites::shipped_models()
        .into_iter()
        .map(|(name, path)| {
            let file = path.join("config.json");
            let graph = ergometer_files::read(&file, crate::models::MAX_CONFIG_BYTES, Links::Followed)
                .map_err(|e| format!("{}: {e}", file.display()))
                .and_then(|text| crate::models::graph_of_config(&file, &text).map_err(|e| e.to_string()));
            match graph {
                Ok(graph) => {
                    let detail =
                        format!("{}, {} parameters", graph.family.name(), graph.cost(&Workload::one()).params_total);
                    entry(name, detail, path.display().to_string())
                }
                Err(why) => entry(name, "unusable", why),
            }
        })
        .collect()
}

fn backends() -> Vec<Entry> {
    let about = |b: &dyn Backend| match b.speaks() {
        true => format!("{}; language models in {}", b.about(), b.language_precisions().join(", ")),
        false => b.about().to_owned(),
    };
    BACKENDS.iter().map(|b| entry(b.name(), b.precisions().join(" "), about(*b))).collect()
}

fn tasks() -> Vec<Entry> {
    ergometer_suites::TASKS.iter().map(|t| entry(t.name, "", t.about)).collect()
}

fn scenarios() -> Vec<Entry> {
    SCENARIOS.iter().map(|s| entry(s.pattern(), s.amounts_to(), s.about)).collect()
}

fn meters() -> Vec<Entry> {
    METERS.iter().map(|m| entry(m.name, m.metrics.join(" "), m.about)).collect()
}

fn metrics() -> Vec<Entry> {
    METRICS.iter().map(|m| entry(m.name, m.unit, m.meaning)).collect()
}

fn suites() -> Vec<Entry> {
    ergometer_suites::shipped_suites()
        .into_iter()
        .map(|(name, path)| {
            let about = about_of(&path).unwrap_or_else(|why| format!("unusable: {why}"));
            entry(name, path.display().to_string(), about)
        })
        .collect()
}

/// The `about` of a suite file; nothing else of it is checked.
fn about_of(path: &Path) -> Result<String, String> {
    let text =
        ergometer_suites::text::read_text(path, ergometer_suites::suite::MAX_FILE_BYTES).map_err(|e| e.message)?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.message().to_string())?;
    Ok(table.get("about").and_then(|a| a.as_str()).unwrap_or_default().to_string())
}

/// Nothing is shipped: data sets are obtained by `ergometer fetch`.
fn datasets() -> Vec<Entry> {
    let fetcher = Fetcher::from_env().ok();
    let sets = FETCHES.iter().filter(|f| f.kind == fetch::FetchKind::Dataset);
    let state = |f| fetcher.as_ref().map_or(FetchState::Absent, |fetcher| fetcher.state(f)).text();
    sets.map(|f| entry(f.name, format!("{}, {}, {}", f.version, f.licence, state(f)), f.about)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_lists_what_the_tables_hold() {
        for (kind, _) in KINDS {
            for e in list(kind).unwrap() {
                assert!(!e.name.is_empty(), "{kind}: {e:?}");
            }
        }
        assert_eq!(list("metrics").unwrap().len(), METRICS.len());
        assert_eq!(list("backends").unwrap().len(), BACKENDS.len());
        assert!(list("suites").unwrap().iter().any(|e| e.name == "quick" && !e.about.is_empty()));
    }

    #[test]
    fn an_unknown_kind_names_the_near_ones() {
        assert!(list("metric").unwrap_err().to_string().contains("did you mean metrics"));
        assert!(list("zzzzzzzz").unwrap_err().to_string().contains("known are models"));
    }
}
