//! Tests of the reader: layouts, faults by their place, any bytes, and the published collections where they have been
//! fetched.
//!
//! In: files made here. Out: verdicts. Must not: need a network.

use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::arc::json::{MAX_BYTES, read, read_bytes};

const TASK_TEXT: &str =
    r#"{"train": [{"input": [[1, 2], [3, 4]], "output": [[4]]}], "test": [{"input": [[5]], "output": [[6, 7]]}]}"#;

fn task(id: &str) -> ArcTask {
    let pair = |input: &str, output: &str| Pair { input: grid(input), output: grid(output) };
    ArcTask { id: id.into(), demonstrations: vec![pair("12 34", "4")], tests: vec![pair("5", "67")] }
}

/// A folder of files that are read.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), text).unwrap();
    }

    fn found(&self, name: &str) -> Vec<(Option<Subset>, ArcTask)> {
        read(&self.at(name)).unwrap().tasks
    }

    /// The file or folder is refused with these words and a hint.
    fn refused(&self, name: &str, words: &[&str]) {
        let message = read(&self.at(name)).expect_err(name).to_string();
        assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint:"), "{name}: {message}");
    }
}

/// The task as Kaggle asks for it: without the output of its test.
fn challenge() -> String {
    TASK_TEXT.replace(r#", "output": [[6, 7]]"#, "")
}

fn halves() -> [(Option<Subset>, ArcTask); 3] {
    [(Some(Subset::Train), task("t")), (Some(Subset::Eval), task("e1")), (Some(Subset::Eval), task("e2"))]
}

#[test]
fn every_layout_gives_the_same_task() {
    let files = Files::new();
    let write = |name: &str, text: &str| files.write(name, text);
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
    write("arc_challenges.json", &format!("{{\"k\": {}}}", challenge()));
    write("arc_solutions.json", r#"{"k": [[[6, 7]]], "unused": []}"#);
    assert_eq!(files.found("one/beef.json"), [(None, task("beef"))]);
    assert_eq!(files.found("one"), [(None, task("beef"))]);
    assert_eq!(files.found("both"), halves());
    assert_eq!(files.found("repo"), halves());
    assert_eq!(files.found("concepts"), ["a1", "b1", "b2"].map(|id| (None, task(id))));
    assert_eq!(files.found("kit.json"), halves());
    assert_eq!(files.found("arc_challenges.json"), [(None, task("k"))]);
    write("repo/data/package.json", r#"{"name": "no task", "version": 2}"#);
    write("repo/data/notes.txt", "not read");
    assert_eq!(files.found("repo"), halves(), "what is no task is no loss");

    write("concepts/above/b1.json", TASK_TEXT);
    files.refused("concepts", &["second task `b1`", "below", "above"]);
}

#[test]
fn a_file_that_is_no_task_is_refused_by_its_name() {
    let files = Files::new();
    files.write("arc_challenges.json", &format!("{{\"k\": {}}}", challenge()));
    files.write("arc_solutions.json", r#"{"k": [[[6, 7]], [[1]]]}"#);
    files.refused("arc_challenges.json", &["arc_solutions.json", "task `k`", "2 output grids for 1 tests"]);
    files.write("arc_solutions.json", "{}");
    files.refused("arc_challenges.json", &["arc_solutions.json", "task `k`"]);
    std::fs::remove_file(files.at("arc_solutions.json")).unwrap();
    let words = ["arc_challenges.json", "task `k`, test pair 1, output", "is missing", "solutions"];
    files.refused("arc_challenges.json", &words);

    files.write("one/beef.json", TASK_TEXT);
    let twice = format!("{{\"a\": {TASK_TEXT},\n\"a\": {TASK_TEXT}}}");
    for (text, name, words) in [
        ("[]", "one", &["bad.json", "no ARC task"][..]),
        (
            r#"[{"input": [[1]], "output": [[2]]}]"#,
            "one",
            &["bad.json", "list of 1 pair of", "re-arc", "layouts that are read"],
        ),
        (
            r#"[{"input": [[1]], "output": [[2]]}]"#,
            "one/bad.json",
            &["bad.json", "list of 1 pair of", "layouts that are read"],
        ),
        (&twice, "one/bad.json", &["bad.json", "line 2", "repeated key `a`"]),
        ("version https://git-lfs.github.com/spec/v1\n", "one", &["bad.json", "Git LFS pointer", "git lfs pull"]),
        ("<!doctype html>", "one", &["bad.json", "web page"]),
    ] {
        files.write("one/bad.json", text);
        files.refused(name, words);
    }
    files.write("one/note.txt", "not read");
    files.refused("one/note.txt", &["note.txt", "no JSON"]);
    files.refused("absent.json", &["absent.json", "fetch"]);
    std::fs::create_dir_all(files.at("folder.json")).unwrap();
    files.refused("folder.json", &["holds no task"]);
    files.write("empty/x.txt", "");
    files.refused("empty", &["holds no task"]);
    std::fs::File::create(files.at("large.json")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    files.refused("large.json", &["larger than 32 MiB"]);
}

#[test]
fn no_task_beside_the_halves_is_passed_over() {
    let files = Files::new();
    files.write("two/training/a.json", TASK_TEXT);
    files.write("two/extra/c.json", TASK_TEXT);
    files.refused("two", &["extra/c.json", "in neither of them", "move it"]);
    files.write("mix/training/a.json", TASK_TEXT);
    files.write("mix/z.json", &format!("{{\"k\": {TASK_TEXT}}}"));
    files.write("mix/deep/er/y.json", TASK_TEXT);
    files.refused("mix", &["deep/er/y.json", "in neither of them, as do 1 more"]);
    files.write("pair/training/a.json", TASK_TEXT);
    files.write("pair/test/b.json", TASK_TEXT);
    files.refused("pair", &["test/b.json", "in neither of them"]);
}

#[test]
fn layouts_that_are_not_read_are_named() {
    let files = Files::new();
    for half in ["training", "evaluation"] {
        files.write(&format!("kaggle/arc-agi_{half}_challenges.json"), &format!("{{\"k\": {}}}", challenge()));
        files.write(&format!("kaggle/arc-agi_{half}_solutions.json"), r#"{"k": [[[6, 7]]]}"#);
    }
    files.write("kaggle/sample_submission.json", r#"{"k": [{"attempt_1": [[0]], "attempt_2": [[0]]}]}"#);
    files.refused(
        "kaggle",
        &["folder of Kaggle's files", "arc-agi_evaluation_challenges.json, arc-agi_training_challenges.json"],
    );
    assert_eq!(files.found("kaggle/arc-agi_training_challenges.json"), [(None, task("k"))]);
    files.write("re_arc/metadata.json", r#"{"a": {"n_examples": 1000}}"#);
    files.write("re_arc/tasks/a.json", r#"[{"input": [[1]], "output": [[2]]}]"#);
    files.refused("re_arc", &["tasks/a.json", "re-arc", "list of 1 pair of", "layouts that are read"]);
    files.write("inside/all.json", &format!("{{\"k\": {TASK_TEXT}}}"));
    files.refused("inside", &["all.json", "collection of 1 task\n", "name the file itself"]);
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

/// What is known of the published collections: tasks, demonstrations, tests, and tasks with every grid up to 10x10, of
/// both halves.
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
