//! Folders of every family and GGUF files, made of recorded configs, names and shapes; and folders that lack something.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::{
    blocks::BlockType,
    config::{DecoderFamily, ParallelLayers, RopeLayout, RopeScaling},
    gguf::{GgufTensor, GgufValue, write},
    tokenizer::Encoding,
};

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/golden/language", name].iter().collect()
}

/// Config and shapes of a recorded net.
fn recorded(name: &str) -> (Value, BTreeMap<String, Vec<usize>>) {
    let value: Value = serde_json::from_slice(&fs::read(golden(&format!("{name}.json"))).unwrap()).unwrap();
    let shapes = value["tensors"].as_object().unwrap().iter();
    let shape = |v: &Value| v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    (value["config"].clone(), shapes.map(|(k, v)| (k.clone(), shape(v))).collect())
}

/// Element `i` of every tensor is `i`, so that a value says where it came from.
fn floats(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

/// Writes a safetensors file.
fn safetensors(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) {
    let data: Vec<(String, Vec<usize>, Vec<u8>)> =
        shapes.iter().map(|(k, s)| (k.clone(), s.clone(), floats(s.iter().product()))).collect();
    let views = data.iter().map(|(k, s, d)| {
        (k.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, s.clone(), d).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn folder(config: &Value, shapes: &BTreeMap<String, Vec<usize>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    safetensors(&folder.path().join("model.safetensors"), shapes);
    folder
}

fn opened(name: &str) -> Decoder {
    let (config, shapes) = recorded(name);
    let folder = folder(&config, &shapes);
    let decoder = Decoder::open(folder.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let elements: usize = shapes.values().map(|s| s.iter().product::<usize>()).sum();
    assert_eq!(decoder.parameters(), elements as u64, "{name}: every element has its place");
    for (name, tensor) in decoder.tensors() {
        assert_eq!(decoder.dequantise(name).unwrap().len(), tensor.shape.iter().product::<usize>(), "{name}");
    }
    decoder
}

#[test]
fn every_recorded_family_is_described() {
    use DecoderFamily::{Falcon, Gemma, Gemma3, GptNeo, Llama, Mixtral, Phi3};
    let families = [
        ("llama", Llama),
        ("gemma", Gemma),
        ("gemma3", Gemma3),
        ("phi3", Phi3),
        ("mixtral", Mixtral),
        ("falcon", Falcon),
        ("gpt-neo", GptNeo),
    ];
    for (name, family) in families {
        let decoder = opened(name);
        let config = &decoder.config;
        assert_eq!(config.family, family);
        assert_eq!((config.vocabulary, config.width, config.context, config.layers.len()), (160, 64, 256, 2), "{name}");
        assert_eq!(config.attention.heads, 4);
        let rotary = config.layers.iter().all(|l| l.rope.is_some());
        assert_eq!((rotary, config.position_rows), if name == "gpt-neo" { (false, Some(256)) } else { (true, None) });
    }
    let gemma3 = opened("gemma3").config;
    assert_eq!(gemma3.layers.iter().map(|l| l.window).collect::<Vec<_>>(), [Some(16), None]);
    let thetas: Vec<f32> = gemma3.layers.iter().map(|l| l.rope.as_ref().unwrap().theta).collect();
    assert_eq!(thetas, [10_000.0, 1_000_000.0]);
    assert!(gemma3.attention.query_key_norm && gemma3.post_norms && gemma3.tied_head);
    let falcon = opened("falcon").config;
    assert_eq!((falcon.parallel, falcon.attention.key_value_heads), (ParallelLayers::TwoNorms, 2));
    assert!(falcon.norm.centred && !falcon.mlp.gated);
    let neo = opened("gpt-neo").config;
    assert_eq!((neo.attention.scale, neo.attention.bias, neo.attention.output_bias), (1.0, false, true));
    assert_eq!(neo.layers.iter().map(|l| l.window).collect::<Vec<_>>(), [None, Some(16)]);
    let experts = opened("mixtral").config.mlp.experts.unwrap();
    assert_eq!((experts.count, experts.used), (4, 2));
}

#[test]
fn fused_tensors_are_cut_where_they_belong() {
    // qkv_proj [128, 64] is q 64, k 32, v 32 rows; gate_up_proj [256, 64] gate and up
    let phi3 = opened("phi3");
    assert_eq!(phi3.rows("layers.1.k.weight", 0..1).unwrap()[0], 64.0 * 64.0);
    assert_eq!(phi3.rows("layers.1.v.weight", 31..32).unwrap()[63], 128.0 * 64.0 - 1.0);
    assert_eq!(phi3.rows("layers.0.up.weight", 0..1).unwrap()[0], 128.0 * 64.0);
    // query_key_value [128, 64] is two groups of two heads of q, one of k, one of v, 16 rows each
    let falcon = opened("falcon");
    let first = |name: &str, row: usize| falcon.rows(name, row..row + 1).unwrap()[0] / 64.0;
    let rows = [
        ("q", 0, 0.0),
        ("q", 31, 31.0),
        ("q", 32, 64.0),
        ("k", 0, 32.0),
        ("k", 16, 96.0),
        ("v", 0, 48.0),
        ("v", 16, 112.0),
    ];
    for (name, row, stored) in rows {
        assert_eq!(first(&format!("layers.0.{name}.weight"), row), stored, "{name}, row {row}");
    }
    // experts lie one after the other
    let mixtral = opened("mixtral");
    let tensor = &mixtral.tensors()["layers.0.experts.down.weight"];
    assert_eq!((tensor.shape.as_slice(), tensor.parts.len()), (&[4, 64, 128][..], 4));
    assert!(tensor.parts[2].stored.ends_with("experts.2.w2.weight"));
    let mut bytes = Vec::new();
    mixtral.stored_rows("layers.0.experts.down.weight", 63..65, &mut bytes).unwrap();
    assert_eq!(bytes, [&floats(64 * 128)[63 * 128 * 4..], &floats(128)].concat());
}

#[test]
fn gpt_2_is_stored_transposed() {
    let config = json!({"model_type": "gpt2", "n_embd": 4, "n_head": 2, "n_layer": 1, "n_positions": 8, "vocab_size": 6,
        "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "bos_token_id": 5, "eos_token_id": 5});
    let shapes = [
        ("wte.weight", vec![6, 4]),
        ("wpe.weight", vec![8, 4]),
        ("ln_f.weight", vec![4]),
        ("ln_f.bias", vec![4]),
        ("h.0.ln_1.weight", vec![4]),
        ("h.0.ln_1.bias", vec![4]),
        ("h.0.ln_2.weight", vec![4]),
        ("h.0.ln_2.bias", vec![4]),
        ("h.0.attn.bias", vec![1, 1, 8, 8]),
        ("h.0.attn.c_attn.weight", vec![4, 12]),
        ("h.0.attn.c_attn.bias", vec![12]),
        ("h.0.attn.c_proj.weight", vec![4, 4]),
        ("h.0.attn.c_proj.bias", vec![4]),
        ("h.0.mlp.c_fc.weight", vec![4, 16]),
        ("h.0.mlp.c_fc.bias", vec![16]),
        ("h.0.mlp.c_proj.weight", vec![16, 4]),
        ("h.0.mlp.c_proj.bias", vec![4]),
    ];
    let shapes = shapes.map(|(k, s)| (k.to_owned(), s)).into();
    let folder = folder(&config, &shapes);
    let decoder = Decoder::open(folder.path()).unwrap();
    // row r of k is column 4 + r of c_attn
    assert_eq!(decoder.rows("layers.0.k.weight", 1..2).unwrap(), [5.0, 17.0, 29.0, 41.0]);
    assert_eq!(decoder.dequantise("layers.0.v.bias").unwrap(), [8.0, 9.0, 10.0, 11.0]);
    assert_eq!(decoder.tensors()["layers.0.down.weight"].shape, [4, 16]);
    let error = decoder.stored_rows("layers.0.k.weight", 0..1, &mut Vec::new()).unwrap_err();
    assert!(error.message.contains("does not lie in rows"), "{error}");
}

#[test]
fn shards_are_read_by_their_index() {
    let (config, shapes) = recorded("llama");
    let folder = folder(&config, &shapes);
    let (one, index) = (folder.path().join("model.safetensors"), folder.path().join("model.safetensors.index.json"));
    fs::remove_file(&one).unwrap();
    let name = |i: usize| format!("model-0000{}-of-00002.safetensors", i + 1);
    let mut map = serde_json::Map::new();
    let mut halves = [BTreeMap::new(), BTreeMap::new()];
    for (i, (tensor, shape)) in shapes.iter().enumerate() {
        map.insert(tensor.clone(), name(i % 2).into());
        halves[i % 2].insert(tensor.clone(), shape.clone());
    }
    (0..2).for_each(|i| safetensors(&folder.path().join(name(i)), &halves[i]));
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let open = || Decoder::open(folder.path()).map(|_| ()).map_err(|e| e.to_string());
    open().unwrap();
    map.insert("other".into(), name(1).into());
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let error = open().unwrap_err();
    assert!(error.contains("model-00002-of-00002.safetensors: tensor `other` is missing"), "{error}");
    map.insert("other".into(), "../x.safetensors".into());
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    assert!(open().unwrap_err().contains("no file of this folder"));
    map.remove("other");
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    fs::remove_file(folder.path().join(name(1))).unwrap();
    let error = open().unwrap_err();
    assert!(error.contains(&name(1)) && error.contains("all its shards"), "{error}");
    safetensors(&one, &shapes);
    assert!(open().unwrap_err().contains("the weights are there twice"));
    // an index of the one file, as other libraries write it; a mask in it is passed over
    map.values_mut().for_each(|file| *file = "model.safetensors".into());
    map.insert("h.0.attn.attention.bias".into(), "model.safetensors".into());
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    open().unwrap();
}

#[test]
fn a_folder_that_does_not_fit_its_config_is_refused() {
    let (config, shapes) = recorded("llama");
    type Change = fn(&mut Value, &mut BTreeMap<String, Vec<usize>>);
    let cases: [(Change, &str); 4] = [
        (
            |_, s| {
                s.remove("model.layers.1.mlp.up_proj.weight");
            },
            "tensor `model.layers.1.mlp.up_proj.weight` is missing",
        ),
        (
            |_, s| {
                s.insert("model.norm.weight".into(), vec![65]);
            },
            "tensor `model.norm.weight` has shape [65], the config asks for [64]",
        ),
        (
            |_, s| {
                s.insert("model.layers.2.x".into(), vec![1]);
            },
            "tensor `model.layers.2.x` is left over",
        ),
        (|c, _| c["num_hidden_layers"] = 3.into(), "tensor `model.layers.2.input_layernorm.weight` is missing"),
    ];
    for (change, said) in cases {
        let (mut config, mut shapes) = (config.clone(), shapes.clone());
        change(&mut config, &mut shapes);
        let error = Decoder::open(folder(&config, &shapes).path()).err().unwrap().to_string();
        assert!(error.contains(said) && error.contains("\nhint: "), "{said}: {error}");
    }
    let folder = folder(&config, &shapes);
    let file = folder.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 4]).unwrap();
    let error = Decoder::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("ends at byte"), "{error}");
    fs::write(&file, [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat()).unwrap();
    let error = Decoder::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("it claims a header of 18446744073709551615 bytes"), "{error}");
}

/// A mixture of the architecture `llama` with the tokens of a small vocabulary.
fn mixture(change: impl Fn(&mut Vec<(String, GgufValue)>, &mut Vec<GgufTensor<'_>>)) -> tempfile::NamedTempFile {
    let tokens = Gguf::open(&golden("tokens-smollm2.gguf")).unwrap();
    let mut metadata: Vec<(String, GgufValue)> = tokens
        .metadata()
        .iter()
        .filter(|(k, _)| k.starts_with("tokenizer."))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    metadata.push(("general.architecture".into(), GgufValue::Text("llama".into())));
    metadata.push(("llama.attention.layer_norm_rms_epsilon".into(), GgufValue::Float(1e-5)));
    let counts = [
        ("context_length", 64),
        ("embedding_length", 32),
        ("block_count", 1),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("feed_forward_length", 32),
        ("expert_count", 3),
        ("expert_used_count", 2),
    ];
    metadata.extend(counts.map(|(k, n)| (format!("llama.{k}"), GgufValue::Unsigned(n))));
    let floats = floats(512 * 32);
    let blocks = [0u8; 512 * 34];
    let tensor = |name: &str, kind: BlockType, shape: &[usize]| {
        let bytes = kind.bytes_of(shape.iter().product::<usize>() as u64).unwrap() as usize;
        let from: &[u8] = if kind == BlockType::F32 { &floats } else { &blocks };
        GgufTensor { name: name.into(), kind, shape: shape.to_vec(), bytes: &from[..bytes] }
    };
    let mut tensors = vec![
        tensor("token_embd.weight", BlockType::Q8_0, &[512, 32]),
        tensor("output_norm.weight", BlockType::F32, &[32]),
        tensor("rope_freqs.weight", BlockType::F32, &[4]),
        tensor("blk.0.attn_norm.weight", BlockType::F32, &[32]),
        tensor("blk.0.attn_q.weight", BlockType::Q4_1, &[32, 32]),
        tensor("blk.0.attn_k.weight", BlockType::Q4_1, &[16, 32]),
        tensor("blk.0.attn_v.weight", BlockType::Q4_1, &[16, 32]),
        tensor("blk.0.attn_output.weight", BlockType::Q4_1, &[32, 32]),
        tensor("blk.0.ffn_norm.weight", BlockType::F32, &[32]),
        tensor("blk.0.ffn_gate_inp.weight", BlockType::F32, &[3, 32]),
        tensor("blk.0.ffn_gate_exps.weight", BlockType::Q4_1, &[3, 32, 32]),
        tensor("blk.0.ffn_up_exps.weight", BlockType::Q4_1, &[3, 32, 32]),
        tensor("blk.0.ffn_down_exps.weight", BlockType::F32, &[3, 32, 32]),
    ];
    change(&mut metadata, &mut tensors);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write(&mut file, &metadata, &tensors).unwrap();
    file
}

#[test]
fn a_mixture_is_read_from_gguf() {
    let file = mixture(|_, _| {});
    let decoder = Decoder::open(file.path()).unwrap();
    let config = &decoder.config;
    assert_eq!((config.vocabulary, config.width, config.attention.head_width), (512, 32, 8));
    let experts = config.mlp.experts.unwrap();
    assert_eq!((experts.count, experts.used, config.mlp.inner, config.tied_head), (3, 2, 32, true));
    let rope = config.layers[0].rope.as_ref().unwrap();
    assert_eq!(rope.layout, RopeLayout::Interleaved);
    let divisors = decoder.dequantise("rope_divisors.weight").unwrap();
    assert_eq!(divisors, [0.0, 1.0, 2.0, 3.0]);
    assert!(rope.frequencies(1, &divisors).is_err());
    assert_eq!(decoder.rows("layers.0.experts.down.weight", 32..33).unwrap()[0], 32.0 * 32.0);
    let mut bytes = Vec::new();
    decoder.stored_rows("layers.0.q.weight", 0..3, &mut bytes).unwrap();
    assert_eq!(bytes.len(), 3 * 20);
    assert!(decoder.rows("layers.0.q.weight", 0..33).unwrap_err().message.contains("has 32 rows"));
    assert!(decoder.rows("layers.0.gate.weight", 0..1).unwrap_err().message.contains("has no tensor"));
    let tokenizer = decoder.tokenizer.as_ref().unwrap();
    assert_eq!(tokenizer.encode(" ", Encoding { additions: false, special: false }).unwrap().len(), 1);
    assert!(decoder.template.is_some());
    // what ends a turn is known by its text; a factor alone is a linear one, and a scale of 0 is none
    let texts: Vec<_> = config.ends.iter().map(|id| tokenizer.text(*id).unwrap()).collect();
    assert!(texts.contains(&"<|im_end|>".to_owned()) && texts.contains(&"<|endoftext|>".to_owned()), "{texts:?}");
    let file = mixture(|m, t| {
        t.retain(|t| t.name != "rope_freqs.weight");
        m.push(("llama.rope.scaling.factor".into(), GgufValue::Float(4.0)));
        m.push(("llama.attention.scale".into(), GgufValue::Float(0.0)));
        // a template that is none keeps nobody from the weights
        m.retain(|(k, _)| k != "tokenizer.chat_template");
        m.push(("tokenizer.chat_template".into(), GgufValue::Text("{% nothing %}".into())));
    });
    let decoder = Decoder::open(file.path()).unwrap();
    assert_eq!(decoder.config.layers[0].rope.as_ref().unwrap().scaling, RopeScaling::Linear(4.0));
    assert_eq!(decoder.config.attention.scale, 8f32.powf(-0.5));
    assert!(decoder.template.unwrap().render(&[], true).unwrap_err().message.contains("nothing"));
    // weights that are no numbers are named
    let file = mixture(|_, t| t.iter_mut().find(|t| t.name == "output_norm.weight").unwrap().bytes = &[0xff; 128]);
    let error = Decoder::open(file.path()).unwrap().dequantise("norm.weight").unwrap_err();
    assert!(error.message.contains("of `norm.weight` is NaN"), "{error}");
}

#[test]
fn metadata_that_do_not_fit_the_tensors_are_refused() {
    type Change = fn(&mut Vec<(String, GgufValue)>, &mut Vec<GgufTensor<'_>>);
    fn with(m: &mut Vec<(String, GgufValue)>, key: &str, value: GgufValue) {
        m.push((key.into(), value));
    }
    let cases: [(Change, &str); 10] = [
        (|m, _| with(m, "split.count", GgufValue::Unsigned(3)), "it is part 1 of 3 of a model"),
        (|m, _| with(m, "llama.rope.scaling.factor", GgufValue::Float(4.0)), "and the factor 4 both scale"),
        (|m, _| with(m, "llama.rope.scaling.type", GgufValue::Text("yarn".into())), "is `yarn`, which is not known"),
        (
            |m, _| with(m, "llama.rope.scaling.attn_factor", GgufValue::Float(1.2)),
            "`llama.rope.scaling.attn_factor` is 1.2, which is not computed",
        ),
        (|m, _| with(m, "llama.attention.causal", GgufValue::Bool(false)), "`llama.attention.causal` is false"),
        (|m, _| with(m, "llama.expert_gating_func", GgufValue::Unsigned(2)), "`llama.expert_gating_func` is 2"),
        (|m, _| m.retain(|(k, _)| k != "llama.block_count"), "`llama.block_count` is missing"),
        (
            |m, _| m.iter_mut().find(|(k, _)| k == "llama.expert_used_count").unwrap().1 = GgufValue::Unsigned(4),
            "a token meets 4 of 3 experts",
        ),
        (
            |m, _| m.iter_mut().find(|(k, _)| k == "general.architecture").unwrap().1 = GgufValue::Text("mamba".into()),
            "is `mamba`, which is not read",
        ),
        (|_, t| t.retain(|t| t.name != "blk.0.ffn_up_exps.weight"), "`blk.0.ffn_up_exps.weight` is missing"),
    ];
    for (change, said) in cases {
        let opened = Decoder::open(mixture(change).path());
        let error = opened.err().unwrap().to_string();
        assert!(error.contains(said) && error.contains("\nhint: "), "{said}: {error}");
    }
}
