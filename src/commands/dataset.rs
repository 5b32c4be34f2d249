//! `ergometer dataset`: a task's examples as a file for any trainer.
//!
//! In: a file that names a task, a side of its split, how many. Out: the file, and a line or JSON of what it holds. Must not: know a task.

use std::path::PathBuf;
use std::process::ExitCode;

use ergometer_suites::suite::Known;
use ergometer_suites::task::Split;
use ergometer_suites::task_file::TaskFile;

use super::flags;
use crate::backends::BACKENDS;
use crate::console::{self, outln};
use crate::dataset::{self, MAX_EXAMPLES, Request, formats};
use crate::runner;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
TASK-FILE is one of
  a training file, or the name of a shipped one: its [task] table
  a suite, or the name of a shipped one: one of its tasks, chosen by --task
  a file of your own with nothing but the table:
    [task]
    kind = \"sudoku\"
    size = 9

The ending of FILE says the format:
  .safetensors  tokens, answer (U8, U16 or U32, by the vocabulary), difficulty
                and, where the task has them, puzzle_id (U32); metadata say
                task, side, seed, parameters and numbering
  .npz          the same arrays, compressed
  .csv .jsonl   a line an example; Sudoku's are read again by a suite's task
                with `csv = \"FILE\"`

The same request gives the same bytes, whatever the number of threads. The
first 1000 examples of the test side are those of a suite with the same
parameters and seed. No example is there twice.

Examples:
  ergometer dataset quick --task sudoku-6x6 --split train --examples 5000\\
    --out train.safetensors
  ergometer dataset trm-4x4 --split test --examples 500 --seed 1 --out test.csv")]
pub struct Args {
    /// Training file, suite, or a file with a table `task`
    #[arg(value_name = "TASK-FILE")]
    file: PathBuf,
    /// Which of a suite's tasks
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Side: train, what nets learn from, or test, what is held out
    #[arg(long, value_name = "SIDE", value_parser = ["train", "test"])]
    split: String,
    /// How many examples
    #[arg(long, value_name = "N", value_parser = examples, allow_negative_numbers = true)]
    examples: u64,
    /// The file to write: .safetensors, .npz, .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seed
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    seed: u64,
    /// Threads that make examples [default: one a processor]
    #[arg(long, value_name = "T", value_parser = flags::threads, allow_negative_numbers = true)]
    threads: Option<u32>,
    /// Go on with the examples of a call that was ended
    #[arg(long)]
    resume: bool,
    /// Overwrite
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn examples(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(n) if (1..=MAX_EXAMPLES).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {MAX_EXAMPLES}")),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(n) if i64::try_from(n).is_ok() => Ok(n),
        _ => Err(format!("a whole number from 0 to {}", i64::MAX)),
    }
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let format = formats::of(&args.out)?;
    let backends: Vec<&str> = BACKENDS.iter().map(|b| b.name()).collect();
    let known = Known { backends: &backends, precisions: &runner::precisions(), processors: runner::processors() };
    let request = Request {
        task: TaskFile::load(&args.file, args.task.as_deref(), &known)?,
        split: if args.split == "train" { Split::Train } else { Split::Test },
        examples: args.examples,
        seed: args.seed,
        threads: args
            .threads
            .map_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()), |n| n as usize),
        out: args.out,
        format,
        resume: args.resume,
        force: args.force,
    };
    let made = dataset::make(&request)?;
    if args.json {
        console::json(&made)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shape = &made.shape;
    outln!(
        "{}: {} examples of `{}`, {} side, seed {}; {} cells, tokens below {}{}; {:.1} MB",
        made.file.display(),
        made.examples,
        made.kind,
        made.split,
        made.seed,
        shape.cells,
        shape.vocabulary,
        if shape.has_ids() { format!(", puzzle ids below {}", shape.puzzle_ids) } else { String::new() },
        made.bytes as f64 / 1e6
    );
    console::info(match made.repeated {
        0 => "no example came twice".to_owned(),
        n => format!("{n} examples came again and were left out"),
    });
    if made.found > 0 {
        console::info(format!("{} examples were there from an earlier call", made.found));
    }
    Ok(ExitCode::SUCCESS)
}
