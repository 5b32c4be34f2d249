//! `ergometer external check`: is this program a correct backend? And the dialogue of one that is (`ergometer worker --echo`).
//!
//! In: a command, a model and a task to ask it about. Out: a line for each part of the protocol. Must not: judge speed or accuracy.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use ergometer_reports::precision::PRECISIONS;
use ergometer_suites::error::did_you_mean;
use serde_json::json;

use super::flags;
use super::one_case::OneCase;
use crate::console::{self, outln};
use crate::external::{EXAMPLES, Outcome, PartFinding, Walk, transcript};
use crate::interrupt::{self, Scratch};
use crate::models::interface::Rows;
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

A program that takes arrays: --model NET.onnx, or --suite with a task of yours.
docs/external.md has the protocol, `ergometer worker --echo` a correct dialogue.";

/// Flags of `check`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLE)]
struct Check {
    /// Model of the job: a folder, an ONNX file (then the program is asked about random arrays), or the name of a shipped one
    #[arg(long, value_name = "PATH", default_value = "dense-4x4")]
    model: PathBuf,
    /// Ask about the first case of this suite: its model and task, such as own arrays; `--case` chooses another
    #[arg(long, value_name = "SUITE", conflicts_with_all = ["model", "task", "precision"])]
    suite: Option<PathBuf>,
    /// Pattern that the path of the suite's case fits, such as `own/*`
    #[arg(long, value_name = "GLOB", requires = "suite")]
    case: Option<String>,
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
    let about = match args.suite {
        Some(suite) => About::Suite(suite, args.case),
        None => About::Model(args.model, args.task, args.precision),
    };
    let found = with_walk(about, &args.command, args.timeout, |walk| Ok(walk.check()))?;
    if let [only] = &found[..]
        && only.text.starts_with("cannot start")
    {
        bail!(
            "{}\nhint: {}",
            only.text,
            only.hint.as_deref().unwrap_or("name a program, with its path or on the PATH")
        );
    }
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

/// What a program is asked about.
enum About {
    /// A model, with a task or what fits it, in a precision.
    Model(PathBuf, Option<String>, String),
    /// The first case of a suite that fits a pattern.
    Suite(PathBuf, Option<String>),
}

/// A walk that asks about a case; the folder that it needs goes away with it.
fn with_walk<T>(
    about: About,
    command: &[String],
    timeout: f64,
    walk: impl FnOnce(&Walk) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let folder = Scratch::new()?;
    let (mut plan, precision) = match about {
        About::Suite(suite, filter) => (runner::plan(&RunOptions { suite, filter, ..RunOptions::default() })?.1, None),
        About::Model(model, task, precision) => {
            if !PRECISIONS.iter().any(|p| p.name == precision) {
                let names = || PRECISIONS.iter().map(|p| p.name);
                bail!(
                    "unknown precision `{precision}`{}\nhint: there are {}",
                    did_you_mean(&precision, names()),
                    names().collect::<Vec<_>>().join(", ")
                );
            }
            // the case is planned for an engine of ours, and asked of the program
            let one = OneCase {
                model,
                backend: "native".into(),
                precision: None,
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
            (runner::plan(&options).map_err(|e| suite.told(e))?.1, Some(precision))
        }
    };
    for task in plan.tasks.values_mut().filter(|task| !task.set.inputs.is_empty()) {
        task.set.examples.truncate(EXAMPLES);
    }
    let cache = crate::files::user_cache()?;
    plan.materialise(&cache)?;
    let Some(case) = plan.cases.first() else { bail!("no case was planned") };
    let mut case = case.clone();
    // a file is in one precision
    if let Some(precision) = precision.filter(|_| case.file.precision.is_none()) {
        case.key.precision = precision;
    }
    let case = &case;
    let (task, planned) = (&plan.tasks[&case.spec.task], &plan.models[&case.spec.model]);
    let questions = reference::vectors(case, planned, task, &cache).ok();
    // the program runs in another folder
    let questions = questions.map(|(path, _)| std::path::absolute(path)).transpose()?;
    let silence = Duration::from_secs_f64(timeout);
    // our own worker is asked for an engine that it has
    let name = if command.last().is_some_and(|w| w == SPEAK) { "native" } else { "checked" };
    let (outputs, batches) = (case.file.outputs.len(), planned.interface.rows == Rows::Any);
    let model = std::path::absolute(&planned.folder)?;
    walk(&Walk { command, name, case, task, model, questions, outputs, batches, silence })
}

/// A correct dialogue: that of our own worker with the smallest shipped net.
pub fn echo() -> anyhow::Result<()> {
    let own = std::env::current_exe()?.display().to_string();
    // as an external program, so that its start is that of one
    let command = [own, "worker".into(), SPEAK.into()];
    let lines = with_walk(About::Model("dense-4x4".into(), None, "f32".into()), &command, 60.0, |walk| {
        transcript(walk).map_err(|why| anyhow::anyhow!("our own worker: {why}"))
    })?;
    outln!("worker                                      ergometer");
    for (side, line) in lines {
        outln!("{} {line}", if side == Side::Worker { "->" } else { "   <-" });
    }
    Ok(())
}
