//! The run folder: written whole or not at all, read back equal, and refused clearly when it is bad.
//!
//! In: synthetic runs and arbitrary bytes. Out: verdicts. Must not: touch anything outside a temporary folder.

use std::{fs, io::Write, path::Path};

use ergometer_reports::{
    RunFolder, Samples,
    case::Sample,
    load, slug,
    store::{MAX_CASES, MAX_ROWS},
};
use proptest::prelude::*;

use crate::synthetic;

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let run = synthetic::small();
    synthetic::write(&run, dir.path());
    assert_eq!(load(dir.path()).unwrap(), run);
    let ids = RunFolder::open(dir.path()).unwrap().finished().unwrap();
    assert!(ids.iter().eq(run.cases.iter().map(|c| &c.case.id).collect::<std::collections::BTreeSet<_>>()));
}

#[test]
fn answers_judged_by_their_rules_too_have_one_column_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = synthetic::small();
    let mut answered = (0..run.cases.len()).filter(|&i| run.cases[i].predictions.len() > 3);
    let (judged, other) = (answered.next().unwrap(), answered.next().unwrap());
    run.cases[judged].predictions.iter_mut().enumerate().for_each(|(i, p)| p.valid = Some(i % 3 == 0));
    synthetic::write(&run, dir.path());
    assert_eq!(load(dir.path()).unwrap(), run);
    let file = |i: usize| {
        let case = &run.cases[i].case;
        dir.path().join("cases").join(slug(&case.path, &case.id)).join("predictions.csv")
    };
    let header = |i: usize| fs::read_to_string(file(i)).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(header(judged), format!("{},valid", header(other)));
    // and so with how hard the examples are
    let hard = tempfile::tempdir().unwrap();
    let mut rated = run.clone();
    rated.cases.iter_mut().flat_map(|c| &mut c.predictions).for_each(|p| p.difficulty = Some(p.example as u32 / 3));
    synthetic::write(&rated, hard.path());
    assert_eq!(load(hard.path()).unwrap(), rated);
    let rated_header = |i: usize| {
        let text = fs::read_to_string(hard.path().join(file(i).strip_prefix(dir.path()).unwrap())).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(rated_header(judged), format!("{},difficulty", header(judged)));
    assert_eq!(rated_header(other), format!("{},difficulty", header(other)));
    let text = fs::read_to_string(file(judged)).unwrap();
    for (from, to) in [("cells,valid", "cells,vaild"), ("true\n", "maybe\n"), ("true\n", "true,true\n")] {
        fs::write(file(judged), text.replacen(from, to, 1)).unwrap();
        let said = load(dir.path()).unwrap_err().to_string();
        assert!(said.contains("predictions.csv") && said.contains("line"), "{said}");
    }
}

#[test]
fn a_run_from_before_ceilings_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = synthetic::small();
    run.environment.ceilings = None;
    synthetic::write(&run, dir.path());
    assert!(!fs::read_to_string(dir.path().join("environment.json")).unwrap().contains("ceilings"));
    for case in &mut run.cases {
        let path = dir.path().join("cases").join(slug(&case.case.path, &case.case.id)).join("case.json");
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let costs = json["costs"].as_object_mut().unwrap();
        assert!(costs.remove("step_weight_bytes").is_some() && costs.remove("step_value_bytes").is_some());
        fs::write(&path, json.to_string()).unwrap();
        let costs = case.case.costs.as_mut().unwrap();
        (costs.step_weight_bytes, costs.step_value_bytes) = (0.0, 0.0);
        assert_eq!(costs.intensity(1), None, "bytes that were not counted are not none");
    }
    assert_eq!(load(dir.path()).unwrap(), run);
}

#[test]
fn an_unfinished_case_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path()).unwrap();
    folder.write_environment(&synthetic::environment()).unwrap();
    let case = &synthetic::small().cases[0];
    let writer = folder.begin_case(&case.case.path, &case.case.id).unwrap();
    writer.log().as_ref().write_all(b"half").unwrap();
    assert_eq!(fs::read_dir(dir.path().join("cases")).unwrap().count(), 0, "nothing there that a worker could spoil");
    // what a kill while it is written leaves
    fs::create_dir(dir.path().join("cases/.tmp-x")).unwrap();
    fs::write(dir.path().join("cases/.tmp-x/case.json"), "{").unwrap();
    assert!(load(dir.path()).unwrap().cases.is_empty());
    assert_eq!(folder.remove_leftovers().unwrap(), 1);
    assert_eq!(fs::read_dir(dir.path().join("cases")).unwrap().count(), 0);
    drop(folder.begin_case(&case.case.path, &case.case.id).unwrap());
    assert_eq!(fs::read_dir(dir.path().join("cases")).unwrap().count(), 0);
}

#[test]
fn a_finished_case_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let run = synthetic::small();
    synthetic::write(&run, dir.path());
    let case = &run.cases[0];
    let folder = RunFolder::open(dir.path()).unwrap();
    let again = folder.begin_case(&case.case.path, &case.case.id).unwrap();
    let error = again.finish(&case.case, &Samples::default(), &[], &[], &[]).unwrap_err().to_string();
    assert!(error.contains("--resume"), "{error}");
    assert_eq!(load(dir.path()).unwrap(), run);
    assert!(RunFolder::create(dir.path()).unwrap_err().to_string().contains("already holds a run"));
}

#[test]
fn values_that_could_not_be_read_back_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path()).unwrap();
    let run = synthetic::small();
    let case = &run.cases[1];
    let bad = [
        ("latency", f64::NAN, "NaN"),
        ("latncy", 1.0, "`latncy`"),
        ("latency", 0.0, "nothing takes"),
        ("energy_cpu", -0.1, "of -0.1"),
    ];
    for (metric, value, expected) in bad {
        let first = case.samples.at(0);
        let samples = [Sample { metric, value, ..first }].into_iter().chain(case.samples.iter().skip(1)).collect();
        let writer = folder.begin_case(&case.case.path, &case.case.id).unwrap();
        let error = writer.finish(&case.case, &samples, &case.predictions, &[], &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path().join("cases")).unwrap().count(), 0);
}

#[test]
fn what_could_not_be_read_back_is_refused_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path()).unwrap();
    let run = synthetic::small();
    let good = run.cases.iter().find(|c| c.case.error.is_none()).unwrap();
    let refused = |change: &dyn Fn(&mut ergometer_reports::CaseRun)| {
        let mut bad = good.clone();
        change(&mut bad);
        let writer = folder.begin_case(&bad.case.path, &bad.case.id).unwrap();
        let error =
            writer.finish(&bad.case, &bad.samples, &bad.predictions, &bad.attempts, &bad.sums).unwrap_err().to_string();
        assert!(error.contains("failed to store case") && error.contains("hint:"), "{error}");
        error
    };
    let too_many = refused(&|c| c.samples = std::iter::repeat_n(c.samples.at(0), MAX_ROWS + 1).collect());
    assert!(too_many.contains("samples.csv would have 5000001 rows"), "{too_many}");
    assert!(refused(&|c| c.predictions[0].depth = 0).contains("depth is 0"));
    assert!(refused(&|c| c.predictions[0].right = 17).contains("17 right of 16"));
    assert!(refused(&|c| c.case.costs.as_mut().unwrap().flops_step = f64::NAN).contains("not finite"));
    assert!(refused(&|c| c.case.unavailable[0].metric = "energy".into()).contains("`energy`"));
    assert!(refused(&|c| c.case.notes = vec!["x".repeat(17 << 20)]).contains("case.json would be larger than 16 MiB"));
    assert_eq!(fs::read_dir(dir.path().join("cases")).unwrap().count(), 0);
}

#[test]
fn attempts_are_written_read_back_and_held_to_their_case() {
    let dir = tempfile::tempdir().unwrap();
    let run = synthetic::decided();
    synthetic::write(&run, dir.path());
    assert_eq!(load(dir.path()).unwrap(), run);
    let scored = run.cases.iter().find(|c| c.case.error.is_none()).unwrap();
    let place = |c: &ergometer_reports::CaseRun| dir.path().join("cases").join(slug(&c.case.path, &c.case.id));
    let failed = run.cases.iter().find(|c| c.case.error.is_some()).unwrap();
    assert!(!place(failed).join("attempts.csv").exists(), "nothing decided, no file");
    let file = place(scored).join("attempts.csv");
    let good = fs::read_to_string(&file).unwrap();
    let refused = |text: Option<&str>, parts: &[&str]| {
        fs::remove_file(&file).unwrap();
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let error = load(dir.path()).unwrap_err().to_string();
        fs::write(&file, &good).unwrap();
        assert!(parts.iter().all(|p| error.contains(p)), "{parts:?}: {error}");
    };
    refused(None, &["attempts.csv", "decide 0 questions, the case has 60", "hint:"]);
    let cut = good.lines().filter(|l| !l.starts_with("59,")).map(|l| format!("{l}\n")).collect::<String>();
    refused(Some(&cut), &["attempts.csv", "decide 59 questions, the case has 60"]);
    refused(Some(&good.replacen(",1,true,0,1,", ",0,true,0,1,", 1)), &["attempts.csv`, line 2", "depth is 0"]);
    // by number, so that a file of a few lines cannot ask for a long list
    refused(
        Some(&good.replacen(",1,true,0,1,", ",1,true,0,177777777,", 1)),
        &["attempts.csv`, line 2", "177777777", "1000 is the most"],
    );
    refused(Some(&good.replacen("rows,true,4\n", "rows,true,0\n", 1)), &["attempts.csv`, line", "0 rows"]);
    refused(Some(&good.replacen("part", "prat", 1)), &["attempts.csv`, line 1", "part"]);
    assert_eq!(load(dir.path()).unwrap(), run);

    // what is not of the case is refused before it is written
    let other = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(other.path()).unwrap();
    let writer = folder.begin_case(&scored.case.path, &scored.case.id).unwrap();
    let some = &scored.attempts[..scored.attempts.len() / 2];
    let error = writer.finish(&scored.case, &scored.samples, &scored.predictions, some, &[]).unwrap_err().to_string();
    assert!(error.contains("questions, the case has 60"), "{error}");
}

#[test]
fn a_run_takes_no_more_cases_than_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path()).unwrap();
    let case = &synthetic::small().cases[0].case;
    for i in 0..MAX_CASES {
        fs::create_dir(dir.path().join(format!("cases/{i}"))).unwrap();
    }
    let error = folder.begin_case(&case.path, &case.id).unwrap_err().to_string();
    assert!(error.contains("it has 10000 cases") && error.contains("shards"), "{error}");
    fs::remove_dir(dir.path().join("cases/0")).unwrap();
    folder.begin_case(&case.path, &case.id).unwrap();
}

#[test]
fn slugs_are_plain_names() {
    assert_eq!(slug("sudoku/trm/f32", "0123456789abcdef"), "sudoku~trm~f32~01234567");
    assert_eq!(slug("../../etc/ü x", "ABCDEF00ff"), "_.~..~etc~__x~ABCDEF00");
    assert!(slug(&"x/".repeat(1000), "00000000").len() < 200);
}

#[test]
fn files_stay_below_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(dir.path()).unwrap();
    assert!(folder.write_file("../out", b"").is_err());
    assert!(folder.write_file("/etc/out", b"").is_err());
    folder.write_file("report/index.html", b"x").unwrap();
    assert_eq!(fs::read(dir.path().join("report/index.html")).unwrap(), b"x");
}

/// Damages one file of a good run and returns the error's text.
fn after(damage: impl Fn(&Path, &Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let run = synthetic::small();
    synthetic::write(&run, dir.path());
    let case = &run.cases[1].case;
    damage(dir.path(), &dir.path().join("cases").join(slug(&case.path, &case.id)));
    load(dir.path()).unwrap_err().to_string()
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {path:?}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn errors_name_file_line_and_remedy() {
    let error = after(|_, case| replace(&case.join("samples.csv"), ",memory_base,", ",memory_bas,"));
    assert!(error.contains("samples.csv`, line 3") && error.contains("`memory_base`"), "{error}");
    let error = after(|_, case| replace(&case.join("samples.csv"), "load_time,0.004", "load_time,inf"));
    assert!(error.contains("line 2") && error.contains("hint:"), "{error}");
    let error = after(|_, case| replace(&case.join("samples.csv"), "t_ns", "t_ms"));
    assert!(error.contains("line 1") && error.contains("t_ns"), "{error}");
    let error = after(|_, case| replace(&case.join("predictions.csv"), ",16,16\n", ",17,16\n"));
    assert!(error.contains("17 right of 16"), "{error}");
    let error = after(|_, case| fs::remove_file(case.join("predictions.csv")).unwrap());
    assert!(error.contains("predictions.csv") && error.contains("hint:"), "{error}");
    let error = after(|_, case| replace(&case.join("case.json"), "\"schema\": 2", "\"schema\": 9"));
    assert!(error.contains("schema 9"), "{error}");
    let error = after(|_, case| replace(&case.join("case.json"), "\"largest\": ", "\"largest\": 1e999, \"x\": "));
    assert!(error.contains("case.json"), "{error}");
    let error = after(|_, case| fs::rename(case, case.with_file_name("elsewhere")).unwrap());
    assert!(error.contains("do not belong"), "{error}");
    let error = after(|dir, _| fs::write(dir.join("environment.json"), "{").unwrap());
    assert!(error.contains("environment.json`, line 1"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    let error = after(|_, case| {
        fs::remove_file(case.join("samples.csv")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", case.join("samples.csv")).unwrap();
    });
    assert!(error.contains("not a regular file"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_names_the_file_and_the_remedy() {
    let error = ergometer_reports::ReportError::Io {
        tried: "write",
        path: "samples.csv".into(),
        source: fs::write("/dev/full", "x").unwrap_err(),
    };
    let error = error.to_string();
    assert!(error.contains("samples.csv") && error.contains("--resume"), "{error}");
}

/// Whatever the bytes, reading ends with a run or an error.
#[test]
fn arbitrary_bytes_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = synthetic::decided();
    run.cases.truncate(1);
    synthetic::write(&run, dir.path());
    let folder = dir.path().join("cases").join(slug(&run.cases[0].case.path, &run.cases[0].case.id));
    let files = [
        dir.path().join("environment.json"),
        folder.join("case.json"),
        folder.join("samples.csv"),
        folder.join("predictions.csv"),
        folder.join("attempts.csv"),
    ];
    let good: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();
    // bytes alone, and bytes in the midst of a good file
    proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..200), file in 0usize..5, at in prop::option::of(0usize..2000))| {
        let mut damaged = bytes.clone();
        if let Some(at) = at {
            let at = at.min(good[file].len());
            damaged = good[file].clone();
            damaged.splice(at..(at + bytes.len() / 2).min(good[file].len()), bytes);
        }
        fs::write(&files[file], damaged).unwrap();
        let _ = load(dir.path());
        fs::write(&files[file], &good[file]).unwrap();
    });
    assert_eq!(load(dir.path()).unwrap(), run);
}
