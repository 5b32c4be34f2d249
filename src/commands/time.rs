//! `ergometer time`: one case, right now, in a few seconds.
//!
//! In: a model, a backend, a few settings. Out: a short table. Must not: have a way of measuring of its own: it is a suite of one case,
//! run in a folder that goes away.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use ergometer_reports::{Record, format};
use ergometer_suites::error::did_you_mean;
use ergometer_suites::home::shipped_models;
use serde_json::json;

use crate::columns::columns;
use crate::models::Model;
use crate::runner::{self, RunOptions};

/// Flags.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  ergometer time --model suites/models/trm-4x4 --backend native --threads 2 --batch 16"
)]
pub struct Args {
    /// Folder of the model, or the name of a shipped one
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Backend
    #[arg(long, value_name = "B")]
    backend: String,
    /// Precision [default: the backend's first]
    #[arg(long, value_name = "P")]
    precision: Option<String>,
    /// Rows per iteration; 1 is single-stream
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: u32,
    /// Compute threads
    #[arg(long, value_name = "T", default_value_t = 1)]
    threads: u32,
    /// Board of the Sudoku to solve: 4, 6 or 9 [default: what fits the model]
    #[arg(long, value_name = "T")]
    task: Option<String>,
    /// Depth rule: once, fixed-N or halt-N [default: halt-N with the model's own N]
    #[arg(long, value_name = "D")]
    depth: Option<String>,
    /// Seconds of measuring
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shipped = shipped_models();
    let named = shipped.iter().find(|(name, _)| args.model.as_os_str() == name.as_str());
    let path = match named {
        _ if args.model.exists() => args.model.clone(),
        Some((_, path)) => path.clone(),
        None => {
            let meant = did_you_mean(&args.model.to_string_lossy(), shipped.iter().map(|(name, _)| name.as_str()));
            bail!(
                "there is no model `{}`{meant}\nhint: name a folder, or one of `ergometer list models`",
                args.model.display()
            );
        }
    };
    let path = std::path::absolute(&path).with_context(|| format!("cannot use {}", path.display()))?;
    let model = Model::load(&path)?;
    let Some(backend) = crate::backends::backend(&args.backend) else {
        let known: Vec<&str> = crate::backends::BACKENDS.iter().map(|b| b.name()).collect();
        bail!("unknown backend `{}`\nhint: known are {}", args.backend, known.join(", "));
    };
    let cells = model.graph.inputs[0].ty.elements();
    let asked = args.task.as_deref().map(|t| t.trim_start_matches("sudoku-").split('x').next().unwrap_or(t).parse());
    let size: u32 = match (asked, cells) {
        (Some(Ok(size)), _) => size,
        (Some(Err(_)), _) => {
            bail!("`--task` is 4, 6 or 9\nhint: for another task write a suite and use `ergometer run`")
        }
        (None, 16) => 4,
        (None, 36) => 6,
        (None, 81) => 9,
        (None, n) => bail!(
            "the model takes {n} tokens, no shipped task has as many\nhint: write a suite with a task of your own and use `ergometer run`"
        ),
    };
    let depth = args.depth.unwrap_or_else(|| {
        if model.graph.max_steps == 1 { "once".into() } else { format!("halt-{}", model.graph.max_steps) }
    });
    let scenario = if args.batch == 1 { "single-stream".to_string() } else { format!("offline-b{}", args.batch) };
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "model".into());
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let precision = args.precision.unwrap_or_else(|| backend.precisions()[0].to_string());
    let task = format!("sudoku-{size}x{size}");
    let mut puzzles = json!({"name": task, "kind": "sudoku", "size": size, "examples": 100, "seed": 1});
    match size {
        4 => puzzles["clues"] = json!([4, 6]),
        6 => puzzles["clues"] = json!([12, 16]),
        _ => puzzles["minimal"] = json!(true),
    }
    let path = path.to_str().with_context(|| format!("the path {} is not UTF-8, which suites are", path.display()))?;
    let suite = json!({
        "about": "one case",
        "model": [{"name": name, "path": path}],
        "task": [puzzles],
        "cases": [{
            "models": [name], "backends": [args.backend], "precisions": [precision], "tasks": [task],
            "scenarios": [scenario], "threads": [args.threads], "depth": [depth],
            "seconds": args.seconds, "warmup_seconds": 0.5, "timeout_seconds": 300.0,
        }],
    });
    let text = toml::to_string(&suite).context("cannot write the suite")?;
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let suite = folder.path().join("time.toml");
    std::fs::write(&suite, text).with_context(|| format!("cannot write {}", suite.display()))?;
    let options = RunOptions {
        suite,
        out: Some(folder.path().join("run")),
        command: "ergometer time".into(),
        ..RunOptions::default()
    };
    let outcome = runner::run(&options)?;
    let run = ergometer_reports::load(&outcome.folder)?;
    let records = ergometer_reports::summarise(&run);
    if args.json {
        print!("{}", String::from_utf8_lossy(&ergometer_reports::record::to_json(&run.environment, &records)));
    } else {
        for case in &run.cases {
            println!("{}", case.case.path);
            if let Some(error) = &case.case.error {
                println!(
                    "failed: {}{}",
                    error.message,
                    error.hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default()
                );
            }
            if let Some(verdict) = &case.case.verdict {
                println!("checked: {}", runner::verdict_text(verdict));
            }
        }
        print!("{}", table(&records));
    }
    Ok(ExitCode::from(u8::from(outcome.failed > 0)))
}

/// One line a metric; reasons that several metrics share are said once, below.
fn table(records: &[Record]) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for r in records {
        let (shown, remark) = match &r.missing {
            None => (format::full(r), format!("n = {}", r.n)),
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
    // the roofline's other half is not measured yet, and a missing number has its reason
    reasons.push("machine ceilings are not measured by this version".into());
    rows.push(vec!["share_of_ceiling".into(), "–".into(), format!("[{}]", reasons.len())]);
    let mut text = columns(0, &rows);
    for (i, reason) in reasons.iter().enumerate() {
        text.push_str(&format!("[{}] {reason}\n", i + 1));
    }
    text
}
