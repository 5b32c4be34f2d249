//! Reduced forms of ONNX files, made by the tools of ONNX Runtime's Python package.
//!
//! In: a [`ReductionJob`]. Out: the file, in its place when it is whole, and [`Reduction`]: what was done, which stands in the file's metadata too. Must
//! not: quantise by itself (but for what `compress.py` says of bf16), or leave half a file.
//!
//! The packages are those that `ci/onnx/requirements.txt` pins. pip puts them into a folder of the cache at first use, for the version of the
//! `python3` that is there; `ERGOMETER_COMPRESS_PYTHON` names a Python that has them already.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};
use ergometer_files::Links;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::console;
use crate::fetch::offline;
use crate::files::{hex, user_cache};
use crate::interrupt::{self, Scratch};
use crate::protocol::bounded::head;

/// The variable that names a Python with the packages.
pub const PYTHON: &str = "ERGOMETER_COMPRESS_PYTHON";

const SCRIPT: &str = include_str!("compress.py");
const REQUIREMENTS: &str = include_str!("../../ci/onnx/requirements.txt");

/// Exit codes of the script: this file cannot be reduced so; the packages are not there.
const REFUSED: i32 = 3;
const NO_PACKAGES: i32 = 4;

/// Largest result: the model, and its data.
const MAX_BYTES: u64 = 1 << 42;

/// What is to be made.
#[derive(Clone, Debug, Serialize)]
pub struct ReductionJob {
    /// The file.
    pub source: PathBuf,
    /// Where the reduced form goes.
    pub out: PathBuf,
    /// `int8`, `f16` or `bf16`.
    pub to: String,
    /// Examples for static quantisation, a `.npz`; none: it is dynamic.
    pub calibrate: Option<PathBuf>,
    /// One scale for each channel of a weight, not for each weight.
    pub per_channel: bool,
}

/// What was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reduction {
    /// Precision.
    #[serde(rename(deserialize = "compress.to"))]
    pub to: String,
    /// Which tool, with versions.
    #[serde(rename(deserialize = "compress.tool"))]
    pub tool: String,
    /// What it was told.
    #[serde(rename(deserialize = "compress.options"))]
    pub options: String,
    /// How many operators of each kind there are more or fewer.
    #[serde(rename(deserialize = "compress.nodes"))]
    pub nodes: String,
    /// sha256 of the original.
    #[serde(rename(deserialize = "compress.source_sha256"))]
    pub source_sha256: String,
    /// Bytes of the original, its data included.
    #[serde(rename(deserialize = "compress.bytes_before"))]
    pub bytes_before: String,
    /// Bytes of the reduced form, its data included.
    #[serde(rename(deserialize = "compress.bytes_after"))]
    pub bytes_after: String,
    /// What ONNX Runtime says against loading it; none: it loads it.
    pub loads: Option<String>,
}

/// Makes a reduced form.
///
/// # Errors
/// No Python, no packages and no way to them, a file that cannot be reduced so, a place that cannot be written.
pub fn compress(job: &ReductionJob) -> anyhow::Result<Reduction> {
    let name = job.out.file_name().with_context(|| format!("{} is not the name of a file", job.out.display()))?;
    let (python, packages) = tools()?;
    let scratch = Scratch::new()?;
    let made = scratch.path().join(name);
    let inner = ReductionJob { out: made.clone(), source: std::path::absolute(&job.source)?, ..job.clone() };
    let mut command = Command::new(&python);
    command.args(["-I", "-B", "-c", SCRIPT]).arg(&packages).arg(serde_json::to_string(&inner)?);
    command.env("TMPDIR", scratch.path()).current_dir(scratch.path());
    console::detail(|| format!("start {} with packages in {packages:?} on {inner:?}", python.to_string_lossy()));
    let said = output(command).with_context(|| format!("cannot run {}", python.to_string_lossy()))?;
    let words = words_of(&said.stderr);
    let shown = job.source.display();
    match said.status.code() {
        Some(0) => {}
        Some(REFUSED) => bail!(
            "{shown} cannot be reduced to {}: {words}\nhint: {}",
            job.to,
            "another precision may do; or change the file with tools of your own, and name it in a suite with `reduces`"
        ),
        Some(NO_PACKAGES) => bail!(
            "{}: {words}\nhint: {}",
            python.to_string_lossy(),
            format_args!("install what ci/onnx/requirements.txt pins there, or unset {PYTHON}: then pip does")
        ),
        _ => bail!(
            "the tools ended with {} on {shown}: {words}\nhint: is there memory enough? -v shows the command",
            said.status
        ),
    }
    let last = said.stdout.split(|b| *b == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default();
    let done: Reduction = serde_json::from_slice(last)
        .with_context(|| format!("the tools answered in no known way: {}", words_of(last)))?;
    // the weights first: a model that is there is whole
    let data = |of: &Path| {
        let mut name = of.as_os_str().to_owned();
        name.push(".data");
        PathBuf::from(name)
    };
    if data(&made).is_file() {
        put(&data(&made), &data(&job.out))?;
    }
    put(&made, &job.out)?;
    Ok(done)
}

/// Copies a file to its place.
fn put(from: &Path, to: &Path) -> anyhow::Result<()> {
    let _gate = interrupt::gate();
    let mut file = ergometer_files::open(from, MAX_BYTES, Links::Refused)
        .with_context(|| format!("the tools left no {}", from.display()))?;
    ergometer_files::replace_with(to, |there| std::io::copy(&mut file, there).map(drop))
        .with_context(|| format!("failed to write `{}`\nhint: is there space, and may you write there?", to.display()))
}

/// Runs a program in a process group that an interruption ends, its stdout and stderr read to their ends.
fn output(mut command: Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let gate = interrupt::gate();
    let mut child = command.spawn()?;
    let _group = interrupt::group(child.id() as i32);
    drop(gate);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let errors = std::thread::spawn(move || begin_of(err));
    let stdout = begin_of(out)?;
    let stderr = errors.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    let status = child.wait()?;
    // one that was ended by an interruption has not failed
    drop(interrupt::gate());
    Ok(Output { status, stdout, stderr })
}

/// Reads a pipe to its end and keeps the beginning.
fn begin_of(from: Option<impl Read>) -> std::io::Result<Vec<u8>> {
    const MOST: u64 = 1 << 20;
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        from.by_ref().take(MOST).read_to_end(&mut kept)?;
        std::io::copy(&mut from, &mut std::io::sink())?;
    }
    Ok(kept)
}

/// The Python and the folder of its packages; an empty one where it has them by itself.
fn tools() -> anyhow::Result<(OsString, OsString)> {
    if let Some(named) = std::env::var_os(PYTHON).filter(|name| !name.is_empty()) {
        return Ok((named, OsString::new()));
    }
    let python = OsString::from("python3");
    let tag = tag(&python)?;
    let sum = hex(&Sha256::digest(REQUIREMENTS.as_bytes()));
    let place = user_cache()?.join("python").join(format!("onnx-{}-{tag}", &sum[..12]));
    if !place.is_dir() {
        install(&python, &place)?;
    }
    Ok((python, place.into_os_string()))
}

/// What decides which packages fit an interpreter.
fn tag(python: &OsString) -> anyhow::Result<String> {
    const ASK: &str = "import sys; print(sys.implementation.cache_tag)";
    let hint = format!("install python3 (3.11 or later) with pip, or let {PYTHON} name one that has the packages");
    let mut command = Command::new(python);
    command.args(["-I", "-c", ASK]);
    let said = output(command)
        .with_context(|| format!("cannot start python3, which the tools of ONNX Runtime need\nhint: {hint}"))?;
    let tag = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !said.status.success() || tag.is_empty() || tag.len() > 40 || !tag.chars().all(plain) {
        bail!("python3 ended with {}: {}\nhint: {hint}", said.status, words_of(&said.stderr));
    }
    Ok(tag)
}

/// Lets pip put the packages into their place, which is there when they are complete.
fn install(python: &OsString, place: &Path) -> anyhow::Result<()> {
    let by_hand = format!("let {PYTHON} name a Python that has what ci/onnx/requirements.txt pins");
    let names: Vec<&str> = REQUIREMENTS.lines().filter(|line| line.contains("==")).collect();
    if offline() {
        bail!(
            "the tools of ONNX Runtime are not here, and ERGOMETER_OFFLINE forbids to obtain them ({})\nhint: {by_hand}",
            names.join(", ")
        );
    }
    console::info(format!("pip obtains ONNX Runtime's tools, once (200 MB on disk): {}", names.join(", ")));
    let folder = place.parent().context("a place in the cache")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let unfinished = folder.join(ergometer_files::temporary("onnx"));
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]);
    pip.args(["--no-input", "--retries=2", "--timeout=20", "--target"]).arg(&unfinished).args(&names);
    // `-m` looks into the working folder first
    pip.current_dir("/");
    console::detail(|| format!("start {pip:?}"));
    let said = output(pip);
    let failed = match said {
        Ok(said) if said.status.success() => None,
        Ok(said) => Some(format!("pip could not install them: {}", words_of(&said.stderr))),
        Err(e) => Some(format!("cannot start pip: {e}")),
    };
    if let Some(failed) = failed {
        let _ = fs::remove_dir_all(&unfinished);
        bail!(
            "the tools of ONNX Runtime are not here, and {failed}\nhint: it needs a package index, by pip's own settings; or {by_hand}"
        );
    }
    // another process may have been faster
    if fs::rename(&unfinished, place).is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    if place.is_dir() { Ok(()) } else { bail!("cannot write {}\nhint: set ERGOMETER_CACHE", place.display()) }
}

/// What a program wrote, its end, on one line.
fn words_of(bytes: &[u8]) -> String {
    const MOST: usize = 1500;
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MOST)..]).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    head(&lines[lines.len().saturating_sub(4)..].join(" / "), MOST)
}
