//! Tests of the reader: layouts, faults by their place, any bytes, and the published collections where they have been fetched.
//!
//! In: files made here. Out: verdicts. Must not: need a network.

use std::io::Write;

use super::*;
use crate::arc::json::{MAX_BYTES, read, read_bytes};

const TASK_TEXT: &str =
    r#"{"train": [{"input": [[1, 2], [3, 4]], "output": [[4]]}], "test": [{"input": [[5]], "output": [[6, 7]]}]}"#;

fn task(id: &str) -> ArcTask {
    let pair = |input: &str, output: &str| Pair { input: grid(input), output: grid(output) };
    ArcTask { id: id.into(), demonstrations: vec![pair("12 34", "4")], tests: vec![pair("5", "67")] }
}

#[test]
fn every_layout_gives_the_same_task() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), text).unwrap();
    };
    let found = |name: &str| read(&at(name)).unwrap().tasks;
    let challenge = TASK_TEXT.replace(r#", "output": [[6, 7]]"#, "");
    write("one/beef.json", TASK_TEXT);
    write("one/note.txt", "not read");
    for left in
        [".DS_Store", "._beef.json", ".beef.json.swp", "Thumbs.db", "desktop.ini", "beef.json~", "__MACOSX/._beef.json"]
    {
        write(&format!("one/{left}"), "\0\u{5}\u{16}");
    }
    write("concepts/above/a1.json", &format!("\u{feff}{TASK_TEXT}"));
    write("concepts/below/b1.json", &TASK_TEXT.replace(' ', "\r\n"));
    write("concepts/below/deeper/b2.JSON", TASK_TEXT);
    write("repo/data/training/t.json", TASK_TEXT);
    write("repo/data/evaluation/e1.json", TASK_TEXT);
    write("repo/data/evaluation/e2.json", TASK_TEXT);
    write("both/training/t.json", TASK_TEXT);
    write("both/evaluation/e2.json", TASK_TEXT);
    write("both/evaluation/e1.json", TASK_TEXT);
    write(
        "kit.json",
        &format!("{{\"train\": {{\"t\": {TASK_TEXT}}}, \"eval\": {{\"e2\": {TASK_TEXT}, \"e1\": {TASK_TEXT}}}}}"),
    );
    write("arc_challenges.json", &format!("{{\"k\": {challenge}}}"));
    write("arc_solutions.json", r#"{"k": [[[6, 7]]], "unused": []}"#);
    assert_eq!(found("one/beef.json"), [(None, task("beef"))]);
    assert_eq!(found("one"), [(None, task("beef"))]);
    let halves = [(Some(Subset::Train), task("t")), (Some(Subset::Eval), task("e1")), (Some(Subset::Eval), task("e2"))];
    assert_eq!(found("both"), halves);
    assert_eq!(found("repo"), halves);
    assert_eq!(found("concepts"), ["a1", "b1", "b2"].map(|id| (None, task(id))));
    assert_eq!(found("kit.json"), halves);
    assert_eq!(found("arc_challenges.json"), [(None, task("k"))]);

    let fails = |name: &str, words: &[&str]| {
        let message = read(&at(name)).expect_err(name).to_string();
        assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint:"), "{name}: {message}");
    };
    write("arc_solutions.json", r#"{"k": [[[6, 7]], [[1]]]}"#);
    fails("arc_challenges.json", &["arc_solutions.json", "task `k`", "2 output grids for 1 tests"]);
    write("arc_solutions.json", "{}");
    fails("arc_challenges.json", &["arc_solutions.json", "task `k`"]);
    std::fs::remove_file(at("arc_solutions.json")).unwrap();
    fails("arc_challenges.json", &["arc_challenges.json", "task `k`, test pair 1, output", "is missing", "solutions"]);
    write("one/bad.json", "[]");
    fails("one", &["bad.json", "no ARC task"]);
    write("one/bad.json", r#"[{"input": [[1]], "output": [[2]]}]"#);
    fails("one", &["bad.json", "list of 1 pair of", "re-arc", "layouts that are read"]);
    fails("one/bad.json", &["bad.json", "list of 1 pair of", "layouts that are read"]);
    write("one/bad.json", &format!("{{\"a\": {TASK_TEXT},\n\"a\": {TASK_TEXT}}}"));
    fails("one/bad.json", &["bad.json", "line 2", "repeated key `a`"]);
    write("one/bad.json", "version https://git-lfs.github.com/spec/v1\n");
    fails("one", &["bad.json", "Git LFS pointer", "git lfs pull"]);
    write("one/bad.json", "<!doctype html>");
    fails("one", &["bad.json", "web page"]);
    write("concepts/above/b1.json", TASK_TEXT);
    fails("concepts", &["second task `b1`", "below", "above"]);

    // no task beside halves is passed over
    write("two/training/a.json", TASK_TEXT);
    write("two/extra/c.json", TASK_TEXT);
    fails("two", &["extra/c.json", "in neither of them", "move it"]);
    write("mix/training/a.json", TASK_TEXT);
    write("mix/z.json", &format!("{{\"k\": {TASK_TEXT}}}"));
    write("mix/deep/er/y.json", TASK_TEXT);
    fails("mix", &["deep/er/y.json", "in neither of them, as do 1 more"]);
    write("pair/training/a.json", TASK_TEXT);
    write("pair/test/b.json", TASK_TEXT);
    fails("pair", &["test/b.json", "in neither of them"]);
    write("repo/data/package.json", r#"{"name": "no task", "version": 2}"#);
    write("repo/data/notes.txt", "not read");
    assert_eq!(found("repo"), halves, "what is no task is no loss");

    // layouts that are not read are named
    for half in ["training", "evaluation"] {
        write(&format!("kaggle/arc-agi_{half}_challenges.json"), &format!("{{\"k\": {challenge}}}"));
        write(&format!("kaggle/arc-agi_{half}_solutions.json"), r#"{"k": [[[6, 7]]]}"#);
    }
    write("kaggle/sample_submission.json", r#"{"k": [{"attempt_1": [[0]], "attempt_2": [[0]]}]}"#);
    fails(
        "kaggle",
        &["folder of Kaggle's files", "arc-agi_evaluation_challenges.json, arc-agi_training_challenges.json"],
    );
    assert_eq!(found("kaggle/arc-agi_training_challenges.json"), [(None, task("k"))]);
    write("re_arc/metadata.json", r#"{"a": {"n_examples": 1000}}"#);
    write("re_arc/tasks/a.json", r#"[{"input": [[1]], "output": [[2]]}]"#);
    fails("re_arc", &["tasks/a.json", "re-arc", "list of 1 pair of", "layouts that are read"]);
    write("inside/all.json", &format!("{{\"k\": {TASK_TEXT}}}"));
    fails("inside", &["all.json", "collection of 1 task\n", "name the file itself"]);
    std::fs::create_dir_all(at("folder.json")).unwrap();
    fails("folder.json", &["holds no task"]);
    write("empty/x.txt", "");
    fails("empty", &["holds no task"]);
    fails("absent.json", &["absent.json", "fetch"]);
    fails("one/note.txt", &["note.txt", "no JSON"]);
    std::fs::File::create(at("large.json")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    fails("large.json", &["larger than 32 MiB"]);
}

#[test]
fn faults_are_named_by_task_pair_and_row() {
    let long = format!("[{}]", ["0"; 31].join(","));
    for (from, to, words) in [
        ("[3, 4]", "[3]", &["task `x`, train pair 1, input, row 2", "1 cells", "first row has 2"][..]),
        ("[3, 4]", "[3, 10]", &["train pair 1, input, row 2", "found 10", "0 to 9"]),
        ("[3, 4]", "[3, -1]", &["row 2", "found -1"]),
        ("[3, 4]", "[3, 1.5]", &["row 2", "found 1.5"]),
        ("[3, 4]", "[3, \"4\"]", &["row 2", "found \"4\""]),
        ("[3, 4]", "7", &["row 2", "found 7"]),
        ("[3, 4]", "[]", &["row 2", "0 cells"]),
        ("[3, 4]", &long, &["row 2", "31 cells"]),
        ("[[4]]", "[]", &["train pair 1, output", "0 rows"]),
        ("[[4]]", "null", &["train pair 1, output", "found null"]),
        ("[[6, 7]]", "{}", &["test pair 1, output", "an object of 0"]),
        (r#", "output": [[4]]"#, "", &["train pair 1, output", "is missing"]),
        (r#"{"input": [[5]], "output": [[6, 7]]}"#, "", &["task `x`", "`test`", "one or more"]),
        (r#"{"input": [[5]], "output": [[6, 7]]}"#, "4", &["test pair 1", "found 4"]),
    ] {
        let text = TASK_TEXT.replace(from, to);
        assert_ne!(text, TASK_TEXT);
        let message = read_bytes(text.as_bytes(), None, "x").expect_err(to).to_string();
        assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint:"), "{to}: {message}");
    }
    let rows = [TASK_TEXT.replace("[[4]]", &format!("[{}]", vec!["[1]"; 31].join(",")))];
    assert!(read_bytes(rows[0].as_bytes(), None, "x").unwrap_err().to_string().contains("31 rows"));
    for (text, word) in [
        ("{}", None),
        ("3", Some("found 3")),
        (r#"{"a": 3}"#, Some("task `a`")),
        (r#"{"train": {"a": 3}}"#, Some("task `a`")),
        (r#"{"train": {"a": {}}, "eval": 3}"#, Some("`eval`")),
        (r#"{"a\nb": {"train": [1], "test": [1]}}"#, Some("printable")),
        (r#"{"a\u202eb": {"train": [1], "test": [1]}}"#, Some("printable")),
        (r#"{"=1+1": {"train": [1], "test": [1]}}"#, Some("spreadsheet")),
        (r#"{"-a": {"train": [1], "test": [1]}}"#, Some("spreadsheet")),
        ("[[[", Some("no JSON")),
    ] {
        match (read_bytes(text.as_bytes(), None, "x"), word) {
            (Ok(found), None) => assert!(found.tasks.is_empty()),
            (Err(e), Some(word)) => assert!(e.to_string().contains(word) && e.hint.is_some(), "{text}: {e}"),
            (other, _) => panic!("{text}: {other:?}"),
        }
    }
    let deep = "[".repeat(100_000);
    assert!(read_bytes(deep.as_bytes(), None, "x").is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_bytes(&bytes, Some(&bytes), "x");
    }

    #[test]
    fn no_text_of_the_right_words_panics(
        text in "(\\{|\\}|\\[|\\]|,|:|\"train\":|\"test\":|\"eval\":|\"input\":|\"output\":|\"a\":|[0-9]| |\\[\\[[0-9]\\]\\]){0,40}",
        at in 0..110usize, insert in "[\\[\\]{},:0-9\"-]{0,3}",
    ) {
        let _ = read_bytes(text.as_bytes(), None, "x");
        let damaged = format!("{}{insert}{}", &TASK_TEXT[..at.min(TASK_TEXT.len())], &TASK_TEXT[at.min(TASK_TEXT.len())..]);
        if let Ok(found) = read_bytes(damaged.as_bytes(), Some(damaged.as_bytes()), "x") {
            prop_assert!(found.tasks.iter().all(|(_, t)| t.grids().all(|g| g.side() <= MAX_SIDE)));
        }
    }
}

/// What is known of the published collections: tasks, demonstrations, tests, and tasks with every grid up to 10x10, of both halves.
#[test]
fn published_collections_have_the_known_counts() {
    let known = [
        ("arc-agi-1", [(400, 1302, 416, 178), (400, 1363, 419, 77)]),
        ("arc-agi-2", [(1000, 3232, 1076, 301), (120, 359, 167, 2)]),
    ];
    for (name, counts) in known {
        let Ok(file) = parameters::dataset(name) else {
            // past the test's own capture, so that it is seen
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: the counts of {name}, which `ergometer fetch {name}` obtains");
            continue;
        };
        let found = read(&file).unwrap();
        for (half, (tasks, demonstrations, tests, small)) in [Subset::Train, Subset::Eval].into_iter().zip(counts) {
            let of: Vec<&ArcTask> = found.tasks.iter().filter(|t| t.0 == Some(half)).map(|t| &t.1).collect();
            let sum = |f: &dyn Fn(&ArcTask) -> usize| of.iter().map(|t| f(t)).sum::<usize>();
            let ten = sum(&|t| usize::from(t.grids().all(|g| g.side() <= 10)));
            let told = (of.len(), sum(&|t| t.demonstrations.len()), sum(&|t| t.tests.len()), ten);
            assert_eq!(told, (tasks, demonstrations, tests, small), "{name} {half:?}");
        }
        let table = format!("dataset = '{name}'\nmax_side = 10\nside = 10\naugmentations = 2").parse().unwrap();
        let set = (TASK.examples)(&table, Path::new("")).unwrap();
        assert_eq!(set.questions.len(), counts[1].3);
        assert_eq!(set.puzzle_ids as usize, 1 + 2 * (counts[0].3 + counts[1].3));
        // a net that is always right is right
        let answers: Vec<RowAnswer> = (0..)
            .zip(&set.examples)
            .map(|(example, e)| RowAnswer { example, answer: &e.answer, halt_logit: None })
            .collect();
        assert!(TASK.decide.unwrap()(&set, &answers).iter().all(|d| d.right && d.parts == d.parts_right));
    }
}
