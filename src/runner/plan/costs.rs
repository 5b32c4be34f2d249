//! What a row of a case costs, before it runs: of a graph, of a file, of a request to a language model.
//!
//! In: a model, a task, a precision. Out: [`Costs`]. Must not: count what a scenario does not do, or what nobody knows.
//!
//! Of a language model a step is a token that is written. The first one's logits come out of the prompt, so that what admission costs is the prompt less
//! one step.

use std::collections::BTreeSet;

use ergometer_reports::case::Costs;
use ergometer_reports::precision::Precision;
use ergometer_suites::Array;
use ergometer_suites::scenario::Scenario;
use ergometer_suites::task::ExampleSet;

use super::super::tokenise::Tokenised;
use crate::graph::Graph;
use crate::graph::cost::Workload;
use crate::models::file::OnnxFile;
use crate::models::interface::Interface;
use crate::models::language::LanguageModel;

/// What one row costs in this precision.
pub(super) fn of_graph(graph: &Graph, precision: &str) -> Costs {
    let bytes = Precision::of(precision).bytes;
    let cost = graph.cost(&Workload { weight_bytes: bytes, value_bytes: bytes, ..Workload::one() });
    Costs {
        params_total: cost.params_total,
        params_active: cost.params_active,
        flops_admit: cost.flops_admit,
        flops_step: cost.flops_steps,
        weight_bytes: cost.weight_bytes as u64,
        state_bytes: cost.state_bytes as u64,
        step_weight_bytes: cost.step_weight_bytes,
        step_value_bytes: cost.step_value_bytes,
    }
}

/// What one row of a file costs, where its shapes are known; of a sequence, where all have as many steps.
pub(super) fn of_file(file: &OnnxFile, interface: &Interface, set: &ExampleSet) -> Option<Costs> {
    let steps = |arrays: &[Array]| {
        let given = set.inputs.iter().zip(arrays);
        let longer = given.filter_map(|(name, array)| {
            let port = interface.inputs.iter().find(|port| port.name == *name)?;
            (array.shape.len() > port.shape.len()).then(|| array.shape[0])
        });
        longer.max().unwrap_or(1)
    };
    let all: BTreeSet<usize> = set.examples.iter().map(|e| steps(&e.arrays)).collect();
    let &steps = all.first().filter(|_| all.len() == 1)?;
    let states = file.inputs.iter().filter(|input| input.state.is_some());
    let state_bytes = states.map(|i| i.shape(1).iter().product::<usize>() * i.kind.bytes()).sum::<usize>() as u64;
    let (parameters, bytes) = (file.header.parameters(), file.header.constant_bytes());
    Some(Costs {
        params_total: parameters,
        params_active: parameters,
        flops_admit: 0.0,
        flops_step: file.flops.as_ref().ok()? * steps as f64,
        weight_bytes: bytes,
        state_bytes,
        // what operators read and write is not followed
        step_weight_bytes: 0.0,
        step_value_bytes: 0.0,
    })
}

/// The precision in which weights are as the file has them.
const STORED: &str = "stored";

/// Costs of a request of mean length.
pub(super) fn of_language(model: &LanguageModel, tokens: &Tokenised, scenario: &Scenario, precision: &str) -> Costs {
    let n = tokens.inputs.len().max(1) as f64;
    let mean = |sum: f64| sum / n;
    let prompt = mean(tokens.inputs.iter().map(|i| i.len() as f64).sum()).round() as usize;
    let output = mean(tokens.job.output.iter().map(|o| f64::from(*o)).sum());
    let step = model.flops(1, prompt + (output / 2.0) as usize);
    let read = (model.flops(prompt, 0) - step).max(0.0);
    let (flops_admit, flops_step) = match scenario.kind().name {
        "decode" => (0.0, step),
        _ => (read, step),
    };
    let element = (precision != STORED).then(|| Precision::of(precision).bytes);
    let (params_total, params_active) = model.parameters();
    Costs {
        params_total,
        params_active,
        flops_admit,
        flops_step,
        weight_bytes: model.weight_bytes(element) as u64,
        state_bytes: model.cache_bytes(tokens.job.context, 4.0) as u64,
        step_weight_bytes: model.decode_bytes(element),
        step_value_bytes: 0.0,
    }
}
