//! `ergometer parity` on the golden folders: recorded outputs of the released architectures.
//!
//! In: tests/golden. Out: exit codes and errors. Must not: take the interpreter through more than it can do in seconds.

use std::fs;

use ergometer::backends::BACKENDS;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::house::{Ended, House, ready, root};

const GOLDEN: [&str; 3] = ["hrm-d64", "trm-att-d64", "trm-mlp-d64"];

fn parity(house: &House, folder: &str, backend: &str, more: &[&str]) -> Ended {
    let model = root().join("tests/golden").join(folder);
    let vectors = model.join("vectors.safetensors");
    let mut args = vec![
        "parity",
        "--model",
        model.to_str().unwrap(),
        "--vectors",
        vectors.to_str().unwrap(),
        "--backend",
        backend,
    ];
    args.extend(more);
    house.ergometer(&args)
}

#[test]
fn every_backend_reproduces_the_recorded_nets() {
    let house = House::new();
    for backend in ready().iter().map(|b| b.name()) {
        // the interpreter is slow, and its own tests go through the other two
        let folders = if backend == "reference" { &GOLDEN[..1] } else { &GOLDEN[..] };
        for folder in folders {
            let ended = parity(&house, folder, backend, &["--json"]);
            ended.exits(0);
            let found: Value = serde_json::from_str(&ended.stdout).unwrap();
            let steps = found["step_by_step"].as_array().unwrap();
            assert!(steps.len() > 1, "{backend} {folder}");
            assert!(steps.iter().all(|e| e.as_f64().unwrap() <= 1e-4), "{backend} {folder}: {steps:?}");
            assert_eq!(found["halts_as_recorded"], true, "{backend} {folder}");
            assert_eq!(found["ok"], true);
        }
    }
}

#[test]
fn no_backend_is_exact_and_parity_can_fail() {
    let house = House::new();
    let quick = BACKENDS.iter().map(|b| b.name()).find(|b| *b != "reference").unwrap_or("reference");
    let ended = parity(&house, "hrm-d64", quick, &["--tolerance", "1e-12"]);
    assert!(ended.exits(1).stdout.contains("BEYOND the tolerance"), "{}", ended.stdout);
}

#[test]
fn vectors_of_another_model_are_refused() {
    let house = House::new();
    let model = house.path("trm");
    let golden = root().join("tests/golden/hrm-d64/vectors.safetensors");
    let said = |vectors: &str| {
        house.ergometer(&["parity", "--model", model.to_str().unwrap(), "--vectors", vectors, "--backend", "reference"])
    };
    said(golden.to_str().unwrap()).refused(&[
        "hrm-d64/vectors.safetensors",
        "no vectors file for this model",
        "`inputs`",
    ]);
    let weights = house.path("trm/model.safetensors");
    said(weights.to_str().unwrap()).refused(&["trm/model.safetensors", "`inputs` is missing"]);
    said("absent.safetensors").refused(&["absent.safetensors"]);
}

#[test]
fn vectors_that_no_recorder_wrote_are_refused() {
    let house = House::new();
    let model = root().join("tests/golden/hrm-d64");
    let good = fs::read(model.join("vectors.safetensors")).unwrap();
    let said = |vectors: &str| {
        let model = model.to_str().unwrap();
        house.ergometer(&["parity", "--model", model, "--vectors", vectors, "--backend", "reference"])
    };
    // the file with the first element of one tensor replaced
    let with = |tensor: &str, element: [u8; 4]| {
        let file = SafeTensors::deserialize(&good).unwrap();
        let at = file.tensor(tensor).unwrap().data().as_ptr() as usize - good.as_ptr() as usize;
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&element);
        house.file("wrong.safetensors", bytes);
        said("wrong.safetensors")
    };
    for halt in [0, 1_000_000, -1] {
        with("first_halt", i32::to_le_bytes(halt)).refused(&["wrong.safetensors", "`first_halt`"]);
    }
    // a judge that is not a number would acquit everyone
    for number in [f32::NAN, f32::INFINITY] {
        with("logits.1", number.to_le_bytes()).refused(&["wrong.safetensors", "`logits.1`"]);
        with("z_H.1", number.to_le_bytes()).refused(&["wrong.safetensors", "`z_H.1`"]);
    }
    with("inputs", i32::to_le_bytes(i32::MAX)).refused(&[]);
    said("/dev/zero").refused(&["/dev/zero", "not a regular file"]);
    let large = house.path("large.safetensors");
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    said("large.safetensors").refused(&["large.safetensors", "not a whole safetensors file"]);
}
