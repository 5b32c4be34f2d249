//! What is written is a whole file, the same each time, and (with tract) computes what the interpreter does.

use std::collections::HashSet;

use serde_json::json;

use super::*;
use crate::models::Model;

fn golden(name: &str) -> Model {
    Model::load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).expect("it is there")
}

fn encoder() -> Model {
    let config = json!({"model_type": "encoder", "seq_len": 9, "vocab_size": 7, "hidden_size": 16, "num_layers": 2, "num_heads": 2,
                        "expansion": 1.0, "pos_encodings": "rope"});
    Model::random(&config, 3).expect("a model")
}

fn moe() -> Model {
    let config = json!({"model_type": "moe-encoder", "seq_len": 9, "vocab_size": 7, "hidden_size": 16, "num_layers": 2, "num_heads": 2,
                        "expansion": 1.0, "pos_encodings": "learned", "num_experts": 5, "experts_per_token": 2, "expert_inner": 24});
    Model::random(&config, 5).expect("a model")
}

fn looped() -> Model {
    let config = json!({"model_type": "looped", "seq_len": 9, "vocab_size": 7, "hidden_size": 16, "num_layers": 2, "num_heads": 2,
                        "expansion": 1.0, "pos_encodings": "rope", "loops": 2});
    Model::random(&config, 7).expect("a model")
}

fn forms() -> Vec<Form> {
    let mut all = Vec::new();
    for batch in [None, Some(2)] {
        for opset in [Opset::Seventeen, Opset::TwentyThree] {
            for experts in [ExpertForm::All, ExpertForm::Routed] {
                all.push(Form { batch, opset, experts, external: None });
            }
        }
    }
    all
}

#[test]
fn files_are_whole_and_always_the_same() {
    for model in [golden("trm-mlp-d64"), golden("trm-att-d64"), golden("hrm-d64"), looped(), encoder(), moe()] {
        for form in forms() {
            let exported = export(model.graph().unwrap(), &model.params, &form).expect("it has every operator");
            assert_eq!(exported.model, export(model.graph().unwrap(), &model.params, &form).expect("again").model);
            let file = proto::Model::decode(&exported.model[..]).expect("protobuf");
            let graph = file.graph.expect("a graph");
            let mut defined: HashSet<&str> = HashSet::new();
            let inputs = graph.input.iter().map(|i| i.name.as_deref());
            for name in inputs.chain(graph.initializer.iter().map(|i| i.name.as_deref())) {
                assert!(defined.insert(name.expect("a name")), "{name:?} twice");
            }
            for node in &graph.node {
                for input in &node.input {
                    assert!(defined.contains(input.as_str()), "{input} is used before it is there");
                }
                for output in &node.output {
                    assert!(defined.insert(output), "{output} twice");
                }
            }
            let states = model.graph().unwrap().states.len();
            assert_eq!(graph.input.len(), model.graph().unwrap().inputs.len() + states);
            assert_eq!(graph.output.len(), model.graph().unwrap().outputs.len() + states);
            assert!(graph.output.iter().all(|o| defined.contains(o.name.as_deref().expect("a name"))));
            for tensor in &graph.initializer {
                let elements: i64 = tensor.dims.iter().product();
                let size = if tensor.data_type == Some(proto::FLOAT) { 4 } else { 8 };
                assert_eq!(tensor.raw_data.as_ref().map(Vec::len), Some(size * elements as usize), "{:?}", tensor.name);
            }
            let known: HashSet<_> = file.metadata_props.iter().filter_map(|e| e.key.clone()).collect();
            assert!(
                model.graph().unwrap().states.iter().all(|s| known.contains(&format!("initial.{}", s.name))),
                "{known:?}"
            );
        }
    }
}

#[test]
fn weights_beside_the_file_are_the_ones_inside_it() {
    let model = golden("trm-att-d64");
    let inside = export(model.graph().unwrap(), &model.params, &Form::default()).expect("whole");
    let form = Form { external: Some("weights.bin".into()), ..Form::default() };
    let beside = export(model.graph().unwrap(), &model.params, &form).expect("whole");
    let weights = beside.weights.expect("a file of weights");
    assert!(inside.weights.is_none() && beside.model.len() < inside.model.len());
    let tensors = |bytes: &[u8]| proto::Model::decode(bytes).expect("protobuf").graph.expect("a graph").initializer;
    let mut outside = 0;
    for (a, b) in tensors(&inside.model).into_iter().zip(tensors(&beside.model)) {
        assert_eq!(a.name, b.name);
        let entry = |key: &str| {
            let found = b.external_data.iter().find(|e| e.key.as_deref() == Some(key));
            found.and_then(|e| e.value.clone())
        };
        let Some(offset) = entry("offset") else {
            assert_eq!(a.raw_data, b.raw_data);
            continue;
        };
        let (offset, length): (usize, usize) =
            (offset.parse().expect("a number"), entry("length").expect("a length").parse().expect("a number"));
        assert_eq!(a.raw_data.as_deref(), Some(&weights[offset..offset + length]));
        assert_eq!(entry("location").as_deref(), Some("weights.bin"));
        outside += 1;
    }
    assert!(outside >= 8, "{outside} constants are outside");
}

#[test]
fn what_has_no_counterpart_is_named() {
    let mut model = encoder();
    for node in &mut model.graph.as_mut().unwrap().step.nodes {
        if let Op::Attend(a) = &mut node.op {
            a.soft_cap = Some(30.0);
        }
    }
    let error = export(model.graph().unwrap(), &model.params, &Form::default()).expect_err("a soft cap has no file");
    assert!(error.to_string().contains("attention with a soft cap") && error.to_string().contains("hint: "), "{error}");
}

#[test]
fn all_that_a_file_computes_is_counted() {
    use crate::graph::cost::Workload;
    let mut model = golden("trm-att-d64");
    let flops = |model: &Model, experts| {
        export(model.graph().unwrap(), &model.params, &Form { experts, ..Form::default() })
            .expect("whole")
            .flops_per_row
    };
    let own = model.graph().unwrap().cost(&Workload::one()).flops_steps;
    assert_eq!(flops(&model, ExpertForm::All), own);
    fn mask(region: &mut Region) {
        for node in &mut region.nodes {
            match &mut node.op {
                Op::Attend(a) => a.causal = true,
                Op::Repeat(op::Repeat { body, .. }) => mask(body),
                _ => {}
            }
        }
    }
    mask(&mut model.graph.as_mut().unwrap().step);
    assert!(model.graph().unwrap().cost(&Workload::one()).flops_steps < own);
    assert_eq!(flops(&model, ExpertForm::All), own, "masked pairs are computed");
    let moe = moe();
    let routed = flops(&moe, ExpertForm::Routed);
    assert_eq!(routed, moe.graph().unwrap().cost(&Workload::one()).flops_steps);
    assert!(flops(&moe, ExpertForm::All) > 1.5 * routed);
}

#[cfg(feature = "tract")]
mod tract;
