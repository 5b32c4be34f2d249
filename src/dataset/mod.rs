//! A task's examples as a file for any trainer: made in chunks by all processors, kept beside the file until all are there.
//!
//! In: a [`Request`]. Out: one file, the same bytes for the same request whatever the number of threads, or nothing. Must not: know a task;
//! that no held-out example is on the train side is the task's word ([`Task::maker`](ergometer_suites::Task::maker)).
//!
//! Chunk `k` is made from a seed of its own. Chunks are looked at in order, an example that was there before is left out and counted, and
//! more chunks are made until there are enough.

mod array;
mod chunk;
pub mod formats;
mod npz;
mod parts;
mod set;

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::{Context, anyhow, bail, ensure};
use ergometer_suites::task::{Maker, Split, chunk_seed};
use ergometer_suites::task_file::TaskFile;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use self::chunk::{Chunk, Shape};
use self::formats::Format;
use self::parts::Parts;
use self::set::Set;
use crate::{console, interrupt};

/// Examples of a chunk. Part of what a seed means: never to be changed.
const CHUNK: u64 = 1000;
/// Rounds of chunks without a new example after which a set is taken to hold all there are (near enough).
const MAX_BARREN: u32 = 5;
/// Most examples of a file.
pub const MAX_EXAMPLES: u64 = 10_000_000;

/// What is wanted.
pub struct Request {
    /// The task.
    pub task: TaskFile,
    /// Which side of it.
    pub split: Split,
    /// How many examples, 1 to [`MAX_EXAMPLES`].
    pub examples: u64,
    /// Seed.
    pub seed: u64,
    /// Threads that make examples.
    pub threads: usize,
    /// The file.
    pub out: PathBuf,
    /// Its format.
    pub format: &'static Format,
    /// Finished chunks of an earlier call are used.
    pub resume: bool,
    /// A file that is there is replaced, and so are chunks that are not to be used.
    pub force: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
pub struct Made {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Kind of task.
    pub kind: &'static str,
    /// Side of the split.
    pub split: &'static str,
    /// Seed.
    pub seed: u64,
    /// Examples in the file.
    pub examples: u64,
    /// Examples that were made again, and are there once.
    pub repeated: u64,
    /// What every example has.
    #[serde(flatten)]
    pub shape: Shape,
    /// Examples that an earlier call had made.
    pub found: u64,
}

/// Makes the file.
///
/// # Errors
/// A request that the task cannot meet; a place that cannot be written; chunks of another request.
pub fn make(request: &Request) -> anyhow::Result<Made> {
    let TaskFile { task, parameters, .. } = &request.task;
    let place = |e| anyhow!("{}: {e}", request.task.file.display());
    let maker = task.maker(parameters, request.task.folder(), request.split).map_err(place)?;
    let parts = Parts::open(request)?;
    let made = match collect(request, &maker, &parts) {
        Ok(made) => made,
        // a request that cannot be met leaves nothing behind
        Err(error) => {
            if parts.ready().is_ok_and(|ready| ready.is_empty()) {
                let _ = parts.remove();
            }
            return Err(error);
        }
    };
    {
        let _gate = interrupt::gate();
        let written = ergometer_files::replace_with(&request.out, |file| (request.format.write)(&made, file));
        written.with_context(|| {
            format!(
                "failed to write `{}`\nhint: is there space, and may you write there? The examples are kept in {}: `--resume` goes on",
                request.out.display(),
                parts.path().display()
            )
        })?;
    }
    let result = Made {
        bytes: request.out.metadata().map_or(0, |m| m.len()),
        file: request.out.clone(),
        kind: task.name,
        split: request.split.name(),
        seed: request.seed,
        examples: made.examples,
        repeated: made.repeated,
        shape: made.shape.clone(),
        found: made.found,
    };
    parts.remove()?;
    Ok(result)
}

/// Makes chunks until they hold enough different examples.
fn collect<'a>(request: &'a Request, maker: &Maker, parts: &'a Parts) -> anyhow::Result<Set<'a>> {
    let kept = Arc::new(AtomicU64::new(0));
    say_when_interrupted(kept.clone(), parts);
    let bar = bar(request.examples);
    let mut set: Option<Set> = None;
    let mut seen = HashSet::new();
    let mut found = 0;
    let mut ready = parts.ready()?;
    let (mut first, mut missing, mut repeated, mut barren) = (0, request.examples, 0, 0);
    while missing > 0 {
        let last = first + missing.div_ceil(CHUNK);
        // the last chunk of a first round is only as large as it must be
        let size = |chunk: u64| match first {
            0 => CHUNK.min(request.examples - chunk * CHUNK) as usize,
            _ => CHUNK.min(request.examples) as usize,
        };
        let (there, absent): (Vec<u64>, Vec<u64>) = (first..last).partition(|chunk| ready.contains(chunk));
        kept.fetch_add(there.iter().map(|&chunk| size(chunk) as u64).sum(), Ordering::Relaxed);
        bar.set_position(kept.load(Ordering::Relaxed).min(request.examples));
        bar.reset_eta();
        let jobs: Vec<(u64, usize)> = absent.into_iter().map(|chunk| (chunk, size(chunk))).collect();
        in_parallel(request, maker, &jobs, |chunk, shape, made| {
            parts.write(chunk, &shape, &made)?;
            ready.insert(chunk);
            kept.fetch_add(made.rows() as u64, Ordering::Relaxed);
            bar.set_position(kept.load(Ordering::Relaxed).min(request.examples));
            Ok(())
        })?;
        let before = missing;
        for chunk in first..last {
            let (shape, rows) = parts.read(chunk)?;
            found += if there.contains(&chunk) { rows.rows() as u64 } else { 0 };
            let set = set.get_or_insert_with(|| Set::new(request, parts, shape.clone()));
            ensure!(
                set.shape == shape,
                "chunk {chunk} of {} is of another data set than those before it\nhint: did the task's own file change meanwhile? \
                 `--force` without `--resume` begins anew",
                parts.path().display()
            );
            let new: Vec<bool> = (0..rows.rows())
                .map(|row| {
                    let new = missing > 0 && seen.insert(rows.digest(row, &shape));
                    repeated += u64::from(missing > 0 && !new);
                    missing -= u64::from(new);
                    new
                })
                .collect();
            set.keep(chunk, &new);
        }
        barren = if missing < before { 0 } else { barren + 1 };
        if barren == MAX_BARREN {
            let there = request.examples - missing;
            bail!(
                "{}: after {there} different examples the next ones only repeat them\nhint: ask for at most {there} examples (`--examples`), or \
                 change the task's parameters",
                request.task.file.display()
            );
        }
        first = last;
    }
    bar.finish_and_clear();
    let mut set = set.context("no example was made")?;
    (set.repeated, set.found) = (repeated, found);
    Ok(set)
}

/// Makes the chunks with their numbers and sizes on the request's threads and gives each to `take`, in the order in which they are done.
fn in_parallel(
    request: &Request,
    maker: &Maker,
    jobs: &[(u64, usize)],
    mut take: impl FnMut(u64, Shape, Chunk) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::sync_channel(2 * request.threads);
    std::thread::scope(|scope| {
        for _ in 0..request.threads.min(jobs.len()) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while let Some(&(chunk, size)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let made = maker(chunk_seed(request.seed, chunk), size)
                        .map_err(|e| anyhow!("{}: {e}", request.task.file.display()))
                        .and_then(|set| Chunk::of(&set));
                    // nobody listens after an error
                    if stop.load(Ordering::Relaxed) || sender.send((chunk, made)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut result = Ok(());
        for (chunk, made) in receiver {
            // all are listened to, so that no thread waits for ever
            if result.is_ok() {
                result = made.and_then(|(shape, made)| take(chunk, shape, made));
                stop.store(result.is_err(), Ordering::Relaxed);
            }
        }
        result
    })
}

fn bar(examples: u64) -> ProgressBar {
    if console::quiet() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:20} {human_pos}/{human_len} examples  {rate}  ETA {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    ProgressBar::new(examples).with_style(style.with_key("rate", rate))
}

/// The command that goes on is the one that was given, with `--resume`.
fn say_when_interrupted(kept: Arc<AtomicU64>, parts: &Parts) {
    let mut words: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    if !words.iter().any(|w| w == "--resume") {
        words.push("--resume".into());
    }
    let folder = parts.path().display().to_string();
    interrupt::words(move || {
        let kept = kept.load(Ordering::Relaxed);
        format!("{kept} examples are kept in {folder}\nnext: ergometer {}", interrupt::shell(&words))
    });
}

#[cfg(test)]
mod tests;
