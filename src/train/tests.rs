//! Tiny training runs: the loss falls, a resumed run ends where an uninterrupted one does, a shortfall is an error.

use super::*;
use crate::models::build_graph;

const CONFIG: &str = r#"
about = "A test."
out = "net"
steps = 40
batch = 16
seed = 3
eval_every = 20
checkpoint_every = 10

[model]
model_type = "trm"
seq_len = 16
vocab_size = 6
hidden_size = 16
num_heads = 2
expansion = 2
H_cycles = 2
L_cycles = 1
L_layers = 1
halt_max_steps = 3

[task]
kind = "sudoku"
size = 4
clues = [8, 12]
puzzles = 50
eval_examples = 20

[optimiser]
lr = 0.005
warmup = 3
weight_decay = 0.1
clip = 1.0
ema = 0.9
"#;

fn job(folder: &Path, text: &str, resume: bool) -> anyhow::Result<Job> {
    let path = folder.join("train.toml");
    std::fs::write(&path, text)?;
    let (config, text) = TrainConfig::load(&path)?;
    Job::new(config, text, resume)
}

#[test]
fn a_resumed_run_ends_where_an_uninterrupted_one_does() {
    let (whole, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut uninterrupted = job(whole.path(), CONFIG, false).unwrap();
    uninterrupted.train().unwrap();

    // killed after step 25: the checkpoint is of step 20
    let mut first = job(halves.path(), CONFIG, false).unwrap();
    first.config.steps = 25;
    let lr = |step| uninterrupted.config.lr(step);
    for step in 0..25 {
        let optimiser = &first.optimiser;
        let (_, gradients) = first.trainer.step(&optimiser.weights, |i| optimiser.trains(i)).unwrap();
        first.optimiser.step(&first.config.optimiser, lr(step), &gradients);
        if first.optimiser.steps == 20 {
            first.save_checkpoint().unwrap();
        }
    }
    let mut second = job(halves.path(), CONFIG, true).unwrap();
    assert_eq!(second.optimiser.steps, 20);
    second.train().unwrap();
    assert_eq!(second.optimiser.steps, 40);
    for (a, b) in uninterrupted.optimiser.average.iter().zip(&second.optimiser.average) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * a.abs().max(1.0)), "weights differ");
    }
    assert_eq!(uninterrupted.trainer.batch.inputs, second.trainer.batch.inputs);
    assert!(!second.checkpoint_path().exists(), "a finished run leaves no checkpoint");
    let other = CONFIG.replace("batch = 16", "batch = 8");
    first.save_checkpoint().unwrap();
    assert!(job(halves.path(), &other, true).is_err(), "another batch cannot go on from here");
    let anew = job(halves.path(), CONFIG, false).err().expect("it would be lost").to_string();
    assert!(anew.contains("checkpoint.safetensors") && anew.contains("hint: `--resume`"), "{anew}");
}

#[test]
fn the_loss_falls_and_the_folder_holds_a_model_with_its_card() {
    let folder = tempfile::tempdir().unwrap();
    let text = CONFIG.replace("steps = 40", "steps = 120").replace("eval_every = 20", "eval_every = 40");
    let mut job = job(folder.path(), &text, false).unwrap();
    job.train().unwrap();
    let out = folder.path().join("net");
    let log = std::fs::read_to_string(out.join("log.csv")).unwrap();
    let losses: Vec<f64> = log.lines().skip(1).map(|l| l.split(',').nth(4).unwrap().parse().unwrap()).collect();
    assert_eq!(losses.len(), 3);
    assert!(losses[2] < 0.8 * losses[0], "{losses:?}");
    let model = Model::load(&out).unwrap();
    assert_eq!(*model.params, job.optimiser.average);
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(
        card.contains("20 held-out examples of task `sudoku` (clues = [8, 12], size = 4), test side")
            && card.contains("120 optimiser steps,")
            && card.contains("4x4 is a smoke test"),
        "{card}"
    );
}

#[test]
fn a_collapsed_router_fails_its_check_and_an_even_one_passes() {
    let folder = Path::new("models/x");
    let routing = |load: &[u64]| Routing { load: load.to_vec(), probability: Vec::new() };
    check_routing(&[routing(&[10, 12, 9, 11])], folder).unwrap();
    check_routing(&[], folder).unwrap();
    let error = check_routing(&[routing(&[10, 10, 10, 10]), routing(&[97, 1, 1, 1])], folder).unwrap_err();
    assert_eq!(error.layer, 2);
    assert!(error.entropy < 0.2, "{error}");
    assert!(error.to_string().contains("models/x") && error.to_string().contains("hint: "), "{error}");
    // a half-used table is under 0.8: two of eight experts come to a third
    assert!(check_routing(&[routing(&[5, 5, 0, 0, 0, 0, 0, 0])], folder).is_err());
}

#[test]
fn a_dense_net_trains_and_too_little_accuracy_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let trm = CONFIG.find("[model]").unwrap()..CONFIG.find("[task]").unwrap();
    let dense = "[model]\nmodel_type = \"encoder\"\nseq_len = 16\nvocab_size = 6\nhidden_size = 16\nnum_heads = 2\n\
        expansion = 2\nnum_layers = 1\npos_encodings = \"learned\"\n\n";
    let text = CONFIG.replace(&CONFIG[trm], dense);
    let text = text.replace("batch = 16", "batch = 16\nrequire_accuracy = 0.99");
    let path = folder.path().join("dense.toml");
    std::fs::write(&path, text).unwrap();
    let error = run(&path, &TrainOptions::default()).expect_err("forty steps are not enough");
    assert!(error.downcast_ref::<TooInaccurate>().is_some(), "{error:#}");
    assert!(folder.path().join("net/model.safetensors").exists());
}

#[test]
fn bad_training_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, word) in [
        ("batch = 16", "batch = 0", "batch"),
        ("lr = 0.005", "lr = -1.0", "lr"),
        ("steps = 40", "stepps = 40", "stepps"),
        ("vocab_size = 6", "vocab_size = 5", "vocab_size"),
        ("seq_len = 16", "seq_len = 17", "seq_len"),
        ("kind = \"sudoku\"", "kind = \"chess\"", "kind"),
        ("size = 4", "size = 5", "size"),
        ("clues = [8, 12]", "clues = [12, 8]", "clues"),
        ("model_type = \"trm\"", "model_type = \"tmr\"", "model_type"),
        ("size = 4", "size = 4\nsplit = \"train\"", "task.split"),
        ("size = 4", "size = 4\nexamples = 3", "eval_examples"),
        ("size = 4", "sise = 4", "sise"),
        ("puzzles = 50", "puzzles = 0", "puzzles"),
        ("kind = \"sudoku\"", "kind = \"sudokku\"", "did you mean sudoku"),
    ] {
        let text = CONFIG.replace(from, to);
        let error = format!("{:#}", job(folder.path(), &text, false).err().expect(to));
        assert!(error.contains(word), "{to}: {error}");
    }
}

#[test]
fn training_flops_follow_the_formula_of_the_calls() {
    // H(L+1) calls forward, and for L+1 of them backward at twice the cost
    let config = |h: usize| {
        serde_json::json!({"model_type": "trm", "seq_len": 16, "vocab_size": 6, "hidden_size": 64, "num_heads": 4,
            "expansion": 4, "H_cycles": h, "L_cycles": 2, "L_layers": 1})
    };
    let call = 2.0 * 16.0 * 3.0 * 64.0 * 256.0 + 8.0 * 16.0 * 64.0 * 64.0 + 4.0 * 16.0 * 16.0 * 64.0;
    let heads = 2.0 * 16.0 * 64.0 * 6.0 + 2.0 * 64.0 * 2.0;
    for h in [1, 3] {
        let graph = build_graph(&config(h)).unwrap();
        let want = (h as f64 * 3.0 + 2.0 * 3.0) * call + 3.0 * heads;
        assert_eq!(net::flops_per_row(&graph), want);
    }
}

proptest::proptest! {
    #[test]
    fn no_training_file_panics(text in "(steps|batch|\\[model\\]|\\[task\\]|seq_len|=|[0-9e.\\-]{1,8}|\"|\n| ){0,60}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.toml");
        std::fs::write(&path, text).unwrap();
        let _ = TrainConfig::load(&path);
    }
}
