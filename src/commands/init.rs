//! `ergometer init`: a commented suite for a model.
//!
//! In: a model. Out: a suite file that runs as it is, with every choice in it explained where it stands. Must not: run the model, or write
//! over a file that is there.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use ergometer_suites::FileForm;

use super::one_case::{Chosen, fit_for_a_suite};
use super::{file_case, flags};
use crate::backends::{BACKENDS, Backend};
use crate::console::outln;
use crate::files::write_atomically;
use crate::models::Model;
use crate::models::file::OnnxFile;
use crate::models::interface::Rows;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  ergometer init trm-6x6
  ergometer init trm-att-9x9 --out my-suite.toml

For a file: ergometer init model.onnx --shape seq=128")]
pub struct Args {
    /// Folder of a model, an ONNX file, or the name of a shipped model
    model: PathBuf,
    /// Length of an open dimension of an ONNX file, as often as there are some
    #[arg(long, value_name = "NAME=N", value_parser = flags::length)]
    shape: Vec<(String, u64)>,
    /// Input of an ONNX file that takes an output of the step before
    #[arg(long, value_name = "INPUT=OUTPUT", value_parser = flags::pair)]
    state: Vec<(String, String)>,
    /// Of an ONNX file: the open dimension that counts rows, or `none` [default: found]
    #[arg(long, value_name = "NAME")]
    rows: Option<String>,
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
    let form =
        FileForm { shape: args.shape.into_iter().collect(), state: args.state.into_iter().collect(), batch: args.rows };
    let model = Model::load_as(&path, &form)?;
    write_atomically(&out, suite(&name, &path, &form, &model)?.as_bytes())?;
    outln!("wrote    {}", out.display());
    outln!("next     ergometer run {} --dry-run      (what it would do, and how long)", out.display());
    outln!("         ergometer run {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// The text of the suite.
fn suite(name: &str, path: &Path, form: &FileForm, model: &Model) -> anyhow::Result<String> {
    let path = path.to_str().with_context(|| format!("the path {} is not UTF-8, as suites are", path.display()))?;
    let mut text = String::new();
    writeln!(text, "# Every key: suites/README.md. What it would do: ergometer run FILE --dry-run")?;
    writeln!(text, "about = {}\n", quoted(&format!("{name} on the engines of this machine")))?;
    writeln!(text, "[[model]]\nname = {}", quoted(name))?;
    writeln!(text, "path = {}      # from this file's folder, or absolute", quoted(path))?;
    let (task, runs): (_, fn(&dyn Backend) -> bool) = match &model.file {
        Some(file) => (task_of_file(&mut text, form, file, model)?, |b| RUN_FILES.contains(&b.name())),
        None => (task_that_fits(&mut text, name, model)?, |b| b.name() != "reference"),
    };
    let backends: Vec<String> = BACKENDS.iter().filter(|b| runs(**b)).map(|b| quoted(b.name())).collect();
    let most = model.interface.max_steps;
    let depth = if model.interface.one_shot() || model.file.is_some() {
        "depth = [\"once\"]          # one step: the model has no other depth".to_owned()
    } else {
        format!(
            "depth = [\"halt-{most}\"]       # stop at the halting head's word; or \"fixed-{most}\", \"fixed-1\", ..."
        )
    };
    let precision = model.file.as_ref().map_or("f32", |file| file.precision);
    let batch = match model.file.as_ref().map(|file| file.rows) {
        Some(Rows::One) => "batch = [1]                 # the file takes one row a call".to_owned(),
        Some(Rows::Fixed(n)) => {
            format!("batch = [{n}]                 # the file takes so many rows a call, and no others")
        }
        _ => "batch = [1, 8]              # 1: latency of one example after the other".to_owned(),
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
precisions = [{precision}]        # what each computes in: ergometer list backends
{batch}
threads = [1]               # or \"1..all\"
{depth}
# tune = true               # search each engine's settings for the fastest first
",
        model = quoted(name),
        task = quoted(&task),
        backends = backends.join(", "),
        precision = quoted(precision),
    )?;
    Ok(text)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

/// Backends that run a file as it is.
const RUN_FILES: [&str; 2] = ["onnxruntime", "tract"];

/// The block of a task that fits a model of ours; its name.
fn task_that_fits(text: &mut String, name: &str, model: &Model) -> anyhow::Result<String> {
    let chosen = Chosen::of(&model.interface, name, None)?;
    chosen.belongs(name, model, None)?;
    writeln!(text, "\n[[task]]      # other kinds: ergometer list tasks")?;
    for (key, value) in chosen.block() {
        writeln!(text, "{key} = {value}")?;
    }
    Ok(chosen.name().into())
}

/// What the file binds, and a task of random inputs with, as comments, what takes their place; the task's name.
fn task_of_file(text: &mut String, form: &FileForm, file: &OnnxFile, model: &Model) -> anyhow::Result<String> {
    let names = |of: &mut dyn Iterator<Item = (String, String)>| {
        of.map(|(key, value)| format!("{} = {value}", quoted(&key))).collect::<Vec<_>>().join(", ")
    };
    if !form.shape.is_empty() {
        let bound = names(&mut form.shape.iter().map(|(k, v)| (k.clone(), v.to_string())));
        writeln!(text, "shape = {{ {bound} }}      # open dimensions")?;
    }
    if !form.state.is_empty() {
        let joined = names(&mut form.state.iter().map(|(k, v)| (k.clone(), quoted(v))));
        writeln!(text, "state = {{ {joined} }}      # inputs that take an output of the step before")?;
    }
    if let Some(batch) = &form.batch {
        writeln!(text, "batch = {}      # the dimension that counts rows", quoted(batch))?;
    }
    writeln!(text, "# vectors = \"outputs.npz\"      # outputs that you recorded, to compare with\n")?;
    writeln!(text, "# Random inputs: times, and whether the engines agree. No accuracy.")?;
    writeln!(text, "[[task]]\nname = \"random\"\nkind = \"arrays\"\nexamples = 4")?;
    let random = file_case::random(&model.interface);
    for (input, of) in random.as_object().into_iter().flatten() {
        let range = &of["range"];
        writeln!(
            text,
            "random.{} = {{ kind = {}, shape = {}, range = [{}, {}] }}",
            quoted(input),
            of["kind"],
            of["shape"],
            range[0],
            range[1]
        )?;
    }
    let outputs: Vec<String> = file.outputs().map(|o| format!("`{}`", o.name)).collect();
    writeln!(
        text,
        "\n# Your data in its place: inputs as the model takes them, and what is right (suites/README.md, task arrays);"
    )?;
    writeln!(text, "# its outputs are {}.", outputs.join(", "))?;
    let first = model.interface.inputs.first().map_or("x", |port| port.name.as_str());
    writeln!(text, "# [[task]]\n# name = \"mine\"\n# kind = \"arrays\"")?;
    writeln!(
        text,
        "# inputs = {{ {} = \"inputs.npy\" }}\n# labels = \"labels.npy\"\n# scorer = \"top-1\"",
        quoted(first)
    )?;
    Ok("random".into())
}
