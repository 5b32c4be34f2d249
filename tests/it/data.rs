//! Models and data that are not what they seem, through the program: what is read, what is refused, and with which words.
//!
//! In: shipped models and small files made here. Out: exit codes and messages. Must not: need a network.

use std::fs;

use serde_json::json;

use crate::house::{House, dense, root, skip_here};

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
    // what is whole is not called damaged
    let weights = root().join("suites/models/dense-4x4/model.safetensors");
    let good = fs::read(&weights).unwrap();
    fs::copy(root().join("suites/models/dense-4x4/config.json"), house.path("odd/config.json")).unwrap();
    let size = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(good[8..8 + size].to_vec()).unwrap();
    let with = |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
    let rest = header.trim_end().strip_prefix('{').unwrap();
    let more = |entry: &str| with(&format!("{{{entry},{rest}"), &good[8 + size..]);
    let first = rest.split('"').nth(1).unwrap_or_default();
    for (bytes, words) in [
        (more("\"__metadata__\":[\"x\"]"), &["`__metadata__`"][..]),
        (more("\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}"), &["repeated key `a`"]),
        (
            with(&header.replacen("\"BF16\"", "\"XYZ\"", 1).replacen("\"F32\"", "\"XYZ\"", 1), &good[8 + size..]),
            &["`XYZ`"],
        ),
        (more(&format!("\"{first}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}")), &["repeated key"]),
    ] {
        house.file("odd/model.safetensors", bytes);
        let done = house.ergometer(&["time", "--model", "odd", "--backend", "native"]);
        done.refused(&[&["odd/model.safetensors", "hint: "], words].concat());
        assert!(!done.stderr.contains("damaged") && !done.stderr.contains("not a whole"), "{}", done.stderr);
    }
    // a download whose store was tidied leaves links that lead nowhere
    for name in ["model.safetensors", "config.json"] {
        let kept = fs::read(house.path("odd").join(name)).unwrap();
        fs::remove_file(house.path("odd").join(name)).unwrap();
        std::os::unix::fs::symlink("../blobs/0123", house.path("odd").join(name)).unwrap();
        house.ergometer(&["time", "--model", "odd", "--backend", "native"]).refused(&[
            name,
            "is a link to ../blobs/0123, where nothing is",
            "hint: fetch it again",
        ]);
        fs::remove_file(house.path("odd").join(name)).unwrap();
        house.file(&format!("odd/{name}"), kept);
    }
    // a layer more than the config has
    let config = fs::read_to_string(root().join("suites/models/dense-4x4/config.json")).unwrap();
    fs::copy(weights, house.path("odd/model.safetensors")).unwrap();
    house.file("odd/config.json", config.replace("\"num_layers\": 3", "\"num_layers\": 2"));
    house.ergometer(&["time", "--model", "odd", "--backend", "native"]).refused(&[
        "odd/model.safetensors",
        "does not use",
        "`layers.2.",
        "hint: ",
    ]);
}

#[test]
fn a_training_file_that_is_none_is_named() {
    let house = House::new();
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

#[test]
fn a_byte_order_mark_and_a_pointer_are_known_in_every_file_that_is_read_again() {
    if ergometer::backends::backend("tract").is_none() {
        return skip_here("files that are read again: this build has no backend with several settings");
    }
    let house = House::new();
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"tract\"]\ntune = true\ntune_seconds = 1\n\
         seconds = 0.05\nwarmup_seconds = 0\n",
    );
    // on a busy machine a case may fail, and is written all the same
    let ran = |out: &str, more: &[&str]| {
        let ended = house.run(&suite, out, more);
        assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
    };
    ran("run", &[]);
    let cases = fs::read_dir(house.path("run/cases")).unwrap().map(|e| e.unwrap().path());
    let case = cases.into_iter().next().unwrap().strip_prefix(house.path("")).unwrap().join("case.json");
    let case = case.to_str().unwrap();
    let whole = |name: &str| fs::read(house.path(name)).unwrap();
    let files = ["run/environment.json", case, "run/tuning.json"].map(|name| (name, whole(name)));
    for (name, bytes) in &files {
        house.file(name, [b"\xEF\xBB\xBF", &bytes[..]].concat());
    }
    house.ergometer(&["report", "run", "--format", "md"]).exits(0);
    ran("run", &["--resume"]);
    ran("pinned", &["--tuning", "run/tuning.json"]);
    for (name, bytes) in &files {
        house.file(name, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
        let words = [*name, "Git LFS pointer", "git lfs pull"];
        match name.ends_with("tuning.json") {
            true => house.run(&suite, "other", &["--tuning", name]).refused(&words),
            false => house.ergometer(&["report", "run"]).refused(&words),
        }
        if name.ends_with("environment.json") {
            house.run(&suite, "run", &["--resume"]).refused(&words);
        }
        house.file(name, bytes);
    }
}

#[test]
fn a_fetched_data_set_that_is_not_the_pinned_one_is_refused() {
    let house = House::new();
    let suite = house.file(
        "arc.toml",
        "[[model]]\nname = \"trm\"\npath = \"trm\"\n[[task]]\nname = \"public\"\nkind = \"arc\"\ndataset = \"arc-agi-1\"\n\
         [[cases]]\nmodels = [\"trm\"]\ntasks = [\"public\"]\nbackends = [\"native\"]\n",
    );
    let refused = |words: &[&str]| house.run(&suite, "run", &[]).refused(words);
    refused(&["arc.toml", "is not here", "hint: `ergometer fetch arc-agi-1`"]);
    fs::create_dir_all(house.path("cache/fetched/arc-agi-1-aa922be")).unwrap();
    let file = house.file("cache/fetched/arc-agi-1-aa922be/arcagi_aa922be.json", format!("{{\"a\": {TASK}}}"));
    refused(&["arcagi_aa922be.json", "is not what was fetched", "sha256", "hint: `ergometer fetch arc-agi-1`"]);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    refused(&["arcagi_aa922be.json", "link", "hint: "]);
}
