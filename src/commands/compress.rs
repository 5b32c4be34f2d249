//! `ergometer compress`: a reduced form of an ONNX file, by ONNX Runtime's own tools.
//!
//! In: an ONNX file, the precision. Out: another file, what was done, and the lines of a suite that measure it beside the original. Must not:
//! overwrite unasked, or judge the result: a run does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use serde::Serialize;

use super::flags;
use super::one_case::fit_for_a_suite;
use crate::compress::{Reduction, ReductionJob, compress};
use crate::console::{self, outln};
use crate::models::file;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  ergometer compress --to int8 NET.onnx --out small.onnx

At first use pip obtains ONNX Runtime's Python package, pinned, into the cache.")]
pub struct Args {
    /// Precision: `int8` by the quantiser, `f16` by the converter of ONNX Runtime; `bf16` holds weights in it and computes in f32
    #[arg(long, value_name = "PRECISION", value_parser = ["int8", "bf16", "f16"])]
    to: String,
    /// Where the reduced form goes [default: the file's name with .PRECISION.onnx, here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Static quantisation, by the ranges of values on these examples: a .npz with an array for each input (int8; default: dynamic)
    #[arg(long, value_name = "FILE.npz")]
    calibrate: Option<PathBuf>,
    /// A scale for each channel of a weight (int8)
    #[arg(long)]
    per_channel: bool,
    /// Overwrite
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The ONNX file, or `fetched:NAME-VERSION/FILE`
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    #[serde(flatten)]
    done: Reduction,
    /// Lines of a suite.
    suite: Vec<String>,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let source = flags::model(&args.model)?;
    if !file::is_onnx(&source) {
        bail!(
            "{} is no ONNX file\nhint: `ergometer export --model NAME --to onnx FILE` makes one of a model of ours",
            args.model.display()
        );
    }
    let own = file::precision(&file::header(&source)?);
    ensure!(
        !["int8", args.to.as_str()].contains(&own),
        "{} computes in {own} already\nhint: name the file that it was made of",
        args.model.display()
    );
    for (flag, given) in [("--calibrate", args.calibrate.is_some()), ("--per-channel", args.per_channel)] {
        ensure!(!given || args.to == "int8", "`{flag}` is for int8 alone\nhint: leave it out, or write `--to int8`");
    }
    let calibrate = args.calibrate.as_deref().map(std::path::absolute).transpose()?;
    if let Some(missing) = calibrate.as_ref().filter(|path| !path.is_file()) {
        bail!("there is no file {}\nhint: `--calibrate` takes a .npz with an array for each input", missing.display());
    }
    let stem = source.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "model".into());
    let out = args.out.unwrap_or_else(|| PathBuf::from(format!("{stem}.{}.onnx", args.to)));
    ensure!(
        file::is_onnx(&out),
        "{} does not end in .onnx, by which a suite knows such a file\nhint: choose another name",
        out.display()
    );
    ensure!(
        args.force || !out.exists(),
        "{} is there already\nhint: name another file with `--out`, or write over it with `--force`",
        out.display()
    );
    let same = out.canonicalize().is_ok_and(|there| source.canonicalize().is_ok_and(|source| source == there));
    ensure!(!same, "{} is the original\nhint: name another file with `--out`", out.display());
    let job = ReductionJob { source, out, to: args.to, calibrate, per_channel: args.per_channel };
    let done = compress(&job)?;
    let suite = suite(&fit_for_a_suite(&stem), &job);
    let written = Written { file: job.out, done, suite };
    if args.json {
        console::json(&written)?;
    } else {
        show(&written);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(written: &Written) {
    let Written { file, done, suite } = written;
    outln!("wrote    {}: {} bytes, the original has {}", file.display(), done.bytes_after, done.bytes_before);
    outln!("by       {}", done.tool);
    outln!("         {}", done.options);
    outln!("nodes    {}", done.nodes);
    if let Some(why) = &done.loads {
        console::warn(format!("ONNX Runtime does not load it: {why}"));
    }
    outln!("next     measure it beside the original: in the original's suite, next to its [[model]] block\n");
    suite.iter().for_each(|line| outln!("{line}"));
}

/// What a suite says of it.
fn suite(original: &str, job: &ReductionJob) -> Vec<String> {
    let path = toml::Value::String(job.out.display().to_string());
    [
        "[[model]]".into(),
        format!("name = \"{original}-{}\"", job.to),
        format!("path = {path}"),
        format!("reduces = \"{original}\"      # the original's name in the suite: answers are compared in pairs"),
        String::new(),
        "[[cases]]                   # and the tasks and backends of the original's cases".into(),
        format!("models = [\"{original}-{}\"]", job.to),
        format!("precisions = [\"{}\"]", job.to),
        "interleave = true           # here and there: they take turns, so that their speeds can be compared".into(),
    ]
    .to_vec()
}
