//! `ergometer tune`: the fastest settings of a backend for one model, batch and number of threads on this machine.
//!
//! In: a model, a backend. Out: a table of every setting that was tried, and the best one, remembered for suites that say `tune = true`.
//! Must not: measure in a way of its own: it makes the search that such a suite makes.

use std::path::PathBuf;
use std::process::ExitCode;

use ergometer_reports::case::{Tried, Tuning};
use serde_json::json;

use super::flags;
use super::one_case::OneCase;
use crate::console::{self, outln};
use crate::interrupt::{self, Scratch};
use crate::runner::{self, RunOptions};
use crate::text_table::columns;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  ergometer tune --model trm-6x6 --backend onnxruntime --threads 2 --batch 16")]
pub struct Args {
    /// Folder of the model, or the name of a shipped one
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Backend
    #[arg(long, value_name = "B", value_parser = flags::backend)]
    backend: String,
    /// Precision [default: the backend's first]
    #[arg(long, value_name = "P")]
    precision: Option<String>,
    /// Rows per iteration; 1 is single-stream
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = flags::batch, allow_negative_numbers = true)]
    batch: u32,
    /// Compute threads
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = flags::threads, allow_negative_numbers = true)]
    threads: u32,
    #[arg(long, value_name = "T", value_parser = flags::task, allow_negative_numbers = true, help = flags::task_help())]
    task: Option<String>,
    /// Depth rule: once, fixed-N, halt-N or halt-keep-N [default: halt-N with the model's own N]
    #[arg(long, value_name = "D", value_parser = flags::depth, allow_negative_numbers = true)]
    depth: Option<String>,
    /// Search again, whatever is remembered
    #[arg(long)]
    again: bool,
    /// Say what would be measured, and measure nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let one = OneCase {
        model: args.model,
        backend: args.backend.clone(),
        precision: args.precision,
        batch: args.batch,
        threads: args.threads,
        task: args.task,
        depth: args.depth,
        seconds: Some(1.0),
        form: Default::default(),
        tune: true,
    };
    let folder = Scratch::new()?;
    interrupt::words(|| "the search was not finished, and nothing of it is kept".into());
    let suite = one.suite(folder.path(), "tune.toml")?;
    for cut in &suite.cut {
        console::info(format!("cut short: {cut}: more would take long"));
    }
    let options = RunOptions { suite: suite.path.clone(), command: "ergometer tune".into(), ..RunOptions::default() };
    if args.dry_run {
        return super::run::dry_run(&options, args.json).map_err(|e| suite.told(e));
    }
    let (path, tuning) = runner::tune::alone(&options, args.again).map_err(|e| suite.told(e))?;
    if args.json {
        console::json(&json!({ "case": path, "tuning": tuning }))?;
        return Ok(ExitCode::from(u8::from(tuning.is_some_and(|t| t.tried[t.chosen].error.is_some()))));
    }
    let Some(tuning) = tuning else {
        outln!("{path}\nbackend `{}` has one setting: there is nothing to search", args.backend);
        return Ok(ExitCode::SUCCESS);
    };
    outln!("{path}\n{}\n{}", tuning.method, table(&tuning).trim_end());
    let best = &tuning.tried[tuning.chosen];
    if let Some(error) = &best.error {
        let hint = error.hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
        outln!("\nno setting ran: {}{hint}", error.message);
        return Ok(ExitCode::from(1));
    }
    outln!(
        "\nIt is remembered for suites that say `tune = true`. To fix it in a suite:\n\n{}",
        block(&args.backend, best)
    );
    Ok(ExitCode::SUCCESS)
}

/// One line a setting, only with the options in which settings differ.
pub fn table(tuning: &Tuning) -> String {
    let differ = |key: &str| tuning.tried.iter().any(|t| t.options.get(key) != tuning.tried[0].options.get(key));
    let mut rows = vec![vec!["".into(), "setting".into(), "median".into(), "ratio to default".into(), "".into()]];
    for (i, t) in tuning.tried.iter().enumerate() {
        let shown: Vec<String> =
            t.options.iter().filter(|(k, _)| differ(k)).map(|(k, v)| format!("{k} = {v}")).collect();
        let ratio = t.ratio.filter(|_| i > 0).map(|(r, low, high)| format!("{r:.3} [{low:.3}, {high:.3}]"));
        rows.push(vec![
            if i == tuning.chosen { "best".into() } else { String::new() },
            if shown.is_empty() { "default".into() } else { shown.join(", ") },
            t.latency.map_or("–".into(), |s| format!("{:.3} ms", 1e3 * s)),
            ratio.unwrap_or_else(|| if i == 0 && t.ratio.is_some() { "1".into() } else { "–".into() }),
            t.error.as_ref().map_or(String::new(), |e| e.message.clone()),
        ]);
    }
    columns(0, &rows)
}

/// The setting as a block of a suite.
fn block(backend: &str, best: &Tried) -> String {
    let options: Vec<String> = best.options.iter().map(|(k, v)| format!("{k} = {v:?}")).collect();
    format!("[[backend]]\nname = \"{backend}-tuned\"\nkind = \"{backend}\"\noptions = {{ {} }}", options.join(", "))
}
