//! What an ONNX file says of itself, read without its weights: versions, inputs and outputs, operators, and where its data lie.
//!
//! In: something to read and seek in. Out: a [`Header`], or a [`HeaderError`]. Must not: hold a weight, believe a size, follow a path,
//! or know an engine. Field numbers are those of the standard (`onnx.proto`).
//!
//! Kept beside what a header proper would be: the operators of the main graph with their attributes, and the elements of
//! small constants of whole numbers, so that shapes can be followed (`shapes`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use super::wire::{Content, Wire, WireFault};

/// Most operators of a file, subgraphs included.
const MAX_NODES: u64 = 1 << 20;
/// Most inputs, outputs, constants and entries, each.
const MAX_ENTRIES: usize = 1 << 20;
/// Most axes of a tensor.
const MAX_AXES: usize = 64;
/// Longest name.
const MAX_NAME: u64 = 1 << 16;
/// Bytes of a text of the metadata that are kept.
const MAX_METADATA: usize = 4096;
/// Deepest graph within a graph.
const MAX_DEPTH: u32 = 16;
/// Constants of whole numbers with at most so many elements are kept.
const SMALL: u64 = 64;
/// Elements that a tensor may claim.
const MAX_ELEMENTS: u64 = 1 << 48;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\nhint: {hint}")]
pub struct HeaderError {
    /// What is wrong, with the place.
    pub message: String,
    /// The remedy.
    pub hint: String,
}

/// An axis of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// So long.
    Fixed(u64),
    /// Open; a name, or nothing.
    Open(Option<String>),
}

/// What a value is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// Number of the element type; 0: it is no tensor.
    pub element: u64,
    /// Its axes; `None`: the file does not say.
    pub shape: Option<Vec<Dim>>,
}

/// A constant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constant {
    /// Number of the element type.
    pub element: u64,
    /// Its axes.
    pub shape: Vec<u64>,
    /// Its elements, of a small one of whole numbers.
    pub values: Option<Vec<i64>>,
}

impl Constant {
    fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).filter(|n| *n <= MAX_ELEMENTS)
    }
}

/// One operator of the main graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileNode {
    /// Its name, with its domain before it where that is not the standard one.
    pub operator: String,
    /// What goes in; an empty name: left out.
    pub inputs: Vec<String>,
    /// What comes out.
    pub outputs: Vec<String>,
    /// Attributes that are whole numbers or lists of them.
    pub numbers: BTreeMap<String, Vec<i64>>,
    /// Attributes that are texts.
    pub texts: BTreeMap<String, String>,
    /// It holds graphs of its own.
    pub graphs: bool,
}

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets that it uses: domain (empty: the standard's) and version.
    pub opsets: Vec<(String, i64)>,
    /// Who wrote it, with the version; empty where it does not say.
    pub producer: String,
    /// Named texts, long ones cut.
    pub metadata: BTreeMap<String, String>,
    /// Inputs that are not constants of the file.
    pub inputs: Vec<ValueInfo>,
    /// Outputs.
    pub outputs: Vec<ValueInfo>,
    /// Types that the file gives of values in between.
    pub between: Vec<ValueInfo>,
    /// Operators of the main graph, in its order.
    pub nodes: Vec<FileNode>,
    /// Operators of the file, those of graphs within graphs included.
    pub node_count: u64,
    /// How often each of them stands there.
    pub operators: BTreeMap<String, u64>,
    /// Constants of the main graph by name.
    pub constants: BTreeMap<String, Constant>,
    /// Elements of all constants by type, of those with an axis at least.
    pub elements: BTreeMap<u64, u64>,
    /// Files that hold constants, as the file names them, with the bytes that each must have at least.
    pub external: BTreeMap<String, u64>,
}

/// Bits of an element of a type, by its number in the standard; `None`: it has no fixed size.
pub fn bits(element: u64) -> Option<u64> {
    Some(match element {
        2 | 3 | 9 | 17..=20 | 24 => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        21..=23 => 4,
        _ => return None,
    })
}

/// Name of an element type, for people.
pub fn element_name(element: u64) -> &'static str {
    const NAMES: [&str; 25] = [
        "no tensor",
        "f32",
        "u8",
        "i8",
        "u16",
        "i16",
        "i32",
        "i64",
        "string",
        "bool",
        "f16",
        "f64",
        "u32",
        "u64",
        "complex64",
        "complex128",
        "bf16",
        "f8",
        "f8",
        "f8",
        "f8",
        "u4",
        "i4",
        "f4",
        "f8",
    ];
    usize::try_from(element).ok().and_then(|i| NAMES.get(i)).copied().unwrap_or("an unknown type")
}

impl Header {
    /// Elements of the constants that are weights: floating point, or of 8 bits and fewer.
    pub fn parameters(&self) -> u64 {
        let weight = |element: u64| matches!(element, 1..=3 | 10 | 11 | 16..=24);
        self.elements.iter().filter(|(e, _)| weight(**e)).map(|(_, n)| n).sum()
    }

    /// Their bytes, and those of all other constants.
    pub fn constant_bytes(&self) -> u64 {
        self.elements.iter().map(|(e, n)| (bits(*e).unwrap_or(0) * n).div_ceil(8)).sum()
    }

    /// Version of the standard's operator set.
    pub fn opset(&self) -> Option<i64> {
        self.opsets.iter().find(|(domain, _)| domain.is_empty() || domain == "ai.onnx").map(|(_, version)| *version)
    }

    /// All operator sets in words.
    pub fn opset_words(&self) -> String {
        let word = |(domain, version): &(String, i64)| match domain.as_str() {
            "" => version.to_string(),
            domain => format!("{domain} {version}"),
        };
        self.opsets.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// Reads it.
    ///
    /// # Errors
    /// Bytes that are no ONNX file, or a file that ends too soon.
    pub fn read(from: impl Read + Seek) -> Result<Self, HeaderError> {
        let mut header = Header::default();
        let mut seen = false;
        let mut wire = Wire::new(from).map_err(|fault| told(fault, true, 0))?;
        let length = wire.length();
        let result = header.model(&mut wire, &mut seen);
        let begun = header.ir_version > 0 || seen;
        result.map_err(|fault| told(fault, begun, length))?;
        if !seen {
            return Err(HeaderError {
                message: match header.ir_version {
                    0 => "is no ONNX file".into(),
                    _ => "is an ONNX file without a graph".into(),
                },
                hint: EXPORT.into(),
            });
        }
        let constants: BTreeSet<&String> = header.constants.keys().collect();
        // before version 4 of the format constants were inputs too
        header.inputs.retain(|input| !constants.contains(&input.name));
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), HeaderError> {
        let wrong = |message: String| Err(HeaderError { message, hint: EXPORT.into() });
        if self.outputs.is_empty() {
            return wrong("its graph has no outputs".into());
        }
        let mut names = BTreeSet::new();
        for value in self.inputs.iter().chain(&self.outputs) {
            if value.name.is_empty() {
                return wrong("an input or output has no name".into());
            }
        }
        match self.inputs.iter().find(|value| !names.insert(&value.name)) {
            Some(twice) => wrong(format!("two inputs are called `{}`", shown(&twice.name))),
            None => Ok(()),
        }
    }

    fn model<R: Read + Seek>(&mut self, wire: &mut Wire<R>, seen: &mut bool) -> Result<(), WireFault> {
        let end = wire.length();
        let (mut producer, mut version) = (String::new(), String::new());
        while let Some((number, content)) = wire.field(end)? {
            match (number, content) {
                (1, Content::Number(n)) => self.ir_version = n as i64,
                (2, Content::Until(end)) => producer = wire.text(end, MAX_NAME)?,
                (3, Content::Until(end)) => version = wire.text(end, MAX_NAME)?,
                (7, Content::Until(end)) => {
                    *seen = true;
                    self.graph(wire, end, 0)?;
                }
                (8, Content::Until(end)) => {
                    let opset = opset(wire, end)?;
                    room(wire, self.opsets.len(), 4096)?;
                    self.opsets.push(opset);
                }
                (14, Content::Until(end)) => {
                    let (key, mut value) = entry(wire, end)?;
                    room(wire, self.metadata.len(), 4096)?;
                    let cut = (0..=MAX_METADATA).rev().find(|at| value.is_char_boundary(*at));
                    value.truncate(cut.unwrap_or(0));
                    self.metadata.insert(key, value);
                }
                (_, Content::Until(end)) => wire.skip(end)?,
                _ => {}
            }
        }
        self.producer = format!("{producer} {version}").trim().chars().take(200).collect();
        Ok(())
    }

    fn graph<R: Read + Seek>(&mut self, wire: &mut Wire<R>, end: u64, depth: u32) -> Result<(), WireFault> {
        while let Some((number, content)) = wire.field(end)? {
            let Content::Until(end) = content else { continue };
            match number {
                1 => {
                    let node = self.node(wire, end, depth)?;
                    if depth == 0 {
                        self.nodes.push(node);
                    }
                }
                5 => {
                    let (name, constant) = self.tensor(wire, end)?;
                    if depth == 0 {
                        room(wire, self.constants.len(), MAX_ENTRIES)?;
                        self.constants.insert(name, constant);
                    }
                }
                11..=13 if depth == 0 => {
                    let value = value_info(wire, end)?;
                    let list = match number {
                        11 => &mut self.inputs,
                        12 => &mut self.outputs,
                        _ => &mut self.between,
                    };
                    room(wire, list.len(), MAX_ENTRIES)?;
                    list.push(value);
                }
                _ => wire.skip(end)?,
            }
        }
        Ok(())
    }

    fn node<R: Read + Seek>(&mut self, wire: &mut Wire<R>, end: u64, depth: u32) -> Result<FileNode, WireFault> {
        let (mut node, mut domain, mut operator) = (FileNode::default(), String::new(), String::new());
        let mut constant = None;
        while let Some((number, content)) = wire.field(end)? {
            let Content::Until(end) = content else { continue };
            match number {
                1 => {
                    room(wire, node.inputs.len(), MAX_ENTRIES)?;
                    node.inputs.push(wire.text(end, MAX_NAME)?);
                }
                2 => {
                    room(wire, node.outputs.len(), MAX_ENTRIES)?;
                    node.outputs.push(wire.text(end, MAX_NAME)?);
                }
                4 => operator = wire.text(end, MAX_NAME)?,
                5 => self.attribute(wire, end, depth, &mut node, &mut constant)?,
                7 => domain = wire.text(end, MAX_NAME)?,
                _ => wire.skip(end)?,
            }
        }
        node.operator = match domain.as_str() {
            "" | "ai.onnx" => operator,
            domain => format!("{domain}.{operator}"),
        };
        self.node_count += 1;
        if self.node_count > MAX_NODES {
            return Err(WireFault::Malformed { at: wire.at(), what: format!("more than {MAX_NODES} operators") });
        }
        *self.operators.entry(node.operator.clone()).or_default() += 1;
        if let (Some(constant), 0, Some(name)) = (constant, depth, node.outputs.first()) {
            self.constants.insert(name.clone(), constant);
        }
        Ok(node)
    }

    fn attribute<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        end: u64,
        depth: u32,
        node: &mut FileNode,
        constant: &mut Option<Constant>,
    ) -> Result<(), WireFault> {
        let (mut name, mut numbers, mut text) = (String::new(), Vec::new(), None);
        while let Some((number, content)) = wire.field(end)? {
            match (number, content) {
                (1, Content::Until(end)) => name = wire.text(end, MAX_NAME)?,
                (3, Content::Number(n)) => numbers.push(n as i64),
                // texts that name a mode are short
                (4, Content::Until(end)) if end - wire.at() <= 64 => text = Some(wire.text(end, 64)?),
                (5, Content::Until(end)) => *constant = Some(self.tensor(wire, end)?.1),
                (6 | 11, Content::Until(end)) => {
                    if depth >= MAX_DEPTH {
                        let what = format!("graphs within graphs, more than {MAX_DEPTH} deep");
                        return Err(WireFault::Malformed { at: wire.at(), what });
                    }
                    node.graphs = true;
                    self.graph(wire, end, depth + 1)?;
                }
                (8, Content::Until(end)) if end - wire.at() > 8 * SMALL => wire.skip(end)?,
                (8, content) if numbers.len() < SMALL as usize => wire.numbers(content, &mut numbers, 1 << 12)?,
                (_, Content::Until(end)) => wire.skip(end)?,
                _ => {}
            }
        }
        if !numbers.is_empty() && node.numbers.len() < 64 {
            node.numbers.insert(name.clone(), numbers);
        }
        if let Some(text) = text.filter(|_| node.texts.len() < 64) {
            node.texts.insert(name, text);
        }
        Ok(())
    }

    /// A tensor's name and what it is; its elements are counted, small ones of whole numbers kept.
    fn tensor<R: Read + Seek>(&mut self, wire: &mut Wire<R>, end: u64) -> Result<(String, Constant), WireFault> {
        let began = wire.at();
        let (mut name, mut constant, mut shape) = (String::new(), Constant::default(), Vec::new());
        let (mut values, mut raw, mut outside) = (Vec::new(), None, false);
        let (mut location, mut offset, mut length) = (None, 0u64, None);
        while let Some((number, content)) = wire.field(end)? {
            match (number, content) {
                (1, content) => wire.numbers(content, &mut shape, MAX_AXES)?,
                (2, Content::Number(n)) => constant.element = n,
                (5 | 7, content @ Content::Number(_)) if values.len() < SMALL as usize => {
                    wire.numbers(content, &mut values, SMALL as usize)?;
                }
                (5 | 7, content @ Content::Until(end)) if end - wire.at() <= SMALL => {
                    wire.numbers(content, &mut values, SMALL as usize)?;
                }
                (8, Content::Until(end)) => name = wire.text(end, MAX_NAME)?,
                (9, Content::Until(end)) if end - wire.at() <= 8 * SMALL => raw = Some(wire.bytes(end, 8 * SMALL)?),
                (13, Content::Until(end)) => match entry(wire, end)? {
                    (key, value) if key == "location" => location = Some(value),
                    (key, value) if key == "offset" => offset = value.parse().unwrap_or(u64::MAX),
                    (key, value) if key == "length" => length = Some(value.parse().unwrap_or(u64::MAX)),
                    _ => {}
                },
                (14, Content::Number(n)) => outside = n == 1,
                (_, Content::Until(end)) => wire.skip(end)?,
                _ => {}
            }
        }
        let wrong =
            |what: String| Err(WireFault::Malformed { at: began, what: format!("tensor `{}` {what}", shown(&name)) });
        match shape.iter().map(|&d| u64::try_from(d)).collect() {
            Ok(shape) => constant.shape = shape,
            Err(_) => return wrong(format!("of shape {shape:?}")),
        }
        let Some(elements) = constant.elements() else {
            return wrong(format!("of shape {:?}, which is more than a file can hold", constant.shape));
        };
        let bytes = bits(constant.element).map(|bits| (bits * elements).div_ceil(8));
        if outside {
            let Some(location) = location else { return wrong("lies outside, and does not say where".into()) };
            let last = offset.checked_add(length.or(bytes).unwrap_or(0));
            let Some(last) = last else { return wrong("lies at an impossible place of its file".into()) };
            room(wire, self.external.len(), 4096)?;
            let least = self.external.entry(location).or_default();
            *least = (*least).max(last);
        } else if let (Some(raw), Some(bytes)) = (&raw, bytes)
            && raw.len() as u64 != bytes
        {
            return wrong(format!("holds {} bytes, its shape says {bytes}", raw.len()));
        }
        if matches!(constant.element, 6 | 7) && elements <= SMALL {
            let raw = raw.unwrap_or_default();
            let width = if constant.element == 7 { 8 } else { 4 };
            values.extend(raw.chunks_exact(width).map(whole));
            constant.values = (values.len() as u64 == elements).then_some(values);
        }
        if !constant.shape.is_empty() {
            let all = self.elements.entry(constant.element).or_default();
            *all = all.saturating_add(elements);
        }
        Ok((name, constant))
    }
}

/// A whole number of four or eight bytes.
fn whole(bytes: &[u8]) -> i64 {
    match *bytes {
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

fn opset<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<(String, i64), WireFault> {
    let (mut domain, mut version) = (String::new(), 0);
    while let Some((number, content)) = wire.field(end)? {
        match (number, content) {
            (1, Content::Until(end)) => domain = wire.text(end, MAX_NAME)?,
            (2, Content::Number(n)) => version = n as i64,
            (_, Content::Until(end)) => wire.skip(end)?,
            _ => {}
        }
    }
    Ok((domain, version))
}

/// A named text.
fn entry<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<(String, String), WireFault> {
    let (mut key, mut value) = (String::new(), String::new());
    while let Some((number, content)) = wire.field(end)? {
        match (number, content) {
            (1, Content::Until(end)) => key = wire.text(end, MAX_NAME)?,
            (2, Content::Until(end)) if end - wire.at() <= 16 * MAX_NAME => value = wire.text(end, 16 * MAX_NAME)?,
            (_, Content::Until(end)) => wire.skip(end)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn value_info<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<ValueInfo, WireFault> {
    let mut value = ValueInfo::default();
    while let Some((number, content)) = wire.field(end)? {
        match (number, content) {
            (1, Content::Until(end)) => value.name = wire.text(end, MAX_NAME)?,
            (2, Content::Until(end)) => {
                while let Some((number, content)) = wire.field(end)? {
                    match (number, content) {
                        (1, Content::Until(end)) => tensor_type(wire, end, &mut value)?,
                        (_, Content::Until(end)) => wire.skip(end)?,
                        _ => {}
                    }
                }
            }
            (_, Content::Until(end)) => wire.skip(end)?,
            _ => {}
        }
    }
    Ok(value)
}

fn tensor_type<R: Read + Seek>(wire: &mut Wire<R>, end: u64, value: &mut ValueInfo) -> Result<(), WireFault> {
    while let Some((number, content)) = wire.field(end)? {
        match (number, content) {
            (1, Content::Number(n)) => value.element = n,
            (2, Content::Until(end)) => {
                let mut axes = Vec::new();
                while let Some((number, content)) = wire.field(end)? {
                    match (number, content) {
                        (1, Content::Until(end)) => {
                            room(wire, axes.len(), MAX_AXES)?;
                            axes.push(dim(wire, end)?);
                        }
                        (_, Content::Until(end)) => wire.skip(end)?,
                        _ => {}
                    }
                }
                value.shape = Some(axes);
            }
            (_, Content::Until(end)) => wire.skip(end)?,
            _ => {}
        }
    }
    Ok(())
}

fn dim<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Dim, WireFault> {
    let mut dim = Dim::Open(None);
    while let Some((number, content)) = wire.field(end)? {
        match (number, content) {
            // some writers leave a length open by writing 0 or less
            (1, Content::Number(n)) if n > 0 && n <= MAX_ELEMENTS => dim = Dim::Fixed(n),
            (2, Content::Until(end)) => {
                let name = wire.text(end, MAX_NAME)?;
                // some call every axis that they do not know `?`
                dim = Dim::Open(Some(name).filter(|name| name.contains(char::is_alphanumeric)));
            }
            (_, Content::Until(end)) => wire.skip(end)?,
            _ => {}
        }
    }
    Ok(dim)
}

/// Errors: a list is as long as lists may be.
fn room<R: Read + Seek>(wire: &Wire<R>, has: usize, most: usize) -> Result<(), WireFault> {
    if has < most {
        Ok(())
    } else {
        Err(WireFault::Malformed { at: wire.at(), what: format!("more than {most} entries") })
    }
}

/// A name, cut where it is long.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

const EXPORT: &str = "name a file that an exporter wrote, such as `torch.onnx.export` or `ergometer export`";

fn told(fault: WireFault, begun: bool, length: u64) -> HeaderError {
    match fault {
        WireFault::Short { at, what } if begun => HeaderError {
            message: format!("is cut off: at byte {at} of {length} there should be {what}"),
            hint: "copy or fetch the file again: it must be whole".into(),
        },
        WireFault::Malformed { at, what } if begun => HeaderError {
            message: format!("is damaged: at byte {at} there is {what}"),
            hint: "copy or fetch the file again; if it is whole, its exporter wrote what the standard does not have"
                .into(),
        },
        WireFault::Unreadable(why) => {
            HeaderError { message: format!("cannot be read: {why}"), hint: "check the file and its permissions".into() }
        }
        WireFault::Short { at, .. } | WireFault::Malformed { at, .. } => {
            HeaderError { message: format!("is no ONNX file (byte {at})"), hint: EXPORT.into() }
        }
    }
}
