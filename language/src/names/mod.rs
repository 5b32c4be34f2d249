//! One naming of a decoder's tensors for every family and kind of file, with shapes.
//!
//! In: a [`DecoderConfig`] and a table of stored tensors. Out: for each tensor that the net has, which rows of which
//! stored tensors it is. Must not: leave a stored tensor over that could change what the net computes.
//!
//! ```text
//! embedding.weight            [vocabulary, width]
//! positions.weight            [position_rows, width]     learned positions
//! rope_divisors.weight        [pairs]                    where RopeScaling::Divisors asks for them
//! layers.N.attention_norm     .weight .bias [width]      .bias where the norm is centred
//! layers.N.q  .k  .v          .weight [heads x head_width, width], .bias
//! layers.N.q_norm  .k_norm    .weight [head_width]
//! layers.N.attention_output   .weight [width, heads x head_width], .bias
//! layers.N.attention_post_norm  .mlp_post_norm   .weight [width]
//! layers.N.mlp_norm           .weight .bias [width]      none where both halves read one norm
//! layers.N.gate  .up          .weight [inner, width], .bias
//! layers.N.down               .weight [width, inner], .bias
//! layers.N.router.weight      [experts, width]
//! layers.N.experts.gate .up   .weight [experts, inner, width];  experts.down.weight [experts, width, inner]
//! norm                        .weight .bias [width]
//! head.weight                 [vocabulary, width]        none where it is tied to the embedding
//! ```

use std::{collections::BTreeMap, ops::Range};

mod tables;

pub use tables::NamedBy;

use self::tables::{Cut, NameTable, harmless};
use crate::{
    blocks::BlockType,
    config::{DecoderConfig, ParallelLayers, RopeScaling},
    error::{LanguageError, shown},
    table::TensorTable,
};

/// A tensor of the net: its shape, and the rows of stored tensors that it consists of, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetTensor {
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// How its elements are stored.
    pub kind: BlockType,
    /// Where they are.
    pub parts: Vec<TensorPart>,
}

impl NetTensor {
    /// Rows: all axes but the last; of a vector its elements.
    pub fn rows(&self) -> usize {
        match self.shape.as_slice() {
            [n] => *n,
            shape => shape.iter().rev().skip(1).product(),
        }
    }
}

/// Some rows of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPart {
    /// Name in the file.
    pub stored: String,
    /// Rows of it; of a vector, elements. Of a transposed one, columns.
    pub rows: Range<usize>,
    /// It is stored [in, out], and rows here are columns there.
    pub transposed: bool,
}

/// A name with a shape that a config asks for.
fn wanted(config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
    let (width, inner) = (config.width, config.mlp.inner);
    let (q, kv, head) = (config.query_width(), config.key_value_width(), config.attention.head_width);
    let mut names = vec![("embedding.weight".to_owned(), vec![config.vocabulary, width])];
    let mut add = |name: String, shape: &[usize], bias: bool| {
        names.push((format!("{name}.weight"), shape.to_vec()));
        if bias {
            names.push((format!("{name}.bias"), shape[..1].to_vec()));
        }
    };
    if let Some(rows) = config.position_rows {
        add("positions".into(), &[rows, width], false);
    }
    let divisors = config.layers.iter().flat_map(|l| &l.rope).find(|r| r.scaling == RopeScaling::Divisors);
    if let Some(rope) = divisors {
        add("rope_divisors".into(), &[rope.width / 2], false);
    }
    let (attention, mlp, centred) = (&config.attention, &config.mlp, config.norm.centred);
    for i in 0..config.layers.len() {
        let mut add = |name: &str, shape: &[usize], bias| add(format!("layers.{i}.{name}"), shape, bias);
        add("attention_norm", &[width], centred);
        if config.parallel != ParallelLayers::OneNorm {
            add("mlp_norm", &[width], centred);
        }
        if config.post_norms {
            add("attention_post_norm", &[width], false);
            add("mlp_post_norm", &[width], false);
        }
        for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
            add(name, &[rows, width], attention.bias);
        }
        if attention.query_key_norm {
            add("q_norm", &[head], false);
            add("k_norm", &[head], false);
        }
        add("attention_output", &[width, q], attention.output_bias);
        match mlp.experts {
            Some(experts) => {
                add("router", &[experts.count, width], false);
                add("experts.gate", &[experts.count, inner, width], false);
                add("experts.up", &[experts.count, inner, width], false);
                add("experts.down", &[experts.count, width, inner], false);
            }
            None => {
                if mlp.gated {
                    add("gate", &[inner, width], mlp.bias);
                }
                add("up", &[inner, width], mlp.bias);
                add("down", &[width, inner], mlp.bias);
            }
        }
    }
    add("norm".into(), &[width], centred);
    if !config.tied_head {
        add("head".into(), &[config.vocabulary, width], false);
    }
    names
}

/// Where a tensor is by its name: stored names, their shapes, and the rows of each.
struct Place {
    parts: Vec<TensorPart>,
    /// Of every stored tensor that it names.
    shape: Vec<usize>,
}

impl Place {
    fn whole(stored: String, shape: &[usize], transposed: bool) -> Self {
        let rows = match shape {
            [n] => *n,
            _ => shape[..shape.len() - 1].iter().product(),
        };
        let mut stored_shape = shape.to_vec();
        if transposed {
            stored_shape.reverse();
        }
        Self { parts: vec![TensorPart { stored, rows: 0..rows, transposed }], shape: stored_shape }
    }
}

/// The naming of a file's tensors.
///
/// # Errors
/// A tensor is missing, has another shape than the config asks for, or is left over.
pub(crate) fn named(
    config: &DecoderConfig,
    by: NamedBy,
    table: &TensorTable,
) -> Result<BTreeMap<String, NetTensor>, LanguageError> {
    let names = NameTable::of(config.family, by, config.parallel == ParallelLayers::TwoNorms);
    let embedding = format!("{}{}.weight", names.prefix, names.embedding);
    let prefix = if table.entries().contains_key(&embedding) { names.prefix } else { "" };
    let mut found = BTreeMap::new();
    let mut used: BTreeMap<&str, ()> = BTreeMap::new();
    for (name, shape) in wanted(config) {
        let place = place(config, names, prefix, &name, &shape)
            .ok_or_else(|| LanguageError::new(table.path(), format!("nobody knows where `{name}` is stored")))?;
        let mut kinds = Vec::new();
        for part in &place.parts {
            let Some((stored, entry)) = table.entries().get_key_value(&part.stored) else {
                let message = format!("tensor `{}` is missing, which the config asks for", shown(&part.stored));
                return Err(LanguageError::new(table.path(), message)
                    .hint("check that the config and the weights belong together, and that every shard is there"));
            };
            if entry.shape != place.shape {
                let message = format!(
                    "tensor `{}` has shape {:?}, the config asks for {:?}",
                    shown(stored),
                    entry.shape,
                    place.shape
                );
                return Err(LanguageError::new(table.path_of(stored), message)
                    .hint("check that the config and the weights belong together"));
            }
            used.insert(stored, ());
            kinds.push(entry.kind);
        }
        let kind = kinds[0];
        if let Some(other) = kinds.iter().find(|k| **k != kind) {
            let message = format!("`{name}` is stored as {} and as {}", kind.name(), other.name());
            return Err(LanguageError::new(table.path(), message).hint("store all experts of a layer in one type"));
        }
        if part_is_cut_through_blocks(&place, kind) {
            let stored = shown(&place.parts[0].stored);
            return Err(LanguageError::new(table.path(), format!("`{stored}` is transposed and of {}", kind.name())));
        }
        found.insert(name, NetTensor { shape, kind, parts: place.parts });
    }
    let left: Vec<&String> = table.entries().keys().filter(|n| !used.contains_key(n.as_str())).collect();
    if let Some(first) = left.iter().find(|n| !harmless(n, config.tied_head)) {
        let message = format!("tensor `{}` is left over: the config describes no net that has it", shown(first));
        return Err(LanguageError::new(table.path_of(first), message).hint(
            "check that the config and the weights belong together; adapters and heads for other tasks are not read",
        ));
    }
    Ok(found)
}

/// Vectors in blocks, and blocks that lie across rows, are in no file that is known.
fn part_is_cut_through_blocks(place: &Place, kind: BlockType) -> bool {
    let cut = place.parts.iter().any(|p| p.transposed) || place.shape.len() == 1;
    cut && kind.block_elements() > 1
}

/// Where one of our tensors is, by the family's table.
fn place(config: &DecoderConfig, names: &NameTable, prefix: &str, name: &str, shape: &[usize]) -> Option<Place> {
    let (base, end) = name.rsplit_once('.')?;
    let apart = match base {
        "embedding" => Some((prefix, names.embedding)),
        "positions" => Some((prefix, names.positions)),
        "norm" => Some((prefix, names.norm)),
        "head" => Some(("", names.head)),
        "rope_divisors" => Some(("", "rope_freqs")),
        _ => None,
    };
    if let Some((prefix, theirs)) = apart {
        return Some(Place::whole(format!("{prefix}{theirs}.{end}"), shape, false));
    }
    let (layer, inside) = base.strip_prefix("layers.")?.split_once('.')?;
    let (_, theirs, cut) = names.inner.iter().find(|(ours, _, _)| *ours == inside)?;
    let stored = format!("{prefix}{}{layer}.{theirs}.{end}", names.layer);
    let transposed = names.transposed && shape.len() > 1;
    let (q, kv) = (config.query_width(), config.key_value_width());
    // rows of a stored tensor that has more of them
    let of_rows = |total: usize, ranges: &[Range<usize>]| {
        let mut whole = shape.to_vec();
        whole[0] = total;
        let Place { shape, .. } = Place::whole(String::new(), &whole, transposed);
        let part = |rows| TensorPart { stored: stored.clone(), rows, transposed };
        Place { parts: ranges.iter().cloned().map(part).collect(), shape }
    };
    let thirds = [0..q, q..q + kv, q + kv..q + 2 * kv];
    Some(match *cut {
        Cut::Whole => Place::whole(stored, shape, transposed),
        Cut::QueryKeyValue(i) => of_rows(q + 2 * kv, &thirds[i..i + 1]),
        Cut::Half(i) => {
            let halves = [0..shape[0], shape[0]..2 * shape[0]];
            of_rows(2 * shape[0], &halves[i..i + 1])
        }
        Cut::Groups(i) => {
            let head = config.attention.head_width;
            let queries = config.attention.heads / config.attention.key_value_heads;
            let group = (queries + 2) * head;
            let inside = [0..queries * head, queries * head..(queries + 1) * head, (queries + 1) * head..group];
            let ranges =
                (0..config.attention.key_value_heads).map(|g| g * group + inside[i].start..g * group + inside[i].end);
            of_rows(q + 2 * kv, &ranges.collect::<Vec<_>>())
        }
        Cut::Experts => {
            let parts = (0..shape[0]).map(|e| TensorPart {
                stored: stored.replace("{}", &e.to_string()),
                rows: 0..shape[1],
                transposed: false,
            });
            Place { parts: parts.collect(), shape: shape[1..].to_vec() }
        }
    })
}
