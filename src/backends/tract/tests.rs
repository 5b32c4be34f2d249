//! The tract engine against the recorded vectors and against itself: padding, rows that come and go, options, what a plan tells.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::engine::ladder;
use super::*;
use crate::backends::reference::Reference;
use crate::backends::session::Session;
use crate::graph::cost::Workload;
use crate::parity::{Vectors, error};

const GOLDEN: [&str; 3] = ["trm-att-d64", "trm-mlp-d64", "hrm-d64"];

fn options(capacity: usize, extra: &[(&str, &str)]) -> Options {
    let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Options { extra, ..Options::f32(1, capacity) }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> (Model, Vectors) {
    let model = Model::load(&folder(name)).unwrap();
    let vectors = Vectors::read(&folder(name).join("vectors.safetensors"), &model.interface).unwrap();
    (model, vectors)
}

/// A small recursive net, wide enough for the kernels of wide machines.
fn tiny() -> Model {
    let config = json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 32, "num_heads": 2,
        "expansion": 1.0, "H_cycles": 2, "L_cycles": 2, "L_layers": 1});
    Model::random(&config, 5).unwrap()
}

const ROWS: [[u32; 4]; 3] = [[0, 1, 2, 3], [4, 4, 1, 0], [2, 3, 0, 1]];

fn holds_to_the_vectors(name: &str, threads: usize, extra: &[(&str, &str)]) {
    let (model, vectors) = golden(name);
    let engine = Tract.load(&model, &Options { threads, ..options(vectors.batch, extra) }).unwrap();
    let mut session = Session::new(engine, &model.interface, vectors.batch).unwrap();
    let got = vectors.step_by_step(&mut session, &model.interface).unwrap();
    for (k, (got, want)) in got.iter().zip(&vectors.steps).enumerate() {
        assert!(got.error(want) < 1e-4, "{name} {extra:?}: step {k} is off by {}", got.error(want));
    }
    let (steps, rows) = vectors.halting_run(&mut session, &model.interface).unwrap();
    let halts = vectors.first_halt.clone().unwrap();
    assert_eq!(steps, halts, "{name} {extra:?}");
    for (row, got) in rows.iter().enumerate() {
        let want = vectors.row(halts[row].min(vectors.steps.len() as u32), row);
        assert!(error(got, want) < 1e-4, "{name} {extra:?}: row {row}, which halted");
    }
}

#[test]
fn golden_vectors_step_by_step_and_with_halted_rows_dropped() {
    for name in GOLDEN {
        holds_to_the_vectors(name, 1, &[("opset", "23"), ("shapes", "symbolic")]);
    }
    for (threads, extra) in [(2, &[][..]), (1, &[("ladder", "capacity"), ("opset", "23")])] {
        holds_to_the_vectors("trm-att-d64", threads, extra);
    }
}

#[test]
fn rows_come_and_go_without_touching_each_other() {
    let model = tiny();
    for extra in [&[][..], &[("ladder", "capacity")], &[("shapes", "symbolic")]] {
        let mut engine = Tract.load(&model, &options(3, extra)).unwrap();
        engine.admit(0, 3, &[&ROWS.concat()]).unwrap();
        engine.step(3).unwrap();
        engine.keep(&[1]).unwrap();
        engine.admit(1, 1, &[&ROWS[0]]).unwrap();
        engine.step(2).unwrap();
        let mixed = engine.output(0).to_vec();
        for (row, steps, place) in [(1, 2, 0), (0, 1, 1)] {
            let mut alone = Tract.load(&model, &options(1, &[])).unwrap();
            alone.admit(0, 1, &[&ROWS[row]]).unwrap();
            (0..steps).for_each(|_| alone.step(1).unwrap());
            let n = alone.output(0).len();
            assert!(error(&mixed[place * n..(place + 1) * n], alone.output(0)) < 1e-5, "{extra:?}: row {row} alone");
        }
        // the state of one row is set, that of the other stays, and both go on from there
        let before = engine.state(0, 2).unwrap();
        let n = before.len() / 2;
        engine.set_state(0, 1, &vec![0.5; n]).unwrap();
        assert_eq!(engine.state(0, 2).unwrap(), [&vec![0.5; n][..], &before[n..]].concat(), "{extra:?}");
        // a step of fewer rows than are live leaves the others as they are
        engine.step(1).unwrap();
        let after = engine.state(0, 2).unwrap();
        assert!(after[n..] == before[n..] && after[..n] != vec![0.5; n], "{extra:?}");
        engine.keep(&[]).unwrap();
        engine.admit(0, 2, &[&ROWS[..2].concat()]).unwrap();
        engine.step(2).unwrap();
        let mut fresh = Tract.load(&model, &options(3, extra)).unwrap();
        fresh.admit(0, 2, &[&ROWS[..2].concat()]).unwrap();
        fresh.step(2).unwrap();
        assert_eq!(engine.output(0), fresh.output(0), "{extra:?}: a used engine starts as a fresh one does");
        assert!(engine.set_state(0, 9, &[]).is_err() && engine.state(0, 9).is_err());
    }
}

#[test]
fn padding_is_charged() {
    assert_eq!((ladder(1, true), ladder(6, true), ladder(8, true)), (vec![1], vec![1, 2, 4, 6], vec![1, 2, 4, 8]));
    assert_eq!(ladder(6, false), [6]);
    let model = tiny();
    let cost = model.graph().unwrap().cost(&Workload::one());
    let needed = cost.flops_admit + cost.flops_steps;
    let engine = Tract.load(&model, &options(6, &[])).unwrap();
    let executed = |rows| engine.flops_executed(rows).expect("all products are seen");
    for rows in 1..=6 {
        assert!(executed(rows) >= needed * rows as f64, "{rows}: less than the mathematics needs");
    }
    assert!(executed(3) == executed(4) && executed(5) == executed(6) && executed(4) < executed(6), "by rung");
    assert_eq!((engine.flops_admitted(6), engine.flops_executed(7)), (Some(0.0), None));
    let whole = Tract.load(&model, &options(6, &[("ladder", "capacity")])).unwrap();
    assert_eq!(whole.flops_executed(1), Some(executed(6)));
    let open = Tract.load(&model, &options(6, &[("shapes", "symbolic")])).unwrap();
    assert!(open.flops_executed(3).unwrap() < open.flops_executed(4).unwrap());
}

#[test]
fn every_rung_holds_its_own_weights() {
    let model = tiny();
    let bytes = |extra| Tract.load(&model, &options(4, extra)).unwrap().facts().weight_bytes;
    let parameters: usize = model.graph().unwrap().params.iter().map(|p| 4 * p.elements()).sum();
    let (one, all) = (bytes(&[("ladder", "capacity")]), bytes(&[]));
    assert!(one as usize > parameters / 2, "{one} bytes for {parameters} of parameters");
    assert!(all > 2 * one && all < 4 * one, "three plans hold {all}, one holds {one}");
}

#[test]
fn what_a_plan_runs_is_told() {
    let engine = Tract.load(&tiny(), &options(2, &[])).unwrap();
    let products = engine.report().remove("products").unwrap();
    assert!(products.contains("mmm_f32") && !products.contains("bf16"), "{products}");
}

#[test]
fn a_mixture_of_experts_computes_all_of_them_and_says_so() {
    let config = json!({"model_type": "moe-encoder", "seq_len": 9, "vocab_size": 7, "hidden_size": 16, "num_layers": 2, "num_heads": 2,
        "expansion": 1.0, "pos_encodings": "learned", "num_experts": 5, "experts_per_token": 2, "expert_inner": 24});
    let model = Model::random(&config, 5).unwrap();
    let tokens: Vec<u32> = (0..27).map(|i| i * 5 % 7).collect();
    let judge = Options { precision: "f64".into(), ..options(3, &[]) };
    let mut want = Reference.load(&model, &judge).unwrap();
    let mut got = Tract.load(&model, &options(3, &[])).unwrap();
    for engine in [&mut want, &mut got] {
        let ids = [0; 3];
        engine.admit(0, 3, &[&tokens[..], &ids[..]][..model.graph().unwrap().inputs.len()]).unwrap();
        engine.step(3).unwrap();
    }
    assert!(error(got.output(0), want.output(0)) < 1e-5);
    let routed = model.graph().unwrap().cost(&Workload::one());
    assert!(got.flops_executed(3).unwrap() > 3.0 * 1.5 * (routed.flops_admit + routed.flops_steps));
}

#[test]
fn options_are_written_out_and_others_refused() {
    let described = Tract.describe(&options(4, &[])).unwrap();
    let all = [("ladder", "powers"), ("opset", "17"), ("shapes", "static")];
    assert!(described.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(all) && described.shapes == "static");
    let open = Tract.describe(&options(4, &[("shapes", "symbolic")])).unwrap();
    assert!(open.shapes == "symbolic" && !open.options.contains_key("ladder"));
    for (extra, hint) in [
        (&[("shapes", "open")][..], "static or symbolic"),
        (&[("ladder", "steep")], "powers or capacity"),
        (&[("opset", "18")], "17 or 23"),
        (&[("spin", "no")], "shapes, ladder and opset"),
        (&[("shapes", "symbolic"), ("ladder", "powers")], "static shapes only"),
    ] {
        let Err(BackendError::Failed(message)) = Tract.describe(&options(1, extra)) else { panic!("{extra:?}") };
        assert!(message.contains(hint) && message.contains("hint: "), "{message}");
    }
    for capacity in [1, 4] {
        let settings = Tract.settings(&options(capacity, &[]));
        assert!(settings[0].is_empty());
        for extra in settings {
            assert!(Tract.describe(&Options { extra, ..options(capacity, &[]) }).is_ok());
        }
    }
}

#[test]
fn a_language_model_has_open_lengths_and_is_of_f32() {
    let language = |extra| Options { language: true, ..options(2, extra) };
    let described = Tract.describe(&language(&[("opset", "23")])).unwrap();
    assert_eq!((described.shapes, described.options["opset"].as_str()), ("symbolic", "23"));
    assert!(Tract.settings(&language(&[])).iter().all(|s| !s.contains_key("shapes")));
    let Err(BackendError::Failed(message)) = Tract.describe(&language(&[("shapes", "static")])) else { panic!() };
    assert!(message.contains("`shapes = static`") && message.contains("hint: "), "{message}");
    let bf16 = Options { precision: "bf16".into(), ..language(&[]) };
    assert!(matches!(Tract.describe(&bf16), Err(BackendError::Unavailable(_))));
    assert_eq!(Tract.language_precisions(), ["f32"]);
}

#[test]
fn bf16_runs_on_amx_or_says_why_not() {
    let bf16 = |extra| Options { precision: "bf16".into(), ..options(2, extra) };
    let Err(BackendError::Unavailable(fixed)) = Tract.describe(&bf16(&[("shapes", "static")])) else {
        panic!("refused")
    };
    assert!(fixed.reason.contains("f32 operands"), "{}", fixed.reason);
    let f16 = Options { precision: "f16".into(), ..options(2, &[]) };
    assert!(matches!(Tract.load(&tiny(), &f16), Err(BackendError::Unavailable(_))));
    assert_eq!(Tract.environment(&bf16(&[])), [("TRACT_AMX_BF16", "1".to_owned())]);
    assert_eq!(Tract.environment(&options(2, &[])), [("TRACT_AMX_BF16", "0".to_owned())]);
    if !has(Isa::X86_64AmxBf16) {
        let Err(BackendError::Unavailable(why)) = Tract.load(&tiny(), &bf16(&[])) else { panic!("no AMX here") };
        assert!(why.reason.contains("AMX-BF16") && why.hint.is_some());
        return;
    }
    for name in GOLDEN {
        let (model, vectors) = golden(name);
        let engine = Tract.load(&model, &Options { precision: "bf16".into(), ..options(vectors.batch, &[]) }).unwrap();
        assert!(engine.report().contains_key("bf16-products"));
        let mut session = Session::new(engine, &model.interface, vectors.batch).unwrap();
        let got = vectors.step_by_step(&mut session, &model.interface).unwrap();
        let worst = got.iter().zip(&vectors.steps).map(|(g, w)| g.error(w)).fold(0.0, f64::max);
        assert!(worst < 0.03, "{name}: off by {worst}");
        assert!(worst > 1e-5, "{name}: off by {worst} only, this is f32");
    }
}

#[test]
fn a_foreign_instruction_set_is_found_before_tract_panics() {
    assert_eq!(foreign("-avx512f, +nonsense"), if cfg!(target_arch = "x86_64") { None } else { Some("-avx512f") });
    assert!(foreign("+avx2,-neon").is_some(), "no machine has both");
    assert_eq!(foreign("é"), Some("é"));
}

#[test]
fn the_recorded_version_is_that_of_the_lock_file() {
    let lock = include_str!("../../../Cargo.lock");
    for name in ["tract-onnx", "tract-linalg"] {
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{VERSION}\"\n")), "{name}");
    }
}
