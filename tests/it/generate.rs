//! `ergometer generate` and `ergometer convert`, on a small net with the vocabulary of SmolLM2.
//!
//! In: recorded vocabularies, weights from a seed. Out: text, exit codes, JSON. Must not: expect sense of such a net.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use ergometer_language::gguf::{GgufTensor, GgufValue, write};
use ergometer_language::{BlockType, Encoding, Gguf, TextTokenizer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::house::{Ended, House, root, wait_until};

const WIDTH: usize = 32;
const INNER: usize = 256;

/// A net of one layer that knows these words, with what else its metadata are to say.
fn small(house: &House, name: &str, more: &[(&str, GgufValue)]) -> PathBuf {
    let vocabulary = Gguf::open(&root().join("tests/golden/language/tokens-smollm2.gguf")).unwrap();
    let mut metadata: Vec<(String, GgufValue)> =
        vocabulary.metadata().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let tokens = vocabulary.needed_texts("tokenizer.ggml.tokens").unwrap().len();
    let counts = [
        ("embedding_length", WIDTH as u64),
        ("block_count", 1),
        ("attention.head_count", 2),
        ("feed_forward_length", INNER as u64),
    ];
    // what it writes has no end
    let own = [
        "general.architecture",
        "tokenizer.chat_template",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
    ];
    metadata.retain(|(key, _)| !key.starts_with("llama.") && !own.contains(&key.as_str()));
    metadata.push(("general.architecture".into(), GgufValue::Text("llama".into())));
    metadata.push(("llama.attention.layer_norm_rms_epsilon".into(), GgufValue::Float(1e-5)));
    metadata.extend(counts.map(|(key, n)| (format!("llama.{key}"), GgufValue::Unsigned(n))));
    if !more.iter().any(|(key, _)| *key == "llama.context_length") {
        metadata.push(("llama.context_length".into(), GgufValue::Unsigned(256)));
    }
    metadata.extend(more.iter().map(|(key, value)| (key.to_string(), value.clone())));
    let shapes: [(&str, &[usize]); 11] = [
        ("token_embd", &[tokens, WIDTH]),
        ("output_norm", &[WIDTH]),
        ("blk.0.attn_norm", &[WIDTH]),
        ("blk.0.attn_q", &[WIDTH, WIDTH]),
        ("blk.0.attn_k", &[WIDTH, WIDTH]),
        ("blk.0.attn_v", &[WIDTH, WIDTH]),
        ("blk.0.attn_output", &[WIDTH, WIDTH]),
        ("blk.0.ffn_norm", &[WIDTH]),
        ("blk.0.ffn_gate", &[INNER, WIDTH]),
        ("blk.0.ffn_up", &[INNER, WIDTH]),
        ("blk.0.ffn_down", &[WIDTH, INNER]),
    ];
    let mut state = 5u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(_, shape)| (0..shape.iter().product::<usize>()).flat_map(|_| random().to_le_bytes()).collect())
        .collect();
    let tensors: Vec<GgufTensor<'_>> = shapes
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| GgufTensor {
            name: format!("{name}.weight"),
            kind: BlockType::F32,
            shape: shape.to_vec(),
            bytes,
        })
        .collect();
    let path = house.path(name);
    write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
    path
}

/// The same with a chat template.
pub(crate) fn chatting(house: &House, name: &str) -> PathBuf {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    small(house, name, &[("tokenizer.chat_template", GgufValue::Text(template.into()))])
}

fn generate(house: &House, model: &str, more: &[&str]) -> Ended {
    let mut args = vec!["generate", "--model", model];
    args.extend(more);
    house.ergometer(&args)
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.exits(0).stdout).unwrap()
}

#[test]
fn its_file_takes_caches_and_gives_them_back() {
    let house = House::new();
    small(&house, "small.gguf", &[]);
    let export = |more: &[&str]| house.ergometer(&[&["export", "--to", "onnx", "--model"], more].concat());
    let said = export(&["small.gguf", "net.onnx", "--context", "16", "--external"]);
    for part in ["input   past_key_values.0.key float[batch, ", "output  logits float[", "16 at most", "present.*"] {
        assert!(said.exits(0).stdout.contains(part), "no `{part}` in {}", said.stdout);
    }
    assert!(house.path("net.onnx").exists() && house.path("net.onnx.data").exists());
    export(&["small.gguf", "net.onnx"]).refused(&["net.onnx is already there", "--force"]);
    let made = json(&export(&["small.gguf", "other.onnx", "--json"]));
    assert_eq!((&made["flops_per_row"], &made["weights_file"]), (&Value::Null, &Value::Null));
    assert_eq!(made["inputs"][1], "attention_mask int64[batch, total_sequence_length]");
    export(&["small.gguf", "x.onnx", "--context", "1000000"]).refused(&["a context of 1000000 tokens", "hint: "]);
    export(&["dense-4x4", "x.onnx", "--context", "16"]).refused(&["`--context` is of language models", "hint: "]);
}

#[test]
fn it_speaks_and_says_what_it_took() {
    let house = House::new();
    let model = small(&house, "small.gguf", &[]);
    // in f32: a net of random weights turns any rounding into another word
    let said = generate(&house, "small.gguf", &["--prompt", "The cat", "--tokens", "12", "--precision", "f32"]);
    said.exits(0);
    for part in ["prompt     ", " tokens/s; first token after ", "generated  ", " tokens/J", "unavailable ("] {
        let energy = ["tokens/J", "unavailable ("].iter().any(|e| part.contains(e));
        assert!(energy || said.stderr.contains(part), "no `{part}` in {}", said.stderr);
    }
    assert!(said.stderr.contains("tokens/J") || said.stderr.contains("energy     unavailable ("), "{}", said.stderr);
    // the same by the interpreter, and by the tokens
    let of = |backend: &str| {
        let more = ["--prompt", "The cat", "--tokens", "12", "--backend", backend, "--precision", "f32", "--json"];
        let precision = if backend == "reference" { "f64" } else { "f32" };
        let more = more.map(|word| if word == "f32" { precision } else { word });
        json(&generate(&house, "small.gguf", &more))
    };
    let (native, reference) = (of("native"), of("reference"));
    assert_eq!(native["ids"], reference["ids"]);
    for other in ["candle", "tract"] {
        assert_eq!(of(other)["ids"], reference["ids"], "{other}");
    }
    assert_eq!(native["text"].as_str().unwrap().to_owned() + "\n", said.stdout);
    let ids: Vec<u32> = serde_json::from_value(native["ids"].clone()).unwrap();
    let tokenizer = TextTokenizer::of_gguf(&Gguf::open(&model).unwrap()).unwrap();
    let prompt = tokenizer.encode("The cat", Encoding { additions: true, special: false }).unwrap();
    assert_eq!(serde_json::from_value::<Vec<u32>>(native["prompt_ids"].clone()).unwrap(), prompt);
    assert_eq!(native["text"], String::from_utf8_lossy(&tokenizer.decode(&ids, false).unwrap()).as_ref());
    assert_eq!(native["prefill"]["tokens"], prompt.len());
    assert_eq!((ids.len(), native["decode"]["tokens"].as_u64()), (12, Some(11)));
    assert_eq!(native["ended"], false);
    for metric in ["energy_cpu", "energy_dram", "energy_gpu"] {
        let read = &native["energy"][metric];
        assert!(read["joules"].is_f64() || !read["missing"].as_str().unwrap().is_empty(), "{read}");
    }
}

#[test]
fn chance_follows_the_seed_and_a_chat_its_template() {
    let house = House::new();
    chatting(&house, "chat.gguf");
    let drawn = |seed: &str| {
        let more = ["--prompt", "The", "--tokens", "20", "--temperature", "1", "--seed", seed, "--json"];
        json(&generate(&house, "chat.gguf", &more))["ids"].clone()
    };
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
    let chat = json(&generate(&house, "chat.gguf", &["--prompt", "The cat", "--chat", "--tokens", "1", "--json"]));
    let ids: Vec<u32> = serde_json::from_value(chat["prompt_ids"].clone()).unwrap();
    let tokenizer = TextTokenizer::of_gguf(&Gguf::open(&house.path("chat.gguf")).unwrap()).unwrap();
    let text = "<|im_start|>user\nThe cat<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(String::from_utf8(tokenizer.decode(&ids, true).unwrap()).unwrap(), text);
}

#[test]
fn an_interruption_ends_it_and_what_was_said_stands() {
    let house = House::new();
    small(&house, "long.gguf", &[("llama.context_length", GgufValue::Unsigned(1 << 16))]);
    let out = house.path("out");
    let args = ["generate", "--model", "long.gguf", "--prompt", "The cat", "--tokens", "60000"];
    let mut command = house.command(&args);
    let child = command.stdout(File::create(&out).unwrap()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("some text", || fs::metadata(&out).is_ok_and(|m| m.len() > 0));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted: what was generated until then stands above"), "{said}");
    house.assert_nobody_left();
}

#[test]
fn what_cannot_be_generated_says_why() {
    let house = House::new();
    small(&house, "small.gguf", &[]);
    let refused = |model: &str, more: &[&str], parts: &[&str]| generate(&house, model, more).refused(parts);
    refused("small.gguf", &["--prompt", ""], &["`--prompt` is empty", "hint: "]);
    let long = "The cat sat. ".repeat(100);
    refused("small.gguf", &["--prompt", &long], &["more than the 256 of the model's context", "hint: shorten"]);
    refused("small.gguf", &["--prompt", "x", "--tokens", "256"], &["more than the 256", "fewer `--tokens`"]);
    refused("small.gguf", &["--prompt", "x", "--chat"], &["no chat template", "hint: leave `--chat` out"]);
    refused("smolm2", &["--prompt", "x"], &["there is no model `smolm2`", "did you mean smollm2", "hint: "]);
    refused("smollm2", &["--prompt", "x"], &["`smollm2` is not here yet", "hint: ergometer fetch smollm2"]);
    let golden = root().join("tests/golden/llama");
    refused(golden.to_str().unwrap(), &["--prompt", "x"], &["has no tokenizer", "hint: "]);
    let other = root().join("suites/models/trm-4x4");
    refused(other.to_str().unwrap(), &["--prompt", "x"], &["no decoder that is read", "hint: "]);
    refused("small.gguf", &["--prompt", "x", "--precision", "f17"], &["`--precision f17`", "hint: "]);
}

#[test]
fn converted_files_speak_and_a_mixture_of_all_experts_is_the_dense_net() {
    let house = House::new();
    small(&house, "small.gguf", &[]);
    let convert = |more: &[&str]| {
        let mut args = vec!["convert"];
        args.extend(more);
        house.ergometer(&args)
    };
    let made = convert(&["moefy", "small.gguf", "--experts", "8", "--active", "8", "--out", "mixture.gguf"]);
    assert!(made.exits(0).stderr.contains("it computes what the dense net does"), "{}", made.stderr);
    let ids = |model: &str, backend: &str| {
        let precision = if backend == "reference" { "f64" } else { "f32" };
        let more = ["--prompt", "The cat", "--tokens", "10", "--backend", backend, "--precision", precision, "--json"];
        json(&generate(&house, model, &more))["ids"].clone()
    };
    assert_eq!(ids("small.gguf", "reference"), ids("mixture.gguf", "reference"));
    assert_eq!(ids("small.gguf", "reference"), ids("mixture.gguf", "native"));
    let made = convert(&["moefy", "small.gguf", "--active", "2", "--out", "two.gguf", "--json"]);
    assert!(json(&made)["notes"][0].as_str().unwrap().contains("untrained"));
    ids("two.gguf", "native");

    let made = json(&convert(&["requantise", "small.gguf", "--to", "q8_0", "--out", "q8.gguf", "--json"]));
    assert_eq!((made["tensors"]["Q8_0"].as_u64(), made["tensors"]["F32"].as_u64()), (Some(8), Some(3)));
    assert_eq!(made["bytes"].as_u64(), Some(fs::metadata(house.path("q8.gguf")).unwrap().len()));
    let stored = json(&generate(&house, "q8.gguf", &["--prompt", "The cat", "--tokens", "3", "--json"]));
    assert_eq!((&stored["precision"], stored["ids"].as_array().unwrap().len()), (&Value::from("stored"), 3));

    convert(&["requantise", "small.gguf", "--to", "Q4_0", "--out", "q8.gguf"]).refused(&["already there", "--force"]);
    convert(&["requantise", "small.gguf", "--to", "Q4_K", "--out", "k.gguf"]).refused(&["types that are written are"]);
    convert(&["moefy", "small.gguf", "--experts", "7", "--active", "2", "--out", "k.gguf"]).refused(&["7 experts"]);
    let fitted = ["--router", "fitted", "--out", "k.gguf"];
    let refused = |words: &[&str], why: &[&str]| {
        convert(&[&["moefy", "small.gguf"], words, &fitted[..]].concat()).refused(why);
    };
    fs::write(house.path("text.txt"), "the cat sat on the mat. ".repeat(200)).unwrap();
    refused(&["--active", "2"], &["--router fitted needs a text"]);
    refused(&["--active", "0", "--text", "text.txt"], &["0 of 8 experts active"]);
    refused(&["--active", "9", "--text", "text.txt"], &["9 of 8 experts active"]);
    refused(&["--active", "1", "--experts", "1", "--text", "text.txt"], &["1 of 1 experts active"]);
    refused(&["--active", "1", "--experts", "0", "--text", "text.txt"], &["0 experts"]);
    refused(&["--active", "2", "--text", "none.txt"], &["none.txt"]);
    let made = convert(&[
        "moefy",
        "small.gguf",
        "--active",
        "6",
        "--router",
        "fitted",
        "--text",
        "text.txt",
        "--out",
        "fitted.gguf",
    ]);
    assert!(made.exits(0).stderr.contains("fitted by least squares to"), "{}", made.stderr);
    ids("fitted.gguf", "native");
    convert(&["moefy", "q8.gguf", "--experts", "16", "--active", "2", "--out", "k.gguf"])
        .refused(&["blocks of 32", "hint: ask for fewer experts"]);
    assert!(!house.path("k.gguf").exists());
}
