//! How long a large run takes from its folder to its report, and how much memory:
//! `cargo bench -p ergometer-reports --bench store`.
//!
//! In: nothing, or `-- CASES BLOCKS ITERATIONS` (default: 20 cases of 25 blocks of 10,000 iterations, which make 10
//! million samples). Out: seconds and peak memory after each stage, on stdout. Must not: be taken for more than this
//! machine at this moment.
//!
//! The run is synthetic and written first, by a process of its own: the peak is that of reading, summarising and
//! reporting alone.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use ergometer_reports::{Report, RunFolder, load, render};

#[allow(dead_code)]
#[path = "../tests/it/synthetic.rs"]
mod synthetic;

/// Answers of each case: the bench is of samples.
const EXAMPLES: u64 = 100;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [word, dir] = &words[..]
        && word == "read"
    {
        read(Path::new(dir));
        return ExitCode::SUCCESS;
    }
    let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let [cases, blocks, iterations] = match numbers[..] {
        [cases, blocks, iterations] => [cases, blocks, iterations],
        _ => [20, 25, 10_000],
    };
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let began = Instant::now();
    let bytes = write(folder.path(), cases, blocks as u32, iterations);
    println!(
        "written: {cases} cases of {blocks} blocks of {iterations} iterations, {:.1} million samples, {} MB of samples.csv, in {:.1} s",
        2e-6 * (cases * blocks * iterations) as f64,
        bytes / 1_000_000,
        began.elapsed().as_secs_f64()
    );
    let own = env::current_exe().expect("this program has a path");
    let ended = Command::new(own).arg("read").arg(folder.path()).status().expect("this program starts");
    ExitCode::from(u8::from(!ended.success()))
}

/// Writes a run case by case; gives the bytes of its samples.
fn write(dir: &Path, cases: u64, blocks: u32, iterations: u64) -> u64 {
    let folder = RunFolder::create(dir).expect("an empty folder");
    folder.write_environment(&synthetic::environment()).expect("it can be written");
    let mut bytes = 0;
    for seed in 0..cases {
        let model = &synthetic::MODELS[seed as usize % synthetic::MODELS.len()];
        let mut key = synthetic::key("sudoku-4x4", model, "native", 1);
        key.threads = 1 + (seed / 4) as u32;
        let run = synthetic::case_run(key, model, seed, blocks, iterations, EXAMPLES);
        let writer = folder.begin_case(&run.case.path, &run.case.id).expect("there is room for a case");
        let place = writer
            .finish(&run.case, &run.samples, &run.predictions, &run.attempts, &run.sums)
            .expect("it can be written");
        bytes += fs::metadata(place.join("samples.csv")).expect("it was written").len();
    }
    bytes
}

/// Reads, summarises and reports a run as `ergometer run` does at its end, and says what each of these took.
fn read(dir: &Path) {
    let began = Instant::now();
    let stage = |name: &str| {
        println!("{name:<11} {:6.2} s so far, peak memory {:5.0} MB", began.elapsed().as_secs_f64(), peak_mb());
    };
    let run = load(dir).expect("what was just written is read");
    let samples: usize = run.cases.iter().map(|c| c.samples.len()).sum();
    stage("read");
    let report = Report::new(run);
    stage("summarised");
    let folder = RunFolder::open(dir).expect("it is there");
    report.write_records(&folder).expect("records can be written");
    let formats: Vec<_> = ["html", "md", "svg"].into_iter().filter_map(render::format).collect();
    let files = render::write_in_run(&report, &formats, dir).expect("a report can be written");
    stage("reported");
    println!("{samples} samples, {} records, {} files of the report", report.records.len(), files.len());
}

/// Peak resident memory of this process, in millions of bytes; not a number where the system does not tell.
fn peak_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map_or(f64::NAN, |kib: f64| kib * 1024e-6)
}
