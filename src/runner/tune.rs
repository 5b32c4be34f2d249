//! The search of a backend's settings: every setting that it names, in turns, on the case's own model, examples and batch.
//!
//! In: a planned case. Out: a [`Tuning`] with every setting's latency and the fastest among those that answer right. Must not: drop a
//! setting in silence, choose by a difference that is smaller than what one looks for, or let two settings work at the same time.
//!
//! All settings' workers are loaded and compared with the reference first; then each round asks every one of them for a short block,
//! in a random balanced order, so that a machine that slows down slows all of them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use ergometer_files::counted;
use ergometer_reports::case::{CaseError, ErrorKind, Tried, Tuning};
use ergometer_suites::suite::Suite;
use ergometer_suites::text;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::case::{RunContext, Scorers, unexpected};
use super::case_runner::CaseRunner;
use super::judge::ReferenceVectors;
use super::plan::{Plan, PlannedCase};
use super::process::{Worker, case_error};
use super::progress::Progress;
use super::{References, RunOptions};
use crate::backends::backend;
use crate::backends::probe::probed;
use crate::clock::monotonic_ns;
use crate::console;
use crate::files::hex;
use crate::files::{read_cached, write_atomically};
use crate::meters::Meters;
use crate::protocol::{Message, Mode};

/// Rounds of a search: the fewest for which smallest and largest ratio are a 95 % interval of the median ratio (96.9 %).
pub const ROUNDS: usize = 6;
/// Least seconds of a block.
const BLOCK: f64 = 0.1;
/// A setting that took so many times the default's latency in every round is given up.
const HOPELESS: f64 = 1.05;
/// What is said of a setting for which there was no time.
const LEFT_OUT: &str = "left out: the search's";
/// Seconds of warm-up per setting.
const WARMUP: f64 = 0.1;
/// A setting must beat the default by this share of its latency to be chosen: less is noise.
const WORTH: f64 = 0.02;
/// Largest file of remembered searches.
const MAX_MEMORY_BYTES: u64 = 64 << 20;

/// What a search needs to know.
pub struct Search<'a> {
    /// The suite that names the backend.
    pub suite: &'a Suite,
    /// The plan that the case belongs to.
    pub plan: &'a Plan,
    /// The case, with the backend's default options.
    pub case: &'a PlannedCase,
}

impl Search<'_> {
    /// The planned case for each of the backend's settings, the default first. Two that come to the same are one.
    pub fn settings(&self) -> anyhow::Result<Vec<PlannedCase>> {
        let Some(engine) = self.case.engine.and_then(backend) else { return Ok(vec![self.case.clone()]) };
        let mut all: Vec<PlannedCase> = Vec::new();
        let routes = self.plan.models[&self.case.spec.model].graph.as_ref().is_some_and(|g| !g.mixtures().is_empty());
        for mut options in engine.settings(&self.case.options()) {
            // without experts the ways of computing them are one
            if !routes {
                options.remove("experts");
            }
            let planned = self.plan.case(self.suite, &self.case.spec, Some(&options))?;
            if all.iter().all(|p| p.key.backend_options != planned.key.backend_options) {
                all.push(planned);
            }
        }
        Ok(all)
    }

    /// Searches.
    pub fn run(&self, settings: &[PlannedCase], reference: ReferenceVectors, around: &mut RunContext) -> Tuning {
        let task = &self.plan.tasks[&self.case.spec.task];
        let model = &self.plan.models[&self.case.spec.model].folder;
        let (began, budget) = (Instant::now(), self.case.spec.tune_seconds);
        let over = |share: f64| began.elapsed().as_secs_f64() > share * budget;
        let n = settings.len();
        let settings: Vec<PlannedCase> = settings.iter().cloned().map(briefly_warmed).collect();
        let mut runs: Vec<SettingRun> = Vec::new();
        for (i, planned) in settings.iter().enumerate() {
            around.progress.phase(&format!("search, loading {} of {n} settings", i + 1), &self.case.path);
            let mut case = CaseRunner::new(planned, task, model, None, None);
            // the default is always tried; half of the time is for the rounds
            if i > 0 && over(0.5) {
                let message = format!("{LEFT_OUT} {budget} s were half over when its turn to load came");
                case.finished.fail(case_error(ErrorKind::Unavailable, message));
            } else {
                case.begin(reference, around);
            }
            runs.push(SettingRun { case, medians: Vec::new(), out: false });
        }
        let seed = Sha256::digest(&self.case.id).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (mut rounds, mut longest) = (0, 0.0f64);
        for turns in super::order::turns(seed, runs.len(), ROUNDS) {
            let round = Instant::now();
            // the last round would end too late
            if rounds > 0 && began.elapsed().as_secs_f64() + longest > budget {
                break;
            }
            rounds += 1;
            around.progress.phase(&format!("search, round {rounds} of {ROUNDS}, {n} settings"), &self.case.path);
            for i in turns {
                runs[i].block(around);
            }
            longest = longest.max(round.elapsed().as_secs_f64());
            if rounds > 1 {
                drop_the_slow(&mut runs);
            }
        }
        verdict(runs, rounds, budget)
    }
}

/// Whoever was clearly slower than the default in every round so far takes no further part.
fn drop_the_slow(runs: &mut [SettingRun]) {
    let Some((default, others)) = runs.split_first_mut() else { return };
    for other in others.iter_mut().filter(|c| c.is_alive() && !c.out) {
        let mut ratios = other.medians.iter().zip(&default.medians).map(|(m, d)| m / d);
        if default.is_alive() && ratios.all(|r| r > HOPELESS) {
            other.out = true;
        }
    }
}

/// The suite fixes its options: there is nothing to search.
pub fn has_own_options(suite: &Suite, case: &PlannedCase) -> bool {
    suite.backends.get(&case.spec.backend).is_some_and(|b| !b.options.is_empty())
}

/// Gives every case of the plan that asks for it the fastest of its backend's settings.
pub fn settle(
    suite: &Suite,
    plan: &mut Plan,
    memory: &TuningCache,
    cache: &Path,
    references: &mut References,
    around: &mut RunContext,
) -> anyhow::Result<()> {
    let seen = crate::environment::machine::observe();
    let machine = format!("{} x {} {}", seen.cpu, seen.cpus, crate::ceilings::executable_hash()?);
    for i in 0..plan.cases.len() {
        let case = plan.cases[i].clone();
        if !case.spec.tune || has_own_options(suite, &case) {
            continue;
        }
        let search = Search { suite, plan, case: &case };
        let settings = search.settings()?;
        if settings.len() < 2 {
            continue;
        }
        // its library may still have to be obtained; where it cannot be, the search and then the case say so
        let _ = case.engine.and_then(backend).map(|b| b.prepare(&case.options()));
        let key = TuningCache::key(&case, &settings, &machine);
        let (at, tuning, settings_from) = match memory.recall(&key, &case, &settings)? {
            Some(found) => {
                // the run's own note is what a resumed run, and another run that pins it, go by
                memory.keep(&key, &case, &found.1)?;
                found
            }
            None => {
                let reference = references.of(&case, plan, cache);
                let tuning = search.run(&settings, reference, around);
                memory.keep(&key, &case, &tuning)?;
                (tuning.chosen, tuning, "searched in this run".into())
            }
        };
        console::detail(|| {
            let best = &tuning.tried[at.min(tuning.tried.len() - 1)];
            let fixed = if at == 0 { "the default".into() } else { format!("{:?}", best.options) };
            let ratio = best.ratio.filter(|_| at > 0);
            let ratio = ratio.map(|(r, low, high)| format!(", {r:.3} [{low:.3}, {high:.3}] of the default's latency"));
            let left = tuning.tried.iter().filter(|t| t.error.is_some()).count();
            let left = if left > 0 { format!("; {left} did not run or had no time") } else { String::new() };
            let n = counted(tuning.tried.len(), "setting");
            format!("search of {} ({n}, {settings_from}): {fixed}{}{left}", case.path, ratio.unwrap_or_default())
        });
        plan.cases[i] = PlannedCase {
            tuning: Some(tuning.clone()),
            settings_from,
            // the case stays the one that was asked for, whatever was found
            id: case.id,
            asked: case.asked,
            ..settings[at].clone()
        };
    }
    Ok(())
}

/// The search for the one case of a suite, without a run: path of the case, and the search unless there is one setting only. `again`:
/// whatever is remembered is searched anew.
pub fn alone(options: &RunOptions, again: bool) -> anyhow::Result<(String, Option<Tuning>)> {
    let (suite, mut plan) = super::plan(options)?;
    super::quiet(false, false)?;
    let cache = crate::files::user_cache()?;
    plan.materialise(&cache)?;
    let mut meters = Meters::none();
    let mut around = RunContext {
        meters: &mut meters,
        began_ns: monotonic_ns(),
        check: false,
        progress: Progress::new(1, 1),
        scorers: Scorers::default(),
    };
    let memory = TuningCache { run: None, machine: Some(cache.join("tuning.json")), again, pinned: None };
    settle(&suite, &mut plan, &memory, &cache, &mut References::new(), &mut around)?;
    Ok((plan.cases[0].path.clone(), plan.cases[0].tuning.clone()))
}

/// One setting at work.
struct SettingRun<'a> {
    case: CaseRunner<'a>,
    /// Median latency of each round.
    medians: Vec<f64>,
    /// It was too slow to go on; its worker waits, asleep.
    out: bool,
}

impl SettingRun<'_> {
    fn is_alive(&self) -> bool {
        self.case.worker.is_some()
    }

    fn error(&self) -> Option<&CaseError> {
        self.case.finished.case.error.as_ref()
    }

    fn block(&mut self, around: &mut RunContext) {
        if self.out {
            return;
        }
        let medians = &mut self.medians;
        self.case.act(around, |running, worker| {
            let go = running.go(Mode::Time, 1, BLOCK, None);
            running.block += 1;
            worker.send(&go)?;
            let mut all = latencies(worker)?;
            if all.is_empty() {
                return Err(case_error(ErrorKind::Protocol, "a block without a sample"));
            }
            all.sort_unstable_by(f64::total_cmp);
            medians.push(all[all.len() / 2]);
            Ok(())
        });
    }
}

/// The case with as little warm-up as a search has time for.
fn briefly_warmed(mut planned: PlannedCase) -> PlannedCase {
    planned.spec.warmup_seconds = WARMUP;
    planned
}

fn latencies(worker: &mut Worker) -> Result<Vec<f64>, CaseError> {
    let mut all = Vec::new();
    loop {
        match worker.message()? {
            Message::Sample(s) if s.latency.is_finite() && s.latency > 0.0 => all.push(s.latency),
            Message::Sample(_) => return Err(case_error(ErrorKind::WrongOutput, "a latency that is no time")),
            Message::Measured(_) | Message::Counted(_) | Message::Predictions(_) | Message::Unavailable(_) => {}
            Message::Done(_) => return Ok(all),
            other => return Err(unexpected("`sample` or `done`", &other)),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

fn verdict(runs: Vec<SettingRun>, rounds: usize, budget: f64) -> Tuning {
    let untried = runs.iter().filter(|c| is_left_out(c.error())).count();
    let out = runs.iter().filter(|c| c.out).count();
    let base = runs[0].is_alive().then(|| runs[0].medians.clone());
    let tried: Vec<Tried> = runs
        .into_iter()
        .map(|c| {
            let options = c.case.planned.key.backend_options.clone();
            if let Some(error) = c.error().cloned() {
                return Tried { options, latency: None, ratio: None, error: Some(error) };
            }
            let ratio = base.as_ref().map(|base| {
                let ratios: Vec<f64> = c.medians.iter().zip(base).map(|(m, b)| m / b).collect();
                let (low, high) = ratios.iter().fold((f64::MAX, 0.0f64), |(l, h), &r| (l.min(r), h.max(r)));
                (median(&ratios), low, high)
            });
            Tried { options, latency: Some(median(&c.medians)), ratio, error: None }
        })
        .collect();
    let mut method = format!(
        "{}, each in parity with the reference, in {} of at least {BLOCK} s; the lowest median \
         ratio to the default, if it saves more than {:.0} % and the interval of that ratio (its smallest and largest) is below 1",
        counted(tried.len() - untried, "setting"),
        counted(rounds, "interleaved round"),
        100.0 * WORTH
    );
    if out > 0 {
        method += &format!("; {out} given up, slower than the default by more than 5 % in every round");
    }
    if untried > 0 {
        method += &format!("; {untried} not tried within {budget} s");
    }
    // fewer rounds are no interval: what is known then is that the default works
    let chosen = if rounds < ROUNDS && tried[0].error.is_none() {
        method += &format!(
            "; stopped after {rounds} of {ROUNDS} rounds when {budget} s were over, too few to leave the default"
        );
        0
    } else {
        chosen(&tried)
    };
    Tuning { method, chosen, tried }
}

/// There was no time for it.
fn is_left_out(error: Option<&CaseError>) -> bool {
    error.is_some_and(|e| e.message.starts_with(LEFT_OUT))
}

/// The fastest of those whose interval of the ratio to the default excludes 1, the default where nothing beats it by enough; the default too
/// where nothing runs (its error is then the case's).
fn chosen(tried: &[Tried]) -> usize {
    let of = |t: &Tried| t.ratio.map(|r| r.0).or(t.latency);
    let beyond_doubt = |t: &Tried| t.ratio.is_none_or(|(_, _, high)| high < 1.0);
    let best = tried.iter().enumerate().filter(|(i, t)| *i == 0 || beyond_doubt(t));
    let best = best.filter_map(|(i, t)| Some((i, of(t)?)));
    let best = best.min_by(|a, b| a.1.total_cmp(&b.1));
    match (best, of(&tried[0])) {
        (Some((i, ratio)), Some(default)) if ratio < default * (1.0 - WORTH) => i,
        (_, Some(_)) | (None, None) => 0,
        (Some((i, _)), None) => i,
    }
}

/// Searches that need not be made again: of this run (so that a resumed run goes on with the same settings) and of this machine.
#[derive(Default)]
pub struct TuningCache {
    run: Option<PathBuf>,
    machine: Option<PathBuf>,
    /// Recall nothing.
    again: bool,
    /// Searches that are to be taken, whatever this machine remembers.
    pub pinned: Option<Pinned>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    key: String,
    /// Id of the case that it was made for: by it a pinned file is looked up, on any machine.
    #[serde(default)]
    case: String,
    tuning: Tuning,
}

/// A file of searches that are taken instead of searching: the `tuning.json` of a run folder.
pub struct Pinned {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Pinned {
    /// Reads it.
    ///
    /// Errors: the file cannot be read, or holds no searches.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let hint = "give the tuning.json of a run folder of this suite";
        let read = |path| text::json(&text::read(path, MAX_MEMORY_BYTES)?).map_err(|e| e.in_file(path));
        let value = read(path).map_err(|e| if e.hint.is_some() { e } else { e.hint(hint) })?;
        let entries: Vec<Entry> = serde_json::from_value(value)
            .map_err(|e| anyhow::anyhow!("{}: no file of searched settings: {e}\nhint: {hint}", path.display()))?;
        if let Some(i) = entries.iter().position(|e| e.tuning.chosen >= e.tuning.tried.len()) {
            anyhow::bail!("{}: entry {i} chooses a setting that it does not list\nhint: {hint}", path.display());
        }
        Ok(Self { path: path.to_path_buf(), entries })
    }
}

impl TuningCache {
    /// Remembers in the run's folder and in the cache.
    pub fn new(run: &Path, cache: &Path) -> Self {
        Self { run: Some(run.join("tuning.json")), machine: Some(cache.join("tuning.json")), ..Self::default() }
    }

    /// What decides a search: the machine and this very program, the engine and its versions, the model, and the work: task, batch, depth.
    pub fn key(case: &PlannedCase, settings: &[PlannedCase], machine: &str) -> String {
        let versions =
            case.engine.and_then(backend).and_then(|b| probed(b, Some(&case.options())).ok()).unwrap_or_default();
        let list: Vec<_> = settings.iter().map(|s| &s.key.backend_options).collect();
        let k = &case.key;
        let text = format!(
            "{machine} {:?} {versions:?} {list:?} {} {} {} {} {} {} {} {ROUNDS} {BLOCK} {WORTH} {}",
            case.engine,
            k.isa,
            k.model_hash,
            k.precision,
            k.threads,
            k.batch,
            k.depth,
            k.task_hash,
            case.spec.tune_seconds
        );
        hex(&Sha256::digest(text.as_bytes()))
    }

    fn entries(path: &Path) -> Vec<Entry> {
        // a search can always be made again: what cannot be read is as if it were not there
        read_cached(path, MAX_MEMORY_BYTES).and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// A search with this key whose settings are these: which of them it chose, the search, and where it comes from. A pinned file is asked
    /// for the case alone.
    ///
    /// Errors: the pinned file has no search for this case, or one whose choice this program does not offer.
    pub fn recall(
        &self,
        key: &str,
        case: &PlannedCase,
        settings: &[PlannedCase],
    ) -> anyhow::Result<Option<(usize, Tuning, String)>> {
        if let Some(Pinned { path, entries }) = &self.pinned {
            let hint = "leave out `--tuning` to search, or make the file anew by a run of this suite";
            let Some(entry) = entries.iter().find(|e| e.case == case.id) else {
                anyhow::bail!("{} has no settings for {}\nhint: {hint}", path.display(), case.path);
            };
            let wanted = &entry.tuning.tried[entry.tuning.chosen].options;
            let Some(at) = settings.iter().position(|s| s.key.backend_options == *wanted) else {
                anyhow::bail!("{}: {} does not offer {wanted:?}\nhint: {hint}", path.display(), case.key.backend);
            };
            return Ok(Some((at, entry.tuning.clone(), format!("pinned by {}", path.display()))));
        }
        let fits = |t: &Tuning| {
            t.chosen < t.tried.len()
                && t.tried.len() == settings.len()
                && t.tried.iter().zip(settings).all(|(t, s)| t.options == s.key.backend_options)
        };
        let places = [self.run.as_ref(), self.machine.as_ref()].into_iter().filter(|_| !self.again);
        let found = places.flatten().flat_map(|path| Self::entries(path)).find(|e| e.key == key && fits(&e.tuning));
        Ok(found.map(|e| (e.tuning.chosen, e.tuning, "remembered from an earlier search".into())))
    }

    /// Keeps a search. One in which something failed is kept for the run alone: next time it may work.
    pub fn keep(&self, key: &str, case: &PlannedCase, tuning: &Tuning) -> anyhow::Result<()> {
        let whole = tuning.tried.iter().all(|t| t.error.as_ref().is_none_or(|e| e.message.starts_with(LEFT_OUT)));
        let places = [self.run.as_ref(), self.machine.as_ref().filter(|_| whole)];
        for (path, of_run) in places.into_iter().zip([true, false]).filter_map(|(p, r)| Some((p?, r))) {
            let mut all = Self::entries(path);
            all.retain(|e| e.key != key);
            all.push(Entry { key: key.into(), case: case.id.clone(), tuning: tuning.clone() });
            let text = serde_json::to_vec_pretty(&all).context("cannot write a search down")?;
            let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).context("cannot create the folder");
            let written = written.and_then(|()| write_atomically(path, &text));
            // without a cache a search is only made again; without the run's own note a resumed run could differ
            if of_run {
                written?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tried(ratio: Option<f64>) -> Tried {
        let error = ratio.is_none().then(|| case_error(ErrorKind::Parity, "out of tolerance"));
        Tried { options: BTreeMap::new(), latency: ratio, ratio: ratio.map(|r| (r, r, r)), error }
    }

    #[test]
    fn the_fastest_right_setting_is_chosen_and_noise_is_not() {
        let choose = |ratios: &[Option<f64>]| chosen(&ratios.iter().map(|r| tried(*r)).collect::<Vec<_>>());
        assert_eq!(choose(&[Some(1.0), Some(0.9), Some(0.5)]), 2);
        assert_eq!(choose(&[Some(1.0), Some(0.99), Some(1.2)]), 0, "a hundredth is noise");
        assert_eq!(choose(&[Some(1.0), None, Some(0.9)]), 2, "a wrong setting is never chosen");
        assert_eq!(choose(&[None, None]), 0);
    }

    #[test]
    fn a_setting_is_switched_only_where_every_round_says_so() {
        let with = |high: f64| Tried { ratio: Some((0.8, 0.7, high)), ..tried(Some(0.8)) };
        assert_eq!(chosen(&[tried(Some(1.0)), with(0.99)]), 1);
        assert_eq!(chosen(&[tried(Some(1.0)), with(1.01)]), 0, "the interval includes 1");
        // the smallest and the largest of so many ratios hold their median with 95 % confidence
        assert!(1.0 - 2.0 * 0.5f64.powi(ROUNDS as i32) >= 0.95);
    }

    #[test]
    fn without_a_default_the_fastest_of_the_others_is_chosen() {
        let mut all = [tried(None), tried(Some(2.0)), tried(Some(1.0))];
        all.iter_mut().for_each(|t| t.ratio = None);
        assert_eq!(chosen(&all), 2);
    }
}
