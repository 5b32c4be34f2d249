//! Which file of a model changed since a run began: what a resumed run says of cases that were measured with other weights.
//!
//! In: the folder of a model. Out: [`ModelFiles`], and words about what differs. Must not: decide whether a case runs again; its key does,
//! since it holds the model's hash.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ergometer_reports::environment::{FileState, ModelFiles};
use sha2::{Digest, Sha256};

use crate::files::hex;

/// Most bytes of a model's file that are hashed here; a larger one is known by its length and time alone.
const MAX_HASHED: u64 = 1 << 30;

/// The files of a model that decide what it computes: configuration and weights. A file that cannot be read is left out; loading the
/// model says why.
pub fn files(model: &Path, hash: &str) -> ModelFiles {
    let states = deciding(model).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some((name, state(&path)?))
    });
    ModelFiles { hash: hash.into(), files: states.collect() }
}

/// When the latest of those files was written, as RFC 3339.
pub fn modified(model: &Path) -> Option<String> {
    let times = deciding(model).into_iter().filter_map(|p| written(&fs::metadata(p).ok()?));
    times.max().map(crate::environment::utc)
}

fn deciding(model: &Path) -> Vec<PathBuf> {
    let listed: Vec<PathBuf> = match model.is_dir() {
        true => fs::read_dir(model).map(|all| all.flatten().map(|e| e.path()).collect()).unwrap_or_default(),
        false => vec![model.to_path_buf()],
    };
    let decides = |p: &PathBuf| {
        p.extension().is_some_and(|e| ["json", "safetensors", "onnx", "gguf"].contains(&e.to_string_lossy().as_ref()))
    };
    listed.into_iter().filter(decides).collect()
}

/// When a file was last written, seconds since 1970.
fn written(metadata: &fs::Metadata) -> Option<u64> {
    Some(metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

fn state(path: &Path) -> Option<FileState> {
    let metadata = fs::metadata(path).ok().filter(|m| m.is_file())?;
    let sha256 = match metadata.len() <= MAX_HASHED {
        true => {
            let mut file = ergometer_files::open(path, MAX_HASHED, ergometer_files::Links::Followed).ok()?;
            let (mut hash, mut part) = (Sha256::new(), vec![0; 1 << 16]);
            loop {
                match file.read(&mut part).ok()? {
                    0 => break Some(hex(&hash.finalize())),
                    n => hash.update(&part[..n]),
                }
            }
        }
        false => None,
    };
    let seconds = written(&metadata)?;
    Some(FileState { bytes: metadata.len(), modified: crate::environment::utc(seconds), sha256 })
}

/// What changed between two looks at the models of a run, a sentence for each model that did.
pub fn describe(before: &BTreeMap<String, ModelFiles>, now: &BTreeMap<String, ModelFiles>) -> BTreeMap<String, String> {
    let changed = now.iter().filter_map(|(model, after)| {
        let first = before.get(model).filter(|first| first.hash != after.hash)?;
        let names: BTreeSet<&String> = first.files.keys().chain(after.files.keys()).collect();
        let what: Vec<String> = names
            .into_iter()
            .filter_map(|name| match (first.files.get(name), after.files.get(name)) {
                (Some(a), Some(b)) if differs(a, b) => {
                    Some(format!("{name} changed (was of {}, is of {})", a.modified, b.modified))
                }
                (Some(a), None) => Some(format!("{name} of {} is gone", a.modified)),
                (None, Some(b)) => Some(format!("{name} of {} is new", b.modified)),
                _ => None,
            })
            .collect();
        let what = if what.is_empty() { "its files changed".into() } else { what.join(", ") };
        Some((model.clone(), format!("model `{model}`: since the run began, {what}")))
    });
    changed.collect()
}

fn differs(a: &FileState, b: &FileState) -> bool {
    match (&a.sha256, &b.sha256) {
        (Some(a), Some(b)) => a != b,
        _ => (a.bytes, &a.modified) != (b.bytes, &b.modified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_changed_is_named_with_its_times() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "one");
        write("README.md", "words");
        let look = |hash: &str| BTreeMap::from([("net".to_string(), files(folder.path(), hash))]);
        let first = look("a");
        assert_eq!(first["net"].files.keys().collect::<Vec<_>>(), ["config.json", "model.safetensors"]);
        write("README.md", "other words");
        assert_eq!(describe(&first, &look("a")), BTreeMap::new());
        write("model.safetensors", "two");
        let words = &describe(&first, &look("b"))["net"];
        assert!(words.contains("`net`") && words.contains("model.safetensors changed (was of 2"), "{words}");
        assert!(!words.contains("config.json"), "{words}");
        fs::remove_file(folder.path().join("config.json")).unwrap();
        assert!(describe(&first, &look("c"))["net"].contains("config.json of 2"), "a file that is gone");
        // a model that the run had not seen is no change
        assert_eq!(describe(&BTreeMap::new(), &look("b")), BTreeMap::new());
    }
}
