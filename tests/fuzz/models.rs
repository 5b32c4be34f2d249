//! A model's folder: configs, weights and their indices, recorded vectors: good ones to begin from, and what is read of them.
//!
//! In: bytes, or the file that they lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs but what is dear to make.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use ergometer::models::{self, Model};
use ergometer::onnx;
use ergometer::parity::Vectors;
use prost::Message;
use serde_json::{Value, json};

use super::{Outcome, read, said};

pub(super) fn configs(_: &Path) -> Vec<Vec<u8>> {
    ["models/trm-6x6", "models/moe-6x6", "models/dense-arc", "timing/trm-att-128", "timing/moe-top2of8"]
        .map(|m| read(format!("suites/{m}/config.json")))
        .into_iter()
        .chain([read("tests/golden/hrm-d64/config.json")])
        .collect()
}

pub(super) fn config(bytes: &[u8], path: &Path) -> Outcome {
    match models::graph_of_config(path, bytes) {
        Ok(graph) => {
            graph.check().unwrap();
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

/// A net of a few hundred weights.
fn tiny() -> &'static (Value, Model) {
    static TINY: OnceLock<(Value, Model)> = OnceLock::new();
    TINY.get_or_init(|| {
        let config = json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 4, "num_heads": 1, "expansion": 1.0,
            "H_cycles": 1, "L_cycles": 1, "L_layers": 1, "halt_max_steps": 2});
        let model = Model::random(&config, 3).unwrap();
        (config, model)
    })
}

/// Files as our exporter writes them, of an open and of a fixed batch.
pub(super) fn onnx_files(_: &Path) -> Vec<Vec<u8>> {
    let (_, model) = tiny();
    let forms = [onnx::Form::default(), onnx::Form { batch: Some(2), ..Default::default() }];
    forms.map(|form| onnx::export(model.graph().unwrap(), &model.params, &form).unwrap().model).into()
}

/// Tensors as ONNX's own test data have them.
pub(super) fn tensors(_: &Path) -> Vec<Vec<u8>> {
    let of = |dims: &[i64], data_type, bytes: Vec<u8>| onnx::proto::Tensor {
        dims: dims.to_vec(),
        data_type: Some(data_type),
        name: Some("x".into()),
        raw_data: Some(bytes),
        ..Default::default()
    };
    [of(&[2, 3], 1, vec![0; 24]), of(&[4], 7, vec![1; 32])].map(|t| t.encode_to_vec()).into()
}

pub(super) fn tensor(bytes: &[u8], _: &Path) -> Outcome {
    match onnx::tensor::read(std::io::Cursor::new(bytes)) {
        Ok((_, array)) => {
            assert_eq!(array.elements() * array.kind.bytes(), array.bytes.len());
            Outcome::Taken
        }
        // `vectors` of a suite says which file
        Err(_) => Outcome::Nothing,
    }
}

pub(super) fn onnx_file(_: &[u8], path: &Path) -> Outcome {
    match Model::load(path) {
        Ok(model) => {
            let file = model.file.unwrap();
            assert!(file.outputs().count() > 0 && file.inputs.iter().all(|i| !i.name.is_empty()));
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

pub(super) fn weights(run: &Path) -> Vec<Vec<u8>> {
    let (config, model) = tiny();
    let folder = run.join("tiny");
    Model::save(&folder, config, model.graph().unwrap(), &model.params).unwrap();
    vec![fs::read(folder.join("model.safetensors")).unwrap()]
}

pub(super) fn weight_file(_: &[u8], path: &Path) -> Outcome {
    let folder = path.parent().unwrap();
    let config = folder.join("config.json");
    if !config.exists() {
        fs::write(&config, tiny().0.to_string()).unwrap();
    }
    match Model::load(folder) {
        Ok(model) => {
            let aside = folder.join("again");
            Model::save(&aside, &tiny().0, model.graph().unwrap(), &model.params).unwrap();
            assert_eq!(Model::load(&aside).unwrap().params, model.params);
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

const SHARD: &str = "model-00001-of-00001.safetensors";

pub(super) fn indices(_: &Path) -> Vec<Vec<u8>> {
    let names = tiny().1.graph().unwrap().params.iter().map(|p| (p.name.clone(), json!(SHARD)));
    let map: serde_json::Map<String, Value> = names.collect();
    vec![json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string().into_bytes()]
}

pub(super) fn index_file(_: &[u8], path: &Path) -> Outcome {
    let folder = path.parent().unwrap();
    let (config, model) = tiny();
    if !folder.join(SHARD).exists() {
        Model::save(folder, config, model.graph().unwrap(), &model.params).unwrap();
        fs::rename(folder.join("model.safetensors"), folder.join(SHARD)).unwrap();
    }
    match Model::load(folder) {
        Ok(read) => {
            assert_eq!(read.params, model.params);
            Outcome::Taken
        }
        // a shard that lacks what the index says is a fault of either
        Err(error) => match said(error) {
            Outcome::Refused(text) if text.contains(SHARD) => {
                Outcome::Refused(text + " (model.safetensors.index.json)")
            }
            other => other,
        },
    }
}

pub(super) fn vectors(_: &Path) -> Vec<Vec<u8>> {
    use ergometer::parity::RecordedStep;
    let step = RecordedStep { logits: vec![0.5; 20], q: vec![0.0; 2], states: vec![vec![0.25; 16]; 2] };
    let made = Vectors {
        batch: 1,
        inputs: vec![1; 4],
        puzzle_ids: vec![0],
        steps: vec![step.clone(), step],
        first_halt: Some(vec![1]),
    };
    vec![made.write(&tiny().1.interface).unwrap(), made.questions().write(&tiny().1.interface).unwrap()]
}

pub(super) fn vectors_file(_: &[u8], path: &Path) -> Outcome {
    let interface = &tiny().1.interface;
    match Vectors::read(path, interface) {
        Ok(vectors) => {
            let aside = path.with_extension("again");
            fs::write(&aside, vectors.write(interface).unwrap()).unwrap();
            let back = Vectors::read(&aside, interface).unwrap();
            assert_eq!(back.write(interface).unwrap(), vectors.write(interface).unwrap());
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}
