//! The runner: takes a suite through its cases, one worker process each, into a run folder that can be resumed at any point.
//!
//! In: [`RunOptions`]. Out: a run folder and [`Outcome`]. Must not: run a model, draw while a worker measures, or write a case's folder
//! before the case has ended.

mod answers;
mod block;
pub mod case;
mod case_runner;
mod changes;
pub mod child;
mod claims;
mod contender;
mod decide;
pub mod estimate;
mod judge;
mod order;
mod pass;
pub mod plan;
pub mod progress;
mod reference;
mod scored;
mod sitting;
mod starts;
pub mod tune;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ergometer_files::counted;
use ergometer_reports::case::{CaseError, ErrorKind, Verdict};
use ergometer_reports::environment::{Environment, ModelFiles};
use ergometer_reports::precision::PRECISIONS;
use ergometer_reports::render::{self, Format};
use ergometer_reports::{CaseRun, Report, RunFolder};
use ergometer_suites::suite::{Known, Suite};
use sha2::{Digest, Sha256};

use self::case::{Judge, Scored, Setting};
use self::pass::Pass;
use self::plan::{Plan, PlannedCase};
use self::progress::Progress;
use crate::backends::{BACKENDS, backend};
use crate::ceilings::executable_hash;
use crate::clock::monotonic_ns;
use crate::environment::load::{self, Before};
use crate::files::hex;
use crate::interrupt;
use crate::meters::{MeterOptions, Meters};
use crate::parity::Vectors;

/// How long the idle machine is watched before a run, where an energy meter is ready.
const IDLE: Duration = Duration::from_secs(2);

// what a suite may ask for, one run folder can hold
const _: () = assert!(ergometer_suites::suite::MAX_CASES <= ergometer_reports::store::MAX_CASES);

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Path or name of the suite.
    pub suite: PathBuf,
    /// Run folder; a new one under `ergometer-runs` if not given.
    pub out: Option<PathBuf>,
    /// Only cases whose path fits this pattern.
    pub filter: Option<String>,
    /// Parity and one measured step per case.
    pub check: bool,
    /// Go on with the run in `out`.
    pub resume: bool,
    /// Cases `I` modulo `N` (from 1).
    pub shard: Option<(usize, usize)>,
    /// How often each case's worker is started, spread over the run; none: once, or as often as the run that is resumed.
    pub repeats: Option<u32>,
    /// Measure nothing on a machine that is busy.
    pub strict: bool,
    /// File of settings to take instead of searching.
    pub tuning: Option<PathBuf>,
    /// The command line, for the record.
    pub command: String,
    /// Arguments of the command that goes on after an interruption; none: a run that nobody can go on with.
    pub go_on: Vec<String>,
}

/// The machine is unfit to measure, and the user asked for nothing to be measured then: exit code 3.
#[derive(Debug)]
pub struct Unfit(String);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Unfit {}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The run folder.
    pub folder: PathBuf,
    /// Cases that ended with an error which is not an expected Unavailable.
    pub failed: usize,
    /// Cases in all, finished earlier ones included.
    pub cases: usize,
    /// Cases that had been finished before this process began.
    pub found: usize,
    /// The run as its folder has it, with its records.
    pub report: Report,
}

/// Every precision that some backend computes in, or that other programs may be asked for.
pub fn precisions() -> Vec<&'static str> {
    let asked = PRECISIONS.iter().filter(|p| p.asked).map(|p| p.name);
    let mut all: Vec<&str> = BACKENDS.iter().flat_map(|b| b.precisions().iter().copied()).chain(asked).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Reads and plans a suite.
pub fn plan(options: &RunOptions) -> anyhow::Result<(Suite, Plan)> {
    let backends: Vec<&str> = BACKENDS.iter().map(|b| b.name()).collect();
    let suite = Suite::load(&options.suite, &Known { backends: &backends, precisions: &precisions() })?;
    let mut plan = Plan::new(&suite, |path| options.filter.as_ref().is_none_or(|f| plan::glob(f, path)))?;
    if let Some((i, n)) = options.shard {
        // a sitting is not torn apart
        let shares = plan::sittings(&plan.cases).into_iter().enumerate().filter(|(index, _)| index % n == i - 1);
        let ids: BTreeSet<String> = shares.flat_map(|(_, sitting)| sitting).map(|c| c.id.clone()).collect();
        plan.cases.retain(|c| ids.contains(&c.id));
    }
    if plan.cases.is_empty() {
        bail!(
            "no case of {} fits the filter and the shard\nhint: `ergometer run {} --dry-run` lists all cases",
            suite.file.display(),
            suite.name
        );
    }
    estimate::check_limits(&plan)?;
    crate::console::detail(|| {
        let models: Vec<String> =
            plan.models.iter().map(|(name, m)| format!("{name} {}", m.folder.display())).collect();
        let cases = counted(plan.cases.len(), "case");
        format!("read suite {}: {cases}\n  models: {}", suite.file.display(), models.join(", "))
    });
    for case in lonely(&plan) {
        crate::console::warn(format!(
            "warning: `interleave` pairs nothing with {case}: no other case that takes turns has its model, task, scenario, threads and depth"
        ));
    }
    Ok((suite, plan))
}

/// Paths of cases that are to take turns and have nobody to take turns with.
fn lonely(plan: &Plan) -> Vec<String> {
    let alone = plan::sittings(&plan.cases).into_iter().filter(|s| s.len() == 1 && s[0].turns.is_some());
    alone.map(|s| s[0].path.clone()).collect()
}

/// Runs a suite.
pub fn run(options: &RunOptions) -> anyhow::Result<Outcome> {
    let (suite, mut plan) = plan(options)?;
    let pinned = refuse_early(options, &suite)?;
    let before = quiet(options.check, options.strict)?;
    // before anything is begun: a cache, or a folder for temporary files, that cannot be used would condemn every case
    crate::files::user_cache()?;
    child::log().map_err(|e| anyhow::anyhow!("{}\nhint: {}", e.message, e.hint.unwrap_or_default()))?;
    let folder = open_folder(options, &suite)?;
    let _lock = lock(folder.dir())?;
    crate::console::detail(|| format!("run folder {}", folder.dir().display()));
    folder.remove_leftovers()?;
    tell_when_interrupted(options, &folder, &plan);
    // before the environment is observed, so that it tells of what the cases will use; whoever lacks it afterwards says so itself
    let finished = folder.finished()?;
    for planned in plan.cases.iter().filter(|c| !finished.contains(&c.id)) {
        let _ = planned.engine.and_then(backend).map(|b| b.prepare(&planned.options()));
    }
    let mut meters = Meters::probe(&MeterOptions::from_env());
    let engines: Vec<&str> = plan.cases.iter().filter_map(|c| c.engine).collect();
    let seen = plan.models.iter().map(|(name, m)| (name.clone(), changes::files(&m.folder, &m.hash))).collect();
    let (began, changed) = begin(options, &suite, seen, &engines, &folder, &mut meters, &before)?;
    plan.models_changed(&changed);
    let cache = crate::files::user_cache()?;
    plan.materialise(&cache)?;
    let mut judges = Judges::new();
    let known = folder.finished()?;
    let due = plan.cases.iter().filter(|c| !known.contains(&c.id));
    let ms = due.clone().map(|c| estimated_ms(c, options.check)).sum::<u64>();
    let Began { ns: began_ns, seed, starts } = began;
    let progress = Progress::new(due.count() * starts as usize, ms * u64::from(starts));
    let mut setting = Setting { meters: &mut meters, began_ns, check: options.check, progress: progress.clone() };
    if !options.check {
        let mut memory = tune::Memory::new(folder.dir(), &cache);
        memory.pinned = pinned;
        tune::settle(&suite, &mut plan, &memory, &cache, &mut judges, &mut setting)?;
    }
    let finished = folder.finished()?;
    let found = plan.cases.iter().filter(|c| finished.contains(&c.id)).count();
    let mut scored = BTreeMap::new();
    scored_before(&folder, &plan, &finished, &mut scored)?;
    let of_starts = if starts > 1 { starts::folders(&folder, starts)? } else { Vec::new() };
    let mut failed = finished;
    for start in 1..=starts {
        let into = of_starts.get(start as usize - 1).unwrap_or(&folder);
        let done = into.finished()?;
        scored_before(into, &plan, &done, &mut scored)?;
        let pass = Pass { plan: &plan, cache: &cache, together: suite.together, seed: &seed, start };
        let due = |c: &PlannedCase| !failed.contains(&c.id) && !done.contains(&c.id);
        pass.run(into, due, &mut judges, &mut scored, &mut setting)?;
        if starts > 1 {
            if start == 1 {
                starts::check_room(into, &plan.cases, starts)?;
            }
            for case in &plan.cases {
                if starts::failed(into, case)? {
                    failed.insert(case.id.clone());
                }
            }
        }
    }
    let _gate = interrupt::gate();
    if starts > 1 {
        starts::join(&folder, &of_starts, &plan.cases)?;
    }
    progress.clear();
    let (cases, failed, report) = conclude(&folder, &plan)?;
    Ok(Outcome { folder: folder.dir().to_path_buf(), failed, cases, found, report })
}

/// What is wrong with a run's folder or its file of settings is said before anything is waited for, and where nothing is to be run. Gives
/// the settings.
///
/// # Errors
/// What is wrong.
pub fn refuse_early(options: &RunOptions, suite: &Suite) -> anyhow::Result<Option<tune::Pinned>> {
    if let Some(file) = options.out.as_ref().filter(|dir| dir.exists() && !dir.is_dir()) {
        bail!(
            "`--out {}` is there and is no folder\nhint: name another one; a run makes its own folder",
            file.display()
        );
    }
    // one that is there already is not made by looking
    if options.resume || options.out.as_ref().is_some_and(|dir| dir.join("environment.json").exists()) {
        open_folder(options, suite)?;
    }
    crate::ceilings::left_out()?;
    options.tuning.as_deref().map(tune::Pinned::read).transpose()
}

/// Watches the machine before anything is measured, waits a while for it to rest, and says so where it does not. A check measures nothing
/// that a busy machine spoils.
///
/// # Errors
/// [`Unfit`], if `strict`.
pub fn quiet(check: bool, strict: bool) -> anyhow::Result<Before> {
    if check && !strict {
        return Ok(Before::default());
    }
    let before = load::wait_for_quiet(|text| crate::console::say(format!("busy: {text}")));
    match before.trouble() {
        Some(trouble) if strict => Err(Unfit(format!(
            "{trouble}, and nothing was measured\nhint: end what else runs (`top` shows it), or leave `--strict` out"
        ))
        .into()),
        Some(trouble) => {
            crate::console::warn(format!(
                "warning: {trouble}; numbers will be worse than this machine can do, and noisy"
            ));
            Ok(before)
        }
        None => Ok(before),
    }
}

/// What an interruption says: what the folder keeps, and how to go on. Folders of cases that were not finished go.
fn tell_when_interrupted(options: &RunOptions, folder: &RunFolder, plan: &Plan) {
    let (mut words, dir, cases) = (options.go_on.clone(), folder.dir().to_path_buf(), plan.cases.len());
    if words.is_empty() {
        return;
    }
    let given = |words: &[String], flag: &str| words.iter().any(|w| w.split('=').next() == Some(flag));
    if !given(&words, "--out") {
        words.extend(["--out".into(), dir.display().to_string()]);
    }
    if !given(&words, "--resume") {
        words.push("--resume".into());
    }
    let go_on = format!("ergometer {}", interrupt::shell(&words));
    interrupt::words(move || {
        let finished = RunFolder::open(&dir).and_then(|folder| {
            folder.remove_leftovers()?;
            folder.finished()
        });
        let kept = finished.map_or(0, |f| f.len());
        let cases = counted(cases, "case");
        let lost = "those in progress, which end together, are measured again";
        format!("{kept} of {cases} finished and kept in {}; {lost}\nnext: {go_on}", dir.display())
    });
}

/// The reference's vectors by model, task and depth, each made when it is first asked for.
#[derive(Default)]
pub struct Judges(BTreeMap<(String, String, u32), Made>);

/// The file of the questions and the vectors, or how the attempt to make them ended.
type Made = Result<(PathBuf, Vectors), CaseError>;

impl Judges {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn key(case: &PlannedCase, plan: &Plan) -> (String, String, u32) {
        let (task, model) = (&plan.tasks[&case.spec.task], &plan.models[&case.spec.model]);
        (model.hash.clone(), task.hash.clone(), case.max_steps)
    }

    /// The vectors that judge this case, if they were asked for before.
    pub fn known(&self, case: &PlannedCase, plan: &Plan) -> Option<Judge<'_>> {
        self.0.get(&Self::key(case, plan)).map(Result::as_ref)
    }

    /// The vectors that judge this case.
    pub fn of(&mut self, case: &PlannedCase, plan: &Plan, cache: &Path) -> Judge<'_> {
        let (task, model) = (&plan.tasks[&case.spec.task], &plan.models[&case.spec.model]);
        let key = Self::key(case, plan);
        // what could not be made for one case is tried again for the next, since a full disk or a kill may be past
        if matches!(self.0.get(&key), Some(Err(why)) if why.kind != ErrorKind::Unavailable) {
            self.0.remove(&key);
        }
        self.0.entry(key).or_insert_with(|| reference::vectors(case, model, task, cache)).as_ref()
    }
}

/// Records and report from the folder alone; counts the cases of the plan and the failures among them.
fn conclude(folder: &RunFolder, plan: &Plan) -> anyhow::Result<(usize, usize, Report)> {
    // a verdict that needs several cases falls here, and may fail some of them
    let report = Report::new(ergometer_reports::load(folder.dir())?);
    let of_plan = |c: &&CaseRun| plan.cases.iter().find(|p| p.id == c.case.id);
    let failure = |c: &&CaseRun| {
        let Some(error) = report.error(&c.case) else { return false };
        // cases of an earlier plan stay in the report, but are not this plan's failures
        of_plan(c).is_some_and(|p| error.kind != ErrorKind::Unavailable || !p.spec.may_be_unavailable)
    };
    let failed = report.run.cases.iter().filter(failure).count();
    let cases = report.run.cases.iter().filter(|c| of_plan(c).is_some()).count();
    report.write_records(folder)?;
    let formats: Vec<&Format> = ["html", "md", "svg"].into_iter().filter_map(render::format).collect();
    let written = render::write_in_run(&report, &formats, folder.dir())?;
    crate::console::detail(|| format!("wrote records and {} of the report", counted(written.len(), "file")));
    Ok((cases, failed, report))
}

/// The scored answers of cases that an earlier process finished, by group.
fn scored_before(
    folder: &RunFolder,
    plan: &Plan,
    finished: &BTreeSet<String>,
    scored: &mut BTreeMap<String, Scored>,
) -> anyhow::Result<()> {
    for case in plan.cases.iter().filter(|c| finished.contains(&c.id)) {
        if scored.contains_key(&case.group) {
            continue;
        }
        if let Some(answers) = starts::answers(folder, case)? {
            let kind = plan.tasks[&case.spec.task].task.answers;
            scored.insert(case.group.clone(), Scored::read(&case.id, kind, &answers)?);
        }
    }
    Ok(())
}

fn open_folder(options: &RunOptions, suite: &Suite) -> anyhow::Result<RunFolder> {
    match (&options.out, options.resume) {
        (None, true) => {
            bail!("`--resume` needs the folder of the run\nhint: add `--out DIR`; runs lie under ./ergometer-runs")
        }
        (Some(dir), true) => Ok(RunFolder::open(dir)?),
        (Some(dir), false) => Ok(RunFolder::create(dir)?),
        (None, false) => {
            let stamp = crate::environment::now_utc().replace([':', '-'], "");
            let dir = Path::new("ergometer-runs").join(format!("{}-{stamp}-{}", suite.name, std::process::id()));
            Ok(RunFolder::create(&dir)?)
        }
    }
}

/// Keeps two harnesses out of one folder; the kernel lets go of it however this process ends.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(".lock");
    let file = ergometer_files::lock_file(&path)
        .with_context(|| format!("cannot open {}\nhint: remove what has that name", path.display()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("another ergometer is running in {}\nhint: wait for it, or choose another `--out`", dir.display())
        }
        Err(e) => bail!("cannot lock {}: {e}\nhint: choose an `--out` on a local file system", path.display()),
    }
    Ok(file)
}

/// Writes the suite and the environment, or, when resuming, checks that they are still the ones that the run began with. Gives the
/// run's beginning on the monotonic clock; after a reboot that clock starts anew, and so do the times of the samples.
fn begin(
    options: &RunOptions,
    suite: &Suite,
    models: BTreeMap<String, ModelFiles>,
    engines: &[&str],
    folder: &RunFolder,
    meters: &mut Meters,
    before: &Before,
) -> anyhow::Result<(Began, BTreeMap<String, String>)> {
    let hash = hex(&Sha256::digest(suite.text.as_bytes()));
    let mut now = crate::environment::observe(&suite.name, &hash, &options.command, engines, meters);
    now.versions.insert("executable".into(), executable_hash()?);
    now.versions.insert("mode".into(), if options.check { "check" } else { "measure" }.into());
    now.versions.insert(STARTS.into(), options.repeats.unwrap_or(1).to_string());
    let path = folder.dir().join("environment.json");
    if !path.exists() {
        if !folder.finished()?.is_empty() {
            bail!(
                "{} holds cases, but no environment.json: nobody knows how they were measured\nhint: start a new run in another folder",
                folder.dir().display()
            );
        }
        now.models = models;
        now.foreign_before = before.foreign;
        if !options.check {
            now.idle_watts = meters.idle_watts(IDLE);
        }
        // before the first case, and for all of the suite's cases: a resumed or filtered run may come to others later
        let threads: BTreeSet<u32> = suite.cases.iter().filter(|c| c.precision != "f64").map(|c| c.threads).collect();
        let threads: Vec<u32> = threads.into_iter().collect();
        now.ceilings = crate::ceilings::of_run(&threads, &crate::files::user_cache()?, options.check)?;
        let began_ns = monotonic_ns();
        now.versions.insert(CLOCK.into(), format!("{} {began_ns}", boot(&hash)));
        folder.write_file("suite.toml", suite.text.as_bytes())?;
        let seed = hex(&Sha256::digest(format!("{} {began_ns}", boot(&hash))))[..16].to_string();
        now.versions.insert(SEED.into(), seed.clone());
        folder.write_environment(&now)?;
        let began = Began { ns: began_ns, seed, starts: options.repeats.unwrap_or(1) };
        return Ok((began, BTreeMap::new()));
    }
    let text = folder.folder().read("environment.json", ergometer_reports::store::MAX_JSON_BYTES);
    let text =
        text.with_context(|| format!("cannot read {}\nhint: start a new run in another folder", path.display()))?;
    let value = ergometer_suites::text::json(&text).map_err(|e| e.in_file(&path))?;
    let mut before: Environment = serde_json::from_value(value).with_context(|| {
        format!("{} is not as ergometer writes it\nhint: start a new run in another folder", path.display())
    })?;
    let unknown = String::from("unknown");
    let version = |e: &Environment, name: &str| e.versions.get(name).unwrap_or(&unknown).clone();
    let asked_starts = options.repeats.map_or_else(|| version(&before, STARTS), |n| n.to_string());
    let same = [
        ("suite", before.suite_hash.clone(), now.suite_hash.clone()),
        ("processor", before.cpu.clone(), now.cpu.clone()),
        ("program", version(&before, "executable"), version(&now, "executable")),
        ("mode", version(&before, "mode"), version(&now, "mode")),
        ("number of starts", version(&before, STARTS), asked_starts),
        ("instruction set", version(&before, "kernels.isa"), version(&now, "kernels.isa")),
        ("number of processors", before.cpus.to_string(), now.cpus.to_string()),
    ];
    for (what, before, now) in same {
        if before != now {
            bail!(
                "{} was begun with another {what} ({before}, now {now})\nhint: start a new run; numbers of both would not be comparable",
                folder.dir().display()
            );
        }
    }
    meters.set_idle(&before.idle_watts);
    let changed = changes::told(&before.models, &models);
    for words in changed.values() {
        crate::console::say(format!(
            "{words}: its cases are measured anew, those that were measured before stay beside them"
        ));
    }
    let new = models.keys().any(|name| !before.models.contains_key(name));
    if new || !changed.is_empty() {
        // the first look at a model stands: all later ones are held to it
        models.into_iter().for_each(|(name, seen)| {
            before.models.entry(name).or_insert(seen);
        });
        folder.write_environment(&before)?;
    }
    let clock = version(&before, CLOCK);
    let origin = clock.split_once(' ').filter(|(before, _)| *before == boot(&hash)).and_then(|(_, ns)| ns.parse().ok());
    let starts = version(&before, STARTS).parse().ok().filter(|n| (1..=1000).contains(n)).unwrap_or(1);
    Ok((Began { ns: origin.unwrap_or_else(monotonic_ns), seed: version(&before, SEED), starts }, changed))
}

/// What a run, resumed or not, holds on to from its beginning.
struct Began {
    /// Its moment on the monotonic clock.
    ns: u64,
    /// Decides the order of turns.
    seed: String,
    /// How often each worker is started.
    starts: u32,
}

/// Key of the seed of the order of turns among the environment's versions.
const SEED: &str = "turns.seed";

/// Key of the number of starts of each worker, likewise.
const STARTS: &str = "starts";

/// Key of the run's beginning among the environment's versions.
const CLOCK: &str = "clock.origin";

/// Which boot of the system this is, since the monotonic clock counts from it: a hash that says nothing else and differs between suites.
/// Where the system does not tell, no two are equal.
fn boot(suite_hash: &str) -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_else(|_| monotonic_ns().to_string());
    hex(&Sha256::digest(format!("{suite_hash} {}", id.trim())))[..16].to_string()
}

/// A guess of what a case takes, for the progress bar.
pub fn estimated_ms(case: &PlannedCase, check: bool) -> u64 {
    (1000.0 * estimate::timing(case, check)) as u64
}

/// One line on how a case was judged, for people.
pub fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Reference { largest, limit, .. } => format!("parity {largest:.1e} (limit {limit:.0e})"),
        Verdict::Peer { peer, largest, .. } => format!("against {peer} {largest:.1e}"),
        Verdict::AccuracyOnly => "accuracy only".into(),
    }
}
