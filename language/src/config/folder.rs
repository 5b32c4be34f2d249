//! A Hugging Face `config.json` as a [`DecoderConfig`].
//!
//! In: the file's bytes. Out: the config. Must not: fall back on a size that `transformers` would assume for a missing
//! key: such files are not whole. Numbers that are the same in all published files of a family are assumed as there.
//!
//! Two spellings of rotary positions are read: `rope_parameters` (flat, or by kind of layer), and the older `rope_theta`
//! with `rope_scaling`.

use std::path::Path;

use serde_json::Value;

use super::{
    DecoderActivation, DecoderAttention, DecoderConfig, DecoderExperts, DecoderFamily, DecoderLayer, DecoderMlp,
    DecoderNorm, MAX_LAYERS, ParallelLayers, RopeConfig, RopeLayout, RopeScaling, keys::ConfigKeys,
};
use crate::error::{LanguageError, shown};

/// Families by `model_type`.
const FAMILIES: [(&str, DecoderFamily); 12] = [
    ("llama", DecoderFamily::Llama),
    ("mistral", DecoderFamily::Llama),
    ("smollm", DecoderFamily::Llama),
    ("gemma", DecoderFamily::Gemma),
    ("gemma3_text", DecoderFamily::Gemma3),
    ("phi3", DecoderFamily::Phi3),
    ("mixtral", DecoderFamily::Mixtral),
    ("falcon", DecoderFamily::Falcon),
    ("gpt_neo", DecoderFamily::GptNeo),
    ("gpt2", DecoderFamily::Gpt2),
    ("qwen2", DecoderFamily::Qwen2),
    ("qwen3", DecoderFamily::Qwen3),
];

/// Whether a `model_type` is that of a decoder that is read.
pub fn is_decoder(model_type: &str) -> bool {
    FAMILIES.iter().any(|(name, _)| *name == model_type)
}

/// The config in a file's bytes.
pub(crate) fn of_json(bytes: &[u8], path: &Path) -> Result<DecoderConfig, LanguageError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        LanguageError::new(path, format!("no JSON: {e}")).hint("fetch the file again; config.json is a JSON object")
    })?;
    let object = value.as_object().ok_or_else(|| LanguageError::new(path, "no JSON object"))?;
    let keys = ConfigKeys::new(object, path);
    let name = keys.text("model_type")?.ok_or_else(|| keys.missing("model_type"))?;
    let known = FAMILIES.iter().find(|(n, _)| *n == name);
    let (_, family) = known.ok_or_else(|| {
        let names: Vec<&str> = FAMILIES.iter().map(|f| f.0).collect();
        keys.fail(format!("`model_type` is `{}`, no decoder that is read", shown(name)))
            .hint(format!("known are: {}", names.join(", ")))
    })?;
    for (key, usual) in [("use_bidirectional_attention", false), ("is_causal", true)] {
        if keys.flag(key, usual)? != usual {
            let message = format!("`{key}` is {}: the model sees what comes after, and generates nothing", !usual);
            return Err(keys.fail(message).hint("causal decoders are read; export others as ONNX files"));
        }
    }
    let config = match family {
        DecoderFamily::Falcon => falcon(&keys)?,
        DecoderFamily::GptNeo => gpt_neo(&keys)?,
        DecoderFamily::Gpt2 => gpt2(&keys)?,
        family => like_llama(&keys, *family)?,
    };
    config.check().map_err(|e| keys.fail(e))?;
    Ok(config)
}

fn layers_of(keys: &ConfigKeys<'_>, key: &str) -> Result<usize, LanguageError> {
    match keys.needed(key)? {
        n if n > MAX_LAYERS => Err(keys.fail(format!("`{key}` is {n}; {MAX_LAYERS} are the most"))),
        n => Ok(n),
    }
}

fn activation(keys: &ConfigKeys<'_>, key: &str) -> Result<DecoderActivation, LanguageError> {
    let name = keys.text(key)?.ok_or_else(|| keys.missing(key))?;
    match name {
        "silu" | "swish" => Ok(DecoderActivation::Silu),
        "gelu" => Ok(DecoderActivation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(DecoderActivation::GeluTanh),
        other => {
            let message = format!("`{key}` is `{}`, an unknown activation", shown(other));
            Err(keys.fail(message).hint("known are silu, gelu, gelu_new and gelu_pytorch_tanh"))
        }
    }
}

/// One number divided by another that is not zero; zero is refused by [`DecoderConfig::check`] later.
fn share(whole: usize, parts: usize) -> usize {
    whole.checked_div(parts).unwrap_or(0)
}

fn begin(keys: &ConfigKeys<'_>) -> Result<Option<u32>, LanguageError> {
    Ok(keys.tokens("bos_token_id")?.first().copied())
}

/// Llama, Gemma, Phi-3, Mixtral, Qwen: RMS norms, rotary positions, gated MLPs.
fn like_llama(keys: &ConfigKeys<'_>, family: DecoderFamily) -> Result<DecoderConfig, LanguageError> {
    use DecoderFamily::{Gemma, Gemma3, Llama, Mixtral, Phi3, Qwen2, Qwen3};
    let (width, heads) = (keys.needed("hidden_size")?, keys.needed("num_attention_heads")?);
    let head_width = match keys.count("head_dim")? {
        Some(n) => n,
        // classes of these assume a size that is not width / heads
        None if matches!(family, Gemma | Gemma3 | Qwen3) => return Err(keys.missing("head_dim")),
        None => share(width, heads),
    };
    let gemma = matches!(family, Gemma | Gemma3);
    let scale = match keys.number("query_pre_attn_scalar")? {
        Some(scalar) if family == Gemma3 => scalar.powf(-0.5),
        None if family == Gemma3 => return Err(keys.missing("query_pre_attn_scalar")),
        _ => (head_width as f32).powf(-0.5),
    };
    let act = match family {
        // files of Gemma 1 say `gelu` where the net was trained with its approximation
        Gemma if !keys.has("hidden_activation") => DecoderActivation::GeluTanh,
        _ => activation(keys, if keys.has("hidden_activation") { "hidden_activation" } else { "hidden_act" })?,
    };
    let bias = match family {
        Qwen2 => true,
        Phi3 | Mixtral => false,
        _ => keys.flag("attention_bias", false)?,
    };
    let experts = match family {
        Mixtral => {
            let experts = |key| keys.needed(key);
            Some(DecoderExperts { count: experts("num_local_experts")?, used: experts("num_experts_per_tok")? })
        }
        _ => None,
    };
    Ok(DecoderConfig {
        family,
        vocabulary: keys.needed("vocab_size")?,
        width,
        context: keys.needed("max_position_embeddings")?,
        tied_head: keys.flag("tie_word_embeddings", gemma)?,
        embedding_scale: if gemma { (width as f32).sqrt() } else { 1.0 },
        position_rows: None,
        norm: DecoderNorm {
            centred: false,
            epsilon: keys.number("rms_norm_eps")?.ok_or_else(|| keys.missing("rms_norm_eps"))?,
            offset: if gemma { 1.0 } else { 0.0 },
        },
        parallel: ParallelLayers::No,
        post_norms: family == Gemma3,
        attention: DecoderAttention {
            heads,
            key_value_heads: keys.count("num_key_value_heads")?.unwrap_or(heads),
            head_width,
            scale,
            query_key_norm: matches!(family, Gemma3 | Qwen3),
            bias,
            output_bias: bias && family != Qwen2,
            score_cap: if family == Gemma3 { keys.number("attn_logit_softcapping")? } else { None },
        },
        mlp: DecoderMlp {
            inner: keys.needed("intermediate_size")?,
            gated: true,
            activation: act,
            bias: family == Llama && keys.flag("mlp_bias", false)?,
            experts,
        },
        layers: layers(keys, family, head_width)?,
        logit_cap: if family == Gemma3 { keys.number("final_logit_softcapping")? } else { None },
        begin: begin(keys)?,
        ends: keys.tokens("eos_token_id")?,
    })
}

/// Window and rotary positions of each layer.
fn layers(keys: &ConfigKeys<'_>, family: DecoderFamily, head: usize) -> Result<Vec<DecoderLayer>, LanguageError> {
    let n = layers_of(keys, "num_hidden_layers")?;
    // Qwen names a window that it does not use
    let unused =
        matches!(family, DecoderFamily::Qwen2 | DecoderFamily::Qwen3) && !keys.flag("use_sliding_window", false)?;
    // Llama and Gemma 1 have none, whatever their config says
    let none = match family {
        DecoderFamily::Gemma => true,
        DecoderFamily::Llama => keys.text("model_type")? != Some("mistral"),
        _ => false,
    };
    let unused = unused || none;
    let window = if unused { None } else { keys.count("sliding_window")? };
    let full: Vec<bool> = match keys.texts("layer_types")? {
        Some(types) if types.len() == n => {
            let full = types.iter().map(|kind| match *kind {
                "full_attention" => Ok(true),
                "sliding_attention" => Ok(false),
                other => Err(keys.fail(format!("`layer_types` has `{}`, an unknown kind of layer", shown(other)))),
            });
            full.collect::<Result<_, _>>()?
        }
        Some(types) => return Err(keys.fail(format!("`layer_types` has {} elements for {n} layers", types.len()))),
        None if family == DecoderFamily::Gemma3 => {
            let period = match keys.count("sliding_window_pattern")? {
                Some(period) => Some(period),
                None => keys.count("_sliding_window_pattern")?,
            };
            // every sixth layer sees all, in all of Gemma 3
            let period = period.unwrap_or(6);
            (1..=n).map(|i| i.checked_rem(period) == Some(0)).collect()
        }
        None if unused => vec![true; n],
        None if matches!(family, DecoderFamily::Qwen2 | DecoderFamily::Qwen3) => {
            let first = keys.count("max_window_layers")?.unwrap_or(n);
            (0..n).map(|i| i < first).collect()
        }
        None => vec![window.is_none(); n],
    };
    if window.is_none() && full.contains(&false) {
        return Err(keys.missing("sliding_window"));
    }
    let (all, sliding) = (rope(keys, head, true)?, rope(keys, head, false)?);
    let layer = |full: bool| DecoderLayer {
        window: window.filter(|_| !full),
        rope: Some(if full { all.clone() } else { sliding.clone() }),
    };
    Ok(full.into_iter().map(layer).collect())
}

/// Rotary positions of layers that see all, or of those with a window.
fn rope(keys: &ConfigKeys<'_>, head: usize, full: bool) -> Result<RopeConfig, LanguageError> {
    let parameters = keys.inside("rope_parameters")?;
    let kind = if full { "full_attention" } else { "sliding_attention" };
    let (of_kind, by_kind) = match &parameters {
        Some(p) => (p.inside(kind)?, p.has("full_attention") || p.has("sliding_attention")),
        None => (None, false),
    };
    let old = keys.inside("rope_scaling")?;
    if parameters.is_some() && old.is_some() && !keys.same("rope_parameters", "rope_scaling") {
        return Err(keys.fail("`rope_parameters` and `rope_scaling` are both there and differ"));
    }
    // the older spelling of Gemma 3: a base of their own for windows, which are not scaled
    let gemma3 = keys.text("model_type")? == Some("gemma3_text");
    let local = match (full || by_kind, keys.number("rope_local_base_freq")?) {
        (true, _) => None,
        (false, None) if gemma3 => Some(10_000.0),
        (false, local) => local,
    };
    let section = if by_kind { of_kind.as_ref() } else { parameters.as_ref().or(old.as_ref()) };
    let section = section.filter(|_| local.is_none());
    if by_kind && section.is_none() {
        // no layer of this kind, or the other kind's
        return if full { Err(keys.missing("rope_parameters.full_attention")) } else { rope(keys, head, true) };
    }
    let inside = section.map_or(Ok(None), |s| s.number("rope_theta"))?;
    let theta = match local.or(inside) {
        Some(theta) => theta,
        None => match (keys.number("rope_theta")?, keys.text("model_type")?) {
            (Some(theta), _) => theta,
            // early files of these leave out what was the same in all of them
            (None, Some("llama" | "falcon" | "gemma" | "phi3")) => 10_000.0,
            (None, _) => return Err(keys.missing("rope_theta")),
        },
    };
    let share = section.map_or(Ok(None), |s| s.double("partial_rotary_factor"))?;
    let share = match share {
        Some(share) => share,
        None => keys.double("partial_rotary_factor")?.unwrap_or(1.0),
    };
    let scaling = section.map_or(Ok(RopeScaling::None), |s| scaling(keys, s))?;
    let width = (head as f64 * share) as usize;
    if let RopeScaling::LongRope { short, long, .. } = &scaling
        && (short.len() != width / 2 || long.len() != width / 2)
    {
        // before every layer has a copy
        let (short, long) = (short.len(), long.len());
        return Err(keys.fail(format!("longrope has {short} and {long} divisors for {} pairs", width / 2)));
    }
    Ok(RopeConfig { theta, width, layout: RopeLayout::Halves, scaling })
}

fn scaling(keys: &ConfigKeys<'_>, section: &ConfigKeys<'_>) -> Result<RopeScaling, LanguageError> {
    let named = match section.text("rope_type")? {
        Some(name) => Some(name),
        None => section.text("type")?,
    };
    let number = |key: &str| section.number(key)?.ok_or_else(|| section.missing(key));
    let original = || match section.count("original_max_position_embeddings")? {
        Some(n) => Ok(n),
        None => keys.needed("original_max_position_embeddings"),
    };
    match named {
        None if !section.has("factor") => Ok(RopeScaling::None),
        Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear(number("factor")?)),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: number("factor")?,
            low: number("low_freq_factor")?,
            high: number("high_freq_factor")?,
            original: original()?,
        }),
        Some("longrope" | "su") => {
            let list = |key: &str| section.numbers(key)?.ok_or_else(|| section.missing(key));
            let original = original()?;
            let attention = match section.number("attention_factor")? {
                Some(factor) => factor,
                None => {
                    let factor = match section.number("factor")? {
                        Some(factor) => f64::from(factor),
                        None => keys.needed("max_position_embeddings")? as f64 / original as f64,
                    };
                    // published with LongRoPE
                    let grown = (1.0 + factor.ln() / (original as f64).ln()).sqrt() as f32;
                    if factor <= 1.0 { 1.0 } else { grown }
                }
            };
            Ok(RopeScaling::LongRope { short: list("short_factor")?, long: list("long_factor")?, original, attention })
        }
        other => {
            let shown = other.map_or("not named".into(), |name| format!("`{}`", shown(name)));
            let message = format!("the type of rope scaling is {shown}, which is not known");
            Err(keys.fail(message).hint("known are default, linear, llama3 and longrope"))
        }
    }
}

fn falcon(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, LanguageError> {
    if keys.flag("alibi", false)? {
        return Err(keys.fail("`alibi` is true: positions by a bias of scores are not computed"));
    }
    let (width, heads) = (keys.needed("hidden_size")?, keys.needed("num_attention_heads")?);
    let new = keys.flag("new_decoder_architecture", false)?;
    let key_value_heads = match (new, keys.flag("multi_query", true)?) {
        (true, _) => keys.count("num_kv_heads")?.unwrap_or(heads),
        (false, true) => 1,
        (false, false) => heads,
    };
    let norms = match keys.count("num_ln_in_parallel_attn")? {
        None if new => 2,
        None => 1,
        Some(n @ 1..=2) => n,
        Some(n) => return Err(keys.fail(format!("`num_ln_in_parallel_attn` is {n}, not 1 or 2"))),
    };
    let parallel = match (new, keys.flag("parallel_attn", true)?) {
        (true, true) if norms == 2 => ParallelLayers::TwoNorms,
        (_, true) => ParallelLayers::OneNorm,
        (true, false) => return Err(keys.fail("`parallel_attn` is false with `new_decoder_architecture`")),
        (false, false) => ParallelLayers::No,
    };
    let head_width = share(width, heads);
    let bias = keys.flag("bias", false)?;
    let rope = rope(keys, head_width, true)?;
    let layer = DecoderLayer { window: None, rope: Some(rope) };
    Ok(DecoderConfig {
        family: DecoderFamily::Falcon,
        vocabulary: keys.needed("vocab_size")?,
        width,
        context: keys.count("max_position_embeddings")?.unwrap_or(2048),
        tied_head: keys.flag("tie_word_embeddings", true)?,
        embedding_scale: 1.0,
        position_rows: None,
        norm: layer_norm(keys)?,
        parallel,
        post_norms: false,
        attention: DecoderAttention {
            heads,
            key_value_heads,
            head_width,
            scale: (head_width as f32).powf(-0.5),
            query_key_norm: false,
            bias,
            output_bias: bias,
            score_cap: None,
        },
        mlp: DecoderMlp {
            inner: keys.count("ffn_hidden_size")?.unwrap_or(width.saturating_mul(4)),
            gated: false,
            activation: if keys.has("activation") { activation(keys, "activation")? } else { DecoderActivation::Gelu },
            bias,
            experts: None,
        },
        layers: vec![layer; layers_of(keys, "num_hidden_layers")?],
        logit_cap: None,
        begin: begin(keys)?,
        ends: keys.tokens("eos_token_id")?,
    })
}

fn layer_norm(keys: &ConfigKeys<'_>) -> Result<DecoderNorm, LanguageError> {
    Ok(DecoderNorm {
        centred: true,
        epsilon: keys.number("layer_norm_epsilon")?.ok_or_else(|| keys.missing("layer_norm_epsilon"))?,
        offset: 0.0,
    })
}

/// Biases everywhere, learned positions, nothing rotary; `scale` and windows are the caller's.
fn gpt(keys: &ConfigKeys<'_>, sizes: [usize; 4], layers: Vec<DecoderLayer>) -> Result<DecoderConfig, LanguageError> {
    let [width, heads, inner, context] = sizes;
    let head_width = share(width, heads);
    Ok(DecoderConfig {
        family: DecoderFamily::Gpt2,
        vocabulary: keys.needed("vocab_size")?,
        width,
        context,
        tied_head: keys.flag("tie_word_embeddings", true)?,
        embedding_scale: 1.0,
        position_rows: Some(context),
        norm: layer_norm(keys)?,
        parallel: ParallelLayers::No,
        post_norms: false,
        attention: DecoderAttention {
            heads,
            key_value_heads: heads,
            head_width,
            scale: (head_width as f32).powf(-0.5),
            query_key_norm: false,
            bias: true,
            output_bias: true,
            score_cap: None,
        },
        mlp: DecoderMlp {
            inner,
            gated: false,
            activation: activation(keys, "activation_function")?,
            bias: true,
            experts: None,
        },
        layers,
        logit_cap: None,
        begin: begin(keys)?,
        ends: keys.tokens("eos_token_id")?,
    })
}

fn gpt_neo(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, LanguageError> {
    let n = layers_of(keys, "num_layers")?;
    let window = keys.needed("window_size")?;
    let kinds = keys.texts("attention_layers")?.ok_or_else(|| keys.missing("attention_layers"))?;
    if kinds.len() != n {
        return Err(keys.fail(format!("`attention_layers` has {} elements for {n} layers", kinds.len())));
    }
    let layer = |kind: &&str| match *kind {
        "global" => Ok(DecoderLayer { window: None, rope: None }),
        "local" => Ok(DecoderLayer { window: Some(window), rope: None }),
        other => Err(keys.fail(format!("`attention_layers` has `{}`, an unknown kind of layer", shown(other)))),
    };
    let layers = kinds.iter().map(layer).collect::<Result<_, _>>()?;
    let width = keys.needed("hidden_size")?;
    let inner = keys.count("intermediate_size")?.unwrap_or(width.saturating_mul(4));
    let sizes = [width, keys.needed("num_heads")?, inner, keys.needed("max_position_embeddings")?];
    let mut config = gpt(keys, sizes, layers)?;
    config.family = DecoderFamily::GptNeo;
    // scores are not scaled in this family
    config.attention.scale = 1.0;
    config.attention.bias = false;
    Ok(config)
}

fn gpt2(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, LanguageError> {
    if keys.flag("scale_attn_by_inverse_layer_idx", false)? || keys.flag("add_cross_attention", false)? {
        return Err(
            keys.fail("`scale_attn_by_inverse_layer_idx` or `add_cross_attention` is true, which is not computed")
        );
    }
    let layers = vec![DecoderLayer { window: None, rope: None }; layers_of(keys, "n_layer")?];
    let width = keys.needed("n_embd")?;
    let inner = keys.count("n_inner")?.unwrap_or(width.saturating_mul(4));
    let mut config = gpt(keys, [width, keys.needed("n_head")?, inner, keys.needed("n_positions")?], layers)?;
    if !keys.flag("scale_attn_weights", true)? {
        config.attention.scale = 1.0;
    }
    Ok(config)
}
