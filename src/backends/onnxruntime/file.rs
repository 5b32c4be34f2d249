//! ONNX Runtime on a file of somebody else's, loaded from its path so that external data are found.
//!
//! In: an [`OnnxFile`] and how to run it. Out: a [`Runner`]. Must not: rewrite the file.
//!
//! What the library says of a file that it cannot run (an operator without an implementation, a version of the format or of an operator
//! set that is newer than the library) makes the case unavailable, with its words.

use std::collections::BTreeMap;

use ergometer_suites::ElementKind;
use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{PrimitiveTensorElementType, Tensor};

use super::engine::{SessionSetup, failed};
use crate::backends::file::{Elements, Runner};
use crate::backends::{BackendError, Unavailable};
use crate::models::file::OnnxFile;

/// See the module.
pub(super) struct OrtFile {
    session: Session,
    weight_bytes: u64,
}

/// What in the library's words is about the file and no failure.
const CANNOT: [&str; 6] = [
    "IR version",
    "opset",
    "is not a registered function/op",
    "Could not find an implementation",
    "NOT_IMPLEMENTED",
    "not implemented",
];

impl OrtFile {
    /// Loads it.
    pub fn new(file: &OnnxFile, setup: &SessionSetup) -> Result<Self, BackendError> {
        let mut builder = setup.builder()?;
        let session = builder.commit_from_file(&file.path).map_err(|e| refused(file, &e.to_string()))?;
        let names = |all: &[ort::value::Outlet]| all.iter().map(|o| o.name().to_owned()).collect::<Vec<_>>();
        let inputs: Vec<_> = file.header.inputs.iter().map(|v| v.name.clone()).collect();
        let outputs: Vec<_> = file.header.outputs.iter().map(|v| v.name.clone()).collect();
        if names(session.inputs()) != inputs || names(session.outputs()) != outputs {
            return Err(failed(format!(
                "it sees inputs {:?} and outputs {:?}, the file's header has {inputs:?} and {outputs:?}",
                names(session.inputs()),
                names(session.outputs())
            )));
        }
        // the library does not tell what its packed copies take
        Ok(Self { session, weight_bytes: file.header.constant_bytes() })
    }
}

fn refused(file: &OnnxFile, text: &str) -> BackendError {
    if !CANNOT.iter().any(|word| text.contains(word)) {
        return failed(text);
    }
    let (ir, opset) = (file.header.ir_version, file.header.opset_words());
    BackendError::Unavailable(Unavailable {
        reason: format!("ONNX Runtime cannot run this file (IR version {ir}, operator set {opset}): {text}"),
        hint: Some("another engine may have what it lacks, or export the file with an older operator set".into()),
    })
}

/// A tensor of little-endian elements.
fn tensor<T, const N: usize>(
    shape: &[usize],
    bytes: &[u8],
    of: impl Fn([u8; N]) -> T,
) -> Result<SessionInputValue<'static>, BackendError>
where
    T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    let data: Vec<T> = bytes.as_chunks::<N>().0.iter().map(|bytes| of(*bytes)).collect();
    Ok(Tensor::from_array((shape.to_vec(), data)).map_err(failed)?.into())
}

impl Runner for OrtFile {
    type Value = SessionInputValue<'static>;

    fn fixed(&self) -> Option<usize> {
        None
    }

    fn tensor(&self, kind: ElementKind, shape: &[usize], bytes: &[u8]) -> Result<Self::Value, BackendError> {
        match kind {
            ElementKind::F32 => tensor(shape, bytes, f32::from_le_bytes),
            ElementKind::F16 => tensor(shape, bytes, f16::from_le_bytes),
            ElementKind::F64 => tensor(shape, bytes, f64::from_le_bytes),
            ElementKind::I64 => tensor(shape, bytes, i64::from_le_bytes),
            ElementKind::I32 => tensor(shape, bytes, i32::from_le_bytes),
            ElementKind::U8 => tensor(shape, bytes, u8::from_le_bytes),
            ElementKind::Bool => tensor(shape, bytes, |[byte]: [u8; 1]| byte != 0),
        }
    }

    fn run(&mut self, inputs: &[Self::Value]) -> Result<Vec<Self::Value>, BackendError> {
        let results = self.session.run(inputs).map_err(failed)?;
        Ok(results.into_iter().map(|(_, value)| value.into()).collect())
    }

    fn elements<'a>(
        &self,
        value: &'a Self::Value,
        kind: ElementKind,
    ) -> Result<(Vec<usize>, Elements<'a>), BackendError> {
        fn of<'a, T: PrimitiveTensorElementType + 'a>(
            value: &'a SessionInputValue<'static>,
            elements: impl Fn(&'a [T]) -> Elements<'a>,
        ) -> Result<(Vec<usize>, Elements<'a>), BackendError> {
            let (shape, data) = value.try_extract_tensor::<T>().map_err(failed)?;
            Ok((shape.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect(), elements(data)))
        }
        match kind {
            ElementKind::F16 => of(value, Elements::F16),
            ElementKind::I64 => of(value, Elements::I64),
            ElementKind::I32 => of(value, Elements::I32),
            ElementKind::U8 => of(value, Elements::U8),
            ElementKind::Bool => of(value, Elements::Bool),
            ElementKind::F32 | ElementKind::F64 => of(value, Elements::F32),
        }
    }

    fn report(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}
