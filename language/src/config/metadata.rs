//! GGUF metadata as a [`DecoderConfig`].
//!
//! In: an open file. Out: the config. Must not: read a tensor; it asks only which there are.
//!
//! Architectures `llama` (with experts too), `gemma3`, `qwen2` and `qwen3`. What a file leaves out is as llama.cpp has it.

use super::{
    DecoderActivation, DecoderAttention, DecoderConfig, DecoderExperts, DecoderFamily, DecoderLayer, DecoderMlp,
    DecoderNorm, MAX_LAYERS, ParallelLayers, RopeConfig, RopeLayout, RopeScaling,
};
use crate::{
    error::{LanguageError, shown},
    gguf::{Gguf, GgufArray, GgufValue},
    table::TableEntry,
    tokenizer::ends_among,
};

/// Architectures, their family, and which elements of a head are a pair.
const ARCHITECTURES: [(&str, DecoderFamily, RopeLayout); 4] = [
    ("llama", DecoderFamily::Llama, RopeLayout::Interleaved),
    ("gemma3", DecoderFamily::Gemma3, RopeLayout::Halves),
    ("qwen2", DecoderFamily::Qwen2, RopeLayout::Halves),
    ("qwen3", DecoderFamily::Qwen3, RopeLayout::Halves),
];

/// Divisors of rotary frequencies, in a tensor.
const DIVISORS: &str = "rope_freqs.weight";

/// Keys of one architecture.
struct OfArchitecture<'a> {
    gguf: &'a Gguf,
    name: &'a str,
}

impl OfArchitecture<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn count(&self, key: &str) -> Result<Option<usize>, LanguageError> {
        let key = self.key(key);
        let n = self.gguf.unsigned(&key)?;
        n.map(|n| usize::try_from(n).map_err(|_| self.gguf.fail(format!("metadata `{key}` is {n}")))).transpose()
    }

    fn needed(&self, key: &str) -> Result<usize, LanguageError> {
        let n = self.gguf.needed_unsigned(&self.key(key))?;
        usize::try_from(n).map_err(|_| self.gguf.fail(format!("metadata `{}` is {n}", self.key(key))))
    }

    fn number(&self, key: &str) -> Result<Option<f32>, LanguageError> {
        Ok(self.gguf.float(&self.key(key))?.map(|x| x as f32))
    }
}

/// The config in a file's metadata.
pub(crate) fn of_gguf(gguf: &Gguf) -> Result<DecoderConfig, LanguageError> {
    let name = gguf.needed_text("general.architecture")?;
    let known = ARCHITECTURES.iter().find(|a| a.0 == name);
    let (_, family, layout) = *known.ok_or_else(|| {
        let names: Vec<&str> = ARCHITECTURES.iter().map(|a| a.0).collect();
        gguf.fail(format!("metadata `general.architecture` is `{}`, which is not read", shown(name)))
            .hint(format!("known are: {}", names.join(", ")))
    })?;
    let of = OfArchitecture { gguf, name };
    let config = described(&of, family, layout)?;
    config.check().map_err(|e| gguf.fail(format!("its metadata describe a net that cannot be: {e}")))?;
    Ok(config)
}

// Over 80 lines: a config, key by key.
fn described(
    of: &OfArchitecture<'_>,
    family: DecoderFamily,
    layout: RopeLayout,
) -> Result<DecoderConfig, LanguageError> {
    let gguf = of.gguf;
    let (width, heads) = (of.needed("embedding_length")?, of.needed("attention.head_count")?);
    let head_width = of.count("attention.key_length")?.unwrap_or(width.checked_div(heads).unwrap_or(0));
    let values = of.count("attention.value_length")?.unwrap_or(head_width);
    if values != head_width {
        return Err(
            gguf.fail(format!("heads of k are {head_width} wide and heads of v {values}; they must be the same"))
        );
    }
    let gemma = family == DecoderFamily::Gemma3;
    // Gemma 3 27B, known by its layers, is the one of its family that scales by width over heads
    let scaled_by = if gemma && of.needed("block_count")? == 62 { width / heads.max(1) } else { head_width };
    let entries = gguf.tensors().entries();
    let tokens = match gguf.array("tokenizer.ggml.tokens")? {
        Some(tokens) => Some(tokens.len()),
        None => of.count("vocab_size")?,
    };
    // the embedding's rows are what counts; a file without tensors is a vocabulary alone
    let vocabulary = entries.get("token_embd.weight").map(TableEntry::rows).or(tokens);
    let experts = match of.count("expert_count")?.unwrap_or(0) {
        0 => None,
        count => Some(DecoderExperts { count, used: of.needed("expert_used_count")? }),
    };
    let token = |key: &str| -> Result<Option<u32>, LanguageError> {
        Ok(gguf.unsigned(&format!("tokenizer.ggml.{key}"))?.and_then(|id| u32::try_from(id).ok()))
    };
    let mut ends: Vec<u32> = [token("eos_token_id")?, token("eot_token_id")?].into_iter().flatten().collect();
    // texts that end a turn in published models end it here, as in llama.cpp, whatever the file calls them
    for text in tokens_of(gguf)?.iter().flat_map(|list| ends_among(list)) {
        ends.push(text);
    }
    ends.sort_unstable();
    ends.dedup();
    refuse_unknown(of)?;
    Ok(DecoderConfig {
        family,
        vocabulary: vocabulary.unwrap_or(0),
        width,
        context: of.needed("context_length")?,
        tied_head: !entries.contains_key("output.weight"),
        embedding_scale: if gemma { (width as f32).sqrt() } else { 1.0 },
        position_rows: None,
        norm: DecoderNorm {
            centred: false,
            epsilon: gguf.needed_float(&of.key("attention.layer_norm_rms_epsilon"))? as f32,
            // converters add Gemma's 1 to the weights
            offset: 0.0,
        },
        parallel: ParallelLayers::No,
        post_norms: gemma,
        attention: DecoderAttention {
            heads,
            key_value_heads: of.count("attention.head_count_kv")?.unwrap_or(heads),
            head_width,
            scale: of.number("attention.scale")?.filter(|s| *s != 0.0).unwrap_or((scaled_by as f32).powf(-0.5)),
            query_key_norm: matches!(family, DecoderFamily::Gemma3 | DecoderFamily::Qwen3),
            bias: entries.contains_key("blk.0.attn_q.bias"),
            output_bias: entries.contains_key("blk.0.attn_output.bias"),
            score_cap: of.number("attn_logit_softcapping")?,
        },
        mlp: DecoderMlp {
            inner: match of.count("expert_feed_forward_length")?.filter(|_| experts.is_some()) {
                Some(inner) => inner,
                None => of.needed("feed_forward_length")?,
            },
            gated: true,
            activation: if gemma { DecoderActivation::GeluTanh } else { DecoderActivation::Silu },
            bias: entries.contains_key("blk.0.ffn_up.bias"),
            experts,
        },
        layers: layers(of, family, head_width, layout)?,
        logit_cap: of.number("final_logit_softcapping")?,
        begin: token("bos_token_id")?,
        ends,
    })
}

/// Texts of the vocabulary's tokens.
fn tokens_of(gguf: &Gguf) -> Result<Option<&[String]>, LanguageError> {
    match gguf.array("tokenizer.ggml.tokens")? {
        Some(GgufArray::Text(tokens)) => Ok(Some(tokens)),
        _ => Ok(None),
    }
}

/// Keys that change what the net computes, with values that are not computed here.
fn refuse_unknown(of: &OfArchitecture<'_>) -> Result<(), LanguageError> {
    let refuse = |key: &str, value: String| {
        let message = format!("metadata `{}` is {value}, which is not computed", of.key(key));
        of.gguf.fail(message).hint("use a model of the same family without it")
    };
    for (key, usual) in [("rope.scaling.attn_factor", [1.0, 1.0]), ("expert_weights_scale", [0.0, 1.0])] {
        if let Some(value) = of.number(key)?.filter(|v| !usual.contains(v)) {
            return Err(refuse(key, value.to_string()));
        }
    }
    // 1: softmax
    if let Some(kind) = of.count("expert_gating_func")?.filter(|kind| *kind > 1) {
        return Err(refuse("expert_gating_func", kind.to_string()));
    }
    if of.gguf.metadata().get(&of.key("attention.causal")) == Some(&GgufValue::Bool(false)) {
        return Err(refuse("attention.causal", "false".into()));
    }
    Ok(())
}

fn layers(
    of: &OfArchitecture<'_>,
    family: DecoderFamily,
    head: usize,
    layout: RopeLayout,
) -> Result<Vec<DecoderLayer>, LanguageError> {
    let n = of.needed("block_count")?;
    if n > MAX_LAYERS {
        return Err(of.gguf.fail(format!("metadata `{}` is {n}; {MAX_LAYERS} are the most", of.key("block_count"))));
    }
    let scaling = scaling(of)?;
    let rope = RopeConfig {
        theta: of.number("rope.freq_base")?.unwrap_or(10_000.0),
        width: of.count("rope.dimension_count")?.unwrap_or(head),
        layout,
        scaling,
    };
    let window = of.count("attention.sliding_window")?.filter(|w| *w > 0);
    if family != DecoderFamily::Gemma3 {
        // llama.cpp reads no window of these architectures
        return Ok(vec![DecoderLayer { window: None, rope: Some(rope) }; n]);
    }
    let window = window.ok_or_else(|| of.gguf.fail("metadata `gemma3.attention.sliding_window` is missing or 0"))?;
    let key = of.key("attention.sliding_window_pattern");
    let sliding: Vec<bool> = match of.gguf.metadata().get(&key) {
        None => (1..=n).map(|i| i % 6 != 0).collect(),
        Some(GgufValue::Unsigned(period)) => (1..=n as u64).map(|i| i.checked_rem(*period) != Some(0)).collect(),
        Some(GgufValue::Array(GgufArray::Bool(sliding))) if sliding.len() == n => sliding.clone(),
        Some(other) => {
            return Err(of.gguf.fail(format!("metadata `{key}` is {}, no period or {n} booleans", other.kind())));
        }
    };
    let local = RopeConfig {
        theta: of.number("rope.freq_base_swa")?.unwrap_or(10_000.0),
        scaling: RopeScaling::None,
        ..rope.clone()
    };
    let layer = |sliding: bool| DecoderLayer {
        window: sliding.then_some(window),
        rope: Some(if sliding { local.clone() } else { rope.clone() }),
    };
    Ok(sliding.into_iter().map(layer).collect())
}

fn scaling(of: &OfArchitecture<'_>) -> Result<RopeScaling, LanguageError> {
    let kind = of.key("rope.scaling.type");
    // older files have a linear factor of another name; 0 stands for none
    let factor = match of.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => of.number("rope.scale_linear")?,
    };
    let factor = factor.filter(|f| *f != 1.0 && *f != 0.0);
    let linear = match of.gguf.text(&kind)? {
        // a factor alone is a linear one
        None | Some("linear") => factor,
        Some("none") => None,
        Some(other) => {
            let message = format!("metadata `{kind}` is `{}`, which is not known", shown(other));
            return Err(of.gguf.fail(message).hint("known are none, linear, and divisors in a tensor (Llama 3)"));
        }
    };
    match (of.gguf.tensors().entries().contains_key(DIVISORS), linear) {
        (true, None) => Ok(RopeScaling::Divisors),
        (true, Some(factor)) => Err(of
            .gguf
            .fail(format!("tensor `{DIVISORS}` and the factor {factor} both scale rotary frequencies"))
            .hint("convert the model again: one of the two is meant")),
        (false, linear) => Ok(linear.map_or(RopeScaling::None, RopeScaling::Linear)),
    }
}
