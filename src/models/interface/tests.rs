//! Interfaces of graphs and of a model without one, and sessions over them.
//!
//! In: shipped families, the stub. Out: assertions. Must not: rely on the order of inputs or outputs.

use ergometer_suites::task::{Example, ExampleSet};
use serde_json::json;

use super::stub::{self, LONGEST, Stub, VOCABULARY};
use super::*;
use crate::backends::session::{Rule, Session, argmax};
use crate::backends::{BACKENDS, BackendError, Options};
use crate::models::build_graph;

#[test]
fn a_graph_declares_its_ports_by_name() {
    let config = |ids: usize| {
        json!({"model_type": "trm", "seq_len": 4, "vocab_size": 6, "hidden_size": 8, "num_heads": 2, "expansion": 1.0, "H_cycles": 1,
            "L_cycles": 1, "L_layers": 1, "puzzle_emb_ndim": if ids > 0 { 8 } else { 0 }, "num_puzzle_identifiers": ids})
    };
    let of = |ids| Interface::of_graph(&build_graph(&config(ids)).unwrap());
    let (plain, numbered) = (of(0), of(3));
    assert_eq!(plain.tokens().unwrap().row().unwrap().most(), 4);
    assert_eq!((plain.tokens().unwrap().below(), plain.logits().unwrap().features), (Some(6), 6));
    assert_eq!(plain.input(PortRole::PuzzleId), None);
    assert_eq!(numbered.input(PortRole::PuzzleId).unwrap().below(), Some(3));
    assert_eq!(&plain.feeds().unwrap().with(&[1, 2], &[3])[..], [&[1, 2][..]]);
    assert_eq!(&numbered.feeds().unwrap().with(&[1, 2], &[3])[..], [&[1, 2][..], &[3][..]]);
    assert!(plain.halts_by().unwrap().is_some() && !plain.one_shot());
    assert_eq!(plain.states.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["z_H", "z_L"]);
}

#[test]
fn what_a_model_lacks_is_named() {
    let said = |change: fn(&mut Interface)| {
        let mut interface = stub::interface();
        change(&mut interface);
        let of = |e: InterfaceError| e.to_string();
        let parts = [
            interface.feeds().err().map(of),
            interface.reads().err().map(of),
            interface.halts_by().err().map(of),
            Session::new(Box::<Stub>::default(), &interface, 1).err().map(|e| e.to_string()),
        ];
        parts.into_iter().flatten().collect::<Vec<String>>().join("\n")
    };
    assert_eq!(said(|_| ()), "");
    let no_tokens = said(|i| i.inputs[1].role = PortRole::Other);
    assert!(no_tokens.contains("no input for tokens; it has `which`, `text`"), "{no_tokens}");
    let unknown = said(|i| i.inputs[0].role = PortRole::Other);
    assert!(unknown.contains("`which` is nothing that a task of tokens fills"), "{unknown}");
    let numbers = said(|i| i.inputs[1].elements = ElementType::Float);
    assert!(numbers.contains("`text`") && numbers.contains("takes numbers"), "{numbers}");
    let no_logits = said(|i| i.outputs[1].role = PortRole::Other);
    assert!(no_logits.contains("no output for logits; it has `stop`, `scores`"), "{no_logits}");
    let halting = said(|i| i.outputs[0].features = 3);
    assert!(halting.contains("two features for halting logits"), "{halting}");
    let open = Session::new(Box::<Stub>::default(), &stub::open(), 1).err().expect("refused").to_string();
    assert!(open.contains("open dimension `seq`") && open.contains("hint: "), "{open}");
    let many = said(|i| (0..8).for_each(|_| i.inputs.push(i.inputs[0].clone())));
    assert!(many.contains("10 inputs"), "{many}");
}

#[test]
fn a_dimension_is_bound_or_left_to_the_call() {
    let bound = stub::open().bind("other", 9).bind("seq", 3);
    assert_eq!(bound.tokens().unwrap().length, Length::Fixed(3));
    assert_eq!(bound.logits().unwrap().row().unwrap().most(), 3 * VOCABULARY);
    let mut session = Session::new(Box::<Stub>::default(), &bound, 1).unwrap();
    session.admit(&[0], &[&[0], &[1, 2, 3]]).unwrap();
    assert!(session.admit(&[0], &[&[0], &[1, 2]]).is_err(), "a bound length is fixed");
    let row = stub::interface().tokens().unwrap().row().unwrap();
    assert_eq!((row.at(2), row.most(), row.varies()), (2, LONGEST, true));
}

fn answers(session: &Session, reads: Reads, slot: usize) -> Vec<u32> {
    session.output(reads.logits, slot).chunks_exact(reads.vocabulary).map(argmax).collect()
}

#[test]
fn a_session_takes_rows_of_any_length_and_halts_by_the_output_that_says_so() {
    let interface = stub::interface();
    let (feeds, reads) = (interface.feeds().unwrap(), interface.reads().unwrap());
    assert_eq!((reads.logits, reads.vocabulary, reads.halting), (1, VOCABULARY, Some(0)));
    let mut session = Session::new(Box::<Stub>::default(), &interface, 2).unwrap();
    for (length, ids) in [(3, [0, 2]), (LONGEST, [1, 3]), (1, [2, 2])] {
        let rows: Vec<Vec<u32>> =
            (0..2).map(|row| (0..length).map(|i| (row * 3 + i) as u32 % VOCABULARY as u32).collect()).collect();
        session.retain(&[]).unwrap();
        session.admit(&[0, 1], &feeds.with(&rows.concat(), &ids)).unwrap();
        session.advance(interface.max_steps, Rule::Halt).unwrap();
        for (slot, row) in rows.iter().enumerate() {
            let steps = ids[slot] + 1;
            assert_eq!((session.slot(slot).steps, session.slot(slot).halted), (steps, true));
            assert_eq!(
                answers(&session, reads, slot),
                stub::answer(row, ids[slot], steps),
                "{length} tokens, slot {slot}"
            );
        }
    }
    // a row that has halted keeps its own length beside one of another
    session.retain(&[1]).unwrap();
    session.admit(&[0], &feeds.with(&[1, 2, 3, 4], &[0])).unwrap();
    session.advance(1, Rule::Halt).unwrap();
    assert_eq!(answers(&session, reads, 0), stub::answer(&[1, 2, 3, 4], 0, 1));
    assert_eq!(answers(&session, reads, 1), stub::answer(&[3], 2, 3));
}

#[test]
fn a_session_refuses_rows_that_do_not_fit() {
    let interface = stub::interface();
    let feeds = interface.feeds().unwrap();
    let mut session = Session::new(Box::<Stub>::default(), &interface, 3).unwrap();
    let mut refused = |slots: &[usize], tokens: &[u32], ids: &[u32]| {
        session.admit(slots, &feeds.with(tokens, ids)).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for (tokens, ids, word) in [
        (&[][..], &[0][..], "between 1 and 5"),
        (&[0; 6][..], &[0][..], "between 1 and 5"),
        (&[7][..], &[0][..], "`text` holds index 7"),
        (&[0][..], &[4][..], "`which` holds index 4"),
        (&[0][..], &[0, 0][..], "`which` has 2 indices"),
    ] {
        let said = refused(&[0], tokens, ids);
        assert!(said.contains(word), "{word}: {said}");
    }
    let uneven = refused(&[0, 1], &[0; 5], &[0, 0]);
    assert!(uneven.contains("`text` has 5 indices, 2 rows of 2"), "{uneven}");
    assert_eq!(refused(&[0, 1], &[0; 4], &[0, 0]), "");
    let unlike = refused(&[2], &[0; 3], &[0]);
    assert!(unlike.contains("rows of 3 tokens cannot join rows of 2"), "{unlike}");
    assert_eq!(refused(&[2], &[0; 2], &[0]), "", "what was refused takes no slot");
}

#[test]
fn a_task_fits_a_model_of_open_length_up_to_its_longest() {
    let set = |lengths: &[usize]| ExampleSet {
        examples: lengths
            .iter()
            .map(|n| Example { tokens: vec![1; *n], answer: vec![1; *n].into(), puzzle_id: 3, ..Example::default() })
            .collect(),
        vocabulary: VOCABULARY as u32,
        puzzle_ids: 4,
        numbering: None,
        questions: Vec::new(),
        baselines: Vec::new(),
        notes: Vec::new(),
        ..ExampleSet::default()
    };
    let check = |lengths: &[usize]| crate::compatibility::check("t", &set(lengths), "net", &stub::interface(), None);
    check(&[1, 3, LONGEST]).unwrap();
    let said = check(&[2, LONGEST + 1]).unwrap_err().to_string();
    assert!(said.contains("has 6 cells, model `net` takes 1 to 5"), "{said}");
}

#[test]
fn a_backend_that_compiles_graphs_says_that_there_is_none() {
    // foreign libraries are not loaded into this process
    let all: Vec<_> = BACKENDS.iter().filter(|b| b.library().is_none()).collect();
    assert!(all.len() >= 2);
    for backend in all {
        let options = Options { precision: backend.precisions()[0].into(), ..Options::f32(1, 1) };
        match backend.load(&stub::model(), &options).err() {
            Some(BackendError::Unavailable(u)) => assert!(u.reason.contains("has no graph"), "{}", u.reason),
            other => panic!("{}: {:?}", backend.name(), other.map(|e| e.to_string())),
        }
    }
}
