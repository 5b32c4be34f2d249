//! Native's language engine on small nets in every type of block, written as GGUF: `stored` against the interpreter over the
//! dequantised weights, the same bits however tokens are fed, and memory.

use ergometer_language::blocks::BlockType;
use ergometer_language::gguf::{GgufTensor, GgufValue, write};

use super::super::super::language::{Feed, LanguageEngine, WantedLogits};
use super::super::super::{Backend, Options, reference};
use super::super::Native;
use crate::models::language::LanguageModel;

/// Tokens that the nets know.
const VOCABULARY: usize = 320;

/// The f16 at or next to a number below 1, towards zero.
fn half_bits(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    // denormals of f16 are multiples of 2^-24
    let magnitude =
        if x.abs() < 6.104e-5 { (x.abs() * 16_777_216.0) as u32 } else { (x.abs().to_bits() >> 13) - (112 << 10) };
    sign | magnitude as u16
}

/// A source of numbers.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Bytes of so many weights of about 1/16 in this type.
    fn weights(&mut self, kind: BlockType, elements: usize) -> Vec<u8> {
        let bytes = kind.bytes_of(elements as u64).unwrap() as usize;
        if let BlockType::F32 | BlockType::F16 | BlockType::Bf16 = kind {
            let value = |d: &mut Self| (d.next() >> 40) as f32 / (1 << 27) as f32 - 0.0625;
            return (0..elements)
                .flat_map(|_| match (kind, value(self)) {
                    (BlockType::F32, x) => x.to_le_bytes().to_vec(),
                    (BlockType::F16, x) => half_bits(x).to_le_bytes().to_vec(),
                    (_, x) => ((x.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
                })
                .collect();
        }
        let mut all: Vec<u8> = (0..bytes).map(|_| self.next() as u8).collect();
        // where the f16 of a block are, the largest scale, and the largest offset or 0
        let (at, scale, offset): (&[usize], f32, f32) = match kind {
            BlockType::Q4_0 => (&[0], 0.01, 0.0),
            BlockType::Q4_1 => (&[0, 2], 0.01, -0.075),
            BlockType::Q5_0 => (&[0], 0.005, 0.0),
            BlockType::Q5_1 => (&[0, 2], 0.005, -0.075),
            BlockType::Q8_0 => (&[0], 0.0006, 0.0),
            BlockType::Q4K => (&[0, 2], 0.0003, 0.002),
            BlockType::Q5K => (&[0, 2], 0.00015, 0.002),
            BlockType::Q2K => (&[80, 82], 0.002, 0.003),
            BlockType::Q3K => (&[108], 0.0006, 0.0),
            _ => (&[208], 0.00003, 0.0),
        };
        for block in all.chunks_exact_mut(kind.block_bytes()) {
            for (at, most) in at.iter().zip([scale, offset]) {
                let value = most * (0.5 + (self.next() >> 40) as f32 / (1 << 25) as f32);
                block[*at..at + 2].copy_from_slice(&half_bits(value).to_le_bytes());
            }
        }
        all
    }
}

/// A net of the architecture `llama` of two layers, its matrices of the types in turn; dense, or of so many experts of which two are used.
fn net(kinds: &[BlockType], experts: usize, tied: bool) -> (tempfile::NamedTempFile, LanguageModel) {
    let (mut d, mut next) = (Draws(7), 0);
    let mut tensors: Vec<(String, BlockType, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, shape: &[usize], kind: Option<BlockType>| {
        let elements = shape.iter().product();
        let (kind, bytes) = match kind {
            Some(kind) => (kind, d.weights(kind, elements)),
            // gains
            None => (BlockType::F32, [1f32.to_le_bytes()].concat().repeat(elements)),
        };
        tensors.push((name, kind, shape.to_vec(), bytes));
    };
    let mut kind = || {
        next += 1;
        Some(kinds[next % kinds.len()])
    };
    add("token_embd.weight".into(), &[VOCABULARY, 256], kind());
    add("output_norm.weight".into(), &[256], None);
    if !tied {
        add("output.weight".into(), &[VOCABULARY, 256], kind());
    }
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize], kind: Option<BlockType>| {
            add(format!("blk.{layer}.{name}.weight"), shape, kind)
        };
        add("attn_norm", &[256], None);
        add("attn_q", &[256, 256], kind());
        add("attn_k", &[128, 256], kind());
        add("attn_v", &[128, 256], kind());
        add("attn_output", &[256, 256], kind());
        add("ffn_norm", &[256], None);
        if experts > 0 {
            add("ffn_gate_inp", &[experts, 256], Some(BlockType::F32));
            add("ffn_gate_exps", &[experts, 256, 256], kind());
            add("ffn_up_exps", &[experts, 256, 256], kind());
            add("ffn_down_exps", &[experts, 256, 256], kind());
        } else {
            add("ffn_gate", &[256, 256], kind());
            add("ffn_up", &[256, 256], kind());
            add("ffn_down", &[256, 256], kind());
        }
    }
    let mut metadata = vec![
        ("general.architecture".to_owned(), GgufValue::Text("llama".into())),
        ("llama.attention.layer_norm_rms_epsilon".into(), GgufValue::Float(1e-5)),
    ];
    let counts = [
        ("context_length", 128),
        ("embedding_length", 256),
        ("block_count", 2),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("feed_forward_length", 256),
        ("vocab_size", VOCABULARY as u64),
    ];
    let mixed = [("expert_count", experts as u64), ("expert_used_count", 2)];
    let counts = counts.into_iter().chain(mixed.into_iter().filter(|_| experts > 0));
    metadata.extend(counts.map(|(k, n)| (format!("llama.{k}"), GgufValue::Unsigned(n))));
    let tensors: Vec<GgufTensor> = tensors
        .iter()
        .map(|(name, kind, shape, bytes)| GgufTensor { name: name.clone(), kind: *kind, shape: shape.clone(), bytes })
        .collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write(&mut file, &metadata, &tensors).unwrap();
    let model = LanguageModel::load(file.path(), None).unwrap_or_else(|e| panic!("{kinds:?}: {e}"));
    (file, model)
}

fn native(model: &LanguageModel, precision: &str, threads: usize, cache: &str) -> Box<dyn LanguageEngine> {
    let extra = [("cache".to_owned(), cache.to_owned())].into();
    Native.load_language(model, &Options { precision: precision.into(), extra, ..Options::f32(threads, 3) }).unwrap()
}

/// Logits of all tokens of one text.
fn logits(engine: &mut dyn LanguageEngine, tokens: &[u32]) -> Vec<f32> {
    engine.feed(&[Feed { slot: 0, tokens }], WantedLogits::All).unwrap();
    engine.logits().to_vec()
}

fn text(len: usize) -> Vec<u32> {
    let mut d = Draws(len as u64);
    (0..len).map(|_| (d.next() % VOCABULARY as u64) as u32).collect()
}

/// Root of the mean square of the difference, over that of what is wanted.
fn off(got: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(wanted).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (difference / wanted.iter().map(|x| square(f64::from(*x))).sum::<f64>()).sqrt()
}

/// Every type alone, and several in one joined product.
fn nets() -> Vec<Vec<BlockType>> {
    use BlockType::*;
    let mut all: Vec<Vec<BlockType>> =
        [F32, F16, Bf16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K].map(|kind| vec![kind]).into();
    all.extend([vec![Q4K, Q6K, Q8_0, Q4K, Q5_0], vec![Q2K, Q3K, Q4K], vec![F32, Q4_1, Bf16], vec![Q8_0, F16, Q6K]]);
    all
}

#[test]
fn stored_weights_give_the_logits_of_the_dequantised_ones() {
    for (kinds, experts, tied) in nets().into_iter().map(|k| (k, 0, true)).chain([
        (vec![BlockType::Q4K, BlockType::Q6K], 0, false),
        (vec![BlockType::Q4_1], 4, true),
        (vec![BlockType::Q4K, BlockType::Q6K], 4, false),
    ]) {
        let (_file, model) = net(&kinds, experts, tied);
        let options = Options { precision: "f64".into(), ..Options::f32(1, 1) };
        let tokens = text(9);
        let wanted = logits(&mut *reference::Reference.load_language(&model, &options).unwrap(), &tokens);
        let exact = logits(&mut *native(&model, "f32", 1, "f32"), &tokens);
        assert!(off(&exact, &wanted) < 1e-5, "{kinds:?} as f32: {:e}", off(&exact, &wanted));
        // Of a block of 32 activations the largest is about 2.2 times their standard deviation, so rounding to its 127th is off by
        // 2.2 / 127 / sqrt(12) = 0.5 % of it; rounding to bf16 by 0.2 %. Nine products lie in a row here, whose errors add up as
        // independent ones do: 1.5 %. A wrong scale, offset or place in one type of block is far beyond twice that.
        let quantised = kinds.iter().any(|k| k.block_elements() > 1 || *k == BlockType::Bf16);
        for cache in ["f32", "bf16"] {
            let stored = logits(&mut *native(&model, "stored", 2, cache), &tokens);
            let most = if quantised {
                0.03
            } else if cache == "bf16" {
                0.005
            } else {
                1e-5
            };
            // experts: another choice where two score almost the same would be another net
            assert!(
                off(&stored, &wanted) < most,
                "{kinds:?}, {experts} experts, cache {cache}: {:e}",
                off(&stored, &wanted)
            );
        }
    }
}

#[test]
fn stored_gives_the_same_bits_however_tokens_are_fed() {
    for (kinds, experts) in nets()
        .into_iter()
        .map(|k| (k, 0))
        .chain([(vec![BlockType::Q4_1], 4), (vec![BlockType::Q8_0, BlockType::Q6K], 4)])
    {
        let (_file, model) = net(&kinds, experts, true);
        let (first, second) = (text(70), text(13));
        let mut alone = native(&model, "stored", 1, "bf16");
        let wanted = logits(&mut *alone, &first);
        alone.clear(0);
        let other = logits(&mut *alone, &second);
        let row = |all: &[f32], i: usize| all[i * VOCABULARY..(i + 1) * VOCABULARY].to_vec();
        for threads in [1, 2] {
            let mut engine = native(&model, "stored", threads, "bf16");
            // together, then in pieces of unlike length in a slot that held another text, beside one that is fed token by token
            engine
                .feed(&[Feed { slot: 2, tokens: &second }, Feed { slot: 0, tokens: &first }], WantedLogits::All)
                .unwrap();
            assert!(engine.logits() == [&other[..], &wanted[..]].concat(), "{kinds:?}: together, {threads} threads");
            engine.clear(2);
            engine.clear(0);
            let (mut fed, mut beside) = (0, 0);
            for piece in first.chunks(27).chain([]) {
                let mut feeds = vec![Feed { slot: 2, tokens: piece }];
                if beside < second.len() {
                    feeds.push(Feed { slot: 1, tokens: &second[beside..beside + 1] });
                    beside += 1;
                }
                engine.feed(&feeds, WantedLogits::Last).unwrap();
                fed += piece.len();
                assert!(engine.logits()[..VOCABULARY] == row(&wanted, fed - 1), "{kinds:?}: {fed} in pieces");
                assert!(engine.logits()[VOCABULARY..] == row(&other, beside - 1), "{kinds:?}: {beside} one by one");
            }
            // a copy goes on as the first does
            engine.copy(1, 0).unwrap();
            engine.feed(&[Feed { slot: 0, tokens: &second[beside..] }], WantedLogits::Last).unwrap();
            assert!(engine.logits() == row(&other, second.len() - 1), "{kinds:?}: a copy");
        }
    }
}

#[test]
fn weights_are_held_once_and_as_small_as_they_are_stored() {
    for (kinds, tied) in nets().into_iter().flat_map(|k| [(k.clone(), true), (k, false)]) {
        let (_file, model) = net(&kinds, 0, tied);
        let (held, stored) = (native(&model, "stored", 1, "f32").facts().weight_bytes, model.decoder().stored_bytes());
        assert!(held >= stored && held as f64 <= 1.05 * stored as f64, "{kinds:?}: {held} bytes of {stored}");
    }
}

#[test]
fn what_cannot_be_held_as_stored_says_so() {
    let (_file, model) = net(&[BlockType::Q4_0], 0, true);
    let load = |precision: &str, key: &str, value: &str| {
        let extra = [(key.to_owned(), value.to_owned())].into();
        Native
            .load_language(&model, &Options { precision: precision.into(), extra, ..Options::f32(1, 1) })
            .err()
            .unwrap()
            .to_string()
    };
    assert!(load("stored", "cache", "f8").contains("hint: use f32 or bf16"));
    assert!(load("stored", "caches", "f32").contains("no option `caches`"));
    let described = Native.describe(&Options { precision: "stored".into(), ..Options::f32(1, 1) }).unwrap();
    assert_eq!(described.options["cache"], "bf16");
}
