//! Cases whose workers are started several times: what each start left becomes one case.
//!
//! In: `DIR/starts/1`, `2` ..., each with the cases that it finished. Out: cases in `DIR`, each once all of its starts
//! are done or one has failed. Must not: make a case of fewer starts than were asked for.
//!
//! With `--repeats N` all groups and waves are gone through N times, with new workers each time. What one start leaves
//! is a finished case of its own below `starts/`, so that a kill loses one start at most; the first block of each start
//! is in `case.json`. Answers are scored in the first start alone; parity is checked in each.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use ergometer_reports::case::{InterleavedGroup, Prediction, Verdict};
use ergometer_reports::store::{self, MAX_ROWS};
use ergometer_reports::{CaseRun, RunFolder};
use sha2::{Digest, Sha256};

use crate::files::hex;

use super::case::Finished;
use super::plan::PlannedCase;

/// Folder of the starts, below that of the run.
const FOLDER: &str = "starts";

/// The folders of so many starts, made where missing.
pub(super) fn folders(run: &RunFolder, starts: u32) -> anyhow::Result<Vec<RunFolder>> {
    let each = (1..=starts).map(|start| {
        let place = run.dir().join(FOLDER).join(start.to_string());
        // a link would lead out of the run folder
        let made =
            run.folder().make(FOLDER).and_then(|all| all.make(&start.to_string())).and_then(|one| one.make("cases"));
        made.with_context(|| format!("cannot use {}\nhint: remove what has that name", place.display()))?;
        let folder = RunFolder::create(&place)?;
        folder.remove_leftovers()?;
        Ok(folder)
    });
    each.collect()
}

/// Where a case was left in a folder, if it was finished there.
fn place(folder: &RunFolder, case: &PlannedCase) -> Option<PathBuf> {
    let place = folder.dir().join("cases").join(ergometer_reports::slug(&case.path, &case.id));
    place.join("case.json").exists().then_some(place)
}

/// One start of a case as it was left.
fn left(folder: &RunFolder, case: &PlannedCase) -> anyhow::Result<Option<CaseRun>> {
    Ok(place(folder, case).map(|place| store::load_case(&place)).transpose()?)
}

/// Whether a case was left in an error.
pub(super) fn failed(folder: &RunFolder, case: &PlannedCase) -> anyhow::Result<bool> {
    let ended = place(folder, case).map(|place| store::load_ended(&place)).transpose()?;
    Ok(ended.is_some_and(|case| case.error.is_some()))
}

/// The answers that a case gave, if it was left and is scored by its own.
pub(super) fn answers(folder: &RunFolder, case: &PlannedCase) -> anyhow::Result<Option<Vec<Prediction>>> {
    let Some(place) = place(folder, case) else { return Ok(None) };
    let scored = store::load_ended(&place)?.accuracy_from.as_ref() == Some(&case.id);
    Ok(scored.then(|| store::load_answers(&place)).transpose()?)
}

/// Refuses starts whose samples would together be more than one case keeps, as soon as the first start has shown how
/// many it has.
///
/// # Errors
/// The first such case.
pub(super) fn check_room(first: &RunFolder, cases: &[PlannedCase], starts: u32) -> anyhow::Result<()> {
    for case in cases {
        let rows = left(first, case)?.map_or(0, |c| c.samples.len()) as u64;
        // one start has somewhat more than another
        let fitting = (MAX_ROWS as u64 - MAX_ROWS as u64 / 10) / rows.max(1);
        if u64::from(starts) > fitting {
            bail!(
                "{}: one start has {rows} rows of samples, and a case keeps {MAX_ROWS}, so that {starts} starts do not fit\n\
                 hint: begin anew with `--repeats {}`, or with fewer `seconds`",
                case.path,
                fitting.max(1)
            );
        }
    }
    Ok(())
}

/// Makes cases of the run of what the starts left, and removes the starts when there is nothing else to make of them.
pub(super) fn join(run: &RunFolder, starts: &[RunFolder], cases: &[PlannedCase]) -> anyhow::Result<()> {
    let finished = run.finished()?;
    let mut missing = false;
    for case in cases.iter().filter(|c| !finished.contains(&c.id)) {
        let mut all: Vec<CaseRun> = Vec::new();
        for folder in starts {
            let Some(start) = left(folder, case)? else { break };
            let failed = start.case.error.is_some();
            all.push(start);
            if failed {
                break;
            }
        }
        let whole = all.len() == starts.len() || all.last().is_some_and(|c| c.case.error.is_some());
        missing |= !whole;
        if !whole {
            continue;
        }
        let writer = run.begin_case(&case.path, &case.id)?;
        let log = writer.log();
        for folder in starts {
            let path =
                folder.dir().join("cases").join(ergometer_reports::slug(&case.path, &case.id)).join("stderr.log");
            if let Ok(said) = ergometer_files::open(&path, u64::MAX, ergometer_files::Links::Refused) {
                let mut log: &std::fs::File = &log;
                log.seek(SeekFrom::End(0)).context("cannot write a log")?;
                let mut bytes = Vec::new();
                said.take(store::MAX_LOG_BYTES).read_to_end(&mut bytes)?;
                log.write_all(&bytes).context("cannot write a log")?;
            }
        }
        let joined = joined(all);
        writer.finish(&joined.case, &joined.samples, &joined.predictions, &joined.attempts, &joined.sums)?;
    }
    if !missing {
        run.folder().remove(FOLDER).with_context(|| format!("cannot remove {}", run.dir().join(FOLDER).display()))?;
    }
    Ok(())
}

/// All starts of a case, in their order, as one.
fn joined(starts: Vec<CaseRun>) -> Finished<Prediction> {
    let of = starts.len();
    let mut starts = starts.into_iter();
    let first = starts.next().expect("a case without a start is not joined");
    let CaseRun { case, samples, predictions, attempts, sums } = first;
    let mut all = Finished { case, samples, predictions, attempts, sums };
    let mut firsts = vec![0];
    for (number, start) in (2..).zip(starts) {
        let next = all.samples.iter().map(|s| s.block + 1).max().unwrap_or(0);
        firsts.push(next);
        let mut case = start.case;
        if let Some(mut error) = case.error.take() {
            error.message = format!("start {number} of {of}: {}", error.message);
            all.fail(error);
            return all;
        }
        all.samples.extend(start.samples.iter().map(|mut s| {
            s.block += next;
            s
        }));
        for note in case.notes {
            if !all.case.notes.contains(&note) {
                all.case.notes.push(note);
            }
        }
        for lacking in case.unavailable {
            if all.case.unavailable.iter().all(|u| u.metric != lacking.metric) {
                all.case.unavailable.push(lacking);
            }
        }
        let largest = |v: &Option<Verdict>| match v {
            Some(Verdict::Reference { largest, .. } | Verdict::Peer { largest, .. }) => *largest,
            _ => 0.0,
        };
        if largest(&case.verdict) > largest(&all.case.verdict) {
            all.case.verdict = case.verdict;
        }
        all.case.interleaved = all.case.interleaved.zip(case.interleaved).map(|(before, after)| InterleavedGroup {
            // the same for cases that were interleaved in every start, and for no others
            id: hex(&Sha256::digest(format!("{} {}", before.id, after.id)))[..16].into(),
            rounds: before.rounds + after.rounds,
            ..before
        });
    }
    all.case.starts = firsts;
    all
}
