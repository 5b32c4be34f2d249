//! The first lines of terminal and page: what they say of runs of known ends.
//!
//! In: synthetic runs. Out: verdicts. Must not: compare whole sentences where a number decides.

use ergometer_reports::{
    Report,
    case::Verdict,
    strip::{Severity, Strip},
};

use crate::synthetic::{self, Edit};

fn text(strip: &Strip, title: &str) -> String {
    strip.line(title).unwrap_or_else(|| panic!("no line {title}: {strip:?}")).text()
}

#[test]
fn every_run_says_machine_load_energy_and_ends() {
    for run in
        [synthetic::small(), synthetic::large(), synthetic::unmetered(), synthetic::decided(), synthetic::turns()]
    {
        let strip = Strip::of(&Report::new(run));
        for title in ["machine", "load", "energy", "cases", "intervals"] {
            assert!(!text(&strip, title).is_empty(), "{title}");
        }
    }
    let mut run = synthetic::small();
    run.cases.clear();
    assert_eq!(Strip::of(&Report::new(run)).line("cases").unwrap().state, Severity::Warning);
    // of a run of failures nothing is said that only numbers have, and no meter is blamed
    let mut run = synthetic::large();
    run.cases.retain(|c| c.case.error.is_some());
    let strip = Strip::of(&Report::new(run));
    assert!(strip.line("intervals").is_none() && strip.line("fastest").is_none());
    assert_eq!(text(&strip, "energy"), "not metered, since no case ended well");
    let mut run = synthetic::small();
    run.cases.retain(|c| c.case.error.is_none());
    run.cases.truncate(1);
    assert!(text(&Strip::of(&Report::new(run)), "load").ends_with("; it did not drift"));
    let mut run = synthetic::small();
    run.cases.iter_mut().for_each(|c| c.case.starts = vec![0, 1]);
    assert!(text(&Strip::of(&Report::new(run)), "intervals").contains("over the starts of this run"));
}

#[test]
fn energy_says_of_what_or_why_not() {
    let metered = Strip::of(&Report::new(synthetic::large()));
    assert!(text(&metered, "energy").contains("processor packages"), "{metered:?}");
    let mut run = synthetic::unmetered();
    run.environment.meters[0].unavailable = Some("hidden from this virtual machine\nsecond line".into());
    let text = text(&Strip::of(&Report::new(run)), "energy");
    assert!(text.starts_with("not metered") && text.contains("hidden from this") && !text.contains("second"), "{text}");
}

#[test]
fn failures_are_counted_with_their_first_reason() {
    let strip = Strip::of(&Report::new(synthetic::large()));
    let line = strip.line("cases").unwrap();
    assert_eq!(line.state, Severity::Bad);
    assert!(line.text().starts_with("2 of 36 cases"), "{}", line.text());
    assert!(line.text().contains("2 × out-of-memory") && line.items[1].case.is_some(), "{}", line.text());
}

#[test]
fn the_fastest_is_right_and_has_a_rival() {
    let report = Report::new(synthetic::large());
    let strip = Strip::of(&report);
    let line = strip.line("fastest").unwrap();
    for item in line.items.iter().filter(|i| i.case.is_some()) {
        let case = |id: &str| report.run.cases.iter().map(|c| &c.case).find(|c| c.id == id).unwrap();
        let best = case(item.case.as_ref().unwrap());
        let rivals = report.run.cases.iter().map(|c| &c.case).filter(|c| {
            c.error.is_none()
                && (&c.key.task, &c.key.model, c.key.batch) == (&best.key.task, &best.key.model, best.key.batch)
        });
        let least = rivals.filter_map(|c| report.value(c, "latency")).fold(f64::INFINITY, f64::min);
        assert_eq!(report.value(best, "latency"), Some(least));
    }
    // outputs that nobody compared win nothing
    let mut run = synthetic::large();
    for case in run.cases.iter_mut().filter(|c| c.case.key.backend == "native") {
        case.case.verdict = Some(Verdict::AccuracyOnly);
    }
    let report = Report::new(run);
    let fastest = Strip::of(&report).line("fastest").unwrap().clone();
    let winners = fastest.items.iter().filter_map(|i| i.case.clone());
    let backends: Vec<_> =
        winners.map(|id| report.run.cases.iter().find(|c| c.case.id == id).unwrap().case.key.backend.clone()).collect();
    assert!(!backends.is_empty() && backends.iter().all(|b| b != "native"), "{backends:?}");
    assert!(fastest.text().contains("without compared outputs left out"), "{}", fastest.text());
    // one case beats nobody
    let mut run = synthetic::small();
    run.cases.retain(|c| c.case.error.is_none());
    run.cases.truncate(1);
    assert!(Strip::of(&Report::new(run)).line("fastest").is_none());
}

#[test]
fn one_iteration_names_no_winner() {
    let report = Report::new(synthetic::checked());
    let strip = Strip::of(&report);
    let line = strip.line("fastest").unwrap();
    assert!(line.items.iter().all(|i| i.case.is_none()), "{}", line.text());
    assert_eq!(line.text(), "none can be told: the least latency has no interval");
    // nobody wins beside a faster one without an interval
    let mut run = synthetic::large();
    for case in run.cases.iter_mut().filter(|c| c.case.key.backend == "native" && c.case.key.model == "trm-mlp") {
        case.samples.retain(|s| s.phase != "steady" || s.block == 0 && s.iteration.is_none_or(|i| i == 0));
    }
    let line = Strip::of(&Report::new(run)).line("fastest").unwrap().clone();
    assert!(line.text().contains("none of 2 more groups can be told"), "{}", line.text());
    assert!(!line.text().contains("trm-mlp"), "{}", line.text());
    // and who wins beside one without an interval says so
    let mut run = synthetic::large();
    for case in run.cases.iter_mut().filter(|c| c.case.key.backend == "candle") {
        case.samples.retain(|s| s.phase != "steady" || s.block == 0 && s.iteration.is_none_or(|i| i == 0));
    }
    let line = Strip::of(&Report::new(run)).line("fastest").unwrap().clone();
    assert!(line.items[0].text.ends_with("(another one has no interval)"), "{}", line.text());
    // one cluster has no interval, and one model no rival
    let mut run = synthetic::checked();
    run.cases.iter_mut().flat_map(|c| &mut c.predictions).for_each(|p| p.cluster = 0);
    let text = text(&Strip::of(&Report::new(run.clone())), "most accurate");
    assert_eq!(text, "none can be told: the highest accuracy has no interval");
    run.cases.retain(|c| c.case.key.model == "hrm");
    assert!(Strip::of(&Report::new(run)).line("most accurate").is_none());
}

#[test]
fn drift_and_other_work_ask_for_attention() {
    assert_eq!(Strip::of(&Report::new(synthetic::turns())).line("load").unwrap().state, Severity::Plain);
    let mut run = synthetic::large();
    run.cases[0].samples.edit(|s| s.metric == "latency" && s.block == 2, |s| s.value *= 1.7);
    let strip = Strip::of(&Report::new(run));
    assert_eq!(strip.line("load").unwrap().state, Severity::Warning);
    assert!(text(&strip, "load").contains(" of 34 cases drifted"), "{}", text(&strip, "load"));
}

#[test]
fn the_most_accurate_model_is_named_for_each_task() {
    let report = Report::new(synthetic::large());
    let strip = Strip::of(&report);
    let line = strip.line("most accurate").unwrap();
    assert_eq!(line.items.len(), 2, "{}", line.text());
    for item in &line.items {
        let best = &report.run.cases.iter().find(|c| Some(&c.case.id) == item.case.as_ref()).unwrap().case;
        let rivals = report.run.cases.iter().filter(|c| c.case.key.task == best.key.task);
        let most = rivals.filter_map(|c| report.value(&c.case, "accuracy")).fold(0.0, f64::max);
        assert_eq!(report.value(best, "accuracy"), Some(most));
        assert!(item.text.contains(&best.key.model), "{}", item.text);
    }
    // where nothing is right nobody is best
    let mut run = synthetic::large();
    run.cases.iter_mut().flat_map(|c| &mut c.predictions).for_each(|p| p.exact = false);
    let line = Strip::of(&Report::new(run)).line("most accurate").unwrap().clone();
    assert!(line.items.iter().all(|i| i.case.is_none() && i.text.contains("no case has a right answer")));
}
