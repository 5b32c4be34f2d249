//! Logs of trainings, and the records that are read from them: what it took to reach an accuracy, in seconds,
//! operations and joules.
//!
//! In: the text of a `log.csv`, what is known of the net. Out: [`TrainingLog`], [`Record`]s. Must not: interpolate
//! between two evaluations, call a target reached that was not, or put a zero where a log has nothing.
//!
//! A trainer looks at what is held out every so many steps, so that the moment at which an accuracy is reached lies
//! between two evaluations. The record holds the later one, and as its lower end the earlier one; that is a bracket,
//! not an interval of confidence.

use crate::{
    metric::metric,
    missing::Missing,
    record::Record,
    stats::{proportion::wilson, special::Z975},
};

/// Most rows of a log.
const MAX_ROWS: usize = 100_000;
/// Columns of the trainers that are not asked for here.
const OTHERS: [&str; 11] = [
    "learning_rate",
    "loss_cells",
    "loss_halting",
    "train_exact",
    "gradient_norm",
    "cells_full",
    "cells_halting",
    "steps_halting",
    "gflop_per_s",
    "temperature_c",
    "sm_clock_mhz",
];

/// How deep a recursive net goes when it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluatedDepth {
    /// All steps.
    Full,
    /// Until its halting head stops it.
    Halting,
}

impl EvaluatedDepth {
    /// As columns and flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Halting => "halting",
        }
    }
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct LogPoint {
    /// Optimiser steps before it.
    pub step: u64,
    /// Seconds since the training began.
    pub seconds: f64,
    /// Operations of the training steps.
    pub flops: Option<f64>,
    /// Joules of the board, by its counter.
    pub counter: Option<f64>,
    /// The same by its power, added up.
    pub integrated: Option<f64>,
    /// Share of what is held out that was right.
    pub accuracy: f64,
    /// Rows that were evaluated.
    pub n: u64,
}

/// A log as read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingLog {
    /// By time; at least one.
    pub points: Vec<LogPoint>,
    /// The accuracy is of questions that a task decides from several rows: how many, the log does not say.
    pub questions: bool,
    /// Why there are no joules, where a column of them is there and of no use.
    pub no_joules: Option<String>,
    /// What was seen that a reader should know.
    pub notes: Vec<String>,
}

/// What is wrong with a log: line, what, remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// From 1.
    pub line: u64,
    /// What.
    pub message: String,
    /// Remedy.
    pub hint: &'static str,
}

const AS_WRITTEN: &str = "give the log.csv that `ergometer train` or ci/train wrote, as it was written";
const ONE_RUN: &str = "a log is of one training: split it where another one begins";

impl TrainingLog {
    /// Reads the text of a log.
    ///
    /// # Errors
    /// A column that is needed and missing; a cell that is no number, or none that it can be; steps or seconds that go
    /// back; no whole row.
    // Over 80 lines: a line of the file is held to the one before it, and every refusal names its line.
    pub fn read(text: &str, depth: EvaluatedDepth) -> Result<Self, LogError> {
        let wrong = |line: u64, message: String, hint| LogError { line, message, hint };
        let mut lines = text.split_inclusive('\n').zip(1u64..);
        let (header, _) = lines.next().ok_or_else(|| wrong(1, "it is empty".into(), AS_WRITTEN))?;
        let names: Vec<&str> = header.trim_end().split(',').map(str::trim).collect();
        let at = |name: &str| names.iter().position(|n| *n == name);
        let needed = |name: &str| at(name).ok_or_else(|| wrong(1, format!("there is no column `{name}`"), AS_WRITTEN));
        let exact = format!("exact_{}", depth.name());
        let (step, seconds, n, rows) = (needed("step")?, needed("seconds")?, needed("n")?, needed(&exact)?);
        let (flops, counter, integrated) = (at("flops"), at("joules_counter"), at("joules_integrated"));
        let decided = at(&format!("questions_{}", depth.name()));
        let mut log = TrainingLog::default();
        let used = |name: &str| {
            ["step", "seconds", "n", "flops", "joules_counter", "joules_integrated", "power_w"].contains(&name)
                || name.starts_with("exact_")
                || name.starts_with("questions_")
        };
        let unknown: Vec<&str> = names.iter().copied().filter(|n| !used(n) && !OTHERS.contains(n)).take(8).collect();
        if !unknown.is_empty() {
            let names: String = unknown.join(", ").chars().take(200).flat_map(char::escape_debug).collect();
            log.notes.push(format!("columns that are not known here, and were not read: {names}"));
        }
        for (line, number) in lines {
            let cells: Vec<&str> = line.trim_end().split(',').map(str::trim).collect();
            // a line without an end was being written when its writer was ended
            if !line.ends_with('\n') {
                log.notes.push(format!("line {number} is cut off, and was left out"));
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            if cells.len() != names.len() {
                let message = format!("{} cells, the header names {}", cells.len(), names.len());
                return Err(wrong(number, message, AS_WRITTEN));
            }
            if log.points.len() == MAX_ROWS {
                return Err(wrong(number, format!("more than {MAX_ROWS} rows"), ONE_RUN));
            }
            let cell = |i: usize| -> Result<Option<f64>, LogError> {
                match (cells[i], cells[i].parse::<f64>()) {
                    ("", _) => Ok(None),
                    (_, Ok(x)) if x.is_finite() && x >= 0.0 => Ok(Some(x)),
                    (text, _) => {
                        let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
                        Err(wrong(
                            number,
                            format!("`{}` is `{shown}`, which is no number of 0 or more", names[i]),
                            AS_WRITTEN,
                        ))
                    }
                }
            };
            let there =
                |i: usize| cell(i)?.ok_or_else(|| wrong(number, format!("`{}` is empty", names[i]), AS_WRITTEN));
            let maybe = |i: Option<usize>| i.map_or(Ok(None), cell);
            let official = maybe(decided)?;
            log.questions |= official.is_some();
            let point = LogPoint {
                step: there(step)? as u64,
                seconds: there(seconds)?,
                flops: maybe(flops)?,
                counter: maybe(counter)?,
                integrated: maybe(integrated)?,
                accuracy: match official {
                    Some(share) => share,
                    None => there(rows)?,
                },
                n: there(n)? as u64,
            };
            if point.accuracy > 1.0 || point.n == 0 {
                let message = format!("an accuracy of {} over {} rows", point.accuracy, point.n);
                return Err(wrong(number, message, AS_WRITTEN));
            }
            if let Some(before) = log.points.last() {
                if point.step <= before.step || point.seconds < before.seconds {
                    let message = format!(
                        "step {} at {} s comes after step {} at {} s: it goes back",
                        point.step, point.seconds, before.step, before.seconds
                    );
                    return Err(wrong(number, message, ONE_RUN));
                }
                let back = |now: Option<f64>, then: Option<f64>| now.zip(then).is_some_and(|(now, then)| now < then);
                if back(point.flops, before.flops) {
                    return Err(wrong(number, "`flops` go back".into(), ONE_RUN));
                }
                let joules = [(point.counter, before.counter), (point.integrated, before.integrated)];
                if joules.into_iter().any(|(now, then)| back(now, then)) && log.no_joules.is_none() {
                    log.no_joules =
                        Some(format!("they go back at line {number}: a training that went on with a new meter"));
                }
            }
            log.points.push(point);
        }
        if log.points.is_empty() {
            return Err(wrong(2, "no whole row: nothing was evaluated yet".into(), "train on, or give another log"));
        }
        Ok(log)
    }

    /// Place of the first evaluation at or above a target.
    pub fn reached(&self, target: f64) -> Option<usize> {
        // a share that is written with five decimals is not below one that is its own rounding
        self.points.iter().position(|p| p.accuracy >= target - 1e-9)
    }

    /// The best evaluation, the first of several.
    pub fn best(&self) -> &LogPoint {
        let better = |a: &LogPoint, b: &LogPoint| b.accuracy > a.accuracy;
        self.points.iter().skip(1).fold(&self.points[0], |a, b| if better(a, b) { b } else { a })
    }
}

impl LogPoint {
    /// Joules: by the counter where there is one.
    pub fn joules(&self) -> Option<f64> {
        self.counter.or(self.integrated)
    }

    /// Wilson's interval of its accuracy; none where its n is not known.
    pub fn interval(&self, questions: bool) -> Option<(f64, f64)> {
        (!questions).then(|| wilson(self.accuracy, self.n as f64, Z975))
    }

    /// `96.05 % [95.11, 96.81], n = 2048`
    pub fn shown(&self, questions: bool) -> String {
        let share = format!("{:.2} %", 100.0 * self.accuracy);
        match self.interval(questions) {
            Some((low, high)) => format!("{share} [{:.2}, {:.2}], n = {}", 100.0 * low, 100.0 * high, self.n),
            None => format!("{share} of questions, how many the log does not say (of {} rows)", self.n),
        }
    }
}

/// A training: its log, and what its folder says of it.
#[derive(Clone, Debug)]
pub struct TrainingCourse {
    /// Name of the net.
    pub model: String,
    /// Its family.
    pub family: String,
    /// Its task, in words that are the same for the same task.
    pub task: String,
    /// What was evaluated.
    pub data: String,
    /// What trained it.
    pub trainer: String,
    /// Precision of the products.
    pub precision: String,
    /// Where: board or processor.
    pub hardware: String,
    /// Rows of a step; 0: not recorded.
    pub batch: u32,
    /// Compute threads; 0: not recorded.
    pub threads: u32,
    /// How deep it went when it was evaluated.
    pub depth: EvaluatedDepth,
    /// sha256 of the log, hex.
    pub sha256: String,
    /// The log.
    pub log: TrainingLog,
}

/// The three records of each target, in the order of the targets.
pub fn records(training: &TrainingCourse, targets: &[f64]) -> Vec<Record> {
    let names = ["time_to_accuracy", "flops_to_accuracy", "joules_to_accuracy"];
    targets.iter().flat_map(|target| names.map(|name| record(training, *target, name))).collect()
}

// Over 80 lines: a record has so many fields, and each reason why it has no value is said where it is found.
fn record(t: &TrainingCourse, target: f64, name: &str) -> Record {
    let row = metric(name).expect("a row of the table of metrics");
    let questions = t.log.questions;
    let what = if questions { "accuracy of questions" } else { "accuracy" };
    let (value, how): (fn(&LogPoint) -> Option<f64>, &str) = match name {
        "time_to_accuracy" => (
            |p| Some(p.seconds),
            "seconds since the training began, compilation and the evaluations before it included",
        ),
        "flops_to_accuracy" => (
            |p| p.flops,
            "operations of the training steps: forward, and twice the differentiated part for backward; evaluations are not in it",
        ),
        _ if t.log.points.iter().any(|p| p.counter.is_some()) => {
            (|p| p.counter, "joules of the board by its own counter, since the first step; nothing of the host")
        }
        _ => (|p| p.integrated, "joules of the board by its power, added up since the first step; nothing of the host"),
    };
    let mut record = Record {
        case_id: format!("{}-{target}-{}", &t.sha256[..t.sha256.len().min(16)], t.depth.name()),
        path: format!("{}/{}/{}/{}/train-to-{target}/{}", t.task, t.model, t.precision, t.trainer, t.depth.name()),
        task: t.task.clone(),
        model: t.model.clone(),
        family: t.family.clone(),
        backend: t.trainer.clone(),
        precision: t.precision.clone(),
        scenario: format!("train-to-{target}"),
        batch: t.batch,
        threads: t.threads,
        depth: t.depth.name().into(),
        isa: t.hardware.clone(),
        metric: name.into(),
        unit: row.unit.into(),
        better: row.better,
        value: None,
        lower: None,
        upper: None,
        confidence: None,
        n: t.log.best().n,
        method: format!(
            "read from a training log: first evaluation with a held-out {what} of {} % or more ({how}); not interpolated: the lower end is the evaluation before, which was below it, and no interval of confidence",
            percent(target)
        ),
        note: None,
        missing: None,
        baselines: Vec::new(),
        protocol: None,
    };
    let said = format!("on {}; held out: {}", t.hardware, t.data);
    let Some(at) = t.log.reached(target) else {
        let (best, evaluations) = (t.log.best(), t.log.points.len());
        let last = &t.log.points[evaluations - 1];
        let message = format!(
            "{} % was not reached: the best of {} was {} at step {}; the log ends at step {}, after {} s ({said})",
            percent(target),
            ergometer_files::counted(evaluations, "evaluation"),
            best.shown(questions),
            best.step,
            last.step,
            last.seconds
        );
        record.missing =
            Some(Missing::new("not-reached", message, Some("train longer, or ask for less with `--accuracy`")));
        return record;
    };
    let point = &t.log.points[at];
    record.n = point.n;
    let unavailable = match (name, &t.log.no_joules) {
        ("joules_to_accuracy", Some(why)) => Some(format!("the log's joules are of no use: {why}")),
        _ if value(point).is_none() => Some(format!("the log has no {} at step {}", unit_words(name), point.step)),
        _ => None,
    };
    if let Some(why) = unavailable {
        let hint = "the trainer for a GPU (ci/train) logs joules where NVML has them; `ergometer train` does not";
        record.missing = Some(Missing::unavailable(why, (name == "joules_to_accuracy").then_some(hint)));
        return record;
    }
    record.value = value(point);
    record.upper = record.value;
    let mut notes = vec![format!("{what} {} at step {}", point.shown(questions), point.step)];
    match at.checked_sub(1).map(|before| &t.log.points[before]) {
        Some(before) => {
            record.lower = value(before);
            notes.push(format!("the evaluation before had {:.2} % at step {}", 100.0 * before.accuracy, before.step));
        }
        None => {
            record.upper = None;
            notes.push("it is the first evaluation of the log: how much earlier it was reached is not known".into());
        }
    }
    if record.lower.is_none() {
        record.upper = None;
    }
    if point.interval(questions).is_some_and(|(low, _)| low < target) {
        notes.push(
            "the interval of that accuracy begins below the target: by chance it may have been reached too early"
                .into(),
        );
    }
    if let Some(later) = t.log.points[at..].iter().find(|p| p.accuracy < target - 1e-9) {
        notes.push(format!(
            "a later evaluation was below it again ({:.2} % at step {})",
            100.0 * later.accuracy,
            later.step
        ));
    }
    if let (true, Some(counter), Some(integrated)) = (name == "joules_to_accuracy", point.counter, point.integrated) {
        notes.push(format!("its power added up gives {integrated} J ({:+.1} %)", 100.0 * (integrated / counter - 1.0)));
    }
    notes.push(said);
    record.note = Some(ergometer_files::joined(notes));
    record
}

fn unit_words(name: &str) -> &'static str {
    match name {
        "flops_to_accuracy" => "FLOPs",
        "joules_to_accuracy" => "joules",
        _ => "seconds",
    }
}

/// A share in per cent without needless decimals.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", 100.0 * share);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "step,seconds,flops,learning_rate,exact_full,exact_halting,n,joules_counter,joules_integrated\n\
                       100,10.0,1e12,1e-3,0.25,0.2,400,1000,990\n\
                       200,20.0,2e12,1e-3,0.75,0.4,400,2000,1980\n\
                       300,30.0,3e12,1e-3,0.70,0.8,400,3000,2970\n";

    fn training(log: TrainingLog) -> TrainingCourse {
        TrainingCourse {
            model: "net".into(),
            family: "trm".into(),
            task: "sudoku size=4".into(),
            data: "test.csv".into(),
            trainer: "pytorch".into(),
            precision: "bf16".into(),
            hardware: "a board".into(),
            batch: 8,
            threads: 1,
            depth: EvaluatedDepth::Full,
            sha256: "ab".repeat(32),
            log,
        }
    }

    fn found(text: &str, depth: EvaluatedDepth, target: f64) -> Vec<Record> {
        records(&training(TrainingLog::read(text, depth).unwrap()), &[target])
    }

    #[test]
    fn what_is_unavailable_in_a_row_does_not_go_back() {
        let gap = LOG.replace("200,20.0,2e12", "200,20.0,").replace("2000,1980", ",1980");
        let [_, flops, joules] = &found(&gap, EvaluatedDepth::Full, 0.25)[..] else { panic!() };
        assert_eq!((flops.value, joules.value), (Some(1e12), Some(1000.0)));
        let [_, flops, joules] = &found(&gap, EvaluatedDepth::Full, 0.75)[..] else { panic!() };
        assert!(flops.value.is_none() && joules.value.is_none(), "{joules:?}");
        assert!(TrainingLog::read(&LOG.replace("300,30.0,3e12", "300,30.0,1e12"), EvaluatedDepth::Full).is_err());
        let again = found(&LOG.replace("3000,2970", "50,40"), EvaluatedDepth::Full, 0.25);
        assert!(again[2].missing.as_ref().unwrap().message.contains("they go back at line 4"), "{again:?}");
    }

    #[test]
    fn the_first_evaluation_at_or_above_counts_and_the_one_before_bounds_it() {
        for (target, time) in
            [(0.5, Some((20.0, Some(10.0)))), (0.75, Some((20.0, Some(10.0)))), (0.2, Some((10.0, None))), (0.76, None)]
        {
            let records = found(LOG, EvaluatedDepth::Full, target);
            assert_eq!(records.iter().map(|r| r.unit.as_str()).collect::<Vec<_>>(), ["s", "FLOP", "J"]);
            for (record, factor) in records.iter().zip([1.0, 1e11, 100.0]) {
                let near =
                    |a: Option<f64>, b: Option<f64>| a.zip(b).map_or(a == b, |(a, b)| (a / b - 1.0).abs() < 1e-12);
                assert!(near(record.value, time.map(|t| t.0 * factor)), "{record:?}");
                assert!(near(record.lower, time.and_then(|t| t.1).map(|t| t * factor)), "{record:?}");
                assert_eq!(record.upper.is_some(), record.lower.is_some());
                assert_eq!(record.confidence, None);
                assert_eq!(record.missing.is_some(), time.is_none());
            }
        }
        // 300 of 400: Wilson's interval, 0.70532 to 0.78992 by another program
        let note = found(LOG, EvaluatedDepth::Full, 0.75)[0].note.clone().unwrap();
        for part in [
            "75.00 % [70.53, 78.99], n = 400 at step 200",
            "25.00 % at step 100",
            "may have been reached too early",
            "below it again (70.00 % at step 300)",
            "a board",
            "test.csv",
        ] {
            assert!(note.contains(part), "no `{part}` in {note}");
        }
        assert!(found(LOG, EvaluatedDepth::Full, 0.75)[2].note.as_ref().unwrap().contains("1980 J (-1.0 %)"));
        assert_eq!(found(LOG, EvaluatedDepth::Halting, 0.8)[0].value, Some(30.0));
    }

    #[test]
    fn what_was_not_reached_or_logged_is_missing_with_its_reason_and_never_zero() {
        let missing = |r: &Record| r.missing.clone().map(|m| (m.kind, m.message)).unwrap();
        for record in found(LOG, EvaluatedDepth::Full, 0.9) {
            let (kind, message) = missing(&record);
            assert!(kind == "not-reached" && record.value.is_none(), "{record:?}");
            assert!(
                message.contains("best of 3 evaluations was 75.00 %") && message.contains("at step 200"),
                "{message}"
            );
        }
        let plain = "step,seconds,flops,exact_full,n\n1,2.0,,0.5,10\n";
        let records = found(plain, EvaluatedDepth::Full, 0.5);
        assert_eq!(records[0].value, Some(2.0));
        assert_eq!((missing(&records[1]).0, missing(&records[2]).0), ("unavailable".into(), "unavailable".into()));
        // power alone
        let power = "step,seconds,exact_full,n,joules_counter,joules_integrated\n1,2.0,0.5,10,,7\n";
        let joules = &found(power, EvaluatedDepth::Full, 0.5)[2];
        assert!(joules.value == Some(7.0) && joules.method.contains("power, added up"), "{joules:?}");
        // a meter that began anew
        let anew = LOG.replace(",3000,2970", ",500,490");
        let records = found(&anew, EvaluatedDepth::Full, 0.5);
        assert!(records[0].value.is_some() && missing(&records[2]).1.contains("line 4"), "{:?}", records[2]);
        // a task that decides questions: their number is not in the log
        let questions = "step,seconds,exact_full,n,questions_full\n1,2.0,0.2,10,0.5\n";
        let note = found(questions, EvaluatedDepth::Full, 0.5)[0].note.clone().unwrap();
        assert!(note.contains("how many the log does not say"), "{note}");
    }

    #[test]
    fn torn_and_odd_logs_are_read_as_far_as_they_are_whole_or_refused_by_line() {
        let torn = LOG.trim_end_matches('\n');
        let log = TrainingLog::read(&torn[..torn.len() - 3], EvaluatedDepth::Full).unwrap();
        assert_eq!(log.points.len(), 2);
        assert!(log.notes.iter().any(|n| n.contains("line 4 is cut off")), "{:?}", log.notes);
        let log = TrainingLog::read(&LOG.replace("learning_rate", "mood"), EvaluatedDepth::Full).unwrap();
        assert!(log.notes[0].contains("mood"), "{:?}", log.notes);
        for (from, to, line, said) in [
            ("0.75", "NaN", 3, "`exact_full` is `NaN`"),
            ("0.75", "1.75", 3, "an accuracy of 1.75"),
            ("0.75", "", 3, "`exact_full` is empty"),
            ("20.0", "inf", 3, "`seconds` is `inf`"),
            ("30.0", "3.0", 4, "it goes back"),
            ("300,", "200,", 4, "it goes back"),
            ("3e12", "1e12", 4, "`flops` go back"),
            ("2000,1980", "2000", 3, "8 cells, the header names 9"),
            ("seconds", "minutes", 1, "no column `seconds`"),
            ("400,1000", "0,1000", 2, "over 0 rows"),
            ("1000,", "-1,", 2, "`joules_counter` is `-1`"),
        ] {
            let wrong = TrainingLog::read(&LOG.replacen(from, to, 1), EvaluatedDepth::Full).unwrap_err();
            assert!(wrong.line == line && wrong.message.contains(said), "{from}: {wrong:?}");
        }
        assert!(TrainingLog::read("", EvaluatedDepth::Full).is_err());
        assert!(TrainingLog::read(LOG.split_inclusive('\n').next().unwrap(), EvaluatedDepth::Full).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(step|seconds|n|exact_full|flops|[0-9.e,\n-]){0,60}") {
            let head = "step,seconds,n,exact_full,flops\n".to_owned() + &text;
            for text in [text, head] {
                if let Ok(log) = TrainingLog::read(&text, EvaluatedDepth::Full) {
                    let records = records(&training(log), &[0.1, 1.0]);
                    proptest::prop_assert!(records.iter().all(|r| r.value.is_some() != r.missing.is_some()));
                }
            }
        }
    }
}
