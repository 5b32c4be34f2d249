//! `ergometer convert`: a GGUF file made of another: other types of weights, or experts instead of a dense MLP.
//!
//! In: a file, what is wanted. Out: the new file, whose metadata say what it was made of. Must not: overwrite unasked, or know formats.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Subcommand, ValueEnum};
use ergometer_language::convert::{Converted, GivenRouters, Moefication, Requantisation, Router, moefy, requantise};
use ergometer_language::{BlockType, Encoding, Gguf};
use serde_json::json;

use super::flags;
use crate::console::{self, outln};
use crate::models::language::LanguageModel;
use crate::models::language::experts::{ExpertSplit, FittedRouter, fit_routers};
use crate::{fetch, interrupt};

/// Tokens of a sequence that routers are fitted on.
const STRETCH: usize = 256;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  ergometer convert requantise smollm2 --to Q8_0 --out smollm2-q8.gguf
  ergometer convert moefy smollm2 --experts 8 --active 8 --out mixture.gguf
  ergometer convert moefy smollm2 --active 4 --text moby-dick --out four.gguf")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Matrices in another type: dequantised and encoded again, which loses and never gains
    #[command(after_help = "Example:\n  ergometer convert requantise smollm2 --to Q8_0 --out smollm2-q8.gguf\n\n\
        Vectors and routers stay as they are. The file says which types it was made of.")]
    Requantise {
        /// GGUF file, or the name of a fetched model
        #[arg(value_name = "MODEL")]
        model: PathBuf,
        /// Type of the matrices: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
        #[arg(long, value_name = "TYPE", value_parser = block_type)]
        to: BlockType,
        /// Type of the embedding and of the head [default: the same, Q8_0 where that is narrower]
        #[arg(long, value_name = "TYPE", value_parser = block_type)]
        embedding: Option<BlockType>,
        #[command(flatten)]
        out: Out,
    },
    /// A dense net of the architecture `llama` as a mixture of experts: its MLP in slices
    #[command(after_help = "Example:\n  ergometer convert moefy smollm2 --experts 8 --active 8 --out mixture.gguf\n\n\
        With all experts active and a router of zeros it computes what the dense net does. With fewer\n\
        and a random router its text means nothing. With `--text` it solves each layer's router by least\n\
        squares on the end of a text (so score another part of it); nothing is trained:\n\n  \
        ergometer convert moefy smollm2 --active 4 --text moby-dick --out four.gguf")]
    Moefy {
        /// GGUF file, or the name of a fetched model
        #[arg(value_name = "MODEL")]
        model: PathBuf,
        /// Experts of a layer: a power of two
        #[arg(long, value_name = "N", default_value_t = 8, allow_negative_numbers = true)]
        experts: u16,
        /// Experts that a token meets
        #[arg(long, value_name = "K", allow_negative_numbers = true)]
        active: u16,
        /// What routers hold [default: fitted with `--text`, else zeros where all are active and random numbers where not]
        #[arg(long, value_name = "WHAT")]
        router: Option<RouterKind>,
        /// Seed of random routers
        #[arg(long, value_name = "N", default_value_t = 0)]
        seed: u64,
        /// Text that routers are fitted on: a file, or the name of a fetched text
        #[arg(long, value_name = "FILE")]
        text: Option<PathBuf>,
        /// Tokens of it, from its end
        #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(256..=1 << 15))]
        tokens: u32,
        #[command(flatten)]
        out: Out,
    },
}

/// Where it goes.
#[derive(clap::Args, Debug)]
struct Out {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RouterKind {
    /// All experts weigh the same; of fewer the first are taken
    Zero,
    /// Tokens spread over the experts by chance
    Random,
    /// The experts that put out most, as far as a regression on `--text` tells
    Fitted,
}

/// A type that is written.
fn block_type(text: &str) -> Result<BlockType, String> {
    let known: Vec<&str> = BlockType::all().filter(|k| k.is_encoded()).map(BlockType::name).collect();
    let found = BlockType::of_name(text).filter(|k| k.is_encoded());
    found.ok_or_else(|| format!("types that are written are {}", known.join(", ")))
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (model, out) = match &args.what {
        What::Requantise { model, out, .. } | What::Moefy { model, out, .. } => (model, out),
    };
    ensure!(out.force || !out.out.exists(), "{} is already there\nhint: `--force` overwrites it", out.out.display());
    let path = flags::language_model(model)?;
    ensure!(
        !path.is_dir(),
        "{} is a folder: GGUF files are converted\nhint: convert it to GGUF with a converter of llama.cpp",
        path.display()
    );
    let source = Gguf::open(&path)?;
    interrupt::words(|| "nothing was kept: a file is there only once it is whole".into());
    let (converted, mut notes) = match &args.what {
        What::Requantise { to, embedding, .. } => {
            let wanted = Requantisation { to: *to, embedding: *embedding };
            (requantise(&source, wanted, &out.out, &mut progress("tensors"))?, Vec::new())
        }
        What::Moefy { experts, active, router, seed, text, tokens, .. } => {
            let kind = router.unwrap_or(match text {
                Some(_) => RouterKind::Fitted,
                None if experts == active => RouterKind::Zero,
                None => RouterKind::Random,
            });
            ensure!(
                text.is_none() || kind == RouterKind::Fitted,
                "--text is for routers that are fitted\nhint: add --router fitted"
            );
            ensure!(
                experts.is_power_of_two(),
                "{experts} experts\nhint: a power of two from 2 to 256 is possible: 8, say"
            );
            let split = ExpertSplit { experts: (*experts).into(), active: (*active).into() };
            let router = match kind {
                RouterKind::Zero => Router::Zero,
                RouterKind::Random => Router::Random(*seed),
                RouterKind::Fitted => {
                    let text = text.as_deref().context(
                        "--router fitted needs a text\nhint: --text FILE, or `ergometer fetch moby-dick` and --text moby-dick",
                    )?;
                    fitted(&path, split, text, *tokens as usize)?
                }
            };
            let note = match (experts == active, &router) {
                (true, Router::Zero) => "it computes what the dense net does, through its experts".to_owned(),
                (_, Router::Given(given)) => format!("its routers are {}", given.about),
                _ => "its routers are untrained: its answers mean nothing, its speed does".to_owned(),
            };
            let wanted = Moefication { experts: split.experts, active: split.active, router };
            (moefy(&source, &wanted, &out.out, &mut progress("tensors"))?, vec![note])
        }
    };
    notes.extend(converted.notes.iter().cloned());
    tell_all(out, &converted, &notes)?;
    Ok(ExitCode::SUCCESS)
}

/// Routers fitted on the end of a text.
fn fitted(path: &std::path::Path, split: ExpertSplit, text: &std::path::Path, tokens: usize) -> anyhow::Result<Router> {
    let file = flags::fetched(text, fetch::FetchKind::Text)?.unwrap_or_else(|| text.to_path_buf());
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let written = ergometer_suites::text::read_text(&file, 1 << 28)?;
    let model = LanguageModel::load(path, Some(STRETCH))?;
    let tokenizer =
        model.decoder().tokenizer.as_ref().context("the file has no tokenizer\nhint: name a file that has one")?;
    let ids = tokenizer.encode(&written, Encoding { additions: false, special: false })?;
    let stretches: Vec<Vec<u32>> =
        ids.rchunks_exact(STRETCH).take(tokens.div_ceil(STRETCH)).map(<[u32]>::to_vec).collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut done_of = progress("layers' routers");
    let mut tell = |router: &FittedRouter, done: usize, all: usize| {
        let lost = 100.0 * router.lost;
        console::detail(|| format!("layer {}: {lost:.1} % of the square of the MLP's output is lost", done - 1));
        done_of(done, all);
    };
    let layers = fit_routers(&model, &stretches, split, threads, &mut tell)?;
    let lost = layers.iter().map(|l| l.lost).sum::<f64>() / layers.len().max(1) as f64;
    let about = format!(
        "fitted by least squares to {} tokens of the end of {name}; {:.0} % of the square of an MLP's output is lost in the mean layer",
        stretches.len() * STRETCH,
        100.0 * lost
    );
    Ok(Router::Given(GivenRouters { about, layers: layers.into_iter().map(|l| (l.router, l.factors)).collect() }))
}

/// Says what was written.
fn tell_all(out: &Out, converted: &Converted, notes: &[String]) -> anyhow::Result<()> {
    if out.json {
        return console::json(
            &json!({"file": out.out, "bytes": converted.bytes, "tensors": converted.kinds, "notes": notes}),
        );
    }
    let kinds: Vec<String> = converted.kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    outln!("{}: {:.1} MB, tensors: {}", out.out.display(), converted.bytes as f64 / 1e6, kinds.join(", "));
    notes.iter().for_each(|note| console::info(format!("note: {note}")));
    let file = interrupt::shell(&[out.out.display().to_string()]);
    console::info(format!("next: ergometer generate --model {file} --prompt 'The capital of France is'"));
    Ok(())
}

/// What says every few seconds how much of it is done, on a terminal.
fn progress(what: &'static str) -> impl FnMut(usize, usize) {
    let (begun, shown) = (Instant::now(), std::io::stderr().is_terminal());
    let mut said = begun;
    move |done, all| {
        if !shown || said.elapsed() < Duration::from_secs(2) {
            return;
        }
        said = Instant::now();
        let left = begun.elapsed().as_secs_f64() / done.max(1) as f64 * (all - done) as f64;
        console::info(format!("{done} of {all} {what}, {left:.0} s left"));
    }
}
