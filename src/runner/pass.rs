//! One pass over a run's cases: each one's worker is started once, in interleaved groups and waves.
//!
//! In: a plan, the cases that are due. Out: their folders, each written when its interleaved group or wave has ended.
//! Must not: run a case that is not due.
//!
//! `case.json` names the interleaved group and the base of a case, and the k-th timed block of each case of a group
//! belongs to round k, so that the files alone pair them. A resumed run never runs a finished case again: cases that
//! are left form a group of their own, and no ratio is taken between two groups. A shard has whole groups.

use std::collections::BTreeMap;
use std::path::Path;

use ergometer_files::counted;
use ergometer_reports::RunFolder;
use ergometer_reports::case::Prediction;
use sha2::{Digest, Sha256};

use super::case::{RunContext, Scored};
use super::entry::Entry;
use super::interleave;
use super::plan::{self, Plan, PlannedCase};
use super::scored::ScoredAnswer;
use super::{References, estimated_ms};
use crate::console;
use crate::interrupt;

/// What a pass needs to know.
pub(super) struct Pass<'a> {
    /// All cases.
    pub plan: &'a Plan,
    /// Where the reference's vectors are kept.
    pub cache: &'a Path,
    /// Most cases of a wave.
    pub together: usize,
    /// Decides the order of turns.
    pub seed: &'a str,
    /// Which start of the workers this is, from 1.
    pub start: u32,
}

impl Pass<'_> {
    /// Runs the cases that are due into a folder. `scored` are the answers by group, known before and added to.
    pub fn run(
        &self,
        into: &RunFolder,
        due: impl Fn(&PlannedCase) -> bool,
        references: &mut References,
        scored: &mut BTreeMap<String, Scored>,
        context: &mut RunContext,
    ) -> anyhow::Result<()> {
        let interleaved_groups = plan::interleaved_groups(&self.plan.cases);
        // of the whole interleaved group, also of what an earlier process finished: a resumed run takes no other base
        // for want of it
        let bases: BTreeMap<&str, String> = interleaved_groups
            .iter()
            .flat_map(|s| s.iter().filter_map(|c| Some((c.id.as_str(), plan::base(s, c)?.id.clone()))))
            .collect();
        let all = waves(&interleaved_groups, &due, if context.check { 1 } else { self.together });
        let n = all.len();
        for (i, mut wave) in all.into_iter().enumerate() {
            console::detail(|| format!("{} of {n}: {}", i + 1, why(&wave, self.together, context.check)));
            while !wave.is_empty() {
                let ended = self.wave(&wave, &bases, into, references, scored, context)?;
                wave.drain(..ended);
            }
        }
        Ok(())
    }

    /// Runs as many of these cases, from the first on, as fit together; gives how many.
    fn wave(
        &self,
        wave: &[&PlannedCase],
        bases: &BTreeMap<&str, String>,
        into: &RunFolder,
        references: &mut References,
        scored: &mut BTreeMap<String, Scored>,
        context: &mut RunContext,
    ) -> anyhow::Result<usize> {
        for case in wave {
            context.progress.phase("reference", &case.path);
            let _ = references.of(case, self.plan, self.cache);
        }
        let writers = wave.iter().map(|c| into.begin_case(&c.path, &c.id)).collect::<Result<Vec<_>, _>>()?;
        let entries = wave.iter().zip(&writers).filter_map(|(planned, writer)| {
            Some(Entry {
                planned,
                model: &self.plan.models[&planned.spec.model].folder,
                task: &self.plan.tasks[&planned.spec.task],
                reference: references.known(planned, self.plan)?,
                base: bases.get(planned.id.as_str()).cloned(),
                log: writer.log(),
            })
        });
        let entries: Vec<Entry> = entries.collect();
        let all = interleave::run(&entries, scored, seed(self.seed, self.start, wave), context);
        // an interruption waits until what has been measured is written
        let _gate = interrupt::gate();
        let (mut written, count) = (Ok(()), all.len());
        for ((planned, writer), mut ended) in wave.iter().zip(writers).zip(all) {
            let own = ended.case.accuracy_from.as_ref() == Some(&planned.id);
            if own && !ended.predictions.is_empty() {
                scored.insert(planned.group.clone(), Scored::of(&planned.id, &ended.predictions));
            } else if own {
                // an earlier start of it was scored, and has the answers
                ended.case.accuracy_from = None;
            }
            // one that cannot be kept costs no other one its place
            let predictions: Vec<Prediction> = ended.predictions.iter().map(ScoredAnswer::prediction).collect();
            let kept = writer.finish(&ended.case, &ended.samples, &predictions, &ended.attempts, &ended.sums);
            written = written.and(kept.map(|_| ()));
            context.progress.done(estimated_ms(planned, context.check));
            console::detail(|| match &ended.case.error {
                None => format!("ended {}: {}", planned.path, counted(ended.samples.len(), "sample")),
                Some(error) => format!("ended {}: {:?}, {}", planned.path, error.kind, error.message),
            });
        }
        written?;
        Ok(count)
    }
}

/// Cases as their workers are alive together: each interleaved group by itself, the others in waves of nearly the same
/// size, at most `most`.
fn waves<'a>(
    interleaved_groups: &[Vec<&'a PlannedCase>],
    due: impl Fn(&PlannedCase) -> bool,
    most: usize,
) -> Vec<Vec<&'a PlannedCase>> {
    let due = |s: &Vec<&'a PlannedCase>| s.iter().copied().filter(|c| due(c)).collect::<Vec<_>>();
    let (mut waves, mut alone) = (Vec::new(), Vec::new());
    for interleaved in interleaved_groups.iter().map(due).filter(|s| !s.is_empty()) {
        if interleaved[0].turns.is_some() { waves.push(interleaved) } else { alone.extend(interleaved) }
    }
    let count = alone.len().div_ceil(most.max(1));
    let share = |i: usize| i * alone.len() / count.max(1);
    waves.extend((0..count).map(|i| alone[share(i)..share(i + 1)].to_vec()));
    // in the order of their first cases
    let place = |w: &Vec<&PlannedCase>| interleaved_groups.iter().position(|s| s.iter().any(|c| c.id == w[0].id));
    waves.sort_by_key(place);
    waves
}

/// Why these cases are alive together, for people.
fn why(wave: &[&PlannedCase], most: usize, check: bool) -> String {
    let n = counted(wave.len(), "case");
    let paths: String = wave.iter().map(|c| format!("\n  {}", c.path)).collect();
    let why = match wave.first().is_some_and(|c| c.turns.is_some()) {
        true => format!("an interleaved group of {n} that take turns (`interleave`), compared with each other"),
        false if check => format!("{n} by itself, since a check times nothing"),
        false => {
            format!(
                "a wave of {n}, at most {most} at once (`together`), so that the blocks of each are spread over the time of all"
            )
        }
    };
    why + &paths
}

/// A number that only these cases in this start of this run have.
fn seed(run: &str, start: u32, wave: &[&PlannedCase]) -> u64 {
    let mut hash = Sha256::new().chain_update(format!("{run} {start}"));
    wave.iter().for_each(|c| hash.update(&c.id));
    hash.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
