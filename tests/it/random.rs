//! Nets with random weights, and programs beside ours: a model that is only a config, what an external worker is given, peers that are not
//! installed.
//!
//! In: a folder with `config.json` alone; the shipped suite `peers`. Out: verdicts, the cache, exit codes. Must not: need a peer.

use std::fs;

use ergometer_reports::case::{ErrorKind, Verdict};

use crate::house::{House, recursive, root};

#[test]
fn a_config_alone_is_a_model_for_every_command_and_every_program() {
    let house = House::new();
    let mut config = recursive();
    config["random_weights"] = serde_json::json!({"seed": 1, "damping": 0.12});
    fs::create_dir(house.path("drawn")).unwrap();
    house.file("drawn/config.json", config.to_string());
    let text = "[[model]]\nname = \"drawn\"\npath = \"drawn\"\n".to_string()
        + &house.fake("equipped", &[])
        + "[[cases]]\nmodels = [\"drawn\"]\ntasks = [\"small\"]\nbackends = [\"native\", \"equipped\"]\nscenarios = [\"offline-b2\"]\n";
    let suite = house.suite("drawn.toml", &text);
    house.run(&suite, "run", &["--dry-run"]).exits(0);
    assert!(!house.path("cache/models").exists(), "a dry run writes nothing");
    house.run(&suite, "run", &["--check"]).exits(0);
    let cases = house.cases("run");
    for case in cases.values() {
        assert!(case.error.is_none(), "{:?}", case.error);
        assert!(case.notes.iter().any(|n| n.contains("random weights")), "{:?}", case.notes);
    }
    assert!(matches!(&cases["native"].verdict, Some(Verdict::Reference { examples: 4, .. })));
    let made: Vec<_> = fs::read_dir(house.path("cache/models")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(fs::read_dir(house.path("drawn")).unwrap().count(), 1, "the model's own folder stays as it is");

    for model in ["drawn", made[0].to_str().unwrap()] {
        house.ergometer(&["time", "--model", model, "--backend", "native", "--seconds", "0.1"]).exits(0);
        let file = format!("{}.onnx", model.len());
        house.ergometer(&["export", "--model", model, "--to", "onnx", &file]).exits(0);
    }
    house.file("drawn/model.safetensors", "");
    house
        .ergometer(&["export", "--model", "drawn", "--to", "onnx", "c.onnx"])
        .refused(&["random_weights", "remove one"]);
}

#[test]
fn peers_that_are_not_installed_are_unavailable_and_no_failure() {
    let house = House::new();
    let suite = root().join("suites/peers.toml");
    let mut command = house.command(&["run", suite.to_str().unwrap(), "--check", "--out", "run"]);
    command
        .args(["--filter", "*/dense-active/f32/openvino/single-stream/*"])
        .env("ERGOMETER_PEERS_PYTHON", "no-such-python");
    crate::house::ended(command).exits(0);
    let cases = house.cases("run");
    let error = cases["openvino"].error.as_ref().expect("it is not there");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    assert!(error.hint.as_ref().is_some_and(|h| h.contains("ci/peers/install.sh")), "{error:?}");
}
