//! How near native's decoding comes to the speed at which weights are read. In: a GGUF file (`ERGOMETER_GGUF`), the widest or
//! the wished instruction set (`ERGOMETER_ISA`), numbers of threads (`ERGOMETER_THREADS`, `1,2`). Out: for each number of threads
//! the read rate of a working set as large as the weights of a token, tokens per second of decoding (the best and the median of
//! tokens one by one), the share of what reading allows, and tokens per second of prompts. Asserts nothing.
//!
//! `ERGOMETER_GGUF=model.gguf cargo bench --bench decode`

use std::time::Instant;

use ergometer::backends::language::{Feed, LanguageEngine, WantedLogits};
use ergometer::backends::{Backend, Options, native::Native};
use ergometer::models::language::LanguageModel;
use ergometer_kernels::read_ceiling;

/// Tokens of a prompt, and of what follows it.
const PROMPT: usize = 512;
const DECODED: usize = 64;
const REPEATS: usize = 5;

fn main() {
    let Some(path) = std::env::var_os("ERGOMETER_GGUF") else {
        return println!("ERGOMETER_GGUF is not set: nothing to measure");
    };
    let threads = std::env::var("ERGOMETER_THREADS").unwrap_or_else(|_| "1,2".into());
    let precision = std::env::var("ERGOMETER_PRECISION").unwrap_or_else(|_| "stored".into());
    let model = LanguageModel::load(path.as_ref(), Some(2 * PROMPT)).unwrap_or_else(|e| panic!("{e}"));
    for threads in threads.split(',').map(|n| n.trim().parse().expect("a number of threads")) {
        measure(&model, &precision, threads);
    }
}

fn measure(model: &LanguageModel, precision: &str, threads: usize) {
    let options = Options { precision: precision.into(), ..Options::f32(threads, 1) };
    let begun = Instant::now();
    let mut engine = Native.load_language(model, &options).unwrap_or_else(|e| panic!("{e}"));
    let (held, loaded) = (engine.facts().weight_bytes, begun.elapsed().as_secs_f64());
    let bytes = model.decode_bytes(None);
    let isa = Native.describe(&options).map_or_else(|e| e.to_string(), |d| d.isa);
    println!(
        "{isa}, {threads} threads, {precision}: loaded in {loaded:.2} s, {:.1} MB held of {:.1} MB stored, {:.1} MB read a token",
        held as f64 / 1e6,
        model.decoder().stored_bytes() as f64 / 1e6,
        bytes / 1e6
    );
    let prompt: Vec<u32> = (0..PROMPT).map(|i| (i * 7919 % model.config().vocabulary) as u32).collect();
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let mut read = Vec::new();
    for _ in 0..REPEATS {
        // beside the work that it bounds, since neighbours on the machine come and go
        match read_ceiling(threads, bytes as usize) {
            Ok(ceiling) => read.push(ceiling.best),
            Err(none) => println!("no read rate: {}", none.reason),
        }
        prefill.push(seconds(|| feed(&mut *engine, &prompt)) / PROMPT as f64);
        engine.clear(0);
        feed(&mut *engine, &prompt[..32]);
        decode.extend((0..DECODED).map(|i| seconds(|| feed(&mut *engine, &prompt[i..=i]))));
        engine.clear(0);
    }
    let best = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
    let rate = read.iter().copied().fold(0.0, f64::max);
    let share = |seconds: f64| 100.0 * bytes / seconds / rate;
    let (fastest, median) = (best(&decode), median_of(&mut decode));
    println!("  read {:.1} GB/s: at most {:.0} tokens/s", rate / 1e9, rate / bytes);
    println!(
        "  decode {:.1} tokens/s at best ({:.0} % of that), {:.1} in the middle ({:.0} %)",
        1.0 / fastest,
        share(fastest),
        1.0 / median,
        share(median)
    );
    println!("  prefill of {PROMPT}: {:.0} tokens/s at best", 1.0 / best(&prefill));
}

fn feed(engine: &mut dyn LanguageEngine, tokens: &[u32]) {
    engine.feed(&[Feed { slot: 0, tokens }], WantedLogits::Last).unwrap_or_else(|e| panic!("{e}"));
}

fn seconds(f: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    f();
    begun.elapsed().as_secs_f64()
}

fn median_of(all: &mut [f64]) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}
