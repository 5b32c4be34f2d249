//! Outputs against recorded vectors: the vectors file, how it is made, and how far outputs are from it.
//!
//! In: a vectors file (see [`Vectors`]), a [`Session`]. Out: the largest error per step of logits, halting head and states,
//! each over its own largest value. Must not: decide what
//! an acceptable error is; the named tolerances are those of precisions.
//!
//! A recursive net can amplify rounding, so steps are judged one by one from the recorded state of the step before; the free run, whose
//! error shows the amplification, is reported beside it.

pub mod outputs;

pub mod language;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, bail};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::backends::session::{Rule, Session};
use crate::models::interface::{Interface, Port, PortRole, Reads};
use crate::models::tensors::Tensors;

/// What a step leaves behind, all rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordedStep {
    /// `[batch, S, V]`
    pub logits: Vec<f32>,
    /// `[batch, 2]`; empty without a halting head, or where a file does not record it.
    pub q: Vec<f32>,
    /// Per state of the model, `[batch, T, D]`; empty where unknown.
    pub states: Vec<Vec<f32>>,
}

impl RecordedStep {
    /// Reads it off a session whose slots `0..batch` were just advanced.
    fn of(session: &mut Session, reads: Reads, states: usize, batch: usize) -> anyhow::Result<Self> {
        let output = |session: &Session, i| (0..batch).flat_map(|slot| session.output(i, slot).to_vec()).collect();
        let logits = output(session, reads.logits);
        let q = reads.halting.map(|i| output(session, i)).unwrap_or_default();
        let states = (0..states).map(|i| session.engine().state(i, batch)).collect::<Result<_, _>>()?;
        Ok(RecordedStep { logits, q, states })
    }

    /// The largest error of logits, q and states, each over the largest magnitude that is wanted of it (of q: at least 1). What
    /// `want` or this step does not have is not compared, but for the logits.
    pub fn error(&self, want: &RecordedStep) -> f64 {
        let known = |got: &[f32], want: &[f32], floor| {
            if got.is_empty() || want.is_empty() { 0.0 } else { error_over(got, want, floor) }
        };
        let states = self.states.iter().zip(&want.states).map(|(g, w)| known(g, w, 0.0));
        states.fold(error(&self.logits, &want.logits).max(known(&self.q, &want.q, 1.0)), f64::max)
    }

    /// All values are finite and as many as `want` has; `q` and states may be missing altogether.
    pub fn fits(&self, want: &RecordedStep) -> bool {
        let mut values = self.logits.iter().chain(&self.q).chain(self.states.iter().flatten());
        self.logits.len() == want.logits.len()
            && (self.q.is_empty() || self.q.len() == want.q.len())
            && (self.states.is_empty() || self.states.iter().map(Vec::len).eq(want.states.iter().map(Vec::len)))
            && values.all(|v| v.is_finite())
    }

    fn rows(&self, batch: usize, first: usize, n: usize) -> RecordedStep {
        let part = |v: &Vec<f32>| {
            let len = v.len() / batch;
            v[first * len..(first + n) * len].to_vec()
        };
        RecordedStep { logits: part(&self.logits), q: part(&self.q), states: self.states.iter().map(part).collect() }
    }

    /// Joins the rows of `other` to these.
    pub fn extend(&mut self, other: RecordedStep) {
        self.logits.extend(other.logits);
        self.q.extend(other.q);
        self.states.resize(other.states.len(), Vec::new());
        self.states.iter_mut().zip(other.states).for_each(|(all, more)| all.extend(more));
    }
}

/// Inputs and what was recorded for them, steps from 1 to n: `inputs` i32 `[B, S]`, `puzzle_identifiers` i32 `[B]`, `logits.k` f32
/// `[B, S, V]`, `q_halt.k`, `q_continue.k` f32 `[B]`, and per state `z_H.k`, `z_L.k` f32 `[B, T, D]`; `first_halt` i32 `[B]` (n + 1: not
/// yet).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    /// Rows.
    pub batch: usize,
    /// `[batch, S]`
    pub inputs: Vec<u32>,
    /// `[batch]`
    pub puzzle_ids: Vec<u32>,
    /// What was recorded; without outputs and without the last states in a file of [`questions`](Self::questions).
    pub steps: Vec<RecordedStep>,
    /// First step after which a row halts.
    pub first_halt: Option<Vec<u32>>,
}

/// Most rows that a vectors file may have: it is for a handful of examples.
const MAX_ROWS: usize = 4096;
/// Most indices of one tensor of it.
const MAX_INDICES: usize = 1 << 26;
/// Most bytes of one.
pub(crate) const MAX_BYTES: u64 = 4 << 30;

impl Vectors {
    /// Reads a vectors file for a model with this interface: the header first, then the tensors that the model has and no others.
    pub fn read(path: &Path, interface: &Interface) -> anyhow::Result<Self> {
        let file = Tensors::open(path)?;
        Self::of(file, interface).with_context(|| {
            let path = path.display();
            format!("{path} is no vectors file for this model\nhint: record it again, for the model that it is held to")
        })
    }

    /// The most bytes that a file of so many rows and steps takes, without `first_halt`.
    pub fn most_bytes(interface: &Interface, rows: usize, steps: u32) -> u64 {
        // names, shapes and offsets of a tensor; logits, halting head and each state are one a step
        const HEADER: u64 = 256;
        let elements = |port: &Port| port.row().map_or(0, |row| row.most() as u64);
        let step = interface.outputs.iter().chain(&interface.states).map(elements);
        let step = step.fold(0u64, |sum, n| sum.saturating_add(4 * (rows as u64) * n + 2 * HEADER));
        let inputs = interface.inputs.iter().map(|i| 4 * rows as u64 * elements(i) + HEADER).sum::<u64>();
        (inputs + 4 * rows as u64 + 8 * HEADER).saturating_add(step.saturating_mul(steps.into())).min(MAX_BYTES)
    }

    /// [`read`](Self::read) of a file's bytes.
    pub fn parse(bytes: &[u8], interface: &Interface) -> anyhow::Result<Self> {
        Self::of(Tensors::new(Path::new("vectors"), std::io::Cursor::new(bytes))?, interface)
    }

    fn of(file: Tensors<impl Read + Seek>, interface: &Interface) -> anyhow::Result<Self> {
        let (reads, tokens) = (interface.reads()?, interface.tokens()?);
        let file = RefCell::new(file);
        let has = |name: &str| file.borrow().entries.contains_key(name);
        let indices = |name: &str| -> anyhow::Result<(Vec<usize>, Vec<u32>)> {
            let shape = file.borrow().entries.get(name).map(|e| e.shape.clone());
            let shape = shape.with_context(|| format!("tensor `{name}` is missing"))?;
            let elements = shape.iter().product();
            if elements > MAX_INDICES {
                bail!("tensor `{name}` has shape {shape:?}, at most {MAX_INDICES} elements are expected");
            }
            let values = file.borrow_mut().words(name, "I32", elements)?;
            if values.iter().any(|v| i32::try_from(*v).is_err()) {
                bail!("tensor `{name}` holds a negative index");
            }
            Ok((shape, values))
        };
        // a judge that is not a number would acquit everyone, so only finite values are read
        let floats =
            |name: String, len: usize| -> anyhow::Result<Vec<f32>> { Ok(file.borrow_mut().floats(&name, len)?) };
        let (shape, inputs) = indices("inputs")?;
        let &[batch, s] = &shape[..] else { bail!("tensor `inputs` has shape {shape:?}, not [rows, tokens]") };
        if batch == 0 || batch > MAX_ROWS || !tokens.takes(s) {
            let takes = tokens.takes_words();
            bail!("tensor `inputs` has shape {shape:?}; between 1 and {MAX_ROWS} rows of {takes} tokens are needed");
        }
        let elements = |port: &Port| port.row().map(|row| batch * row.at(s));
        let has_ids = interface.input(PortRole::PuzzleId).is_some();
        let puzzle_ids = if has_ids { indices("puzzle_identifiers")?.1 } else { vec![0; batch] };
        if puzzle_ids.len() != batch {
            bail!("{} puzzle identifiers for {batch} rows", puzzle_ids.len());
        }
        let count = |name: &str| (1..).take_while(|k| has(&format!("{name}.{k}"))).count();
        let (answered, asked) = (count("logits"), interface.states.first().map_or(0, |s| count(&s.name)));
        // questions hold the states that steps 2.. start from, and nothing of the last step
        let mut steps = vec![RecordedStep::default(); if answered > 0 { answered } else { asked + 1 }];
        for (i, step) in steps.iter_mut().enumerate() {
            let k = i + 1;
            if answered > 0 {
                step.logits = floats(format!("logits.{k}"), elements(&interface.outputs[reads.logits])?)?;
            }
            if reads.halting.is_some() && has(&format!("q_halt.{k}")) {
                let (halt, go_on) = (floats(format!("q_halt.{k}"), batch)?, floats(format!("q_continue.{k}"), batch)?);
                step.q = halt.into_iter().zip(go_on).flat_map(|(h, c)| [h, c]).collect();
            }
            if answered > 0 || k <= asked {
                let states = interface.states.iter().map(|s| floats(format!("{}.{k}", s.name), elements(s)?));
                step.states = states.collect::<anyhow::Result<_>>()?;
            }
        }
        let mut first_halt = None;
        if has("first_halt") {
            let (_, halts) = indices("first_halt")?;
            let last = steps.len() as u32 + 1;
            if halts.len() != batch || halts.iter().any(|h| !(1..=last).contains(h)) {
                bail!("tensor `first_halt` is {halts:?}; {batch} steps between 1 and {last} are needed");
            }
            first_halt = Some(halts);
        }
        Ok(Vectors { batch, inputs, puzzle_ids, steps, first_halt })
    }

    /// Bytes of the file.
    pub fn write(&self, interface: &Interface) -> anyhow::Result<Vec<u8>> {
        let logits = interface.logits()?;
        let length = self.inputs.len() / self.batch.max(1);
        let ints = |v: &[u32]| v.iter().flat_map(|&x| (x as i32).to_le_bytes()).collect::<Vec<u8>>();
        let b = self.batch;
        let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
        tensors.insert("inputs".into(), (Dtype::I32, vec![b, length], ints(&self.inputs)));
        tensors.insert("puzzle_identifiers".into(), (Dtype::I32, vec![b], ints(&self.puzzle_ids)));
        let mut floats = |name: String, shape: Vec<usize>, values: &mut dyn Iterator<Item = f32>| {
            tensors.insert(name, (Dtype::F32, shape, values.flat_map(f32::to_le_bytes).collect()));
        };
        for (step, k) in self.steps.iter().zip(1..) {
            if !step.logits.is_empty() {
                let shape = vec![b, logits.tokens_at(length), logits.features];
                floats(format!("logits.{k}"), shape, &mut step.logits.iter().copied());
            }
            if !step.q.is_empty() {
                floats(format!("q_halt.{k}"), vec![b], &mut step.q.iter().step_by(2).copied());
                floats(format!("q_continue.{k}"), vec![b], &mut step.q.iter().skip(1).step_by(2).copied());
            }
            for (state, values) in interface.states.iter().zip(&step.states) {
                let shape = vec![b, state.tokens_at(length), state.features];
                floats(format!("{}.{k}", state.name), shape, &mut values.iter().copied());
            }
        }
        if let Some(halts) = &self.first_halt {
            tensors.insert("first_halt".into(), (Dtype::I32, vec![b], ints(halts)));
        }
        let views: Result<Vec<_>, _> = tensors
            .iter()
            .map(|(name, (dtype, shape, data))| Ok((name.clone(), TensorView::new(*dtype, shape.clone(), data)?)))
            .collect();
        let views = views.map_err(|e: safetensors::SafeTensorError| anyhow::anyhow!("{e}"))?;
        Ok(safetensors::serialize(views, None)?)
    }

    /// What a worker is asked: inputs and the states that steps start from, without the answers.
    pub fn questions(&self) -> Vectors {
        let mut steps: Vec<RecordedStep> =
            self.steps.iter().map(|s| RecordedStep { states: s.states.clone(), ..RecordedStep::default() }).collect();
        if let Some(last) = steps.last_mut() {
            *last = RecordedStep::default();
        }
        Vectors { steps, first_halt: None, ..self.clone() }
    }

    /// Records vectors from a session: each step starts from the state of the step before, rounded to f32 as it is recorded.
    pub fn record(
        session: &mut Session,
        interface: &Interface,
        inputs: Vec<u32>,
        puzzle_ids: Vec<u32>,
        steps: u32,
    ) -> anyhow::Result<Self> {
        let batch = puzzle_ids.len();
        let mut vectors = Vectors { batch, inputs, puzzle_ids, ..Vectors::default() };
        let reads = interface.reads()?;
        vectors.admit(session, interface)?;
        for _ in 0..steps {
            session.advance(1, Rule::Fixed)?;
            let step = RecordedStep::of(session, reads, interface.states.len(), batch)?;
            for (i, values) in step.states.iter().enumerate() {
                session.engine().set_state(i, batch, values)?;
            }
            vectors.steps.push(step);
        }
        session.retain(&[])?;
        Ok(vectors)
    }

    /// Puts all rows into slots `0..batch` of an empty session.
    fn admit(&self, session: &mut Session, interface: &Interface) -> anyhow::Result<()> {
        if session.capacity() < self.batch {
            bail!("{} rows do not fit {} slots", self.batch, session.capacity());
        }
        let slots: Vec<usize> = (0..self.batch).collect();
        session.admit(&slots, &interface.feeds()?.with(&self.inputs, &self.puzzle_ids))?;
        Ok(())
    }

    /// Every step, each computed from the recorded state of the step before.
    pub fn step_by_step(&self, session: &mut Session, interface: &Interface) -> anyhow::Result<Vec<RecordedStep>> {
        self.run(session, interface, true)
    }

    /// Every step of a run that nobody corrects.
    pub fn free_run(&self, session: &mut Session, interface: &Interface) -> anyhow::Result<Vec<RecordedStep>> {
        self.run(session, interface, false)
    }

    fn run(&self, session: &mut Session, interface: &Interface, corrected: bool) -> anyhow::Result<Vec<RecordedStep>> {
        let reads = interface.reads()?;
        self.admit(session, interface)?;
        let mut all = Vec::new();
        for k in 0..self.steps.len() {
            if k > 0 && corrected {
                for (i, values) in self.steps[k - 1].states.iter().enumerate() {
                    session.engine().set_state(i, self.batch, values)?;
                }
            }
            session.advance(1, Rule::Fixed)?;
            all.push(RecordedStep::of(session, reads, interface.states.len(), self.batch)?);
        }
        session.retain(&[])?;
        Ok(all)
    }

    /// Runs under the halting rule; gives each row's steps (recorded steps + 1: not halted) and its logits when it stopped.
    pub fn halting_run(
        &self,
        session: &mut Session,
        interface: &Interface,
    ) -> anyhow::Result<(Vec<u32>, Vec<Vec<f32>>)> {
        let reads = interface.reads()?;
        self.admit(session, interface)?;
        let n = self.steps.len() as u32;
        session.advance(n, Rule::Halt)?;
        let row = |slot: usize| {
            let state = session.slot(slot);
            (if state.halted { state.steps } else { n + 1 }, session.output(reads.logits, slot).to_vec())
        };
        let rows = (0..self.batch).map(row).unzip();
        session.retain(&[])?;
        Ok(rows)
    }

    /// The same for `n` rows from `first` only.
    pub fn rows(&self, first: usize, n: usize) -> Vectors {
        let tokens = self.inputs.len() / self.batch;
        Vectors {
            batch: n,
            inputs: self.inputs[first * tokens..(first + n) * tokens].to_vec(),
            puzzle_ids: self.puzzle_ids[first..first + n].to_vec(),
            steps: self.steps.iter().map(|s| s.rows(self.batch, first, n)).collect(),
            first_halt: self.first_halt.as_ref().map(|h| h[first..first + n].to_vec()),
        }
    }

    /// The rows again and again until there are so many, at most [`MOST_ROWS`]: a batch as large as the timed one may take another way
    /// through an engine (other shapes, another compiled plan), and what is compared must be what is timed.
    pub fn tiled(&self, rows: usize) -> Vectors {
        let mut all = self.clone();
        while self.batch > 0 && all.batch < rows.min(MOST_ROWS) {
            let more = self.rows(0, self.batch.min(rows.min(MOST_ROWS) - all.batch));
            all.batch += more.batch;
            all.inputs.extend(more.inputs);
            all.puzzle_ids.extend(more.puzzle_ids);
            all.steps.iter_mut().zip(more.steps).for_each(|(step, more)| step.extend(more));
            if let (Some(all), Some(more)) = (&mut all.first_halt, more.first_halt) {
                all.extend(more);
            }
        }
        all
    }

    /// Logits recorded for one row after step `k`, from 1.
    pub fn row(&self, k: u32, row: usize) -> &[f32] {
        let logits = &self.steps[k as usize - 1].logits;
        let n = logits.len() / self.batch;
        &logits[row * n..(row + 1) * n]
    }
}

/// Most rows that parity within a case looks at, copies included.
pub const MOST_ROWS: usize = 256;

/// The largest difference over the largest wanted magnitude; infinite where lengths differ or a value on either side is not finite.
pub fn error(got: &[f32], want: &[f32]) -> f64 {
    error_over(got, want, 0.0)
}

fn error_over(got: &[f32], want: &[f32], floor: f64) -> f64 {
    if got.len() != want.len() || got.iter().chain(want).any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let largest = want.iter().fold(floor, |m, v| m.max(f64::from(v.abs())));
    let difference = got.iter().zip(want).fold(0f64, |m, (g, w)| m.max((f64::from(*g) - f64::from(*w)).abs()));
    if difference == 0.0 { 0.0 } else { difference / largest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    fn tiny() -> Model {
        let config = serde_json::json!({"model_type": "trm", "seq_len": 4, "vocab_size": 5, "hidden_size": 8, "num_heads": 2,
            "expansion": 1.0, "H_cycles": 1, "L_cycles": 1, "L_layers": 1});
        Model::random(&config, 1).expect("a small TRM")
    }

    fn session(model: &Model) -> Session {
        let backend = crate::backends::backend("reference").expect("it is always there");
        let options = crate::backends::Options {
            precision: "f64".into(),
            threads: 1,
            capacity: 2,
            extra: Default::default(),
            file: None,
            language: false,
        };
        Session::new(backend.load(model, &options).expect("it loads"), &model.interface, 2).expect("it is whole")
    }

    #[test]
    fn recorded_vectors_are_read_back_and_met_by_their_maker() {
        let model = tiny();
        let inputs = vec![0, 1, 2, 3, 4, 3, 2, 1];
        let made = Vectors::record(&mut session(&model), &model.interface, inputs, vec![0, 0], 3).unwrap();
        let read = Vectors::parse(&made.write(&model.interface).unwrap(), &model.interface).unwrap();
        assert_eq!(read, made);
        let again = read.step_by_step(&mut session(&model), &model.interface).unwrap();
        for (got, want) in again.iter().zip(&read.steps) {
            assert!(got.error(want) < 1e-6);
            let worse = |v: &[f32]| v.iter().map(|v| v * 1.01).collect::<Vec<f32>>();
            let (logits, q) = (worse(&got.logits), worse(&got.q));
            assert!(
                RecordedStep { logits, ..got.clone() }.error(want) > 1e-3,
                "an error of 1 % is seen in the logits,"
            );
            assert!(RecordedStep { q, ..got.clone() }.error(want) > 1e-3, "in the halting head");
            let states = vec![got.states[0].clone(), worse(&got.states[1])];
            assert!(RecordedStep { states, ..got.clone() }.error(want) > 1e-3, "and in every state");
        }
        // the second row alone is the second row of both
        let asked = Vectors::parse(&made.questions().write(&model.interface).unwrap(), &model.interface).unwrap();
        assert!(asked.steps.iter().all(|s| s.logits.is_empty() && s.q.is_empty()) && asked.steps[2].states.is_empty());
        assert_eq!(
            asked.step_by_step(&mut session(&model), &model.interface).unwrap(),
            again,
            "answers are not needed"
        );
        let alone = read.rows(1, 1).step_by_step(&mut session(&model), &model.interface).unwrap();
        assert_eq!(alone[2], again[2].rows(2, 1, 1));
    }

    #[test]
    fn a_judge_that_is_no_number_is_refused() {
        let model = tiny();
        let mut made = Vectors::record(&mut session(&model), &model.interface, vec![1; 4], vec![0], 1).unwrap();
        let refused = |v: &Vectors| {
            Vectors::parse(&v.write(&model.interface).unwrap(), &model.interface).unwrap_err().to_string()
        };
        made.first_halt = Some(vec![0]);
        assert!(refused(&made).contains("first_halt"));
        made.first_halt = None;
        made.steps[0].logits[3] = f32::NAN;
        assert!(refused(&made).contains("NaN"));
    }

    #[test]
    fn outputs_that_are_no_numbers_or_too_few_are_infinitely_wrong() {
        assert_eq!(error(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(error(&[1.0, 2.0], &[1.0, f32::NAN]), f64::INFINITY);
        assert_eq!(error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(error(&[1.0, 2.5], &[1.0, 2.0]), 0.25);
        assert_eq!(error(&[0.5], &[0.0]), f64::INFINITY);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = Vectors::parse(&bytes, &tiny().interface);
        }

        #[test]
        fn no_damage_to_a_real_file_panics(at in 0usize..2000, value: u8) {
            let model = tiny();
            let step = RecordedStep { logits: vec![0.5; 20], q: vec![0.0; 2], states: vec![vec![0.0; 32]; 2] };
            let made = Vectors { batch: 1, inputs: vec![1; 4], puzzle_ids: vec![0], steps: vec![step], first_halt: Some(vec![1]) };
            let mut bytes = made.write(&model.interface).unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Vectors::parse(&bytes, &model.interface);
        }
    }
}
