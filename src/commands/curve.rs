//! `ergometer curve`: what trainings took to reach an accuracy, from their logs.
//!
//! In: folders of trained nets. Out: records, a table, plots. Must not: train, or compare trainings of unlike tasks
//! without a word.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use ergometer_reports::clean::clean;
use ergometer_reports::plot::training::plots;
use ergometer_reports::record::to_csv;
use ergometer_reports::training::{EvaluatedDepth, LogPoint, TrainingCourse, records};
use ergometer_reports::{Record, render, shown};

use super::flags;
use crate::console::{self, outln};
use crate::curves;
use crate::files::write_atomically;
use crate::text_table::within;

/// Width of the table where its reader is no terminal.
const WIDTH: usize = 120;

/// Most nets of one call.
const MAX_NETS: usize = 64;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Of each net and accuracy: the first evaluation at or above it, in seconds,
FLOPs and joules, and in brackets what lies between it and the evaluation
before, which was below. Nothing is interpolated. `--out` writes records.csv,
plots/ and a page with them.

Examples:
  ergometer curve trm-att-9x9 trm-mlp-9x9 looped-9x9 dense-9x9 moe-9x9
  ergometer curve trm-6x6 dense-6x6 --accuracy 0.9,0.95 --out curves")]
pub struct Args {
    /// Folders of trained nets, or names of shipped ones
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Held-out accuracies to reach
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = "0.5,0.9,0.99", value_parser = accuracy, allow_negative_numbers = true)]
    accuracy: Vec<f64>,
    /// Depth of recursive nets: all steps, or as the halting head says
    #[arg(long, value_name = "D", default_value = "full", value_parser = ["full", "halting"])]
    depth: String,
    /// Folder for records and plots
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn accuracy(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("shares above 0, 1 at most, with commas between: 0.5,0.9".into()),
    }
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(args.models.len() <= MAX_NETS, "{} nets\nhint: {MAX_NETS} are the most", args.models.len());
    let mut targets = args.accuracy;
    targets.sort_by(f64::total_cmp);
    targets.dedup();
    let depth = if args.depth == "full" { EvaluatedDepth::Full } else { EvaluatedDepth::Halting };
    let mut trainings: Vec<TrainingCourse> = Vec::new();
    for model in &args.models {
        let folder = flags::model(model)?;
        let name = folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        ensure!(
            trainings.iter().all(|t| t.model != name),
            "two nets are called `{name}`\nhint: records tell nets apart by the names of their folders: name each once"
        );
        trainings.push(curves::read(&folder, &name, depth)?);
    }
    let found: Vec<Record> = trainings.iter().flat_map(|t| records(t, &targets)).collect();
    let remarks = remarks(&trainings);
    if let Some(out) = &args.out {
        write(out, &trainings, &targets, &remarks, &found)?;
    }
    if args.json {
        console::json(&serde_json::json!({"notes": remarks, "records": found}))?;
        return Ok(ExitCode::SUCCESS);
    }
    remarks.iter().for_each(|remark| outln!("{remark}"));
    if !remarks.is_empty() {
        outln!();
    }
    console::out(&within(console::width_or(WIDTH), 0, &table(&trainings, &targets, &found)));
    outln!("\nAll: {}.", clean(&common(&trainings).join("; ")));
    if let Some(out) = &args.out {
        outln!("\n{}", out.join("records.csv").display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Something that is known of a training, in words.
type TrainingPart = fn(&TrainingCourse) -> String;

/// What a reader of several logs must know, unlike tasks first.
fn remarks(trainings: &[TrainingCourse]) -> Vec<String> {
    let several = |of: TrainingPart| -> Option<String> {
        let all: BTreeSet<String> = trainings.iter().map(of).collect();
        (all.len() > 1).then(|| all.into_iter().collect::<Vec<_>>().join("; "))
    };
    let mut said = Vec::new();
    if let Some(tasks) = several(|t| t.task.clone()) {
        said.push(format!("UNLIKE TASKS, which cannot be compared: {tasks}. Each has plots of its own."));
    }
    let differ: [(&str, TrainingPart); 5] = [
        ("examples evaluated", examples),
        ("what is held out", |t| t.data.clone()),
        ("hardware", |t| t.hardware.clone()),
        ("precision", |t| t.precision.clone()),
        ("rows of a step", |t| t.batch.to_string()),
    ];
    said.extend(differ.iter().filter_map(|(what, of)| Some(format!("The logs differ in {what}: {}.", several(*of)?))));
    for t in trainings {
        said.extend(t.log.notes.iter().map(|note| format!("{}: {note}.", t.model)));
    }
    said
}

/// A line a net and accuracy.
fn table(trainings: &[TrainingCourse], targets: &[f64], found: &[Record]) -> Vec<Vec<String>> {
    let head = ["net", "to reach", "seconds", "FLOPs", "joules", "accuracy then"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let each = trainings.iter().flat_map(|t| targets.iter().map(move |target| (t, *target)));
    for ((t, target), three) in each.zip(found.chunks(3)) {
        let cell = |r: &Record| match &r.missing {
            Some(missing) if missing.kind == "not-reached" => "not reached".into(),
            Some(_) => "unavailable".into(),
            None => shown::full(r),
        };
        let mut row = vec![t.model.clone(), format!("{target}")];
        row.extend(three.iter().map(cell));
        // how many examples it is of stands above or below the table
        let share = |point: &LogPoint| {
            let whole = point.shown(t.log.questions);
            whole.split(", n = ").next().unwrap_or_default().to_owned()
        };
        row.push(match t.log.reached(target) {
            Some(at) => share(&t.log.points[at]),
            None => format!("at most {}", share(t.log.best())),
        });
        rows.push(row);
    }
    rows
}

/// How many examples its evaluations are of.
fn examples(training: &TrainingCourse) -> String {
    let all: BTreeSet<u64> = training.log.points.iter().map(|p| p.n).collect();
    all.into_iter().map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}

/// What all of them have in common, for a line under the table.
fn common(trainings: &[TrainingCourse]) -> Vec<String> {
    let parts: [TrainingPart; 5] = [
        |t| t.task.clone(),
        |t| t.hardware.clone(),
        |t| format!("held out: {}", t.data),
        |t| format!("n = {}", examples(t)),
        |t| format!("{} depth", t.depth.name()),
    ];
    let same = |of: &&TrainingPart| trainings.iter().map(of).collect::<BTreeSet<_>>().len() == 1;
    parts.iter().filter(same).map(|of| of(&trainings[0])).collect()
}

/// Records, the plots of each task, and a page with them.
fn write(
    out: &Path,
    trainings: &[TrainingCourse],
    targets: &[f64],
    remarks: &[String],
    found: &[Record],
) -> anyhow::Result<()> {
    let tasks: BTreeSet<&str> = trainings.iter().map(|t| t.task.as_str()).collect();
    let mut page = "# Courses of training\n".to_owned();
    page.extend(remarks.iter().map(|remark| format!("\n{}\n", clean(remark))));
    for (i, task) in tasks.iter().enumerate() {
        let of_task: Vec<&TrainingCourse> = trainings.iter().filter(|t| t.task == *task).collect();
        let mut plots = plots(&of_task, targets);
        if tasks.len() > 1 {
            plots.iter_mut().for_each(|p| p.name = format!("{}-{}", p.name, i + 1));
        }
        page.extend(
            plots.iter().map(|p| format!("\n## {}\n\n![](plots/{}.svg)\n\n{}\n", p.title, p.name, clean(&p.caption))),
        );
        for (name, bytes) in render::svg::files(&plots).into_iter().chain(render::png::files(&plots)?) {
            write_atomically(&out.join(name), &bytes)?;
        }
    }
    write_atomically(&out.join("README.md"), page.as_bytes())?;
    write_atomically(&out.join("records.csv"), &to_csv(found)?)
}
