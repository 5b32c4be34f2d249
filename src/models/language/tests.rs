//! Recorded language models: logits of every token and the greedy continuation, on every engine that generates.

use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::*;
use crate::backends::language::{Feed, LanguageEngine, WantedLogits};
use crate::backends::session::argmax;
use crate::backends::{BACKENDS, Backend, Options};

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
    let load = |backend: &'static dyn Backend, opset: Option<&str>| {
        let precision = if backend.name() == "reference" { "f64" } else { "f32" };
        let extra = opset.map(|opset| ("opset".to_owned(), opset.to_owned())).into_iter().collect();
        let options = Options { precision: precision.into(), extra, ..Options::f32(threads, 2) };
        (backend.name(), backend.load_language(model, &options).unwrap_or_else(|e| panic!("{}: {e}", backend.name())))
    };
    let mut all = Vec::new();
    for backend in BACKENDS.iter().copied() {
        assert!(backend.speaks(), "{}", backend.name());
        if let Err(lacking) = backend.probe() {
            // past the test harness's capture
            let _ = writeln!(std::io::stderr(), "SKIPPED: backend {}: {}", backend.name(), lacking.reason);
            continue;
        }
        all.push(load(backend, None));
        if ["onnxruntime", "tract"].contains(&backend.name()) {
            all.push(load(backend, Some("23")));
        }
    }
    all
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
fn what_a_sequence_computes_does_not_depend_on_its_company() {
    for family in ["gemma3", "mixtral", "gpt-neo"] {
        let model = LanguageModel::load(&golden(family), None).unwrap();
        let (rows, logits, _) = vectors(family);
        let vocabulary = model.config().vocabulary;
        let recorded = |row: usize, at: usize| {
            let token = row * rows[0].len() + at;
            &logits[token * vocabulary..(token + 1) * vocabulary]
        };
        for (name, mut engine) in engines(&model, 1) {
            // where each of two slots is: its row, and the tokens of it that were fed
            let mut places = [(0, 0), (1, 0)];
            let go_on =
                |engine: &mut dyn LanguageEngine, places: &mut [(usize, usize); 2], lengths: &[(usize, usize)]| {
                    let feeds = lengths.iter().map(|&(slot, n)| {
                        let (row, fed) = places[slot];
                        Feed { slot, tokens: &rows[row][fed..fed + n] }
                    });
                    engine.feed(&feeds.collect::<Vec<_>>(), WantedLogits::Last).unwrap();
                    assert_eq!(engine.logits().len(), lengths.len() * vocabulary);
                    for (i, &(slot, n)) in lengths.iter().enumerate() {
                        places[slot].1 += n;
                        let (row, fed) = places[slot];
                        assert_eq!(engine.past(slot), fed);
                        let off = error(&engine.logits()[i * vocabulary..(i + 1) * vocabulary], recorded(row, fed - 1));
                        assert!(off < 2e-5, "{family} on {name}: slot {slot} after {fed} tokens of row {row}: {off:e}");
                    }
                };
            // prompts of unlike length, then token by token together, in either order, and alone
            go_on(&mut *engine, &mut places, &[(0, 9), (1, 14)]);
            (0..3).for_each(|_| go_on(&mut *engine, &mut places, &[(0, 1), (1, 1)]));
            go_on(&mut *engine, &mut places, &[(1, 1), (0, 1)]);
            (0..2).for_each(|_| go_on(&mut *engine, &mut places, &[(1, 1)]));
            let held = engine.facts().state_bytes;
            assert!(held > 0, "{family} on {name}");
            // another sequence in the place of one that goes on in company
            go_on(&mut *engine, &mut places, &[(0, 1), (1, 1)]);
            engine.clear(0);
            places[0] = (1, 0);
            go_on(&mut *engine, &mut places, &[(1, 1), (0, 4)]);
            (0..2).for_each(|_| go_on(&mut *engine, &mut places, &[(0, 1), (1, 1)]));
            // a copy goes on, and so does what it was copied from
            engine.copy(1, 0).unwrap();
            places[0] = places[1];
            (0..2).for_each(|_| go_on(&mut *engine, &mut places, &[(0, 1), (1, 1)]));
            go_on(&mut *engine, &mut places, &[(0, 2)]);
            engine.clear(1);
            go_on(&mut *engine, &mut places, &[(0, 1)]);
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

#[test]
fn engines_let_tokens_meet_as_many_experts_as_they_are_told_to() {
    let model = LanguageModel::load(&golden("mixtral"), None).unwrap();
    let (rows, recorded, _) = vectors("mixtral");
    let feeds = [Feed { slot: 0, tokens: &rows[0] }];
    let recorded = &recorded[..rows[0].len() * model.config().vocabulary];
    let mut wanted = Vec::new();
    for (name, mut engine) in engines(&model, 1) {
        assert!(!engine.activate_experts(Some(5)) && !engine.activate_experts(Some(0)), "{name}: there are four");
        if !engine.activate_experts(Some(4)) {
            assert!(!["reference", "native", "candle"].contains(&name), "{name}");
            continue;
        }
        engine.feed(&feeds, WantedLogits::All).unwrap();
        if wanted.is_empty() {
            wanted = engine.logits().to_vec();
            assert!(error(&wanted, recorded) > 1e-3, "two experts are another net than four");
        }
        assert!(error(engine.logits(), &wanted) < 2e-5, "{name}");
        engine.clear(0);
        assert!(engine.activate_experts(None), "{name}");
        engine.feed(&feeds, WantedLogits::All).unwrap();
        assert!(error(engine.logits(), recorded) < 2e-5, "{name}");
    }
    let dense = LanguageModel::load(&golden("llama"), None).unwrap();
    for (name, mut engine) in engines(&dense, 1) {
        assert!(!engine.activate_experts(Some(1)) && engine.activate_experts(None), "{name}");
    }
}
