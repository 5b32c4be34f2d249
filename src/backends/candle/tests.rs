//! The candle lowering against the recorded vectors, the reference interpreter and finite differences.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use safetensors::SafeTensors;
use serde_json::json;

use super::*;
use crate::backends::native::Native;
use crate::backends::reference::Reference;
use crate::backends::session::{Rule, Session};
use crate::graph::{Activation, Attention, Axis, Family, Graph, Halting, Input, Op, Output, Param, RegionBuilder, op};
use crate::graph::{ParamId, Role, Rope, Start, ValueType};
use crate::models::{TrainingRecord, to_f32};

fn options(capacity: usize) -> Options {
    Options { precision: "f32".into(), threads: 1, capacity, extra: BTreeMap::new(), file: None, language: false }
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

struct Vectors(Vec<u8>);

impl Vectors {
    fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        to_f32(view.dtype(), view.data()).unwrap()
    }

    fn whole(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    fn steps(&self) -> u32 {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().iter().filter(|n| n.starts_with("logits.")).count() as u32
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let error = got.iter().zip(want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error <= tolerance * largest(want), "{what}: error {error} of {}", largest(want));
}

#[test]
fn it_cannot_say_what_it_executes() {
    let model = Model::load(&folder("hrm-d64")).unwrap();
    let vectors = Vectors(std::fs::read(folder("hrm-d64").join("vectors.safetensors")).unwrap());
    let (inputs, ids) = (vectors.whole("inputs"), vectors.whole("puzzle_identifiers"));
    let mut session = Session::new(Candle.load(&model, &options(1)).unwrap(), &model.interface, 1).unwrap();
    session.admit(&[0], &[&inputs[..inputs.len() / ids.len()], &ids[..1]]).unwrap();
    session.advance(1, Rule::Fixed).unwrap();
    assert_eq!(session.flops_executed(), None, "unknown is not the model's cost");
}

#[test]
fn golden_vectors_step_by_step_and_with_halted_rows_dropped() {
    for name in ["trm-att-d64", "trm-mlp-d64", "hrm-d64"] {
        let model = Model::load(&folder(name)).unwrap();
        let vectors = Vectors(std::fs::read(folder(name).join("vectors.safetensors")).unwrap());
        let (inputs, ids, halts) =
            (vectors.whole("inputs"), vectors.whole("puzzle_identifiers"), vectors.whole("first_halt"));
        let rows = ids.len();
        let n = inputs.len() / rows;
        let slots: Vec<usize> = (0..rows).collect();
        let session = || {
            let engine = Candle.load(&model, &options(rows)).unwrap();
            let mut session = Session::new(engine, &model.interface, rows).unwrap();
            session.admit(&slots, &[&inputs, &ids]).unwrap();
            session
        };
        assert_eq!(inputs.len(), rows * n);
        let recorded = |step: u32, slot: usize| {
            let logits = vectors.floats(&format!("logits.{step}"));
            let len = logits.len() / rows;
            logits[slot * len..(slot + 1) * len].to_vec()
        };
        let mut all = session();
        for step in 1..=vectors.steps() {
            all.advance(1, Rule::Fixed).unwrap();
            for &slot in &slots {
                assert_close(all.output(0, slot), &recorded(step, slot), 1e-4, &format!("{name} step {step}"));
            }
        }
        let mut halting = session();
        halting.advance(vectors.steps(), Rule::Halt).unwrap();
        for &slot in &slots {
            let state = halting.slot(slot);
            let first = if state.halted { state.steps } else { vectors.steps() + 1 };
            assert_eq!(first, halts[slot], "{name}: halting step of row {slot}");
            let step = first.min(vectors.steps());
            assert_close(halting.output(0, slot), &recorded(step, slot), 1e-4, &format!("{name} halted row {slot}"));
        }
    }
}

// Over 80 lines: one line or two for each operator of one graph.
/// A graph that holds every lowered operator, some with both axes, grouped heads, a causal window, biases and gains.
fn every_operator() -> Model {
    let (t, d) = (6, 8);
    let mut params: Vec<Param> = Vec::new();
    let mut add = |shape: &[usize]| {
        params.push(Param {
            name: format!("p{}", params.len()),
            shape: shape.to_vec(),
            role: Role::Weight,
            start: Start::Normal(0.4),
        });
        ParamId(params.len() - 1)
    };
    let (table, prefix, positions) = (add(&[5, d]), add(&[3, 5]), add(&[t, d]));
    let (qkv, bias, down, up) = (add(&[16, d]), add(&[16]), add(&[d, 12]), add(&[24, d]));
    let (t_up, t_down, gain, t_gain) = (add(&[10, t]), add(&[t, 5]), add(&[d]), add(&[t]));
    let (m_up, m_bias, m_down, m_down_bias) = (add(&[7, d]), add(&[7]), add(&[d, 7]), add(&[d]));
    let types = [ValueType::index(t - 1), ValueType::index(1)];
    let mut r = RegionBuilder::new(&params, &types);
    let x = r.op(op::Embed { table }, &[r.arg(0)]).unwrap();
    let p = r.op(op::EmbedPrefix { table: prefix, positions: 1, features: d }, &[r.arg(1)]).unwrap();
    let x = r.op(op::Concat, &[p, x]).unwrap();
    let x = r.op(op::AddPositions { table: positions, cache: false }, &[x]).unwrap();
    let x = r.op(op::Scale(1.5), &[x]).unwrap();
    let admit = r.finish(&[x]);

    let value = ValueType::float(t, d);
    let mut r = RegionBuilder::new(&params, &[value]);
    let body = {
        let mut b = r.body(&[value, value]);
        let (z, x) = (b.arg(0), b.arg(1));
        let q = b.op(op::Linear { weight: qkv, bias: Some(bias) }, &[z]).unwrap();
        let attention = |causal, window, rope| Attention {
            heads: 4,
            kv_heads: 2,
            head_dim: 2,
            scale: 0.7,
            causal,
            window,
            rope,
            head_norms: None,
            soft_cap: None,
            cache: false,
        };
        let a = b.op(attention(true, Some(3), Some(Rope::plain(100.0))), &[q]).unwrap();
        let c = b.op(attention(false, None, None), &[q]).unwrap();
        let s = b.op(op::Add, &[a, x]).unwrap();
        let s = b.op(op::Mul, &[s, c]).unwrap();
        let s = b.op(op::Add, &[s, z]).unwrap();
        let s = b.op(op::RmsNorm { gain: Some(gain), eps: 1e-5, over: Axis::Features }, &[s]).unwrap();
        let gate = |over, gate_up, down, act| Op::GatedMlp(op::GatedMlp { gate_up, down, act, over });
        let g = b.op(gate(Axis::Features, up, down, Activation::Silu), &[s]).unwrap();
        let s = b.op(op::Add, &[s, g]).unwrap();
        let g = b.op(gate(Axis::Features, up, down, Activation::Gelu), &[s]).unwrap();
        let s = b.op(op::LayerNorm { gain, bias: Some(m_down_bias), eps: 1e-5 }, &[g]).unwrap();
        let g = b.op(gate(Axis::Tokens, t_up, t_down, Activation::Silu), &[s]).unwrap();
        let s = b.op(op::Add, &[s, g]).unwrap();
        let s = b.op(op::RmsNorm { gain: Some(t_gain), eps: 1e-5, over: Axis::Tokens }, &[s]).unwrap();
        let g = b.op(gate(Axis::Tokens, t_up, t_down, Activation::GeluTanh), &[s]).unwrap();
        let s = b.op(op::Add, &[s, g]).unwrap();
        let mlp = Op::Mlp(op::Mlp {
            up: m_up,
            up_bias: Some(m_bias),
            down: m_down,
            down_bias: Some(m_down_bias),
            act: Activation::GeluTanh,
        });
        let m = b.op(mlp, &[s]).unwrap();
        let m = b.op(Activation::Relu, &[m]).unwrap();
        let s = b.op(op::Add, &[s, m]).unwrap();
        let s = b.op(op::RmsNorm { gain: None, eps: 1e-5, over: Axis::Features }, &[s]).unwrap();
        b.finish(&[s])
    };
    let x = r.arg(0);
    let repeat = Op::Repeat(op::Repeat { times: 2, carried: 1, body: Box::new(body), last_gradient_only: false });
    let s = r.ops(repeat, &[x, x]).unwrap()[0];
    let out = r.op(op::Slice { start: 1, len: 4 }, &[s]).unwrap();
    let step = r.finish(&[out]);
    let names = ["inputs", "puzzle_identifiers"];
    let input = |i: usize| Input { name: names[i].into(), ty: types[i], rows: [5, 3][i] };
    let graph = Graph {
        calls: Vec::new(),
        family: Family::Dense,
        inputs: vec![input(0), input(1)],
        params,
        states: vec![],
        admit,
        step,
        outputs: vec![Output { name: "logits".into(), ty: ValueType::float(4, d) }],
        halting: Halting::Never,
        max_steps: 1,
    };
    graph.check().unwrap();
    let values = graph.params.iter().enumerate().map(|(i, p)| {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(i as u64);
        (0..p.elements()).map(|_| rng.random::<f32>() * 1.6 - 0.8).collect::<Vec<f32>>()
    });
    let params = values.collect();
    Model::of_graph("every-operator".into(), String::new(), graph, TrainingRecord::default(), params)
}

const INPUTS: [u32; 15] = [0, 1, 2, 3, 4, 4, 3, 1, 0, 2, 2, 2, 1, 0, 4];

#[test]
fn every_operator_agrees_with_the_interpreter() {
    let model = every_operator();
    let outputs = [&Candle as &dyn Backend, &Reference].map(|backend| {
        let mut engine =
            backend.load(&model, &Options { precision: backend.precisions()[0].into(), ..options(3) }).unwrap();
        engine.admit(0, 3, &[&INPUTS, &[0, 2, 1]]).unwrap();
        engine.step(3).unwrap();
        engine.output(0).to_vec()
    });
    assert_close(&outputs[0], &outputs[1], 2e-5, "every operator");
}

#[test]
fn gradients_agree_with_finite_differences() {
    use candle_core::Var;
    let model = every_operator();
    let lowering = Lowering::new(model.graph().unwrap()).unwrap();
    let shapes = model.graph().unwrap().params.iter().zip(model.params.iter());
    let vars: Vec<Var> = shapes.map(|(p, v)| Var::from_slice(v, p.shape.as_slice(), &Device::Cpu).unwrap()).collect();
    let loss = || {
        let params: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let inputs = Tensor::from_slice(&INPUTS, (3, 5), &Device::Cpu).unwrap();
        let ids = Tensor::from_slice(&[0u32, 2, 1], (3, 1), &Device::Cpu).unwrap();
        let x = lowering.run(&model.graph().unwrap().admit, &params, vec![inputs, ids]).unwrap();
        let y = lowering.run(&model.graph().unwrap().step, &params, x).unwrap().remove(0);
        // a loss that no symmetry makes flat
        let weights: Vec<f32> = (0..y.elem_count()).map(|i| (i as f32 * 1.7).cos()).collect();
        let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu).unwrap();
        (y * weights).unwrap().sum_all().unwrap()
    };
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let grads = loss().backward().unwrap();
    for (i, var) in vars.iter().enumerate() {
        let shape = var.shape().clone();
        let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let grad = grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // along the gradient, where the difference is largest
        let norm = grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let at = |step: f64| {
            let moved: Vec<f32> =
                values.iter().zip(&grad).map(|(v, g)| v + (step * f64::from(*g) / norm) as f32).collect();
            var.set(&Tensor::from_vec(moved, shape.clone(), &Device::Cpu).unwrap()).unwrap();
            value()
        };
        let step = 2e-3;
        let slope = (at(step) - at(-step)) / (2.0 * step);
        at(0.0);
        assert!(norm > 1e-2, "parameter {i}: a gradient of {norm} tests nothing");
        assert!((slope / norm - 1.0).abs() < 0.02, "parameter {i}: slope {slope}, gradient {norm}");
    }
}

#[test]
fn only_the_last_cycle_is_differentiated() {
    // with one cycle nothing is left out, with two the first cycle must not reach the embedding through the states
    let config = |h: usize| {
        json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_heads": 2, "expansion": 1.0,
        "H_cycles": h, "L_cycles": 1, "L_layers": 1})
    };
    let recorded = |h: usize| {
        let model = Model::random(&config(h), 1).unwrap();
        let lowering = Lowering::new(model.graph().unwrap()).unwrap();
        let shapes = model.graph().unwrap().params.iter().zip(model.params.iter());
        let params: Vec<Tensor> = shapes
            .map(|(p, v)| candle_core::Var::from_slice(v, p.shape.as_slice(), &Device::Cpu).unwrap().into_inner())
            .collect();
        let inputs = Tensor::from_slice(&[0u32, 1, 2, 3], (1, 4), &Device::Cpu).unwrap();
        let x = lowering.run(&model.graph().unwrap().admit, &params, vec![inputs]).unwrap();
        let args = initial_states(&lowering, &params, 1).unwrap().into_iter().chain(x).collect();
        let results = lowering.run(&model.graph().unwrap().step, &params, args).unwrap();
        results[2].sum_all().unwrap().sorted_nodes().len()
    };
    assert_eq!(recorded(1), recorded(3), "earlier cycles record nothing");
}

#[test]
fn rows_come_and_go_without_touching_each_other() {
    let config = json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_heads": 2,
        "expansion": 1.0, "H_cycles": 2, "L_cycles": 2, "L_layers": 1});
    let model = Model::random(&config, 5).unwrap();
    let mut engine = Candle.load(&model, &options(3)).unwrap();
    let rows = [[0u32, 1, 2, 3], [4, 4, 1, 0], [2, 3, 0, 1]];
    engine.admit(0, 3, &[&rows.concat()]).unwrap();
    engine.step(3).unwrap();
    engine.keep(&[1]).unwrap();
    engine.admit(1, 1, &[&rows[0]]).unwrap();
    engine.step(2).unwrap();
    let mixed = engine.output(0).to_vec();
    for (row, steps, place) in [(1, 2, 0), (0, 1, 1)] {
        let mut alone = Candle.load(&model, &options(1)).unwrap();
        alone.admit(0, 1, &[&rows[row]]).unwrap();
        (0..steps).for_each(|_| alone.step(1).unwrap());
        let n = alone.output(0).len();
        assert_close(&mixed[place * n..(place + 1) * n], alone.output(0), 1e-5, "a row alone");
    }
    engine.keep(&[]).unwrap();
    engine.admit(0, 2, &[&rows[..2].concat()]).unwrap();
    let state = engine.state(0, 2).unwrap();
    engine.set_state(0, 1, &vec![0.5; state.len() / 2]).unwrap();
    assert_eq!(engine.state(0, 2).unwrap()[state.len() / 2..], state[state.len() / 2..]);
}

#[test]
fn mixtures_of_experts_agree_with_the_interpreter_and_count_what_native_counts() {
    for (experts, top_k) in [(5, 2), (3, 3), (7, 1)] {
        let config = json!({"model_type": "moe-encoder", "seq_len": 9, "vocab_size": 7, "hidden_size": 16, "num_layers": 2,
            "num_heads": 2, "expansion": 1.0, "pos_encodings": "rope", "num_experts": experts, "experts_per_token": top_k,
            "expert_inner": 12});
        let model = Model::random(&config, 3).unwrap();
        let tokens: Vec<u32> = (0..27).map(|i| (i * 5 + i / 4) % 7).collect();
        let native = Native.load(&model, &options(3)).unwrap();
        let reference = Options { precision: "f64".into(), ..options(3) };
        let reference = Reference.load(&model, &reference).unwrap();
        let mut engines = [reference, Candle.load(&model, &options(3)).unwrap(), native];
        for engine in &mut engines {
            engine.watch_routing(true);
            engine.admit(0, 3, &[&tokens]).unwrap();
            engine.step(3).unwrap();
        }
        let (judge, others) = engines.split_first().unwrap();
        for engine in others {
            assert_close(engine.output(0), judge.output(0), 1e-5, "a mixture");
        }
        let (candle, native) = (others[0].routing().unwrap(), others[1].routing().unwrap());
        assert_eq!(candle.len(), 2);
        for (a, b) in candle.iter().zip(&native) {
            assert_eq!(a.load, b.load);
            assert_eq!(a.load.iter().sum::<u64>(), 27 * top_k as u64);
            assert!(a.probability.iter().zip(&b.probability).all(|(a, b)| (a - b).abs() < 1e-3));
        }
    }
}

#[test]
fn what_is_not_lowered_is_unavailable_by_name() {
    let mut model = every_operator();
    for ty in &mut model.graph.as_mut().unwrap().step.types {
        ty.tokens = crate::graph::Tokens::Length;
    }
    let error = Candle.load(&model, &options(1)).err().expect("not lowered").to_string();
    assert!(error.contains("open length"), "{error}");
    let bf16 = Options { precision: "bf16".into(), ..options(1) };
    assert!(matches!(Candle.load(&every_operator(), &bf16), Err(BackendError::Unavailable(_))));
}

#[test]
fn recorded_versions_are_those_of_the_lock_file() {
    let lock = include_str!("../../../Cargo.lock");
    for (name, version) in VERSIONS {
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{name} {version}");
    }
}
