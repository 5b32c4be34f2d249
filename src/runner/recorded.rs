//! Outputs that the user of an ONNX file has recorded, with their inputs: what its outputs are held to.
//!
//! In: a `.npz` or `.safetensors` file with arrays by the names of the file's inputs and outputs, or a folder as ONNX's own tests have it
//! (`input_0.pb`, ..., `output_0.pb`, ...). Out: [`Recorded`]. Must not: run anything, or take an array for one of another shape.
//!
//! Every array has the axis of rows first, as the model has it; where the model has none, an axis of examples. States that are recorded among
//! the inputs must be zeros, since engines begin with those.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ergometer_suites::arrays::source::{ArraySource, WantedRows};
use ergometer_suites::{Array, ElementKind};

use crate::models::file::OnnxFile;
use crate::models::interface::{Interface, Port, Rows};
use crate::onnx::tensor;
use crate::worker::given;

/// Rows that are compared, at most.
const MAX_ROWS: usize = 64;

/// Recorded outputs with what they are for.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The file or folder, for people.
    pub name: String,
    /// `[row][input]`, in the order of the interface.
    pub inputs: Vec<Vec<Array>>,
    /// In the order of the interface, all rows of each; `None`: not recorded.
    pub outputs: Vec<Option<Vec<f32>>>,
}

/// Reads them.
///
/// # Errors
/// Arrays that are missing, of another type or shape than the model's, or no numbers.
pub fn read(path: &Path, file: &OnnxFile, interface: &Interface) -> anyhow::Result<Recorded> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let all = |name: &str, place: usize, what: &str| match path.is_dir() {
        true => of_folder(path, name, place, what),
        false => of_file(path, name),
    };
    // what is not recorded is not compared
    let perhaps = |name: &str, place: usize, what: &str| match path.is_dir() {
        true => of_folder(path, name, place, what),
        false => match of_file(path, name) {
            Err(e)
                if ["array", "tensor"]
                    .iter()
                    .any(|what| format!("{e:#}").contains(&format!("has no {what} `{name}`"))) =>
            {
                Ok(None)
            }
            other => other,
        },
    };
    let place = |name: &str| file.header.inputs.iter().position(|v| v.name == name).unwrap_or(0);
    let mut columns = Vec::new();
    for port in &interface.inputs {
        let array = all(&port.name, place(&port.name), "input")?.with_context(|| {
            format!("{}: input `{}` is not recorded\nhint: record every input", path.display(), port.name)
        })?;
        columns.push((port, array));
    }
    for input in file.inputs.iter().filter(|i| i.state.is_some()) {
        let state = perhaps(&input.name, place(&input.name), "input")?;
        ensure!(
            state.is_none_or(|array| array.bytes.iter().all(|byte| *byte == 0)),
            "{}: the state `{}` does not begin with zeros\nhint: engines begin with zeros: record from the start",
            path.display(),
            input.name
        );
    }
    let rows = columns.iter().find(|(port, _)| !port.shape.is_empty()).or(columns.first());
    let rows = rows.map_or(
        0,
        |(port, array)| if array.shape == port.shape { 1 } else { array.shape.first().copied().unwrap_or(1) },
    );
    ensure!((1..=MAX_ROWS).contains(&rows), "{}: {rows} rows, from 1 to {MAX_ROWS} are compared", path.display());
    if let Rows::Fixed(n) = interface.rows {
        ensure!(rows.is_multiple_of(n), "{}: {rows} rows, the file takes {n} at once", path.display());
    }
    let mut inputs = vec![Vec::new(); rows];
    for (port, array) in &columns {
        for (row, array) in inputs.iter_mut().zip(rows_of(path, port, interface, array, rows)?) {
            row.push(array);
        }
    }
    let mut outputs = Vec::new();
    for port in &interface.outputs {
        let place = file.header.outputs.iter().position(|v| v.name == port.name).unwrap_or(0);
        let array = perhaps(&port.name, place, "output")?;
        if let Some(has) = array.as_ref().and_then(|a| a.shape.first()).filter(|n| rows > 1 && **n != rows) {
            bail!(
                "{}: output `{}` has {}, and the inputs have {rows}\nhint: record as many rows of each; the axis of rows stands first",
                path.display(),
                port.name,
                ergometer_files::counted(has, "row")
            );
        }
        outputs.push(array.map(|array| floats(&array)).transpose()?);
    }
    ensure!(
        outputs.iter().any(Option::is_some),
        "{}: no output is recorded\nhint: call arrays as the file's outputs are called: {}",
        path.display(),
        interface.outputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
    );
    ensure!(
        outputs.iter().flatten().flatten().all(|v| v.is_finite()),
        "{}: a recorded output is no number\nhint: record finite outputs",
        path.display()
    );
    Ok(Recorded { name, inputs, outputs })
}

/// One row after the other; an array without an axis of rows is that of all.
fn rows_of(path: &Path, port: &Port, interface: &Interface, array: &Array, rows: usize) -> anyhow::Result<Vec<Array>> {
    let whole = array.shape == port.shape && (rows == 1 || port.shape.is_empty());
    let (shape, each) = match (whole, array.shape.split_first()) {
        (true, _) => (array.shape.clone(), 0),
        (false, Some((n, row))) if *n == rows => (row.to_vec(), array.bytes.len() / rows),
        _ => bail!(
            "{}: `{}` has shape {:?}, {rows} rows of {:?} are needed\nhint: the axis of rows stands first",
            path.display(),
            port.name,
            array.shape,
            port.shape
        ),
    };
    given::check_array(port, interface, array.kind, &shape).with_context(|| path.display().to_string())?;
    let part = |row: usize| if whole { array.bytes.clone() } else { array.bytes[row * each..(row + 1) * each].into() };
    Ok((0..rows).map(|row| Array { kind: array.kind, shape: shape.clone(), bytes: part(row) }).collect())
}

/// An array of a file by its name.
fn of_file(path: &Path, name: &str) -> anyhow::Result<Option<Array>> {
    let text = path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    let source = ArraySource::parse(Path::new(""), &format!("{text}:{name}"))?;
    let all: Vec<usize> = (0..source.rows()?.min(MAX_ROWS + 1)).collect();
    let arrays = source.arrays(&all, &WantedRows { kind: None, shape: None })?;
    let Some(first) = arrays.first() else { return Ok(None) };
    let shape = [&[arrays.len()], &first.shape[..]].concat();
    let bytes: Vec<u8> = arrays.iter().flat_map(|a| a.bytes.iter().copied()).collect();
    Ok(Some(Array { kind: first.kind, shape, bytes: bytes.into() }))
}

/// The array of a place in a folder of ONNX's test data; one that says its name by that.
fn of_folder(folder: &Path, name: &str, place: usize, what: &str) -> anyhow::Result<Option<Array>> {
    let path = folder.join(format!("{what}_{place}.pb"));
    if !path.is_file() {
        return Ok(None);
    }
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let (own, array) = tensor::read(file)
        .map_err(|why| anyhow::anyhow!("{}: {why}\nhint: name a folder such as test_data_set_0", path.display()))?;
    ensure!(
        own.is_empty() || own == name,
        "{} holds `{own}`, and `{name}` is the {what} of that number\nhint: were they recorded with this file?",
        path.display()
    );
    Ok(Some(array))
}

/// Elements as outputs are given.
fn floats(array: &Array) -> anyhow::Result<Vec<f32>> {
    let bytes = &array.bytes[..];
    Ok(match array.kind {
        ElementKind::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        ElementKind::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        ElementKind::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        ElementKind::I32 => bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
        ElementKind::U8 | ElementKind::Bool => bytes.iter().map(|b| f32::from(*b)).collect(),
        ElementKind::F16 => {
            bytes.as_chunks::<2>().0.iter().map(|b| crate::models::f16_to_f32(u16::from_le_bytes(*b))).collect()
        }
    })
}
