//! `ergometer report`: reports from recorded runs alone.
//!
//! In: run folders. Out: files in the chosen formats under each run's `report/`. Must not: measure, or show anything that is not in the
//! run folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use ergometer_reports::render::{self, FORMATS};
use ergometer_reports::{RecordedRun, Report, load};
use ergometer_suites::error::did_you_mean;

use crate::console::{self, outln};

/// Width of the headline table where its reader is no terminal.
const WIDTH: usize = 120;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  ergometer report my-run --format md")]
pub struct Args {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Format, several times if wanted: html, md, csv, json, llama-bench, svg, png
    #[arg(long = "format", value_name = "F", default_value = "html")]
    formats: Vec<String>,
    /// Folder for the files [default: RUN/report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.out.is_some() && args.runs.len() > 1 {
        bail!(
            "`--out` names one folder, but there are {} runs\nhint: leave it out; each report goes into its run's folder",
            args.runs.len()
        );
    }
    let formats: Vec<&str> = args.formats.iter().map(String::as_str).collect();
    for dir in &args.runs {
        if dir.exists() && !dir.is_dir() {
            bail!("{} is no folder\nhint: name the folder of a run, as `ergometer run` has named it", dir.display());
        }
        let run = load(dir)?;
        let written = write(run, args.out.as_deref(), dir, &formats)?;
        if written.is_empty() {
            let what = args.formats.join(", ");
            bail!(
                "{} has nothing to show as {what}\nhint: `llama-bench` is for cases of language models at batch 1",
                dir.display()
            );
        }
        written.iter().for_each(|file| outln!("{}", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The headline table of a run, for a terminal.
pub fn headline(report: &Report) -> String {
    render::headline(report, console::width_or(WIDTH))
}

/// Writes a run's report in these formats into a folder, else into that of the run; gives the files.
pub fn write(run: RecordedRun, out: Option<&Path>, dir: &Path, formats: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut chosen = Vec::new();
    for name in formats {
        let Some(format) = render::format(name) else {
            let known: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
            let meant = did_you_mean(name, known.iter().copied());
            bail!("unknown format `{name}`{meant}\nhint: known are {}", known.join(", "));
        };
        chosen.push(format);
    }
    let report = Report::new(run);
    Ok(match out {
        Some(out) => render::write(&report, &chosen, out)?,
        None => render::write_in_run(&report, &chosen, dir)?,
    })
}
