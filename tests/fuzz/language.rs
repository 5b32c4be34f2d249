//! Files of language models: GGUF.
//!
//! In: bytes, or the file that they lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs.

use std::path::Path;

use ergometer_language::{
    BlockType, Gguf,
    gguf::{GgufArray, GgufTensor, GgufValue, write},
};

use super::{Outcome, said};

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
