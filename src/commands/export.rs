//! `ergometer export`: a model as an ONNX file of one step, for other runtimes: a supervision step, or the next tokens of a language model.
//!
//! In: a model, the form of the file. Out: the file, and the weights beside it if asked for. Must not: overwrite unasked, or know operators.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};

use super::flags;
use crate::console::{self, outln};
use crate::fetch;
use crate::files::write_atomically;
use crate::graph::{Graph, Kind, Tokens, ValueType};
use crate::models::Model;
use crate::models::language::{LanguageModel, opened};
use crate::onnx::decoder::{self, LogitRows};
use crate::onnx::{self, ExpertForm, Form, Opset};

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ergometer export --model trm-4x4 --to onnx trm.onnx
  ergometer export --model smollm2 --to onnx smollm2.onnx

The file of a language model takes its caches and gives them back, by the names
of transformers (past_key_values, present); weights are written as f32.")]
pub struct Args {
    /// Folder of the model, GGUF file, or the name of a shipped or fetched one
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Format of the file
    #[arg(long, value_name = "FORMAT", value_parser = ["onnx"])]
    to: String,
    /// Rows of every run, or `dynamic`: as many as each run brings
    #[arg(long, value_name = "N", default_value = "dynamic", allow_negative_numbers = true)]
    batch: Batch,
    /// Operator set: 17 has norms and attention in primitives (IR 8: ONNX Runtime from 1.12 on reads it), 23 as operators (IR 11: from 1.22 on)
    #[arg(long, value_name = "V", default_value = "17", value_parser = ["17", "23"])]
    opset: String,
    /// Experts that are computed: all, or those that tokens are routed to (shapes that depend on the data)
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = ["all", "routed"])]
    experts: String,
    /// Most tokens of a sequence (language models) [default: those it was made for]
    #[arg(long, value_name = "N", value_parser = flags::tokens, allow_negative_numbers = true)]
    context: Option<u32>,
    /// Put the weights beside the file, as FILE.data
    #[arg(long)]
    external: bool,
    /// Overwrite
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// A number of rows, or open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch(Option<usize>);

impl std::str::FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(n) if (1..=MAX_BATCH).contains(&n) => Ok(Self(Some(n))),
            _ if text == "dynamic" => Ok(Self(None)),
            _ => Err(format!("a number between 1 and {MAX_BATCH}, or `dynamic`")),
        }
    }
}

const MAX_BATCH: usize = 1 << 20;

/// What was written.
#[derive(serde::Serialize, Debug)]
struct Written {
    file: PathBuf,
    bytes: usize,
    weights_file: Option<PathBuf>,
    weights_bytes: Option<usize>,
    opset: String,
    /// From which runtimes on the file is read.
    read_by: &'static str,
    experts: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Of one row of one run, in products; none where it depends on lengths.
    flops_per_row: Option<f64>,
    /// Lines that run the file.
    python: Vec<String>,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = args.file.file_name().and_then(|n| n.to_str()).with_context(|| {
        format!("{} is not the name of a file\nhint: name the file to write, such as net.onnx", args.file.display())
    })?;
    let external = args.external.then(|| format!("{name}.data"));
    let beside = external.as_ref().map(|name| args.file.with_file_name(name));
    if !args.force {
        for path in std::iter::once(&args.file).chain(&beside) {
            ensure!(!path.exists(), "{} is already there\nhint: `--force` overwrites it", path.display());
        }
    }
    let form = Form {
        batch: args.batch.0,
        opset: if args.opset == "23" { Opset::TwentyThree } else { Opset::Seventeen },
        experts: if args.experts == "routed" { ExpertForm::Routed } else { ExpertForm::All },
        external,
    };
    let files = [Some(args.file.as_path()), beside.as_deref()];
    let (written, said) = match language(&args.model)? {
        Some(path) => decoder(&args, &path, &form, files)?,
        None => step(&args, &form, files)?,
    };
    if args.json {
        console::json(&written)?;
    } else {
        show(&written, &said);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the model lies, if it is a language model.
fn language(model: &Path) -> anyhow::Result<Option<PathBuf>> {
    match model.exists() {
        true => Ok(opened::is_language(model).then(|| model.to_path_buf())),
        false => flags::fetched(model, fetch::FetchKind::Model),
    }
}

/// Writes the file of a language model, and its weights beside it first: a file that is there is whole.
fn decoder(
    args: &Args,
    path: &Path,
    form: &Form,
    [file, beside]: [Option<&Path>; 2],
) -> anyhow::Result<(Written, String)> {
    let model = LanguageModel::load(path, args.context.map(|n| n as usize))?;
    let graph = &model.graph;
    let read = |param| model.read(param);
    let notes = [("model", folder_name(path)), ("model_sha256", opened::hash(path)?)];
    let exported = decoder::export(graph, &read, form, LogitRows::All, &notes)
        .with_context(|| format!("cannot export {}", args.model.display()))?;
    write_all(file.zip(Some(exported.model.as_slice())), beside.zip(exported.weights.as_deref()))?;
    let lines = [
        "import numpy as np, onnxruntime".to_owned(),
        format!("net = onnxruntime.InferenceSession({:?})", args.file.display().to_string()),
        "past = [i for i in net.get_inputs() if i.name.startswith(\"past\")]".into(),
        "feed = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in past}".into(),
        "feed |= {\"input_ids\": np.int64([[1, 2, 3]]), \"position_ids\": np.int64([[0, 1, 2]])}".into(),
        "feed |= {\"attention_mask\": np.ones((1, 3), np.int64)}  # past and new tokens".into(),
        "logits, *present = net.run(None, feed)".into(),
    ];
    let said = format!(
        "One run takes the next tokens of each sequence, {} at most in all: feed `present.*` back as `past_key_values.*`.",
        model.context
    );
    let sizes = (exported.model.len(), exported.weights.map(|w| w.len()));
    let places = (exported.inputs, exported.outputs);
    Ok((written(args, form, sizes, beside, places, None, lines.into()), said))
}

/// Writes the file of a supervision step.
fn step(args: &Args, form: &Form, [file, beside]: [Option<&Path>; 2]) -> anyhow::Result<(Written, String)> {
    ensure!(
        args.context.is_none(),
        "`--context` is of language models, and `{}` is none\nhint: leave it out",
        args.model.display()
    );
    let model = Model::load(&flags::model(&args.model)?)?;
    let graph = model.graph()?;
    let notes = [("model", folder_name(&args.model)), ("model_sha256", model.hash.clone())];
    let exported = onnx::export_with(graph, &model.params, form, &notes)
        .with_context(|| format!("cannot export {}", args.model.display()))?;
    write_all(file.zip(Some(exported.model.as_slice())), beside.zip(exported.weights.as_deref()))?;
    let said = match graph.states.is_empty() {
        true => String::new(),
        false => format!(
            "One run is one supervision step of at most {}: feed `next.*` back; `halting` in the file's metadata says when to stop.",
            graph.max_steps
        ),
    };
    let sizes = (exported.model.len(), exported.weights.map(|w| w.len()));
    let lines = python(graph, &args.file, form.batch.unwrap_or(1));
    let places = (exported.inputs, exported.outputs);
    Ok((written(args, form, sizes, beside, places, Some(exported.flops_per_row), lines), said))
}

/// A file that is to be there, and its bytes.
type ToWrite<'a> = Option<(&'a Path, &'a [u8])>;

/// The weights first: a model that is there is whole.
fn write_all(model: ToWrite, weights: ToWrite) -> anyhow::Result<()> {
    weights.into_iter().chain(model).try_for_each(|(path, bytes)| write_atomically(path, bytes))
}

/// What is said of the files: their sizes, names of inputs and outputs, what a run costs, lines that run it.
fn written(
    args: &Args,
    form: &Form,
    (bytes, weights_bytes): (usize, Option<usize>),
    beside: Option<&Path>,
    (inputs, outputs): (Vec<String>, Vec<String>),
    flops_per_row: Option<f64>,
    python: Vec<String>,
) -> Written {
    Written {
        bytes,
        weights_bytes,
        weights_file: beside.map(Path::to_path_buf),
        read_by: match form.opset {
            Opset::Seventeen => "ONNX Runtime 1.12 and later (IR 8)",
            Opset::TwentyThree => "ONNX Runtime 1.22 and later (IR 11)",
        },
        opset: args.opset.clone(),
        experts: args.experts.clone(),
        inputs,
        outputs,
        flops_per_row,
        python,
        file: args.file.clone(),
    }
}

fn show(written: &Written, said: &str) {
    outln!("{}: {} bytes, opset {}, for {}", written.file.display(), written.bytes, written.opset, written.read_by);
    if let (Some(file), Some(bytes)) = (&written.weights_file, written.weights_bytes) {
        outln!("{}: {bytes} bytes of weights; keep the two together", file.display());
    }
    for (word, values) in [("input", &written.inputs), ("output", &written.outputs)] {
        // caches are alike in every layer
        let first = |v: &&String| !v.contains(".key ") && !v.contains(".value ") || v.contains(".0.");
        values.iter().filter(first).for_each(|v| outln!("{word:<6}  {v}"));
        let others = values.iter().filter(|v| !first(v)).count();
        if others > 0 {
            outln!("{word:<6}  and {others} more caches, of the other layers");
        }
    }
    if let Some(flops) = written.flops_per_row {
        outln!("{flops:.3e} FLOP per row and run");
    }
    if !said.is_empty() {
        outln!("{said}");
    }
    outln!("\nNext, in Python with onnxruntime and numpy:");
    written.python.iter().for_each(|line| outln!("  {line}"));
}

fn folder_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Lines that run the file once, on zeros.
fn python(graph: &Graph, file: &Path, rows: usize) -> Vec<String> {
    let tokens = |ty: ValueType| match ty.tokens {
        Tokens::Fixed(n) => n.to_string(),
        Tokens::Length => "length".into(),
    };
    let mut feed: Vec<String> = graph
        .inputs
        .iter()
        .map(|i| {
            let zeros = if i.ty.kind == Kind::Index { "np.int64" } else { "np.float32" };
            format!("{:?}: np.zeros(({rows}, {}), {zeros})", i.name, tokens(i.ty))
        })
        .collect();
    feed.extend(graph.states.iter().map(|s| {
        format!(
            "{:?}: np.tile(np.float32(json.loads(meta[\"initial.{}\"])), ({rows}, {}, 1))",
            s.name,
            s.name,
            tokens(s.ty)
        )
    }));
    vec![
        "import json, numpy as np, onnxruntime".into(),
        format!("net = onnxruntime.InferenceSession({:?})", file.display().to_string()),
        "meta = net.get_modelmeta().custom_metadata_map".into(),
        format!("feed = {{{}}}", feed.join(", ")),
        "outputs = dict(zip([o.name for o in net.get_outputs()], net.run(None, feed)))".into(),
    ]
}
