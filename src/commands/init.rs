//! `ergometer init`: a commented suite for a model.
//!
//! In: a model. Out: a suite file that runs as it is, with every choice in it explained where it stands. Must not: run the model, or write
//! over a file that is there.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::flags;
use super::one_case::{Chosen, fit_for_a_suite};
use crate::backends::BACKENDS;
use crate::console::outln;
use crate::files::write_atomically;
use crate::models::Model;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ergometer init trm-6x6
  ergometer init trm-att-9x9 --out my-suite.toml")]
pub struct Args {
    /// Folder of a model, or the name of a shipped one
    model: PathBuf,
    /// The suite [default: the model's name with .toml, here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write over a suite that is there
    #[arg(long)]
    force: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let path = flags::model(&args.model)?;
    let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "model".into());
    let name = fit_for_a_suite(&name);
    let out = args.out.unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    if out.exists() && !args.force {
        bail!(
            "{} is there already\nhint: name another file with `--out`, or write over it with `--force`",
            out.display()
        );
    }
    let model = Model::load(&path)?;
    write_atomically(&out, suite(&name, &path, &model)?.as_bytes())?;
    outln!("wrote    {}", out.display());
    outln!("next     ergometer run {} --dry-run      (what it would do, and how long)", out.display());
    outln!("         ergometer run {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// The text of the suite.
fn suite(name: &str, path: &Path, model: &Model) -> anyhow::Result<String> {
    let path = path.to_str().with_context(|| format!("the path {} is not UTF-8, as suites are", path.display()))?;
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let mut text = String::new();
    writeln!(text, "# Every key: suites/README.md. What it would do: ergometer run FILE --dry-run")?;
    writeln!(text, "about = {}\n", quoted(&format!("{name} on the engines of this machine")))?;
    writeln!(text, "[[model]]\nname = {}", quoted(name))?;
    writeln!(text, "path = {}      # from this file's folder, or absolute\n", quoted(path))?;
    let chosen = Chosen::of(&model.interface, name, None)?;
    chosen.belongs(name, model, None)?;
    writeln!(text, "[[task]]      # other kinds: ergometer list tasks")?;
    for (key, value) in chosen.block() {
        writeln!(text, "{key} = {value}")?;
    }
    let runs = |backend: &&&dyn crate::backends::Backend| backend.name() != "reference";
    let backends: Vec<String> = BACKENDS.iter().filter(runs).map(|b| quoted(b.name())).collect();
    let most = model.interface.max_steps;
    let depth = if model.interface.one_shot() {
        "depth = [\"once\"]          # a one-shot model has no other".to_owned()
    } else {
        format!(
            "depth = [\"halt-{most}\"]       # stop at the halting head's word; or \"fixed-{most}\", \"fixed-1\", ..."
        )
    };
    write!(
        text,
        "
[defaults]
seconds = 2.0               # measure each case at least so long
iterations = 10             # and so often
interleave = true           # the engines take turns, so that their speeds can be compared
may_be_unavailable = true   # an engine that this machine lacks is no failure

[[cases]]                   # every combination of these lists is a case
models = [{model}]
tasks = [{task}]
backends = [{backends}]
precisions = [\"f32\"]        # \"bf16\", \"int8\", ...: ergometer list backends
batch = [1, 8]              # 1: latency of one example after the other
threads = [1]               # or \"1..all\"
{depth}
# tune = true               # search each engine's settings for the fastest first
",
        model = quoted(name),
        task = quoted(chosen.name()),
        backends = backends.join(", "),
    )?;
    Ok(text)
}
