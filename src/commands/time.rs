//! `ergometer time`: one case, right now, in a few seconds.
//!
//! In: a model, a backend, a few settings. Out: a short table. Must not: have a way of measuring of its own: it is a suite of one case,
//! run in a folder that goes away.

use std::path::PathBuf;
use std::process::ExitCode;

use ergometer_reports::{Record, Report, shown};
use ergometer_suites::FileForm;

use super::flags;
use super::one_case::OneCase;
use crate::console::{self, outln};
use crate::interrupt::{self, Scratch};
use crate::runner::{self, RunOptions};
use crate::text_table::columns;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ergometer time --model trm-4x4 --backend native --threads 2 --batch 16
  ergometer time --model NET.onnx --backend onnxruntime")]
pub struct Args {
    /// Folder of the model, an ONNX file, or the name of a shipped model
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
    /// Seconds of measuring [default: 3]; of an ONNX file seconds of the whole once it is loaded [default: 8]
    #[arg(long, value_name = "S", value_parser = flags::seconds, allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Of an ONNX file: how long an open dimension is
    #[arg(long, value_name = "NAME=N", value_parser = flags::length)]
    shape: Vec<(String, u64)>,
    /// Of an ONNX file: an input that takes an output of the step before
    #[arg(long, value_name = "INPUT=OUTPUT", value_parser = flags::pair)]
    state: Vec<(String, String)>,
    /// Of an ONNX file: the open dimension that counts rows, or `none` [default: found]
    #[arg(long, value_name = "NAME")]
    rows: Option<String>,
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
        backend: args.backend,
        precision: args.precision,
        batch: args.batch,
        threads: args.threads,
        task: args.task,
        depth: args.depth,
        seconds: args.seconds,
        form: FileForm {
            shape: args.shape.into_iter().collect(),
            state: args.state.into_iter().collect(),
            batch: args.rows,
        },
        tune: false,
    };
    let folder = Scratch::new()?;
    interrupt::words(|| "nothing was kept".into());
    let suite = one.suite(folder.path(), "time.toml")?;
    for cut in &suite.cut {
        console::info(format!("cut short: {cut}: more would take long"));
    }
    for note in &suite.notes {
        console::info(note.clone());
    }
    let options = RunOptions {
        suite: suite.path.clone(),
        out: Some(folder.path().join("run")),
        command: "ergometer time".into(),
        ..RunOptions::default()
    };
    if args.dry_run {
        return super::run::dry_run(&options, args.json).map_err(|e| suite.told(e));
    }
    let outcome = runner::run(&options).map_err(|e| suite.told(e))?;
    let Report { run, records, .. } = &outcome.report;
    if args.json {
        console::json_text(&String::from_utf8_lossy(&ergometer_reports::record::to_json(&run.environment, records)));
    } else {
        for case in &run.cases {
            outln!("{}", case.case.path);
            if let Some(error) = outcome.report.error(&case.case) {
                outln!(
                    "failed: {}{}",
                    error.message,
                    error.hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default()
                );
            }
            if let Some(verdict) = &case.case.verdict {
                outln!("checked: {}", runner::verdict_text(verdict));
            }
            for note in &case.case.notes {
                outln!("note: {note}");
            }
        }
        console::out(&table(records));
    }
    Ok(ExitCode::from(u8::from(outcome.failed > 0)))
}

/// One line a metric; reasons that several metrics share are said once, below.
fn table(records: &[Record]) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for r in records {
        let (shown, remark) = match &r.missing {
            None => (shown::full(r), format!("n = {}", r.n)),
            Some(missing) => {
                let hint = missing.hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default();
                let reason = format!("{}{hint}", missing.message.replace("\nhint: ", "; "));
                let at = reasons.iter().position(|known| *known == reason).unwrap_or_else(|| {
                    reasons.push(reason);
                    reasons.len() - 1
                });
                ("–".into(), format!("[{}]", at + 1))
            }
        };
        rows.push(vec![r.metric.clone(), shown, remark]);
    }
    let mut text = columns(0, &rows);
    for (i, reason) in reasons.iter().enumerate() {
        text.push_str(&format!("[{}] {reason}\n", i + 1));
    }
    text
}
