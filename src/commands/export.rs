//! `ergometer export`: a model as an ONNX file of one supervision step, for other runtimes.
//!
//! In: a model, the form of the file. Out: the file, and the weights beside it if asked for. Must not: overwrite unasked, or know operators.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};

use super::flags;
use crate::console::{self, outln};
use crate::files::write_atomically;
use crate::graph::{Graph, Kind, Tokens, ValueType};
use crate::models::Model;
use crate::onnx::{self, ExpertForm, Form, Opset};

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  ergometer export --model trm-4x4 --to onnx trm.onnx")]
pub struct Args {
    /// Folder of the model, or the name of a shipped one
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
    /// Of one row of one run, in products.
    flops_per_row: f64,
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
    let model = Model::load(&flags::model(&args.model)?)?;
    let graph = model.graph()?;
    let form = Form {
        batch: args.batch.0,
        opset: if args.opset == "23" { Opset::TwentyThree } else { Opset::Seventeen },
        experts: if args.experts == "routed" { ExpertForm::Routed } else { ExpertForm::All },
        external,
    };
    let notes = [("model", folder_name(&args.model)), ("model_sha256", model.hash.clone())];
    let exported = onnx::export_with(graph, &model.params, &form, &notes)
        .with_context(|| format!("cannot export {}", args.model.display()))?;
    // the weights first: a model that is there is whole
    if let (Some(path), Some(bytes)) = (&beside, &exported.weights) {
        write_atomically(path, bytes)?;
    }
    write_atomically(&args.file, &exported.model)?;
    let written = Written {
        bytes: exported.model.len(),
        weights_bytes: exported.weights.as_ref().map(Vec::len),
        weights_file: beside,
        read_by: match form.opset {
            Opset::Seventeen => "ONNX Runtime 1.12 and later (IR 8)",
            Opset::TwentyThree => "ONNX Runtime 1.22 and later (IR 11)",
        },
        opset: args.opset,
        experts: args.experts,
        inputs: exported.inputs,
        outputs: exported.outputs,
        flops_per_row: exported.flops_per_row,
        python: python(graph, &args.file, form.batch.unwrap_or(1)),
        file: args.file,
    };
    if args.json {
        console::json(&written)?;
    } else {
        show(&written, graph);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(written: &Written, graph: &Graph) {
    outln!("{}: {} bytes, opset {}, for {}", written.file.display(), written.bytes, written.opset, written.read_by);
    if let (Some(file), Some(bytes)) = (&written.weights_file, written.weights_bytes) {
        outln!("{}: {bytes} bytes of weights; keep the two together", file.display());
    }
    for (word, values) in [("input", &written.inputs), ("output", &written.outputs)] {
        values.iter().for_each(|v| outln!("{word:<6}  {v}"));
    }
    outln!("{:.3e} FLOP per row and run", written.flops_per_row);
    if !graph.states.is_empty() {
        outln!(
            "One run is one supervision step of at most {}: feed `next.*` back; `halting` in the file's metadata says when to stop.",
            graph.max_steps
        );
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
