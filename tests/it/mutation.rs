//! Every parser of the table in `tests/fuzz/parsers.rs` on seeded mutations of good inputs, each in a process whose memory and time are bounded.
//!
//! In: the table; `ERGOMETER_FUZZ_EXECUTIONS` (of each parser, 300 without it) and `ERGOMETER_FUZZ_SEED`. Out: the input that broke an
//! invariant, in words that make it again. Must not: depend on how fast the machine is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::house::{House, ended, root};
use crate::mutate::{Random, mutated};
use crate::parsers::{Outcome, PARSERS, parser, try_on};

/// Memory that a parser may take beyond what the process had before, bytes.
const MEMORY: u64 = 1 << 30;
/// Processor time of one parser's mutations, seconds for each 300 executions; most take one.
const SECONDS: u64 = 120;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |v| v.parse().unwrap_or_else(|_| panic!("{name} is {v}")))
}

/// A run to take files from: two kinds of task, so that there are attempts too.
fn recorded(house: &House) -> PathBuf {
    let text = "[[task]]\nname = \"grids\"\nkind = \"arc\"\nrules = [\"mirror\", \"crop\"]\nmax_side = 5\nexamples = 6\naugmentations = 2\nseed = 3\n\
                [[model]]\nname = \"five\"\npath = \"five\"\n\
                [[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\n\
                [[cases]]\nmodels = [\"five\"]\ntasks = [\"grids\"]\nbackends = [\"native\"]\n";
    let mut config = crate::house::recursive();
    (config["seq_len"], config["vocab_size"]) = (25.into(), 12.into());
    (config["puzzle_emb_ndim"], config["num_puzzle_identifiers"]) = (16.into(), 257.into());
    house.model("five", &config);
    house.run(&house.suite("seeds.toml", text), "recorded", &["--check"]).exits(0);
    house.path("recorded")
}

/// One parser's share, in the process that was started for it.
fn mutate_one(name: &str, run: &Path) {
    let parser = parser(name).unwrap();
    // in memory where there is such a folder: thousands of small files are written
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let seeds = (parser.seeds)(run);
    // the seeds first: they show that the parser takes what is right
    for seed in &seeds {
        let outcome = try_on(parser, seed, folder.path());
        // no file has a pinned sum, and caches are kept under the sum of this program
        let refuses = ["fetched", "ceilings", "tuning"].contains(&parser.name);
        assert!(matches!(outcome, Outcome::Taken) || refuses, "a seed of {name} is not taken: {outcome:?}");
    }
    bound(number("ERGOMETER_FUZZ_EXECUTIONS", 300));
    let (first, n) = (number("ERGOMETER_FUZZ_SEED", 20_261_127), number("ERGOMETER_FUZZ_EXECUTIONS", 300));
    let current = current(run);
    let mut counts = [0u64; 3];
    for i in 0..n {
        let bytes = mutated(&seeds, &mut Random::new(first.wrapping_mul(1_000_003).wrapping_add(i)));
        // an abort leaves no word: what was at work is in this file
        fs::write(&current, &bytes).unwrap();
        match try_on(parser, &bytes, folder.path()) {
            Outcome::Taken => counts[0] += 1,
            Outcome::Refused(_) => counts[1] += 1,
            Outcome::Nothing => counts[2] += 1,
        }
    }
    println!("COUNTS {name} {} {} {}", counts[0], counts[1], counts[2]);
}

/// Where the input at work is kept.
fn current(run: &Path) -> PathBuf {
    run.with_file_name("current")
}

/// From here on no more memory and time than a mutated input may cost.
fn bound(executions: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let now = ergometer::meters::memory::field_bytes(&status, "VmSize:").unwrap();
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::As, limit(now + MEMORY)).unwrap();
    setrlimit(Resource::Cpu, limit(SECONDS * executions.div_ceil(300))).unwrap();
}

#[test]
fn every_parser_bears_mutated_input() {
    let name = "mutation::every_parser_bears_mutated_input";
    if let (Ok(parser), Some(run)) = (std::env::var("ERGOMETER_FUZZ"), std::env::var_os("ERGOMETER_FUZZ_RUN")) {
        return mutate_one(&parser, Path::new(&run));
    }
    let house = House::new();
    let run = recorded(&house);
    let mut faults = Vec::new();
    let mut total = 0;
    for parser in PARSERS {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", name, "--nocapture"]);
        again.env("ERGOMETER_FUZZ", parser.name).env("ERGOMETER_FUZZ_RUN", &run).env("RUST_BACKTRACE", "0");
        let ended = ended(again);
        let counts = ended.stdout.lines().find_map(|l| l.split_once(&format!("COUNTS {} ", parser.name)).map(|c| c.1));
        match (ended.code, counts) {
            (Some(0), Some(counts)) => {
                println!("{:<16} {counts}", parser.name);
                total += counts.split(' ').map(|n| n.parse::<u64>().unwrap()).sum::<u64>();
            }
            _ => {
                let input = fs::read(current(&run)).unwrap_or_default();
                let shown: String = input.escape_ascii().to_string().chars().take(3000).collect();
                let said: String = ended.stderr.chars().take(2000).collect();
                faults.push(format!(
                    "{}: exit code {:?}\n{said}\ninput ({} bytes): {shown}",
                    parser.name,
                    ended.code,
                    input.len()
                ));
            }
        }
    }
    println!("{total} inputs");
    assert!(faults.is_empty(), "{} parsers failed\n{}", faults.len(), faults.join("\n\n"));
    assert_eq!(total, PARSERS.len() as u64 * number("ERGOMETER_FUZZ_EXECUTIONS", 300));
}

/// Writes every parser's seeds for `cargo fuzz`, into the folder that `ERGOMETER_FUZZ_SEEDS` names, with the recorded run beside them.
#[test]
fn seeds_are_written_for_the_campaign() {
    let house = House::new();
    let kept = std::env::var_os("ERGOMETER_FUZZ_SEEDS").map(PathBuf::from);
    let into = kept.clone().unwrap_or_else(|| house.path("seeds"));
    let run = recorded(&house);
    for (path, bytes) in crate::house::tree(&run) {
        let path = into.join("run").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    for parser in PARSERS {
        let folder = into.join("corpus").join(parser.name);
        fs::create_dir_all(&folder).unwrap();
        for (i, seed) in (parser.seeds)(&run).iter().enumerate() {
            fs::write(folder.join(format!("seed-{i}")), seed).unwrap();
        }
        assert!(fs::read_dir(&folder).unwrap().count() > 0, "{} has no seed", parser.name);
    }
}

/// Ways to turn bytes into something, as sources spell them.
const READING: &[&str] = &[
    "serde_json::from_slice",
    "serde_json::from_str",
    "serde_json::from_reader",
    "toml::from_str",
    "DeTable::parse",
    "toml::Deserializer",
    "SafeTensors::",
    "csv::Reader",
    "read_to_string(",
    "text::json(",
    "text::read(",
    "text::open(",
    "text::read_text(",
    "Tensors::open(",
    "Cursor::new(&file",
    "impl FromStr for",
    "impl std::str::FromStr for",
];

/// Sources that read and are in no line of the table, with the reason.
const APART: &[(&str, &str)] = &[
    ("src/commands/convert.rs", "a text, any there may be; what splits cannot be fitted in tests/it/generate.rs"),
    ("src/compress/mod.rs", "one line of our own script; every way to fail in tests/it/compress.rs"),
    ("src/orphans.rs", "numbers of /proc/self"),
    ("src/foreign.rs", "what the child that probes a foreign library says; the tests beside it"),
    ("src/runner/scorer.rs", "lines of a scorer program; every way to fail in tests/it/arrays.rs"),
    ("src/meters/nvml/apart.rs", "what the child that reads NVML says; the tests beside it"),
    ("src/interrupt.rs", "one mask of /proc/self/status"),
    ("src/runner/ends.rs", "one count of /proc/vmstat"),
    ("src/environment.rs", "the first number of /proc/loadavg"),
    ("src/commands/list.rs", "the first lines of shipped suites, for `list`; what cannot be read is told as such"),
    ("src/commands/run.rs", "passes on the records that it has just written"),
    (
        "src/runner/resume.rs",
        "`environment.json` of a run that goes on, as the table's `environment`; the boot's number",
    ),
    ("src/train/mod.rs", "the training file inside of a checkpoint, as the table's `training`"),
    ("src/train/checkpoint.rs", "the tests of src/train"),
    (
        "src/dataset/parts.rs",
        "chunks that this program wrote, read as the table's `weights`; damaged ones in tests/it/dataset.rs",
    ),
    ("src/runner/mod.rs", "the number of the boot"),
    ("src/worker/given.rs", "the arrays that the harness has just written; tensors are read as the table's `weights`"),
    ("src/meters/rapl.rs", "the tests beside it, with counters of a fake tree"),
    ("src/meters/rapl/zone.rs", "the tests beside it, with counters of a fake tree"),
    ("kernels/src/ceiling/caches.rs", "one word of sysfs"),
    ("kernels/src/ceiling/barrier.rs", "one number of /proc"),
    ("kernels/src/blocks/format.rs", "a name out of a list; bytes of blocks: the tests beside it"),
    ("kernels/src/isa.rs", "one word of an environment variable, out of a list"),
];

#[test]
fn no_parser_is_missing_from_the_table() {
    let mut missing = Vec::new();
    let mut seen = 0;
    for folder in ["src", "suites/src", "reports/src", "kernels/src", "language/src"] {
        for (path, bytes) in crate::house::tree(&root().join(folder)) {
            let path = format!("{folder}/{}", path.display());
            let text = String::from_utf8_lossy(&bytes);
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let tests = path.ends_with("tests.rs")
                || path.contains("/tests/")
                || path.contains("fake_")
                || path.ends_with("respawn.rs");
            if tests
                || !path.ends_with(".rs")
                || !READING.iter().any(|r| code.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(r)))
            {
                continue;
            }
            seen += 1;
            let covered = PARSERS.iter().any(|p| p.covers.contains(&path.as_str()))
                || APART.iter().any(|(apart, _)| *apart == path);
            if !covered {
                missing.push(path);
            }
        }
    }
    assert!(seen > 15, "{seen} sources that read");
    let gone: Vec<&str> = PARSERS
        .iter()
        .flat_map(|p| p.covers)
        .chain(APART.iter().map(|(p, _)| p))
        .copied()
        .filter(|p| !root().join(p).is_file())
        .collect();
    assert!(gone.is_empty(), "in the table and not in the tree: {gone:?}");
    assert!(
        missing.is_empty(),
        "these read what others wrote, and no line of PARSERS (tests/fuzz/parsers.rs) covers them: {missing:?}\n\
         hint: add a line there, or to APART here with the reason"
    );
}
