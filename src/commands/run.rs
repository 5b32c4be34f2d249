//! `ergometer run`: the main job, from a suite to a run folder with its report.
//!
//! In: flags. Out: the headline table and the report's path on stdout. Must not: know how cases are run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use ergometer_files::{Links, counted};
use ergometer_reports::case::{CaseError, ErrorKind};
use ergometer_suites::suite::Change;

use crate::backends::backend;
use crate::console::{self, outln};
use crate::runner::plan::PlannedCase;
use crate::runner::{self, RunOptions, estimate};

/// Flags.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  ergometer run quick\n  ergometer run quick --filter '*native*' --out my-run\n  ergometer run quick --out my-run --resume\n  ergometer run quick --set defaults.seconds=1 --set 'cases.threads=[1,2]'"
)]
pub struct Args {
    /// A suite file, or the name of a shipped suite (looked for in ERGOMETER_HOME, above the program, last above the working directory)
    suite: PathBuf,
    /// Another value than the suite's, as often as you like: defaults.K, cases.K, model.NAME.K, task.NAME.K or backend.NAME.K
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<Change>,
    /// Folder of the run [default: a new one under ./ergometer-runs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only cases whose path fits this pattern (`*`: anything)
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,
    /// Every case runs parity and one measured step; any outcome but the expected ones fails
    #[arg(long)]
    check: bool,
    /// Go on with the run in --out: finished cases are never run again
    #[arg(long)]
    resume: bool,
    /// Only the I-th of N parts of the cases
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Start each case's worker N times, spread over the run: intervals are then over starts [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), allow_negative_numbers = true)]
    repeats: Option<u32>,
    /// Measure nothing on a machine that is busy with other programs: exit code 3
    #[arg(long)]
    strict: bool,
    /// Take searched settings from this file (the tuning.json of an earlier run folder) instead of searching
    #[arg(long, value_name = "FILE")]
    tuning: Option<PathBuf>,
    /// List the cases and what they would take, run nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the records as JSON instead of the table
    #[arg(long)]
    json: bool,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((i, n)) if i >= 1 && i <= n => Ok((i, n)),
        _ => Err("write it as I/N with 1 <= I <= N, e.g. 2/3".into()),
    }
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let command = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let options = RunOptions {
        suite: args.suite,
        changes: args.changes,
        out: args.out,
        filter: args.filter,
        check: args.check,
        resume: args.resume,
        shard: args.shard,
        strict: args.strict,
        repeats: args.repeats,
        tuning: args.tuning,
        command: format!("ergometer {command}"),
        go_on: std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect(),
    };
    if args.dry_run {
        return dry_run(&options, args.json);
    }
    let outcome = runner::run(&options)?;
    if outcome.found > 0 {
        console::info(format!("finished before: {} of {}", outcome.found, counted(outcome.cases, "case")));
    }
    let page = outcome.folder.join("report/index.html");
    if args.json {
        let path = outcome.folder.join("records.json");
        let text = ergometer_files::read(&path, 1 << 30, Links::Refused).context("the records were just written")?;
        console::json_text(&String::from_utf8_lossy(&text));
    } else {
        console::out(&super::report::headline(&outcome.report));
        outln!("\nreport   {}", page.display());
        outln!("run      {}", outcome.folder.display());
        outln!("next     ergometer report {} --format md      (or csv, json, png)", outcome.folder.display());
    }
    let scorers: Vec<&CaseError> = outcome.report.run.cases.iter().filter_map(|c| c.case.error.as_ref()).collect();
    let scorers: Vec<&CaseError> = scorers.into_iter().filter(|e| e.kind == ErrorKind::Scorer).collect();
    if let Some(first) = scorers.first() {
        let hint = first.hint.as_deref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
        let dir = outcome.folder.display();
        console::warn(format!(
            "{} could not be scored: {}; kept in {dir}: all answers, and every other case{hint}",
            counted(scorers.len(), "case"),
            first.message
        ));
        return Ok(ExitCode::from(2));
    }
    if outcome.failed > 0 {
        console::warn(format!("failed: {} of {}; the report says why", outcome.failed, counted(outcome.cases, "case")));
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the cases and what they would take.
pub fn dry_run(options: &RunOptions, json: bool) -> anyhow::Result<ExitCode> {
    if options.resume {
        bail!(
            "`--dry-run` runs nothing, so there is nothing to resume\nhint: leave one of `--dry-run` and `--resume` out"
        );
    }
    let (suite, plan) = runner::plan(options)?;
    runner::refuse_early(options, &suite)?;
    let searched = |c: &PlannedCase| estimate::is_searched(&suite, c);
    let all = estimate::of(&plan, options.check, options.repeats.unwrap_or(1), searched);
    if json {
        let cases = plan.cases.iter().zip(&all).map(|(c, e)| {
            let seconds = serde_json::json!({"search": e.search, "reference": e.reference, "scoring": e.scoring, "timing": e.timing});
            serde_json::json!({"path": c.path, "id": c.id, "key": c.key, "seconds": seconds})
        });
        console::json(&cases.collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    for (case, estimate) in plan.cases.iter().zip(&all) {
        outln!("{:>6.1} s  {}", estimate.total(), case.path);
    }
    let sum = estimate::sum(&all);
    outln!(
        "{:>6.1} s  for {}: searching settings {:.0} (at most), reference {:.0} (unless cached), scoring {:.0}, timing {:.0}",
        sum.total(),
        counted(plan.cases.len(), "case"),
        sum.search,
        sum.reference,
        sum.scoring,
        sum.timing
    );
    outln!("          where {:.0} GFLOP/s a thread are assumed of an engine", estimate::RATE / 1e9);
    let engines: BTreeSet<&str> = plan.cases.iter().filter_map(|c| c.engine).collect();
    for engine in engines {
        if let Some(lacking) = backend(engine).and_then(|b| b.probe().err()) {
            outln!("          and what it takes to fetch {engine}, which is not here: {}", lacking.reason);
        }
    }
    Ok(ExitCode::SUCCESS)
}
