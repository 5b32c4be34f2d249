//! Converted files against what they were made of.

use std::path::PathBuf;

use super::*;
use crate::{
    Decoder,
    gguf::{GgufTensor, write},
};

const WIDTH: usize = 32;
const INNER: usize = 128;

/// A dense net of two layers, its matrices of a type.
fn dense(folder: &Path, kind: BlockType, change: impl Fn(&mut Vec<(String, GgufValue)>)) -> PathBuf {
    let counts = [
        ("context_length", 64),
        ("embedding_length", WIDTH as u64),
        ("block_count", 2),
        ("attention.head_count", 2),
        ("feed_forward_length", INNER as u64),
        ("vocab_size", 40),
    ];
    let mut metadata = vec![
        ("general.architecture".into(), GgufValue::Text("llama".into())),
        ("general.name".into(), GgufValue::Text("Small".into())),
        ("llama.attention.layer_norm_rms_epsilon".into(), GgufValue::Float(1e-5)),
    ];
    metadata.extend(counts.map(|(key, n)| (format!("llama.{key}"), GgufValue::Unsigned(n))));
    change(&mut metadata);
    let mut tensors: Vec<(String, BlockType, Vec<usize>)> =
        vec![("token_embd".into(), kind, vec![40, WIDTH]), ("output_norm".into(), BlockType::F32, vec![WIDTH])];
    for layer in 0..2 {
        let inner = [
            ("attn_norm", vec![WIDTH]),
            ("attn_q", vec![WIDTH, WIDTH]),
            ("attn_k", vec![WIDTH, WIDTH]),
            ("attn_v", vec![WIDTH, WIDTH]),
            ("attn_output", vec![WIDTH, WIDTH]),
            ("ffn_norm", vec![WIDTH]),
            ("ffn_gate", vec![INNER, WIDTH]),
            ("ffn_up", vec![INNER, WIDTH]),
            ("ffn_down", vec![WIDTH, INNER]),
        ];
        tensors.extend(inner.map(|(name, shape)| {
            let kind = if shape.len() == 1 { BlockType::F32 } else { kind };
            (format!("blk.{layer}.{name}"), kind, shape)
        }));
    }
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .enumerate()
        .map(|(t, (_, kind, shape))| {
            let value = |i: usize| ((i * 31 + t * 7) % 97) as f32 / 48.0 - 1.0;
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            let mut bytes = Vec::new();
            kind.encode(&values, &mut bytes);
            bytes
        })
        .collect();
    let all: Vec<GgufTensor<'_>> = tensors
        .into_iter()
        .zip(&data)
        .map(|((name, kind, shape), bytes)| GgufTensor { name: name + ".weight", kind, shape, bytes })
        .collect();
    let path = folder.join("dense.gguf");
    write(&mut File::create(&path).unwrap(), &metadata, &all).unwrap();
    path
}

fn silent() -> impl FnMut(usize, usize) {
    |_, _| {}
}

#[test]
fn every_type_is_written_and_says_what_it_was_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let source = Gguf::open(&dense(folder.path(), BlockType::Q4_1, |_| {})).unwrap();
    let out = folder.path().join("out.gguf");
    for to in BlockType::all().filter(|k| k.is_encoded()) {
        let mut seen = Vec::new();
        let wanted = Requantisation { to, embedding: None };
        let converted = requantise(&source, wanted, &out, &mut |done, all| seen.push((done, all))).unwrap();
        assert_eq!(seen.last(), Some(&(20, 20)), "{to:?}");
        assert_eq!(converted.bytes, out.metadata().unwrap().len());
        let made = Gguf::open(&out).unwrap();
        Decoder::open(&out).unwrap_or_else(|e| panic!("{to:?}: {e}"));
        assert_eq!(made.text("ergometer.requantised.from").unwrap(), Some("F32 (5 tensors), Q4_1 (15 tensors)"));
        assert_eq!(made.text("ergometer.requantised.file").unwrap(), Some("dense.gguf"));
        assert_eq!(made.text("general.name").unwrap(), Some("Small"));
        for (name, entry) in made.tensors().entries() {
            let (before, after) =
                (source.tensors().dequantise(name).unwrap(), made.tensors().dequantise(name).unwrap());
            let was = source.tensors().entry(name).unwrap().kind;
            let narrow = to.bits_per_element() < 8.0;
            let due = match name.as_str() {
                "token_embd.weight" if narrow => BlockType::Q8_0,
                _ if was == BlockType::F32 => was,
                _ => to,
            };
            assert_eq!(entry.kind, due, "{name}");
            // exactly what encoding the dequantised weights gives; the same type is copied
            let mut expected = Vec::new();
            if due == was {
                expected = before
            } else {
                let mut bytes = Vec::new();
                due.encode(&before, &mut bytes);
                expected.resize(before.len(), 0.0);
                due.dequantise(&bytes, &mut expected);
            }
            assert_eq!(after, expected, "{to:?} {name}");
        }
    }
    let wanted = Requantisation { to: BlockType::Q4_0, embedding: Some(BlockType::F16) };
    let converted = requantise(&source, wanted, &out, &mut silent()).unwrap();
    assert_eq!(converted.kinds, BTreeMap::from([("F16", 1), ("F32", 5), ("Q4_0", 14)]));
}

#[test]
fn types_that_are_not_written_and_numbers_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = dense(folder.path(), BlockType::F32, |_| {});
    let out = folder.path().join("out.gguf");
    let to = |to| requantise(&Gguf::open(&path).unwrap(), Requantisation { to, embedding: None }, &out, &mut silent());
    let error = to(BlockType::Q4K).unwrap_err().to_string();
    assert!(
        error.contains("Q4_K is read and not written") && error.contains("hint: types that are written: F32"),
        "{error}"
    );
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 4 * WIDTH * INNER;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = to(BlockType::Q8_0).unwrap_err().to_string();
    assert!(error.contains("`blk.1.ffn_down.weight`, row 0: NaN is no finite number"), "{error}");
    assert!(!out.exists(), "nothing is left of what failed");
}

/// Rows of the mixture's experts put together again as the dense matrices.
#[test]
fn experts_are_slices_of_the_dense_net() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, experts) in [(BlockType::Q4_1, 4), (BlockType::F16, 8), (BlockType::Q8_0, 2)] {
        let source = Gguf::open(&dense(folder.path(), kind, |_| {})).unwrap();
        let out = folder.path().join("mixture.gguf");
        let wanted = Moefication { experts, active: 2, router: Router::Random(3) };
        moefy(&source, &wanted, &out, &mut silent()).unwrap();
        let made = Gguf::open(&out).unwrap();
        assert_eq!(made.text("ergometer.moefied.router").unwrap(), Some("random (seed 3), untrained"));
        assert_eq!(made.text("general.name").unwrap(), Some(format!("Small split into {experts} experts").as_str()));
        let net = Decoder::open(&out).unwrap();
        let mixture = net.config.mlp.experts.unwrap();
        assert_eq!((mixture.count, mixture.used, net.config.mlp.inner), (experts, 2, INNER / experts));
        let values = |gguf: &Gguf, name: &str| gguf.tensors().dequantise(name).unwrap();
        for layer in 0..2 {
            for name in ["ffn_gate", "ffn_up"] {
                let (dense, split) = (format!("blk.{layer}.{name}.weight"), format!("blk.{layer}.{name}_exps.weight"));
                assert_eq!(values(&source, &dense), values(&made, &split));
            }
            let dense = values(&source, &format!("blk.{layer}.ffn_down.weight"));
            let split = values(&made, &format!("blk.{layer}.ffn_down_exps.weight"));
            let slice = INNER / experts;
            for (i, value) in split.iter().enumerate() {
                let (expert, row, column) = (i / slice / WIDTH, i / slice % WIDTH, i % slice);
                assert_eq!(*value, dense[row * INNER + expert * slice + column] * experts as f32, "{kind:?} {i}");
            }
            let router = values(&made, &format!("blk.{layer}.ffn_gate_inp.weight"));
            let square = router.iter().map(|v| v * v).sum::<f32>() / experts as f32;
            assert!((0.4..2.0).contains(&square), "variance 1 / width: {square}");
        }
        assert_ne!(values(&made, "blk.0.ffn_gate_inp.weight"), values(&made, "blk.1.ffn_gate_inp.weight"));
    }
}

#[test]
fn given_routers_are_written_with_the_factors_of_their_experts() {
    let folder = tempfile::tempdir().unwrap();
    let source = Gguf::open(&dense(folder.path(), BlockType::F32, |_| {})).unwrap();
    let out = folder.path().join("mixture.gguf");
    let router = |layer: usize| (0..4 * WIDTH).map(|i| (i + 1000 * layer) as f32).collect::<Vec<f32>>();
    let layers = vec![(router(0), vec![1.0, 0.5, 2.0, -1.0]), (router(1), vec![1.0; 4])];
    let given = |layers| Router::Given(GivenRouters { about: "made by hand".into(), layers });
    let wanted = Moefication { experts: 4, active: 2, router: given(layers.clone()) };
    moefy(&source, &wanted, &out, &mut silent()).unwrap();
    let made = Gguf::open(&out).unwrap();
    assert_eq!(made.text("ergometer.moefied.router").unwrap(), Some("made by hand"));
    let values = |gguf: &Gguf, name: &str| gguf.tensors().dequantise(name).unwrap();
    let (dense, slice) = (values(&source, "blk.0.ffn_down.weight"), INNER / 4);
    for (i, value) in values(&made, "blk.0.ffn_down_exps.weight").iter().enumerate() {
        let (expert, row, column) = (i / slice / WIDTH, i / slice % WIDTH, i % slice);
        assert_eq!(*value, dense[row * INNER + expert * slice + column] * 4.0 * layers[0].1[expert]);
    }
    for (layer, (router, _)) in layers.iter().enumerate() {
        assert_eq!(values(&made, &format!("blk.{layer}.ffn_gate_inp.weight")), *router);
    }
    // a layer is missing, a number is
    for layers in [layers[..1].to_vec(), vec![(router(0), vec![f32::NAN; 4]), (router(1), vec![1.0; 4])]] {
        let wanted = Moefication { router: given(layers), ..wanted.clone() };
        let error = moefy(&source, &wanted, &folder.path().join("no.gguf"), &mut silent()).unwrap_err().to_string();
        assert!(error.contains("the routers do not fit the net"), "{error}");
    }
}

#[test]
fn what_cannot_be_split_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mixture.gguf");
    let split = |path: &Path, experts: usize, active: usize| {
        let wanted = Moefication { experts, active, router: Router::Zero };
        moefy(&Gguf::open(path).unwrap(), &wanted, &out, &mut silent()).unwrap_err().to_string()
    };
    let path = dense(folder.path(), BlockType::Q4_1, |_| {});
    assert!(split(&path, 6, 2).contains("6 experts\nhint: a power of two"));
    assert!(split(&path, 4, 5).contains("5 of 4 experts active"));
    assert!(split(&path, 4, 0).contains("0 of 4 experts active"));
    assert!(split(&path, 8, 2).contains("rows of 128 elements in blocks of 32, which 8 experts do not share evenly"));
    let path = dense(folder.path(), BlockType::Q4_1, |m| m[0].1 = GgufValue::Text("gemma3".into()));
    assert!(split(&path, 4, 2).contains("the architecture is `gemma3`"));
    let path = dense(folder.path(), BlockType::Q4_1, |m| m.push(("llama.expert_count".into(), GgufValue::Unsigned(4))));
    assert!(split(&path, 4, 2).contains("a mixture of experts already"));
    assert!(!out.exists());
}
