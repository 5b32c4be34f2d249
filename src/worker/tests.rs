//! A model without a graph goes through a worker: answered, timed, recorded and compared.
//!
//! In: jobs for the stub of `models::interface`. Out: assertions on the lines that are told. Must not: start a process.

use ergometer_suites::{Answer, AnswerKind};

use super::*;
use crate::models::interface::stub::{self, Stub};

const INPUTS: [&[u32]; 4] = [&[1, 2], &[3], &[0, 4, 6, 5, 2], &[6, 6, 6]];
const IDS: [u32; 4] = [0, 2, 1, 3];

fn job(inputs: &[&[u32]], batch: usize, halt: bool) -> Job {
    Job {
        protocol: PROTOCOL,
        model: "stub".into(),
        model_hash: String::new(),
        backend: "stub".into(),
        options: Default::default(),
        precision: "f32".into(),
        threads: 1,
        scenario: String::new(),
        batch,
        max_steps: 4,
        halt,
        keep_halted: false,
        inputs: inputs.iter().map(|t| t.to_vec()).collect(),
        puzzle_ids: IDS[..inputs.len()].to_vec(),
        starts: Vec::new(),
        answers: AnswerKind::Tokens,
        arrays: None,
        reading: Default::default(),
        form: Default::default(),
        language: None,
    }
}

fn work(job: Job) -> Work {
    over(job, stub::interface())
}

fn over(job: Job, interface: Interface) -> Work {
    check(&job, &interface).unwrap();
    let (given, reader) = (GivenRows::of(&job, &interface).unwrap(), Reader::of(&job, &interface).unwrap());
    Work::of(job, interface, Vec::new(), Box::<Stub>::default(), given, reader).unwrap()
}

fn go(mode: Mode, n: u64, vectors: Option<std::path::PathBuf>) -> Go {
    Go { block: 0, mode, n, seconds: 0.0, steps: 3, vectors, active_experts: None }
}

fn messages(told: &[u8]) -> Vec<Message> {
    let lines = std::str::from_utf8(told).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn rows(told: &[u8]) -> Vec<PredictionRow> {
    let rows = messages(told).into_iter().filter_map(|m| match m {
        Message::Predictions(p) => Some(p.rows),
        _ => None,
    });
    rows.flatten().collect()
}

#[test]
fn rows_of_unlike_length_are_answered_and_timed() {
    let mut work = work(job(&INPUTS, 1, true));
    let mut told = Vec::new();
    work.warm(0.0).unwrap();
    work.answer(0, &mut told).unwrap();
    let answered = rows(&told);
    // a row is answered after each step until it halts: after one step more than its puzzle identifier says
    assert_eq!(answered.len(), IDS.iter().map(|id| *id as usize + 1).sum::<usize>());
    for row in &answered {
        let (tokens, id) = (INPUTS[row.example as usize], IDS[row.example as usize]);
        assert_eq!(row.answer, Answer::Tokens(stub::answer(tokens, id, row.depth)));
        assert_eq!((row.last, row.halt_logit), (row.depth == id + 1, Some(f64::from(row.depth) - f64::from(id) - 0.5)));
    }
    let mut told = Vec::new();
    work.time(&go(Mode::Time, 6, None), &mut told).unwrap();
    let timed = rows(&told);
    assert_eq!(timed, answered.into_iter().filter(|r| r.last).collect::<Vec<_>>());
    let samples = messages(&told).into_iter().filter_map(|m| match m {
        Message::Sample(s) => Some((s.example, s.rows, s.steps)),
        _ => None,
    });
    assert_eq!(samples.collect::<Vec<_>>(), [(0, 1, 1), (1, 1, 3), (2, 1, 2), (3, 1, 4), (0, 1, 1), (1, 1, 3)]);
}

#[test]
fn a_class_is_answered_as_one() {
    let interface = stub::open().bind("seq", 1);
    let job = Job { answers: AnswerKind::Class, ..job(&[&[3], &[5], &[6]], 2, false) };
    let mut work = over(job, interface);
    let mut told = Vec::new();
    work.answer(0, &mut told).unwrap();
    let last: Vec<Answer> = rows(&told).into_iter().filter(|r| r.last).map(|r| r.answer).collect();
    assert_eq!(last, [(3, 0), (5, 2), (6, 1)].map(|(token, id)| Answer::Class(stub::answer(&[token], id, 4)[0])));
}

#[test]
fn what_it_records_is_read_back_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.safetensors");
    let mut work = work(job(&[&[1, 2, 3], &[4, 5, 6]], 2, false));
    work.record(&go(Mode::Record, 2, Some(path.clone()))).unwrap();
    let vectors = Vectors::read(&path, &stub::interface()).unwrap();
    assert_eq!((vectors.batch, vectors.inputs.len(), vectors.steps.len()), (2, 6, 3));
    assert_eq!(vectors.steps[2].states, [[3.0, 3.0]]);
    let mut told = Vec::new();
    work.compare(&go(Mode::Compare, 0, Some(path)), &mut told).unwrap();
    let steps = messages(&told).into_iter().map(|m| match m {
        Message::Outputs(o) => RecordedStep { logits: o.logits, q: o.q, states: o.states },
        other => panic!("{}", other.kind()),
    });
    assert_eq!(steps.collect::<Vec<_>>(), vectors.steps);
}

#[test]
fn examples_that_the_model_cannot_take_are_refused() {
    let refused = |inputs: &[&[u32]], batch| {
        check(&job(inputs, batch, true), &stub::interface()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(refused(&[&[0; 6]], 1).contains("has 6 tokens, the model takes 1 to 5"));
    assert!(refused(&[&[0; 2], &[]], 1).contains("example 1 has 0 tokens"));
    let unlike = refused(&INPUTS, 2);
    assert!(unlike.contains("do not share a batch of 2") && unlike.contains("hint: "), "{unlike}");
    assert_eq!(refused(&INPUTS, 1), "");
}
