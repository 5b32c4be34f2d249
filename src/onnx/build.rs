//! The file under construction: nodes, constants and names.
//!
//! In: operators with their inputs. Out: an ONNX graph whose names are all different. Must not: know what the operators of our graph mean.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use super::proto::{
    Attribute, Dim, Entry, FLOAT, Graph as OnnxGraph, INT64, Node, Shape, Tensor, TensorType, Type, ValueInfo,
};
use super::{Form, OnnxError, ReadParam};
use crate::graph::{Graph, ParamId};

/// Constants of fewer bytes stay inside a file whose weights are beside it.
const SMALL: usize = 1024;
/// Weights in a file of their own begin at multiples of this, so that it can be mapped.
const ALIGN: usize = 4096;

/// An attribute's value.
pub enum Value<'a> {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f32),
    /// A text.
    Text(&'a str),
    /// Whole numbers.
    Ints(&'a [i64]),
    /// A tensor of one float.
    FloatTensor(f32),
}

/// What a builder has built.
pub struct BuiltFile {
    /// The computation.
    pub graph: OnnxGraph,
    /// The file of the weights, if they are not inside.
    pub weights: Option<Vec<u8>>,
    /// Inputs for people.
    pub inputs: Vec<String>,
    /// Outputs for people.
    pub outputs: Vec<String>,
}

/// Length of an axis of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum AxisLength<'a> {
    /// Always this.
    Fixed(usize),
    /// That of the call, under a name; equal names are equal lengths.
    Open(&'a str),
    /// Rows of the batch.
    Batch,
}

/// See the module.
pub struct Builder<'a> {
    /// The graph that is written.
    pub graph: &'a Graph,
    /// How to write it.
    pub form: &'a Form,
    /// Values are rows of features without a batch (decoders), and weights stay as the file has them, `[out, in]`.
    pub flat: bool,
    read: ReadParam<'a>,
    /// The parameters that were read last: parts of one are written one after the other.
    recent: Vec<(ParamId, Rc<Cow<'a, [f32]>>)>,
    /// Why a parameter could not be read.
    failed: Option<String>,
    file: OnnxGraph,
    weights: Vec<u8>,
    constants: HashMap<String, String>,
    taken: HashMap<String, usize>,
}

impl<'a> Builder<'a> {
    /// Nothing yet. The names of inputs, states and outputs are taken: nothing inside gets them.
    pub fn new(graph: &'a Graph, read: ReadParam<'a>, form: &'a Form) -> Self {
        let mut b = Self {
            graph,
            form,
            flat: false,
            read,
            recent: Vec::new(),
            failed: None,
            file: OnnxGraph { name: Some(graph.family.name().into()), ..OnnxGraph::default() },
            weights: Vec::new(),
            constants: HashMap::new(),
            taken: HashMap::new(),
        };
        let names = graph.inputs.iter().map(|i| i.name.clone()).chain(graph.outputs.iter().map(|o| o.name.clone()));
        let states = graph.states.iter().flat_map(|s| [s.name.clone(), format!("next.{}", s.name)]);
        for name in names.chain(states) {
            b.taken.insert(name, 1);
        }
        b
    }

    /// A name like this one that nothing has.
    fn fresh(&mut self, like: &str) -> String {
        let mut name = like.to_string();
        loop {
            let n = self.taken.entry(name.clone()).or_insert(0);
            *n += 1;
            if *n == 1 {
                return name;
            }
            // a parameter may have just this name
            let n = self.taken.entry(like.to_string()).or_insert(0);
            *n += usize::from(name != like);
            name = format!("{like}.{n}");
        }
    }

    /// Declares an input of the batch; gives its name.
    pub fn input(&mut self, name: &str, element: i32, shape: &[usize]) -> String {
        self.open_input(name, element, &batch_of(shape))
    }

    /// Declares an input; gives its name.
    pub fn open_input(&mut self, name: &str, element: i32, shape: &[AxisLength]) -> String {
        let info = self.info(name, element, shape);
        self.file.input.push(info);
        self.taken.entry(name.to_owned()).or_insert(1);
        name.to_string()
    }

    /// Declares an output that an operator will give under this name, or has given.
    pub fn open_output(&mut self, name: &str, shape: &[AxisLength]) {
        let info = self.info(name, FLOAT, shape);
        self.file.output.push(info);
        self.taken.entry(name.to_owned()).or_insert(1);
    }

    /// Room for so many bytes of weights in a file of their own.
    pub fn reserve(&mut self, bytes: usize) {
        if self.form.external.is_some() {
            self.weights.reserve(bytes);
        }
    }

    /// Declares an output of the batch that equals a value.
    pub fn output(&mut self, name: &str, value: &str, shape: &[usize]) {
        let info = self.info(name, FLOAT, &batch_of(shape));
        self.file.output.push(info);
        let node = Node {
            domain: None,
            input: vec![value.to_string()],
            output: vec![name.to_string()],
            name: Some(format!("output.{name}")),
            op_type: Some("Identity".into()),
            attribute: Vec::new(),
        };
        self.file.node.push(node);
    }

    fn info(&self, name: &str, element: i32, shape: &[AxisLength]) -> ValueInfo {
        let fixed = |n: usize| Dim { dim_value: Some(n as i64), dim_param: None };
        let open = |name: &str| Dim { dim_value: None, dim_param: Some(name.into()) };
        let length = |length: &AxisLength| match length {
            AxisLength::Fixed(n) => fixed(*n),
            AxisLength::Open(name) => open(name),
            AxisLength::Batch => self.form.batch.map_or_else(|| open("batch"), fixed),
        };
        let dim = shape.iter().map(length).collect();
        let tensor_type = TensorType { elem_type: Some(element), shape: Some(Shape { dim }) };
        ValueInfo { name: Some(name.into()), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
    }

    /// An operator with one result; gives its name.
    pub fn op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Value)]) -> String {
        self.ops(op, inputs, attributes, 1).remove(0)
    }

    /// An operator with several results.
    pub fn ops(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Value)], results: usize) -> Vec<String> {
        let output: Vec<String> = (0..results).map(|_| self.fresh(&op.to_lowercase())).collect();
        self.op_into(op, inputs, attributes, output)
    }

    /// An operator whose results have these names, such as those of outputs.
    pub fn op_into(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Value)],
        output: Vec<String>,
    ) -> Vec<String> {
        let attribute = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
        self.file.node.push(Node {
            domain: None,
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: output.clone(),
            name: Some(format!("{op}.{}", self.file.node.len())),
            op_type: Some(op.into()),
            attribute,
        });
        output
    }

    /// A parameter in the layout that `arrange` gives it, under a key that says which; made once.
    pub fn weight(
        &mut self,
        param: ParamId,
        layout: &str,
        shape: &[usize],
        arrange: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> String {
        let name = &self.graph.params[param.0].name;
        let key = if layout.is_empty() { name.clone() } else { format!("{name}.{layout}") };
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let values = self.values(param);
        let bytes = little_endian(&arrange(&values));
        self.constant(key, FLOAT, shape, bytes)
    }

    /// The elements of a parameter; zeros of one that cannot be read, which [`finish`](Self::finish) tells.
    pub fn values(&mut self, param: ParamId) -> Rc<Cow<'a, [f32]>> {
        if let Some((_, known)) = self.recent.iter().find(|(id, _)| *id == param) {
            return known.clone();
        }
        let expected = self.graph.params[param.0].elements();
        let read = (self.read)(param).and_then(|values| match values.len() == expected {
            true => Ok(values),
            false => Err(format!("{} has {} elements", self.graph.params[param.0].name, values.len())),
        });
        let values = read.unwrap_or_else(|why| {
            self.failed.get_or_insert(why);
            Cow::Owned(vec![0.0; expected])
        });
        let values = Rc::new(values);
        // experts take turns between two
        if self.recent.len() == 2 {
            self.recent.remove(0);
        }
        self.recent.push((param, values.clone()));
        values
    }

    /// A constant of floats; equal keys must mean equal constants.
    pub fn floats(&mut self, key: &str, shape: &[usize], values: impl FnOnce() -> Vec<f32>) -> String {
        match self.constants.get(key) {
            Some(known) => known.clone(),
            None => {
                let bytes = little_endian(&values());
                self.constant(key.to_string(), FLOAT, shape, bytes)
            }
        }
    }

    /// One float.
    pub fn float(&mut self, value: f32) -> String {
        self.floats(&format!("float.{value:?}"), &[], || vec![value])
    }

    /// A list of whole numbers.
    pub fn ints(&mut self, values: &[i64]) -> String {
        self.int_table(&format!("ints.{values:?}"), &[values.len()], || values.to_vec())
    }

    /// A constant of whole numbers; equal keys must mean equal constants.
    pub fn int_table(&mut self, key: &str, shape: &[usize], values: impl FnOnce() -> Vec<i64>) -> String {
        match self.constants.get(key) {
            Some(known) => known.clone(),
            None => {
                let bytes = values().iter().flat_map(|v| v.to_le_bytes()).collect();
                self.constant(key.to_string(), INT64, shape, bytes)
            }
        }
    }

    /// A value that is made by the first who asks for it.
    pub fn once(&mut self, key: &str, make: impl FnOnce(&mut Self) -> String) -> String {
        if let Some(known) = self.constants.get(key) {
            return known.clone();
        }
        let name = make(self);
        self.constants.insert(key.to_string(), name.clone());
        name
    }

    /// Number of constants and values that were asked for once: a number that no earlier name has.
    pub fn count(&self) -> usize {
        self.constants.len()
    }

    /// Name of the first input.
    pub fn first_input(&self) -> Option<String> {
        self.file.input.first().and_then(|i| i.name.clone())
    }

    fn constant(&mut self, key: String, element: i32, shape: &[usize], bytes: Vec<u8>) -> String {
        let name = self.fresh(&key);
        let mut tensor = Tensor {
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type: Some(element),
            name: Some(name.clone()),
            ..Tensor::default()
        };
        match &self.form.external {
            Some(file) if bytes.len() >= SMALL => {
                self.weights.resize(self.weights.len().next_multiple_of(ALIGN), 0);
                let entry = |key: &str, value: String| Entry { key: Some(key.into()), value: Some(value) };
                tensor.external_data = vec![
                    entry("location", file.clone()),
                    entry("offset", self.weights.len().to_string()),
                    entry("length", bytes.len().to_string()),
                ];
                tensor.data_location = Some(1);
                self.weights.extend_from_slice(&bytes);
            }
            _ => tensor.raw_data = Some(bytes),
        }
        self.file.initializer.push(tensor);
        self.constants.insert(key, name.clone());
        name
    }

    /// The graph, the weights beside it, and inputs and outputs for people.
    ///
    /// # Errors
    /// A parameter could not be read.
    pub fn finish(self) -> Result<BuiltFile, OnnxError> {
        if let Some(why) = self.failed {
            return Err(OnnxError::Unreadable { why });
        }
        let shown = |infos: &[ValueInfo]| infos.iter().map(describe).collect();
        let (inputs, outputs) = (shown(&self.file.input), shown(&self.file.output));
        let weights = self.form.external.as_ref().map(|_| self.weights);
        Ok(BuiltFile { graph: self.file, weights, inputs, outputs })
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * values.len());
    values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    bytes
}

fn batch_of(shape: &[usize]) -> Vec<AxisLength<'static>> {
    std::iter::once(AxisLength::Batch).chain(shape.iter().map(|&n| AxisLength::Fixed(n))).collect()
}

fn describe(info: &ValueInfo) -> String {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map(|s| s.dim.as_slice()).unwrap_or_default();
    let dims: Vec<String> = dims
        .iter()
        .map(|d| d.dim_value.map_or_else(|| d.dim_param.clone().unwrap_or_default(), |n| n.to_string()))
        .collect();
    let element = if tensor.and_then(|t| t.elem_type) == Some(INT64) { "int64" } else { "float" };
    format!("{} {element}[{}]", info.name.as_deref().unwrap_or_default(), dims.join(", "))
}

fn attribute(name: &str, value: &Value) -> Attribute {
    let mut a = Attribute { name: Some(name.into()), ..Attribute::default() };
    let kind = match value {
        Value::Float(v) => {
            a.f = Some(*v);
            1
        }
        Value::Int(v) => {
            a.i = Some(*v);
            2
        }
        Value::Text(v) => {
            a.s = Some(v.as_bytes().to_vec());
            3
        }
        Value::FloatTensor(v) => {
            let raw_data = Some(v.to_le_bytes().to_vec());
            a.t = Some(Tensor { dims: vec![1], data_type: Some(FLOAT), raw_data, ..Tensor::default() });
            4
        }
        Value::Ints(v) => {
            a.ints = v.to_vec();
            7
        }
    };
    a.r#type = Some(kind);
    a
}
