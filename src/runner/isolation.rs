//! Where an external program runs: what of the environment it sees, its folder, its processors and memory, what it may write to.
//!
//! In: the [`Isolation`] that a suite asks for. Out: a command that starts the program so, and a record of what was done. Must not: record
//! what was asked for where something else was done.
//!
//! The environment is scrubbed but for [`KEPT`], so that neither a secret nor a setting that nobody recorded reaches it. Its working folder and
//! its folder for temporary files are one of its own, removed with it. The rest is done by the process that becomes the program, just before
//! it does: `ergometer worker --exec`. How it is confined is in `confinement.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use ergometer_suites::suite::Isolation;

use super::confinement;
use crate::interrupt::Scratch;

/// Variables that a program is given: where programs and libraries are, the language, and how many threads libraries take. One that ends in
/// `*` stands for all that begin so.
pub const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHON*",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "XDG_CACHE_HOME",
    "CC",
    "CXX",
    "CUDA_*",
    "NVIDIA_*",
    "HIP_*",
    "ROCR_*",
    "HSA_*",
    "OMP_*",
    "GOMP_*",
    "KMP_*",
    "MKL_*",
    "OPENBLAS_*",
    "OV_*",
    "ORT_*",
    "TORCH*",
    "TF_*",
    "XLA_*",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "ERGOMETER_*",
];

/// Whether a variable is given to a program.
fn kept(name: &str, pass: &[String]) -> bool {
    let of_list = |k: &&str| match k.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == *k,
    };
    KEPT.iter().any(of_list) || pass.iter().any(|p| p == name)
}

/// The environment that a program is given, of ours.
fn environment(all: impl Iterator<Item = (OsString, OsString)>, pass: &[String]) -> Vec<(OsString, OsString)> {
    all.filter(|(name, _)| name.to_str().is_some_and(|name| kept(name, pass))).collect()
}

/// A word of a command that is the relative path of something that is there, as an absolute one: the program runs in another folder.
fn absolute(word: &str, first: bool, here: &Path) -> String {
    let path = Path::new(word);
    // a bare word may be a name of something else
    let named = word.contains('/') || (!first && path.extension().is_some());
    let there = here.join(path);
    if named && path.is_relative() && there.exists() { there.to_string_lossy().into_owned() } else { word.to_string() }
}

/// What a program was started with.
#[derive(Debug, Default)]
pub struct ProgramPlace {
    /// Its folder, which goes with it.
    pub folder: Option<Scratch>,
    /// For the record of its case.
    pub told: BTreeMap<String, String>,
}

/// Lets `program`, which is this one as a worker, become an external program in a place of its own.
///
/// # Errors
/// There is no place for its folder.
pub fn become_external(program: &mut Command, words: &[String], isolation: &Isolation) -> anyhow::Result<ProgramPlace> {
    let folder = Scratch::new()?;
    let mark = program.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect::<Vec<_>>();
    let given = environment(std::env::vars_os(), &isolation.pass);
    let mut names: Vec<String> = given.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort();
    program.env_clear().envs(given).envs(mark).env("TMPDIR", folder.path());
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    program.current_dir(folder.path());
    let mut told = BTreeMap::from([
        ("isolation.environment".to_string(), names.join(" ")),
        ("isolation.folder".to_string(), "its own, removed with it".to_string()),
    ]);
    if !isolation.cpus.is_empty() {
        let list = isolation.cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        program.arg("--cpus").arg(&list);
        told.insert("isolation.cpus".into(), list);
    }
    if let Some(bytes) = isolation.most_memory {
        program.arg("--most-memory").arg(bytes.to_string());
        told.insert("isolation.most_memory".into(), format!("{bytes} B of private memory for each process"));
    }
    if isolation.confined {
        let confined = match confinement::offered(Path::new(program.get_program()), folder.path()) {
            Ok(confinement) => {
                program.args(confinement.flags(folder.path()));
                confinement.told()
            }
            Err(why) => format!("false ({why})"),
        };
        told.insert("isolation.confined".into(), confined);
    }
    program.arg("--exec").args(words.iter().enumerate().map(|(i, word)| absolute(word, i == 0, &here)));
    Ok(ProgramPlace { folder: Some(folder), told })
}

/// What the process that becomes the program does before: its processors and its memory.
///
/// # Errors
/// They cannot be set.
pub fn limit(cpus: &[u32], most_memory: Option<u64>) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    use rustix::thread::{CpuSet, sched_setaffinity};
    if !cpus.is_empty() {
        let mut set = CpuSet::new();
        cpus.iter().filter(|cpu| (**cpu as usize) < CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu as usize));
        let list = cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        sched_setaffinity(None, &set).map_err(|e| anyhow::anyhow!("cannot use the processors {list}: {e}"))?;
    }
    if let Some(bytes) = most_memory {
        let most = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        setrlimit(Resource::Data, most).map_err(|e| anyhow::anyhow!("cannot limit its memory to {bytes} B: {e}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_environment_what_is_listed_or_asked_for_is_kept() {
        let all = [
            "PATH",
            "LC_ALL",
            "OMP_NUM_THREADS",
            "AWS_SECRET_ACCESS_KEY",
            "PATHS",
            "MINE",
            "HF_TOKEN",
            "ERGOMETER_EXE",
        ];
        let of = |pass: &[String]| -> Vec<String> {
            let all = all.iter().map(|n| (OsString::from(n), OsString::from("x")));
            environment(all, pass).into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
        };
        assert_eq!(of(&[]), ["PATH", "LC_ALL", "OMP_NUM_THREADS", "ERGOMETER_EXE"]);
        assert_eq!(of(&["MINE".into()]), ["PATH", "LC_ALL", "OMP_NUM_THREADS", "MINE", "ERGOMETER_EXE"]);
    }

    #[test]
    fn relative_paths_of_what_is_there_become_absolute() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("worker.py"), "").unwrap();
        std::fs::write(here.path().join("fast"), "").unwrap();
        let there = |name: &str| here.path().join(name).to_string_lossy().into_owned();
        let of = |word: &str, first| absolute(word, first, here.path());
        assert_eq!(of("worker.py", false), there("worker.py"));
        assert_eq!(of("./fast", true), there("./fast"));
        for (word, first) in
            [("fast", true), ("fast", false), ("python3", true), ("other.py", false), ("-B", false), ("/bin/sh", true)]
        {
            assert_eq!(of(word, first), word);
        }
    }
}
