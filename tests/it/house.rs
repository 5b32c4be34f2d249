//! A place for one test: a folder with a tiny model, suites and runs, and the program at work in it.
//!
//! In: suite text, arguments. Out: how the program ended and what it left behind. Must not: assert anything about the program itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ergometer::backends::{BACKENDS, Backend};
use ergometer::fetch;
use ergometer::models::Model;
use ergometer_reports::Record;
use ergometer_reports::case::Case;
use ergometer_reports::record::RecordsFile;
use serde_json::{Value, json};

/// Longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program under test.
fn program() -> PathBuf {
    // set at run time too, so that a copy of the tests finds a copy of the program
    std::env::var_os("CARGO_BIN_EXE_ergometer").map_or_else(|| env!("CARGO_BIN_EXE_ergometer").into(), PathBuf::from)
}

/// A one-shot net for 4x4 Sudoku that takes a millisecond.
pub fn dense() -> Value {
    json!({"model_type": "encoder", "seq_len": 16, "vocab_size": 6, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "expansion": 1.0,
           "pos_encodings": "learned"})
}

/// A recursive one, of up to three steps.
pub fn recursive() -> Value {
    json!({"model_type": "trm", "seq_len": 16, "vocab_size": 6, "hidden_size": 16, "num_heads": 2, "expansion": 1.0, "H_cycles": 1,
           "L_cycles": 1, "L_layers": 1, "halt_max_steps": 3})
}

/// A temporary folder with the models `dense` and `trm` in it.
pub struct House {
    dir: tempfile::TempDir,
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl House {
    pub fn new() -> Self {
        let house = Self { dir: tempfile::Builder::new().prefix("ergometer-it-").tempdir().unwrap() };
        house.model("dense", &dense());
        house.model("trm", &recursive());
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is in no other process's arguments: for finding what this test started.
    pub fn tag(&self) -> String {
        self.dir.path().display().to_string()
    }

    pub fn model(&self, name: &str, config: &Value) {
        let model = Model::random(config, 7).unwrap();
        Model::save(&self.path(name), config, model.graph().unwrap(), &model.params).unwrap();
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A suite of the models, a small task and whatever the text adds.
    pub fn suite(&self, name: &str, rest: &str) -> PathBuf {
        self.file(
            name,
            format!(
                "[[model]]\nname = \"dense\"\npath = \"dense\"\n[[model]]\nname = \"trm\"\npath = \"trm\"\n\
                 [[task]]\nname = \"small\"\nkind = \"sudoku\"\nsize = 4\nclues = [6, 8]\nexamples = 5\n{rest}"
            ),
        )
    }

    /// A `[[backend]]` block with a fake worker of this mode, called by it unless `extra` names it otherwise.
    pub fn fake(&self, mode: &str, extra: &[&str]) -> String {
        self.fake_as(mode, mode, extra)
    }

    /// The same under another name.
    pub fn fake_as(&self, name: &str, mode: &str, extra: &[&str]) -> String {
        let script = root().join("tests/fakes/fake.py");
        let mut command = vec!["python3", "-B", script.to_str().unwrap(), mode, "--name", name, "--tag"];
        let tag = self.tag();
        command.push(&tag);
        command.extend(extra);
        format!("[[backend]]\nname = \"{name}\"\nkind = \"external\"\ncommand = {command:?}\n")
    }

    /// A suite of these fakes, name and mode, that write their phases to one log; `hold` is for `b`.
    pub fn suite_of_fakes(&self, name: &str, fakes: &[(&str, &str)], hold: &[&str], rest: &str) -> PathBuf {
        let log = self.path("log");
        let names: Vec<&str> = fakes.iter().map(|f| f.0).collect();
        let mut text = String::new();
        for (name, mode) in fakes {
            let mut more = vec!["--log", log.to_str().unwrap()];
            more.extend(if *name == "b" { hold } else { &[] });
            text += &self.fake_as(name, mode, &more);
        }
        text += &format!(
            "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = {names:?}\nseconds = 0.05\nwarmup_seconds = 0\n{rest}"
        );
        self.suite(name, &text)
    }

    /// What the workers of such a suite have logged.
    pub fn log(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_string).collect()
    }

    /// The program with these arguments, to be run in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.env("ERGOMETER_CACHE", self.path("cache")).env("ERGOMETER_POWERCAP", self.path("no-powercap"));
        // a house has a cache of its own, so that what the user has fetched is pointed to
        if let Some(library) =
            fetch::cached("onnxruntime").filter(|_| std::env::var_os("ERGOMETER_ONNXRUNTIME").is_none())
        {
            command.env("ERGOMETER_ONNXRUNTIME", library);
        }
        // no test downloads anything, and each would measure the machine anew in its own cache
        // and nobody waits for a machine on which other tests run
        command.env("ERGOMETER_WAIT", "0");
        command.env("ERGOMETER_CEILINGS", "off").env("ERGOMETER_OFFLINE", "1").env_remove("ERGOMETER_HOME");
        command
    }

    pub fn ergometer(&self, args: &[&str]) -> Ended {
        ended(self.command(args))
    }

    /// Runs a suite into the folder `out`.
    pub fn run(&self, suite: &Path, out: &str, more: &[&str]) -> Ended {
        let mut args = vec!["run", suite.to_str().unwrap(), "--out", out];
        args.extend(more);
        self.ergometer(&args)
    }

    /// Starts the program and comes back at once; nobody listens to it.
    pub fn start(&self, args: &[&str]) -> Harness {
        Harness(self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Records of a run, from `records.json`, by backend and metric.
    pub fn records(&self, run: &str) -> Records {
        let text = fs::read(self.path(run).join("records.json")).unwrap();
        let file: RecordsFile = serde_json::from_slice(&text).unwrap();
        Records(file.records)
    }

    /// Every `case.json` of a run, by backend.
    pub fn cases(&self, run: &str) -> BTreeMap<String, Case> {
        let folders = fs::read_dir(self.path(run).join("cases")).unwrap().map(|e| e.unwrap().path());
        let read = |folder: PathBuf| -> Option<Case> {
            serde_json::from_slice(&fs::read(folder.join("case.json")).ok()?).ok()
        };
        folders.filter_map(read).map(|c| (c.key.backend.clone(), c)).collect()
    }

    /// No process in this house, once what was killed has gone.
    pub fn assert_nobody_left(&self) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) && !self.left().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.left().is_empty(), "left behind: {:?}", self.left());
    }

    /// Processes at work in this house, the program itself among them, and those that carry its tag wherever they are.
    pub fn left(&self) -> Vec<String> {
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let here = processes.filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let inside = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.dir.path());
            let ours = inside || (line.contains("python3") && line.contains(&self.tag()));
            // what has ended and is only not yet waited for has no command line
            (ours && !line.is_empty()).then(|| format!("{pid}: {line}"))
        });
        here.collect()
    }
}

/// The built-in backends that can run on this machine; the others are named aloud.
pub fn ready() -> Vec<&'static dyn Backend> {
    let lacking = |b: &&dyn Backend| {
        let lacking = b.probe().err();
        if let Some(why) = &lacking {
            skip_here(&format!("backend {}: {}", b.name(), why.reason));
        }
        lacking.is_none()
    };
    BACKENDS.iter().copied().filter(lacking).collect()
}

/// Runs a command to its end.
pub fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Ended {
    /// It was bad input: exit code 2, a message with all of these parts, and no panic.
    #[track_caller]
    pub fn refused(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in: {}", self.stderr);
        }
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// A running program; killed when dropped.
pub struct Harness(Child);

impl Harness {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The largest resident memory it has had so far, in bytes.
    pub fn peak(&self) -> Option<u64> {
        ergometer::meters::memory::peak(self.0.id()).ok()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All rows of a run.
pub struct Records(pub Vec<Record>);

impl Records {
    #[track_caller]
    pub fn get(&self, backend: &str, metric: &str) -> &Record {
        let found = self.0.iter().find(|r| r.backend == backend && r.metric == metric);
        found.unwrap_or_else(|| panic!("no record of {metric} for {backend}"))
    }

    #[track_caller]
    pub fn value(&self, backend: &str, metric: &str) -> f64 {
        let record = self.get(backend, metric);
        record.value.unwrap_or_else(|| panic!("{metric} of {backend} is missing: {:?}", record.missing))
    }

    /// Rows of one backend.
    pub fn of(&self, backend: &str) -> Vec<&Record> {
        self.0.iter().filter(|r| r.backend == backend).collect()
    }
}

/// Waits for something to be so.
#[track_caller]
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All files below a folder with their bytes, by relative path.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(dir) = open.pop() {
        // what a running program takes away while we look is not there
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), bytes);
            }
        }
    }
    found
}

/// A test, or a part of one, cannot run for want of something that every CI has: said aloud, and a failure where `ERGOMETER_REQUIRE=1`.
#[track_caller]
pub fn skip(why: &str) {
    let required = std::env::var_os("ERGOMETER_REQUIRE").is_some_and(|v| v == "1");
    assert!(!required, "skipped, though ERGOMETER_REQUIRE=1 asks for it: {why}");
    skip_here(why);
}

/// The same for what depends on the machine, such as the right to mount: said aloud, and told again at the end of `ci/test.sh`.
pub fn skip_here(why: &str) {
    // past the test harness's capture, so that it is seen
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
