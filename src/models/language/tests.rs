//! Recorded language models: logits of every token and the greedy continuation, on every engine that generates.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::*;
use crate::backends::language::{Feed, LanguageEngine, WantedLogits};
use crate::backends::session::argmax;
use crate::backends::{BACKENDS, Options};

const FAMILIES: [&str; 7] = ["llama", "gemma", "gemma3", "phi3", "mixtral", "falcon", "gpt-neo"];

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(family)
}

/// Recorded tokens by row, logits of each, and what follows the first row.
fn vectors(family: &str) -> (Vec<Vec<u32>>, Vec<f32>, Vec<u32>) {
    let bytes = std::fs::read(golden(family).join("vectors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<u32> {
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let shape = file.tensor("input_ids").unwrap().shape().to_vec();
    let rows = words("input_ids").chunks_exact(shape[1]).map(<[u32]>::to_vec).collect();
    let logits = words("logits").into_iter().map(f32::from_bits).collect();
    (rows, logits, words("greedy"))
}

/// Largest difference over the largest recorded value.
fn error(got: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(got.len(), wanted.len());
    let most = wanted.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    got.iter().zip(wanted).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / most
}

fn engines(model: &LanguageModel, threads: usize) -> Vec<(&'static str, Box<dyn LanguageEngine>)> {
    let load = |name: &str, precision: &str| {
        let backend = BACKENDS.iter().find(|b| b.name() == name).unwrap();
        let options = Options { precision: precision.into(), ..Options::f32(threads, 2) };
        (backend.name(), backend.load_language(model, &options).unwrap())
    };
    let names = [("reference", "f64"), ("native", "f32"), ("candle", "f32")];
    let built = names.into_iter().filter(|(name, _)| cfg!(feature = "candle") || *name != "candle");
    built.map(|(name, precision)| load(name, precision)).collect()
}

#[test]
fn every_recorded_family_gives_its_logits_and_goes_on_as_recorded() {
    for family in FAMILIES {
        let model = LanguageModel::load(&golden(family), None).unwrap_or_else(|e| panic!("{family}: {e}"));
        let (rows, logits, greedy) = vectors(family);
        let vocabulary = model.config().vocabulary;
        for (name, mut engine) in engines(&model, 2) {
            let feeds: Vec<Feed> = rows.iter().enumerate().map(|(slot, tokens)| Feed { slot, tokens }).collect();
            engine.feed(&feeds, WantedLogits::All).unwrap();
            let off = error(engine.logits(), &logits);
            assert!(off < 2e-5, "{family} on {name}: {off:e}");
            // the same prompt in pieces, in another slot's company
            engine.clear(0);
            for piece in rows[0].chunks(17) {
                engine.feed(&[Feed { slot: 0, tokens: piece }], WantedLogits::Last).unwrap();
            }
            let last = &logits[(rows[0].len() - 1) * vocabulary..rows[0].len() * vocabulary];
            assert!(error(engine.logits(), last) < 2e-5, "{family} on {name}, in pieces");
            assert_eq!((engine.past(0), engine.past(1)), (rows[0].len(), rows[1].len()));
            engine.copy(0, 1).unwrap();
            for slot in [0, 1] {
                let mut next = argmax(last);
                let mut told = vec![next];
                while told.len() < greedy.len() {
                    engine.feed(&[Feed { slot, tokens: &[next] }], WantedLogits::Last).unwrap();
                    next = argmax(engine.logits());
                    told.push(next);
                }
                assert_eq!(told, greedy, "{family} on {name}, slot {slot}");
            }
        }
    }
}

#[test]
fn what_cannot_be_fed_is_refused_and_changes_nothing() {
    // one with rotary positions, and one with a table of more of them than its caches have places
    let models = ["llama", "gpt-neo"].map(|family| LanguageModel::load(&golden(family), Some(8)).unwrap());
    for (name, mut engine) in models.iter().flat_map(|model| engines(model, 1)) {
        assert_eq!(engine.context(), 8);
        let tokens = [1, 2, 3, 4, 5, 6];
        for (feeds, why) in [
            (vec![Feed { slot: 2, tokens: &tokens }], "no slot 2"),
            (vec![Feed { slot: 0, tokens: &[] }], "no token"),
            (vec![Feed { slot: 0, tokens: &[160] }], "beyond the vocabulary"),
            (vec![Feed { slot: 0, tokens: &[1] }, Feed { slot: 0, tokens: &[2] }], "fed twice"),
            (vec![Feed { slot: 0, tokens: &[1; 9] }], "longer than the context of 8"),
        ] {
            let said = engine.feed(&feeds, WantedLogits::Last).unwrap_err().to_string();
            assert!(said.contains(why), "{name}: {said}");
            assert_eq!(engine.past(0), 0);
        }
        engine.feed(&[Feed { slot: 0, tokens: &tokens }], WantedLogits::Last).unwrap();
        assert!(
            engine.feed(&[Feed { slot: 0, tokens: &[1; 3] }], WantedLogits::Last).is_err(),
            "six and three are nine"
        );
        assert_eq!(engine.past(0), 6);
    }
    for context in [0, 257] {
        let said = LanguageModel::load(&golden("llama"), Some(context)).err().unwrap().to_string();
        assert!(said.contains("made for 1 to 256") && said.contains("hint: "), "{said}");
    }
}
