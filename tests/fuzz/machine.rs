//! Parsers of what the machine, the command line and the program itself hand in: caches, `/proc`, archives, arguments, training and
//! task files.
//!
//! In: bytes, or the file that they lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs but what is dear to make.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::json;

use super::{KNOWN, MAX_REFUSAL, Outcome, again, line, read, said};

/// The memory of ceilings of the folder that the file lies in.
pub(super) fn ceilings_file(_: &[u8], path: &Path) -> Outcome {
    static MEMORY: OnceLock<(PathBuf, ergometer::ceilings::CeilingCache<'static>)> = OnceLock::new();
    let (folder, memory) = MEMORY.get_or_init(|| {
        let folder = path.parent().unwrap().to_path_buf();
        (folder.clone(), ergometer::ceilings::CeilingCache::new(Box::leak(Box::new(folder))).unwrap())
    });
    // made once, since it hashes this program
    if path.parent() != Some(folder) {
        fs::copy(path, folder.join("ceilings.json")).unwrap();
    }
    match memory.recall() {
        Some(ceilings) => {
            again(&ceilings);
            Outcome::Taken
        }
        None => Outcome::Nothing,
    }
}

pub(super) fn ceilings(_: &Path) -> Vec<Vec<u8>> {
    let one = json!({"name": "f32.portable", "what": "plain", "unit": "FLOP/s", "threads": 1, "best": 5.0, "median": 1.0, "n": 7});
    let all = json!({"measured": "2000-01-01T00:00:00Z", "load": null, "list": [one], "missing": [{"name": "x", "reason": "y"}]});
    vec![json!([{"key": "00", "ceilings": all}]).to_string().into_bytes()]
}

pub(super) fn tuning_file(_: &[u8], path: &Path) -> Outcome {
    match ergometer::runner::tune::Pinned::read(path) {
        Ok(_) => Outcome::Taken,
        Err(error) => said(error),
    }
}

pub(super) fn tunings(_: &Path) -> Vec<Vec<u8>> {
    let tried = json!({"options": {"kernel": "a"}, "latency": 0.5, "ratio": [1.0, 0.9, 1.1], "error": null});
    let tuning = json!({"method": "m", "chosen": 0, "tried": [tried, tried]});
    vec![json!([{"key": "00", "tuning": tuning}]).to_string().into_bytes()]
}

pub(super) fn tasks(_: &Path) -> Vec<Vec<u8>> {
    let mut seeds = ["suites/quick.toml", "suites/train/trm-arc.toml", "suites/train/trm-4x4.toml"].map(read).to_vec();
    seeds.push(b"about = \"mine\"\n[task]\nkind = \"sudoku\"\nsize = 4\nclues = [4, 6]\n".to_vec());
    seeds.push(b"[task]\nkind = \"arc\"\nrules = [\"mirror\"]\nmax_side = 5\n".to_vec());
    seeds
}

pub(super) fn task(_: &[u8], path: &Path) -> Outcome {
    use ergometer_suites::task::Split;
    use ergometer_suites::task_file::TaskFile;
    // a name chooses among a suite's tasks, and is refused where there is no choice
    let found = [Some("sudoku-4x4"), None].map(|name| TaskFile::load(path, name, &KNOWN));
    let mut refused = None;
    for found in found {
        let made = found.and_then(|f| {
            for key in ["examples", "seed", "split"] {
                assert!(!f.parameters.contains_key(key), "{key} is said by the command");
            }
            let n = |key: &str| f.parameters.get(key).and_then(|v| v.as_integer());
            // what takes long is not made
            let small = n("size") == Some(4) && !f.parameters.contains_key("clues");
            let make = f.task.maker(&f.parameters, f.folder(), Split::Train)?;
            if small { make(1, 2).map(drop) } else { Ok(()) }
        });
        match made {
            Ok(()) => return Outcome::Taken,
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    said(refused.expect("two tries"))
}

#[cfg(feature = "candle")]
pub(super) fn trainings(_: &Path) -> Vec<Vec<u8>> {
    ["dense-4x4", "trm-6x6", "moe-arc"].map(|m| read(format!("suites/models/{m}/train.toml"))).into()
}

#[cfg(feature = "candle")]
pub(super) fn training_file(_: &[u8], path: &Path) -> Outcome {
    match ergometer::train::config::TrainConfig::load(path) {
        Ok((config, _)) => {
            for step in [0, 1, config.steps / 2, config.steps - 1] {
                assert!(config.lr(step).is_finite());
            }
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

pub(super) fn proc_files(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|n| fs::read(n).unwrap().into_iter().take(4000).collect()).collect()
}

pub(super) fn proc_stat(bytes: &[u8], _: &Path) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let ticks = ergometer::processes::Stat::parse(&text).is_some();
    use ergometer::environment::load;
    let busy = load::Busy::of(&text, None).is_some();
    if ticks || busy { Outcome::Taken } else { Outcome::Nothing }
}

pub(super) fn proc_status(bytes: &[u8], _: &Path) -> Outcome {
    use ergometer::environment::machine;
    let text = String::from_utf8_lossy(bytes);
    let resident = ergometer::meters::memory::field_bytes(&text, "VmRSS:")
        .or(ergometer::meters::memory::field_bytes(&text, "KernelPageSize:"));
    let known = machine::extensions(&text).len() + usize::from(machine::cpu_name(&text).is_some());
    if resident.or(machine::memory_bytes(&text)).is_some() || known > 0 { Outcome::Taken } else { Outcome::Nothing }
}

pub(super) fn archives(_: &Path) -> Vec<Vec<u8>> {
    // an empty zip, and the head of one with a member
    vec![
        b"PK\x05\x06".iter().copied().chain([0; 18]).collect(),
        b"PK\x03\x04\x14\0\0\0\x08\0capi/libonnxruntime.so".to_vec(),
    ]
}

pub(super) fn fetched(_: &[u8], path: &Path) -> Outcome {
    let cache = path.parent().unwrap().join("cache");
    let fetcher = ergometer::fetch::Fetcher {
        python: vec!["false".into()],
        ..ergometer::fetch::Fetcher::new(cache.clone(), true)
    };
    for item in ergometer::fetch::FETCHES {
        match fetcher.take(item, path) {
            Ok(place) => panic!("a file of another sum is taken for {}: {}", item.name, place.display()),
            Err(error) => {
                assert!(fetcher.path(item).is_none(), "{} is there, though refused", item.name);
                if item.name == ergometer::fetch::FETCHES[0].name {
                    continue;
                }
                return said(error);
            }
        }
    }
    Outcome::Nothing
}

pub(super) fn arguments(_: &Path) -> Vec<Vec<u8>> {
    let some = [
        "run\0quick\0--check\0--out\0x\0--filter\0*native*\0--shard\x001/2",
        "time\0--model\0m\0--backend\0native\0--precision\0f32\0--batch\x004\0--threads\x002\0--seconds\x001.5",
        "export\0--model\0trm-6x6\0--to\0onnx\0f.onnx",
        "report\0a\0b\0--format\0md",
        "parity\0--model\0m\0--vectors\0v\0--backend\0native",
        "list\0metrics\0--json",
        "fetch\0arc-agi-1\0--from\0f",
        "generate\0--model\0m\0--prompt\0p\0--tokens\x003\0--chat\0--temperature\x000.5\0--seed\x001",
        "convert\0requantise\0m\0--to\0Q8_0\0--out\0f",
        "tune\0--model\0m\0--backend\0tract",
        "doctor\0--ceilings",
    ];
    some.map(|t| t.as_bytes().to_vec()).into()
}

pub(super) fn command_line(bytes: &[u8], _: &Path) -> Outcome {
    use std::os::unix::ffi::OsStrExt;
    let words = bytes.split(|b| *b == 0).map(|w| std::ffi::OsStr::from_bytes(w).to_os_string());
    match ergometer::cli::parse(std::iter::once("ergometer".into()).chain(words)) {
        Ok(_) => Outcome::Taken,
        // clap's own form: `error: ...`, then the usage or `--help`
        Err(said) => {
            let text = said.render().to_string();
            assert!(!text.trim().is_empty());
            assert!(text.len() <= MAX_REFUSAL + 4 * bytes.len(), "{} bytes", text.len());
            Outcome::Nothing
        }
    }
}

/// A folder and all in it.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&from, &to)
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// A message, taken apart as the harness does too: what that takes is a whole message.
pub(super) fn message(bytes: &[u8], path: &Path) -> Outcome {
    use ergometer::protocol::{self, Message};
    let apart = protocol::line::message(bytes, |_| Ok::<(), ()>(()));
    assert!(apart.is_err() || serde_json::from_slice::<Message>(bytes).is_ok(), "{}", String::from_utf8_lossy(bytes));
    line::<Message>(bytes, path)
}
