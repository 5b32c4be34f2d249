//! Known figures of the published nets, and bad model files.

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
    use crate::graph::{Activation, Family, Halting, Op, RegionBuilder, ValueType};
    let mut params = Params::default();
    let router = params.weight("router", 8, 16).unwrap();
    let gate_up = params.add("gate_up", &[8, 64, 16], Role::Weight, Start::Constant(0.0)).unwrap();
    let down = params.add("down", &[8, 16, 32], Role::Weight, Start::Constant(0.0)).unwrap();
    let x = ValueType::float(5, 16);
    let mut step = RegionBuilder::new(&params.0, &[x]);
    let y = step.op(Op::MoeMlp { router, gate_up, down, act: Activation::Silu, top_k: 2 }, &[step.arg(0)]).unwrap();
    let step = step.finish(&[y]);
    let admit = RegionBuilder::new(&params.0, &[]).finish(&[]);
    let graph = Graph {
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
    Model::save(folder, &config, &model.graph, &model.params).unwrap();
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
    assert!(error("truncated").contains("cut off or damaged"));
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
    assert!(error("oversized").contains("at most"));
    for bad in [
        json!({"model_type": "encodr"}),
        json!({"model_type": "encoder", "seq_len": 18_446_744_073_709_551_615u64}),
        json!({"model_type": "encoder", "seq_len": 4, "vocab_size": 5, "hidden_size": 4_194_304, "num_layers": 1024, "num_heads": 1, "expansion": 1000.0, "pos_encodings": "rope"}),
        json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_heads": 3, "expansion": 4, "H_cycles": 0, "L_cycles": 1, "L_layers": 1}),
        json!([1, 2]),
    ] {
        fs::write(path.join("config.json"), bad.to_string()).unwrap();
        error("bad config");
    }
    fs::write(path.join("config.json"), "{\"model_type\": ").unwrap();
    assert!(error("half a config").contains("line 1"));
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
        Model::save(folder.path(), &small_config(), &model.graph, &model.params).unwrap();
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
