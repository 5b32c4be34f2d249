//! One plan of tract: a file parsed and optimised, and what can be read off the result.
//!
//! In: the bytes of an ONNX file. Out: a [`TractPlan`] with the kernels it will run, the bytes of its weights and what its products cost. Must
//! not: run anything, or guess at a product that it does not understand.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Mutex;

use tract_linalg::MmmDispatch;
use tract_linalg::mmm::{MMMInputValue, MatMatMul, PackedMatrixStorage};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::TypedSimpleState;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::matmul::ModePicker;
use tract_onnx::tract_core::ops::matmul::optimized::{MatMulOperand, OptMatMul, ProtoFusedSpec};

/// An optimised model, ready to run.
pub struct TractPlan {
    /// What runs.
    pub state: TypedSimpleState,
    /// The open axis, where there is one.
    pub batch: Option<Symbol>,
}

/// tract's switch for bf16 is one for the whole process and is read while a plan is made: one plan at a time.
static MAKING: Mutex<()> = Mutex::new(());

impl TractPlan {
    /// Parses and optimises a file. With `bf16` products of an open shape round their operands to bf16.
    pub fn new(file: &[u8], bf16: bool) -> TractResult<Self> {
        let _alone = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let switch = &tract_linalg::knobs::TRACT_AMX_BF16;
        // products of fixed shape ask a list that is made once: without the AMX kernel, which they would run on f32 operands
        switch.set(false);
        let _ = MmmDispatch::native();
        switch.set(bf16);
        let model = onnx().model_for_read(&mut Cursor::new(file)).and_then(|m| m.into_optimized());
        switch.set(false);
        let plan = model?.into_runnable()?;
        let batch = plan.model().input_fact(0)?.shape[0].symbols().into_iter().next();
        Ok(Self { state: plan.spawn()?, batch })
    }

    /// What `make` gives, with the switch for bf16 off meanwhile.
    pub fn exact<T>(make: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
        let _alone = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        tract_linalg::knobs::TRACT_AMX_BF16.set(false);
        make()
    }

    /// The optimised model.
    pub fn model(&self) -> &TypedModel {
        self.state.model()
    }

    /// How many matrix products each kernel runs; those on bf16 operands are marked.
    pub fn kernels(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for op in self.products() {
            for (mode, kernel) in op.mmm.iter().enumerate() {
                let mark = if packing(op, mode).is_some_and(|p| is_bf16(&**kernel, p)) { " (bf16)" } else { "" };
                *all.entry(format!("{}{mark}", kernel.name())).or_insert(0) += 1;
            }
        }
        all
    }

    /// Products that round their operands to bf16, and all products.
    pub fn in_bf16(&self) -> (usize, usize) {
        let rounds = |op: &OptMatMul| {
            let kernel = op.mmm.last();
            kernel.is_some_and(|k| packing(op, op.mmm.len() - 1).is_some_and(|p| is_bf16(&**k, p)))
        };
        (self.products().filter(|op| rounds(op)).count(), self.products().count())
    }

    /// Bytes of the constants that the plan holds.
    pub fn weight_bytes(&self) -> u64 {
        constants(self.model())
    }

    /// FLOPs of the products of one run with this many rows: as the mathematics has them, and as the kernels do them, on whole tiles.
    /// `None`: the plan holds a product that is not laid out for a kernel.
    pub fn flops(&self, rows: usize) -> Option<(f64, f64)> {
        if self.model().nodes().iter().any(|n| n.op_is::<EinSum>()) {
            return None;
        }
        let values = self.batch.iter().fold(SymbolValues::default(), |v, s| v.with(s, rows as i64));
        let size = |dim: &TDim| dim.eval_to_i64(&values).ok().map(|d| d as f64);
        let (mut needed, mut done) = (0.0, 0.0);
        for op in self.products() {
            let (m, n, k) = (size(op.m())?, size(op.n())?, size(&op.guess_k()?)?);
            let all = op.c_fact.shape.iter().map(size).product::<Option<f64>>()?;
            let mode = match op.mode_picker {
                ModePicker::Single => 0,
                ModePicker::VecVsMat => usize::from(n > 1.0),
            };
            let kernel = op.mmm.get(mode)?;
            let (a, _) = kernel.packings().get(packing(op, mode)?)?;
            let whole = |size: f64, tile: usize| (size / tile as f64).ceil() * tile as f64;
            let tiles = whole(m, kernel.mr()) * whole(n, kernel.nr()) * whole(k, a.k_alignment());
            needed += 2.0 * all * k;
            done += 2.0 * all / (m * n) * tiles;
        }
        Some((needed, done))
    }

    fn products(&self) -> impl Iterator<Item = &OptMatMul> {
        self.model().nodes().iter().filter_map(|n| n.op_as::<OptMatMul>())
    }
}

/// The operands' layout that a product uses in a mode, as an index into its kernel's.
fn packing(op: &OptMatMul, mode: usize) -> Option<usize> {
    op.micro_ops.iter().find_map(|spec| match spec {
        ProtoFusedSpec::AddMatMul { packings, .. } => packings.get(mode).map(|p| p.0),
        _ => None,
    })
}

fn is_bf16(kernel: &dyn MatMatMul, packing: usize) -> bool {
    kernel.packings().get(packing).is_some_and(|(a, _)| a.to_string().contains("Bf16"))
}

/// Bytes of the constants that a model holds, packed ones as packed; what several operators share is counted once.
pub(super) fn constants(model: &TypedModel) -> u64 {
    let mut held = BTreeMap::new();
    let mut packed = |value: &dyn MMMInputValue| {
        let bytes: i64 = value.exotic_fact().buffer_sizes().iter().filter_map(|size| size.to_i64().ok()).sum();
        // copies of packed weights point to the same panels
        if let Ok(place) = value.panel_bytes(0, None) {
            held.insert(place as usize, bytes.unsigned_abs());
        }
    };
    let mut plain = BTreeMap::new();
    for node in model.nodes() {
        for constant in node.outputs.iter().filter_map(|o| o.fact.konst.as_ref()) {
            match constant.storage_as::<PackedMatrixStorage>() {
                Some(storage) => storage.values().iter().for_each(|value| packed(&**value)),
                None => {
                    let bytes = constant.len() * constant.datum_type().size_of();
                    plain.insert(Arc::as_ptr(constant), bytes as u64);
                }
            }
        }
        let operands = node.op_as::<OptMatMul>().into_iter().flat_map(|op| &op.micro_ops).flat_map(|spec| match spec {
            ProtoFusedSpec::AddMatMul { a, b, .. } => vec![a, b],
            _ => Vec::new(),
        });
        for operand in operands {
            if let MatMulOperand::Const(value) = operand {
                packed(&**value);
            }
        }
    }
    held.values().chain(plain.values()).sum()
}
