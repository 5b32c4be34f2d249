//! Is a program a correct external backend? Every part of the protocol is walked through, and what is wrong is named with the line that shows it.
//!
//! In: a command, a planned case to ask it. Out: a [`PartFinding`] for each part. Must not: judge answers (a run does), or go on with a process
//! that has broken the protocol: what is left of the walk is done with new ones.
//!
//! Rules are those of `runner::claims` and `runner::process`, the same code, so that what passes here passes in a run. Beside these the
//! walk does what a run never does: lines that are none, a `go` before the job, another version, another mode, an early end of input.

mod dialogue;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ergometer_files::counted;
use serde::Serialize;

use self::dialogue::{Dialogue, Wrong};
use crate::protocol::Message;
use crate::runner::claims;
use crate::runner::plan::{PlannedCase, PlannedTask};
use crate::runner::process::Launch;

pub use self::dialogue::transcript;

/// How a part of the walk came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Right,
    /// No error, and something to know: what a run would withhold or note.
    Note,
    /// Against the protocol.
    Wrong,
    /// The program says that it cannot do this.
    Refused,
}

/// What one part of the walk showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartFinding {
    /// The part.
    pub part: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// In words.
    pub text: String,
    /// The line that shows it, cut where it is long.
    pub line: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

/// Whom to ask what.
pub struct Walk<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// Name of the backend in the job.
    pub name: &'a str,
    /// The case that is asked for: its model, precision, threads, depth.
    pub case: &'a PlannedCase,
    /// Its examples.
    pub task: &'a PlannedTask,
    /// The model's folder.
    pub model: PathBuf,
    /// The questions for `compare`; none where there is no reference.
    pub questions: Option<PathBuf>,
    /// Outputs of a model that is a file, states left out.
    pub outputs: usize,
    /// It takes batches of any size.
    pub batches: bool,
    /// How long the program may say nothing.
    pub silence: Duration,
}

/// Examples that are asked; of a task of arrays the plan must have no more.
pub const EXAMPLES: usize = 12;

/// Rows of an iteration where a batch is asked for: none that divides the examples, so that the last batch wraps round.
const BATCH: usize = 5;

/// Share of a window that iterations must fill, and ms of each block beside it, for latency to be given.
const FILLED: f64 = 0.9;
const BESIDE: f64 = 1e-3;

impl Walk<'_> {
    fn launch(&self) -> Launch {
        Launch {
            command: self.command.to_vec(),
            environment: Vec::new(),
            silence: self.silence,
            isolation: Default::default(),
        }
    }

    /// The job of so many rows an iteration, under a scenario's word.
    fn job(&self, batch: usize, scenario: &str) -> serde_json::Value {
        let examples = &self.task.set.examples;
        let examples = &examples[..examples.len().min(EXAMPLES)];
        let key = &self.case.key;
        let mut job = serde_json::json!({"job": {
            "protocol": crate::protocol::PROTOCOL, "model": self.model, "model_hash": key.model_hash, "backend": self.name, "options": {},
            "precision": key.precision, "threads": key.threads, "scenario": scenario, "batch": batch, "max_steps": self.case.max_steps,
            "halt": self.case.halt, "inputs": examples.iter().map(|e| &e.tokens).collect::<Vec<_>>(),
            "puzzle_ids": examples.iter().map(|e| e.puzzle_id).collect::<Vec<_>>(), "answers": self.task.answers(),
        }});
        if let Some(arrays) = &self.task.arrays {
            // examples of arrays lie in a file
            let of = &mut job["job"];
            of["inputs"] = serde_json::json!([]);
            of["arrays"] = serde_json::json!(std::path::absolute(arrays).unwrap_or_else(|_| arrays.clone()));
            of["reading"] = serde_json::json!(self.task.set.reads);
            of["form"] = serde_json::json!(self.case.file.form);
        }
        job
    }

    /// Walks through everything.
    pub fn check(&self) -> Vec<PartFinding> {
        let mut found = Findings(Vec::new());
        let goes_on = self.whole(&mut found);
        // a program that refuses the examples, or does not load, can be asked nothing else
        if !goes_on {
            return found.0;
        }
        if self.batches {
            self.several(&mut found);
            self.scenario(&mut found);
        }
        self.misuse(&mut found);
        found.0
    }

    /// One process from `hello` to the end of input; whether there is anything more to ask.
    fn whole(&self, found: &mut Findings) -> bool {
        let Some(mut dialogue) = found.take("hello", self.hello()) else { return false };
        let loaded = dialogue.load(&self.job(1, "single-stream"));
        if !found.add("job", loaded) {
            return false;
        }
        let parts: [(&'static str, Ask); 5] = [
            ("warm", &|d| d.warm(0.05)),
            ("compare", &|d| d.compare(self)),
            ("answer", &|d| d.answer(self)),
            ("time", &|d| self.time(d, 1)),
            ("time again", &|d| d.warm(0.0).and_then(|_| self.time(d, 1))),
        ];
        for (part, walk) in parts {
            if !found.add(part, walk(&mut dialogue)) {
                return true;
            }
        }
        found.add("end of input", dialogue.finish());
        true
    }

    fn hello(&self) -> Result<(Dialogue, Told), Wrong> {
        let mut dialogue = Dialogue::start(&self.launch())?;
        let told = dialogue.hello();
        match told {
            Err(wrong) => Err(wrong),
            told => Ok((dialogue, told)),
        }
    }

    /// A process that has loaded a job.
    fn loaded(&self, batch: usize, scenario: &str) -> Result<Dialogue, Wrong> {
        let (mut dialogue, _) = self.hello()?;
        dialogue.load(&self.job(batch, scenario))?;
        Ok(dialogue)
    }

    /// Iterations of several rows, more than divide the examples.
    fn several(&self, found: &mut Findings) {
        let walk = || {
            let mut dialogue = self.loaded(BATCH, &format!("offline-b{BATCH}"))?;
            dialogue.warm(0.0)?;
            dialogue.answer(self)?;
            let told = self.time(&mut dialogue, BATCH);
            dialogue.finish()?;
            told
        };
        found.add("batches", walk());
    }

    /// A scenario that a worker must know: whoever repeats it times rows.
    fn scenario(&self, found: &mut Findings) {
        let word = "multi-stream-4";
        let walk = || {
            let mut dialogue = self.loaded(4, word)?;
            if dialogue.scenario.as_deref() != Some(word) {
                return Ok((Outcome::Note, format!("it does not know `{word}`, whose cases are unavailable with it")));
            }
            dialogue.warm(0.0)?;
            dialogue.answer(self)?;
            self.time(&mut dialogue, 4)
        };
        found.add("scenario", walk());
    }

    /// One timed block of a warm worker that has answered, with so many rows an iteration.
    fn time(&self, dialogue: &mut Dialogue, batch: usize) -> Told {
        let (n, seconds) = (3, 0.2);
        let block = dialogue.time(n, seconds)?;
        let asked = claims::Asked {
            batch: batch as u64,
            max_steps: u64::from(self.case.max_steps),
            examples: self.examples() as u64,
            n,
            most: crate::scenarios::MAX_ITERATIONS,
            seconds,
        };
        let depths: BTreeMap<u64, u64> = block.answers.iter().map(|(e, a)| (*e, u64::from(a.depth))).collect();
        let note = claims::samples(&block.samples, &depths, &asked, &block.window)
            .map_err(|e| dialogue.wrong_of(&e, block.sample.clone()))?;
        for (example, answer) in &block.answers {
            let scored = dialogue.answers.get(example);
            let same = scored.is_some_and(|s| s.answer.agrees(&answer.answer) && s.depth == answer.depth);
            if !same {
                let text =
                    format!("the timed answer to example {example} is not the one of `answer`, or took other steps");
                return Err(dialogue.wrong(text, "what is timed must be the work that was scored"));
            }
        }
        let filled: f64 = block.samples.iter().map(|s| s.latency).sum();
        let share = filled / (claims::seen(&block.samples, &block.window, 0.0, 0.0) - BESIDE).max(filled);
        let done = counted(block.samples.len(), "iteration");
        let mut notes: Vec<String> = note.into_iter().chain(block.note).collect();
        if share < FILLED {
            notes.push(format!(
                "its iterations fill {:.0} % of the time from `go` to `measured`: below 90 % a run withholds latency (a busy machine, or iterations too short for their loop: take a larger batch)",
                100.0 * share
            ));
        }
        match notes.is_empty() {
            true => Ok((Outcome::Right, format!("{done}, with the answers that were scored"))),
            false => Ok((Outcome::Note, format!("{done}; {}", notes.join("; ")))),
        }
    }

    fn examples(&self) -> usize {
        self.task.set.examples.len().min(EXAMPLES)
    }

    /// Lines that no run sends. A program may end, with any words; it must not go on as if they were right, nor hang.
    fn misuse(&self, found: &mut Findings) {
        let job = || self.job(1, "single-stream");
        let mut other = job();
        other["job"]["protocol"] = 999.into();
        let warm = r#"{"go":{"block":0,"mode":"warm","seconds":0.0}}"#.to_string();
        let cases: [(&'static str, Vec<String>, &str); 5] = [
            ("misuse: no JSON", vec!["this is no JSON".into()], "a line that is no JSON"),
            ("misuse: go first", vec![warm.clone()], "a `go` before the job"),
            ("misuse: version", vec![other.to_string()], "a job of protocol 999"),
            (
                "misuse: mode",
                vec![job().to_string(), r#"{"go":{"block":0,"mode":"dance"}}"#.into()],
                "a mode that there is not",
            ),
            ("misuse: job twice", vec![job().to_string(), job().to_string()], "a second job"),
        ];
        for (part, lines, what) in cases {
            let walk = || {
                let (mut dialogue, _) = self.hello()?;
                let last = lines.len() - 1;
                for (i, line) in lines.iter().enumerate() {
                    dialogue.send(line)?;
                    if i < last && !matches!(dialogue.message()?, Message::Loaded(_)) {
                        return Err(dialogue.wrong("`loaded` was due".into(), "after the job comes `loaded`"));
                    }
                }
                dialogue.refuses(what)
            };
            found.add(part, walk());
        }
        let early = || {
            let (dialogue, _) = self.hello()?;
            dialogue.finish()
        };
        found.add("misuse: early end", early());
    }
}

/// A part of the walk.
type Ask<'a> = &'a dyn Fn(&mut Dialogue) -> Told;

/// What a part showed, if it broke nothing.
type Told = Result<(Outcome, String), Wrong>;

/// Findings so far.
struct Findings(Vec<PartFinding>);

impl Findings {
    /// Adds what a part showed; whether the walk can go on with its process.
    fn add(&mut self, part: &'static str, told: Told) -> bool {
        let (outcome, text, line, hint) = match told {
            Ok((outcome, text)) => (outcome, text, None, None),
            Err(Wrong { text, line, hint, refused }) => {
                (if refused { Outcome::Refused } else { Outcome::Wrong }, text, line, hint)
            }
        };
        self.0.push(PartFinding { part, outcome, text, line, hint });
        matches!(outcome, Outcome::Right | Outcome::Note)
    }

    fn take<T>(&mut self, part: &'static str, made: Result<(T, Told), Wrong>) -> Option<T> {
        match made {
            Ok((made, told)) => self.add(part, told).then_some(made),
            Err(wrong) => {
                self.add(part, Err(wrong));
                None
            }
        }
    }
}
