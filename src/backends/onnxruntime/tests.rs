//! Options without the library; with it, the recorded vectors, and rows that come and go.

use std::io::Write;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::json;

use super::*;
use crate::backends::session::{Rule, Session};
use crate::models::to_f32;

fn options(capacity: usize, extra: &[(&str, &str)]) -> Options {
    let extra = extra.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Options { extra, ..Options::f32(1, capacity) }
}

/// Whether this machine has the library; if not, that is said past the test harness's capture.
fn ready() -> bool {
    let lacking = OnnxRuntime.probe().err();
    if let Some(lacking) = &lacking {
        let _ = writeln!(std::io::stderr(), "SKIPPED: backend onnxruntime: {}", lacking.reason);
    }
    lacking.is_none()
}

#[test]
fn defaults_are_written_out_and_unknown_words_name_the_known_ones() {
    let described = OnnxRuntime.describe(&options(1, &[])).unwrap();
    let all: Vec<(&str, &str)> = described.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let defaults =
        [("experts", "all"), ("opset", "17"), ("optimization", "all"), ("shapes", "symbolic"), ("spinning", "true")];
    assert_eq!((all.as_slice(), described.shapes), (&defaults[..], "symbolic"));
    let described = OnnxRuntime.describe(&options(4, &[("shapes", "static"), ("opset", "23")])).unwrap();
    assert_eq!((described.shapes, described.options["opset"].as_str()), ("static", "23"));
    assert_eq!(
        OnnxRuntime.describe(&Options { extra: described.options.clone(), ..options(4, &[]) }).unwrap(),
        described
    );
    for (given, parts) in [
        (("spining", "true"), ["`spining`", "spinning"]),
        (("spinning", "yes"), ["`yes`", "true, false"]),
        (("opset", "18"), ["`18`", "17, 23"]),
        (("optimization", "3"), ["`3`", "disabled"]),
    ] {
        let error = OnnxRuntime.describe(&options(1, &[given])).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)) && error.contains("\nhint: "), "{error}");
    }
}

#[test]
fn a_language_model_has_open_lengths_and_routed_experts_whatever_the_default_of_others() {
    let language = |extra: &[(&str, &str)]| Options { language: true, ..options(1, extra) };
    let described = OnnxRuntime.describe(&language(&[])).unwrap();
    assert_eq!((described.shapes, described.options["experts"].as_str()), ("symbolic", "routed"));
    assert!(!described.options.contains_key("shapes"));
    let refused = OnnxRuntime.describe(&language(&[("shapes", "static")])).unwrap_err().to_string();
    assert!(refused.contains("`shapes`") && refused.contains("hint: "), "{refused}");
    let settings = OnnxRuntime.settings(&language(&[]));
    let first = OnnxRuntime.describe(&Options { extra: settings[0].clone(), ..language(&[]) }).unwrap();
    assert_eq!((settings.len(), first), (4, described));
}

#[test]
fn all_experts_of_a_language_model_give_what_routed_ones_give() {
    if !ready() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mixtral");
    let model = LanguageModel::load(&folder, Some(32)).unwrap();
    let [all, routed] = ["all", "routed"].map(|experts| {
        let mut engine = OnnxRuntime.load_language(&model, &options(1, &[("experts", experts)])).unwrap();
        let feed = crate::backends::language::Feed { slot: 0, tokens: &[1, 5, 9, 3, 7] };
        engine.feed(&[feed], crate::backends::language::WantedLogits::All).unwrap();
        engine.logits().to_vec()
    });
    assert_close(&all, &routed, 1e-5, "experts");
    let bf16 = Options { precision: "bf16".into(), ..options(1, &[]) };
    assert!(matches!(OnnxRuntime.load_language(&model, &bf16), Err(BackendError::Unavailable(_))));
}

#[test]
fn a_named_library_is_part_of_the_case_and_reaches_the_worker() {
    let named = options(1, &[("library", "libs/libonnxruntime.so.1.30.0")]);
    assert_eq!(OnnxRuntime.describe(&named).unwrap().options["library"], "libs/libonnxruntime.so.1.30.0");
    let set = OnnxRuntime.environment(&named);
    assert_eq!(set, [("ERGOMETER_ONNXRUNTIME", "libs/libonnxruntime.so.1.30.0".to_string())]);
    assert!(OnnxRuntime.environment(&options(1, &[])).is_empty());
}

#[test]
fn settings_worth_trying_are_few_different_and_begin_with_the_default() {
    let default = OnnxRuntime.describe(&options(1, &[])).unwrap().options;
    for (threads, count) in [(1, 8), (2, 16)] {
        for extra in [BTreeMap::new(), default.clone()] {
            let settings = OnnxRuntime.settings(&Options { threads, extra, ..options(1, &[]) });
            let described = |extra: &BTreeMap<String, String>| {
                OnnxRuntime.describe(&Options { threads, extra: extra.clone(), ..options(1, &[]) }).unwrap().options
            };
            let all: std::collections::BTreeSet<_> = settings.iter().map(described).collect();
            assert_eq!((settings.len(), all.len()), (count, count), "{threads} threads");
            assert_eq!(described(&settings[0]), default);
        }
    }
    let basic = OnnxRuntime.settings(&options(1, &[("optimization", "basic"), ("opset", "23")]));
    assert!(basic.iter().all(|s| s["optimization"] == "basic"), "what is not searched stays");
}

#[test]
fn the_recorded_version_is_that_of_the_lock_file() {
    let lock = include_str!("../../../Cargo.lock");
    assert!(lock.contains(&format!("name = \"ort\"\nversion = \"{ORT}\"\n")), "{ORT}");
}

#[test]
fn a_library_that_is_none_is_unavailable_and_ends_nothing() {
    // in a process of its own, since a process loads one library: this test once more
    let name = "backends::onnxruntime::tests::a_library_that_is_none_is_unavailable_and_ends_nothing";
    if std::env::var_os("ERGOMETER_TEST_AGAIN").is_some() {
        let lacking = OnnxRuntime.probe().unwrap_err();
        assert!(lacking.reason.contains("cannot be used"), "{lacking:?}");
        assert!(lacking.hint.unwrap().contains("ergometer fetch onnxruntime"));
        let model = Model::random(&config(), 5).unwrap();
        assert!(matches!(OnnxRuntime.load(&model, &options(1, &[])), Err(BackendError::Unavailable(_))));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libonnxruntime.so.1.31.1");
    std::fs::write(&file, "not a library").unwrap();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name]).env("ERGOMETER_TEST_AGAIN", "1").env("ERGOMETER_ONNXRUNTIME", &file);
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn config() -> serde_json::Value {
    json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_heads": 2,
        "expansion": 1.0, "H_cycles": 2, "L_cycles": 2, "L_layers": 1})
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = got.iter().zip(want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(largest > 0.0 && error <= tolerance * largest, "{what}: error {error} of {largest}");
}

/// Recorded inputs and outputs of a golden net.
struct Vectors(Vec<u8>);

impl Vectors {
    fn of(folder: &Path) -> Self {
        Self(std::fs::read(folder.join("vectors.safetensors")).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        to_f32(view.dtype(), view.data()).unwrap()
    }

    fn whole(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    fn steps(&self) -> u32 {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().iter().filter(|n| n.starts_with("logits.")).count() as u32
    }
}

#[test]
fn golden_vectors_step_by_step_and_with_halted_rows_dropped() {
    if !ready() {
        return;
    }
    for name in ["trm-att-d64", "trm-mlp-d64", "hrm-d64"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let model = Model::load(&folder).unwrap();
        let vectors = Vectors::of(&folder);
        let (inputs, ids, halts) =
            (vectors.whole("inputs"), vectors.whole("puzzle_identifiers"), vectors.whole("first_halt"));
        let rows = ids.len();
        let slots: Vec<usize> = (0..rows).collect();
        let recorded = |step: u32, slot: usize| {
            let logits = vectors.floats(&format!("logits.{step}"));
            let len = logits.len() / rows;
            logits[slot * len..(slot + 1) * len].to_vec()
        };
        for extra in [&[][..], &[("shapes", "static"), ("opset", "23")]] {
            let engine = OnnxRuntime.load(&model, &options(rows, extra)).unwrap();
            let mut session = Session::new(engine, &model.interface, rows).unwrap();
            session.admit(&slots, &[&inputs, &ids]).unwrap();
            for step in 1..=vectors.steps() {
                session.advance(1, Rule::Fixed).unwrap();
                for &slot in &slots {
                    let what = format!("{name} {extra:?} step {step} row {slot}");
                    assert_close(session.output(0, slot), &recorded(step, slot), 1e-4, &what);
                }
            }
            session.retain(&[]).unwrap();
            session.admit(&slots, &[&inputs, &ids]).unwrap();
            session.advance(vectors.steps(), Rule::Halt).unwrap();
            for &slot in &slots {
                let state = session.slot(slot);
                let first = if state.halted { state.steps } else { vectors.steps() + 1 };
                assert_eq!(first, halts[slot], "{name} {extra:?}: halting step of row {slot}");
                let what = format!("{name} {extra:?} halted row {slot}");
                assert_close(session.output(0, slot), &recorded(first.min(vectors.steps()), slot), 1e-4, &what);
            }
        }
    }
}

#[test]
fn rows_come_and_go_without_touching_each_other() {
    if !ready() {
        return;
    }
    let model = Model::random(&config(), 5).unwrap();
    let rows = [[0u32, 1, 2, 3], [4, 4, 1, 0], [2, 3, 0, 1]];
    for extra in [&[][..], &[("shapes", "static")]] {
        let mut engine = OnnxRuntime.load(&model, &options(3, extra)).unwrap();
        engine.admit(0, 3, &[&rows.concat()]).unwrap();
        engine.step(3).unwrap();
        engine.keep(&[1]).unwrap();
        engine.admit(1, 1, &[&rows[0]]).unwrap();
        engine.step(2).unwrap();
        let mixed = engine.output(0).to_vec();
        for (row, steps, place) in [(1, 2, 0), (0, 1, 1)] {
            let mut alone = OnnxRuntime.load(&model, &options(1, extra)).unwrap();
            alone.admit(0, 1, &[&rows[row]]).unwrap();
            (0..steps).for_each(|_| alone.step(1).unwrap());
            let n = alone.output(0).len();
            assert_close(&mixed[place * n..(place + 1) * n], alone.output(0), 1e-5, "a row alone");
        }
        // a step of the first row leaves the states of the second
        let before = engine.state(0, 2).unwrap();
        engine.step(1).unwrap();
        let after = engine.state(0, 2).unwrap();
        let half = before.len() / 2;
        assert!(before[..half] != after[..half] && before[half..] == after[half..]);
        engine.keep(&[]).unwrap();
        engine.admit(0, 2, &[&rows[..2].concat()]).unwrap();
        let state = engine.state(0, 2).unwrap();
        engine.set_state(0, 1, &vec![0.5; state.len() / 2]).unwrap();
        let set = engine.state(0, 2).unwrap();
        assert!(set[..half].iter().all(|&v| v == 0.5) && set[half..] == state[half..]);
    }
}

#[test]
fn what_is_executed_is_admission_and_step_of_every_row_in_every_step() {
    if !ready() {
        return;
    }
    let model = Model::random(&config(), 5).unwrap();
    let mut session = Session::new(OnnxRuntime.load(&model, &options(2, &[])).unwrap(), &model.interface, 2).unwrap();
    session.admit(&[0, 1], &[&[0, 1, 2, 3, 4, 4, 1, 0]]).unwrap();
    session.advance(2, Rule::Fixed).unwrap();
    let cost = model.graph().unwrap().cost(&crate::graph::cost::Workload::one());
    let least = 4.0 * (cost.flops_admit + cost.flops_steps);
    let executed = session.flops_executed().unwrap();
    assert!(executed >= least && executed < 2.0 * least, "{executed} of {least}");
}

#[test]
fn other_precisions_are_unavailable() {
    let model = Model::random(&config(), 5).unwrap();
    let bf16 = Options { precision: "bf16".into(), ..options(1, &[]) };
    assert!(matches!(OnnxRuntime.load(&model, &bf16), Err(BackendError::Unavailable(_))));
}
