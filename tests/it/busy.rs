//! A machine that is not ours alone: two busy loops are seen before a run, during it, and refused by `--strict`; threads without processors are told.
//!
//! In: shells that spin, `taskset`. Out: exit codes, stderr, notes, samples. Must not: expect a machine to be quiet.

use std::process::{Child, Command, Stdio};

use ergometer_reports::load;

use crate::house::{House, ended, skip_here};

/// Two shells that do nothing but use a processor; killed when dropped.
struct Loops(Vec<Child>);

impl Loops {
    fn start() -> Self {
        let spin = |_| Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        Self((0..2).map(spin).collect())
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const CASE: &str = "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nseconds = 2.0\nwarmup_seconds = 0\n";

#[test]
fn two_busy_loops_are_seen_and_said_and_strict_measures_nothing_beside_them() {
    if !std::path::Path::new("/proc/stat").exists() {
        return skip_here("this system does not say how busy it is");
    }
    let house = House::new();
    let suite = house.suite("one.toml", CASE);
    let loops = Loops::start();
    let strict = house.run(&suite, "strict", &["--strict"]);
    strict.exits(3);
    assert!(
        strict.stderr.contains("other programs use") && strict.stderr.contains("nothing was measured"),
        "{strict:?}"
    );
    assert!(!house.path("strict").exists(), "nothing was begun");

    let ended = house.run(&suite, "run", &[]);
    ended.exits(0);
    assert!(ended.stderr.contains("warning: other programs use"), "{}", ended.stderr);
    drop(loops);
    let run = load(&house.path("run")).unwrap();
    assert!(run.environment.foreign_before.unwrap() > 0.2, "{:?}", run.environment.foreign_before);
    let case = &run.cases[0];
    let loads: Vec<_> = case.samples.iter().filter(|s| s.metric == "foreign_load").collect();
    assert!(!loads.is_empty() && loads.iter().all(|s| s.phase == "steady" && s.value >= 0.0), "{loads:?}");
    let said = case.case.notes.iter().any(|n| n.starts_with("other programs used") && n.contains("processor"));
    assert!(said, "{:?}", case.case.notes);
    assert!(house.records("run").value("native", "foreign_load") > 0.1);

    // waited for as long as is asked, and no longer
    let _loops = Loops::start();
    let mut command = house.command(&["time", "--model", "dense", "--backend", "native", "--seconds", "0.1"]);
    command.env("ERGOMETER_WAIT", "1");
    let ended = self::ended(command);
    ended.exits(0);
    assert!(ended.stderr.contains("waiting up to 1 s for the machine to rest"), "{}", ended.stderr);
    assert!(ended.stderr.contains("warning: other programs use"), "{}", ended.stderr);
}

#[test]
fn threads_without_a_processor_of_their_own_are_told() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let one = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap().to_string();
    let house = House::new();
    let cases = CASE.replace("seconds = 2.0", "seconds = 0.05\nthreads = [1, 2, 4]");
    let suite = house.suite("threads.toml", &cases);
    let program = house.command(&[]);
    let on_one = |args: &[&str]| {
        let mut command = house.command(&[]);
        command = {
            let mut taskset = Command::new("taskset");
            taskset.args(["-c", &one]).arg(program.get_program()).args(args);
            taskset.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
            command.get_envs().for_each(|(k, v)| match v {
                Some(v) => drop(taskset.env(k, v)),
                None => drop(taskset.env_remove(k)),
            });
            taskset
        };
        ended(command)
    };
    if Command::new("taskset").arg("--version").output().is_err() {
        return skip_here("there is no `taskset`");
    }
    on_one(&["run", suite.to_str().unwrap(), "--out", "run"]).exits(0);
    let run = load(&house.path("run")).unwrap();
    assert_eq!(run.environment.cpus, 1);
    for case in &run.cases {
        let told = case.case.notes.iter().any(|n| n.contains("on the 1 processor that this process may use"));
        assert_eq!(told, case.case.key.threads > 1, "{} threads: {:?}", case.case.key.threads, case.case.notes);
    }
    assert_eq!(run.cases.len(), 3);
    let doctor = on_one(&["doctor"]);
    doctor.exits(0);
    assert!(doctor.stdout.contains("1 usable"), "{}", doctor.stdout);
}
