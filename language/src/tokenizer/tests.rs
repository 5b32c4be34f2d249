//! Token ids of small vocabularies against those that llama.cpp gives for the same files, and refusals.

use std::{io::Write, path::PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::gguf::{GgufArray, GgufValue, write};

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/golden/language", name].iter().collect()
}

/// A file with one key of its metadata changed, or without it.
fn changed(file: &str, key: &str, value: Option<GgufValue>) -> Result<TextTokenizer, LanguageError> {
    let gguf = Gguf::open(&golden(file)).unwrap();
    let rest = gguf.metadata().iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone()));
    let metadata: Vec<(String, GgufValue)> = rest.chain(value.map(|v| (key.to_owned(), v))).collect();
    let mut bytes = Vec::new();
    write(&mut bytes, &metadata, &[]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    TextTokenizer::of_gguf(&Gguf::open(file.path()).unwrap())
}

fn whole(file: &str) -> TextTokenizer {
    TextTokenizer::of_gguf(&Gguf::open(&golden(file)).unwrap()).unwrap()
}

const PLAIN: Encoding = Encoding { additions: false, special: false };
const SPECIAL: Encoding = Encoding { additions: true, special: true };

#[test]
fn ids_are_those_of_llama_cpp() {
    let recorded: Value = serde_json::from_slice(&std::fs::read(golden("tokens.json")).unwrap()).unwrap();
    let texts: Vec<&str> = recorded["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let ids = |value: &Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let mut compared = 0;
    for case in recorded["cases"].as_array().unwrap() {
        let (file, pre) = (case["file"].as_str().unwrap(), case["pre"].as_str().unwrap());
        let tokenizer = changed(file, "tokenizer.ggml.pre", Some(GgufValue::Text(pre.into()))).unwrap();
        for (i, text) in texts.iter().enumerate() {
            for (how, name) in [(PLAIN, "plain"), (SPECIAL, "special")] {
                let (ours, theirs) = (tokenizer.encode(text, how).unwrap(), ids(&case[name][i]));
                assert_eq!(ours, theirs, "{file}, {pre}, {name}: {text:?}");
                compared += theirs.len();
            }
        }
    }
    assert!(compared > 10_000, "{compared} ids");
}

#[test]
fn texts_come_back() {
    let recorded: Value = serde_json::from_slice(&std::fs::read(golden("tokens.json")).unwrap()).unwrap();
    for file in ["tokens-gpt2.gguf", "tokens-qwen2.gguf", "tokens-smollm2.gguf", "tokens-phi3.gguf"] {
        let tokenizer = whole(file);
        for text in recorded["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()) {
            let back = tokenizer.decode(&tokenizer.encode(text, PLAIN).unwrap(), true).unwrap();
            assert_eq!(String::from_utf8(back).unwrap(), text, "{file}");
        }
        assert!(!tokenizer.is_empty() && tokenizer.len() < 1000);
    }
}

#[test]
fn control_tokens_are_shown_when_asked_for() {
    let tokenizer = whole("tokens-smollm2.gguf");
    let ids = tokenizer.encode("<|im_start|>user", SPECIAL).unwrap();
    assert_eq!(tokenizer.text(ids[0]).as_deref(), Some("<|im_start|>"));
    assert_eq!(tokenizer.id("<|im_start|>"), Some(ids[0]));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), b"<|im_start|>user");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), b"user");
    let error = tokenizer.decode(&[ids[0], 70_000], false).unwrap_err();
    assert!(error.message.contains("token 70000 at place 1 is none of the 512 tokens"), "{error}");
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let text = |t: &str| Some(GgufValue::Text(t.into()));
    let cases = [
        ("tokenizer.ggml.pre", text("own"), "pre-tokenizer `own` is not known"),
        ("tokenizer.ggml.model", text("bert"), "is `bert`, which is not read"),
        ("tokenizer.ggml.model", None, "`tokenizer.ggml.model` is missing"),
        ("tokenizer.ggml.tokens", Some(GgufValue::Array(GgufArray::Text(vec![]))), "`tokenizer.ggml.tokens` is empty"),
        (
            "tokenizer.ggml.tokens",
            Some(GgufValue::Array(GgufArray::Text(vec!["a".into(), "b".into(), "a".into()]))),
            "tokens 0 and 2 are both `a`",
        ),
        (
            "tokenizer.ggml.token_type",
            Some(GgufValue::Array(GgufArray::Signed(vec![1, 1]))),
            "`tokenizer.ggml.token_type` has 2 elements for 545 tokens",
        ),
        ("tokenizer.ggml.bos_token_id", Some(GgufValue::Unsigned(545)), "is 545, beyond the 545 tokens"),
        (
            "tokenizer.ggml.merges",
            Some(GgufValue::Array(GgufArray::Text(vec!["ab".into()]))),
            "merge 0 is `ab`, no pair",
        ),
        ("tokenizer.ggml.merges", None, "`tokenizer.ggml.merges` is missing"),
        ("tokenizer.ggml.scores", Some(GgufValue::Bool(true)), "is a boolean, not an array"),
    ];
    for (key, value, said) in cases {
        let error = changed("tokens-gpt2.gguf", key, value).err().unwrap().to_string();
        assert!(error.contains(said) && error.contains("\nhint: "), "{said}: {error}");
    }
}

#[test]
fn the_template_of_a_file_makes_its_prompt() {
    let gguf = Gguf::open(&golden("tokens-smollm2.gguf")).unwrap();
    let source = gguf.needed_text("tokenizer.chat_template").unwrap();
    let template = ChatTemplate::new(source, "<|im_start|>", "<|im_end|>", gguf.path());
    let message = ChatMessage { role: "user".into(), content: "Hi".into() };
    let text = template.render(&[message], true).unwrap();
    assert!(text.ends_with("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), "{text}");
}

/// A byte-level `tokenizer.json` of two merges.
const JSON: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 5, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "dropout": null, "unk_token": "a", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": [["a", "b"], ["ab", "c"]]}}"#;

#[test]
fn a_tokenizer_json_is_read() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(JSON.as_bytes()).unwrap();
    let tokenizer = TextTokenizer::of_json(file.path()).unwrap();
    assert_eq!(tokenizer.encode("abcab<end>", SPECIAL).unwrap(), [4, 3, 5]);
    let plain = tokenizer.encode("ab<end>", PLAIN).unwrap();
    assert!(plain[0] == 3 && !plain.contains(&5), "{plain:?}");
    assert_eq!(tokenizer.decode(&[4, 3, 5], true).unwrap(), b"abcab<end>");
    assert_eq!(tokenizer.decode(&[4, 3, 5], false).unwrap(), b"abcab");
    assert_eq!((tokenizer.len(), tokenizer.id("abc"), tokenizer.text(2).as_deref()), (6, Some(4), Some("c")));
    assert!(tokenizer.decode(&[6], true).is_err() && tokenizer.vocabulary().is_none());
    file.write_all(b"x").unwrap();
    let error = TextTokenizer::of_json(file.path()).err().unwrap();
    assert!(error.message.contains("no tokenizer that can be read"), "{error}");
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}|[ \\n\\t\\ra-z0-9<|>]{0,60}") {
        for file in ["tokens-gpt2.gguf", "tokens-phi3.gguf"] {
            let tokenizer = whole(file);
            // a literal U+2581 is a space to SentencePiece
            let text = text.replace('\u{2581}', "_");
            let back = tokenizer.decode(&tokenizer.encode(&text, PLAIN).unwrap(), true).unwrap();
            prop_assert_eq!(String::from_utf8(back).unwrap(), text);
        }
    }
}
