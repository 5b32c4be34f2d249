//! Reports: the same run gives the same bytes, golden files show what they are, and untrusted text stays text.
//!
//! In: synthetic runs. Out: verdicts; `UPDATE_GOLDEN=1` rewrites the golden files, `LOOK_AT=DIR` writes a large report
//! to look at. Must not: compare pictures byte by byte with stored ones.

use std::{env, fs, path::Path};

use ergometer_reports::{
    RecordedRun, Report,
    case::Sample,
    plot::{palette::PALETTE, plots},
    render::{self, FORMATS, format, headline},
};

use proptest::prelude::*;

use crate::synthetic::{self, Edit};

fn text(format_name: &str, report: &Report) -> String {
    let files = (format(format_name).unwrap().render)(report).unwrap();
    String::from_utf8(files[0].1.clone()).unwrap()
}

#[test]
fn golden_files() {
    let report = Report::new(synthetic::small());
    let decided = Report::new(synthetic::decided());
    let turns = Report::new(synthetic::turns());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let outputs = [
        ("synthetic.html", text("html", &report)),
        ("synthetic.md", text("md", &report)),
        ("synthetic.csv", text("csv", &report)),
        ("synthetic.txt", headline(&report, 160)),
        ("synthetic-narrow.txt", headline(&report, 60)),
        ("decided.md", text("md", &decided)),
        ("decided.txt", headline(&decided, 160)),
        ("decided.csv", text("csv", &decided)),
        ("turns.md", text("md", &turns)),
        ("turns.txt", headline(&turns, 160)),
    ];
    for (name, now) in outputs {
        let path = folder.join(name);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &now).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        let differs = golden.lines().zip(now.lines()).position(|(a, b)| a != b);
        assert!(golden == now, "{name} differs from line {differs:?} on; look at it, then UPDATE_GOLDEN=1");
    }
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    synthetic::write(&synthetic::small(), dir.path());
    let report = Report::new(ergometer_reports::load(dir.path()).unwrap());
    let again = Report::new(synthetic::small());
    for format in FORMATS {
        let (a, b) = ((format.render)(&report).unwrap(), (format.render)(&again).unwrap());
        // these formats are of language models, and the run has none
        let of_language = ["llama-bench", "lm-eval", "every-eval-ever"].contains(&format.name);
        assert!(a.is_empty() == of_language, "{}", format.name);
        assert!(a == b, "{} differs", format.name);
    }
}

#[test]
fn text_of_a_case_stays_text() {
    let mut run = synthetic::small();
    for case in &mut run.cases {
        case.case.key.model = "<script>alert(1)</script>\u{1b}[2J".into();
        case.case.key.backend = "\u{202e}dnekcab</title></style><style>".into();
        case.case.notes.push("</main><img src=x onerror=alert(1)>".into());
    }
    let report = Report::new(run);
    let page = text("html", &report);
    assert!(page.matches("<script").count() == 1 && !page.contains("<img"), "one script, the page's own");
    assert!(page.contains("&lt;script&gt;") && !page.contains('\u{1b}') && !page.contains('\u{202e}'));
    // what got in all the same would not be run: the policy names one script and one style by their hashes
    let policy = page.lines().find(|l| l.contains("Content-Security-Policy")).unwrap();
    assert!(policy.contains("default-src 'none'") && policy.matches("'sha256-").count() == 2, "{policy}");
    assert!(!policy.contains("unsafe") && !page.contains(" style="), "{policy}");
    let markdown = text("md", &report);
    assert!(!markdown.contains("<script") && !markdown.contains("<img"));
    assert!(!headline(&report, 80).contains('\u{1b}'));
    // the PNG writer parses each SVG, and fails on bad markup
    (format("png").unwrap().render)(&report).unwrap();
}

#[test]
fn the_page_needs_no_network_and_knows_every_colour() {
    let mut run = synthetic::large();
    run.cases.extend(synthetic::turns().cases);
    let report = Report::new(run);
    let page = text("html", &report);
    assert!(
        page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "").find("http").is_none(),
        "a link to somewhere"
    );
    for plot in plots(&report).unwrap() {
        for part in plot.svg.split(['"', '>']).filter(|p| p.starts_with('#') && p.len() == 7) {
            let known = PALETTE.iter().any(|(light, _)| light.to_string() == part);
            assert!(known, "{part} in {}", plot.name);
            assert!(page.contains(&format!("[fill=\"{part}\"]")), "{part} has no dark twin");
        }
    }
}

#[test]
fn pictures_are_pictures() {
    let report = Report::new(synthetic::small());
    let files = (format("png").unwrap().render)(&report).unwrap();
    assert_eq!(files.len(), plots(&report).unwrap().len());
    for (name, bytes) in files {
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 5_000, "{name}: {} bytes", bytes.len());
    }
}

#[test]
fn a_run_of_failures_or_of_nothing_still_has_a_report() {
    let mut run = synthetic::small();
    run.cases.retain(|c| c.case.error.is_some());
    let failures = Report::new(run.clone());
    run.cases.clear();
    let nothing = Report::new(run);
    for report in [&failures, &nothing] {
        assert!(plots(report).unwrap().is_empty());
        for format in FORMATS {
            (format.render)(report).unwrap();
        }
    }
    assert!(headline(&failures, 80).contains("timeout"));
}

#[test]
fn baselines_and_attempts_stand_beside_every_score() {
    let report = Report::new(synthetic::decided());
    let line = "Without a model: copy the input 3.3\u{202f}% (2 of 60), best single lookup 13.3\u{202f}% (8 of 60).";
    for format in ["html", "md"] {
        let text = text(format, &report);
        assert!(text.contains(line), "{format}");
        assert!(text.contains("vote 2: 75 attempts, "), "{format}: where second attempts came from");
    }
    assert!(headline(&report, 200).contains(&line.replace('\u{202f}', " ")));
    assert!(text("csv", &report).contains("copy the input=2/60; best single lookup=8/60"));
    let json: serde_json::Value = serde_json::from_str(&text("json", &report)).unwrap();
    let rows = json["records"].as_array().unwrap();
    let accuracies: Vec<_> = rows.iter().filter(|r| r["metric"] == "accuracy").collect();
    assert!(accuracies.len() == 4 && accuracies.iter().all(|r| r["baselines"][1]["right"] == 8));
    assert!(rows.iter().all(|r| r["metric"] == "accuracy" || r.get("baselines").is_none()));
    let drawn = plots(&report).unwrap();
    for name in ["accuracy-latency", "accuracy-flops", "accuracy-depth"] {
        let plot = drawn.iter().find(|p| p.name == name).unwrap();
        assert!(plot.svg.contains("copy the input") && plot.svg.contains("best single lookup"), "{name}");
        assert!(plot.caption.contains("without a model, copy the input"), "{name}: {}", plot.caption);
    }
    // where nothing is named nothing is said
    assert!(!text("md", &Report::new(synthetic::small())).contains("Without a model"));
}

#[test]
fn a_roofline_has_a_roof_for_each_precision_and_a_mark_for_each_case() {
    let report = Report::new(synthetic::precisions());
    let drawn = plots(&report).unwrap();
    let plot = drawn.iter().find(|p| p.name == "roofline").expect("every case has a ceiling");
    for roof in ["f32 arithmetic, 2 threads: 200", "bf16 arithmetic, 2 threads: 400", "int8 arithmetic, 2 threads: 480"]
    {
        assert!(plot.caption.contains(roof), "{roof} in {}", plot.caption);
    }
    // lines are named in the key
    for name in [
        "int8 arithmetic, 2 threads: 480",
        "bf16 arithmetic, 2 threads: 400",
        "f32 arithmetic, 2 threads: 200",
        "memory: 14",
    ] {
        assert!(plot.svg.split("<text").any(|t| t.contains(&format!(">{name}"))), "{name}");
    }
    let held = report.records.iter().filter(|r| r.metric == "share_of_ceiling" && r.value.is_some()).count();
    assert!(held > 3 && plot.caption.contains(&format!("what {held} cases reach")), "{held}: {}", plot.caption);
    let mut run = synthetic::precisions();
    run.environment.ceilings = None;
    assert!(plots(&Report::new(run)).unwrap().iter().all(|p| p.name != "roofline"), "nothing was measured");
    // a run that did not count bytes has shares, but no place on the axis
    let mut run = synthetic::precisions();
    run.cases.iter_mut().for_each(|c| c.case.costs.as_mut().unwrap().step_weight_bytes = 0.0);
    run.cases.iter_mut().for_each(|c| c.case.costs.as_mut().unwrap().step_value_bytes = 0.0);
    let report = Report::new(run);
    assert!(plots(&report).unwrap().iter().all(|p| p.name != "roofline"));
    assert!(text("md", &report).contains("## Share of the ceiling"));
}

#[test]
fn every_note_has_a_mark_where_it_holds_and_every_mark_its_note() {
    let mut seen = 0;
    for run in [synthetic::small(), synthetic::large(), synthetic::turns(), synthetic::decided(), synthetic::checked()]
    {
        let page = text("html", &Report::new(run));
        let ids = |before: &str| -> Vec<String> {
            page.split(before).skip(1).map(|t| t.split('"').next().unwrap().to_owned()).collect()
        };
        let (notes, marks) = (ids("<li id=\"note-"), ids("href=\"#note-"));
        for note in &notes {
            assert!(marks.contains(note), "note {note} has no mark");
        }
        for mark in &marks {
            assert_eq!(notes.iter().filter(|n| *n == mark).count(), 1, "mark {mark}");
        }
        // a raised digit reads as an exponent
        assert!(!page.contains("<sup>") && page.contains(">[a]</a>") != notes.is_empty());
        seen += notes.len();
        // the reason of a column that nobody has is told once, in its own line
        for line in page.split("No case has a value of ").skip(1) {
            let why = line.split_once(": ").unwrap().1.split("</p>").next().unwrap().trim_end_matches('.');
            assert!(!page.contains(&format!("</span> {why}</li>")), "{why}");
        }
    }
    assert!(seen > 5, "{seen} notes");
}

#[test]
fn a_search_finds_a_case_by_all_that_the_page_calls_it() {
    // the words of each row are those of its section and path: what all cases share is left out of their names
    let page = text("html", &Report::new(synthetic::decided()));
    let section = page.split("<section class=\"task\"").nth(1).unwrap();
    assert!(section.starts_with(" data-words=\"rules-10x10 "), "{}", &section[..80]);
    let table = section.split("</table>").next().unwrap();
    assert_eq!(table.matches("<tr data-case=").count(), 4);
    assert_eq!(table.matches("data-words=\"rules-10x10&#x2f;").count(), 4, "each with its path");
    // every other table's rows say whose they are
    for rest in page.split("class=\"attempts\"").skip(1) {
        let rows = rest.split("<tbody>").nth(1).unwrap().split("</tbody>").next().unwrap();
        assert!(
            rows.matches("<tr").count() > 0 && rows.matches("<tr").count() == rows.matches("<tr data-case=").count()
        );
    }
    let mut details = page.split("<details id=\"case-").skip(1).map(|t| t.split('>').next().unwrap());
    assert!(details.all(|head| head.contains("data-case=\"")));
    assert!(page.contains("no case matches"));
}

#[test]
fn joules_are_on_the_page() {
    let report = Report::new(synthetic::small());
    let case = &report.run.cases.iter().find(|c| c.case.error.is_none()).unwrap().case;
    let shown = ergometer_reports::shown::value(report.record(case, "joules_per_right").unwrap()).unwrap();
    assert!(text("html", &report).contains(&shown), "{shown}");
}

#[test]
fn everything_lands_in_the_run_folder() {
    let dir = tempfile::tempdir().unwrap();
    synthetic::write(&synthetic::small(), dir.path());
    let folder = ergometer_reports::RunFolder::open(dir.path()).unwrap();
    let report = Report::new(ergometer_reports::load(dir.path()).unwrap());
    report.write_records(&folder).unwrap();
    let written =
        render::write(&report, &[format("html").unwrap(), format("svg").unwrap()], &dir.path().join("report")).unwrap();
    assert!(written.iter().all(|p| p.metadata().unwrap().len() > 500));
    assert!(dir.path().join("records.csv").is_file() && dir.path().join("report/index.html").is_file());
    // a report in the folder changes nothing about the run
    assert_eq!(ergometer_reports::load(dir.path()).unwrap(), report.run);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A file may hold any finite number; none of them stops a report or makes it endless.
    #[test]
    fn absurd_numbers_still_make_a_report(
        values in prop::collection::vec(prop::sample::select(vec![0.0, -1.0, 1e-3, 1.0, 1e300, -1e308, f64::MAX, 5e-324]), 1..30),
        metric in prop::sample::select(vec!["latency", "energy_cpu", "memory_peak", "steps_used", "harness_cpu"]),
        depth in prop::sample::select(vec![1, 2, 9, 1000, u32::MAX]),
        row in prop::sample::select(vec![0, 1, u64::MAX]),
    ) {
        let mut run = synthetic::small();
        run.cases.extend(synthetic::turns().cases);
        for case in &mut run.cases {
            let mut values = values.iter().cycle();
            let absurd = |s: &mut Sample| (s.value, s.rows) = (*values.next().unwrap(), Some(row));
            case.samples.edit(|s| s.metric == metric, absurd);
            if let Some(answer) = case.predictions.last_mut() {
                answer.depth = depth;
            }
        }
        let report = Report::new(run);
        for r in &report.records {
            prop_assert!([r.value, r.lower, r.upper].into_iter().flatten().all(f64::is_finite), "{:?}", r);
        }
        for format in FORMATS.iter().filter(|f| f.name != "png") {
            (format.render)(&report).unwrap();
        }
        headline(&report, 80);
    }
}

/// One case that ended well, and nothing else.
fn one() -> RecordedRun {
    let mut run = synthetic::sixty();
    run.cases.truncate(1);
    run
}

/// Cases that all failed.
fn failures() -> RecordedRun {
    let mut run = synthetic::large();
    run.cases.retain(|c| c.case.error.is_some());
    let hung = synthetic::small().cases.into_iter().filter(|c| c.case.error.is_some());
    run.cases.extend(hung);
    run
}

/// Writes everything for people to look at.
#[test]
fn look() {
    let Some(dir) = env::var_os("LOOK_AT") else { return };
    for (name, run) in [
        ("small", synthetic::small()),
        ("large", synthetic::large()),
        ("unmetered", synthetic::unmetered()),
        ("decided", synthetic::decided()),
        ("turns", synthetic::turns()),
        ("precisions", synthetic::precisions()),
        ("checked", synthetic::checked()),
        ("sixty", synthetic::sixty()),
        ("one", one()),
        ("failures", failures()),
    ] {
        let report = Report::new(run);
        let dir = Path::new(&dir).join(name);
        render::write(&report, &FORMATS.iter().collect::<Vec<_>>(), &dir).unwrap();
        for width in [80, 170] {
            fs::write(dir.join(format!("headline-{width}.txt")), headline(&report, width)).unwrap();
        }
    }
}
