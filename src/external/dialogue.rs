//! A dialogue with a program, line by line, of which the last line is kept to show.
//!
//! In: what to ask. Out: what was told, or a [`Wrong`] with its line. Must not: know the order of the walk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use ergometer_files::counted;
use ergometer_reports::case::{CaseError, ErrorKind};
use ergometer_suites::arrays::scorer::Scorer;

use super::{Outcome, Told, Walk};
use crate::clock::monotonic_ns;
use crate::protocol::{Command, Go, IterationSample, Job, Message, Mode, PredictionRow, WORKERS_OWN};
use crate::runner::claims::{self, Window};
use crate::runner::process::{self, Launch, Side, Worker};

/// Bytes of a line that are shown.
const SHOWN: usize = 300;

/// Lines of one block that are told after `measured` at the most.
const MAX_SAMPLES: usize = crate::scenarios::MAX_ITERATIONS;

/// What is wrong, with the line that shows it.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub text: String,
    pub line: Option<String>,
    pub hint: Option<String>,
    /// The program says that it cannot do this: no error.
    pub refused: bool,
}

/// What a timed block told.
pub struct TimedTold {
    pub samples: Vec<IterationSample>,
    pub answers: BTreeMap<u64, PredictionRow>,
    pub window: Window,
    /// The last line with a sample.
    pub sample: Option<String>,
    pub note: Option<String>,
}

/// See the module.
pub struct Dialogue {
    worker: Worker,
    last: Rc<RefCell<String>>,
    block: u32,
    /// What `loaded` named.
    pub scenario: Option<String>,
    /// Answers of record of the last `answer`.
    pub answers: BTreeMap<u64, PredictionRow>,
    /// Least and most steps, examples and rows that were asked for.
    steps: u32,
    fixed: bool,
    /// Tokens of each example; `None`: it is of arrays.
    tokens: Vec<Option<usize>>,
}

/// A line as it is shown.
fn shown(line: &[u8]) -> String {
    let cut = &line[..line.len().min(SHOWN)];
    let more = if line.len() > SHOWN { format!(" ... ({} bytes)", line.len()) } else { String::new() };
    String::from_utf8_lossy(cut).into_owned() + &more
}

impl Dialogue {
    pub fn start(launch: &Launch) -> Result<Self, Wrong> {
        let worker = process::log().and_then(|log| Worker::start(launch, &log));
        let mut worker = worker.map_err(|e| of(&e, None))?;
        let last = Rc::new(RefCell::new(String::new()));
        let kept = last.clone();
        worker.overheard_by(Box::new(move |side, line| {
            if side == Side::Worker {
                *kept.borrow_mut() = shown(line);
            }
        }));
        Ok(Self {
            worker,
            last,
            block: 0,
            scenario: None,
            answers: BTreeMap::new(),
            steps: 1,
            fixed: true,
            tokens: Vec::new(),
        })
    }

    fn line(&self) -> Option<String> {
        Some(self.last.borrow().clone()).filter(|l| !l.is_empty())
    }

    pub fn wrong(&self, text: String, hint: &str) -> Wrong {
        Wrong { text, line: self.line(), hint: Some(hint.into()), refused: false }
    }

    pub fn wrong_of(&self, error: &CaseError, line: Option<String>) -> Wrong {
        of(error, line.or_else(|| self.line()))
    }

    pub fn send(&mut self, line: &str) -> Result<(), Wrong> {
        let written = self.worker.write(&mut line.as_bytes().to_vec());
        written.map_err(|e| self.wrong_of(&e, None))
    }

    fn command(&mut self, command: &Command) -> Result<(), Wrong> {
        let sent = self.worker.send(command);
        sent.map_err(|e| self.wrong_of(&e, None))
    }

    pub fn message(&mut self) -> Result<Message, Wrong> {
        let message = self.worker.message();
        message.map_err(|e| self.wrong_of(&e, None))
    }

    fn unexpected(&self, wanted: &str, got: &Message) -> Wrong {
        self.wrong(
            format!("`{}` came where {wanted} was due", got.kind()),
            "docs/external.md has the order of the lines",
        )
    }

    pub fn hello(&mut self) -> Told {
        match self.message()? {
            Message::Hello(hello) if hello.protocol != crate::protocol::PROTOCOL => Err(self.wrong(
                format!("it speaks protocol {}, ergometer {}", hello.protocol, crate::protocol::PROTOCOL),
                "`hello` carries the number of the protocol, 1",
            )),
            Message::Hello(hello) if hello.name.trim().is_empty() || hello.version.trim().is_empty() => {
                Err(self.wrong("a name or a version is empty".into(), "a number without a version is worthless"))
            }
            Message::Hello(hello) => Ok((Outcome::Right, format!("{} {}", hello.name, hello.version))),
            other => Err(self.unexpected("`hello`", &other)),
        }
    }

    pub fn load(&mut self, job: &serde_json::Value) -> Told {
        let parsed: Job = serde_json::from_value(job["job"].clone()).map_err(|e| Wrong {
            text: format!("our own job is none: {e}"),
            line: None,
            hint: None,
            refused: false,
        })?;
        (self.steps, self.fixed) = (parsed.max_steps, !parsed.halt);
        self.tokens = match parsed.arrays {
            Some(_) => vec![None; parsed.puzzle_ids.len()],
            None => parsed.inputs.iter().map(|tokens| Some(tokens.len())).collect(),
        };
        let begin = Instant::now();
        self.command(&Command::Job(parsed))?;
        let sent = Instant::now();
        loop {
            match self.message()? {
                Message::Loaded(loaded) => {
                    let (least, most) = (sent.elapsed().as_secs_f64(), begin.elapsed().as_secs_f64());
                    let told = self.duration("load time", loaded.seconds, least, most)?;
                    self.scenario = loaded.scenario;
                    let (outcome, text) = told;
                    let device = loaded.options.get("device").or(loaded.versions.get("device"));
                    let device = match device {
                        Some(device) => format!(", on {device}"),
                        None => "; it does not say on which `device` (an option or version of `loaded`), so that joules per right answer cannot be known where boards are metered".into(),
                    };
                    return Ok((outcome, format!("loaded in {text}{device}")));
                }
                Message::Unavailable(u) => self.known(&u.what)?,
                other => return Err(self.unexpected("`loaded`", &other)),
            }
        }
    }

    /// A duration that it told, held to what passed.
    fn duration(&self, what: &str, told: f64, least: f64, most: f64) -> Told {
        match claims::duration(what, told, least, most).map_err(|e| self.wrong_of(&e, None))? {
            Ok(seconds) => Ok((Outcome::Right, ergometer_reports::format::scaled(seconds, "s"))),
            Err(why) => Ok((Outcome::Note, format!("{why}: a run withholds it"))),
        }
    }

    /// Of what a worker may say that it cannot tell.
    fn known(&self, what: &str) -> Result<(), Wrong> {
        if what == "outputs" || WORKERS_OWN.contains(&what) {
            return Ok(());
        }
        let own = WORKERS_OWN.join(", ");
        Err(self.wrong(
            format!("`unavailable` of `{what}`, which is not a worker's to tell"),
            &format!("it may say so of `case`, `outputs`, {own}"),
        ))
    }

    fn go(&mut self, mode: Mode, n: u64, seconds: f64, vectors: Option<&Path>) -> Result<u32, Wrong> {
        let block = self.block;
        self.block += 1;
        let vectors = vectors.map(Path::to_path_buf);
        self.command(&Command::Go(Go { block, mode, n, seconds, steps: 0, vectors, active_experts: None }))?;
        Ok(block)
    }

    pub fn warm(&mut self, seconds: f64) -> Told {
        let begin = Instant::now();
        self.go(Mode::Warm, 0, seconds, None)?;
        match self.message()? {
            Message::Ready(ready) => {
                let most = begin.elapsed().as_secs_f64();
                let (outcome, text) = self.duration("first latency", ready.first_seconds, 0.0, most)?;
                Ok((outcome, format!("first iteration {text}")))
            }
            other => Err(self.unexpected("`ready`", &other)),
        }
    }

    pub fn compare(&mut self, walk: &Walk) -> Told {
        if walk.outputs > 0 {
            return self.compare_file(walk);
        }
        let Some(questions) = walk.questions.as_deref() else {
            return Ok((Outcome::Note, "not asked: there is no reference for this model".into()));
        };
        self.go(Mode::Compare, 0, 0.0, Some(questions))?;
        let (mut steps, mut refused, mut size) = (0, None, None);
        loop {
            match self.message()? {
                Message::Outputs(o) => {
                    if o.step != steps + 1 {
                        return Err(self.wrong(
                            format!("outputs of step {} where step {} was due", o.step, steps + 1),
                            "steps are numbered from 1, in order",
                        ));
                    }
                    if size.is_some_and(|n| n != o.logits.len()) || o.logits.is_empty() {
                        return Err(self.wrong(
                            format!("{} logits", o.logits.len()),
                            "each step has rows x tokens x vocabulary numbers",
                        ));
                    }
                    (steps, size) = (o.step, Some(o.logits.len()));
                }
                Message::Unavailable(u) if u.what == "outputs" && steps == 0 => refused = Some(u.reason),
                Message::Unavailable(u) => self.known(&u.what)?,
                Message::Done(_) => break,
                other => return Err(self.unexpected("`outputs` or `done`", &other)),
            }
        }
        match (refused, steps) {
            (Some(reason), 0) => Ok((Outcome::Note, format!("no outputs ({reason}): its cases are *accuracy only*"))),
            (Some(_), _) => Err(self.wrong(
                "outputs, though it said that there are none".into(),
                "say `unavailable` or `outputs`, not both",
            )),
            (None, 0) => Err(self.wrong(
                "no outputs, and no word about it".into(),
                "say `unavailable` with `what` = `outputs` before `done`",
            )),
            (None, n) => {
                Ok((Outcome::Right, format!("outputs of {}; a run holds them to the reference", counted(n, "step"))))
            }
        }
    }

    /// Outputs of a model that is a file, for the first examples of the job.
    fn compare_file(&mut self, walk: &Walk) -> Told {
        const EXAMPLES: u64 = 4;
        let (block, n) = (self.block, EXAMPLES.min(self.tokens.len() as u64));
        self.block += 1;
        self.command(&Command::Go(Go {
            block,
            mode: Mode::Compare,
            n,
            seconds: 0.0,
            steps: 1,
            vectors: None,
            active_experts: None,
        }))?;
        let (mut sizes, mut refused): (Option<Vec<usize>>, _) = (None, None);
        loop {
            match self.message()? {
                Message::Outputs(o) => {
                    if o.arrays.len() != walk.outputs || o.arrays.iter().any(Vec::is_empty) || sizes.is_some() {
                        return Err(self.wrong(
                            format!("{} of `arrays`, the file has {} that are no states", counted(o.arrays.len(), "output"), walk.outputs),
                            "one `outputs` whose `arrays` hold every output of the file in its order, all rows of each in one list",
                        ));
                    }
                    sizes = Some(o.arrays.iter().map(Vec::len).collect());
                }
                Message::Unavailable(u) if u.what == "outputs" && sizes.is_none() => refused = Some(u.reason),
                Message::Unavailable(u) => self.known(&u.what)?,
                Message::Done(_) => break,
                other => return Err(self.unexpected("`outputs` or `done`", &other)),
            }
        }
        match (sizes, refused) {
            (None, Some(reason)) => {
                Ok((Outcome::Note, format!("no outputs ({reason}): its cases are *accuracy only*")))
            }
            (Some(sizes), None) => Ok((
                Outcome::Right,
                format!(
                    "outputs of {sizes:?} numbers for {}; a run holds them to another engine",
                    counted(n, "example")
                ),
            )),
            _ => Err(self.wrong(
                "outputs and word that there are none, or neither".into(),
                "say `unavailable` with `what` = `outputs`, or `outputs`, before `done`",
            )),
        }
    }

    /// Takes what comes up to `done`; `each` is given what is no answer. Answers of record by example.
    fn block(
        &mut self,
        block: u32,
        mut each: impl FnMut(&Self, Message) -> Result<(), Wrong>,
    ) -> Result<BTreeMap<u64, PredictionRow>, Wrong> {
        let (mut found, mut wrong) = (BTreeMap::new(), None);
        loop {
            let (steps, fixed, tokens) = (self.steps, self.fixed, &self.tokens);
            let heard = self.worker.receive(None, &mut || {}, &mut |row| {
                if let Err(why) = fits(&row, steps, fixed, tokens, &found) {
                    wrong.get_or_insert(why);
                } else if row.last {
                    found.insert(row.example, row);
                }
                Ok(())
            });
            let message = heard.map_err(|e| self.wrong_of(&e, None))?;
            if let Some((text, hint)) = wrong {
                return Err(self.wrong(text, hint));
            }
            match message {
                Message::Predictions(_) => {}
                Message::Done(done) if done.block == block => return Ok(found),
                other => each(self, other)?,
            }
        }
    }

    pub fn answer(&mut self, walk: &Walk) -> Told {
        let block = self.go(Mode::Answer, 0, 0.0, None)?;
        let found = self.block(block, |own, message| match message {
            Message::Routed(_) => Ok(()),
            Message::Unavailable(u) => own.known(&u.what),
            other => Err(own.unexpected("`predictions` or `done`", &other)),
        })?;
        let all = self.tokens.len();
        if let Some(missing) = (0..all as u64).find(|e| !found.contains_key(e)) {
            return Err(self.wrong(
                format!("example {missing} has no answer with `last`"),
                "each example has one answer of record",
            ));
        }
        let set = &walk.task.set;
        for row in found.values() {
            let (example, scorer) = (&set.examples[row.example as usize], set.scorer.as_ref());
            if let Some(Err(why)) = scorer.map(|scorer| scorer.fits(&example.answer, &row.answer)) {
                return Err(self.wrong(
                    format!("the answer to example {} {why}", row.example),
                    "`reading` of the job says what an answer is",
                ));
            }
        }
        let right = found
            .values()
            .filter(|row| walk.task.task.scored(set, &set.examples[row.example as usize], &row.answer).score.exact);
        let text = match set.scorer.as_ref().and_then(Scorer::unscored) {
            Some(_) => format!("{}; none is right or wrong", counted(all, "answer")),
            None => format!("{} of {} right", right.count(), counted(all, "answer")),
        };
        self.answers = found;
        Ok((Outcome::Right, text))
    }

    pub fn time(&mut self, n: u64, seconds: f64) -> Result<TimedTold, Wrong> {
        let opened_ns = monotonic_ns();
        let block = self.go(Mode::Time, n, seconds, None)?;
        let (mut samples, mut measured, mut counted) = (Vec::new(), None, false);
        let (mut sample, mut early) = (None, 0);
        let answers = self.block(block, |own, message| {
            match message {
                Message::Measured(_) if measured.is_none() => measured = Some(monotonic_ns()),
                Message::Measured(_) => {
                    return Err(own.wrong("`measured` came again".into(), "it is said once a block"));
                }
                Message::Sample(s) if samples.len() < MAX_SAMPLES => {
                    early += usize::from(measured.is_none());
                    samples.push(s);
                    sample = own.line();
                }
                Message::Sample(_) => {
                    return Err(
                        own.wrong(format!("more than {MAX_SAMPLES} samples"), "a block ends at 10,000 iterations")
                    );
                }
                Message::Counted(_) if !counted => counted = true,
                Message::Unavailable(u) => {
                    counted |= u.what == "flops_executed";
                    own.known(&u.what)?;
                }
                other => return Err(own.unexpected("`measured`, `sample` or `done`", &other)),
            }
            Ok(())
        })?;
        let notes = [
            measured.is_none().then(|| "no `measured`: telling samples and answers is metered as work".to_string()),
            (early > 0 && measured.is_some())
                .then(|| "samples were told before `measured`, while the clock ran".to_string()),
            (!counted).then(|| "neither `counted` nor `unavailable` of flops_executed".to_string()),
        ];
        let note = notes.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let window = Window { opened_ns, closed_ns: measured.unwrap_or_else(monotonic_ns) };
        Ok(TimedTold { samples, answers, window, sample, note: (!note.is_empty()).then_some(note) })
    }

    pub fn finish(self) -> Told {
        let last = self.last.clone();
        match self.worker.finish() {
            Ok(0) => Ok((Outcome::Right, "it left with exit code 0".into())),
            Ok(n) => {
                Ok((Outcome::Note, format!("{} had left its process group, and were ended", counted(n, "process"))))
            }
            Err(e) => Err(of(&e, Some(last.borrow().clone()).filter(|l| !l.is_empty()))),
        }
    }

    /// After a line that is against the protocol: it must end, and not go on as if nothing were.
    pub fn refuses(mut self, what: &str) -> Told {
        match self.worker.message() {
            Ok(message) => Err(self.wrong(
                format!("after {what} it said `{}`", message.kind()),
                "end with `failed` of kind `protocol`, or with another exit code than 0",
            )),
            Err(error) => match error.kind {
                ErrorKind::Timeout => Err(self.wrong_of(&error, None)),
                ErrorKind::Signal => Ok((Outcome::Note, format!("after {what} it crashed: {}", error.message))),
                ErrorKind::Exit if error.message.contains("exit code 0") => {
                    Ok((Outcome::Note, format!("after {what} it left with exit code 0, without a word")))
                }
                _ => Ok((Outcome::Right, format!("after {what}: {}", first_line(&error.message)))),
            },
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(120).collect()
}

/// What an error of a case is here.
fn of(error: &CaseError, line: Option<String>) -> Wrong {
    let refused = error.kind == ErrorKind::Unavailable;
    let late = (error.kind == ErrorKind::Timeout).then(|| "raise `--timeout` if it needs longer".to_string());
    Wrong { text: error.message.clone(), line, hint: late.or_else(|| error.hint.clone()), refused }
}

/// Whether a row can be an answer.
fn fits(
    row: &PredictionRow,
    steps: u32,
    fixed: bool,
    tokens: &[Option<usize>],
    found: &BTreeMap<u64, PredictionRow>,
) -> Result<(), (String, &'static str)> {
    let e = row.example;
    let Some(cells) = usize::try_from(e).ok().and_then(|e| tokens.get(e)) else {
        return Err((
            format!("an answer to example {e}, there are {}", tokens.len()),
            "`example` is an index into `inputs`",
        ));
    };
    if found.contains_key(&e) {
        return Err((format!("example {e} has a second answer with `last`"), "each example has one answer of record"));
    }
    if row.depth == 0 || row.depth > steps {
        return Err((
            format!("the answer to example {e} took {} steps of {steps}", row.depth),
            "`depth` counts from 1 to `max_steps`",
        ));
    }
    if row.last && fixed && row.depth != steps {
        return Err((
            format!(
                "the answer of record to example {e} took {} steps, without `halt` every row takes {steps}",
                row.depth
            ),
            "with `halt` false every row takes `max_steps` steps",
        ));
    }
    let told = row.answer.tokens().len();
    if let Some(cells) = cells.filter(|cells| !row.answer.tokens().is_empty() && told != *cells) {
        return Err((
            format!("the answer to example {e} has {told} cells, its input {cells}"),
            "an answer has a token for each cell",
        ));
    }
    Ok(())
}

/// A dialogue as both sides said it, from the start of a program to its end.
///
/// # Errors
/// What was wrong.
pub fn transcript(walk: &Walk) -> Result<Vec<(Side, String)>, String> {
    let told = |w: Wrong| w.text;
    let lines = Rc::new(RefCell::new(Vec::new()));
    let kept = lines.clone();
    let mut dialogue = Dialogue::start(&walk.launch()).map_err(told)?;
    dialogue.worker.overheard_by(Box::new(move |side, line| kept.borrow_mut().push((side, shown(line)))));
    dialogue.hello().map_err(told)?;
    dialogue.load(&walk.job(1, "single-stream")).map_err(told)?;
    dialogue.warm(0.0).map_err(told)?;
    dialogue.compare(walk).map_err(told)?;
    dialogue.answer(walk).map_err(told)?;
    dialogue.time(2, 0.0).map_err(told)?;
    dialogue.finish().map_err(told)?;
    Ok(lines.borrow().clone())
}
