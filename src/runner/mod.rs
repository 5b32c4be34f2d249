//! The runner: takes a suite through its cases, one worker process each, into a run folder that can be resumed at any
//! point.
//!
//! In: [`RunOptions`]. Out: a run folder and [`RunOutcome`]. Must not: run a model, draw while a worker measures, or
//! write a case's folder before the case has ended.
//!
//! `resume` begins the folder or goes on with it, `pass` goes through the cases, `interleave` measures a group of them,
//! and `run`, `time` and the search of settings (`tune`) take every case through `case_runner`. Before a run begins,
//! what a backend needs and the machine lacks (such as a library) is obtained once
//! ([`Backend::prepare`](crate::backends::Backend::prepare)); where that fails, or `ERGOMETER_OFFLINE` is set, its
//! cases are unavailable with the reason and the run goes on. The ceilings are recalled or measured after the idle
//! power and before the first case.
//!
//! While a worker measures, the harness sleeps in `poll`; it wakes to take lines, to read a counter that could wrap,
//! and about once a second to see whether the worker still runs and how much it has logged. The line of progress is
//! drawn between blocks and phases only.

mod answers;
mod asked;
pub mod background;
pub mod case;
pub mod case_file;
mod case_runner;
mod changes;
pub mod claims;
pub mod confinement;
mod described;
mod ends;
mod entry;
mod entry_run;
pub mod estimate;
mod interleave;
mod interpreted;
pub mod isolation;
mod job;
mod judge;
mod key;
mod measure;
mod order;
mod parity;
mod parity_language;
mod pass;
mod peer;
pub mod plan;
pub mod process;
pub mod progress;
mod questions;
mod recorded;
pub mod reference;
mod requests;
mod resume;
mod rounds;
mod scored;
mod scorer;
mod starts;
mod stopping;
mod task_hash;
mod tokenise;
pub mod tune;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::bail;
use ergometer_files::counted;
use ergometer_reports::case::{ErrorKind, Verdict};
use ergometer_reports::precision::PRECISIONS;
use ergometer_reports::render::{self, ReportFormat};
use ergometer_reports::{CaseRun, Report, RunFolder};
use ergometer_suites::suite::{Change, Known, Suite};
use sha2::{Digest, Sha256};

use self::case::{RunContext, Scorers};
pub use self::order::turns;
use self::pass::Pass;
use self::plan::{Plan, PlannedCase};
use self::progress::Progress;
pub use self::reference::References;
use self::resume::Began;
use crate::backends::{BACKENDS, backend};
use crate::clock::monotonic_ns;
use crate::environment::load::{self, Before};
use crate::files::hex;
use crate::interrupt;
use crate::meters::{MeterOptions, Meters};

// what a suite may ask for, one run folder can hold
const _: () = assert!(ergometer_suites::suite::MAX_CASES <= ergometer_reports::store::MAX_CASES);

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Path or name of the suite.
    pub suite: PathBuf,
    /// Values in the place of the suite's.
    pub changes: Vec<Change>,
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
    /// How often each case's worker is started, spread over the run; none: once, or as often as the run that is
    /// resumed.
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
pub struct RunOutcome {
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
    let built_in = BACKENDS.iter().flat_map(|b| b.precisions().iter().chain(b.language_precisions()).copied());
    let mut all: Vec<&str> = built_in.chain(asked).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Processors that this process may use.
pub fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Reads and plans a suite.
pub fn plan(options: &RunOptions) -> anyhow::Result<(Suite, Plan)> {
    let backends: Vec<&str> = BACKENDS.iter().map(|b| b.name()).collect();
    let known = Known { backends: &backends, precisions: &precisions(), processors: processors() };
    let suite = Suite::load_changed(&options.suite, &options.changes, &known)?;
    let mut plan = Plan::new(&suite, |path| options.filter.as_ref().is_none_or(|f| plan::glob(f, path)))?;
    if let Some((i, n)) = options.shard {
        // an interleaved group is not torn apart
        let shares =
            plan::interleaved_groups(&plan.cases).into_iter().enumerate().filter(|(index, _)| index % n == i - 1);
        let ids: BTreeSet<String> = shares.flat_map(|(_, interleaved)| interleaved).map(|c| c.id.clone()).collect();
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
    let alone = plan::interleaved_groups(&plan.cases).into_iter().filter(|s| s.len() == 1 && s[0].turns.is_some());
    alone.map(|s| s[0].path.clone()).collect()
}

/// Runs a suite.
pub fn run(options: &RunOptions) -> anyhow::Result<RunOutcome> {
    let (suite, plan) = plan(options)?;
    let pinned = refuse_early(options, &suite)?;
    let before = quiet(options.check, options.strict)?;
    // before anything is begun: a cache, or a folder for temporary files, that cannot be used would condemn every case
    let cache = crate::files::user_cache()?;
    process::log().map_err(|e| anyhow::anyhow!("{}\nhint: {}", e.message, e.hint.unwrap_or_default()))?;
    let folder = resume::open_folder(options, &suite)?;
    let _lock = resume::lock(folder.dir())?;
    crate::console::detail(|| format!("run folder {}", folder.dir().display()));
    folder.remove_leftovers()?;
    resume::tell_when_interrupted(options, &folder, &plan);
    prepare_backends(&plan, &folder)?;
    let mut run = Run::begin(options, suite, plan, folder, cache, &before)?;
    run.settle(pinned)?;
    let found = run.measure()?;
    run.conclude(found)
}

/// Obtains what the cases that are due need, before the environment is observed, so that it tells of what they will
/// use; whoever lacks it afterwards says so itself.
fn prepare_backends(plan: &Plan, folder: &RunFolder) -> anyhow::Result<()> {
    let finished = folder.finished()?;
    for planned in plan.cases.iter().filter(|c| !finished.contains(&c.id)) {
        let _ = planned.engine.and_then(backend).map(|b| b.prepare(&planned.options()));
    }
    Ok(())
}

/// A run that has begun.
struct Run<'a> {
    options: &'a RunOptions,
    suite: Suite,
    plan: Plan,
    folder: RunFolder,
    cache: PathBuf,
    meters: Meters,
    began: Began,
    /// A folder for each start of the workers; none where each is started once.
    starts: Vec<RunFolder>,
    references: References,
    progress: Progress,
}

impl<'a> Run<'a> {
    /// Observes the environment, or holds it to that of the run's beginning, and gets the models ready.
    fn begin(
        options: &'a RunOptions,
        suite: Suite,
        mut plan: Plan,
        folder: RunFolder,
        cache: PathBuf,
        before: &Before,
    ) -> anyhow::Result<Self> {
        let mut meters = Meters::probe(&MeterOptions::from_env());
        let engines: Vec<&str> = plan.cases.iter().filter_map(|c| c.engine).collect();
        let seen = plan.models.iter().map(|(name, m)| (name.clone(), changes::files(&m.folder, &m.hash))).collect();
        resume::same_data(&folder, &plan)?;
        let asked = asked::examples(&plan);
        if !asked.is_empty() {
            folder.write_examples(&asked)?;
        }
        let (began, changed) = resume::begin(options, &suite, seen, &engines, &folder, &mut meters, before)?;
        plan.models_changed(&changed);
        plan.materialise(&cache)?;
        let known = folder.finished()?;
        let due = plan.cases.iter().filter(|c| !known.contains(&c.id));
        let ms = due.clone().map(|c| estimated_ms(c, options.check)).sum::<u64>();
        let progress = Progress::new(due.count() * began.starts as usize, ms * u64::from(began.starts));
        let starts = if began.starts > 1 { starts::folders(&folder, began.starts)? } else { Vec::new() };
        Ok(Self { options, suite, plan, folder, cache, meters, began, starts, references: References::new(), progress })
    }

    /// Searches settings, or takes those that were found before.
    fn settle(&mut self, pinned: Option<tune::Pinned>) -> anyhow::Result<()> {
        if self.options.check {
            return Ok(());
        }
        let mut memory = tune::TuningCache::new(self.folder.dir(), &self.cache);
        memory.pinned = pinned;
        let (began_ns, progress) = (self.began.ns, self.progress.clone());
        let mut context =
            RunContext { meters: &mut self.meters, began_ns, check: false, progress, scorers: Scorers::default() };
        tune::settle(&self.suite, &mut self.plan, &memory, &self.cache, &mut self.references, &mut context)
    }

    /// Measures every case that is due, in each of its starts. Gives how many had been finished before.
    fn measure(&mut self) -> anyhow::Result<usize> {
        let Self { options, suite, plan, folder, cache, meters, began, starts, references, progress } = self;
        let check = options.check;
        let scorers = Scorers { kept: resume::kept_for_scorers(folder, plan)?, ..Scorers::default() };
        let mut context = RunContext { meters, began_ns: began.ns, check, progress: progress.clone(), scorers };
        let finished = folder.finished()?;
        let found = plan.cases.iter().filter(|c| finished.contains(&c.id)).count();
        let mut scored = BTreeMap::new();
        resume::scored_before(folder, plan, &finished, &mut scored)?;
        let mut failed = finished;
        for start in 1..=began.starts {
            let into = starts.get(start as usize - 1).unwrap_or(folder);
            let done = into.finished()?;
            resume::scored_before(into, plan, &done, &mut scored)?;
            let pass = Pass { plan, cache, together: suite.together, seed: &began.seed, start };
            let due = |c: &PlannedCase| !failed.contains(&c.id) && !done.contains(&c.id);
            pass.run(into, due, references, &mut scored, &mut context)?;
            if !starts.is_empty() {
                if start == 1 {
                    starts::check_room(into, &plan.cases, began.starts)?;
                }
                for case in &plan.cases {
                    if starts::failed(into, case)? {
                        failed.insert(case.id.clone());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Makes one case of all starts of each, writes records and report, and counts how the cases ended.
    fn conclude(self, found: usize) -> anyhow::Result<RunOutcome> {
        let _gate = interrupt::gate();
        if !self.starts.is_empty() {
            starts::join(&self.folder, &self.starts, &self.plan.cases)?;
        }
        self.progress.clear();
        let (cases, failed, report) = conclude(&self.folder, &self.plan)?;
        Ok(RunOutcome { folder: self.folder.dir().to_path_buf(), failed, cases, found, report })
    }
}

/// What is wrong with a run's folder or its file of settings is said before anything is waited for, and where nothing
/// is to be run. Gives the settings.
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
        resume::open_folder(options, suite)?;
    }
    crate::ceilings::left_out()?;
    options.tuning.as_deref().map(tune::Pinned::read).transpose()
}

/// Watches the machine before anything is measured, waits a while for it to rest, and says so where it does not. A
/// check measures nothing that a busy machine spoils.
///
/// # Errors
/// [`Unfit`], if `strict`.
pub fn quiet(check: bool, strict: bool) -> anyhow::Result<Before> {
    if check && !strict {
        return Ok(Before::default());
    }
    let before = load::wait_for_quiet(|text| crate::console::info(format!("busy: {text}")));
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
    let formats: Vec<&ReportFormat> = ["html", "md", "svg"].into_iter().filter_map(render::format).collect();
    let written = render::write_in_run(&report, &formats, folder.dir())?;
    crate::console::detail(|| format!("wrote records and {} of the report", counted(written.len(), "file")));
    Ok((cases, failed, report))
}

/// Which boot of the system this is, since the monotonic clock counts from it: a hash that says nothing else and
/// differs between suites. Where the system does not tell, no two are equal.
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
        Verdict::Peer { peer, largest, limit } => {
            format!("agrees with {peer} within {largest:.1e} (limit {limit:.0e})")
        }
        Verdict::AccuracyOnly => "nobody compared its outputs: accuracy only".into(),
    }
}
