//! `ergometer parity`: outputs of a backend against recorded vectors, step by step, free running, and dropping halted rows.
//!
//! In: a model, a vectors file, a backend. Out: a table of errors; exit code 1 beyond the tolerance. Must not: measure speed.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use ergometer_reports::precision::{Precision, Tolerance};

use super::flags;
use crate::backends::probe::ready;
use crate::backends::session::Session;
use crate::backends::{Backend, BackendError, Options, backend};
use crate::console::{self, outln};
use crate::models::Model;
use crate::parity::{self, RecordedStep, Vectors};

/// Flags.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example, from the root of this tree:\n  ergometer parity --model tests/golden/trm-mlp-d64 --backend native"
)]
pub struct Args {
    /// Folder of the model, or the name of a shipped one
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Recorded inputs and outputs [default: vectors.safetensors in the model's folder]
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Backend to check
    #[arg(long, value_name = "B", value_parser = flags::backend)]
    backend: String,
    /// Precision that the backend computes in [default: its first]
    #[arg(long, value_name = "P")]
    precision: Option<String>,
    /// Compute threads
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = flags::threads, allow_negative_numbers = true)]
    threads: u32,
    /// Largest error that passes [default: the named tolerance of the precision]
    #[arg(long, value_name = "X", value_parser = flags::tolerance, allow_negative_numbers = true)]
    tolerance: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Load the backend in this process, whatever its library does to it
    #[arg(long, hide = true)]
    here: bool,
}

/// What the command finds.
#[derive(serde::Serialize, Debug)]
pub struct Findings {
    /// Name of the tolerance, or `given`.
    pub tolerance: String,
    /// Its value.
    pub limit: f64,
    /// Largest error per step, each step from the recorded state before it.
    pub step_by_step: Vec<f64>,
    /// Largest error per step of a run that nobody corrects: shows how far the net amplifies rounding.
    pub free_run: Vec<f64>,
    /// Rows halt at the recorded steps; `None`: the vectors record none.
    pub halts_as_recorded: Option<bool>,
    /// Largest error of rows at the step where they halted, halted rows dropped from the batch.
    pub dropping_halted_rows: Option<f64>,
    /// Largest difference between a run that drops halted rows and one that keeps them.
    pub dropping_changes: Option<f64>,
    /// Everything within the limit.
    pub ok: bool,
}

/// Checks a backend on vectors.
pub fn check(
    model: &Model,
    vectors: &Vectors,
    name: &str,
    precision: Option<&str>,
    threads: usize,
    tolerance: Option<f64>,
) -> anyhow::Result<Findings> {
    let b = backend(name).with_context(|| {
        let known: Vec<&str> = crate::backends::BACKENDS.iter().map(|b| b.name()).collect();
        format!("unknown backend `{name}`\nhint: known are {}", known.join(", "))
    })?;
    let precision = precision.unwrap_or(b.precisions()[0]);
    anyhow::ensure!(
        b.precisions().contains(&precision),
        "backend `{name}` computes in {}, not in {precision}",
        b.precisions().join(", ")
    );
    let Tolerance { name: tolerance_name, limit: named } = Precision::of(precision).tolerance;
    let limit = tolerance.unwrap_or(named);
    let options = Options {
        precision: precision.into(),
        threads,
        capacity: vectors.batch,
        extra: Default::default(),
        file: None,
        language: false,
    };
    let interface = &model.interface;
    let session =
        || -> anyhow::Result<Session> { Ok(Session::new(b.load(model, &options)?, interface, vectors.batch)?) };
    let mut dropping = session()?;
    let errors = |got: Vec<RecordedStep>| got.iter().zip(&vectors.steps).map(|(g, w)| g.error(w)).collect::<Vec<f64>>();
    let step_by_step = errors(vectors.step_by_step(&mut dropping, interface)?);
    let free_run = errors(vectors.free_run(&mut dropping, interface)?);
    let (mut halts_as_recorded, mut dropping_halted_rows, mut dropping_changes) = (None, None, None);
    if let Some(recorded) = &vectors.first_halt {
        let (steps, rows) = vectors.halting_run(&mut dropping, interface)?;
        let mut keeping = session()?;
        keeping.keep_halted_rows();
        let (kept_steps, kept_rows) = vectors.halting_run(&mut keeping, interface)?;
        halts_as_recorded = Some(steps == *recorded && kept_steps == *recorded);
        let last = vectors.steps.len() as u32;
        let at_halt = |row: usize| parity::error(&rows[row], vectors.row(recorded[row].min(last), row));
        dropping_halted_rows = Some((0..vectors.batch).map(at_halt).fold(0.0, f64::max));
        dropping_changes = Some(rows.iter().zip(&kept_rows).map(|(a, b)| parity::error(a, b)).fold(0.0, f64::max));
    }
    // the free run is shown, not judged: it tells how far the net amplifies rounding
    let all = step_by_step.iter().chain(&dropping_halted_rows).chain(&dropping_changes);
    let ok = all.copied().all(|e| e <= limit) && halts_as_recorded != Some(false);
    let tolerance = if tolerance.is_some() { "given".into() } else { tolerance_name.into() };
    Ok(Findings {
        tolerance,
        limit,
        step_by_step,
        free_run,
        halts_as_recorded,
        dropping_halted_rows,
        dropping_changes,
        ok,
    })
}

/// The same command in a child, for a backend whose library may take its process down.
fn apart(backend: &'static dyn Backend) -> anyhow::Result<ExitCode> {
    ready(backend, &Options::f32(1, 1)).map_err(BackendError::Unavailable)?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let status = Command::new(&program)
        .args(["worker", "--parent", &std::process::id().to_string(), "--exec"])
        .arg(&program)
        .args(std::env::args_os().skip(1))
        .arg("--here")
        .status()
        .context("cannot start the comparison")?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(2))),
        None => anyhow::bail!(
            "backend `{}` ended its process {}\nhint: its library is damaged, or has a fault",
            backend.name(),
            crate::foreign::how(status)
        ),
    }
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = backend(&args.backend).context("checked with the flags")?;
    flags::precision(engine, args.precision.as_deref())?;
    let folder = flags::model(&args.model)?;
    if engine.library().is_some() && !args.here {
        return apart(engine);
    }
    let model = Model::load(&folder)?;
    let beside = args.vectors.is_none();
    let file = args.vectors.unwrap_or_else(|| folder.join("vectors.safetensors"));
    anyhow::ensure!(
        !beside || file.symlink_metadata().is_ok(),
        "the model in {} has no vectors.safetensors beside its weights\nhint: `--vectors FILE` names recorded vectors; `ergometer run SUITE --check` compares backends with the reference interpreter, without any",
        folder.display()
    );
    anyhow::ensure!(
        file.symlink_metadata().is_ok(),
        "`--vectors {}`: there is no such file\nhint: name a file of recorded vectors",
        file.display()
    );
    let vectors = Vectors::read(&file, &model.interface)?;
    anyhow::ensure!(
        vectors.steps.iter().all(|s| !s.logits.is_empty()),
        "{}: tensor `logits.1` is missing",
        file.display()
    );
    let found =
        check(&model, &vectors, &args.backend, args.precision.as_deref(), args.threads as usize, args.tolerance)?;
    if args.json {
        console::json(&found)?;
    } else {
        outln!(
            "largest error of logits, halting head and states, each over its own largest value, {} rows, limit {:.0e} ({})",
            vectors.batch,
            found.limit,
            found.tolerance
        );
        outln!("step   from the recorded state   free run");
        for (k, (step, free)) in found.step_by_step.iter().zip(&found.free_run).enumerate() {
            outln!("{:>4}   {step:>23.2e}   {free:>8.2e}", k + 1);
        }
        if let (Some(halts), Some(dropped), Some(changes)) =
            (found.halts_as_recorded, found.dropping_halted_rows, found.dropping_changes)
        {
            outln!("rows halt {}", if halts { "at the recorded steps" } else { "at OTHER steps than recorded" });
            outln!(
                "dropping halted rows: {dropped:.2e} from the recorded outputs, {changes:.2e} from a run that keeps them"
            );
        }
        outln!("{}", if found.ok { "within the tolerance" } else { "BEYOND the tolerance" });
    }
    Ok(ExitCode::from(u8::from(!found.ok)))
}
