//! What a case knows of its model where that is a file: what the file says, what a row of it costs, how it was reduced.
//!
//! In: an ONNX file's header with what a suite binds, the examples. Out: [`CaseFile`] and sentences for the record. Must not: read the file.

use std::collections::BTreeSet;

use ergometer_reports::case::{Costs, FileFacts, UnavailableMetric};
use ergometer_suites::task::ExampleSet;
use ergometer_suites::{Array, FileForm};

use crate::models::file::OnnxFile;
use crate::models::interface::{Interface, Port, Rows};
use crate::protocol::bounded::{MAX_NAME, head};

/// What a case knows of its model where that is a file; empty where it is none.
#[derive(Clone, Default)]
pub struct CaseFile {
    /// How the suite uses it.
    pub form: FileForm,
    /// Its outputs with the elements along the last axis of each.
    pub outputs: Vec<(String, Option<usize>)>,
    /// What it says of itself.
    pub facts: Option<FileFacts>,
    /// What it computes in.
    pub precision: Option<&'static str>,
}

impl CaseFile {
    /// Of a file that a suite uses so.
    pub(super) fn of(file: &OnnxFile, form: &FileForm, interface: &Interface) -> Self {
        let last = |port: &Port| port.shape.iter().rev().copied().find(|n| *n > 1);
        Self {
            form: form.clone(),
            outputs: interface.outputs.iter().map(|port| (port.name.clone(), last(port))).collect(),
            facts: Some(facts(file)),
            precision: Some(file.precision),
        }
    }

    /// How the file was reduced, where it records that.
    pub fn how_reduced(&self) -> Option<String> {
        let of = &self.facts.as_ref()?.metadata;
        let word = |key: &str| of.get(&format!("compress.{key}")).map_or("?", String::as_str);
        of.contains_key("compress.tool").then(|| {
            format!(
                "reduced by {} ({}): {} bytes of {}; operators: {}",
                word("tool"),
                word("options"),
                word("bytes_after"),
                word("bytes_before"),
                word("nodes")
            )
        })
    }

    /// Why the file's operations are not counted, where they are not.
    pub fn uncounted(&self, costs: Option<&Costs>) -> Vec<UnavailableMetric> {
        let Some(facts) = self.facts.as_ref() else { return Vec::new() };
        let reason = match facts.flops {
            Some(flops) if flops > 0.0 && costs.is_some_and(|c| c.flops_step > 0.0) => return Vec::new(),
            Some(flops) if flops > 0.0 => "examples have unlike numbers of steps".into(),
            Some(_) => "the file has none of the operators whose operations are counted".into(),
            None => format!("operations are not counted: {}", facts.flops_counted),
        };
        ["flops_model", "flop_rate", "share_of_ceiling"]
            .map(|metric| UnavailableMetric { metric: metric.into(), reason: reason.clone() })
            .to_vec()
    }
}

/// What one row of a file costs; of a sequence, where all have as many steps. Operations are 0 where they are not counted.
pub(super) fn costs(file: &OnnxFile, interface: &Interface, set: &ExampleSet) -> Costs {
    let steps = |arrays: &[Array]| {
        let given = set.inputs.iter().zip(arrays);
        let longer = given.filter_map(|(name, array)| {
            let port = interface.inputs.iter().find(|port| port.name == *name)?;
            (array.shape.len() > port.shape.len()).then(|| array.shape[0])
        });
        longer.max().unwrap_or(1)
    };
    let all: BTreeSet<usize> = set.examples.iter().map(|e| steps(&e.arrays)).collect();
    let steps = all.first().copied().filter(|_| all.len() == 1);
    let states = file.inputs.iter().filter(|input| input.state.is_some());
    let state_bytes = states.map(|i| i.shape(1).iter().product::<usize>() * i.kind.bytes()).sum::<usize>() as u64;
    let (parameters, bytes) = (file.header.parameters(), file.header.constant_bytes());
    Costs {
        params_total: parameters,
        params_active: parameters,
        flops_admit: 0.0,
        flops_step: file.flops.as_ref().ok().zip(steps).map_or(0.0, |(flops, steps)| flops * steps as f64),
        weight_bytes: bytes,
        state_bytes,
        // what operators read and write is not followed
        step_weight_bytes: 0.0,
        step_value_bytes: 0.0,
    }
}

/// Most operators and entries of the metadata that are kept of a file.
const MAX_KEPT: usize = 64;

/// What a file says of itself, for the record.
fn facts(file: &OnnxFile) -> FileFacts {
    let header = &file.header;
    FileFacts {
        ir_version: header.ir_version,
        opsets: header.opset_words(),
        producer: header.producer.clone(),
        metadata: header.metadata.iter().take(MAX_KEPT).map(|(k, v)| (head(k, MAX_NAME), head(v, MAX_NAME))).collect(),
        nodes: header.node_count,
        operators: header.operators.iter().take(MAX_KEPT).map(|(k, n)| (head(k, MAX_NAME), *n)).collect(),
        parameters: header.parameters(),
        constant_bytes: header.constant_bytes(),
        precision: file.precision.into(),
        bound: file.bound.clone(),
        rows: match file.rows {
            Rows::Any => "any".into(),
            Rows::Fixed(n) => n.to_string(),
            Rows::One => "no axis counts rows".into(),
        },
        flops: file.flops.as_ref().ok().copied(),
        flops_counted: match &file.flops {
            Ok(_) => "two for each multiply-add of matrix products, convolutions and recurrent layers, by the shapes of the header".into(),
            Err(why) => why.clone(),
        },
    }
}
