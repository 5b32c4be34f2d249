//! `ergometer import` on checkpoints in the layout of the released TRM and HRM: the recorded nets come through it and
//! still give their recorded vectors.
//!
//! In: tests/golden, whose nets are written as checkpoints here, and `released/step_7`, which PyTorch wrote. Out:
//! folders, exit codes, messages. Must not: need PyTorch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ergometer::models::Model;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::house::{House, root};

/// A tensor to be saved: name, type of its storage, shape, bytes.
type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// A pickle in the way of `torch.save`, protocol 2.
fn pickle(tensors: &[Tensor], wrap: Option<&str>) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    fn number(out: &mut Vec<u8>, n: usize) {
        out.push(b'J');
        out.extend((n as u32).to_le_bytes());
    }
    fn tuple(out: &mut Vec<u8>, numbers: &[usize]) {
        out.push(b'(');
        numbers.iter().for_each(|n| number(out, *n));
        out.push(b't');
    }
    let mut out = b"\x80\x02".to_vec();
    if let Some(key) = wrap {
        out.extend(b"}");
        text(&mut out, key);
    }
    out.extend(b"ccollections\nOrderedDict\n)R(");
    for (i, (name, storage, shape, bytes)) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{storage}\n").bytes());
        text(&mut out, &i.to_string());
        text(&mut out, "cuda:0");
        number(&mut out, bytes.len() / if *storage == "FloatStorage" { 4 } else { 2 });
        out.extend(b"tQ");
        number(&mut out, 0);
        tuple(&mut out, shape);
        let strides: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        tuple(&mut out, &strides);
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.push(b'u');
    if wrap.is_some() {
        out.push(b's');
    }
    out.push(b'.');
    out
}

/// A zip archive of stored entries.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let mut common = [20u16, 0, 0, 0, 0x21].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        [crc.sum(), bytes.len() as u32, bytes.len() as u32].iter().for_each(|n| common.extend(n.to_le_bytes()));
        [name.len() as u16, 0].iter().for_each(|n| common.extend(n.to_le_bytes()));
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10]].concat());
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.bytes());
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), bytes].concat());
    }
    let begin = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    [entries.len() as u16; 2].iter().for_each(|n| out.extend(n.to_le_bytes()));
    [directory.len() as u32, begin].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend([0, 0]);
    out
}

/// A checkpoint of these tensors.
fn checkpoint(tensors: &[Tensor], pickle: Vec<u8>) -> Vec<u8> {
    let mut entries =
        vec![("archive/data.pkl".to_owned(), pickle), ("archive/byteorder".to_owned(), b"little".to_vec())];
    entries.extend(tensors.iter().enumerate().map(|(i, t)| (format!("archive/data/{i}"), t.3.clone())));
    entries.push(("archive/version".to_owned(), b"3\n".to_vec()));
    zip(&entries)
}

/// The tensors of a golden net, under the names of a compiled net in its loss.
fn golden(name: &str, prefix: &str) -> Vec<Tensor> {
    let bytes = fs::read(root().join("tests/golden").join(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, t): (String, safetensors::tensor::TensorView)| {
        (format!("{prefix}{name}"), "FloatStorage", t.shape().to_vec(), t.data().to_vec())
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// The config of a golden net as its run would have written it.
fn yaml(name: &str, class: &str, ema: &str, change: &[(&str, &str)]) -> String {
    let config: Value =
        serde_json::from_slice(&fs::read(root().join("tests/golden").join(name).join("config.json")).unwrap()).unwrap();
    let config = config.as_object().unwrap().iter();
    // the released code has these from the data
    let kept = config
        .filter(|(k, _)| !["seq_len", "vocab_size", "num_puzzle_identifiers", "model_type"].contains(&k.as_str()));
    let mut arch: BTreeMap<String, String> =
        kept.map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned))).collect();
    arch.extend(change.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    let arch: String = arch.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("  {k}: {v}\n")).collect();
    format!(
        "arch:\n{arch}  loss:\n    name: losses@ACTLossHead\n  name: {class}\ndata_paths:\n- data/sudoku\n{ema}seed: 0\n"
    )
}

const TRM: &str = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1";
const HRM: &str = "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1";
const PREFIX: &str = "_orig_mod.model.inner.";

#[test]
fn recorded_nets_come_through_a_checkpoint_and_still_give_their_vectors() {
    let house = House::new();
    for (name, class, ema, told) in [
        ("trm-att-d64", TRM, "ema: true\n", "EMA, as the config says"),
        ("trm-mlp-d64", TRM, "ema: false\n", "raw, as the config says"),
        ("hrm-d64", HRM, "", "raw: the released HRM keeps no average"),
    ] {
        let tensors = golden(name, PREFIX);
        house.file("step_65104", checkpoint(&tensors, pickle(&tensors, None)));
        house.file("all_config.yaml", yaml(name, class, ema, &[]));
        let done = house.ergometer(&["import", "step_65104", "--seq-len", "81", "--out", name, "--json"]);
        let made: Value = serde_json::from_str(&done.exits(0).stdout).unwrap();
        assert_eq!((&made["step"], &made["tensors"]), (&json!(65104), &json!(tensors.len())), "{made}");
        assert!(made["weights"].as_str().unwrap().starts_with(told), "{made}");
        // the weights to the bit
        let (theirs, ours) = (root().join("tests/golden").join(name), house.path(name));
        assert_eq!(Model::load(&ours).unwrap().params, Model::load(&theirs).unwrap().params, "{name}");
        let vectors = theirs.join("vectors.safetensors");
        let vectors = vectors.to_str().unwrap();
        let parity =
            house.ergometer(&["parity", "--model", name, "--vectors", vectors, "--backend", "native", "--json"]);
        let found: Value = serde_json::from_str(&parity.exits(0).stdout).unwrap();
        assert_eq!((&found["ok"], &found["halts_as_recorded"]), (&json!(true), &json!(true)), "{name}: {found}");
        let card = fs::read_to_string(ours.join("README.md")).unwrap();
        for part in
            ["step_65104", "all_config.yaml", made["sha256"].as_str().unwrap(), told, "| optimiser steps | 65104 |"]
        {
            assert!(card.contains(part), "no `{part}` in {card}");
        }
        let config: Value = serde_json::from_slice(&fs::read(ours.join("config.json")).unwrap()).unwrap();
        // a table of several rows is numbered as its own data, which no task of ours is
        let several = made["puzzle_ids"].as_u64().unwrap() > 1;
        assert_eq!(
            config.get("puzzle_numbering").is_some_and(|n| n.as_str().unwrap().starts_with("released-")),
            several
        );
        assert_eq!(config["imported"]["weights"], made["weights"]);
        let kind = if told.starts_with("EMA") { "moving average" } else { "last" };
        assert_eq!(config["weights_from"], format!("{kind}, step 65104, of an imported checkpoint"));
        house
            .ergometer(&["import", "step_65104", "--seq-len", "81", "--out", name])
            .refused(&["already there", "--force"]);
    }
}

#[test]
fn what_pytorch_wrote_is_read_to_the_bit() {
    let house = House::new();
    let here = |name: &str| root().join("tests/golden/released").join(name).display().to_string();
    let (step, data) = (here("step_7"), here("dataset.json"));
    let done = house.ergometer(&["import", &step, "--dataset", &data, "--out", "net"]);
    assert!(done.exits(0).stdout.contains("11 tensors") && done.stdout.contains("step     7"), "{}", done.stdout);
    let model = Model::load(&house.path("net")).unwrap();
    let graph = model.graph().unwrap();
    let mut names: Vec<&str> = graph.params.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    // as tests/golden/released/record.py has it
    for (param, values) in graph.params.iter().zip(model.params.iter()) {
        let k = names.iter().position(|n| *n == param.name).unwrap();
        let wanted = (0..param.elements()).map(|i| (((37 * i + 11 * k) % 101) as f32 - 50.0) / 128.0);
        assert!(values.iter().copied().eq(wanted), "{}", param.name);
    }
    // the type that a tensor has is kept
    let bytes = fs::read(house.path("net/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("H_init").unwrap().dtype(), safetensors::Dtype::BF16);
    // what the data says otherwise than the tensors
    for (change, said) in [
        (
            "\"num_puzzle_identifiers\": 1",
            "the table of puzzle embeddings has 1 rows, and the puzzles of the task are 9",
        ),
        ("\"vocab_size\": 5", "the embedding of tokens has 5 rows, and the vocabulary has 9"),
    ] {
        let text = fs::read_to_string(&data).unwrap();
        let key = change.split(':').next().unwrap();
        house.file("other.json", text.replace(change, &format!("{key}: 9")));
        let other = house.ergometer(&["import", &step, "--dataset", "other.json", "--out", "other"]);
        other.refused(&["step_7", said, "other.json", "hint: "]);
    }
    house
        .ergometer(&["import", &step, "--dataset", &data, "--seq-len", "5", "--out", "other"])
        .refused(&["4 cells", "5 by --seq-len"]);
    house.ergometer(&["import", &step, "--out", "other"]).refused(&["how many cells", "--seq-len", "--dataset"]);
    assert!(!house.path("other").exists(), "nothing is made of what was refused");
}

/// Imports a checkpoint that is to be refused.
#[track_caller]
fn refused(house: &House, bytes: &[u8], config: &str, flags: &[&str], parts: &[&str]) {
    house.file("step_1", bytes);
    house.file("all_config.yaml", config);
    let done = house.ergometer(&[&["import", "step_1", "--seq-len", "81", "--out", "never"][..], flags].concat());
    done.refused(parts);
    assert!(done.stderr.contains("hint: "), "{}", done.stderr);
    assert!(!house.path("never/config.json").exists() && !house.path("never/model.safetensors").exists());
}

#[test]
fn other_nets_and_other_weights_are_refused_or_said() {
    let house = House::new();
    let tensors = golden("trm-att-d64", PREFIX);
    let bytes = checkpoint(&tensors, pickle(&tensors, None));
    let config = |change: &[(&str, &str)]| yaml("trm-att-d64", TRM, "ema: true\n", change);
    let no = |config: String, parts: &[&str]| refused(&house, &bytes, &config, &[], parts);
    // an architecture in another's name
    no(config(&[("mlp_t", "true")]), &["mlp_t: true", "attention (`self_attn`)"]);
    no(
        yaml("trm-att-d64", HRM, "", &[("H_layers", "2"), ("mlp_t", ""), ("puzzle_emb_len", "")]),
        &["an HRM", "a TRM's"],
    );
    let two = golden("hrm-d64", PREFIX);
    let of_two = checkpoint(&two, pickle(&two, None));
    refused(&house, &of_two, &config(&[]), &[], &["a TRM, which has one net", "an HRM's"]);
    let other = "recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1";
    no(yaml("trm-att-d64", other, "", &[]), &["trm_singlez", "an architecture that is not read"]);
    no("seed: 0\n".into(), &["all_config.yaml", "`arch.name` is missing"]);
    no(config(&[("time_embeddings", "true")]), &["`time_embeddings`", "does not have"]);
    // shapes, missing tensors, tensors too many
    no(config(&[("hidden_size", "128")]), &["has shape", "the config asks for"]);
    no(config(&[("L_layers", "3")]), &["tensor `L_level.layers.2", "is missing"]);
    no(config(&[("L_layers", "1")]), &["tensors that the net does not use", "L_level.layers.1"]);
    no(config(&[("puzzle_emb_ndim", "0")]), &["tensor that the net does not use", "puzzle_emb.weights"]);
    // averaged and raw weights
    let with = |flags: &[&str], ema: &str, parts: &[&str]| {
        refused(&house, &bytes, &yaml("trm-att-d64", TRM, ema, &[]), flags, parts)
    };
    with(&["--weights", "raw"], "ema: true\n", &["`ema: true`", "averaged weights alone"]);
    with(&["--weights", "ema"], "ema: false\n", &["`ema: false`"]);
    with(&["--weights", "ema"], "", &["neither the config"]);
    let mut both = tensors.clone();
    // an average is of what is trained by gradients alone
    let trained = |t: &&Tensor| !["H_init", "L_init", "puzzle_emb.weights"].iter().any(|n| t.0.ends_with(n));
    let averaged: Vec<Tensor> = tensors
        .iter()
        .filter(trained)
        .map(|t| {
            (
                format!("ema_model.{}", t.0),
                t.1,
                t.2.clone(),
                t.3.chunks_exact(4)
                    .flat_map(|b| (0.5 * f32::from_le_bytes([b[0], b[1], b[2], b[3]])).to_le_bytes())
                    .collect(),
            )
        })
        .collect();
    both.extend(averaged);
    let bytes = checkpoint(&both, pickle(&both, None));
    refused(&house, &bytes, &config(&[]), &[], &["two sets of weights", "--weights ema"]);
    let raw = Model::load(&root().join("tests/golden/trm-att-d64")).unwrap();
    for (which, factor, told) in
        [("ema", 0.5, "the average was asked for"), ("raw", 1.0, "the raw weights were asked for")]
    {
        let done = house.ergometer(&["import", "step_1", "--seq-len", "81", "--weights", which, "--out", which]);
        assert!(done.exits(0).stdout.contains(told), "{}", done.stdout);
        let model = Model::load(&house.path(which)).unwrap();
        let head = raw.graph().unwrap().params.iter().position(|p| p.name == "lm_head.weight").unwrap();
        assert_eq!(model.params[head][5], factor * raw.params[head][5]);
        assert!(fs::read_to_string(house.path(which).join("README.md")).unwrap().contains(told));
    }
    // which set it is stands nowhere
    house.file("step_1", checkpoint(&tensors, pickle(&tensors, None)));
    house.file("all_config.yaml", yaml("trm-att-d64", TRM, "", &[]));
    let done = house.ergometer(&["import", "step_1", "--seq-len", "81", "--out", "unknown"]);
    assert!(done.exits(0).stdout.contains("not recorded"), "{}", done.stdout);
    assert!(!fs::read_to_string(house.path("unknown/config.json")).unwrap().contains("weights_from"));
    // dictionaries around the tensors
    house.file("step_1", checkpoint(&tensors, pickle(&tensors, Some("model_state_dict"))));
    house.file("all_config.yaml", config(&[]));
    let wrapped = house.ergometer(&["import", "step_1", "--seq-len", "81", "--out", "wrapped"]);
    assert!(wrapped.exits(0).stdout.contains("this one has another"), "{}", wrapped.stdout);
    let word = house.ergometer(&["import", "step_1", "--seq-len", "81", "--weights", "ema", "--out", "by-word"]);
    assert!(word.exits(0).stdout.contains("EMA, by the word of whoever"), "{}", word.stdout);
}

#[test]
fn hostile_checkpoints_are_refused_and_nothing_is_run() {
    let house = House::new();
    let tensors = golden("trm-mlp-d64", PREFIX);
    let config = yaml("trm-mlp-d64", TRM, "ema: true\n", &[]);
    let no = |bytes: &[u8], parts: &[&str]| refused(&house, bytes, &config, &[], &[&["step_1"], parts].concat());
    let whole = checkpoint(&tensors, pickle(&tensors, None));
    for cut in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        no(&whole[..cut], &[]);
    }
    // a byte of a tensor, which only its check sum tells
    let mut turned = whole.clone();
    turned[whole.len() / 2] ^= 1;
    no(&turned, &["check sum"]);
    let with = |pickle: &[u8]| checkpoint(&tensors, pickle.to_vec());
    let mark = house.path("it-ran");
    let command = format!("touch {}", mark.display());
    let code =
        [b"\x80\x02cos\nsystem\nX", &(command.len() as u32).to_le_bytes()[..], command.as_bytes(), b"\x85R."].concat();
    no(&with(&code), &["archive/data.pkl", "`os.system`", "nothing was run"]);
    assert!(!mark.exists());
    no(&with(b"\x80\x02cbuiltins\nexec\n."), &["`builtins.exec`"]);
    // dictionaries in themselves, and as deep as the reader lets
    no(&with(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."), &["more than 8 deep"]);
    let wide: Vec<u8> =
        (0..70_000).flat_map(|i| [b"X\x05\x00\x00\x00", format!("{i:05}").as_bytes(), b"N"].concat()).collect();
    no(&with(&[b"\x80\x02}q\x00(", &wide[..], b"u."].concat()), &["entries of dictionaries"]);
    no(&with(&[b"\x80\x02", &[b'N'; 1 << 20][..], b"."].concat()), &["instructions"]);
    // names that each tensor below them would repeat
    let long = [&b"\x80\x02}X\x00\x20\x00\x00"[..], &[b'a'; 0x2000], b"}s."].concat();
    no(&with(&long), &["a name of more than 1024 bytes"]);
    let half = [&b"X\x00\x03\x00\x00"[..], &[b'a'; 0x300]].concat();
    no(&with(&[b"\x80\x02}", &half[..], b"}", &half[..], b"}ss."].concat()), &["a name of more than 1024 bytes"]);
    no(&with(b"\x80\x02K\x01."), &["no dictionary of tensors"]);
    no(&with(b"\x80\x02X\xff\xff\xff\xffa."), &["bytes are due"]);
    // sizes that nothing holds: 2^40 elements, in the pickle and in the archive's directory
    let mut lying = pickle(&tensors, None);
    let at = lying.windows(6).position(|w| w == b"cuda:0").unwrap() + 7;
    lying[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    no(&with(&lying), &["tensor `_orig_mod", "which has"]);
    let mut huge = whole.clone();
    let entry = huge.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    huge[entry + 20..entry + 28].fill(0xfe);
    no(&huge, &["bytes"]);
    let mut many = whole.clone();
    let end = many.len() - 22;
    many[end + 8..end + 12].fill(0xff);
    no(&many, &["directory"]);
    // other files
    no(b"GGUF\x03\0\0\0", &["no checkpoint of PyTorch", "GGUF"]);
    no(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", &["before version 1.6"]);
    no(&zip(&[("a/b".into(), vec![1])]), &["0 entries called `data.pkl`"]);
    no(&zip(&[("a/data.pkl".into(), b".".to_vec()), ("a/constants.pkl".into(), vec![])]), &["torch.jit.save"]);
    no(&zip(&[("a/data.pkl".into(), b".".to_vec()), ("a/byteorder".into(), b"big".to_vec())]), &["byte order"]);
    // a weight that is no number
    let mut nan = tensors.clone();
    nan[0].3[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    no(&checkpoint(&nan, pickle(&nan, None)), &["holds NaN at element 1"]);
    house.ergometer(&["import", "absent", "--out", "never"]).refused(&["absent", "hint: "]);
    house.ergometer(&["import", "/dev/zero", "--out", "never"]).refused(&["/dev/zero", "not a regular file"]);
    fs::remove_file(house.path("all_config.yaml")).unwrap();
    house.file("step_1", &whole);
    house.ergometer(&["import", "step_1", "--out", "never"]).refused(&["all_config.yaml", "--config FILE"]);
    for flag in ["--config", "--dataset"] {
        let config = root().join("tests/golden/trm-mlp-d64/config.json");
        let both = ["import", "step_1", "--config", config.to_str().unwrap(), flag, "nope", "--out", "never"];
        let words: Vec<&str> = if flag == "--config" { [&both[..2], &both[4..]].concat() } else { both.to_vec() };
        house.ergometer(&words).refused(&["nope", "name the file of the run that wrote the checkpoint"]);
    }
    // a folder with such a file is told what to do
    assert!(!Path::new(&house.path("model.safetensors")).exists());
    fs::create_dir(house.path("as-it-came")).unwrap();
    fs::write(house.path("as-it-came/step_1"), &whole).unwrap();
    fs::copy(root().join("tests/golden/trm-mlp-d64/config.json"), house.path("as-it-came/config.json")).unwrap();
    house
        .ergometer(&["export", "--model", "as-it-came", "--to", "onnx", "x.onnx"])
        .refused(&["step_1", "ergometer import"]);
}
