//! Compiles a graph into a plan: two flat lists of steps over numbered buffers.
//!
//! In: a graph. Out: a [`Program`] and its packed weights, or the operator that no kernel computes. Must not: run anything, or change what
//! is computed: an addition joins the norm after it, a scale the embedding before it, results are written where they are wanted, and
//! that is all.
//!
//! Values get their buffers in one pass. A buffer goes back to the pool after the last use of what it holds. A repetition is a loop over
//! the steps of its body, whose carried values live in fixed buffers: the body reads its arguments there and leaves its results there.
//! The step itself is such a body, carried in the buffers of the states.

use super::buffers::{Place, Planner, float};
use super::execute::{Instruction, Loc, MixtureSizes};
use super::weights::{Packer, Weights};
use crate::backends::BackendError;
use crate::graph::{Graph, Kind};

/// A compiled graph.
pub(super) struct Program {
    /// Inputs to `staged`.
    pub admit: Vec<Instruction>,
    /// States and residents to states and outputs.
    pub step: Vec<Instruction>,
    /// Elements per row of every buffer.
    pub sizes: Vec<usize>,
    /// Where each state lives.
    pub states: Vec<Loc>,
    /// Where each resident lives.
    pub residents: Vec<Loc>,
    /// Where `admit` leaves each resident of the new rows.
    pub staged: Vec<Loc>,
    /// Where each output is after a step.
    pub outputs: Vec<Loc>,
    /// Mixtures of experts, by the number that steps use.
    pub mixtures: Vec<MixtureSizes>,
    /// Elements per row of the values alive at once, where they are most: no sharing of buffers takes fewer. States, residents and outputs always are alive.
    pub least: usize,
}

/// Compiles a graph.
///
/// # Errors
/// Unavailable where no kernel computes an operator.
pub(super) fn compile(graph: &Graph, packer: Packer) -> Result<(Program, Weights), BackendError> {
    let mut planner = Planner::new(packer);
    let inputs: Vec<Place> = (0..graph.inputs.len()).map(Place::Input).collect();
    let results = planner.region(&graph.admit, &inputs, &vec![None; graph.admit.results.len()])?;
    let staged = results.into_iter().map(float).collect::<Result<Vec<Loc>, BackendError>>()?;
    let admit = std::mem::take(&mut planner.steps);
    // what admission used is free for the step; what lives longer than either gets buffers of its own
    planner.free = (0..planner.sizes.len()).collect();
    planner.held.fill(0);
    planner.alive = 0;
    let admission = planner.most;
    let mut own = |len: usize| planner.own(len);
    let states: Vec<Loc> = graph.states.iter().map(|s| own(s.ty.elements())).collect();
    let residents: Vec<Loc> = staged.iter().map(|s| own(s.len)).collect();
    let outputs: Vec<Loc> = graph.outputs.iter().map(|o| own(o.ty.elements())).collect();
    let args: Vec<Place> = states.iter().chain(&residents).map(|&at| Place::At(at)).collect();
    let wanted: Vec<Option<usize>> = states.iter().chain(&outputs).map(|at| Some(at.buffer)).collect();
    // while rows are admitted, those that are there stay
    planner.most = admission + planner.alive;
    planner.region(&graph.step, &args, &wanted)?;
    let (step, sizes, mixtures, least) = (planner.steps, planner.sizes, planner.mixtures, planner.most);
    let plan = Program { admit, step, sizes, states, residents, staged, outputs, mixtures, least };
    Ok((plan, planner.packer.finish()))
}

/// Input checks that make every table look-up safe: all indices are below the rows of each table that they go to.
pub(super) fn check_tables(graph: &Graph, steps: &[Instruction], weights: &Weights) -> Result<(), BackendError> {
    for step in steps {
        let (input, table, width) = match *step {
            Instruction::Embed { input, table, features, .. } => (input, table, features),
            Instruction::EmbedPrefix { input, table, width, .. } => (input, table, width),
            _ => continue,
        };
        let (rows, declared) = (weights.plain[table].len() / width.max(1), &graph.inputs[input]);
        if declared.rows > rows || declared.ty.kind != Kind::Index {
            let name = &declared.name;
            return Err(BackendError::Failed(format!("input `{name}` may exceed its table of {rows} rows")));
        }
    }
    Ok(())
}
