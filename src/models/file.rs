//! An ONNX file as a model: what goes in and comes out by its header, with what a suite binds; the engine loads the file itself.
//!
//! In: a path and a [`FileForm`]. Out: a [`Model`] without a graph, whose [`OnnxFile`] engines read. Must not: read a weight other than to
//! hash it, open a file outside the model's folder, or guess a length that is open.
//!
//! Which axis counts rows: the one that the suite names (`batch = "N"`); else the first axis of all inputs, where all have the same
//! open name there (or all have none) and every state has such an axis too; else the first axis of all inputs if they have the
//! same fixed length; else none, and a call has one row. `batch = "none"` says that no axis does. Inputs without any axis are given once
//! a call. The hash is over the file, the files of external data, and the form.
//!
//! States: an input that `state` names takes the output of the step before, and zeros at first (or what the file's metadata
//! `initial.<input>` says, as our exporter writes). An example of such a model may have a leading axis of time at its other
//! inputs: then the engine makes as many steps for one answer, and outputs have that axis too; an input without it
//! is the same in every step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ergometer_files::Links;
use ergometer_suites::error::did_you_mean;
use ergometer_suites::{ElementKind, FileForm};
use sha2::{Digest, Sha256};

use super::interface::{ElementType, Interface, Length, MAX_INPUTS, Port, PortRole, Rows, role_of};
use super::{Model, ModelError, TrainingRecord};
use crate::files::hex;
use crate::graph::Halting;
use crate::onnx::header::{Dim, Header, HeaderError, ValueInfo, element_name};
use crate::onnx::shapes;

/// Largest file: protobuf's own limit.
const MAX_FILE: u64 = 2 << 30;
/// Largest file of external data.
const MAX_DATA: u64 = 1 << 42;
/// Elements of one row of an input, at most.
const MAX_ROW: usize = 1 << 28;

/// Whether a path is that of an ONNX file, by its name.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) && !path.is_dir()
}

/// An axis of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAxis {
    /// So long.
    Fixed(usize),
    /// As many as there are rows.
    Rows,
}

/// An input of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundInput {
    /// Its name.
    pub name: String,
    /// Its elements.
    pub kind: ElementKind,
    /// Its axes, bound.
    pub axes: Vec<FileAxis>,
    /// The output that it takes of the step before, with what every token of it starts with; `None`: examples bring it.
    pub state: Option<(String, Option<Vec<f32>>)>,
}

impl BoundInput {
    /// Its shape with so many rows.
    pub fn shape(&self, rows: usize) -> Vec<usize> {
        self.axes.iter().map(|axis| if let FileAxis::Fixed(n) = axis { *n } else { rows }).collect()
    }

    /// The shape of a row.
    pub fn row(&self, rows: Rows) -> Vec<usize> {
        let all = self.axes.iter().enumerate();
        // a fixed batch stands first, as an open one does
        let own = all.filter(|(i, axis)| match axis {
            FileAxis::Rows => false,
            FileAxis::Fixed(_) => *i > 0 || !matches!(rows, Rows::Fixed(_)),
        });
        own.map(|(_, axis)| if let FileAxis::Fixed(n) = axis { *n } else { 1 }).collect()
    }
}

/// What engines read of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// Its inputs, bound, in its order.
    pub inputs: Vec<BoundInput>,
    /// Rows of a call.
    pub rows: Rows,
    /// Names of the open dimensions that were bound, with their lengths.
    pub bound: BTreeMap<String, u64>,
    /// What it computes in, by the type of most of its weights.
    pub precision: &'static str,
    /// FLOPs of its products for one row, or the operator at which shapes are lost ([`shapes::flops`]).
    pub flops: Result<f64, String>,
}

impl OnnxFile {
    /// Names of the outputs that no state takes, in the file's order: those that the interface has.
    pub fn outputs(&self) -> impl Iterator<Item = &ValueInfo> {
        let taken = |name: &str| self.inputs.iter().any(|i| i.state.as_ref().is_some_and(|(output, _)| output == name));
        self.header.outputs.iter().filter(move |o| kind_of(o.element).is_some() && !taken(&o.name))
    }
}

/// The kind of a type's number; `None`: engines are not given such.
fn kind_of(element: u64) -> Option<ElementKind> {
    Some(match element {
        1 => ElementKind::F32,
        2 => ElementKind::U8,
        6 => ElementKind::I32,
        7 => ElementKind::I64,
        9 => ElementKind::Bool,
        10 => ElementKind::F16,
        _ => return None,
    })
}

fn refused(path: &Path, error: HeaderError) -> ModelError {
    ModelError::new(path, error.message).hint(error.hint)
}

/// Reads the header of a file; for those who want no model.
///
/// # Errors
/// A file that is none.
pub fn header(path: &Path) -> Result<Header, ModelError> {
    let cannot = |e: std::io::Error| ModelError::new(path, format!("cannot be opened: {e}"));
    let file = ergometer_files::open(path, MAX_FILE, Links::Followed)
        .map_err(|e| cannot(e).hint("name an ONNX file; one of more than 2 GB has its weights in files beside it"))?;
    Header::read(file).map_err(|e| refused(path, e))
}

/// See [`Model::load_as`].
pub(super) fn load(path: &Path, form: &FileForm) -> Result<Model, ModelError> {
    crate::console::detail(|| format!("read model {}", path.display()));
    let header = header(path)?;
    let mut hash = Sha256::new();
    hash_file(path, &mut hash, MAX_FILE)?;
    for (location, least) in &header.external {
        let data = beside(path, location)?;
        let has = data.metadata().map(|m| m.len()).unwrap_or(0);
        if has < *least {
            return Err(ModelError::new(&data, format!("has {has} bytes, and the model reads {least} of it"))
                .hint("copy or fetch it again: it must be whole"));
        }
        hash.update(location.as_bytes());
        hash_file(&data, &mut hash, MAX_DATA)?;
    }
    if !form.is_empty() {
        hash.update(format!("{form:?}"));
    }
    let file = bound(path, header, form)?;
    let interface = interface(&file);
    Ok(Model {
        path: path.to_path_buf(),
        hash: hex(&hash.finalize()),
        interface,
        graph: None,
        file: Some(Arc::new(file)),
        training: TrainingRecord::default(),
        params: Arc::new(Vec::new()),
    })
}

/// The file that a model names for its data.
fn beside(model: &Path, location: &str) -> Result<PathBuf, ModelError> {
    let shown: String = location.chars().take(200).flat_map(char::escape_debug).collect();
    let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !inside {
        return Err(ModelError::new(model, format!("names `{shown}` for its weights, which is outside its folder"))
            .hint("external data lie in the model's own folder: move the file there and write the model again"));
    }
    let data = model.parent().unwrap_or(Path::new("")).join(location);
    if !data.is_file() {
        return Err(ModelError::new(model, format!("has its weights in `{shown}`, which is not beside it"))
            .hint(format!("copy `{shown}` into the folder of the model")));
    }
    Ok(data)
}

fn hash_file(path: &Path, hash: &mut Sha256, most: u64) -> Result<(), ModelError> {
    let cannot = |e: std::io::Error| ModelError::new(path, format!("cannot be read: {e}"));
    let mut file: File = ergometer_files::open(path, most, Links::Followed).map_err(cannot)?;
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part).map_err(cannot)? {
            0 => return Ok(()),
            n => hash.update(&part[..n]),
        }
    }
}

/// An axis as the header has it: so long, or open under a name that a suite can use.
#[derive(Clone, Debug, PartialEq)]
enum Open {
    Fixed(usize),
    Named(String),
    /// Without a name of its own: by input and axis.
    Numbered(String),
}

impl Open {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::Named(name) | Self::Numbered(name) => Some(name),
        }
    }
}

/// The header with what the suite says of it.
fn bound(path: &Path, header: Header, form: &FileForm) -> Result<OnnxFile, ModelError> {
    let (mut bound, mut used) = (BTreeMap::new(), BTreeSet::new());
    let mut inputs = Vec::new();
    for value in &header.inputs {
        let (kind, axes) = input(path, value, form, &mut bound, &mut used)?;
        inputs.push((value, kind, axes));
    }
    check_states(path, &header, form)?;
    let batch = batch(path, &inputs, form, &|name: &str| form.state.contains_key(name))?;
    let mut files = Vec::new();
    for (value, kind, axes) in &inputs {
        let output = form.state.get(&value.name);
        let axes = axes.iter().enumerate().map(|(i, open)| match open {
            open if batch.counts(open, i, output.is_some()) => Ok(FileAxis::Rows),
            Open::Fixed(n) => Ok(FileAxis::Fixed(*n)),
            Open::Named(name) | Open::Numbered(name) => Err(unbound(path, value, name)),
        });
        let axes = axes.collect::<Result<Vec<_>, _>>()?;
        let start = header.metadata.get(&format!("initial.{}", value.name));
        let start = start.and_then(|text| serde_json::from_str(text).ok());
        let state = output.map(|output| (output.clone(), start));
        files.push(BoundInput { name: value.name.clone(), kind: *kind, axes, state });
    }
    if let Some(unknown) = form.shape.keys().find(|name| !used.contains(*name)) {
        let open: Vec<String> = open_names(&header).into_iter().collect();
        let near = did_you_mean(unknown, open.iter().map(String::as_str));
        let message = format!("`shape` binds `{unknown}`, which is no open dimension of its inputs{near}");
        return Err(ModelError::new(path, message).hint(format!("open are: {}", listed(&open))));
    }
    let rows = match batch {
        Found::Named(_) | Found::Unnamed => Rows::Any,
        Found::Fixed(n) => Rows::Fixed(n),
        Found::None => Rows::One,
    };
    let n = if let Rows::Fixed(n) = rows { n } else { 1 };
    let known = files.iter().map(|input| (input.name.as_str(), input.shape(n))).collect();
    let flops = shapes::flops(&header, &known).map(|all| all / n as f64);
    let precision = precision(&header);
    let file = OnnxFile { path: path.to_path_buf(), precision, flops, header, inputs: files, rows, bound };
    check(path, &file)?;
    Ok(file)
}

/// Names in backquotes.
fn listed(names: &[String]) -> String {
    let all: Vec<String> = names.iter().take(12).map(|n| format!("`{}`", shown(n))).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// An input's kind and axes; what the suite binds of them is kept in `bound`, the keys that it used in `used`.
fn input(
    path: &Path,
    value: &ValueInfo,
    form: &FileForm,
    bound: &mut BTreeMap<String, u64>,
    used: &mut BTreeSet<String>,
) -> Result<(ElementKind, Vec<Open>), ModelError> {
    let name = shown(&value.name);
    let Some(kind) = kind_of(value.element) else {
        let kinds = ElementKind::ALL.iter().filter(|k| **k != ElementKind::F64);
        let known = kinds.map(|k| k.name()).collect::<Vec<_>>().join(", ");
        let message = format!("input `{name}` takes {}, which cannot be given", element_name(value.element));
        return Err(ModelError::new(path, message)
            .hint(format!("export it with inputs of {known}: what makes them of something else stays outside")));
    };
    let Some(shape) = &value.shape else {
        return Err(ModelError::new(path, format!("input `{name}` has no shape"))
            .hint("export it with the number of axes of each input"));
    };
    let axes = shape.iter().enumerate().map(|(i, dim)| {
        let own = format!("{}.{i}", value.name);
        let open = match dim {
            Dim::Fixed(n) => Open::Fixed(usize::try_from(*n).unwrap_or(usize::MAX)),
            Dim::Open(Some(name)) => Open::Named(name.clone()),
            Dim::Open(None) => Open::Numbered(own.clone()),
        };
        // by its own name, or by input and axis
        let key = open.name().into_iter().chain([own.as_str()]).find(|key| form.shape.contains_key(*key));
        let length = open.name().zip(key.and_then(|key| form.shape.get(key))).map(|(name, n)| (name, *n));
        used.extend(key.filter(|_| length.is_some()).map(str::to_owned));
        match length {
            Some((name, length)) => {
                bound.insert(name.to_owned(), length);
                Open::Fixed(usize::try_from(length).unwrap_or(usize::MAX))
            }
            None => open,
        }
    });
    Ok((kind, axes.collect()))
}

/// An open dimension that nobody has bound.
fn unbound(path: &Path, value: &ValueInfo, name: &str) -> ModelError {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if plain { name.to_owned() } else { format!("{name:?}") };
    let message = format!("input `{}` has the open dimension `{}`", shown(&value.name), shown(name));
    ModelError::new(path, message).hint(format!(
        "say how long it is: `shape = {{ {key} = 128 }}` in its [[model]] block, `--shape {name}=128` on the command line; or, if it counts rows, \
         that it does: `batch = {name:?}` there, `--rows {name}` here"
    ))
}

/// Errors: a state whose input or output the file does not have, or an output that two states take.
fn check_states(path: &Path, header: &Header, form: &FileForm) -> Result<(), ModelError> {
    for (input, output) in &form.state {
        let names = |all: &[ValueInfo]| all.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
        for (name, all, what) in [(input, names(&header.inputs), "input"), (output, names(&header.outputs), "output")] {
            if !all.contains(name) {
                let near = did_you_mean(name, all.iter().map(String::as_str));
                let message = format!("`state` names the {what} `{name}`, which the file does not have{near}");
                return Err(ModelError::new(path, message).hint(format!("it has {}", listed(&all))));
            }
        }
    }
    let mut taken: Vec<&String> = form.state.values().collect();
    taken.sort();
    match taken.windows(2).find(|w| w[0] == w[1]) {
        None => Ok(()),
        Some(twice) => Err(ModelError::new(path, format!("`state` gives the output `{}` to two inputs", twice[0]))
            .hint("each state has an output of its own")),
    }
}

/// Errors: more than engines are given, or nothing that can be read.
fn check(path: &Path, file: &OnnxFile) -> Result<(), ModelError> {
    let wrong = |message: String, hint: &str| Err(ModelError::new(path, message).hint(hint));
    let row = |input: &BoundInput| input.row(file.rows).iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if let Some(input) = file.inputs.iter().find(|i| row(i).is_none_or(|n| n > MAX_ROW)) {
        let message = format!("a row of input `{}` would have more than {MAX_ROW} elements", shown(&input.name));
        return wrong(message, "bind shorter dimensions");
    }
    let given = file.inputs.iter().filter(|i| i.state.is_none()).count();
    if given > MAX_INPUTS || file.inputs.is_empty() {
        let message = format!("has {given} inputs; from 1 to {MAX_INPUTS} can be filled");
        return wrong(message, "export a model that takes fewer");
    }
    match file.outputs().next() {
        Some(_) => Ok(()),
        None => wrong("has no output of numbers that is no state".into(), "export it with an output that can be read"),
    }
}

/// Names of the open dimensions of a header's inputs.
pub fn open_names(header: &Header) -> BTreeSet<String> {
    let of = |value: &ValueInfo| {
        let axes = value.shape.clone().unwrap_or_default().into_iter().enumerate();
        let name = value.name.clone();
        axes.filter_map(move |(i, dim)| match dim {
            Dim::Open(Some(name)) => Some(name),
            Dim::Open(None) => Some(format!("{name}.{i}")),
            Dim::Fixed(_) => None,
        })
        .collect::<Vec<_>>()
    };
    header.inputs.iter().flat_map(of).collect()
}

/// What counts rows.
#[derive(Debug, PartialEq)]
enum Found {
    Named(String),
    /// First axes of inputs, and open axes of states, that have no name.
    Unnamed,
    Fixed(usize),
    None,
}

impl Found {
    /// Whether an axis of an input counts rows.
    fn counts(&self, open: &Open, axis: usize, state: bool) -> bool {
        match (self, open) {
            (Self::Named(name), open) => open.name() == Some(name.as_str()),
            (Self::Unnamed, Open::Numbered(_)) => state || axis == 0,
            _ => false,
        }
    }
}

type Input<'a> = (&'a ValueInfo, ElementKind, Vec<Open>);

fn batch(path: &Path, inputs: &[Input], form: &FileForm, is_state: &dyn Fn(&str) -> bool) -> Result<Found, ModelError> {
    let given = || inputs.iter().filter(|(value, _, axes)| !is_state(&value.name) && !axes.is_empty());
    let states = || inputs.iter().filter(|(value, _, _)| is_state(&value.name));
    let firsts = || given().map(|(_, _, axes)| &axes[0]);
    match form.batch.as_deref() {
        Some("none") => return Ok(Found::None),
        Some(name) => {
            if firsts().any(|open| open.name() == Some(name)) {
                return Ok(Found::Named(name.into()));
            }
            // bound to a number, it is a fixed one
            if !form.shape.contains_key(name) {
                let firsts: Vec<&str> = firsts().filter_map(Open::name).collect();
                let near = did_you_mean(name, firsts.iter().copied());
                return Err(ModelError::new(
                    path,
                    format!("no input has the open dimension `{name}` as its first axis{near}"),
                )
                .hint("`batch` names the dimension that counts rows; `none`: no dimension does"));
            }
        }
        None => {}
    }
    let Some(first) = firsts().next() else { return Ok(Found::None) };
    let in_states = |fits: &dyn Fn(&Open) -> bool| states().all(|(_, _, axes)| axes.iter().any(fits));
    Ok(match first {
        Open::Named(name) if firsts().all(|o| o == first) && in_states(&|o| o.name() == Some(name.as_str())) => {
            Found::Named(name.clone())
        }
        Open::Numbered(_)
            if firsts().all(|o| matches!(o, Open::Numbered(_))) && in_states(&|o| matches!(o, Open::Numbered(_))) =>
        {
            Found::Unnamed
        }
        Open::Fixed(n) if firsts().all(|o| o == first) => Found::Fixed(*n),
        _ => Found::None,
    })
}

/// What a file computes in: 8 bits where it has operators of whole numbers, else the type of most of its weights.
pub fn precision(header: &Header) -> &'static str {
    const WHOLE: [&str; 6] =
        ["QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"];
    if WHOLE.iter().any(|name| header.operators.contains_key(*name)) {
        return "int8";
    }
    let most = [1, 10, 16, 11].into_iter().max_by_key(|e| (header.elements.get(e).copied().unwrap_or(0), *e == 1));
    match most {
        Some(10) => "f16",
        Some(16) => "bf16",
        Some(11) => "f64",
        _ => "f32",
    }
}

/// Its ports. Of tokens an input is that our exporter calls so, or the only one if it takes rows of whole numbers; logits the output that
/// our exporter calls so, or the first of floats.
fn interface(file: &OnnxFile) -> Interface {
    let outputs: Vec<&ValueInfo> = file.outputs().collect();
    let of_batch = |shape: &[Dim]| matches!(file.rows, Rows::Any | Rows::Fixed(_)) && !shape.is_empty();
    // what a row of an output has, where the header says
    let row_of = |value: &ValueInfo| -> Option<Vec<usize>> {
        let shape = value.shape.as_ref()?;
        let own = if of_batch(shape) { &shape[1..] } else { &shape[..] };
        own.iter()
            .map(|dim| match dim {
                Dim::Fixed(n) => usize::try_from(*n).ok(),
                Dim::Open(Some(name)) => file.bound.get(name).and_then(|n| usize::try_from(*n).ok()),
                Dim::Open(None) => None,
            })
            .collect()
    };
    let logits = outputs.iter().position(|o| o.name == "logits");
    let logits = logits.or(outputs.iter().position(|o| matches!(o.element, 1 | 10)));
    let port = |(i, value): (usize, &&ValueInfo)| {
        let (row, sequences) = (row_of(value), file.inputs.iter().any(|i| i.state.is_some()));
        let role = match role_of(&value.name) {
            role @ (PortRole::Logits | PortRole::Halting) => role,
            _ if logits == Some(i) => PortRole::Logits,
            _ => PortRole::Other,
        };
        // a sequence has as many of them as steps
        let known = row.as_deref().filter(|_| !sequences);
        let (length, features) = match known {
            Some([features]) => (Length::Fixed(1), *features),
            Some([tokens, features]) => (Length::Fixed(*tokens), *features),
            Some(all) if all.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_some_and(|n| n <= MAX_ROW) => {
                (Length::Fixed(all.iter().product()), 1)
            }
            _ => (Length::Found, 1),
        };
        let shape = known.map(<[usize]>::to_vec).unwrap_or_default();
        let kind = kind_of(value.element);
        Port { name: value.name.clone(), role, elements: ElementType::Float, length, features, kind, shape }
    };
    let outputs: Vec<Port> = outputs.iter().enumerate().map(port).collect();
    let vocabulary = outputs.iter().find(|o| o.role == PortRole::Logits).map_or(1, |o| o.features);
    let given: Vec<&BoundInput> = file.inputs.iter().filter(|i| i.state.is_none()).collect();
    let alone = given.len() == 1;
    let port = |input: &&BoundInput| {
        let shape = input.row(file.rows);
        let elements = shape.iter().product();
        let indices = matches!(input.kind, ElementKind::I64 | ElementKind::I32) && shape.len() <= 1;
        let role = match role_of(&input.name) {
            role @ (PortRole::Tokens | PortRole::PuzzleId) if indices => role,
            _ if alone && indices && shape.len() == 1 => PortRole::Tokens,
            _ => PortRole::Other,
        };
        let below = match role {
            PortRole::Tokens => Some(vocabulary),
            // the header does not say how many puzzles the table has
            PortRole::PuzzleId => Some(usize::MAX),
            _ => None,
        };
        let elements_are = below.map_or(ElementType::Float, |below| ElementType::Index { below });
        Port {
            name: input.name.clone(),
            role,
            elements: elements_are,
            length: Length::Fixed(elements),
            features: 1,
            kind: Some(input.kind),
            shape,
        }
    };
    Interface {
        inputs: given.iter().map(port).collect(),
        outputs,
        states: Vec::new(),
        halting: Halting::Never,
        max_steps: 1,
        rows: file.rows,
        sequences: file.inputs.iter().any(|i| i.state.is_some()),
    }
}

/// A name, cut where it is long.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
