//! Models and data that are not what they seem, through the program: what is read, what is refused, and with which words.
//!
//! In: shipped models and small files made here. Out: exit codes and messages. Must not: need a network.

use std::fs;

use serde_json::json;

use crate::house::{House, dense, root};

const TASK: &str =
    r#"{"train": [{"input": [[1, 0]], "output": [[0, 1]]}], "test": [{"input": [[2, 0]], "output": [[0, 2]]}]}"#;

#[test]
fn a_net_of_another_numbering_is_refused_and_nothing_is_claimed_of_one_that_records_none() {
    let house = House::new();
    house.file("tasks.json", format!("{{\"a\": {TASK}, \"b\": {}}}", TASK.replace('2', "3")));
    let suite = |model: &str| {
        let text = format!(
            "[[model]]\nname = \"net\"\npath = {model:?}\n[[task]]\nname = \"mine\"\nkind = \"arc\"\nfile = \"tasks.json\"\nside = 6\n\
             augmentations = 2\n[[cases]]\nmodels = [\"net\"]\ntasks = [\"mine\"]\nbackends = [\"native\"]\ndepth = [\"halt-2\"]\n\
             seconds = 0.05\nwarmup_seconds = 0\n"
        );
        house.file("arc.toml", text)
    };
    let shipped = root().join("suites/models/trm-arc");
    house.run(&suite(shipped.to_str().unwrap()), "run", &[]).refused(&["5 puzzle embeddings", "has 257", "hint: "]);
    let config = |numbering: Option<&str>| {
        let mut config = json!({"model_type": "trm", "seq_len": 36, "vocab_size": 12, "hidden_size": 16, "num_heads": 2, "expansion": 1.0,
            "H_cycles": 1, "L_cycles": 1, "L_layers": 1, "halt_max_steps": 2, "puzzle_emb_ndim": 16, "num_puzzle_identifiers": 5});
        if let Some(numbering) = numbering {
            config["puzzle_numbering"] = numbering.into();
        }
        config
    };
    house.model("other", &config(Some("arc-file-0123456789abcdef")));
    house.run(&suite("other"), "run", &[]).refused(&[
        "numbers its puzzles as arc-file-",
        "arc-file-0123456789abcdef",
        "hint: ",
    ]);
    house.model("silent", &config(None));
    house.run(&suite("silent"), "run", &["--check"]).exits(0);
    let page = fs::read_to_string(house.path("run/records.json")).unwrap()
        + &fs::read_to_string(house.path("run/report/index.html")).unwrap();
    assert!(
        page.contains("numbering of puzzles is not known") && !page.contains("very tasks"),
        "what was not checked is not claimed"
    );
}

#[test]
fn files_that_stand_for_others_are_named() {
    let house = House::new();
    let say = |weights: &[u8], words: &[&str]| {
        fs::create_dir_all(house.path("odd")).unwrap();
        house.file("odd/config.json", dense().to_string());
        house.file("odd/model.safetensors", weights);
        house.ergometer(&["time", "--model", "odd", "--backend", "native"]).refused(words);
    };
    say(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        &["odd/model.safetensors", "Git LFS pointer", "git lfs pull"],
    );
    say(b"\x80\x04\x95pickle, not weights", &["odd/model.safetensors", "pickle", "hint: "]);
    say(b"<!DOCTYPE html><html></html>", &["odd/model.safetensors", "web page", "hint: "]);
    let numbered = br#"{"__metadata__":{"epoch":3}}"#;
    say(
        &[&(numbered.len() as u64).to_le_bytes()[..], numbered].concat(),
        &["odd/model.safetensors", "metadata values must be strings", "`epoch` is 3", "hint: "],
    );
    // a layer more than the config has
    let weights = root().join("suites/models/dense-4x4/model.safetensors");
    let config = fs::read_to_string(root().join("suites/models/dense-4x4/config.json")).unwrap();
    fs::copy(weights, house.path("odd/model.safetensors")).unwrap();
    house.file("odd/config.json", config.replace("\"num_layers\": 3", "\"num_layers\": 2"));
    house.ergometer(&["time", "--model", "odd", "--backend", "native"]).refused(&[
        "odd/model.safetensors",
        "does not use",
        "`layers.2.",
        "hint: ",
    ]);

    house.file("train.toml", "\u{feff}about = ");
    house.ergometer(&["train", "train.toml"]).refused(&["train.toml", "line 1", "hint: "]);
    house.file("train.toml", b"\xff\xfea\0b\0");
    house.ergometer(&["train", "train.toml"]).refused(&["train.toml", "UTF-16", "hint: "]);
    let suite = root().join("suites/quick.toml");
    house.ergometer(&["train", suite.to_str().unwrap()]).refused(&["quick.toml", "is a suite", "ergometer run"]);
    let of_another = root().join("suites/train/trm-att-9x9.toml");
    house.ergometer(&["train", of_another.to_str().unwrap()]).refused(&[
        "trm-att-9x9.toml",
        "[torch]",
        "ci/train/train.py",
    ]);
    house.ergometer(&["train", "absent.toml"]).refused(&["absent.toml", "cannot be read", "training file"]);
}
