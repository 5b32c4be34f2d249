//! Which tensor of a checkpoint is which parameter of a net, and of which set of weights: raw or averaged.
//!
//! In: names and shapes, a graph. Out: one [`ParamSource`] a parameter. Must not: choose between two sets by itself, or
//! pass over a tensor that could change what the net computes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ergometer_files::counted;
use safetensors::Dtype;
use serde_json::Value;

use super::pickle::StoredTensor;
use crate::graph::{Graph, Role};
use crate::models::tensors::shown_name;
use crate::models::weights::{harmless, is_average};
use crate::models::{ModelError, stripped};

/// A set of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightSet {
    /// The moving average.
    Ema,
    /// As the optimiser left them.
    Raw,
}

/// Names that wrappers and trainers put before those of a net.
const WRAPPERS: [&str; 11] =
    ["orig", "mod", "module", "model", "inner", "state", "dict", "net", "network", "weights", "raw"];

/// Where a parameter comes from.
#[derive(Debug)]
pub struct ParamSource {
    /// The checkpoint.
    pub file: PathBuf,
    /// Name of the tensor in it.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
}

/// Names of tensors, by parameter, of one set.
type TensorNames<'a> = BTreeMap<usize, Vec<&'a str>>;

/// The set that is taken.
#[derive(Debug)]
pub struct ChosenWeights<'a> {
    set: TensorNames<'a>,
    /// Of the averaged set, what it lacks and the raw one has.
    rest: TensorNames<'a>,
    /// Both sets are there.
    both: bool,
    /// The names say that it is the average.
    average: bool,
    /// It is all that the file holds, under the names that the released code saves.
    released: bool,
    left_over: Vec<&'a str>,
}

/// Sorts the tensors by set and takes the one that is there, or that was asked for.
///
/// # Errors
/// Both sets are there, and none was asked for.
pub fn choose<'a>(
    file: &Path,
    tensors: &'a BTreeMap<String, StoredTensor>,
    graph: &Graph,
    asked: Option<WeightSet>,
) -> Result<ChosenWeights<'a>, ModelError> {
    let index: BTreeMap<&str, usize> = graph.params.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let (mut raw, mut average, mut left_over) = (TensorNames::new(), TensorNames::new(), Vec::new());
    let mut released = true;
    for (name, tensor) in tensors {
        // the longest end that is a parameter; what stands before it says whose
        let ends = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
        let found = ends.into_iter().find_map(|at| Some((&name[..at], *index.get(&name[at..])?)));
        match found {
            Some((before, i)) if is_average(before) => average.entry(i).or_default().push(name),
            Some((before, i)) if before.split(['.', '_']).all(|w| w.is_empty() || WRAPPERS.contains(&w)) => {
                raw.entry(i).or_default().push(name);
                released &= before.strip_prefix("_orig_mod.").unwrap_or(before) == "model.inner.";
            }
            _ if harmless(stripped(name), tensor.elements().unwrap_or(u64::MAX) as usize) => released = false,
            _ => left_over.push(name.as_str()),
        }
    }
    let both = !raw.is_empty() && average.keys().any(|i| graph.params[*i].role == Role::Weight);
    let ema = match asked {
        None if both => {
            return Err(ModelError::new(file, "holds two sets of weights, raw ones and their moving average (EMA)")
                .hint(
                    "`--weights ema` takes the average, which the released code evaluates; `--weights raw` the others",
                ));
        }
        Some(WeightSet::Raw) if both => false,
        _ => !average.is_empty(),
    };
    let (set, rest) = if ema { (average, raw) } else { (raw, TensorNames::new()) };
    Ok(ChosenWeights { set, rest, both, average: ema, released, left_over })
}

/// Which set a folder gets, as far as that is known.
#[derive(Debug)]
pub struct KnownWeights {
    /// The set; none: nothing tells.
    pub set: Option<WeightSet>,
    /// The same in words, with how it is known.
    pub words: String,
}

/// What is recorded of a set: which it is, and how that is known. `ema` is the config's.
///
/// # Errors
/// A set was asked for that is not there.
pub fn told(
    config: &Path,
    family: &str,
    ema: Option<&Value>,
    chosen: &ChosenWeights,
    asked: Option<WeightSet>,
) -> Result<KnownWeights, ModelError> {
    let refuse = |message: &str, hint: &str| Err(ModelError::new(config, message).hint(hint));
    let known = |set: Option<WeightSet>, how: &str| {
        let words = match set {
            Some(WeightSet::Ema) => format!("EMA{how}"),
            Some(WeightSet::Raw) => format!("raw{how}"),
            None => format!("not recorded{how}"),
        };
        Ok(KnownWeights { set, words })
    };
    let (ema_set, raw_set) = (Some(WeightSet::Ema), Some(WeightSet::Raw));
    if chosen.both || chosen.average {
        return match (chosen.average, asked) {
            (true, _) if chosen.both => {
                known(ema_set, ": the checkpoint holds raw weights too, and the average was asked for")
            }
            (true, Some(WeightSet::Raw)) => refuse(
                "`--weights raw`: the checkpoint holds the average alone, by its tensors' names",
                "leave the flag out, or name a checkpoint with raw weights",
            ),
            (true, _) => known(ema_set, ", as the names of the tensors say"),
            (false, _) => known(raw_set, ": the checkpoint holds an average too, and the raw weights were asked for"),
        };
    }
    let by_config = ema.and_then(Value::as_bool);
    if by_config == Some(true) && !chosen.released {
        return match asked {
            Some(_) => known(asked, ", by the word of whoever imported it"),
            None => known(
                None,
                ": `ema: true` of the config means averaged weights where a file has the released layout, and this one has another",
            ),
        };
    }
    match (by_config, asked) {
        (Some(true), Some(WeightSet::Raw)) => refuse(
            "`--weights raw`: the config has `ema: true`, with which the released code saves the averaged weights alone",
            "leave the flag out; the raw weights are not in the file",
        ),
        (Some(true), _) => {
            known(ema_set, ", as the config says (`ema: true`: the released code then saves averaged weights)")
        }
        (Some(false), Some(WeightSet::Ema)) => refuse(
            "`--weights ema`: the config has `ema: false`, and the checkpoint holds one set of weights",
            "leave the flag out: no average was kept",
        ),
        (Some(false), _) => known(raw_set, ", as the config says (`ema: false`)"),
        (None, Some(WeightSet::Ema)) => refuse(
            "`--weights ema`: neither the config (`ema`) nor the names of the tensors tell of an average",
            "leave the flag out; the card will say that it is not recorded",
        ),
        (None, _) if family == "hrm" => {
            known(raw_set, ": the released HRM keeps no average, and the config names none")
        }
        (None, _) => known(None, ": the config has no `ema`, and the names of the tensors do not say"),
    }
}

/// One tensor of the set for each parameter, of its shape; none is left over.
///
/// # Errors
/// A tensor is missing, there twice, of another shape or of a type that is not read; tensors that the net does not use.
pub fn matched(
    file: &Path,
    tensors: &BTreeMap<String, StoredTensor>,
    graph: &Graph,
    chosen: ChosenWeights,
) -> Result<Vec<ParamSource>, ModelError> {
    let fail = |m: String| ModelError::new(file, m);
    let together = "check that config and checkpoint belong together";
    let mut places = Vec::new();
    for (i, p) in graph.params.iter().enumerate() {
        let mut names = chosen.set.get(&i);
        if names.is_none() && p.role != Role::Weight {
            // an average is of what is trained by gradients alone
            names = chosen.rest.get(&i);
        }
        let name = match names.map(Vec::as_slice) {
            Some([name]) => *name,
            Some([first, second, ..]) => {
                let names = format!("`{}` and `{}`", shown_name(first), shown_name(second));
                return Err(fail(format!("tensor `{}` is there more than once: {names}", p.name))
                    .hint("save one set of weights: which of them is meant cannot be known"));
            }
            _ => {
                let set = if chosen.average { " of the averaged weights" } else { "" };
                let message = format!(
                    "tensor `{}`{set} is missing; the config describes {}",
                    p.name,
                    counted(graph.params.len(), "tensor")
                );
                return Err(fail(message).hint(together));
            }
        };
        let tensor = &tensors[name];
        if tensor.shape != p.shape {
            let message = format!(
                "tensor `{}` has shape {:?}, the config asks for {:?}",
                shown_name(name),
                tensor.shape,
                p.shape
            );
            return Err(fail(message).hint(together));
        }
        let dtype = match tensor.element.dtype {
            "F32" => Dtype::F32,
            "BF16" => Dtype::BF16,
            "F16" => Dtype::F16,
            other => {
                return Err(fail(format!("tensor `{}` is {other}; f32, bf16 and f16 are read", shown_name(name)))
                    .hint("save it as `tensor.float()`"));
            }
        };
        places.push(ParamSource { file: file.to_owned(), name: name.to_owned(), dtype });
    }
    if chosen.left_over.is_empty() {
        return Ok(places);
    }
    let names: Vec<String> = chosen.left_over.iter().take(4).map(|n| format!("`{}`", shown_name(n))).collect();
    let more = if chosen.left_over.len() > 4 { " and more" } else { "" };
    let unused = counted(chosen.left_over.len(), "tensor");
    Err(fail(format!("{unused} that the net does not use: {}{more}", names.join(", ")))
        .hint("the config describes another net than the file holds (layers, puzzle embeddings, heads?): name the config of the run that wrote it"))
}
