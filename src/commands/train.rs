//! `ergometer train`: a reference model from a training file.
//!
//! In: a training file. Out: a model folder with weights, log and card. Must not: know how training is done.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use ergometer_files::counted;
use ergometer_suites::error::did_you_mean;

use crate::console;
use crate::interrupt;
use crate::train::config::TrainConfig;
use crate::train::{self, Collapsed, TooInaccurate, TrainOptions};

/// Flags.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  ergometer train trm-4x4 --out my-net\n  ergometer train trm-4x4 --out my-net --resume"
)]
pub struct Args {
    /// Training file (model, task and recipe), or the name of a shipped one
    config: PathBuf,
    /// Where to compute
    #[arg(long, value_name = "cpu", default_value = "cpu")]
    device: String,
    /// Go on from the checkpoint in the model's folder
    #[arg(long)]
    resume: bool,
    /// Read and check the training file, and train nothing
    #[arg(long)]
    dry_run: bool,
    /// Folder of the model [default: as the file says]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// When a file was written; none: it is not there.
fn written(path: &Path) -> Option<SystemTime> {
    path.symlink_metadata().ok()?.modified().ok()
}

/// Runs it.
pub fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    if let Some(shipped) = ergometer_suites::find_training(&args.config) {
        args.config = shipped;
    } else if !args.config.exists() && args.config.extension().is_none() {
        let known = ergometer_suites::shipped_trainings();
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        let meant = did_you_mean(&args.config.to_string_lossy(), names.iter().copied());
        anyhow::bail!(
            "there is no training file `{}`{meant}\nhint: name a file, or one of {}",
            args.config.display(),
            names.join(", ")
        );
    }
    if args.dry_run {
        let (config, _) = TrainConfig::load(&args.config)?;
        console::out(&format!(
            "{}: {}, into {}\n",
            args.config.display(),
            counted(config.steps, "step"),
            args.out.unwrap_or(config.out).display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let environment = train::missing_environment(&args.config)?;
    if !environment.is_empty() {
        use std::os::unix::process::CommandExt;
        let mut again = std::process::Command::new(std::env::current_exe()?);
        return Err(again.args(std::env::args_os().skip(1)).envs(environment).exec().into());
    }
    let options = TrainOptions { resume: args.resume, device: Some(args.device), out: args.out };
    let mut words: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let fresh = interrupt::shell(&words);
    if !args.resume {
        words.push("--resume".into());
    }
    let out = options.out.clone().map_or_else(|| Ok(TrainConfig::load(&args.config)?.0.out), anyhow::Ok)?;
    // a checkpoint of an earlier training of the same name is not this one's
    let before = written(&out.join(train::CHECKPOINT));
    interrupt::words(move || match written(&out.join(train::CHECKPOINT)) {
        now @ Some(_) if args.resume || now != before => {
            format!("the last checkpoint is kept\nnext: ergometer {}", interrupt::shell(&words))
        }
        _ => format!("there was no checkpoint yet, so nothing was kept\nnext: ergometer {fresh}"),
    });
    match train::run(&args.config, &options) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // trained, but not fit for use
        Err(error) if error.is::<TooInaccurate>() || error.is::<Collapsed>() => {
            console::warn(format!("failed: {error}"));
            Ok(ExitCode::from(1))
        }
        Err(error) => Err(error),
    }
}
