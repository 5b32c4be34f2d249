//! Deadlines, memory and joules that a suite asks for: what is missed, by how much, and that nothing is said of others.
//!
//! In: synthetic runs with constraints put into their cases. Out: records, the line of limits, the files that people
//! read. Must not: compare whole sentences where a number decides.

use ergometer_reports::{
    Record, RecordedRun, Report,
    case::Constraints,
    render::FORMATS,
    strip::{Severity, Strip},
};

use crate::synthetic;

/// A run whose good cases have a median latency, a peak and joules; the first is to keep to what `ask` makes of these.
fn asked(ask: impl Fn(f64, f64, f64) -> Constraints) -> (RecordedRun, String) {
    let mut run = synthetic::small();
    let report = Report::new(run.clone());
    let case = run.cases.iter_mut().find(|c| c.case.error.is_none()).unwrap();
    let of = |metric| report.value(&case.case, metric).unwrap();
    case.case.constraints = ask(of("latency"), of("memory_peak"), of("energy_cpu"));
    let id = case.case.id.clone();
    (run, id)
}

fn record<'a>(records: &'a [Record], id: &str, metric: &str) -> &'a Record {
    records.iter().find(|r| r.case_id == id && r.metric == metric).unwrap_or_else(|| panic!("no {metric}"))
}

const METRICS: [&str; 5] = ["deadline_missed", "deadline_overrun", "jitter", "memory_over_limit", "energy_over_max"];

#[test]
fn a_case_that_misses_says_by_how_much_wherever_people_look() {
    let (run, id) = asked(|latency, memory, joules| Constraints {
        deadline: Some(latency),
        memory_limit: Some(memory / 2.0),
        max_energy: Some(joules / 4.0),
        background: 2,
        ..Constraints::default()
    });
    let records = synthetic::summarise(&run);
    let value = |metric: &str| record(&records, &id, metric).value.unwrap();
    // half of the iterations lie above their median
    assert!((value("deadline_missed") - 0.5).abs() < 0.02, "{}", value("deadline_missed"));
    let missed = record(&records, &id, "deadline_missed");
    assert!(
        missed.lower.unwrap() < 0.5 && missed.upper.unwrap() > 0.5 && missed.method.contains("blocks"),
        "{missed:?}"
    );
    assert!(missed.note.as_ref().unwrap().contains("beside 2 threads of background load"), "{missed:?}");
    assert!(value("deadline_overrun") > 1.0 && value("jitter") > 0.0);
    assert!((value("memory_over_limit") - 2.0).abs() < 1e-9 && (value("energy_over_max") - 4.0).abs() < 1e-6);
    let energy = record(&records, &id, "energy_over_max");
    assert!(energy.lower.unwrap() < 4.0 && energy.upper.unwrap() > 4.0, "{energy:?}");
    // the others were asked for nothing
    assert!(records.iter().filter(|r| METRICS.contains(&r.metric.as_str())).all(|r| r.case_id == id));
    let report = Report::new(run);
    let strip = Strip::of(&report);
    let line = strip.line("limits").unwrap();
    assert_eq!(line.state, Severity::Warning);
    for part in ["misses", "of iterations", "of memory, it needs 2.00 times", "an answer, it uses 4.00"] {
        assert!(line.text().contains(part), "{}", line.text());
    }
    for (name, word) in [("html", "deadline_missed"), ("md", "of iterations"), ("csv", "deadline_missed")] {
        let format = FORMATS.iter().find(|f| f.name == name).unwrap();
        let files = (format.render)(&report);
        let found = files.unwrap().iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(word));
        assert!(found, "{name} does not have `{word}`");
    }
    assert!(ergometer_reports::headline::headline(&report, 120).contains("limits"));
}

#[test]
fn a_case_that_keeps_to_everything_is_said_to_and_what_is_not_known_is_not() {
    let (run, id) = asked(|latency, memory, joules| Constraints {
        deadline: Some(100.0 * latency),
        memory_limit: Some(2.0 * memory),
        max_energy: Some(2.0 * joules),
        ..Constraints::default()
    });
    let records = synthetic::summarise(&run);
    assert_eq!(record(&records, &id, "deadline_missed").value, Some(0.0));
    assert!(record(&records, &id, "deadline_missed").upper.unwrap() > 0.0, "none of n says little of the next");
    let strip = Strip::of(&Report::new(run));
    let line = strip.line("limits").unwrap();
    assert!(line.state == Severity::Good && line.text() == "1 case within", "{line:?}");
    // without a meter nothing is known of joules
    let mut run = synthetic::unmetered();
    let case = run.cases.iter_mut().find(|c| c.case.error.is_none()).unwrap();
    case.case.constraints = Constraints { max_energy: Some(1.0), ..Constraints::default() };
    let id = case.case.id.clone();
    let records = synthetic::summarise(&run);
    assert!(record(&records, &id, "energy_over_max").value.is_none());
    let strip = Strip::of(&Report::new(run));
    assert!(strip.line("limits").unwrap().text().contains("is not known"), "{strip:?}");
    // and where nobody asked there is no line
    assert!(Strip::of(&Report::new(synthetic::small())).line("limits").is_none());
}

#[test]
fn constraints_are_in_the_file_where_there_are_any() {
    let (run, id) = asked(|latency, _, _| Constraints { deadline: Some(latency), ..Constraints::default() });
    for case in run.cases.iter().map(|c| &c.case) {
        let text = serde_json::to_string(case).unwrap();
        assert_eq!(text.contains("\"constraints\""), case.id == id, "{text}");
        assert_eq!(serde_json::from_str::<ergometer_reports::case::Case>(&text).unwrap(), *case);
    }
}
