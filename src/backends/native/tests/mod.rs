//! The native backend against recorded vectors and the interpreter, on every instruction set and thread count; what must not change a bit.

use std::path::Path;

use serde_json::{Value, json};

use super::execute::Instruction;
use super::*;
use crate::backends::session::{Rule, Session};
use crate::parity::{Vectors, error};

mod plans;
mod speed;

const TOLERANCE: f64 = 1e-4;

fn options(isa: Isa, threads: usize, capacity: usize) -> Options {
    let extra = BTreeMap::from([("isa".to_string(), isa.to_string())]);
    Options { precision: "f32".into(), threads, capacity, extra, file: None, language: false }
}

fn engine(model: &Model, isa: Isa, threads: usize, capacity: usize) -> NativeEngine {
    engine_in("f32", model, isa, threads, capacity)
}

fn engine_in(precision: &str, model: &Model, isa: Isa, threads: usize, capacity: usize) -> NativeEngine {
    let options = Options { precision: precision.into(), ..options(isa, threads, capacity) };
    NativeEngine::load(model, &options).expect("the model is supported")
}

fn session(model: &Model, isa: Isa, threads: usize, capacity: usize) -> Session {
    Session::new(Box::new(engine(model, isa, threads, capacity)), &model.interface, capacity).unwrap()
}

/// Every instruction set of this machine with one and two threads.
fn everywhere() -> impl Iterator<Item = (Isa, usize)> {
    Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)])
}

fn trm(hidden: usize, seq: usize, changes: Value) -> Value {
    let mut config = json!({"model_type": "trm", "seq_len": seq, "vocab_size": 7, "hidden_size": hidden, "num_heads": 2, "expansion": 2.0,
        "H_cycles": 2, "L_cycles": 2, "L_layers": 1, "pos_encodings": "rope", "puzzle_emb_ndim": hidden + 1, "num_puzzle_identifiers": 3});
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn small_nets() -> Vec<Value> {
    let encoder = |changes: Value| trm(12, 9, changes);
    vec![
        trm(20, 5, json!({})),
        trm(18, 7, json!({"mlp_t": true, "pos_encodings": "none"})),
        trm(6, 11, json!({"pos_encodings": "learned", "num_heads": 3, "L_layers": 2, "H_cycles": 1})),
        trm(33, 3, json!({"mlp_t": true, "puzzle_emb_ndim": 0, "pos_encodings": "learned"})),
        trm(16, 4, json!({"model_type": "hrm", "H_layers": 2})),
        trm(20, 6, json!({"model_type": "looped", "num_layers": 2, "loops": 3})),
        trm(
            9,
            5,
            json!({"model_type": "looped", "num_layers": 1, "mlp_t": true, "puzzle_emb_ndim": 0, "pos_encodings": "learned"}),
        ),
        encoder(json!({"model_type": "encoder", "num_layers": 2})),
        encoder(json!({"model_type": "encoder", "num_layers": 1, "pos_encodings": "learned", "mlp_t": true})),
        encoder(moe(5, 2, 2)),
        encoder(moe(3, 3, 1)),
        encoder(moe(7, 1, 1)),
    ]
}

fn moe(experts: usize, top_k: usize, layers: usize) -> Value {
    json!({"model_type": "moe-encoder", "num_layers": layers, "num_experts": experts, "experts_per_token": top_k, "expert_inner": 24})
}

#[test]
fn only_routed_experts_are_computed_and_counted() {
    let model = Model::random(&trm(12, 9, moe(6, 2, 1)), 5).expect("a net");
    let mut engine = engine(&model, Isa::Scalar, 1, 4);
    let given = inputs(&model, 4);
    engine.admit(0, 4, &views(&given)).expect("admits");
    engine.watch_routing(true);
    engine.step(4).expect("steps");
    let routing = engine.routing().expect("it can see");
    let tokens = 4 * model.graph().unwrap().step.types[0].tokens_at(0);
    assert_eq!(routing.len(), 1);
    assert_eq!(routing[0].load.iter().sum::<u64>(), 2 * tokens as u64, "every token goes to two experts");
    assert!((routing[0].probability.iter().sum::<f64>() - tokens as f64).abs() < 1e-6);
    engine.watch_routing(false);
    engine.step(4).expect("steps");
    assert!(engine.routing().is_none());
    // all six experts would be three times the products of the two
    let executed = engine.flops_executed(1).expect("it knows");
    let model_flops = model.graph().unwrap().cost(&crate::graph::cost::Workload::one()).flops_steps;
    assert!(
        (executed / model_flops - 1.0).abs() < 1e-9,
        "the scalar reference pads nothing: {executed}, {model_flops}"
    );
    let all =
        crate::onnx::export(model.graph().unwrap(), &model.params, &crate::onnx::Form::default()).expect("a file");
    let routed = crate::onnx::Form { experts: crate::onnx::ExpertForm::Routed, ..Default::default() };
    let routed = crate::onnx::export(model.graph().unwrap(), &model.params, &routed).expect("a file");
    assert!(all.flops_per_row > 1.3 * routed.flops_per_row, "{} {}", all.flops_per_row, routed.flops_per_row);
    assert!((routed.flops_per_row / executed - 1.0).abs() < 1e-9);
}

/// Distinct inputs for `n` rows, in the order of the graph's inputs.
fn inputs(model: &Model, n: usize) -> Vec<Vec<u32>> {
    let make = |i: &crate::graph::Input| {
        (0..n * i.ty.elements()).map(|e| ((e * 7 + e / 5 + 1) % i.rows) as u32).collect::<Vec<u32>>()
    };
    model.graph().unwrap().inputs.iter().map(make).collect()
}

fn views(inputs: &[Vec<u32>]) -> Vec<&[u32]> {
    inputs.iter().map(|v| &v[..]).collect()
}

/// The vectors as if recording had ended after `n` steps.
fn first_steps(mut vectors: Vectors, n: usize) -> Vectors {
    vectors.steps.truncate(n);
    vectors.first_halt.iter_mut().flatten().for_each(|halt| *halt = (*halt).min(n as u32 + 1));
    vectors
}

/// Checks all rows and so many steps of a golden net on an instruction set and number of threads; gives the number of rows that halted.
fn meets_golden_vectors(name: &str, isa: Isa, threads: usize, steps: usize) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let model = Model::load(&folder).expect("a golden model");
    let interface = &model.interface;
    let all = Vectors::read(&folder.join("vectors.safetensors"), interface).expect("golden vectors");
    let vectors = first_steps(all, steps);
    let recorded = vectors.first_halt.clone().expect("golden vectors record halting");
    let what = format!("{name}, {isa}, {threads} threads");
    let mut session = session(&model, isa, threads, vectors.batch);
    let step_by_step = vectors.step_by_step(&mut session, interface).expect("runs");
    for (k, want) in vectors.steps.iter().enumerate() {
        let e = step_by_step[k].error(want);
        assert!(e <= TOLERANCE, "{what}, step {}: {e}", k + 1);
    }
    let (used, dropped) = vectors.halting_run(&mut session, interface).expect("runs");
    session.keep_halted_rows();
    let (kept_used, kept) = vectors.halting_run(&mut session, interface).expect("runs");
    assert_eq!(used, recorded, "{what}");
    assert_eq!(kept_used, recorded, "{what}");
    assert_eq!(dropped, kept, "{what}: dropping rows must not change a bit");
    for (row, logits) in dropped.iter().enumerate() {
        let e = error(logits, vectors.row(recorded[row].min(steps as u32), row));
        assert!(e <= TOLERANCE, "{what}, row {row} of the free run: {e}");
    }
    used.iter().filter(|&&halt| halt <= steps as u32).count()
}

/// Steps of a golden net worth testing: plain code is slow, and its first step has every operator in every place.
fn steps_on(isa: Isa, most: usize) -> usize {
    if isa == Isa::Scalar { 1 } else { most }
}

/// All rows and steps of a net on every instruction set, with one and two threads where it is fast; plain code has two, which change no bit.
fn meets_golden_vectors_everywhere(name: &str) {
    for (isa, threads) in everywhere().filter(|&at| at != (Isa::Scalar, 1)) {
        let steps = steps_on(isa, 4);
        let halted = meets_golden_vectors(name, isa, threads, steps);
        // the recorded ones: one row of each net is to go on
        assert!(steps < 4 || halted == 5, "{name}, {isa}, {threads} threads: {halted} halted rows");
    }
}

#[test]
fn golden_vectors_are_met_by_trm_with_attention() {
    meets_golden_vectors_everywhere("trm-att-d64");
}

#[test]
fn golden_vectors_are_met_by_trm_with_token_mixing() {
    meets_golden_vectors_everywhere("trm-mlp-d64");
}

#[test]
fn golden_vectors_are_met_by_hrm() {
    meets_golden_vectors_everywhere("hrm-d64");
}

#[test]
fn every_family_agrees_with_the_reference() {
    for (seed, config) in small_nets().into_iter().enumerate() {
        let model = Model::random(&config, seed as u64).expect("a small net");
        let rows = 3;
        let given = inputs(&model, rows);
        let reference_options = Options {
            precision: "f64".into(),
            threads: 1,
            capacity: rows,
            extra: BTreeMap::new(),
            file: None,
            language: false,
        };
        let reference = super::super::reference::Reference.load(&model, &reference_options).expect("loads");
        let mut reference = Session::new(reference, &model.interface, rows).unwrap();
        let mut sessions: Vec<_> = everywhere().map(|(isa, t)| (isa, t, session(&model, isa, t, rows))).collect();
        reference.admit(&[0, 1, 2], &views(&given)).expect("admits");
        for (.., session) in &mut sessions {
            session.admit(&[0, 1, 2], &views(&given)).expect("admits");
        }
        for step in 1..=model.graph().unwrap().max_steps.min(2) {
            reference.advance(1, Rule::Fixed).expect("steps");
            for (isa, threads, session) in &mut sessions {
                session.advance(1, Rule::Fixed).expect("steps");
                for output in 0..model.graph().unwrap().outputs.len() {
                    for row in 0..rows {
                        let e = error(session.output(output, row), reference.output(output, row));
                        assert!(
                            e <= TOLERANCE,
                            "{config}, {isa}, {threads} threads, step {step}, output {output}, row {row}: {e}"
                        );
                    }
                }
            }
        }
    }
}

/// bf16 and int8 of the golden nets, step by step from the recorded state, on every instruction set: within the tolerance of reduced precisions.
#[test]
fn reduced_precisions_meet_the_golden_vectors() {
    for name in ["trm-att-d64", "trm-mlp-d64", "hrm-d64"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let model = Model::load(&folder).expect("a golden model");
        let all = Vectors::read(&folder.join("vectors.safetensors"), &model.interface).expect("golden vectors");
        for isa in Isa::available() {
            let vectors = first_steps(all.clone(), steps_on(isa, 2));
            for precision in ["bf16", "int8"] {
                let engine = engine_in(precision, &model, isa, 2, vectors.batch);
                let mut session = Session::new(Box::new(engine), &model.interface, vectors.batch).unwrap();
                let steps = vectors.step_by_step(&mut session, &model.interface).expect("runs");
                let errors = steps.iter().zip(&vectors.steps).map(|(step, want)| step.error(want));
                let worst = errors.fold(0.0, f64::max);
                println!("{name} {isa} {precision}: {worst:.4}");
                assert!(worst > 1e-5, "{name}, {isa}, {precision}: {worst} is too good to be rounded");
                let limit = ergometer_reports::precision::Precision::of(precision).tolerance.limit;
                assert!(worst <= limit, "{name}, {isa}, {precision}: {worst}");
            }
        }
    }
}

/// States and outputs of one row after `steps` steps in a batch of these rows.
fn bits(model: &Model, isa: Isa, threads: usize, order: &[usize], steps: usize) -> Vec<Vec<u32>> {
    bits_in("f32", model, isa, threads, order, steps)
}

fn bits_in(precision: &str, model: &Model, isa: Isa, threads: usize, order: &[usize], steps: usize) -> Vec<Vec<u32>> {
    let all = inputs(model, 6);
    let pick = |i: usize| {
        let n = model.graph().unwrap().inputs[i].ty.elements();
        order.iter().flat_map(|&row| all[i][row * n..(row + 1) * n].to_vec()).collect::<Vec<u32>>()
    };
    let given: Vec<Vec<u32>> = (0..all.len()).map(pick).collect();
    let mut engine = engine_in(precision, model, isa, threads, order.len());
    engine.admit(0, order.len(), &views(&given)).expect("admits");
    (0..steps).for_each(|_| engine.step(order.len()).expect("steps"));
    let states = (0..model.graph().unwrap().states.len()).map(|i| engine.state(i, order.len()).expect("a state"));
    let values: Vec<Vec<f32>> =
        states.chain((0..model.graph().unwrap().outputs.len()).map(|i| engine.output(i).to_vec())).collect();
    let row = |row: usize| {
        let of = |v: &Vec<f32>| v[row * v.len() / order.len()..(row + 1) * v.len() / order.len()].to_vec();
        values.iter().flat_map(of).map(f32::to_bits).collect()
    };
    (0..order.len()).map(row).collect()
}

#[test]
fn batch_place_and_threads_change_no_bit() {
    // wide enough that the kernels split the work
    let wide = trm(96, 30, json!({"mlp_t": true, "pos_encodings": "none"}));
    for config in small_nets().into_iter().chain([wide]) {
        let model = Model::random(&config, 9).expect("a net");
        for (isa, precision) in Isa::available().into_iter().flat_map(|isa| ["f32", "bf16", "int8"].map(|p| (isa, p))) {
            let of = |threads: usize, order: &[usize]| bits_in(precision, &model, isa, threads, order, 2);
            let together = of(1, &[0, 1, 2, 3, 4, 5]);
            assert_eq!(together, of(2, &[0, 1, 2, 3, 4, 5]), "{config}, {isa} {precision}: threads");
            let order = [4, 0, 5, 3, 1, 2];
            let moved = of(2, &order);
            for (place, &row) in order.iter().enumerate() {
                assert_eq!(moved[place], together[row], "{config}, {isa} {precision}: row {row} at {place}");
            }
            for row in [0, 5] {
                assert_eq!(of(2, &[row])[0], together[row], "{config}, {isa} {precision}: row {row} alone");
            }
        }
    }
}

#[test]
fn kept_rows_go_on_as_if_nothing_had_been_dropped_and_freed_ones_can_be_filled() {
    let model = Model::random(&small_nets()[0], 4).expect("a net");
    let given = inputs(&model, 6);
    let (mut whole, mut cut) = (engine(&model, Isa::detect(), 2, 6), engine(&model, Isa::detect(), 2, 6));
    for engine in [&mut whole, &mut cut] {
        engine.admit(0, 6, &views(&given)).expect("admits");
        engine.step(6).expect("steps");
    }
    cut.keep(&[1, 4]).expect("keeps");
    let first: Vec<&[u32]> =
        given.iter().zip(&model.graph().unwrap().inputs).map(|(v, i)| &v[..i.ty.elements()]).collect();
    cut.admit(2, 1, &first).expect("admits a row behind the kept ones");
    whole.step(6).expect("steps");
    cut.step(3).expect("steps");
    let n = model.graph().unwrap().outputs[0].ty.elements();
    assert_eq!(cut.output(0)[..n], whole.output(0)[n..2 * n]);
    assert_eq!(cut.output(0)[n..2 * n], whole.output(0)[4 * n..5 * n]);
    let alone = bits(&model, Isa::detect(), 1, &[0], 1);
    let logits: Vec<u32> = cut.output(0)[2 * n..].iter().map(|v| v.to_bits()).collect();
    let states: usize = model.graph().unwrap().states.iter().map(|s| s.ty.elements()).sum();
    assert_eq!(logits, alone[0][states..states + n]);
    let state = whole.state(1, 6).expect("a state");
    whole.set_state(1, 6, &state).expect("the same state");
    assert_eq!(whole.state(1, 6).expect("a state"), state);
}

#[test]
fn memory_never_moves_after_loading_and_shared_weights_are_packed_once() {
    let config = small_nets()[0].clone();
    let model = Model::random(&config, 1).expect("a net");
    let mut engine = engine(&model, Isa::detect(), 1, 4);
    let before = engine.memory.addresses();
    let given = inputs(&model, 4);
    for _ in 0..2 {
        engine.admit(0, 4, &views(&given)).expect("admits");
        engine.step(4).expect("steps");
        engine.keep(&[2, 3]).expect("keeps");
        engine.step(2).expect("steps");
    }
    assert_eq!(engine.memory.addresses(), before);
    // alive at once at the widest place: z_H, z_L, x, the injected sum, and what is attended (queries, keys and values stay in threads' scratch memory); the outputs; alignment
    let [tokens, hidden] = [model.graph().unwrap().states[0].ty.tokens_at(0), 20];
    let outputs: usize = model.graph().unwrap().outputs.iter().map(|o| o.ty.elements()).sum();
    let least = 4 * 4 * (tokens * (4 + 1) * hidden + outputs);
    let bytes = engine.memory.bytes();
    assert!(bytes >= least && bytes * 10 <= least * 12, "{bytes}, least {least}");
    let said = [("buffer_bytes", bytes), ("buffer_bytes_least", least)];
    assert_eq!(engine.report(), said.map(|(name, n)| (name.to_string(), n.to_string())).into());
    // out, gate_up, down of the one layer, and two heads: however often they are applied; and the queries, keys and values
    assert_eq!((engine.weights.linear.len(), engine.weights.heads.len()), (5, 1));
    let elements: usize = model.graph().unwrap().params.iter().map(|p| p.elements()).sum();
    assert!(engine.facts().weight_bytes as usize >= 4 * elements);
    // z_H, z_L and x of four rows
    assert_eq!(engine.facts().state_bytes as usize, 4 * 3 * 4 * model.graph().unwrap().states[0].ty.elements());
}

#[test]
fn no_plan_is_smaller_than_its_values() {
    for config in small_nets() {
        let model = Model::random(&config, 1).expect("a net");
        let engine = engine(&model, Isa::detect(), 1, 16);
        let (least, buffers) = (engine.plan.least, engine.plan.sizes.iter().sum::<usize>());
        // what stays, and at least one value more
        let stays = engine.plan.states.iter().chain(&engine.plan.residents).chain(&engine.plan.outputs);
        assert!(stays.map(|at| at.len).sum::<usize>() < least, "{config}");
        assert!(least <= buffers && buffers <= 2 * least, "{config}: {buffers} elements per row, least {least}");
    }
}

#[test]
fn additions_join_norms_and_states_are_updated_where_they_are() {
    let model = Model::random(&small_nets()[0], 1).expect("a net");
    let engine = engine(&model, Isa::detect(), 1, 1);
    let names: Vec<&str> = engine.plan.step.iter().map(Instruction::name).collect();
    let block = ["project_attend", "linear_norm", "gated_mlp"];
    // the z_H + x of a cycle, the repeated z_L + (z_H + x) and its net, then z_H + z_L and its net, then the heads: nothing else
    let cycle =
        [&["repeat", "add", "repeat", "add"][..], &block, &["add"], &block, &["copy", "linear", "copy", "linear"]];
    assert_eq!(names, cycle.concat());
}

/// The cost that the model declares; padding shows exactly where the kernels pad (whose tests count what they make).
#[test]
fn flops_executed_are_the_graph_s_and_the_padding() {
    let net = trm(20, 5, json!({"puzzle_emb_ndim": 0}));
    let mixing = trm(20, 5, json!({"puzzle_emb_ndim": 0, "mlp_t": true, "pos_encodings": "none"}));
    for config in [net, mixing] {
        let model = Model::random(&config, 1).expect("a net");
        let cost = model.graph().unwrap().cost(&crate::graph::cost::Workload::one());
        for (isa, threads) in everywhere() {
            let engine = engine(&model, isa, threads, 3);
            let said = engine.flops_executed(3).expect("native can say");
            let exact = 3.0 * cost.flops_steps;
            assert!(if isa == Isa::Scalar { said == exact } else { said > exact }, "{isa}: {said} of {exact}");

            // a session adds up what its engine says: admission, then three rows and, after one is let go, two
            let mut session = session(&model, isa, threads, 3);
            let given = inputs(&model, 3);
            session.admit(&[0, 1, 2], &views(&given)).expect("admits");
            session.advance(2, Rule::Fixed).expect("steps");
            session.retain(&[0, 2]).expect("keeps");
            session.advance(1, Rule::Fixed).expect("steps");
            let admitted = engine.flops_admitted(3).expect("native can say");
            assert_eq!(session.flops_executed(), Some(admitted + said * (2.0 + 2.0 / 3.0)), "{config}, {isa}");
        }
        let options = Options {
            precision: "f64".into(),
            threads: 1,
            capacity: 2,
            extra: BTreeMap::new(),
            file: None,
            language: false,
        };
        let reference = super::super::reference::Reference.load(&model, &options).expect("loads");
        assert_eq!(reference.flops_executed(2), Some(2.0 * cost.flops_steps));
        assert_eq!(reference.flops_admitted(2), Some(2.0 * cost.flops_admit));
    }
}

#[test]
fn wrong_requests_are_refused() {
    let model = Model::random(&small_nets()[0], 1).expect("a net");
    let fails = |options: Options| Native.load(&model, &options).err().expect("must be refused").to_string();
    let good = options(Isa::Scalar, 1, 2);
    let mut other = good.clone();
    other.extra.insert("tiles".into(), "4".into());
    assert!(fails(other).contains("no option `tiles`"));
    let mut other = good.clone();
    other.extra.insert("isa".into(), "avx3".into());
    let text = fails(other);
    assert!(text.contains("`avx3`") && text.contains("hint: use one of scalar"), "{text}");
    assert!(fails(Options { precision: "f16".into(), ..good.clone() }).contains("f32, bf16, int8, not in f16"));
    assert!(fails(Options { threads: 0, ..good.clone() }).contains("0 threads"));
    assert!(fails(Options { capacity: usize::MAX / 8, ..good.clone() }).contains("no memory"));
    let described = Native.describe(&good).expect("describes");
    assert_eq!((described.isa.as_str(), described.shapes), ("scalar", "static"));
    assert_eq!(described.options, BTreeMap::from([("isa".into(), "scalar".into())]));
    assert!(Native.probe().expect("is there")["isas_available"].starts_with("scalar"));

    let mut engine = engine(&model, Isa::Scalar, 1, 2);
    let given = inputs(&model, 3);
    assert!(engine.admit(0, 3, &views(&given)).is_err());
    assert!(engine.admit(usize::MAX, 1, &views(&given)).is_err());
    assert!(engine.admit(0, 2, &views(&given)).is_err());
    assert!(engine.admit(0, 1, &[&[99; 5], &[0]]).is_err());
    assert!(engine.step(3).is_err() && engine.state(0, 3).is_err() && engine.set_state(0, 1, &[0.0]).is_err());
    assert!(engine.keep(&[1, 0]).is_err() && engine.keep(&[2]).is_err());
}
