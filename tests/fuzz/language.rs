//! Files of language models: GGUF with its tokenizer and net, configs and indices of folders, `tokenizer.json`.
//!
//! In: bytes, or the file that they lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs.

use std::fs;
use std::path::Path;

use ergometer_language::{
    BlockType, Decoder, Encoding, Gguf, TextTokenizer,
    gguf::{GgufArray, GgufTensor, GgufValue, write},
    tokenizer::ChatMessage,
};
use serde_json::{Value, json};

use super::{Outcome, read, said};

/// Two small files: every kind of value, floats and blocks.
pub(super) fn ggufs(_: &Path) -> Vec<Vec<u8>> {
    let metadata = [
        ("general.architecture", GgufValue::Text("llama".into())),
        ("general.alignment", GgufValue::Unsigned(32)),
        ("a.signed", GgufValue::Signed(-7)),
        ("a.float", GgufValue::Float(0.5)),
        ("a.bool", GgufValue::Bool(true)),
        ("a.texts", GgufValue::Array(GgufArray::Text(vec!["x".into(), "ü".into()]))),
        ("a.nested", GgufValue::Array(GgufArray::Nested(vec![GgufArray::Float(vec![1.0]); 2]))),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let bytes: Vec<u8> = (0..144).collect();
    let tensor = |name: &str, kind: BlockType, shape: &[usize], n: usize| GgufTensor {
        name: name.into(),
        kind,
        shape: shape.to_vec(),
        bytes: &bytes[..n],
    };
    let tensors = [tensor("a", BlockType::F32, &[2, 3], 24), tensor("b", BlockType::Q4K, &[1, 256], 144)];
    let file = |tensors: &[GgufTensor<'_>]| {
        let mut file = Vec::new();
        write(&mut file, &metadata, tensors).unwrap();
        file
    };
    vec![file(&tensors), file(&[])]
}

pub(super) fn gguf_file(_: &[u8], path: &Path) -> Outcome {
    match Gguf::open(path) {
        Ok(gguf) => {
            for (name, entry) in gguf.tensors().entries() {
                assert_eq!(gguf.tensors().dequantise(name).unwrap().len(), entry.elements());
            }
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

const HOW: Encoding = Encoding { additions: true, special: true };

/// Small vocabularies, byte pairs and SentencePiece.
pub(super) fn vocabularies(_: &Path) -> Vec<Vec<u8>> {
    ["gpt2", "phi3"].map(|name| read(format!("tests/golden/language/tokens-{name}.gguf"))).into()
}

pub(super) fn vocabulary_file(_: &[u8], path: &Path) -> Outcome {
    let tokenizer = Gguf::open(path).and_then(|gguf| TextTokenizer::of_gguf(&gguf));
    match tokenizer.and_then(|t| t.encode("Hello  w\u{f6}rld <|end|>\n 12345", HOW).map(|ids| (t, ids))) {
        Ok((tokenizer, ids)) => {
            tokenizer.decode(&ids, true).unwrap();
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

/// A mixture of one layer, without a tokenizer.
pub(super) fn decoders(_: &Path) -> Vec<Vec<u8>> {
    let counts = [
        ("context_length", 64),
        ("embedding_length", 8),
        ("block_count", 1),
        ("attention.head_count", 2),
        ("feed_forward_length", 4),
        ("expert_count", 2),
        ("expert_used_count", 1),
    ];
    let mut metadata = vec![
        ("general.architecture".into(), GgufValue::Text("llama".into())),
        ("llama.attention.layer_norm_rms_epsilon".into(), GgufValue::Float(1e-5)),
    ];
    metadata.extend(counts.map(|(key, n)| (format!("llama.{key}"), GgufValue::Unsigned(n))));
    let zeros = [0; 256];
    let tensor = |name: &str, shape: &[usize]| GgufTensor {
        name: format!("{name}.weight"),
        kind: BlockType::F32,
        shape: shape.to_vec(),
        bytes: &zeros[..4 * shape.iter().product::<usize>()],
    };
    let tensors = [
        tensor("token_embd", &[5, 8]),
        tensor("output_norm", &[8]),
        tensor("blk.0.attn_norm", &[8]),
        tensor("blk.0.attn_q", &[8, 8]),
        tensor("blk.0.attn_k", &[8, 8]),
        tensor("blk.0.attn_v", &[8, 8]),
        tensor("blk.0.attn_output", &[8, 8]),
        tensor("blk.0.ffn_norm", &[8]),
        tensor("blk.0.ffn_gate_inp", &[2, 8]),
        tensor("blk.0.ffn_gate_exps", &[2, 4, 8]),
        tensor("blk.0.ffn_up_exps", &[2, 4, 8]),
        tensor("blk.0.ffn_down_exps", &[2, 8, 4]),
    ];
    let mut file = Vec::new();
    write(&mut file, &metadata, &tensors).unwrap();
    vec![file]
}

pub(super) fn decoder_file(_: &[u8], path: &Path) -> Outcome {
    opened(path)
}

fn opened(path: &Path) -> Outcome {
    match Decoder::open(path) {
        Ok(decoder) => {
            for (name, tensor) in decoder.tensors() {
                assert_eq!(decoder.dequantise(name).unwrap().len(), tensor.shape.iter().product::<usize>());
            }
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

/// Config and shapes of a recorded net.
fn recorded(name: &str) -> (Value, Value) {
    let value: Value = serde_json::from_slice(&read(format!("tests/golden/language/{name}.json"))).unwrap();
    (value["config"].clone(), value["tensors"].clone())
}

/// The header and the zeros of a safetensors file of these shapes.
fn zeros(shapes: &Value) -> Vec<u8> {
    let mut at = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in shapes.as_object().unwrap() {
        let bytes = 4 * shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [at, at + bytes]}));
        at += bytes;
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; at as usize]].concat()
}

pub(super) fn decoder_configs(_: &Path) -> Vec<Vec<u8>> {
    ["llama", "gemma", "gemma3", "phi3", "mixtral", "falcon", "gpt-neo"]
        .map(|name| recorded(name).0.to_string().into_bytes())
        .into()
}

/// A config beside the weights of the family that it names, so that a good one is taken whole.
pub(super) fn decoder_config(bytes: &[u8], path: &Path) -> Outcome {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let name = match value["model_type"].as_str() {
        Some(name @ ("gemma" | "phi3" | "mixtral" | "falcon")) => name,
        Some("gemma3_text") => "gemma3",
        Some("gpt_neo") => "gpt-neo",
        _ => "llama",
    };
    let folder = path.parent().unwrap();
    let weights = folder.join("model.safetensors");
    let last = folder.join("last");
    if fs::read_to_string(&last).ok().as_deref() != Some(name) {
        fs::write(&weights, zeros(&recorded(name).1)).unwrap();
        fs::write(&last, name).unwrap();
    }
    match opened(folder) {
        // weights that do not fit the config are a fault of either
        Outcome::Refused(text) if text.contains("model.safetensors") => Outcome::Refused(text + " (config.json)"),
        other => other,
    }
}

const SHARD: &str = "model-00001-of-00001.safetensors";

pub(super) fn decoder_indices(_: &Path) -> Vec<Vec<u8>> {
    let names = recorded("llama").1;
    let map: serde_json::Map<String, Value> =
        names.as_object().unwrap().keys().map(|name| (name.clone(), json!(SHARD))).collect();
    vec![json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string().into_bytes()]
}

pub(super) fn decoder_index(_: &[u8], path: &Path) -> Outcome {
    let folder = path.parent().unwrap();
    let shard = folder.join(SHARD);
    if !shard.exists() {
        let (config, shapes) = recorded("llama");
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        fs::write(shard, zeros(&shapes)).unwrap();
    }
    match opened(folder) {
        Outcome::Refused(text) if text.contains("safetensors") => {
            Outcome::Refused(text + " (model.safetensors.index.json)")
        }
        other => other,
    }
}

pub(super) fn decoder_weights(_: &Path) -> Vec<Vec<u8>> {
    let shapes = json!({"model.embed_tokens.weight": [2, 2]});
    vec![zeros(&shapes)]
}

/// The header alone: a net of so few tensors there is not, so that what is right is refused by the config's words.
pub(super) fn decoder_weight_file(_: &[u8], path: &Path) -> Outcome {
    let folder = path.parent().unwrap();
    if !folder.join("config.json").exists() {
        fs::write(folder.join("config.json"), recorded("llama").0.to_string()).unwrap();
    }
    match opened(folder) {
        Outcome::Refused(text) if text.contains("the config asks for") => Outcome::Taken,
        other => other,
    }
}

/// A tokenizer of three letters.
pub(super) fn tokenizers(_: &Path) -> Vec<Vec<u8>> {
    let model = json!({"type": "BPE", "dropout": null, "unk_token": "a", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": [["a", "b"], ["ab", "c"]]});
    let added = json!([{"id": 5, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}]);
    let split =
        json!({"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false});
    let whole = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "NFC"}, "pre_tokenizer": split, "post_processor": null, "decoder": {"type": "Fuse"}, "model": model});
    vec![whole.to_string().into_bytes()]
}

pub(super) fn chat_templates(_: &Path) -> Vec<Vec<u8>> {
    let turn = "{% for m in messages %}<|{{ m['role'] }}|>{{ m.content.strip() | tojson }}{% endfor %}";
    let chains =
        ["{{ 1+1+1+1+1 }}", "{{ not not not tools }}", "{{ messages[0].content.a }}{{ bos_token ~ eos_token }}"];
    let all = "{% set ns = namespace(x='a') %}{% generation %}{{ ns.x ~ bos_token }}{% endgeneration %}";
    [turn, all].iter().chain(&chains).map(|t| t.as_bytes().to_vec()).collect()
}

/// A folder whose template this is; what it makes of a conversation.
pub(super) fn chat_template_file(_: &[u8], path: &Path) -> Outcome {
    let folder = path.parent().unwrap();
    if !folder.join("config.json").exists() {
        let (config, shapes) = recorded("llama");
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        fs::write(folder.join("model.safetensors"), zeros(&shapes)).unwrap();
    }
    let decoder = match Decoder::open(folder) {
        Ok(decoder) => decoder,
        Err(error) => return said(error),
    };
    let message = ChatMessage { role: "user".into(), content: " a\"b ".into() };
    match decoder.template.as_ref().unwrap().render(&[message], true) {
        Ok(_) => Outcome::Taken,
        Err(error) => said(error),
    }
}

pub(super) fn tokenizer_file(_: &[u8], path: &Path) -> Outcome {
    match TextTokenizer::of_json(path).and_then(|t| t.encode("abc ab<end> x", HOW)) {
        Ok(_) => Outcome::Taken,
        Err(error) => said(error),
    }
}
