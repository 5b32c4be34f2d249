//! Files of small decoders: whole, the same each time, named as other tools expect, and without a weight twice.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use super::*;
use crate::models::language::LanguageModel;
use crate::onnx::ExpertForm;

const FAMILIES: [&str; 7] = ["llama", "gemma", "gemma3", "phi3", "mixtral", "falcon", "gpt-neo"];

fn golden(family: &str) -> LanguageModel {
    LanguageModel::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(family), None).unwrap()
}

fn written(model: &LanguageModel, form: &Form, rows: LogitRows) -> Result<ExportedDecoder, OnnxError> {
    let read = |param| model.read(param);
    export(&model.graph, &read, form, rows, &[("model", "a model".into())])
}

fn message(exported: &ExportedDecoder) -> proto::Model {
    proto::Model::decode(&exported.model[..]).unwrap()
}

#[test]
fn files_are_whole_and_always_the_same() {
    for family in FAMILIES {
        let model = golden(family);
        for (opset, experts, batch, rows) in [
            (Opset::Seventeen, ExpertForm::All, None, LogitRows::All),
            (Opset::Seventeen, ExpertForm::Routed, Some(1), LogitRows::Asked),
            (Opset::TwentyThree, ExpertForm::Routed, None, LogitRows::Asked),
        ] {
            let form = Form { batch, opset, experts, external: None };
            let exported = written(&model, &form, rows).unwrap();
            assert_eq!(exported.model, written(&model, &form, rows).unwrap().model);
            let graph = message(&exported).graph.unwrap();
            let mut defined: HashSet<&str> = HashSet::new();
            let inputs = graph.input.iter().map(|i| i.name.as_deref());
            for name in inputs.chain(graph.initializer.iter().map(|i| i.name.as_deref())) {
                assert!(defined.insert(name.unwrap()), "{family}: {name:?} twice");
            }
            for node in &graph.node {
                node.input
                    .iter()
                    .for_each(|i| assert!(defined.contains(i.as_str()), "{family}: {i} before it is there"));
                node.output.iter().for_each(|o| assert!(defined.insert(o), "{family}: {o} twice"));
            }
            let layers = model.graph.states.len();
            assert_eq!(graph.input.len(), input_names(rows).len() + 2 * layers);
            let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_deref().unwrap()).collect();
            assert_eq!((outputs.len(), outputs[0], outputs[1]), (1 + 2 * layers, "logits", "present.0.key"));
            assert!(outputs.iter().all(|o| defined.contains(o)), "{family}");
        }
    }
}

#[test]
fn every_weight_stands_once_beside_the_file() {
    for family in FAMILIES {
        let model = golden(family);
        let form = Form { external: Some("net.onnx.data".into()), ..Form::default() };
        let exported = written(&model, &form, LogitRows::All).unwrap();
        let parameters: usize = model.graph.params.iter().map(|p| p.elements()).sum();
        let graph = message(&exported).graph.unwrap();
        let elements = |t: &proto::Tensor| t.dims.iter().product::<i64>() as usize;
        let floats: Vec<&proto::Tensor> =
            graph.initializer.iter().filter(|t| t.data_type == Some(proto::FLOAT)).collect();
        let tables =
            |t: &&&proto::Tensor| ["cos.", "sin.", "float."].iter().any(|n| t.name.as_deref().unwrap().starts_with(n));
        let added: usize = floats.iter().filter(tables).map(|t| elements(t)).sum();
        // gains of a head's norm stand once for every head
        let gains: usize =
            floats.iter().filter(|t| t.name.as_deref().unwrap().contains(" and ")).map(|t| elements(t)).sum();
        let norms: usize = model
            .graph
            .params
            .iter()
            .filter(|p| p.name.contains("q_norm") || p.name.contains("k_norm"))
            .map(|p| p.elements())
            .sum();
        let all: usize = floats.iter().map(|t| elements(t)).sum();
        assert_eq!(all - added - gains, parameters - norms, "{family}");
        assert!(exported.weights.unwrap().len() >= 4 * (parameters - norms) * 9 / 10 && exported.model.len() < 200_000);
    }
}

#[test]
fn a_weight_that_cannot_be_read_is_told() {
    let model = golden("llama");
    let read = |_: ParamId| Err("model.safetensors: gone\nhint: bring it back".to_owned());
    let said = export(&model.graph, &read, &Form::default(), LogitRows::All, &[]).unwrap_err().to_string();
    assert!(said.contains("model.safetensors: gone") && said.contains("hint: "), "{said}");
    let short = |_: ParamId| Ok(Cow::Owned(vec![0.0]));
    assert!(matches!(
        export(&model.graph, &short, &Form::default(), LogitRows::All, &[]),
        Err(OnnxError::Unreadable { .. })
    ));
}
