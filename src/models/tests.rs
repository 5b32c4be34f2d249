//! Known figures of the published nets, and bad model files.

use std::fs;

use serde_json::json;

use super::*;
use crate::graph::cost::Workload;

fn trm(mlp_t: bool, seq_len: usize, vocab: usize, l_cycles: usize) -> serde_json::Value {
    json!({"model_type": "trm", "seq_len": seq_len, "vocab_size": vocab, "hidden_size": 512, "num_heads": 8, "expansion": 4.0,
        "H_cycles": 3, "L_cycles": l_cycles, "L_layers": 2, "mlp_t": mlp_t, "pos_encodings": if mlp_t { "none" } else { "rope" },
        "puzzle_emb_ndim": 512, "puzzle_emb_len": 16, "num_puzzle_identifiers": 1})
}

#[test]
fn full_size_nets_have_the_published_parameters_and_flops() {
    let hrm = json!({"model_type": "hrm", "seq_len": 81, "vocab_size": 11, "hidden_size": 512, "num_heads": 8, "expansion": 4.0,
        "H_cycles": 2, "L_cycles": 2, "H_layers": 4, "L_layers": 4, "puzzle_emb_ndim": 512, "num_puzzle_identifiers": 1});
    // parameters: published logs and model cards; GFLOP a step: H(L+1) calls by the formulas of the layers
    for (config, params, gflop) in [
        (trm(true, 81, 11, 6), 5_028_866, Some(25.6)),
        (trm(false, 81, 11, 6), 6_828_034, Some(28.6)),
        (trm(false, 900, 12, 4), 6_829_058, Some(239.0)),
        (hrm, 27_275_266, None),
    ] {
        let cost = build_graph(&config).expect("a published config").cost(&Workload::one());
        assert_eq!(cost.params_total, params);
        assert_eq!(cost.params_active, params, "no experts: all parameters are active");
        if let Some(gflop) = gflop {
            let got = cost.flops_steps / 1e9;
            assert!((got / gflop - 1.0).abs() < 3e-3, "{got} GFLOP a step, published {gflop}");
        }
    }
}

#[test]
fn a_looped_net_has_the_encoder_s_parameters_and_a_head_that_halts() {
    let config = |kind: &str, loops: usize| {
        json!({"model_type": kind, "seq_len": 81, "vocab_size": 11, "hidden_size": 128, "num_heads": 4, "expansion": 4.0, "num_layers": 4,
            "pos_encodings": "rope", "loops": loops})
    };
    let cost = |kind, loops| build_graph(&config(kind, loops)).expect("a config").cost(&Workload::one());
    let (encoder, once, thrice) = (cost("encoder", 1), cost("looped", 1), cost("looped", 3));
    assert_eq!(once.params_total, encoder.params_total + 2 * 128 + 2, "the weights and biases of the halting head");
    assert_eq!(thrice.params_total, once.params_total, "a loop has no weights of its own");
    // one call of the stack: layers · (2·T·3·D·I + 8·T·D² + 4·T²·D)
    let (t, d, inner) = (81.0, 128.0, 512.0);
    let call = 4.0 * (6.0 * t * d * inner + 8.0 * t * d * d + 4.0 * t * t * d);
    assert!(((thrice.flops_steps - once.flops_steps) / (2.0 * call) - 1.0).abs() < 1e-9);
    for bad in [json!({"loops": 0}), json!({"loops": 1000}), json!({"halt_max_steps": 0}), json!({"num_layers": 0})] {
        let mut config = config("looped", 1);
        config.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        let error = build_graph(&config).expect_err("refused").to_string();
        assert!(error.contains(bad.as_object().unwrap().keys().next().unwrap()), "{error}");
    }
}

#[test]
fn costs_scale_with_batch_and_depth() {
    let graph = build_graph(&trm(true, 81, 11, 6)).unwrap();
    let one = graph.cost(&Workload::one());
    let many = graph.cost(&Workload { batch: 8, steps: 16, ..Workload::one() });
    assert_eq!(many.flops_steps, 128.0 * one.flops_steps);
    assert_eq!(many.state_bytes, 8.0 * one.state_bytes);
    // z_H, z_L and x of 97 tokens, 512 features, f32
    assert_eq!(one.state_bytes, 3.0 * 97.0 * 512.0 * 4.0);
    assert_eq!((many.step_weight_bytes, many.step_value_bytes), (one.step_weight_bytes, 8.0 * one.step_value_bytes));
    assert!(one.step_weight_bytes <= one.weight_bytes && one.step_weight_bytes > 0.9 * one.weight_bytes);
    assert!(one.bytes_steps > one.step_value_bytes + one.step_weight_bytes, "a recursion comes back to its weights");
    assert!(many.bytes_steps < 128.0 * one.bytes_steps, "weights are read once for the whole batch");
}

#[test]
fn experts_count_in_full_but_only_the_routed_ones_are_active() {
    use crate::graph::{Activation, Family, Halting, RegionBuilder, ValueType, op};
    let mut params = Params::default();
    let router = params.weight("router", 8, 16).unwrap();
    let gate_up = params.add("gate_up", &[8, 64, 16], Role::Weight, Start::Constant(0.0)).unwrap();
    let down = params.add("down", &[8, 16, 32], Role::Weight, Start::Constant(0.0)).unwrap();
    let x = ValueType::float(5, 16);
    let mut step = RegionBuilder::new(&params.0, &[x]);
    let y = step.op(op::MoeMlp { router, gate_up, down, act: Activation::Silu, top_k: 2 }, &[step.arg(0)]).unwrap();
    let step = step.finish(&[y]);
    let admit = RegionBuilder::new(&params.0, &[]).finish(&[]);
    let graph = Graph {
        calls: Vec::new(),
        family: Family::Moe,
        inputs: vec![],
        params: params.0,
        states: vec![],
        admit,
        step,
        outputs: vec![],
        halting: Halting::Never,
        max_steps: 1,
    };
    let cost = graph.cost(&Workload::one());
    assert_eq!(cost.params_total, 8 * 16 + 8 * 64 * 16 + 8 * 16 * 32);
    assert_eq!(cost.params_active, 8 * 16 + 2 * 64 * 16 + 2 * 16 * 32);
    assert_eq!(cost.flops_steps, 2.0 * 5.0 * cost.params_active as f64);
    // all experts, and 5 tokens of 16 features in and out, in f32
    assert_eq!((cost.step_weight_bytes, cost.step_value_bytes), (4.0 * cost.params_total as f64, 4.0 * 160.0));
}

#[test]
fn swiglu_width_rounds_up_to_a_multiple_of_256() {
    let size = |hidden| blocks::BlockSize {
        tokens: 97,
        hidden,
        heads: 8,
        expansion: 4.0,
        mlp_t: true,
        rope: None,
        eps: 1e-5,
        experts: None,
    };
    for (n, inner) in [(512, 1536), (384, 1024), (256, 768), (128, 512), (64, 256), (97, 512), (916, 2560), (81, 256)] {
        assert_eq!(size(512).inner(n), inner, "width {n}");
    }
}

fn small_config() -> serde_json::Value {
    json!({"model_type": "encoder", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "expansion": 1.0, "pos_encodings": "rope"})
}

fn saved_model(folder: &Path) {
    let config = small_config();
    let model = Model::random(&config, 3).unwrap();
    Model::save(folder, &config, model.graph().unwrap(), &model.params).unwrap();
}

#[test]
fn a_saved_model_loads_as_it_was_and_prefixes_of_training_wrappers_are_stripped() {
    let folder = tempfile::tempdir().unwrap();
    saved_model(folder.path());
    let loaded = Model::load(folder.path()).unwrap();
    assert_eq!(*loaded.params, *Model::random(&small_config(), 3).unwrap().params);
    assert_eq!(stripped("_orig_mod.model.inner.lm_head.weight"), "lm_head.weight");
    assert_eq!(stripped("model.inner.H_init"), "H_init");
}

#[test]
fn bad_model_files_are_named_and_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let error = |what: &str| {
        let e = Model::load(path).expect_err(what).to_string();
        assert!(e.contains("config.json") || e.contains("model.safetensors"), "{e}");
        e
    };
    assert!(error("missing").contains("cannot be read"));
    saved_model(path);
    let weights = fs::read(path.join("model.safetensors")).unwrap();
    fs::write(path.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    assert!(error("truncated").contains("cut off, damaged"));
    // an offset beyond the file
    let header = br#"{"lm_head.weight":{"dtype":"F32","shape":[5,8],"data_offsets":[0,99999999]}}"#;
    let mut lying = (header.len() as u64).to_le_bytes().to_vec();
    lying.extend_from_slice(header);
    fs::write(path.join("model.safetensors"), &lying).unwrap();
    error("lying offsets");
    // a header that claims to be nearly as long as memory
    let mut huge = (u64::MAX / 2).to_le_bytes().to_vec();
    huge.extend_from_slice(b"{}");
    fs::write(path.join("model.safetensors"), &huge).unwrap();
    error("huge header");
    fs::write(path.join("model.safetensors"), vec![0u8; 80 << 20]).unwrap();
    assert!(error("zeros").contains("not a whole safetensors file"));
    // five gigabytes that take no room on a disk: the header is believed only where it fits the file, and the tensors the config
    fs::File::create(path.join("model.safetensors")).unwrap().set_len(5 << 30).unwrap();
    assert!(error("sparse").contains("not a whole safetensors file"));
    let header = br#"{"lm_head.weight":{"dtype":"F32","shape":[1342177280],"data_offsets":[0,5368709120]}}"#;
    fs::write(path.join("model.safetensors"), [&(header.len() as u64).to_le_bytes()[..], header].concat()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path.join("model.safetensors")).unwrap();
    file.set_len(8 + header.len() as u64 + (5 << 30)).unwrap();
    assert!(error("sparse and consistent").contains("is missing"));
    for bad in [
        json!({"model_type": "encodr"}),
        json!({"model_type": "encoder", "seq_len": 18_446_744_073_709_551_615u64}),
        json!({"model_type": "encoder", "seq_len": 4, "vocab_size": 5, "hidden_size": 4_194_304, "num_layers": 1024, "num_heads": 1, "expansion": 1000.0, "pos_encodings": "rope"}),
        json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_heads": 3, "expansion": 4, "H_cycles": 0, "L_cycles": 1, "L_layers": 1}),
        json!({"model_type": "encoder", "seq_len": -4, "vocab_size": 5, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "expansion": 1.0, "pos_encodings": "rope"}),
        json!([1, 2]),
    ] {
        fs::write(path.join("config.json"), bad.to_string()).unwrap();
        error("bad config");
    }
    fs::write(path.join("config.json"), "{\"model_type\": ").unwrap();
    assert!(error("half a config").contains("line 1"));
}

/// Tensors of a saved small model by name, to be written again otherwise.
type Parts = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn parts() -> Parts {
    let model = Model::random(&small_config(), 3).unwrap();
    let bytes = |v: &Vec<f32>| v.iter().flat_map(|x| x.to_le_bytes()).collect();
    model
        .graph()
        .unwrap()
        .params
        .iter()
        .zip(model.params.iter())
        .map(|(p, v)| (p.name.clone(), Dtype::F32, p.shape.clone(), bytes(v)))
        .collect()
}

fn write_parts(file: &Path, parts: &Parts) {
    let views = parts.iter().map(|(name, dtype, shape, bytes)| {
        (name.clone(), safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn every_tensor_is_taken_or_known_to_be_harmless() {
    let folder = tempfile::tempdir().unwrap();
    saved_model(folder.path());
    let (file, want) = (folder.path().join("model.safetensors"), Model::load(folder.path()).unwrap());
    let load = |parts: &Parts| {
        write_parts(&file, parts);
        Model::load(folder.path()).map_err(|e| e.to_string())
    };
    let tensor = |name: &str, dtype: Dtype, shape: &[usize], size: usize| {
        (name.to_string(), dtype, shape.to_vec(), vec![0; size * shape.iter().product::<usize>()])
    };
    let mut harmless = parts();
    harmless.extend([
        tensor("num_batches_tracked", Dtype::I64, &[], 8),
        tensor("step", Dtype::F32, &[1], 4),
        tensor("optimizer.exp_avg.lm_head.weight", Dtype::F32, &[5, 8], 4),
        tensor("model.inner.rotary_emb.cos_cached", Dtype::F32, &[4, 4], 4),
        tensor("layers.0.self_attn.rotary_emb.inv_freq", Dtype::F32, &[2], 4),
        tensor("position_ids", Dtype::I64, &[1, 4], 8),
        tensor("model.puzzle_emb.local_weights", Dtype::F32, &[2, 8], 4),
        tensor("layers.0.rope.cos", Dtype::F32, &[4, 2], 4),
    ]);
    assert_eq!(load(&harmless).unwrap().params, want.params);
    let mut prefixed = parts();
    prefixed.iter_mut().for_each(|p| p.0 = format!("_orig_mod.module.model.{}", p.0));
    assert_eq!(load(&prefixed).unwrap().params, want.params);

    let with = |more: (String, Dtype, Vec<usize>, Vec<u8>)| [parts(), vec![more]].concat();
    let renamed = |from: &str, to: &str| {
        let mut parts = parts();
        parts.iter_mut().filter(|p| p.0 == from).for_each(|p| p.0 = to.into());
        parts
    };
    let changed = |name: &str, shape: &[usize], dtype: Dtype, size: usize| {
        let mut parts = parts();
        parts.iter_mut().filter(|p| p.0 == name).for_each(|p| *p = tensor(name, dtype, shape, size));
        parts
    };
    for (parts, words) in [
        (
            with(tensor("layers.1.mlp.down_proj.weight", Dtype::F32, &[8, 256], 4)),
            &["does not use", "`layers.1.mlp.down_proj.weight`", "smaller net"][..],
        ),
        // a harmless word in a name that is no such tensor's
        (with(tensor("layers.1.rope.q_proj.weight", Dtype::F32, &[8, 8], 4)), &["`layers.1.rope.q_proj.weight`"]),
        (with(tensor("layers.1.optim.weight", Dtype::F32, &[8, 8], 4)), &["`layers.1.optim.weight`"]),
        (with(tensor("layers.1.local_weights", Dtype::F32, &[8, 8], 4)), &["`layers.1.local_weights`"]),
        (with(tensor("layers.0.mlp.bias", Dtype::F32, &[1], 4)), &["`layers.0.mlp.bias`"]),
        (with(tensor("layers.1.rotary_emb.weight", Dtype::F32, &[8, 8], 4)), &["`layers.1.rotary_emb.weight`"]),
        (with(tensor("puzzle_emb.weights", Dtype::F32, &[3, 8], 4)), &["does not use", "`puzzle_emb.weights`"]),
        (with(tensor("ema.lm_head.weight", Dtype::F32, &[5, 8], 4)), &["does not use", "`ema.lm_head.weight`", "EMA"]),
        (
            with(tensor("model.lm_head.weight", Dtype::F32, &[5, 8], 4)),
            &["`lm_head.weight` is there 2 times", "`model.lm_head.weight`"],
        ),
        (
            renamed("lm_head.weight", "net.lm_head.weight"),
            &["`lm_head.weight` is missing", "`net.lm_head.weight` is there", "without `net.`"],
        ),
        (renamed("lm_head.weight", "lm_head.qweight"), &["`lm_head.weight` is missing", "packed, quantised"]),
        (parts().into_iter().filter(|p| p.0 != "lm_head.weight").collect(), &["`lm_head.weight` is missing", "tied"]),
        (changed("lm_head.weight", &[8, 5], Dtype::F32, 4), &["[8, 5]", "[5, 8]", "transposed"]),
        (changed("lm_head.weight", &[6, 8], Dtype::F32, 4), &["[6, 8]", "[5, 8]", "belong together"]),
        (changed("lm_head.weight", &[5, 8], Dtype::I8, 1), &["`lm_head.weight` is I8", "f32, bf16 and f16"]),
        (changed("lm_head.weight", &[5, 8], Dtype::F8_E4M3, 1), &["`lm_head.weight` is F8_E4M3"]),
        (changed("lm_head.weight", &[5, 8], Dtype::F64, 8), &["`lm_head.weight` is F64"]),
    ] {
        let error = load(&parts).err().unwrap_or_else(|| panic!("{words:?}"));
        assert!(words.iter().all(|w| error.contains(w)) && error.contains("hint: "), "{words:?}: {error}");
    }
}

#[test]
fn shards_are_read_by_their_index() {
    let folder = tempfile::tempdir().unwrap();
    saved_model(folder.path());
    let at = |name: &str| folder.path().join(name);
    let want = Model::load(folder.path()).unwrap();
    fs::remove_file(at("model.safetensors")).unwrap();
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let (mut first, mut second) = (parts(), Vec::new());
    second.extend(first.pop());
    let map: serde_json::Map<String, serde_json::Value> = (first.iter().map(|p| (p.0.clone(), one.into())))
        .chain(second.iter().map(|p| (p.0.clone(), two.into())))
        .collect();
    let index = |map: &serde_json::Value| {
        fs::write(
            at("model.safetensors.index.json"),
            json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string(),
        )
        .unwrap();
    };
    index(&map.clone().into());
    write_parts(&at(one), &first);
    write_parts(&at(two), &second);
    let found = Model::load(folder.path()).unwrap();
    assert_eq!(found.params, want.params);
    assert_ne!(found.hash, want.hash, "other files");
    let hash = found.hash;
    write_parts(
        &at(two),
        &second
            .iter()
            .cloned()
            .map(|mut p| {
                p.3[0] ^= 1;
                p
            })
            .collect(),
    );
    assert_ne!(Model::load(folder.path()).unwrap().hash, hash, "every shard is in the hash");

    let fails = |words: &[&str]| {
        let error = Model::load(folder.path()).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)) && error.contains("hint: "), "{words:?}: {error}");
    };
    write_parts(&at(two), &first);
    fails(&[two, "is missing", "index.json puts into"]);
    write_parts(&at(two), &[second.clone(), vec![("extra".into(), Dtype::F32, vec![2], vec![0; 8])]].concat());
    fails(&[two, "`extra`", "does not put into it"]);
    fs::remove_file(at(two)).unwrap();
    fails(&[two, "is missing"]);
    for bad in ["../x.safetensors", "/x.safetensors", "", ".."] {
        index(&json!({"lm_head.weight": bad}));
        fails(&["index.json", "no file of this folder"]);
    }
    index(&json!([]));
    fails(&["index.json", "weight_map"]);
    fs::write(at("model.safetensors"), b"").unwrap();
    fails(&["index.json", "twice"]);
    for name in ["model.safetensors", "model.safetensors.index.json", one] {
        fs::remove_file(at(name)).unwrap();
    }
    fs::write(at("pytorch_model.bin"), b"x").unwrap();
    fails(&["model.safetensors", "no such file", "`pytorch_model.bin` is there"]);
}

#[test]
fn configs_are_told_by_field_and_line() {
    let error = |text: &str| graph_of_config(Path::new("config.json"), text.as_bytes()).unwrap_err().to_string();
    let config = small_config().to_string();
    for (from, to, words) in [
        ("\"seq_len\":4", "\"seq_len\":-4", &["`seq_len` is -4"][..]),
        ("\"seq_len\":4", "\"seq_len\":4.5", &["`seq_len` is 4.5"]),
        ("\"seq_len\":4", "\"seq_len\":\"4\"", &["`seq_len` is \"4\""]),
        ("\"seq_len\":4", "\"seq_len\":null", &["`seq_len` is null"]),
        ("\"seq_len\":4", "\"seq_len\":\"four\"", &["`seq_len` is \"four\""]),
        ("\"seq_len\":4", "\"seq_len\":[4]", &["`seq_len` is [4]"]),
        ("\"seq_len\":4", "\"rms_norm_eps\":null,\"seq_len\":4", &["`rms_norm_eps` is null"]),
        ("\"seq_len\":4", "\"other\":4", &["missing field `seq_len`"]),
        ("\"seq_len\":4", "\"seq_len\":4,\"seq_len\":5", &["line 1, column", "repeated key `seq_len`", "hint: "]),
        ("\"seq_len\":4", "\"seq_len\":NaN", &["line 1, column", "no NaN"]),
        ("\"seq_len\":4", "\"seq_len\":1e999", &["line 1, column", "out of range"]),
        ("}", ",}", &["line 1, column", "trailing comma"]),
        ("}", "} // end", &["line 1, column", "hint: "]),
    ] {
        assert!(config.contains(from));
        let error = error(&config.replacen(from, to, 1));
        assert!(words.iter().all(|w| error.contains(w)), "{to}: {error}");
    }
    assert!(error("").contains("is empty"));
    assert!(graph_of_config(Path::new("config.json"), format!("\u{feff}{config}\r\n").as_bytes()).is_ok());
    let error = Model::load(Path::new("Cargo.toml")).unwrap_err().to_string();
    assert!(error.contains("Cargo.toml: is a file") && error.contains("ends in `.onnx`"), "{error}");
}

#[test]
fn halves_become_singles() {
    for (h, f) in [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f32.powi(-24)), (0x7bff, 65504.0), (0x8000, -0.0)] {
        assert_eq!(f16_to_f32(h).to_bits(), f32::to_bits(f));
    }
    assert!(f16_to_f32(0x7e00).is_nan());
    assert_eq!(to_f32(Dtype::BF16, &[0x80, 0x3f]), Some(vec![1.0]));
}

proptest::proptest! {
    #[test]
    fn no_config_text_panics(text in "\\PC{0,200}") {
        let _ = graph_of_config(Path::new("config.json"), text.as_bytes());
    }

    #[test]
    fn no_damage_to_a_weights_file_panics(at in 0usize..4000, value: u8) {
        let model = Model::random(&small_config(), 3).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Model::save(folder.path(), &small_config(), model.graph().unwrap(), &model.params).unwrap();
        let file = folder.path().join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        fs::write(&file, &bytes).unwrap();
        let _ = Model::load(folder.path());
    }

    #[test]
    fn no_field_of_a_config_panics(field in 0usize..9, value in proptest::prelude::any::<i64>()) {
        let mut config = trm(true, 81, 11, 6);
        let names = ["seq_len", "vocab_size", "hidden_size", "num_heads", "expansion", "H_cycles", "L_layers", "puzzle_emb_len", "puzzle_emb_ndim"];
        config[names[field]] = value.into();
        let _ = build_graph(&config);
    }
}
