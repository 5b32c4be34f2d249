//! Exported files in tract, step by step against the interpreter, each step from the interpreter's state.

use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, TValue, TVec, Tensor, tvec};

use super::*;
use crate::graph::interpreter::Interpreter;
use crate::graph::tensor::Tensor as Values;
use crate::graph::{
    Activation, Attention, Axis, Family, Input, Kind, Output, Param, ParamId, RegionBuilder, Role, Rope, Start, State,
    ValueType, op,
};
use crate::parity;

const ROWS: usize = 2;

fn tensor(values: &Values, ty: ValueType) -> TValue {
    let whole = |v: &f64| *v as i64;
    match ty.kind {
        Kind::Index => {
            let data: Vec<i64> = values.data.iter().map(whole).collect();
            Tensor::from_shape(&[ROWS, values.tokens], &data).expect("a tensor").into()
        }
        Kind::Float => {
            let data: Vec<f32> = values.data.iter().map(|&v| v as f32).collect();
            Tensor::from_shape(&[ROWS, values.tokens, values.features], &data).expect("a tensor").into()
        }
    }
}

/// Runs `steps` steps in both, and holds tract to `1e-4` of the largest value of each output and state.
fn compare(what: &str, graph: &Graph, params: &[Vec<f32>], form: &Form, steps: usize) {
    let exported = export(graph, params, form).expect("it has every operator");
    let net = tract_onnx::onnx().model_for_read(&mut &exported.model[..]).expect("tract reads it");
    let net = net.into_optimized().expect("tract compiles it").into_runnable().expect("tract runs it");
    let interpreter = Interpreter::new(graph, params);
    let inputs: Vec<Values> = (graph.inputs.iter())
        .map(|i| {
            let tokens = i.ty.tokens_at(0);
            let index = |at: usize| ((at * 7 + at / 3) % i.rows) as f64;
            Values { data: (0..ROWS * tokens).map(index).collect(), tokens, features: 1 }
        })
        .collect();
    let mut states: Vec<Values> = (graph.states.iter())
        .map(|s| {
            let start = match s.init {
                Init::Vector(p) => params[p.0].clone(),
                Init::Zero | Init::Empty => vec![0.0; s.ty.features],
            };
            let tokens = s.ty.tokens_at(0);
            let data = (0..ROWS * tokens).flat_map(|_| start.iter().map(|&v| f64::from(v))).collect();
            Values { data, tokens, features: s.ty.features }
        })
        .collect();
    let residents = interpreter.run(&graph.admit, inputs.clone(), ROWS);
    for step in 1..=steps {
        let mut feed: TVec<TValue> = tvec!();
        feed.extend(inputs.iter().zip(&graph.inputs).map(|(v, i)| tensor(v, i.ty)));
        feed.extend(states.iter().zip(&graph.states).map(|(v, s)| tensor(v, s.ty)));
        let got = net.run(feed).expect("tract runs");
        let mut want = interpreter.run(&graph.step, [states.clone(), residents.clone()].concat(), ROWS);
        // the file gives outputs first
        want.rotate_left(graph.states.len());
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let got = got.cast_to::<f32>().expect("floats").into_owned();
            let got: Vec<f32> = got.to_plain_array_view::<f32>().expect("floats").iter().copied().collect();
            let want: Vec<f32> = want.data.iter().map(|&v| v as f32).collect();
            let error = parity::error(&got, &want);
            assert!(error <= 1e-4, "{what}, {form:?}: step {step}, result {i}: {error:.1e}");
        }
        for (state, new) in states.iter_mut().zip(&want[graph.outputs.len()..]) {
            state.data = new.data.iter().map(|&v| f64::from(v as f32)).collect();
        }
    }
}

fn fixed() -> [Form; 2] {
    [Opset::Seventeen, Opset::TwentyThree].map(|opset| Form { batch: Some(ROWS), opset, ..Form::default() })
}

#[test]
fn tract_computes_the_golden_nets() {
    for name in ["trm-mlp-d64", "trm-att-d64", "hrm-d64"] {
        let model = golden(name);
        for form in fixed() {
            compare(name, model.graph().unwrap(), &model.params, &form, 2);
        }
    }
}

#[test]
fn tract_computes_encoders_with_and_without_experts() {
    for (name, model) in [("encoder", encoder()), ("moe", moe())] {
        for form in fixed() {
            compare(name, model.graph().unwrap(), &model.params, &form, 1);
        }
    }
}

#[test]
fn equally_scored_experts_are_chosen_as_the_interpreter_does() {
    let mut model = moe();
    let params = std::sync::Arc::make_mut(&mut model.params);
    for (values, param) in params.iter_mut().zip(&model.graph.as_ref().unwrap().params) {
        if param.name.ends_with("router.weight") {
            values.fill(0.0);
        }
    }
    for form in fixed() {
        compare("ties", model.graph().unwrap(), &model.params, &form, 1);
    }
}

/// A graph with every operator and option that no shipped family uses.
// Over 80 lines: each operator stands in it once, in one graph.
fn unusual() -> (Graph, Vec<Vec<f32>>) {
    let (t, d) = (5, 8);
    let mut params: Vec<Param> = Vec::new();
    let mut add = |name: &str, shape: &[usize]| {
        let (role, start) = (Role::Weight, Start::Normal(0.5));
        params.push(Param { name: name.into(), shape: shape.to_vec(), role, start });
        ParamId(params.len() - 1)
    };
    let (table, prefix) = (add("table", &[7, d]), add("prefix", &[3, 6]));
    let (gain, bias, column) = (add("gain", &[d]), add("bias", &[d]), add("column", &[t]));
    let (up, up_bias, down) = (add("up", &[12, d]), add("up_bias", &[12]), add("down", &[d, 12]));
    // four query heads over two key heads of four features
    let (qkv, qkv_bias) = (add("qkv", &[32, d]), add("qkv_bias", &[32]));
    let (out, router) = (add("out", &[d, 16]), add("router", &[3, d]));
    let (experts, downs) = (add("experts", &[3, 10, d]), add("downs", &[3, d, 5]));
    let (mix, unmix) = (add("mix", &[8, t]), add("unmix", &[t, 4]));

    let mut r = RegionBuilder::new(&params, &[ValueType::index(t - 2), ValueType::index(1)]);
    let tokens = r.op(op::Embed { table }, &[r.arg(0)]).unwrap();
    let first = r.op(op::EmbedPrefix { table: prefix, positions: 2, features: d }, &[r.arg(1)]).unwrap();
    let x = r.op(op::Concat, &[first, tokens]).unwrap();
    let admit = r.finish(&[x]);

    let value = ValueType::float(t, d);
    let mut r = RegionBuilder::new(&params, &[value, value]);
    let mut body = r.body(&[value, value]);
    let h = body.op(op::Add, &[body.arg(0), body.arg(1)]).unwrap();
    let mut h = body.op(op::LayerNorm { gain, bias: Some(bias), eps: 1e-3 }, &[h]).unwrap();
    for (causal, window, rope) in
        [(true, None, Some(Rope::plain(100.0))), (true, Some(2), None), (false, Some(3), None), (false, None, None)]
    {
        let joined = body.op(op::Linear { weight: qkv, bias: Some(qkv_bias) }, &[h]).unwrap();
        let attention = Attention {
            heads: 4,
            kv_heads: 2,
            head_dim: 4,
            scale: 0.7,
            causal,
            window,
            rope,
            head_norms: None,
            soft_cap: None,
            cache: false,
        };
        let y = body.op(attention, &[joined]).unwrap();
        let y = body.op(op::Linear { weight: out, bias: None }, &[y]).unwrap();
        let y = body.op(op::Add, &[h, y]).unwrap();
        h = body.op(op::RmsNorm { gain: Some(gain), eps: 1e-2, over: Axis::Features }, &[y]).unwrap();
    }
    for act in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
        let y = body.op(op::Mlp { up, up_bias: Some(up_bias), down, down_bias: Some(bias), act }, &[h]).unwrap();
        let y = body.op(op::GatedMlp { gate_up: mix, down: unmix, act, over: Axis::Tokens }, &[y]).unwrap();
        h = body.op(op::RmsNorm { gain: Some(column), eps: 1e-2, over: Axis::Tokens }, &[y]).unwrap();
    }
    let y =
        body.op(op::MoeMlp { router, gate_up: experts, down: downs, act: Activation::Silu, top_k: 2 }, &[h]).unwrap();
    let y = body.op(op::LayerNorm { gain, bias: None, eps: 1e-3 }, &[y]).unwrap();
    let body = Box::new(body.finish(&[y]));
    let repeat = Op::Repeat(op::Repeat { times: 2, carried: 1, body, last_gradient_only: false });
    let z = r.op(repeat, &[r.arg(0), r.arg(1)]).unwrap();
    let y = r.op(Activation::Gelu, &[z]).unwrap();
    let y = r.op(op::Mul, &[y, z]).unwrap();
    let y = r.op(op::Slice { start: 1, len: 3 }, &[y]).unwrap();
    // the state itself is an output as well
    let step = r.finish(&[z, y, z]);

    let values = |(at, p): (usize, &Param)| {
        (0..p.elements()).map(|i| (((i * 37 + at * 101) % 199) as f32 / 199.0 - 0.5) * 0.9).collect::<Vec<f32>>()
    };
    let data = params.iter().enumerate().map(values).collect();
    let graph = Graph {
        calls: Vec::new(),
        family: Family::Recursive,
        inputs: vec![
            Input { name: "inputs".into(), ty: ValueType::index(t - 2), rows: 7 },
            Input { name: "puzzle".into(), ty: ValueType::index(1), rows: 3 },
        ],
        params,
        states: vec![State { name: "z".into(), ty: value, init: Init::Zero }],
        admit,
        step,
        outputs: vec![
            Output { name: "logits".into(), ty: ValueType::float(3, d) },
            Output { name: "copy".into(), ty: value },
        ],
        halting: Halting::Never,
        max_steps: 2,
    };
    graph.check().expect("it fits");
    (graph, data)
}

#[test]
fn tract_computes_every_operator() {
    let (graph, params) = unusual();
    for form in fixed() {
        compare("unusual", &graph, &params, &form, 2);
    }
}
