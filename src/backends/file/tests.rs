//! Small files in tract: rows of a batch, spare places, states and sequences, types of outputs.
//!
//! In: files written by hand. Out: assertions on what comes out. Must not: need a library that is loaded.

use ergometer_suites::FileForm;

use super::*;
use crate::backends::session::{Rule, Session};
use crate::backends::tract::Tract;
use crate::backends::{Backend, Options};
use crate::models::Model;
use crate::onnx::proto::{self, FLOAT};
use crate::onnx::small::{self, node, value};

fn model(written: &proto::Model, state: &[(&str, &str)], batch: Option<&str>) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let state = state.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let form = FileForm { state, batch: batch.map(str::to_owned), ..FileForm::default() };
    let path = small::write(folder.path(), "net.onnx", written);
    // tract has read it when the folder goes
    let _kept = folder.keep();
    Model::load_as(&path, &form).unwrap()
}

fn options(model: &Model, capacity: usize) -> Options {
    Options { file: model.file.as_ref().map(|f| f.precision), ..Options::f32(1, capacity) }
}

fn session(model: &Model, capacity: usize) -> Result<Session, String> {
    let engine = Tract.load(model, &options(model, capacity)).map_err(|e| e.to_string())?;
    Session::new(engine, &model.interface, capacity).map_err(|e| e.to_string())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Outputs of each row.
fn run(session: &mut Session, rows: usize, input: &[f32]) -> Result<Vec<Vec<f32>>, String> {
    session.retain(&[]).unwrap();
    let slots: Vec<usize> = (0..rows).collect();
    session.admit_arrays(&slots, &[&bytes(input)]).map_err(|e| e.to_string())?;
    session.advance(1, Rule::Fixed).map_err(|e| e.to_string())?;
    Ok(slots.iter().map(|slot| session.output(0, *slot).to_vec()).collect())
}

#[test]
fn rows_are_independent_and_a_batch_that_is_not_full_is_filled_up() {
    let net = model(&small::product(), &[], None);
    let mut all = session(&net, 4).unwrap();
    let rows: Vec<f32> = (0..16).map(|i| (i % 5) as f32 - 2.0).collect();
    let got = run(&mut all, 4, &rows).unwrap();
    let w = |i: usize, j: usize| (i * 3 + j) as f32 / 4.0 - 1.0;
    for (row, got) in rows.chunks(4).zip(&got) {
        let want: Vec<f32> = (0..3).map(|j| (0..4).map(|i| row[i] * w(i, j)).sum()).collect();
        assert_eq!(*got, want);
    }
    assert_eq!(run(&mut all, 2, &rows[4..12]).unwrap(), got[1..3]);
    let mut one = session(&net, 1).unwrap();
    assert_eq!(run(&mut one, 1, &rows[12..]).unwrap(), got[3..]);
    assert!(run(&mut one, 1, &rows[..3]).unwrap_err().contains("brings 12 bytes for 1 rows of 16"));
    assert!(run(&mut one, 1, &rows[..8]).unwrap_err().contains("brings 32 bytes"), "no sequence without a state");
}

#[test]
fn a_fixed_batch_takes_no_other() {
    let mut fixed = small::product();
    let graph = fixed.graph.as_mut().unwrap();
    (graph.input, graph.output) = (vec![value("x", FLOAT, &["2", "4"])], vec![value("y", FLOAT, &["2", "3"])]);
    let net = model(&fixed, &[], None);
    assert!(session(&net, 2).is_ok());
    let said = session(&net, 3).err().unwrap();
    assert!(said.contains("fixed at 2 rows") && said.contains("batch of 3") && said.contains("hint: "), "{said}");
    let whole = model(&fixed, &[], Some("none"));
    assert!(session(&whole, 2).err().unwrap().contains("no axis of the file counts rows"));
    let mut one = session(&whole, 1).unwrap();
    assert_eq!(run(&mut one, 1, &[1.0; 8]).unwrap()[0].len(), 6);
}

#[test]
fn states_are_fed_back_within_a_sequence_and_begin_anew_with_each() {
    let net = model(&small::sum(), &[("h", "hn")], None);
    assert!(net.interface.sequences && net.interface.inputs.len() == 1 && net.interface.outputs.len() == 1);
    let mut two = session(&net, 2).unwrap();
    // two rows of three steps of two numbers
    let rows = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, -1.0, 0.0, -1.0, 0.0, -1.0, 5.0];
    let want = [[2.0, 20.0, 6.0, 60.0, 12.0, 120.0], [-2.0, 0.0, -4.0, 0.0, -6.0, 10.0]];
    for _ in 0..2 {
        assert_eq!(run(&mut two, 2, &rows).unwrap(), want);
    }
    assert_eq!(run(&mut two, 1, &rows[..2]).unwrap(), [[2.0, 20.0]], "one step has no axis of time");
    assert!(two.engine().state(0, 1).is_err());
    assert_eq!(two.engine().facts().state_bytes, 16);
}

#[test]
fn an_operator_that_the_engine_lacks_is_named() {
    let mut lacking = small::product();
    lacking.graph.as_mut().unwrap().node.push(node("Frobnicate", &["y"], &["z"]));
    match Tract.load(&model(&lacking, &[], None), &Options { file: Some("f32"), ..Options::f32(1, 1) }).err() {
        Some(BackendError::Unavailable(u)) => assert!(u.reason.contains("lacks `Frobnicate`"), "{}", u.reason),
        other => panic!("{:?}", other.map(|e| e.to_string())),
    }
    let net = model(&small::product(), &[], None);
    let bf16 = Options { precision: "bf16".into(), ..options(&net, 1) };
    assert!(Tract.load(&net, &bf16).err().unwrap().to_string().contains("the file computes in f32, not in bf16"));
    let opset = Options { extra: [("opset".into(), "23".into())].into(), ..options(&net, 1) };
    assert!(Tract.describe(&opset).unwrap_err().to_string().contains("no other option"));
}

#[test]
fn whole_numbers_are_given_exactly_or_not_at_all() {
    let mut all = Vec::new();
    extend(&mut all, &Elements::I64(&[3, -4, 1 << 24]), 0..3, "y").unwrap();
    extend(&mut all, &Elements::Bool(&[true, false]), 0..2, "y").unwrap();
    extend(&mut all, &Elements::F16(&[f16::from_f32(1.5)]), 0..1, "y").unwrap();
    assert_eq!(all, [3.0, -4.0, 16_777_216.0, 1.0, 0.0, 1.5]);
    let said = extend(&mut all, &Elements::I64(&[(1 << 24) + 1]), 0..1, "y").unwrap_err().to_string();
    assert!(said.contains("output `y` holds 16777217"), "{said}");
    assert!(extend(&mut all, &Elements::U8(&[1]), 0..2, "y").unwrap_err().to_string().contains("fewer elements"));
}
