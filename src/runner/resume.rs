//! A run's folder: opened or made, locked, begun or gone on with, and what an earlier process left in it.
//!
//! In: what the user asked for, the machine as it is now. Out: the folder, and what the run holds on to from its beginning. Must not: go on
//! with a run of another suite, program or machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use ergometer_files::counted;
use ergometer_reports::RunFolder;
use ergometer_reports::case::{ErrorKind, Prediction};
use ergometer_reports::environment::{Environment, ModelFiles};
use ergometer_suites::suite::Suite;
use sha2::{Digest, Sha256};

use super::case::Scored;
use super::plan::Plan;
use super::{RunOptions, boot, changes, starts};
use crate::ceilings::executable_hash;
use crate::clock::monotonic_ns;
use crate::environment::load::Before;
use crate::files::hex;
use crate::interrupt;
use crate::meters::Meters;

/// How long the idle machine is watched before a run, where an energy meter is ready.
const IDLE: Duration = Duration::from_secs(2);

/// What an interruption says: what the folder keeps, and how to go on. Folders of cases that were not finished go.
pub(super) fn tell_when_interrupted(options: &RunOptions, folder: &RunFolder, plan: &Plan) {
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

/// The scored answers of cases that an earlier process finished, by group.
pub(super) fn scored_before(
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
            let kind = plan.tasks[&case.spec.task].answers();
            scored.insert(case.group.clone(), Scored::read(&case.id, kind, &answers)?);
        }
    }
    Ok(())
}

/// Errors: a finished case was asked other questions than its task has now. Models that changed are told apart by their names' notes; of data
/// two measurements under one name would stand side by side.
pub(super) fn same_data(folder: &RunFolder, plan: &Plan) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder.dir().join("cases")) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok) {
        // what cannot be read is told where it is needed
        let Ok(case) = ergometer_reports::store::load_ended(&entry.path()) else { continue };
        let Some(task) = plan.tasks.get(&case.key.task) else { continue };
        if task.hash != case.key.task_hash {
            bail!(
                "{} was begun with other examples of the task `{}`\nhint: start a new run; numbers of both would not be comparable",
                folder.dir().display(),
                case.key.task
            );
        }
    }
    Ok(())
}

/// The answers of cases whose scorer failed in an earlier process, by id.
pub(super) fn kept_for_scorers(folder: &RunFolder, plan: &Plan) -> anyhow::Result<BTreeMap<String, Vec<Prediction>>> {
    let mut kept = BTreeMap::new();
    for case in &plan.cases {
        let place = folder.dir().join("cases").join(ergometer_reports::slug(&case.path, &case.id));
        if !place.exists() {
            continue;
        }
        let ended = ergometer_reports::store::load_ended(&place)?;
        if ended.error.is_some_and(|e| e.kind == ErrorKind::Scorer) {
            kept.insert(case.id.clone(), ergometer_reports::store::load_answers(&place)?);
        }
    }
    Ok(kept)
}

pub(super) fn open_folder(options: &RunOptions, suite: &Suite) -> anyhow::Result<RunFolder> {
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
pub(super) fn lock(dir: &Path) -> anyhow::Result<File> {
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
pub(super) fn begin(
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
    (now.models, now.foreign_before) = (models, before.foreign);
    if folder.dir().join("environment.json").exists() {
        return go_on(now, options, folder, meters);
    }
    Ok((anew(now, options, suite, folder, meters)?, BTreeMap::new()))
}

/// A run that nobody has begun before.
fn anew(
    mut now: Environment,
    options: &RunOptions,
    suite: &Suite,
    folder: &RunFolder,
    meters: &mut Meters,
) -> anyhow::Result<Began> {
    if !folder.finished()?.is_empty() {
        bail!(
            "{} holds cases, but no environment.json: nobody knows how they were measured\nhint: start a new run in another folder",
            folder.dir().display()
        );
    }
    if !options.check {
        now.idle_watts = meters.idle_watts(IDLE);
    }
    // before the first case, and for all of the suite's cases: a resumed or filtered run may come to others later
    let threads: BTreeSet<u32> = suite.cases.iter().filter(|c| c.precision != "f64").map(|c| c.threads).collect();
    let threads: Vec<u32> = threads.into_iter().collect();
    now.ceilings = crate::ceilings::of_run(&threads, &crate::files::user_cache()?, options.check)?;
    let (began_ns, boot) = (monotonic_ns(), boot(&now.suite_hash));
    now.versions.insert(CLOCK.into(), format!("{boot} {began_ns}"));
    folder.write_file("suite.toml", suite.text.as_bytes())?;
    let seed = hex(&Sha256::digest(format!("{boot} {began_ns}")))[..16].to_string();
    now.versions.insert(SEED.into(), seed.clone());
    folder.write_environment(&now)?;
    Ok(Began { ns: began_ns, seed, starts: options.repeats.unwrap_or(1) })
}

/// A run that an earlier process began.
fn go_on(
    now: Environment,
    options: &RunOptions,
    folder: &RunFolder,
    meters: &mut Meters,
) -> anyhow::Result<(Began, BTreeMap<String, String>)> {
    let path = folder.dir().join("environment.json");
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
    let changed = changes::describe(&before.models, &now.models);
    for words in changed.values() {
        crate::console::info(format!(
            "{words}: its cases are measured anew, those that were measured before stay beside them"
        ));
    }
    let new = now.models.keys().any(|name| !before.models.contains_key(name));
    if new || !changed.is_empty() {
        // the first look at a model stands: all later ones are held to it
        now.models.into_iter().for_each(|(name, seen)| {
            before.models.entry(name).or_insert(seen);
        });
        folder.write_environment(&before)?;
    }
    let clock = version(&before, CLOCK);
    let origin = clock
        .split_once(' ')
        .filter(|(before, _)| *before == boot(&now.suite_hash))
        .and_then(|(_, ns)| ns.parse().ok());
    let starts = version(&before, STARTS).parse().ok().filter(|n| (1..=1000).contains(n)).unwrap_or(1);
    Ok((Began { ns: origin.unwrap_or_else(monotonic_ns), seed: version(&before, SEED), starts }, changed))
}

/// What a run, resumed or not, holds on to from its beginning.
pub(super) struct Began {
    /// Its moment on the monotonic clock.
    pub ns: u64,
    /// Decides the order of turns.
    pub seed: String,
    /// How often each worker is started.
    pub starts: u32,
}

/// Key of the seed of the order of turns among the environment's versions.
const SEED: &str = "turns.seed";

/// Key of the number of starts of each worker, likewise.
const STARTS: &str = "starts";

/// Key of the run's beginning among the environment's versions.
const CLOCK: &str = "clock.origin";
