//! `ergometer generate`: a language model speaks, and what it took is said after it.
//!
//! In: a model, a prompt. Out: the text on stdout as it comes; tokens a second and per joule on stderr, or all of it as JSON.
//! Must not: pass for a measurement: it is one run, in this process, on a machine that nobody looked at.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ergometer_language::{ChatMessage, Decoder, Encoding, TextTokenizer};
use ergometer_reports::format::number;
use ergometer_suites::error::did_you_mean;
use serde_json::{Value, json};

use super::flags;
use crate::backends::{Backend, BackendError, Options, backend};
use crate::console;
use crate::generation::{self, Choice, Generated, TextStream};
use crate::interrupt;
use crate::meters::{MeterOptions, MeterReading, Meters};
use crate::models::language::LanguageModel;

const EXAMPLES: &str = "Examples:
  ergometer generate --model smollm2 --prompt 'The capital of France is'
  ergometer generate --model smollm2 --chat --prompt 'Who wrote Moby-Dick?'

`ergometer fetch smollm2` obtains that model, 98 MB.

One run in this process, on a machine that nobody looked at: no measurement.";

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// GGUF file, folder with config.json and safetensors, or the name of a fetched model
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// What the text begins with, or with --chat what is said to the model
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Put the prompt into the model's chat template
    #[arg(long)]
    chat: bool,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = flags::tokens, allow_negative_numbers = true)]
    tokens: u32,
    /// Engine
    #[arg(long, value_name = "B", default_value = "native", value_parser = flags::backend)]
    backend: String,
    /// Precision that it computes in [default: weights as they are stored where the engine has that, else its first]
    #[arg(long, value_name = "P")]
    precision: Option<String>,
    /// Compute threads
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = flags::threads, allow_negative_numbers = true)]
    threads: u32,
    /// Choose tokens by chance at this temperature; 0: always the likeliest
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = flags::tolerance, allow_negative_numbers = true)]
    temperature: f64,
    /// Seed of chance
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON when it is done, and no text before
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(!args.prompt.is_empty(), "`--prompt` is empty\nhint: give the words that the text begins with");
    let engine = backend(&args.backend).context("checked with the flags")?;
    let precision = language_precision(engine, args.precision.as_deref())?;
    let model = LanguageModel::load(&flags::language_model(&args.model)?, None)?;
    let prompt = prompt_ids(&args, model.decoder())?;
    let context = prompt.len() + args.tokens as usize;
    let most = model.config().context;
    ensure!(
        context <= most,
        "the prompt has {} tokens and {} are to be generated: more than the {most} of the model's context\nhint: shorten the prompt, or ask for fewer `--tokens`",
        prompt.len(),
        args.tokens
    );
    let model = model.within(context)?;
    let mut meters = Meters::probe(&MeterOptions::from_env());
    let options = Options { precision, language: true, ..Options::f32(args.threads as usize, 1) };
    engine.prepare(&options).map_err(|lacking| remedied(BackendError::Unavailable(lacking)))?;
    let began = Instant::now();
    let mut loaded = engine.load_language(&model, &options).map_err(remedied)?;
    console::detail(|| format!("loaded in {:.2} s", began.elapsed().as_secs_f64()));
    interrupt::words(|| "what was generated until then stands above".into());

    let tokenizer = model.decoder().tokenizer.as_ref().context("looked at with the prompt")?;
    let mut stream = TextStream::new(tokenizer, &prompt);
    let (mut text, mut ticked) = (String::new(), Instant::now());
    let tick = meters.tick_interval().unwrap_or(Duration::MAX);
    let mut say = |piece: &str| {
        text += piece;
        if !args.json {
            console::out(piece);
        }
    };
    meters.start();
    let made = generation::generate(
        &mut *loaded,
        &prompt,
        &model.config().ends,
        args.tokens as usize,
        &mut Choice::new(args.temperature as f32, args.seed),
        |id| {
            say(&stream.push(id)?);
            if ticked.elapsed() >= tick / 2 {
                meters.tick();
                ticked = Instant::now();
            }
            Ok(ControlFlow::Continue(()))
        },
    );
    let readings = meters.stop();
    let made = made?;
    say(&stream.finish()?);
    let energy = Energy { tokens: [made.ids.len(), prompt.len()], readings };
    if args.json {
        console::json(&as_json(&args, &options, &text, &prompt, &made, &energy))?;
    } else {
        console::out("\n");
        report(&prompt, &made, &energy);
    }
    Ok(ExitCode::SUCCESS)
}

/// Precision that was asked for; else the engine's first for language models.
fn language_precision(engine: &dyn Backend, asked: Option<&str>) -> anyhow::Result<String> {
    let known = engine.language_precisions();
    match (asked, known.first()) {
        (_, None) => {
            bail!("backend `{}` does not generate text\nhint: `--backend native` generates", engine.name())
        }
        (None, Some(first)) => Ok((*first).to_string()),
        (Some(asked), _) if known.contains(&asked) => Ok(asked.to_string()),
        (Some(asked), _) => bail!(
            "`--precision {asked}`: backend `{}` generates in {}{}\nhint: leave it out: the first of these is used",
            engine.name(),
            known.join(", "),
            did_you_mean(asked, known.iter().copied())
        ),
    }
}

fn remedied(error: BackendError) -> anyhow::Error {
    match error {
        BackendError::Unavailable(mut why) if why.hint.is_none() => {
            why.hint = Some("`--backend native` generates".into());
            BackendError::Unavailable(why).into()
        }
        other => other.into(),
    }
}

/// The prompt as tokens.
fn prompt_ids(args: &Args, decoder: &Decoder) -> anyhow::Result<Vec<u32>> {
    let path = decoder.path().display();
    let Some(tokenizer) = &decoder.tokenizer else {
        bail!(
            "{path}: the model has no tokenizer\nhint: put its tokenizer.json beside config.json, or use a GGUF file"
        );
    };
    let ids = match (args.chat, &decoder.template) {
        (false, _) => tokenizer.encode(&args.prompt, Encoding { additions: true, special: false })?,
        (true, None) => {
            bail!("{path}: the model has no chat template\nhint: leave `--chat` out: the prompt is continued")
        }
        (true, Some(template)) => {
            let message = ChatMessage { role: "user".into(), content: args.prompt.clone() };
            let text = template.render(&[message], true)?;
            console::detail(|| format!("the prompt in the chat template: {text:?}"));
            chat_ids(tokenizer, &text)?
        }
    };
    ensure!(!ids.is_empty(), "the prompt has no token\nhint: give the words that the text begins with");
    Ok(ids)
}

/// A template names the token that begins a text by itself, so that it is not added once more.
fn chat_ids(tokenizer: &TextTokenizer, text: &str) -> anyhow::Result<Vec<u32>> {
    let with = tokenizer.encode(text, Encoding { additions: true, special: true })?;
    let without = tokenizer.encode(text, Encoding { additions: false, special: true })?;
    let twice = with.len() > without.len() && with.first() == without.first();
    Ok(if twice { without } else { with })
}

/// What the meters read, and over how many tokens: generated ones, those of the prompt.
struct Energy {
    tokens: [usize; 2],
    readings: Vec<MeterReading>,
}

/// Says what it took.
fn report(prompt: &[u32], made: &Generated, energy: &Energy) {
    let rate = |tokens: usize, seconds: f64| format!("{} tokens/s", number(tokens as f64 / seconds.max(1e-9)));
    let first = made.first_token_seconds().unwrap_or_default();
    if std::io::stderr().is_terminal() {
        console::info("");
    }
    console::info(format!(
        "prompt     {} tokens, {}; first token after {} s",
        prompt.len(),
        rate(prompt.len(), made.prefill_seconds()),
        number(first)
    ));
    let why = if made.ended { "its end" } else { "the length asked for" };
    console::info(match made.decode() {
        Some((tokens, seconds)) => format!("generated  {} tokens, to {why}, {}", made.ids.len(), rate(tokens, seconds)),
        None => format!("generated  {} token, to {why}: no rate of one", made.ids.len()),
    });
    // of the same reason one line
    let mut unavailable: Vec<(Vec<&str>, &str)> = Vec::new();
    for reading in &energy.readings {
        match &reading.value {
            Ok(joules) => console::info(format!(
                "energy     {} J ({}, of the whole machine), {} generated tokens/J, {} tokens/J with the prompt",
                number(*joules),
                reading.metric,
                number(energy.tokens[0] as f64 / joules),
                number(energy.tokens.iter().sum::<usize>() as f64 / joules)
            )),
            Err(why) => match unavailable.iter_mut().find(|(_, other)| other == why) {
                Some((metrics, _)) => metrics.push(reading.metric),
                None => unavailable.push((vec![reading.metric], why)),
            },
        }
        if let Some(note) = &reading.note {
            console::info(format!("note: {note}"));
        }
    }
    for (metrics, why) in unavailable {
        console::info(format!("energy     unavailable ({}): {}", metrics.join(", "), why.replace("\nhint: ", "; ")));
    }
}

/// The same for programs.
fn as_json(args: &Args, options: &Options, text: &str, prompt: &[u32], made: &Generated, energy: &Energy) -> Value {
    let reading = |r: &MeterReading| match &r.value {
        Ok(joules) => json!({
            "joules": joules, "edges": 2.0 * r.resolution, "note": r.note,
            "tokens_per_joule_output": energy.tokens[0] as f64 / joules,
            "tokens_per_joule_total": energy.tokens.iter().sum::<usize>() as f64 / joules,
        }),
        Err(why) => json!({"missing": why}),
    };
    let read: serde_json::Map<String, Value> =
        energy.readings.iter().map(|r| (r.metric.to_string(), reading(r))).collect();
    let decode = made.decode();
    json!({
        "model": args.model, "backend": args.backend, "precision": options.precision, "threads": options.threads,
        "temperature": args.temperature, "seed": args.seed, "text": text, "ended": made.ended,
        "prompt_ids": prompt, "ids": made.ids,
        "prefill": {"tokens": prompt.len(), "seconds": made.prefill_seconds()},
        "first_token_seconds": made.first_token_seconds(),
        "decode": decode.map(|(tokens, seconds)| json!({"tokens": tokens, "seconds": seconds, "rate": tokens as f64 / seconds.max(1e-9)})),
        "energy": read,
    })
}
