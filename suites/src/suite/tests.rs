//! Tests of suite files: what is understood, and what is refused with which words.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::scenario::{Depth, Scenario};
use crate::suite::{CaseSpec, MAX_FILE_BYTES};

const KNOWN: Known = Known {
    backends: &["native", "onnxruntime", "tract", "candle", "reference", "external"],
    precisions: &["f32", "bf16", "f64"],
    processors: 6,
};

const GOOD: &str = r#"
about = "a test"
[[model]]
name = "m"
path = "models/m"
[[task]]
name = "t"
kind = "sudoku"
size = 4
seed = 7
[[backend]]
name = "mine"
kind = "external"
command = ["python3", "{suite}/mine.py"]
options = { speed = "fast", n = 3, on = true }
[defaults]
seconds = 1
threads = [2]
[[cases]]
models = ["m"]
tasks = ["t"]
backends = ["native", "mine"]
scenarios = ["single-stream", "offline-b32"]
depth = ["halt-16", "fixed-8", "once"]
timeout_seconds = 9.5
"#;

fn parsed(text: &str) -> Result<Suite, SuiteError> {
    Suite::parse(text, Path::new("folder/good.toml"), &KNOWN)
}

fn error(text: &str) -> String {
    parsed(text).expect_err("the suite is wrong").to_string()
}

#[test]
fn a_suite_is_read_as_written() {
    let suite = parsed(GOOD).unwrap();
    assert_eq!((suite.name.as_str(), suite.about.as_str()), ("good", "a test"));
    assert_eq!(suite.models["m"].path, PathBuf::from("folder/models/m"));
    let task = &suite.tasks["t"];
    assert_eq!((task.kind.as_str(), task.seed, task.parameters.len()), ("sudoku", 7, 2));
    let mine = &suite.backends["mine"];
    assert_eq!(mine.command, ["python3", "folder/mine.py"]);
    assert_eq!(mine.options["speed"], "fast");
    assert_eq!((mine.options["n"].as_str(), mine.options["on"].as_str()), ("3", "true"));

    assert_eq!(suite.cases.len(), 2 * 2 * 3);
    let first = &suite.cases[0];
    assert_eq!(first.to_string(), "t/m/f32/native/single-stream/t2/halt-16");
    assert_eq!((first.seconds, first.timeout_seconds, first.may_be_unavailable), (1.0, 9.5, false));
    let last = &suite.cases[11];
    assert_eq!((last.scenario.to_string().as_str(), last.depth), ("offline-b32", Depth::Once));
    let mut paths: Vec<String> = suite.cases.iter().map(CaseSpec::to_string).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 12);
}

#[test]
fn turns_and_their_base_are_read_and_off_by_default() {
    assert!(parsed(GOOD).unwrap().cases.iter().all(|c| !c.interleave && c.base.is_none()));
    let text = GOOD.replace("seconds = 1\n", "seconds = 1\ninterleave = true\nbase = \"mine\"\n");
    let all = |text: &str, interleave, base: Option<&str>| {
        let cases = parsed(text).unwrap().cases;
        assert!(cases.iter().all(|c| c.interleave == interleave && c.base.as_deref() == base));
    };
    all(&text, true, Some("mine"));
    all(&(text.clone() + "interleave = false\nbase = \"native\"\n"), false, Some("native"));
    let message = error(&text.replace("offline-b32", "cold-start-5"));
    for part in ["line 18, `interleave`", "cold-start-5 takes no turns", "hint: "] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn programs_of_external_backends_start_at_the_suite() {
    for (written, program) in [
        ("python3", "python3"),
        ("bin/run", "folder/bin/run"),
        ("folder/run", "folder/folder/run"),
        ("{suite}/run", "folder/run"),
        ("/opt/run", "/opt/run"),
    ] {
        let suite = parsed(&GOOD.replace("python3", written)).unwrap();
        assert_eq!(suite.backends["mine"].command[0], program);
    }
}

#[test]
fn the_shipped_quick_suite_is_right_and_short() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("quick.toml");
    let suite = Suite::load(&file, &KNOWN).unwrap();
    assert!((1..=20).contains(&suite.cases.len()), "{}", suite.cases.len());
    let measuring: f64 = suite.cases.iter().map(|c| c.seconds + c.warmup_seconds).sum();
    assert!(measuring <= 80.0, "{measuring} s");
    for task in suite.tasks.keys() {
        assert!((200..=300).contains(&suite.examples(task).unwrap().examples.len()), "{task}");
    }
}

/// Each fault, by what replaces a piece of the good suite, and what the message must say.
#[test]
fn faults_are_named_with_line_and_remedy() {
    let faults = [
        ("about =", "abuot =", &["line 2", "unknown key `abuot`", "`about`"][..]),
        ("path =", "pth =", &["line 5", "unknown key `pth`", "`path`"]),
        ("kind = \"sudoku\"", "kind = \"sudku\"", &["line 8", "task kind `sudku`", "`sudoku`"]),
        ("kind = \"external\"", "kind = \"extrnal\"", &["line 13", "backend kind `extrnal`", "`external`"]),
        ("command =", "options2 =", &["line 14", "unknown key `options2`"]),
        ("threads = [2]", "threds = [2]", &["line 18", "`threds`", "did you mean `threads`"]),
        ("threads = [2]", "threads = [0]", &["line 18", "`threads`", "1 to 1024"]),
        ("threads = [2]", "threads = [1025]", &["1 to 1024"]),
        ("seconds = 1\n", "seconds = inf\n", &["line 17", "`seconds`", "finite"]),
        ("seconds = 1\n", "seconds = -1\n", &["line 17", "`seconds`"]),
        ("seconds = 1\n", "seconds = \"1\"\n", &["line 17", "`seconds`", "string"]),
        ("models = [\"m\"]", "models = [\"n\"]", &["line 20", "unknown model `n`", "`m`"]),
        ("models = [\"m\"]", "models = []", &["line 20", "one or more"]),
        ("models = [\"m\"]\n", "", &["`models`", "missing"]),
        ("tasks = [\"t\"]", "tasks = [\"tt\"]", &["unknown task `tt`", "`t`"]),
        ("[\"native\", \"mine\"]", "[\"nativ\"]", &["line 22", "unknown backend `nativ`", "`native`"]),
        ("[\"native\", \"mine\"]", "[\"external\"]", &["unknown backend `external`"]),
        ("[\"native\", \"mine\"]", "[\"native\", \"native\"]", &["line 19", "second time", "t/m/f32/native"]),
        ("offline-b32", "offline-b0", &["line 23", "unknown scenario", "65536"]),
        ("offline-b32", "offline-b032", &["unknown scenario"]),
        ("offline-b32", "offline-b65537", &["unknown scenario"]),
        ("fixed-8", "fixed-1\", \"once", &["line 19", "second time", "one step"]),
        ("fixed-8", "fixed-1\", \"halt-1", &["line 19", "second time"]),
        ("fixed-8", "fixed", &["line 24", "unknown depth `fixed`", "`fixed-N`"]),
        ("seconds = 1\n", "precisions = [\"fp32\"]\n", &["line 17", "unknown precision `fp32`", "`f32`"]),
        ("name = \"m\"", "name = \"../m\"", &["line 4", "is no name", "path"]),
        ("name = \"mine\"", "name = \"native\"", &["line 12", "built-in", "native-2"]),
        ("kind = \"external\"", "kind = \"native\"", &["line 14", "`command`", "external"]),
        ("{ speed = \"fast\", n = 3, on = true }", "{ speed = [] }", &["line 15", "`options`"]),
        ("[[cases]]", "[[cases", &["line 19"]),
        ("seed = 7", "seed = -7", &["line 10", "`seed`"]),
        ("timeout_seconds = 9.5", "interleave = \"yes\"", &["line 25", "`interleave`", "string"]),
        ("timeout_seconds = 9.5", "interleaved = true", &["line 25", "unknown key `interleaved`", "`interleave`"]),
        ("timeout_seconds = 9.5", "base = \"min\"", &["line 25", "`base`", "unknown backend `min`", "`mine`"]),
    ];
    for (from, to, words) in faults {
        assert!(GOOD.contains(from), "{from}");
        let message = error(&GOOD.replacen(from, to, 1));
        for word in words.iter().chain(&["folder/good.toml", "hint:"]) {
            assert!(message.contains(word), "{to}: no {word:?} in\n{message}");
        }
    }
    assert!(error("").contains("no case"));
    assert!(error("model = 3").contains("line 1"));
}

#[test]
fn faults_in_a_task_name_suite_task_and_key() {
    let suite = parsed(&GOOD.replace("size = 4", "size = 4\nexampels = 5")).unwrap();
    let message = suite.examples("t").expect_err("a wrong key").to_string();
    assert!(message.starts_with("folder/good.toml: task `t`, parameters: unknown key `exampels`"), "{message}");
    assert!(message.contains("`examples`") && suite.examples("tt").is_err());
    assert_eq!(parsed(GOOD).unwrap().examples("t").unwrap().examples.len(), 100);
}

#[test]
fn too_many_cases_are_refused_before_they_are_built() {
    let threads: Vec<String> = (1..=1000).map(|t| t.to_string()).collect();
    let depths: Vec<String> = (1..=1000).map(|t| format!("\"halt-{t}\"")).collect();
    let text = GOOD
        .replace("threads = [2]", &format!("threads = [{}]", threads.join(",")))
        .replace("[\"halt-16\", \"fixed-8\", \"once\"]", &format!("[{}]", depths.join(",")));
    let message = error(&text);
    assert!(message.contains("4000000") && message.contains("10000"), "{message}");
}

#[test]
fn files_that_are_no_suites_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big.toml");
    let load = |f: &Path| Suite::load(f, &KNOWN).expect_err("no suite").to_string();
    std::fs::write(&file, vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
    assert!(load(&file).contains("larger than"));
    std::fs::write(&file, b"about = \"\xFF\"").unwrap();
    assert!(load(&file).contains("byte 9"));
    std::fs::write(&file, GOOD).unwrap();
    assert_eq!(Suite::load(&file, &KNOWN).unwrap().models["m"].path, folder.path().join("models/m"));
    assert!(load(&folder.path().join("none.toml")).contains("no such file"));
    assert!(load(folder.path()).contains("regular file"));
    assert!(load(Path::new("quik")).contains("`quick`"));
    assert_eq!(Suite::load("quick", &KNOWN).unwrap().name, "quick");
}

/// Values, keys and brackets that a suite has, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(GOOD.lines().collect::<Vec<_>>()).prop_map(str::to_owned),
        prop::sample::select(vec![
            "[[cases]]",
            "[defaults]",
            "x",
            "=",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "-1",
            "1e999",
            "nan",
            "\n"
        ])
        .prop_map(str::to_owned),
        "[ -~\n]{0,12}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|p| p.join("\n"))
}

#[test]
fn what_is_no_suite_is_told_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let known = Known { backends: &["native"], precisions: &["f32"], processors: 1 };
    for (bytes, words) in [
        (&b"\xff\xfea\0"[..], &["UTF-16", "hint: "][..]),
        (b"version https://git-lfs.github.com/spec/v1\n", &["Git LFS pointer", "git lfs pull"]),
        (b"<!doctype html>", &["web page"]),
        (b"about = \"a\"\n\0", &["line 2", "NUL byte"]),
        (b"steps = 1\n[optimiser]\nlr = 1.0\n", &["line ", "unknown key", "training file"]),
    ] {
        let file = folder.path().join("odd.toml");
        std::fs::write(&file, bytes).unwrap();
        let error = Suite::load(&file, &known).unwrap_err().to_string();
        assert!(error.contains("odd.toml") && words.iter().all(|w| error.contains(w)), "{words:?}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parsed(&text);
    }

    #[test]
    fn no_shuffled_suite_panics(text in pieces()) {
        let _ = parsed(&text);
    }

    #[test]
    fn a_cut_suite_never_panics(cut in 0..GOOD.len()) {
        let _ = parsed(&GOOD[..cut]);
    }

    #[test]
    fn what_is_asked_for_is_what_comes_out(
        threads in prop::collection::btree_set(1u32..=1024, 1..4),
        batches in prop::collection::btree_set(1u32..=65_536, 1..4),
        depths in prop::collection::btree_set(1u32..=65_536, 1..4),
        seconds in 1e-3f64..1e6,
    ) {
        let scenarios: Vec<Scenario> = batches.iter().map(|n| format!("offline-b{n}").parse().unwrap()).collect();
        let depths: Vec<Depth> = depths.iter().flat_map(|&n| [Depth::Halt(n), Depth::Fixed(n)]).collect();
        let quoted = |texts: Vec<String>| format!("{texts:?}");
        let text = GOOD
            .replace("threads = [2]", &format!("threads = {:?}", threads.iter().collect::<Vec<_>>()))
            .replace("seconds = 1\n", &format!("seconds = {seconds:?}\n"))
            .replace("[\"single-stream\", \"offline-b32\"]", &quoted(scenarios.iter().map(Scenario::to_string).collect()))
            .replace("[\"halt-16\", \"fixed-8\", \"once\"]", &quoted(depths.iter().map(Depth::to_string).collect()));
        let suite = parsed(&text).unwrap();
        prop_assert_eq!(suite.cases.len(), 2 * threads.len() * scenarios.len() * depths.len());
        for case in &suite.cases {
            prop_assert!(threads.contains(&case.threads) && scenarios.contains(&case.scenario));
            prop_assert!(depths.contains(&case.depth) && case.seconds == seconds);
        }
    }
}

/// Files of one folder; the first is loaded, with these changes.
fn loaded(files: &[(&str, &str)], changes: &[&str]) -> Result<Suite, SuiteError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let changes: Vec<Change> = changes.iter().map(|c| c.parse().unwrap()).collect();
    Suite::load_changed(folder.path().join(files[0].0), &changes, &KNOWN)
}

fn paths(suite: &Suite) -> Vec<String> {
    suite.cases.iter().map(CaseSpec::to_string).collect()
}

const BASE: &str = "[[model]]\nname = 'm'\npath = 'net'\n[[task]]\nname = 't'\nkind = 'sudoku'\nsize = 4\n\
                    [defaults]\nmodels = 'm'\ntasks = 't'\nbackends = 'native'\nseconds = 3\n";

#[test]
fn batches_and_threads_are_swept_by_their_numbers() {
    let suite = parsed(&format!("{BASE}[[cases]]\nbatch = [1, 8]\nthreads = '1..all'\ndepth = 'once'\n")).unwrap();
    let wanted: Vec<String> = ["single-stream", "offline-b8"]
        .iter()
        .flat_map(|s| [1, 2, 4, 6].map(|n| format!("t/m/f32/native/{s}/t{n}/once")))
        .collect();
    assert_eq!(paths(&suite), wanted);
    let both = error(&format!("{BASE}[[cases]]\nbatch = 2\nscenarios = 'single-stream'\n"));
    assert!(both.contains("line 14, `batch`: goes without `scenarios`") && both.contains("hint: "), "{both}");
    let below = BASE.replace("seconds = 3", "scenarios = ['offline-b4']");
    let suite = parsed(&format!("{below}[[cases]]\nbatch = 2\ndepth = 'once'\n[[cases]]\ndepth = 'once'\n")).unwrap();
    assert_eq!(paths(&suite), ["t/m/f32/native/offline-b2/t1/once", "t/m/f32/native/offline-b4/t1/once"]);
    for wrong in ["threads = '7..all'", "threads = 'most'", "threads = []", "batch = 0", "batch = [1, 1]"] {
        let said = error(&format!("{BASE}[[cases]]\n{wrong}\n"));
        assert!(said.contains("line 1") && said.contains("hint: "), "{wrong}: {said}");
    }
}

#[test]
fn a_key_of_one_value_takes_a_list_of_one_and_says_which_take_more() {
    let suite =
        parsed(&format!("{BASE}[[cases]]\nmemory_limit = ['1 MB']\niterations = [7]\ndepth = 'once'\n")).unwrap();
    assert_eq!((suite.cases.len(), suite.cases[0].limits.memory, suite.cases[0].iterations), (1, Some(1e6), 7));
    for key in CASES.into_iter().filter(|key| !LISTS.contains(key)) {
        let said = error(&format!("{BASE}[[cases]]\n{key} = [1, 2]\n"));
        let due = ["line 14", key, "a list of 2", "one case", "lists are for models, backends", "`sweep`"];
        assert!(due.iter().all(|part| said.contains(part)), "{key}: {said}");
    }
    let said = error(&BASE.replace("seconds = 3", "seconds = [1, 2]\n[[cases]]\ndepth = 'once'"));
    assert!(said.contains("line 12, `seconds`"), "{said}");
    assert!(error(&format!("{BASE}[[cases]]\nseconds = []\n")).contains("a list of 0"));
}

#[test]
fn a_model_may_be_a_reduced_form_of_another() {
    let with =
        |more: &str| format!("[[model]]\nname = 'small'\npath = 'small'\n{more}\n{BASE}[[cases]]\ndepth = 'once'\n");
    let suite = parsed(&with("reduces = 'm'")).unwrap();
    assert_eq!((suite.models["small"].reduces.as_deref(), &suite.models["m"].reduces), (Some("m"), &None));
    let third = "reduces = 'm'\n[[model]]\nname = 'third'\npath = 'third'\nreduces = 'small'";
    for (more, line, words) in [
        ("reduces = 'mm'", "line 4", "unknown model `mm`"),
        ("reduces = 'small'", "line 4", "which is one itself"),
        (third, "line 8", "`third` cannot be a reduced form of `small`"),
        ("reduces = 3", "line 4", "found integer 3"),
    ] {
        let said = error(&with(more));
        assert!(said.contains(words) && said.contains(line) && said.contains("hint: "), "{more}: {said}");
    }
}

#[test]
fn a_block_with_a_sweep_stands_for_several() {
    let text = BASE
        .replace("size = 4\n", "sweep = { size = [4, 6], examples = 5 }\n")
        .replace("'native'", "['mine', 'native']")
        + "[[backend]]\nname = 'mine'\nkind = 'native'\nsweep = { 'options.isa' = ['avx2', 'scalar'] }\n[[cases]]\nbase = 'native'\n";
    let suite = parsed(&text).unwrap();
    assert_eq!(suite.tasks.keys().collect::<Vec<_>>(), ["t-examples-5-size-4", "t-examples-5-size-6"]);
    let six = &suite.tasks["t-examples-5-size-6"].parameters;
    assert_eq!((six["size"].as_integer(), six.get("sweep"), six["examples"].as_integer()), (Some(6), None, Some(5)));
    assert_eq!(suite.backends["mine-isa-scalar"].options["isa"], "scalar");
    assert_eq!(suite.cases.len(), 2 * 3);
    for (from, to, word) in [
        ("base = 'native'", "base = 'mine'", "unknown backend `mine`"),
        ("size = [4, 6]", "size = []", "comes to no block"),
        ("size = [4, 6]", "name = ['a']", "cannot sweep `name`"),
        ("size = [4, 6]", "'a..b' = [1]", "cannot sweep `a..b`"),
        ("kind = 'sudoku'", "kind = 'sudoku'\nsize = 4", "`size` is in this block too"),
        ("sweep = { size = [4, 6], examples = 5 }", "sweep = 3", "found integer 3"),
        ("'options.isa'", "'command.isa'", "found table"),
        ("kind = 'native'", "kind = 'native'\noptions = { isa = 'avx512' }", "`options.isa` is in this block too"),
        ("name = 'mine'", "name = 'native'", "the name of a built-in backend"),
        ("[[backend]]", "[[task]]\nname = 't'\nkind = 'sudoku'\nsize = 4\n[[backend]]", "`t` is taken already"),
        ("[[task]]", "[[task]]\nname = 't'\nkind = 'sudoku'\nsize = 4\n[[task]]", "`t` is taken already"),
        (
            "[[backend]]",
            "[[task]]\nname = 't'\nkind = 'sudoku'\nsize = 4\nsweep = { seed = [1, 2] }\n[[backend]]",
            "`t` is taken already",
        ),
    ] {
        let said = error(&text.replace(from, to));
        assert!(said.contains(word) && said.contains("line ") && said.contains("hint: "), "{word}: {said}");
    }
    let many = (0..40).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let said = error(&text.replace("examples = 5", &format!("examples = [{many}], seed = [{many}]")));
    assert!(said.contains("comes to more than 1000 blocks"), "{said}");
    let long = format!("kind = 'sudoku'\nx = '{}'", "x".repeat(500_000));
    let said = error(&text.replace("kind = 'sudoku'", &long).replace("examples = 5", &format!("examples = [{many}]")));
    assert!(said.contains("copies of a block of"), "{said}");
    let task = |i: usize| {
        format!("[[task]]\nname = 'n{i}'\nkind = 'sudoku'\nsweep = {{ size = [{many}], seed = [{many}] }}\n")
    };
    let tasks: String = (0..10).map(|i| task(i).replace(&many, &many[..many.find(", 31").unwrap_or(0)])).collect();
    // 961 blocks each
    assert!(parsed(&text.replace("[[task]]", &format!("{tasks}[[task]]"))).is_ok());
    let tasks: String = (0..11).map(|i| task(i).replace(&many, &many[..many.find(", 31").unwrap_or(0)])).collect();
    let said = error(&text.replace("[[task]]", &format!("{tasks}[[task]]")));
    assert!(said.contains("more than 10000 blocks"), "{said}");
}

#[test]
fn a_suite_may_include_others() {
    let files = [
        ("main.toml", "include = ['common/base.toml', 'more.toml']\n[[cases]]\ndepth = 'once'\n"),
        ("common/base.toml", BASE),
        ("more.toml", "include = 'common/base.toml'\n[defaults]\nseconds = 7\n[[cases]]\ndepth = 'fixed-2'\n"),
    ];
    let suite = loaded(&files, &[]).unwrap();
    assert_eq!(paths(&suite), ["t/m/f32/native/single-stream/t1/fixed-2", "t/m/f32/native/single-stream/t1/once"]);
    // paths start at the file that has them; the nearer file's defaults are meant, and of two the later's
    assert!(suite.models["m"].path.ends_with("common/net"), "{:?}", suite.models);
    assert_eq!(suite.cases.iter().map(|c| c.seconds).collect::<Vec<_>>(), [7.0, 7.0]);
    assert_eq!(suite.name, "main");
    assert!(
        suite.text.starts_with(files[0].1) && suite.text.contains("\n# included: base.toml\n# [[model]]\n"),
        "{}",
        suite.text
    );
    assert!(suite.text.parse::<toml::Table>().is_ok());
    let with = |name: &str, text: &'static str| files.map(|(n, t)| if n == name { (n, text) } else { (n, t) });
    for (files, file, word) in [
        (with("more.toml", "include = 'main.toml'"), "main.toml", "includes itself"),
        (with("more.toml", "include = 'none.toml'"), "more.toml", "there is no file `none.toml`"),
        (with("more.toml", "include = 7"), "more.toml", "line 1, `include`"),
        (with("more.toml", "together = 99"), "more.toml", "line 1, `together`"),
        (with("more.toml", "\nsecnds = 1\n"), "more.toml", "line 2: unknown key `secnds`"),
        (with("more.toml", "[[model]]\nname = 'm'\npath = 'x'\n"), "more.toml", "line 2, `name`: `m` is taken"),
        (with("more.toml", "include = 'common/base.toml'\n[[cases]]\ndepth = 'once'"), "main.toml", "a second time"),
        (with("main.toml", "include = 'common/base.toml'"), "main.toml", "asks for no case"),
    ] {
        let said = loaded(&files, &[]).unwrap_err().to_string();
        assert!(said.contains(file) && said.contains(word) && said.contains("hint: "), "{word}: {said}");
    }
}

#[test]
fn the_command_line_changes_values_and_a_run_keeps_what_it_changed() {
    let text = format!(
        "{BASE}[[backend]]\nname = 'b.2'\nkind = 'native'\n[[backend]]\nname = 'b'\nkind = 'native'\n[[cases]]\n"
    );
    let files = [("s.toml", text.as_str())];
    let changed = |changes: &[&str]| loaded(&files, changes);
    let suite = changed(&[
        "defaults.seconds=0.5",
        "cases.threads=[2, 4]",
        "task.size=6",
        "task.t.seed=9",
        "model.path=my/net",
        "backend.b.2.options.isa=avx2",
        "cases.backends = b.2",
        "about=a b",
        "together=2",
    ])
    .unwrap();
    assert_eq!(paths(&suite), ["t/m/f32/b.2/single-stream/t2/halt-16", "t/m/f32/b.2/single-stream/t4/halt-16"]);
    assert_eq!((suite.cases[0].seconds, suite.together, suite.about.as_str()), (0.5, 2, "a b"));
    assert_eq!((suite.tasks["t"].seed, suite.tasks["t"].parameters["size"].as_integer()), (9, Some(6)));
    assert_eq!((suite.backends["b.2"].options["isa"].as_str(), suite.backends["b"].options.len()), ("avx2", 0));
    assert_eq!(suite.models["m"].path, std::env::current_dir().unwrap().join("my/net"), "a flag's path starts here");
    let other = changed(&["cases.scenarios=offline-b3", "cases.batch=[1, 4]"]).unwrap();
    assert_eq!(other.cases.iter().map(|c| c.scenario.rows()).collect::<Vec<_>>(), [1, 4]);
    assert!(suite.text.contains("\n# --set together=2\n") && suite.text.parse::<toml::Table>().is_ok());
    let broken = changed(&["cases.threads=[1,\n2]"]).unwrap();
    assert!(broken.text.parse::<toml::Table>().is_ok() && broken.text.contains("# 2]"), "{}", broken.text);
    for (change, word) in [
        ("defaults.secnds=1", "`--set`: unknown key `secnds`"),
        ("cases.threads=0", "`--set`, `threads`"),
        ("seconds=1", "`--set seconds=1`: unknown key `seconds`"),
        ("model=x", "unknown key `model`"),
        ("backend.c.kind=native", "unknown backend `c`"),
        ("task.t.kind=sudoko", "unknown task kind `sudoko`"),
        ("task.name.x=1", "goes into a value that is no table"),
        ("together=99", "`--set`, `together`"),
    ] {
        let said = changed(&[change]).unwrap_err().to_string();
        assert!(said.contains(word) && said.contains("s.toml") && said.contains("hint: "), "{change}: {said}");
    }
    for wrong in ["", "a", "=1", "a="] {
        assert!(wrong.parse::<Change>().is_err(), "{wrong}");
    }
}

#[test]
fn bounds_of_goodput_go_together() {
    let with = |more: &str| format!("{BASE}[[cases]]\ndepth = 'once'\n{more}\n");
    let both = parsed(&with("ttft_bound = '200 ms'\ntpot_bound = '0.05 s'")).unwrap();
    assert_eq!(both.cases[0].limits.served, Some((0.2, 0.05)));
    for (more, word) in [
        ("ttft_bound = '200 ms'", "tpot_bound = "),
        ("tpot_bound = '200 ms'", "ttft_bound = "),
        ("ttft_bound = 0.2\ntpot_bound = '1 s'", "a time such as"),
    ] {
        let said = error(&with(more));
        assert!(said.contains(word), "{more}: {said}");
    }
}
