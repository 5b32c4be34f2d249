//! Plans of graphs that no family builds: operators without a kernel, and random nests of values and repetitions against the interpreter.

use proptest::prelude::*;

use super::*;
use crate::graph::interpreter::Interpreter;
use crate::graph::tensor::Tensor;
use crate::graph::{
    Activation, Axis, Family, Halting, Output, Param, Region, RegionBuilder, Role, Start, State, ValueId, ValueType, op,
};

/// A graph of one step over states that start as vectors, with these parameters.
fn graph_of(params: Vec<Param>, states: Vec<State>, step: Region) -> Model {
    let outputs = step.results[states.len()..].iter();
    let outputs = outputs.map(|&r| Output { name: "out".into(), ty: step.ty(r) }).collect();
    let graph = Graph {
        calls: Vec::new(),
        family: Family::Recursive,
        inputs: Vec::new(),
        params,
        states,
        admit: Region::default(),
        step,
        outputs,
        halting: Halting::Never,
        max_steps: 1,
    };
    graph.check().expect("the regions fit");
    // No sublayer makes a number larger than 2 of numbers up to 2 (the norms' bound), however deep the nest: the sum of
    // the sizes of a row's weights is at most 0.6.
    let value = |p: usize, i: usize, row: usize| (((p * 31 + i * 17) % 23) as f32 / 16.0 - 0.7) * 0.8 / row as f32;
    let params = graph.params.iter().enumerate().map(|(p, param)| {
        let row = if param.shape.len() > 1 { *param.shape.last().expect("it has a shape") } else { 1 };
        (0..param.elements()).map(|i| value(p, i, row)).collect()
    });
    let params: Vec<Vec<f32>> = params.collect();
    Model::of_graph("test".into(), String::new(), graph, crate::models::TrainingRecord::default(), params)
}

#[test]
fn operators_without_a_kernel_are_named() {
    let params = vec![Param { name: "p".into(), shape: vec![4], role: Role::Buffer, start: Start::Constant(0.0) }];
    let ty = ValueType::float(2, 4);
    let mut r = RegionBuilder::new(&params, &[ty]);
    let out = r.op(op::Mul, &[r.arg(0), r.arg(0)]).expect("fits");
    let step = r.finish(&[out]);
    let states = vec![State { name: "z".into(), ty, init: Init::Vector(ParamId(0)) }];
    let model = graph_of(params, states, step);
    let refused = Native.load(&model, &options(Isa::Scalar, 1, 1)).err();
    assert!(matches!(refused, Some(BackendError::Unavailable(u)) if u.reason.contains("`mul`")));
}

/// What a random region is made of.
#[derive(Clone, Debug)]
enum Piece {
    Add(usize, usize, bool),
    Scale(usize),
    Norm(usize, bool),
    Linear(usize),
    Gated(usize, bool),
    Rejoin(usize),
    Repeat(Vec<usize>, usize, Vec<Piece>, Vec<usize>),
}

fn pieces(depth: u32) -> BoxedStrategy<Vec<Piece>> {
    let value = 0usize..64;
    let leaf = prop_oneof![
        3 => (value.clone(), value.clone(), any::<bool>()).prop_map(|(a, b, n)| Piece::Add(a, b, n)),
        1 => value.clone().prop_map(Piece::Scale),
        2 => (value.clone(), any::<bool>()).prop_map(|(a, b)| Piece::Norm(a, b)),
        2 => value.clone().prop_map(Piece::Linear),
        1 => (value.clone(), any::<bool>()).prop_map(|(a, b)| Piece::Gated(a, b)),
        1 => value.clone().prop_map(Piece::Rejoin),
    ];
    let piece = if depth == 0 {
        leaf.boxed()
    } else {
        let values = || prop::collection::vec(0usize..64, 1..4);
        let repeat =
            (values(), 0usize..4, pieces(depth - 1), values()).prop_map(|(i, c, b, r)| Piece::Repeat(i, c, b, r));
        prop_oneof![4 => leaf, 2 => repeat].boxed()
    };
    prop::collection::vec(piece, 1..7).boxed()
}

const TOKENS: usize = 3;
const FEATURES: usize = 4;

/// Adds the pieces; numbers are taken modulo the values there are. All values have one type, so any may feed any.
fn build(r: &mut RegionBuilder, values: &mut Vec<ValueId>, pieces: &[Piece]) {
    let p = ParamId;
    let axis = |tokens: bool| if tokens { Axis::Tokens } else { Axis::Features };
    for piece in pieces {
        let v = |i: usize| values[i % values.len()];
        let new = match piece {
            Piece::Add(a, b, true) => {
                let sum = r.op(op::Add, &[v(*a), v(*b)]).expect("fits");
                r.ops(op::RmsNorm { gain: None, eps: 1e-2, over: Axis::Features }, &[sum])
            }
            Piece::Add(a, b, false) => {
                let halves = [*a, *b].map(|i| r.op(op::Scale(0.5), &[v(i)]).expect("fits"));
                r.ops(op::Add, &halves)
            }
            Piece::Scale(a) => r.ops(op::Scale(0.5), &[v(*a)]),
            Piece::Norm(a, tokens) => r.ops(op::RmsNorm { gain: None, eps: 1e-2, over: axis(*tokens) }, &[v(*a)]),
            Piece::Linear(a) => r.ops(op::Linear { weight: p(0), bias: Some(p(1)) }, &[v(*a)]),
            Piece::Gated(a, tokens) => {
                let (gate_up, down) = if *tokens { (p(2), p(3)) } else { (p(4), p(5)) };
                r.ops(op::GatedMlp { gate_up, down, act: Activation::Silu, over: axis(*tokens) }, &[v(*a)])
            }
            Piece::Rejoin(a) => {
                let head = r.op(op::Slice { start: 0, len: 1 }, &[v(*a)]).expect("fits");
                let tail = r.op(op::Slice { start: 1, len: TOKENS - 1 }, &[v(*a)]).expect("fits");
                r.ops(op::Concat, &[tail, head])
            }
            Piece::Repeat(inputs, carried, pieces, results) => {
                let inputs: Vec<ValueId> = inputs.iter().map(|&i| v(i)).collect();
                let carried = carried % inputs.len() + 1;
                let mut body = r.body(&vec![ValueType::float(TOKENS, FEATURES); inputs.len()]);
                let mut inner: Vec<ValueId> = (0..inputs.len()).map(|i| body.arg(i)).collect();
                build(&mut body, &mut inner, pieces);
                // late values first, so that the pieces matter
                let pick = |i: usize| inner[inner.len() - 1 - results[i % results.len()] % inner.len()];
                let results: Vec<ValueId> = (0..carried).map(pick).collect();
                let body = Box::new(body.finish(&results));
                r.ops(op::Repeat { times: 2, carried, body, last_gradient_only: false }, &inputs)
            }
        };
        values.extend(new.expect("all values have one type"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any graph of any nesting, with arguments passed through, swapped, doubled and dropped: buffers never get mixed up.
    #[test]
    fn plans_compute_what_their_graph_says(pieces in pieces(2), results in prop::collection::vec(0usize..64, 4)) {
        let shapes: [&[usize]; 8] = [&[4, 4], &[4], &[10, 3], &[3, 5], &[12, 4], &[4, 6], &[4], &[4]];
        let params: Vec<Param> = shapes
            .iter()
            .map(|s| Param { name: "p".into(), shape: s.to_vec(), role: Role::Weight, start: Start::Constant(0.0) })
            .collect();
        let ty = ValueType::float(TOKENS, FEATURES);
        let mut r = RegionBuilder::new(&params, &[ty; 2]);
        let mut values = vec![r.arg(0), r.arg(1)];
        build(&mut r, &mut values, &pieces);
        let results: Vec<ValueId> = results.iter().map(|i| values[values.len() - 1 - i % values.len()]).collect();
        let step = r.finish(&results);
        let state = |i| State { name: "z".into(), ty, init: Init::Vector(ParamId(i)) };
        let model = graph_of(params, vec![state(6), state(7)], step);
        let mut engine = engine(&model, Isa::detect(), 1, 2);
        engine.admit(0, 2, &[]).expect("admits");
        let n = TOKENS * FEATURES;
        let start: Vec<f32> = (0..2 * n).map(|i| (i % 13) as f32 / 8.0 - 0.75).collect();
        engine.set_state(0, 2, &start).expect("fits");
        let mut args: Vec<Tensor> = (0..2)
            .map(|i| engine.state(i, 2).expect("a state"))
            .map(|v| Tensor { data: v.into_iter().map(f64::from).collect(), tokens: TOKENS, features: FEATURES })
            .collect();
        let interpreter = Interpreter::new(model.graph().unwrap(), &model.params);
        for _ in 0..2 {
            engine.step(2).expect("steps");
            let want = interpreter.run(&model.graph().unwrap().step, args.clone(), 2);
            for (i, want) in want.iter().enumerate() {
                let got = if i < 2 { engine.state(i, 2).expect("a state") } else { engine.output(i - 2).to_vec() };
                let largest = want.data.iter().fold(0.05, |m: f64, v| m.max(v.abs()));
                prop_assert!(largest <= 4.0, "the test's own numbers grow: result {i} is {:?}", want.data);
                for (g, w) in got.iter().zip(&want.data) {
                    prop_assert!((f64::from(*g) - w).abs() <= 1e-3 * largest, "result {i}: {got:?}, not {:?}", want.data);
                }
            }
            // go on from the same numbers, so that errors do not grow
            args.clone_from_slice(&want[..2]);
            for (i, arg) in args.iter_mut().enumerate() {
                let rounded: Vec<f32> = arg.data.iter().map(|v| *v as f32).collect();
                engine.set_state(i, 2, &rounded).expect("fits");
                arg.data = rounded.into_iter().map(f64::from).collect();
            }
        }
    }
}
