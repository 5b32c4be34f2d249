//! What each family calls its tensors, in Hugging Face files and in GGUF.
//!
//! In: a family and a kind of file. Out: lines of our name, their name, and how ours is cut out of theirs. Must not: know
//! sizes.

use crate::config::DecoderFamily;

/// Which kind of file names are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// `config.json` and safetensors files.
    Folder,
    /// A GGUF file.
    Gguf,
}

/// How one of our tensors is found in one of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Whole,
    /// Rows of q, of k and of v after each other: 0, 1, 2.
    QueryKeyValue(usize),
    /// For each head of k: its heads of q, then it, then that of v.
    Groups(usize),
    /// Rows of the gate, then as many of what comes up: 0, 1.
    Half(usize),
    /// A tensor for each expert, `{}` in the name its number.
    Experts,
}

pub(super) struct NameTable {
    /// Before every name but the head's; some files leave it out.
    pub prefix: &'static str,
    /// Before a layer's number.
    pub layer: &'static str,
    pub embedding: &'static str,
    pub positions: &'static str,
    pub norm: &'static str,
    pub head: &'static str,
    /// Weights of linear layers are [in, out].
    pub transposed: bool,
    /// Names inside of a layer, theirs without `.weight` and `.bias`.
    pub inner: &'static [(&'static str, &'static str, Cut)],
}

use Cut::{Experts, Groups, Half, QueryKeyValue, Whole};

const LLAMA: NameTable = NameTable {
    prefix: "model.",
    layer: "layers.",
    embedding: "embed_tokens",
    positions: "",
    norm: "norm",
    head: "lm_head",
    transposed: false,
    inner: &[
        ("attention_norm", "input_layernorm", Whole),
        ("mlp_norm", "post_attention_layernorm", Whole),
        ("q", "self_attn.q_proj", Whole),
        ("k", "self_attn.k_proj", Whole),
        ("v", "self_attn.v_proj", Whole),
        ("q_norm", "self_attn.q_norm", Whole),
        ("k_norm", "self_attn.k_norm", Whole),
        ("attention_output", "self_attn.o_proj", Whole),
        ("gate", "mlp.gate_proj", Whole),
        ("up", "mlp.up_proj", Whole),
        ("down", "mlp.down_proj", Whole),
        ("router", "block_sparse_moe.gate", Whole),
        ("experts.gate", "block_sparse_moe.experts.{}.w1", Experts),
        ("experts.up", "block_sparse_moe.experts.{}.w3", Experts),
        ("experts.down", "block_sparse_moe.experts.{}.w2", Experts),
    ],
};

const GEMMA3: NameTable = NameTable {
    inner: &[
        ("attention_norm", "input_layernorm", Whole),
        ("attention_post_norm", "post_attention_layernorm", Whole),
        ("mlp_norm", "pre_feedforward_layernorm", Whole),
        ("mlp_post_norm", "post_feedforward_layernorm", Whole),
        ("q", "self_attn.q_proj", Whole),
        ("k", "self_attn.k_proj", Whole),
        ("v", "self_attn.v_proj", Whole),
        ("q_norm", "self_attn.q_norm", Whole),
        ("k_norm", "self_attn.k_norm", Whole),
        ("attention_output", "self_attn.o_proj", Whole),
        ("gate", "mlp.gate_proj", Whole),
        ("up", "mlp.up_proj", Whole),
        ("down", "mlp.down_proj", Whole),
    ],
    ..LLAMA
};

const PHI3: NameTable = NameTable {
    inner: &[
        ("attention_norm", "input_layernorm", Whole),
        ("mlp_norm", "post_attention_layernorm", Whole),
        ("q", "self_attn.qkv_proj", QueryKeyValue(0)),
        ("k", "self_attn.qkv_proj", QueryKeyValue(1)),
        ("v", "self_attn.qkv_proj", QueryKeyValue(2)),
        ("attention_output", "self_attn.o_proj", Whole),
        ("gate", "mlp.gate_up_proj", Half(0)),
        ("up", "mlp.gate_up_proj", Half(1)),
        ("down", "mlp.down_proj", Whole),
    ],
    ..LLAMA
};

/// With a norm for each half of a layer.
const FALCON_TWO: NameTable = NameTable {
    prefix: "transformer.",
    layer: "h.",
    embedding: "word_embeddings",
    norm: "ln_f",
    inner: &[
        ("attention_norm", "ln_attn", Whole),
        ("mlp_norm", "ln_mlp", Whole),
        ("q", "self_attention.query_key_value", Groups(0)),
        ("k", "self_attention.query_key_value", Groups(1)),
        ("v", "self_attention.query_key_value", Groups(2)),
        ("attention_output", "self_attention.dense", Whole),
        ("up", "mlp.dense_h_to_4h", Whole),
        ("down", "mlp.dense_4h_to_h", Whole),
    ],
    ..LLAMA
};

const FALCON: NameTable = NameTable {
    inner: &[
        ("attention_norm", "input_layernorm", Whole),
        ("mlp_norm", "post_attention_layernorm", Whole),
        ("q", "self_attention.query_key_value", Groups(0)),
        ("k", "self_attention.query_key_value", Groups(1)),
        ("v", "self_attention.query_key_value", Groups(2)),
        ("attention_output", "self_attention.dense", Whole),
        ("up", "mlp.dense_h_to_4h", Whole),
        ("down", "mlp.dense_4h_to_h", Whole),
    ],
    ..FALCON_TWO
};

const GPT_NEO: NameTable = NameTable {
    prefix: "transformer.",
    layer: "h.",
    embedding: "wte",
    positions: "wpe",
    norm: "ln_f",
    inner: &[
        ("attention_norm", "ln_1", Whole),
        ("mlp_norm", "ln_2", Whole),
        ("q", "attn.attention.q_proj", Whole),
        ("k", "attn.attention.k_proj", Whole),
        ("v", "attn.attention.v_proj", Whole),
        ("attention_output", "attn.attention.out_proj", Whole),
        ("up", "mlp.c_fc", Whole),
        ("down", "mlp.c_proj", Whole),
    ],
    ..LLAMA
};

const GPT2: NameTable = NameTable {
    transposed: true,
    inner: &[
        ("attention_norm", "ln_1", Whole),
        ("mlp_norm", "ln_2", Whole),
        ("q", "attn.c_attn", QueryKeyValue(0)),
        ("k", "attn.c_attn", QueryKeyValue(1)),
        ("v", "attn.c_attn", QueryKeyValue(2)),
        ("attention_output", "attn.c_proj", Whole),
        ("up", "mlp.c_fc", Whole),
        ("down", "mlp.c_proj", Whole),
    ],
    ..GPT_NEO
};

const GGUF: NameTable = NameTable {
    prefix: "",
    layer: "blk.",
    embedding: "token_embd",
    positions: "",
    norm: "output_norm",
    head: "output",
    transposed: false,
    inner: &[
        ("attention_norm", "attn_norm", Whole),
        ("attention_post_norm", "post_attention_norm", Whole),
        ("mlp_norm", "ffn_norm", Whole),
        ("mlp_post_norm", "post_ffw_norm", Whole),
        ("q", "attn_q", Whole),
        ("k", "attn_k", Whole),
        ("v", "attn_v", Whole),
        ("q_norm", "attn_q_norm", Whole),
        ("k_norm", "attn_k_norm", Whole),
        ("attention_output", "attn_output", Whole),
        ("gate", "ffn_gate", Whole),
        ("up", "ffn_up", Whole),
        ("down", "ffn_down", Whole),
        ("router", "ffn_gate_inp", Whole),
        ("experts.gate", "ffn_gate_exps", Whole),
        ("experts.up", "ffn_up_exps", Whole),
        ("experts.down", "ffn_down_exps", Whole),
    ],
};

impl NameTable {
    /// The table of a family; `two_norms` where each half of a parallel layer has its own.
    pub(super) fn of(family: DecoderFamily, by: NamedBy, two_norms: bool) -> &'static Self {
        use DecoderFamily::{Falcon, Gemma, Gemma3, Gpt2, GptNeo, Llama, Mixtral, Phi3, Qwen2, Qwen3};
        match (by, family) {
            (NamedBy::Gguf, _) => &GGUF,
            (_, Llama | Gemma | Mixtral | Qwen2 | Qwen3) => &LLAMA,
            (_, Gemma3) => &GEMMA3,
            (_, Phi3) => &PHI3,
            (_, Falcon) if two_norms => &FALCON_TWO,
            (_, Falcon) => &FALCON,
            (_, GptNeo) => &GPT_NEO,
            (_, Gpt2) => &GPT2,
        }
    }
}

/// Whether a tensor of a folder that the net does not ask for changes nothing: tables that follow from the config, masks,
/// and a head that is tied.
pub(super) fn harmless(name: &str, tied_head: bool) -> bool {
    let ends = [
        "rotary_emb.inv_freq",
        ".attn.bias",
        ".attn.masked_bias",
        ".attn.attention.bias",
        ".attn.attention.masked_bias",
    ];
    ends.iter().any(|end| name.ends_with(end)) || tied_head && name == "lm_head.weight"
}
