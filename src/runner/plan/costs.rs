//! What a row of a case costs, before it runs: of a graph, of a request to a language model.
//!
//! In: a model, a task, a precision. Out: [`Costs`]. Must not: count what a scenario does not do, or what nobody knows.
//!
//! Of a language model a step is a token that is written. The first one's logits come out of the prompt, so that what admission costs is the prompt less
//! one step.

use ergometer_reports::case::Costs;
use ergometer_reports::precision::Precision;
use ergometer_suites::scenario::Scenario;

use super::super::tokenise::Tokenised;
use crate::graph::Graph;
use crate::graph::cost::Workload;
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
