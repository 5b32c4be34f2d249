//! `ergometer external check`: is this program a correct backend? And the dialogue of one that is (`ergometer worker --echo`).
//!
//! In: a command, a model and a task to ask it about. Out: a line for each part of the protocol. Must not: judge speed or accuracy.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use super::flags;
use super::one_case::OneCase;
use crate::console::{self, outln};
use crate::external::{Outcome, PartFinding, Walk, transcript};
use crate::interrupt::{self, Scratch};
use crate::runner::process::Side;
use crate::runner::{self, RunOptions, reference};
use crate::text_table::columns;

/// Makes our own worker speak to whoever starts it.
const SPEAK: &str = "--speak";

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(subcommand)]
    command: Which,
}

#[derive(clap::Subcommand, Debug)]
enum Which {
    /// Walk a program through the protocol and name what is wrong, with the line that shows it
    Check(Check),
}

const EXAMPLE: &str = "Example, from the root of this tree:
  ergometer external check python3 -B examples/external-worker/worker.py

docs/external.md has the protocol, `ergometer worker --echo` a correct dialogue.";

/// Flags of `check`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLE)]
struct Check {
    /// Model of the job: a folder, or the name of a shipped one
    #[arg(long, value_name = "PATH", default_value = "dense-4x4")]
    model: PathBuf,
    #[arg(long, value_name = "T", value_parser = flags::task, allow_negative_numbers = true, help = flags::task_help())]
    task: Option<String>,
    /// Precision that is asked for
    #[arg(long, value_name = "P", default_value = "f32")]
    precision: String,
    /// Seconds for which the program may say nothing
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = flags::seconds, allow_negative_numbers = true)]
    timeout: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(required = true, value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Which::Check(args) = args.command;
    interrupt::words(|| "nothing was kept".into());
    let found = with_walk(&args.model, args.task.clone(), &args.precision, &args.command, args.timeout, |walk| {
        Ok(walk.check())
    })?;
    let count = |outcome| found.iter().filter(|f| f.outcome == outcome).count();
    let (wrong, refused) = (count(Outcome::Wrong), count(Outcome::Refused));
    if args.json {
        console::json(
            &json!({"schema": 1, "command": args.command, "findings": found, "wrong": wrong, "refused": refused}),
        )?;
    } else {
        console::out(&table(&found));
        let parts = found.len();
        match (wrong, refused) {
            (0, 0) => outln!(
                "a correct backend: {parts} parts, nothing wrong\nnext: name it in a `[[backend]]` block of a suite; examples/external-worker/suite.toml is one"
            ),
            (0, _) => outln!(
                "it refuses what it was asked, which is no error, and nothing more could be seen\nhint: `--model` and `--task` ask for something else"
            ),
            (n, _) => outln!("{n} of {parts} parts wrong"),
        }
    }
    Ok(ExitCode::from(if wrong > 0 {
        1
    } else if refused > 0 {
        3
    } else {
        0
    }))
}

/// One row a part; lines and hints below what they belong to.
fn table(found: &[PartFinding]) -> String {
    let row = |f: &PartFinding| {
        let outcome = match f.outcome {
            Outcome::Right => "right",
            Outcome::Note => "note",
            Outcome::Wrong => "wrong",
            Outcome::Refused => "refused",
        };
        let line =
            f.line.as_ref().filter(|_| f.outcome == Outcome::Wrong).map(|l| format!("\nline: {l}")).unwrap_or_default();
        let hint = f.hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
        vec![f.part.to_string(), outcome.to_string(), format!("{}{line}{hint}", f.text)]
    };
    columns(0, &found.iter().map(row).collect::<Vec<_>>())
}

/// A walk that asks about a model and a task; the folder that it needs goes away with it.
fn with_walk<T>(
    model: &std::path::Path,
    task: Option<String>,
    precision: &str,
    command: &[String],
    timeout: f64,
    walk: impl FnOnce(&Walk) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let folder = Scratch::new()?;
    let one = OneCase {
        model: model.to_path_buf(),
        // the case is planned for an engine of ours, and asked of the program
        backend: "native".into(),
        precision: Some(precision.into()),
        batch: 1,
        threads: 1,
        task,
        depth: None,
        seconds: Some(0.1),
        form: Default::default(),
        tune: false,
    };
    let suite = one.suite(folder.path(), "external.toml")?;
    let options = RunOptions { suite: suite.path.clone(), ..RunOptions::default() };
    let (_, mut plan) = runner::plan(&options).map_err(|e| suite.told(e))?;
    let cache = crate::files::user_cache()?;
    plan.materialise(&cache)?;
    let Some(case) = plan.cases.first() else { bail!("no case was planned") };
    let (task, planned) = (&plan.tasks[&case.spec.task], &plan.models[&case.spec.model]);
    let questions = reference::vectors(case, planned, task, &cache).ok();
    // the program runs in another folder
    let questions = questions.map(|(path, _)| std::path::absolute(path)).transpose()?;
    let silence = Duration::from_secs_f64(timeout);
    // our own worker is asked for an engine that it has
    let name = if command.last().is_some_and(|w| w == SPEAK) { "native" } else { "checked" };
    walk(&Walk { command, name, case, task, model: std::path::absolute(&planned.folder)?, questions, silence })
}

/// A correct dialogue: that of our own worker with the smallest shipped net.
pub fn echo() -> anyhow::Result<()> {
    let own = std::env::current_exe()?.display().to_string();
    // as an external program, so that its start is that of one
    let command = [own, "worker".into(), SPEAK.into()];
    let lines = with_walk(std::path::Path::new("dense-4x4"), None, "f32", &command, 60.0, |walk| {
        transcript(walk).map_err(|why| anyhow::anyhow!("our own worker: {why}"))
    })?;
    outln!("worker                                      ergometer");
    for (side, line) in lines {
        outln!("{} {line}", if side == Side::Worker { "->" } else { "   <-" });
    }
    Ok(())
}
