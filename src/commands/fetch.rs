//! `ergometer fetch`: runtimes, models and data sets by name, pinned and checked.
//!
//! In: names from the table of [`FETCHES`]. Out: their paths, one a line, or without names the table and how each stands. Must not: print
//! anything else to stdout; pip's words go to stderr.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use ergometer_suites::error::did_you_mean;
use serde::Serialize;

use crate::console;
use crate::fetch::{FETCHES, Fetch, FetchKind, FetchState, Fetcher, item};
use crate::interrupt;
use crate::text_table::columns;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  ergometer fetch onnxruntime\n\nWithout names it lists what there is. \
    Needs python3 with pip; where there is no network, bring the file and use `--from`.")]
pub struct Args {
    /// What to obtain
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Take it from this file instead of the network: the package's file, or the thing itself
    #[arg(long, value_name = "FILE", requires = "names")]
    from: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One item and how it stands.
#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    kind: FetchKind,
    version: &'static str,
    licence: &'static str,
    about: &'static str,
    state: FetchState,
    /// Of the file on this platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

impl Entry {
    fn new(fetcher: &Fetcher, item: &Fetch) -> Self {
        Self {
            name: item.name,
            kind: item.kind,
            version: item.version,
            licence: item.licence,
            about: item.about,
            state: fetcher.state(item),
            bytes: item.variant().map(|v| v.bytes),
            sha256: item.variant().map(|v| v.sha256),
            path: fetcher.path(item),
        }
    }
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let fetcher = Fetcher { chatty: true, ..Fetcher::from_env()? };
    if args.from.is_some() && args.names.len() != 1 {
        bail!(
            "`--from` brings one item, {} are named\nhint: call `ergometer fetch` once for each file",
            args.names.len()
        );
    }
    console::detail(|| format!("cache folder {}; offline: {}", fetcher.cache.display(), fetcher.offline));
    let chosen = args.names.iter().map(|name| named(name)).collect::<anyhow::Result<Vec<&Fetch>>>()?;
    let words: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    interrupt::words(move || format!("what was complete is kept\nnext: ergometer {}", interrupt::shell(&words)));
    for item in &chosen {
        let before = fetcher.state(item);
        match &args.from {
            Some(file) => fetcher.take(item, file)?,
            None => fetcher.fetch(item)?,
        };
        let how = if before == FetchState::Here { "was here already, checked" } else { "obtained and checked" };
        console::info(format!("{} {}: {how}", item.name, item.version));
    }
    let listing = chosen.is_empty();
    let items = if listing { FETCHES.iter().collect() } else { chosen };
    let entries: Vec<Entry> = items.into_iter().map(|item| Entry::new(&fetcher, item)).collect();
    if args.json {
        console::json(&entries)?;
    } else if listing {
        console::out(&table(&entries));
    } else {
        entries.iter().filter_map(|e| e.path.as_ref()).for_each(|p| console::outln!("{}", p.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> anyhow::Result<&'static Fetch> {
    let Some(item) = item(name) else {
        let meant = did_you_mean(name, FETCHES.iter().map(|f| f.name));
        bail!("there is nothing called `{name}` to fetch{meant}\nhint: `ergometer fetch` lists what there is");
    };
    Ok(item)
}

fn table(entries: &[Entry]) -> String {
    let row = |e: &Entry| {
        let size = e.bytes.map_or_else(|| "-".into(), |b| format!("{:.1} MB", b as f64 / 1e6));
        let place = e.path.as_ref().map(|p| format!("\n{}", p.display())).unwrap_or_default();
        [e.name, e.state.text(), e.version, &size, e.licence, &format!("{}{place}", e.about)]
            .map(str::to_string)
            .to_vec()
    };
    columns(0, &entries.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_every_item_and_an_unknown_name_its_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        let fetcher = Fetcher { cache: folder.path().into(), python: Vec::new(), offline: true, chatty: false };
        let entries: Vec<Entry> = FETCHES.iter().map(|item| Entry::new(&fetcher, item)).collect();
        let text = table(&entries);
        assert!(FETCHES.iter().all(|f| text.contains(f.name) && text.contains(f.version)), "{text}");
        assert!(entries.iter().all(|e| e.state.text() == "absent") && text.contains("absent"), "{text}");
        assert!(named("onnxruntim").unwrap_err().to_string().contains("did you mean onnxruntime"));
    }
}
