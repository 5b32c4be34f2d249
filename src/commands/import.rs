//! `ergometer import`: a released checkpoint of TRM or HRM as a model folder.
//!
//! In: a file of `torch.save`, its run's config. Out: the folder, and what is known of it as lines or JSON. Must not:
//! know how either is read.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::console::{self, outln};
use crate::import::{self, ImportRequest, WeightSet};

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
CHECKPOINT is what the released code saves: `step_N`, beside all_config.yaml.
Its pickle is read as data. Tensors are taken from it, no code is run, and a
name that no tensor needs (`os.system`) is refused.

Examples, from the root of this tree:
  ergometer import tests/golden/released/step_7 --seq-len 4 --out imported
  ergometer import tests/golden/released/step_7 --out again --weights ema\\
    --dataset tests/golden/released/dataset.json")]
pub struct Args {
    /// File that `torch.save` wrote
    checkpoint: PathBuf,
    /// Config of its run, YAML or JSON [default: all_config.yaml beside it]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// dataset.json of its data: cells, vocabulary, puzzle ids
    #[arg(long, value_name = "FILE")]
    dataset: Option<PathBuf>,
    /// Cells of a grid, where no file says (9x9 Sudoku: 81)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 22), allow_negative_numbers = true)]
    seq_len: Option<u32>,
    /// Which weights: their moving average, or raw; needed where it has both
    #[arg(long, value_name = "SET", value_parser = ["ema", "raw"])]
    weights: Option<String>,
    /// Numbering of its puzzle ids, if it is that of a task here
    #[arg(long, value_name = "NAME")]
    numbering: Option<String>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Overwrite
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let request = ImportRequest {
        checkpoint: args.checkpoint,
        config: args.config,
        dataset: args.dataset,
        seq_len: args.seq_len.map(|n| n as usize),
        weights: args.weights.map(|w| if w == "ema" { WeightSet::Ema } else { WeightSet::Raw }),
        numbering: args.numbering,
        out: args.out,
        force: args.force,
    };
    let made = import::import(&request)?;
    if args.json {
        console::json(&made)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ids = made.puzzle_ids.map_or_else(|| "no puzzle table".into(), |n| ergometer_files::counted(n, "puzzle id"));
    outln!(
        "{}: {}, {} tensors, {} parameters, {ids}",
        made.folder.display(),
        made.family,
        made.tensors,
        made.parameters
    );
    outln!("weights  {}", made.weights);
    outln!("step     {}", made.step.map_or_else(|| "not recorded".into(), |n| n.to_string()));
    outln!("source   {}, sha256 {}", made.source, made.sha256);
    made.notes.iter().for_each(|note| outln!("note     {note}"));
    Ok(ExitCode::SUCCESS)
}
