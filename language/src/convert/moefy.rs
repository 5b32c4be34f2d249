//! A dense net as a mixture of experts: its MLP is cut into slices, each an expert.
//!
//! In: a GGUF file of the architecture `llama`, how many experts, how many of them a token meets. Out: a file of the same
//! architecture with routers. Must not: train: routers are zeros, random or given, and the file says which.
//!
//! down(act(gate x) * up x) is a sum over the inner width, so that slices of it are experts whose outputs add up to the dense
//! one. A mixture weighs the chosen experts by numbers that sum to 1; with a router of zeros and all experts active each weighs
//! 1/E, and the down matrices are multiplied by E, so that the mixture is the dense net. E is a power of two, for then
//! no scale is rounded (with given routers each expert's factor rounds them). With fewer active experts the net is another one, and with a router that nobody has trained
//! it is a worse one: a thing to time, with real weights and sizes, and nothing to ask.

use std::io::Write;
use std::path::Path;

use super::{ConversionProgress, Converted, PieceError, copy, in_order, metadata_with, name_of, pieces, write_file};
use crate::{
    BlockType,
    blocks::scale,
    error::{LanguageError, shown},
    gguf::{Gguf, GgufTensorHead, GgufValue},
    table::TableEntry,
};

/// Most experts.
const MAX_EXPERTS: usize = 256;

/// What a router holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Router {
    /// Zeros: all experts weigh the same, and of fewer the first ones are taken.
    Zero,
    /// Normal numbers of variance 1 / width from a seed: tokens spread over the experts by chance.
    Random(u64),
    /// Made from the net's outputs.
    Given(GivenRouters),
}

/// Routers that somebody else made.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenRouters {
    /// How, in words: the file keeps them.
    pub about: String,
    /// By layer the router, `[experts, width]`, and what each expert's output is multiplied with.
    pub layers: Vec<(Vec<f32>, Vec<f32>)>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Moefication {
    /// Experts of a layer: a power of two.
    pub experts: usize,
    /// Experts that a token meets.
    pub active: usize,
    /// What routers hold.
    pub router: Router,
}

/// Where the bytes of a new tensor come from.
enum Part<'a> {
    Whole(&'a str, &'a TableEntry),
    /// Of a layer.
    Router(usize),
    /// Rows of the dense matrix are the experts' rows, one expert after the other.
    Rows(&'a str, &'a TableEntry),
    /// Columns of the dense matrix of a layer are the experts' columns.
    Columns(usize, &'a str, &'a TableEntry),
}

/// Writes a mixture made of a dense net.
///
/// # Errors
/// Numbers that do not go together; a net that is no dense one of `llama`; what cannot be read or written.
pub fn moefy(
    gguf: &Gguf,
    wanted: &Moefication,
    out: &Path,
    progress: ConversionProgress<'_>,
) -> Result<Converted, LanguageError> {
    let Moefication { experts, active, ref router } = *wanted;
    let fail = |message: String, hint: &str| Err(gguf.fail(message).hint(hint));
    if !experts.is_power_of_two() || !(2..=MAX_EXPERTS).contains(&experts) {
        return fail(format!("{experts} experts"), "a power of two from 2 to 256 is possible: 8, say");
    }
    if active == 0 || active > experts {
        return fail(format!("{active} of {experts} experts active"), "1 to all of them are possible");
    }
    let architecture = gguf.needed_text("general.architecture")?;
    if architecture != "llama" {
        let message = format!("the architecture is `{}`", shown(architecture));
        return fail(message, "nets of the architecture `llama` are split, such as SmolLM2: `ergometer fetch smollm2`");
    }
    if gguf.unsigned("llama.expert_count")?.unwrap_or(0) > 0 {
        return fail("the net is a mixture of experts already".into(), "name a dense net");
    }
    let inner = gguf.needed_unsigned("llama.feed_forward_length")?;
    let width = gguf.needed_unsigned("llama.embedding_length")? as usize;
    let of_expert = inner / experts as u64;
    if !inner.is_multiple_of(experts as u64) {
        return fail(format!("the MLP is {inner} wide, which {experts} experts do not share evenly"), "ask for fewer");
    }
    let (heads, parts) = planned(gguf, experts, width)?;
    let unsigned = |key: &str, n: u64| (key.to_owned(), GgufValue::Unsigned(n));
    let text = |key: &str, text: String| (key.to_owned(), GgufValue::Text(text));
    let layers = parts.iter().filter(|p| matches!(p, Part::Router(_))).count();
    let said = match router {
        Router::Zero => "zeros, untrained".to_owned(),
        Router::Random(seed) => format!("random (seed {seed}), untrained"),
        Router::Given(given) => {
            let fit = |(router, factors): &(Vec<f32>, Vec<f32>)| {
                let all = router.iter().chain(factors);
                router.len() == experts * width && factors.len() == experts && all.clone().all(|v| v.is_finite())
            };
            if given.layers.len() != layers || !given.layers.iter().all(fit) {
                return fail("the routers do not fit the net".into(), "fit them on the same file");
            }
            given.about.clone()
        }
    };
    let name = gguf.text("general.name")?.unwrap_or_default();
    let metadata = metadata_with(
        gguf,
        vec![
            unsigned("llama.feed_forward_length", of_expert),
            unsigned("llama.expert_count", experts as u64),
            unsigned("llama.expert_used_count", active as u64),
            text("general.name", format!("{name} split into {experts} experts").trim().to_owned()),
            text("ergometer.moefied.router", said),
            text("ergometer.moefied.file", name_of(gguf.path())),
        ],
    );
    write_file(out, &metadata, &heads, progress, |i, into| match parts[i] {
        Part::Whole(name, entry) | Part::Rows(name, entry) => copy(gguf, name, entry, into),
        Part::Router(layer) => Ok(router_bytes(router, layer, experts * width, width, into)?),
        Part::Columns(layer, name, entry) => {
            let factor = |expert: usize| match router {
                Router::Given(given) => experts as f32 * given.layers[layer].1[expert],
                Router::Zero | Router::Random(_) => experts as f32,
            };
            columns(gguf, name, entry, experts, &factor, into)
        }
    })
}

/// The tensors of the mixture, in the dense file's order, a router before the experts' gates.
fn planned(gguf: &Gguf, experts: usize, width: usize) -> Result<(Vec<GgufTensorHead>, Vec<Part<'_>>), LanguageError> {
    let (mut heads, mut parts, mut split) = (Vec::new(), Vec::new(), 0);
    for (name, entry) in in_order(gguf) {
        let dense = |end: &str| name.strip_suffix(end).filter(|at| at.starts_with("blk."));
        let [rows, columns] = match entry.shape[..] {
            [rows, columns] => [rows, columns],
            _ => [0, 0],
        };
        let uneven = |n: usize| {
            let message = format!("tensor `{}`: {n} does not split into {experts} experts", shown(name));
            gguf.fail(message).hint("ask for fewer experts")
        };
        if let Some(at) = dense("ffn_gate.weight").or(dense("ffn_up.weight")) {
            if rows == 0 || rows % experts != 0 {
                return Err(uneven(rows));
            }
            if name.ends_with("ffn_gate.weight") {
                heads.push(GgufTensorHead {
                    name: format!("{at}ffn_gate_inp.weight"),
                    kind: BlockType::F32,
                    shape: vec![experts, width],
                });
                parts.push(Part::Router(layer_of(at)));
                split += 1;
            }
            let shape = vec![experts, rows / experts, columns];
            heads.push(GgufTensorHead { name: name.replace(".weight", "_exps.weight"), kind: entry.kind, shape });
            parts.push(Part::Rows(name, entry));
        } else if let Some(at) = dense("ffn_down.weight") {
            if columns == 0 || columns % (experts * entry.kind.block_elements()) != 0 {
                let block = entry.kind.block_elements();
                let message = format!(
                    "tensor `{}` has rows of {columns} elements in blocks of {block}, which {experts} experts do not share evenly",
                    shown(name)
                );
                return Err(gguf
                    .fail(message)
                    .hint("ask for fewer experts, or requantise to a type of smaller blocks"));
            }
            let shape = vec![experts, rows, columns / experts];
            heads.push(GgufTensorHead { name: name.replace(".weight", "_exps.weight"), kind: entry.kind, shape });
            parts.push(Part::Columns(layer_of(at), name, entry));
        } else {
            heads.push(GgufTensorHead { name: name.into(), kind: entry.kind, shape: entry.shape.clone() });
            parts.push(Part::Whole(name, entry));
        }
    }
    if split == 0 {
        return Err(gguf.fail("there is no gated MLP to split").hint("name a dense net of the architecture `llama`"));
    }
    Ok((heads, parts))
}

/// The layer of tensors whose names begin with this.
fn layer_of(at: &str) -> usize {
    at.trim_start_matches("blk.").trim_end_matches('.').parse().unwrap_or(0)
}

/// Writes the columns of each expert, multiplied by its factor.
fn columns(
    gguf: &Gguf,
    name: &str,
    entry: &TableEntry,
    experts: usize,
    factor: &dyn Fn(usize) -> f32,
    into: &mut dyn Write,
) -> Result<(), PieceError> {
    let (row, slice) = (entry.row_bytes(), entry.row_bytes() / experts);
    let (mut bytes, mut kept) = (Vec::new(), Vec::new());
    for expert in 0..experts {
        for rows in pieces(entry.rows(), row) {
            bytes.clear();
            kept.clear();
            gguf.tensors().read_rows(name, rows, &mut bytes)?;
            bytes.chunks_exact(row).for_each(|row| kept.extend_from_slice(&row[expert * slice..][..slice]));
            if !scale(entry.kind, &mut kept, factor(expert)) {
                let (by, kind) = (factor(expert), entry.kind.name());
                let message = format!("tensor `{}`: a scale times {by} is beyond {kind}", shown(name));
                return Err(PieceError::Read(gguf.fail(message).hint("requantise to F32 or BF16 first")));
            }
            into.write_all(&kept)?;
        }
    }
    Ok(())
}

/// Writes a layer's router.
fn router_bytes(router: &Router, layer: usize, n: usize, width: usize, into: &mut dyn Write) -> std::io::Result<()> {
    let seed = match router {
        Router::Zero => return into.write_all(&vec![0; 4 * n]),
        Router::Given(given) => return given.layers[layer].0.iter().try_for_each(|w| into.write_all(&w.to_le_bytes())),
        Router::Random(seed) => seed,
    };
    let mut state = seed ^ (layer as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // splitmix64, from 0 (not itself) to 1
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ z >> 31) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    for _ in 0..n {
        let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        into.write_all(&((normal / (width as f64).sqrt()) as f32).to_le_bytes())?;
    }
    Ok(())
}
