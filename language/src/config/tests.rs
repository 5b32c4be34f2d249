//! Configs of published models and of the recorded nets, and what is refused of them.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn config(value: &Value) -> Result<DecoderConfig, String> {
    of_json(value.to_string().as_bytes(), Path::new("config.json")).map_err(|e| e.to_string())
}

/// Llama 3.2 1B as published, sizes made smaller.
fn llama3() -> Value {
    json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 160, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "intermediate_size": 128,
        "num_hidden_layers": 2, "hidden_act": "silu", "tie_word_embeddings": true, "rope_theta": 500000.0,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "bos_token_id": 1, "eos_token_id": [2, 3]})
}

fn changed(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

#[test]
fn both_spellings_of_rope_scaling_are_one_config() {
    let old = config(&llama3()).unwrap();
    let mut new = llama3();
    let mut parameters = new.as_object_mut().unwrap().remove("rope_scaling").unwrap();
    parameters["rope_theta"] = new.as_object_mut().unwrap().remove("rope_theta").unwrap();
    new["rope_parameters"] = parameters;
    assert_eq!(config(&new).unwrap(), old);
    let rope = old.layers[0].rope.as_ref().unwrap();
    assert_eq!(rope.theta, 500_000.0);
    assert_eq!(rope.scaling, RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192 });
    assert_eq!((old.ends.as_slice(), old.begin, old.tied_head), (&[2, 3][..], Some(1), true));
    assert_eq!(old.attention.scale, 0.25);
}

#[test]
fn frequencies_are_those_of_the_published_formulas() {
    let rope = config(&llama3()).unwrap().layers[0].rope.clone().unwrap();
    // the branches of transformers' `_compute_llama3_parameters`, in Python
    let expected = [
        1.0,
        0.19392274474868576,
        0.03760603093086393,
        0.0072926647372171085,
        0.00042955679655936815,
        8.570255489881478e-06,
        1.661967467795309e-06,
        3.2229329303788936e-07,
    ];
    let frequencies = rope.frequencies(100, &[]).unwrap();
    assert_eq!(frequencies.len(), expected.len());
    for (ours, theirs) in frequencies.iter().zip(expected) {
        assert!((ours / theirs - 1.0).abs() < 1e-6, "{ours} for {theirs}");
    }
    let plain = RopeConfig { scaling: RopeScaling::None, ..rope.clone() }.frequencies(100, &[]).unwrap();
    assert_eq!(plain[0], 1.0);
    assert!((plain[1] - 500_000f64.powf(-0.125)).abs() < 1e-12);
    // the fastest are as without scaling, the slowest divided by the factor, between them a ramp
    assert_eq!(frequencies[..3], plain[..3]);
    assert!((frequencies[7] * 32.0 / plain[7] - 1.0).abs() < 1e-9);
    let linear = RopeConfig { scaling: RopeScaling::Linear(8.0), ..rope.clone() };
    assert!((linear.frequencies(1, &[]).unwrap()[0] - 0.125).abs() < 1e-12);
    let long = RopeScaling::LongRope { short: vec![1.0; 8], long: vec![2.0; 8], original: 64, attention: 1.1 };
    let long = RopeConfig { scaling: long, ..rope.clone() };
    assert_eq!((long.frequencies(64, &[]).unwrap()[0], long.frequencies(65, &[]).unwrap()[0]), (1.0, 0.5));
    let divided = RopeConfig { scaling: RopeScaling::Divisors, ..rope };
    assert_eq!(divided.frequencies(1, &[4.0; 8]).unwrap()[0], 0.25);
    assert!(divided.frequencies(1, &[4.0; 7]).unwrap_err().contains("7 divisors of frequencies for 8 pairs"));
}

#[test]
fn older_configs_of_gemma_3_give_their_windows() {
    let old = json!({"model_type": "gemma3_text", "hidden_size": 640, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "intermediate_size": 2048, "num_hidden_layers": 12, "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256, "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let config = config(&old).unwrap();
    let windows: Vec<_> = config.layers.iter().map(|l| l.window).collect();
    let six = [Some(512), Some(512), Some(512), Some(512), Some(512), None];
    assert_eq!(windows, [six, six].concat());
    let rope = |i: usize| config.layers[i].rope.clone().unwrap();
    assert_eq!((rope(0).theta, rope(0).scaling), (10_000.0, RopeScaling::None));
    assert_eq!((rope(5).theta, rope(5).scaling), (1e6, RopeScaling::Linear(8.0)));
    assert_eq!((config.attention.scale, config.norm.offset, config.tied_head), (0.0625, 1.0, true));
    assert_eq!(config.embedding_scale, 640f32.sqrt());
    // without a base of their own windows have the family's; a flat spelling beside it changes nothing of theirs
    let mut bare = old.clone();
    bare.as_object_mut().unwrap().remove("rope_local_base_freq");
    let mut flat = old.clone();
    flat["rope_parameters"] = json!({"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0});
    flat.as_object_mut().unwrap().remove("rope_scaling");
    for other in [bare, flat] {
        assert_eq!(self::config(&other).unwrap().layers, config.layers, "{other}");
    }
}

#[test]
fn keys_are_taken_as_transformers_takes_them() {
    // Llama has no window, whatever its config says; Mistral has
    let llama = changed(llama3(), "sliding_window", json!(16));
    assert_eq!(config(&llama).unwrap().layers[0].window, None);
    assert_eq!(config(&changed(llama, "model_type", json!("mistral"))).unwrap().layers[0].window, Some(16));
    // 80 * 0.9 is 72 in Python
    let mut partial = changed(llama3(), "head_dim", json!(80));
    partial["partial_rotary_factor"] = json!(0.9);
    partial["rope_scaling"] = Value::Null;
    assert_eq!(config(&partial).unwrap().layers[0].rope.as_ref().unwrap().width, 72);
}

#[test]
fn phi_3_has_factors_for_short_and_long_texts() {
    let phi3 = json!({"model_type": "phi3", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
        "vocab_size": 160, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "intermediate_size": 128, "num_hidden_layers": 1, "hidden_act": "silu",
        "rope_theta": 10000.0, "sliding_window": 2047,
        "rope_scaling": {"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![2.0; 8]}});
    let config = config(&phi3).unwrap();
    assert_eq!(config.layers[0].window, Some(2047));
    let RopeScaling::LongRope { attention, original, .. } = &config.layers[0].rope.as_ref().unwrap().scaling else {
        panic!("{config:?}")
    };
    // sqrt(1 + ln 32 / ln 4096), as published for Phi-3
    assert_eq!(*original, 4096);
    assert!((attention - 1.190_238).abs() < 1e-6, "{attention}");
}

#[test]
fn what_is_not_known_is_named() {
    let cases = [
        (changed(llama3(), "model_type", json!("mamba")), "`model_type` is `mamba`, no decoder"),
        (changed(llama3(), "hidden_size", json!("64")), "`hidden_size` is \\\"64\\\", not a count"),
        (changed(llama3(), "hidden_size", Value::Null), "`hidden_size` is missing"),
        (changed(llama3(), "num_key_value_heads", json!(3)), "4 heads cannot share 3 key-value heads"),
        (changed(llama3(), "num_hidden_layers", json!(1e9)), "`num_hidden_layers` is 1000000000"),
        (changed(llama3(), "vocab_size", json!(0)), "the vocabulary size is 0"),
        (changed(llama3(), "hidden_act", json!("relu7")), "`hidden_act` is `relu7`, an unknown activation"),
        (changed(llama3(), "rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})), "rope scaling is `yarn`"),
        (changed(llama3(), "rope_scaling", json!({"factor": 4.0})), "rope scaling is not named"),
        (
            changed(llama3(), "rope_scaling", json!({"rope_type": "llama3", "factor": 4.0})),
            "`rope_scaling.low_freq_factor` is missing",
        ),
        (changed(llama3(), "head_dim", json!(15)), "15 of 15 elements of a head are turned"),
        (changed(llama3(), "eos_token_id", json!(160)), "token 160 begins or ends a text"),
        (changed(llama3(), "layer_types", json!(["full_attention"])), "`layer_types` has 1 elements for 2 layers"),
        (
            changed(llama3(), "layer_types", json!(["full_attention", "linear_attention"])),
            "`layer_types` has `linear_attention`",
        ),
        (
            changed(llama3(), "layer_types", json!(["full_attention", "sliding_attention"])),
            "`sliding_window` is missing",
        ),
        (changed(llama3(), "rms_norm_eps", json!(-1.0)), "the epsilon of norms is -1"),
        (changed(llama3(), "use_bidirectional_attention", json!(true)), "sees what comes after"),
        (changed(llama3(), "rope_parameters", json!({"rope_theta": 1e4})), "are both there and differ"),
        (
            changed(changed(llama3(), "num_attention_heads", json!(1u64 << 40)), "head_dim", json!(1u64 << 40)),
            "the number of heads is",
        ),
        (
            changed(
                changed(llama3(), "num_hidden_layers", json!(4096)),
                "rope_scaling",
                json!({"type": "longrope", "original_max_position_embeddings": 9, "factor": 2, "short_factor": vec![1.0; 99],
                    "long_factor": vec![1.0; 8]}),
            ),
            "longrope has 99 and 8 divisors for 8 pairs",
        ),
        (json!([]), "no JSON object"),
    ];
    for (value, said) in cases {
        let error = config(&value).unwrap_err();
        assert!(error.starts_with("config.json: ") && error.contains(said), "{said}: {error}");
        assert!(error.contains("\nhint: "), "{error}");
    }
}
