//! Own data and scorers, through the program: an ONNX file on an engine, an external worker, and programs that score.
//!
//! In: a net of one product, `y[N, 3] = x[N, 4] w`. Out: records that the test knows beforehand. Must not: need an engine that is not built in.

use std::fmt::Write;
use std::fs;

use ergometer::onnx::proto::*;
use ergometer_reports::case::ErrorKind;
use prost::Message;

use crate::house::{House, Records, root};

/// Weights of input `i` for output `j`.
fn weight(i: usize, j: usize) -> f64 {
    (i * 3 + j) as f64 / 4.0 - 1.0
}

/// The net as a file.
fn net() -> Vec<u8> {
    const FLOAT: i32 = 1;
    let value = |name: &str, features: i64| {
        let dims =
            [Dim { dim_value: None, dim_param: Some("N".into()) }, Dim { dim_value: Some(features), dim_param: None }];
        let tensor_type = Some(TensorType { elem_type: Some(FLOAT), shape: Some(Shape { dim: dims.into() }) });
        ValueInfo { name: Some(name.into()), r#type: Some(Type { tensor_type }) }
    };
    let weights = (0..12).flat_map(|k| (weight(k / 3, k % 3) as f32).to_le_bytes()).collect();
    let node = Node {
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        op_type: Some("MatMul".into()),
        ..Node::default()
    };
    let w = Tensor {
        dims: vec![4, 3],
        data_type: Some(FLOAT),
        name: Some("w".into()),
        raw_data: Some(weights),
        ..Tensor::default()
    };
    let graph = Graph {
        node: vec![node],
        name: Some("product".into()),
        initializer: vec![w],
        doc_string: None,
        input: vec![value("x", 4)],
        output: vec![value("y", 3)],
    };
    let model = Model {
        ir_version: Some(8),
        producer_name: Some("a test".into()),
        producer_version: None,
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(17) }],
        metadata_props: Vec::new(),
    };
    model.encode_to_vec()
}

/// Rows of four inputs, and what the net makes of each.
fn rows() -> Vec<([f64; 4], [f64; 3])> {
    let x = |row: usize| [0, 1, 2, 3].map(|i| ((row * 7 + i * 5) % 9) as f64 - 4.0);
    let y = |x: [f64; 4]| [0, 1, 2].map(|j| (0..4).map(|i| x[i] * weight(i, j)).sum());
    (0..40).map(|row| (x(row), y(x(row)))).collect()
}

fn argmax(y: &[f64; 3]) -> usize {
    (0..3).fold(0, |best, j| if y[j] > y[best] { j } else { best })
}

/// A house with the net and its data: labels are right in three rows of four.
fn house() -> House {
    let house = House::new();
    house.file("net.onnx", net());
    let mut text = String::from("a,b,c,d,class,sign,u,v,w,who\n");
    for (row, (x, y)) in rows().iter().enumerate() {
        let class = (argmax(y) + usize::from(row % 4 == 3)) % 3;
        let sign = u8::from(y[0] > 0.0);
        let [u, v, w] = y.map(|y| y + if row % 2 == 0 { 0.5 } else { -0.5 });
        writeln!(text, "{},{},{},{},{class},{sign},{u},{v},{w},{}", x[0], x[1], x[2], x[3], row / 2).unwrap();
    }
    house.file("data.csv", text);
    house
}

/// A suite of these tasks, name and parameters, on these backends.
fn suite(tasks: &[(&str, &str)], backends: &str, more: &str) -> String {
    let mut text = format!("[[model]]\nname = \"net\"\npath = \"net.onnx\"\n{more}");
    for (name, parameters) in tasks {
        let inputs = if parameters.contains("random") { "" } else { "inputs = { x = \"data.csv:a..d\" }\n" };
        writeln!(text, "[[task]]\nname = \"{name}\"\nkind = \"arrays\"\n{inputs}{parameters}").unwrap();
    }
    let names: Vec<&str> = tasks.iter().map(|t| t.0).collect();
    text + &format!(
        "[[cases]]\nmodels = [\"net\"]\nbackends = {backends}\ntasks = {names:?}\nseconds = 0.05\nwarmup_seconds = 0\n"
    )
}

fn value(records: &Records, task: &str, metric: &str) -> Option<f64> {
    let found: Vec<_> = records.0.iter().filter(|r| r.task == task && r.metric == metric).collect();
    assert!(found.len() <= 1, "{task} {metric}: {}", found.len());
    found.first().and_then(|r| r.value)
}

#[test]
fn own_data_is_scored_as_the_suite_says() {
    let house = house();
    let tasks = [
        ("classes", "labels = \"data.csv:class\"\nscorer = \"top-1\"\ncluster = \"data.csv:who\""),
        ("two", "labels = \"data.csv:class\"\nscorer = \"top-2\""),
        ("signs", "labels = \"data.csv:sign\"\nscorer = \"binary\"\nthreshold = 0.0\npositive = 0"),
        ("numbers", "labels = \"data.csv:u..w\"\nscorer = \"regression\""),
        ("noise", "random = { x = { kind = \"f32\", shape = [4] } }"),
    ];
    let file = house.file("own.toml", suite(&tasks, "[\"tract\"]", ""));
    let ended = house.run(&file, "run", &[]);
    ended.exits(0);
    let records = house.records("run");
    let close = |task: &str, metric: &str, wanted: f64| {
        let found = value(&records, task, metric).unwrap_or_else(|| panic!("{task} has no {metric}: {ended:?}"));
        assert!((found - wanted).abs() < 1e-5, "{task} {metric}: {found}, not {wanted}");
    };
    close("classes", "accuracy", 0.75);
    assert_eq!(records.0.iter().find(|r| r.task == "classes" && r.metric == "accuracy").unwrap().baselines.len(), 1);
    close("two", "accuracy_top1", 0.75);
    let rank = |row: usize, y: &[f64; 3], class: usize| (0..3).filter(|&j| y[j] > y[class]).count() < 2 || row > 99;
    let label = |row: usize, y: &[f64; 3]| (argmax(y) + usize::from(row % 4 == 3)) % 3;
    let right = rows().iter().enumerate().filter(|(row, (_, y))| rank(*row, y, label(*row, y))).count();
    close("two", "accuracy", right as f64 / 40.0);
    close("signs", "auroc", 1.0);
    close("numbers", "mae", 0.5);
    close("numbers", "rmse", 0.5);
    assert!(value(&records, "numbers", "r2").unwrap() > 0.8);
    // nothing is right or wrong where only errors are known, or nothing at all
    for (task, why) in [("numbers", "`regression`"), ("noise", "throughput only")] {
        for metric in ["accuracy", "cell_accuracy", "joules_per_right"] {
            let record = records.0.iter().find(|r| r.task == task && r.metric == metric).unwrap();
            let missing = record.missing.as_ref().unwrap_or_else(|| panic!("{task} has {metric}"));
            assert!(metric == "joules_per_right" || missing.message.contains(why), "{missing:?}");
        }
        assert!(value(&records, task, "throughput").is_some());
    }
    assert!(ended.stdout.contains("throughput only"), "{}", ended.stdout);
    assert!(
        !ended.stdout.contains("No case has AUROC") && !ended.stdout.contains("No case has IoU"),
        "{}",
        ended.stdout
    );
    // the folder alone gives the same records
    let before = fs::read(house.path("run/records.csv")).unwrap();
    house.ergometer(&["report", house.path("run").to_str().unwrap()]).exits(0);
    let sums = fs::read_to_string(house.path("run/records.csv")).unwrap();
    assert_eq!(before, sums.as_bytes());
}

#[test]
fn an_external_worker_reads_the_arrays_of_its_job() {
    let house = house();
    let script = root().join("tests/fakes/arrays.py");
    let example = root().join("examples/external-worker");
    let backend = format!(
        "[[backend]]\nname = \"by-hand\"\nkind = \"external\"\ncommand = [\"python3\", \"-B\", {:?}, {:?}]\n",
        script.to_str().unwrap(),
        example.to_str().unwrap()
    );
    let tasks = [
        ("classes", "labels = \"data.csv:class\"\nscorer = \"top-1\"\nexamples = 20\nseed = 3"),
        ("numbers", "labels = \"data.csv:u..w\"\nscorer = \"regression\"\ntolerance = 0.6"),
    ];
    let file = house.file("own.toml", suite(&tasks, "[\"by-hand\", \"tract\"]", &backend));
    house.run(&file, "run", &[]).exits(0);
    let records = house.records("run");
    let of = |backend: &str, task: &str, metric: &str| {
        let found = records.0.iter().find(|r| r.backend == backend && r.task == task && r.metric == metric);
        found.and_then(|r| r.value).unwrap_or_else(|| panic!("{backend} {task} {metric}"))
    };
    for (task, metric) in [("classes", "accuracy"), ("numbers", "accuracy"), ("numbers", "mae")] {
        assert!((of("by-hand", task, metric) - of("tract", task, metric)).abs() < 1e-6, "{task} {metric}");
    }
    assert_eq!(of("by-hand", "numbers", "accuracy"), 1.0);
    house.assert_nobody_left();
}

#[test]
fn data_that_does_not_fit_the_model_is_refused_before_anything_runs() {
    let house = house();
    for (parameters, words) in [
        ("labels = \"data.csv:class\"\nscorer = \"top-1\"\nclasses = 2", &["`labels", "row ", "0 to 1"][..]),
        ("labels = \"data.csv:nobody\"\nscorer = \"top-1\"", &["no column `nobody`"]),
    ] {
        let file = house.file("bad.toml", suite(&[("own", parameters)], "[\"tract\"]", ""));
        house.run(&file, "bad", &[]).refused(words);
    }
    let labels = "labels = \"data.csv:class\"\nscorer = \"top-1\"";
    for (from, to, words) in [
        ("{ x =", "{ z =", &["input `z`"][..]),
        ("data.csv:a..d", "data.csv:a..c", &["own", "[3]"]),
        ("\"data.csv:a..d\"", "{ from = \"data.csv:a..d\", kind = \"i64\" }", &["own", "i64"]),
    ] {
        let text = suite(&[("own", labels)], "[\"tract\"]", "").replace(from, to);
        house.run(&house.file("bad.toml", text), "bad", &[]).refused(words);
    }
    assert!(!house.path("bad").exists());
}

/// A scorer that reads answers and does one thing with them.
fn scorer(body: &str) -> String {
    format!(
        "import json, sys, time\nrows = [json.loads(line) for line in sys.stdin]\nsay = lambda **k: print(json.dumps(k), flush=True)\n{body}"
    )
}

const GOOD: &str = "import os
assert os.environ.get('SECRET') is None and os.getcwd() == os.path.dirname(os.path.abspath(__file__))
for row in reversed(rows):
    best = max(range(3), key=lambda j: row['answer'][j])
    say(example=row['example'], score=1.0 if row['label'] == str(best) else 0.25, pairs={'length': [len(row['answer']), 2]})
";

#[test]
fn a_program_scores_and_one_that_fails_loses_no_answer() {
    let house = house();
    let parameters = "labels = \"data.csv:class\"\nscorer = [\"python3\", \"-B\", \"score.py\"]\nscorer_seconds = 3\ncluster = \"data.csv:who\"";
    let file = house.file("own.toml", suite(&[("own", parameters)], "[\"tract\"]", ""));
    for (number, (body, words)) in [
        ("print('hello')", &["line 1 of the scorer", "`hello`"][..]),
        ("say(example=0, score=0.5); time.sleep(60)", &["within 3 s", "scorer_seconds"]),
        ("say(example=0, score=0.5); sys.exit('no more')", &["exit status: 1", "after 1 of 40", "no more"]),
        ("say(example=0, score=0.5)", &["ended after 1 of 40"]),
        ("say(example=0, score=0.5); say(example=0, score=0.5)", &["line 2 of the scorer", "example 0 again"]),
        ("say(example=0, score=1.5)", &["line 1", "1.5", "0 to 1"]),
        ("say(example=40, score=0.5)", &["line 1", "example 40"]),
        ("say(example=0, score=0.5, pairs={'a b': [1, 2]})", &["line 1", "pair"]),
        ("print('x' * 100000)", &["longer", "line"]),
        ("while True: sys.stderr.write('x' * 100000)", &["stderr"]),
        ("import os; os.kill(os.getpid(), 9)", &["signal: 9"]),
    ]
    .into_iter()
    .enumerate()
    {
        house.file("score.py", scorer(body));
        let out = format!("run-{number}");
        let ended = house.run(&file, &out, &[]);
        assert_eq!(ended.code, Some(2), "{body}: {ended:?}");
        let words = words.iter().filter(|w| **w != "longer");
        for word in words.chain(&["hint: ", "--resume", "all answers"]) {
            assert!(ended.stderr.contains(word), "{body}: {word}: {}", ended.stderr);
        }
        let case = house.cases(&out).remove("tract").unwrap();
        assert_eq!(case.error.unwrap().kind, ErrorKind::Scorer);
        house.assert_nobody_left();
    }
    // the answers were kept: a worker is not asked for them again, and the program that was mended scores them
    let answers = |out: &str| -> Vec<String> {
        let case = fs::read_dir(house.path(out).join("cases")).unwrap().next().unwrap().unwrap().path();
        let text = fs::read_to_string(case.join("predictions.csv")).unwrap();
        text.lines().skip(1).map(|l| l.split(',').nth(5).unwrap().to_owned()).collect()
    };
    let kept = answers("run-0");
    assert_eq!(kept.len(), 40);
    // a daemon of another session and environment, which has no mark, ends with the scorer that started it
    let daemon = "import subprocess
subprocess.run(['sh', '-c', 'env -i setsid sleep 600 >/dev/null 2>&1 & touch begun'])
";
    house.file("score.py", scorer(&format!("{daemon}{GOOD}")));
    house.run(&file, "run-0", &["--resume"]).exits(0);
    assert!(house.path("begun").exists());
    house.assert_nobody_left();
    assert_eq!(answers("run-0"), kept);
    let records = house.records("run-0");
    assert_eq!(value(&records, "own", "score"), Some(0.75 + 0.25 * 0.25));
    assert_eq!(value(&records, "own", "accuracy"), Some(0.75));
    assert_eq!(value(&records, "own", "scorer_pair.length"), Some(1.5));
    let case = house.cases("run-0").remove("tract").unwrap();
    assert!(case.notes.iter().any(|n| n.contains("when the run was resumed")), "{:?}", case.notes);
    assert!(case.versions["scorer"].contains("score.py") && case.versions["scorer score.py"].starts_with("sha256 "));
    // one that is not there
    let absent = house.file("absent.toml", fs::read_to_string(&file).unwrap().replace("python3", "no-such-program"));
    let ended = house.run(&absent, "absent", &[]);
    assert!(ended.code == Some(2) && ended.stderr.contains("cannot start `no-such-program`"), "{ended:?}");
}

#[test]
fn a_run_does_not_go_on_with_other_data() {
    let house = house();
    let tasks = [("classes", "labels = \"data.csv:class\"\nscorer = \"top-1\"")];
    let file = house.file("own.toml", suite(&tasks, "[\"tract\"]", ""));
    house.run(&file, "run", &[]).exits(0);
    let data = house.path("data.csv");
    let before = fs::read_to_string(&data).unwrap();
    let records = house.records("run").0.len();
    // one label is another
    let last = before.trim_end().rsplit_once('\n').unwrap();
    let fields: Vec<&str> = last.1.split(',').collect();
    let other = if fields[4] == "0" { "1" } else { "0" };
    let changed = [&fields[..4], &[other], &fields[5..]].concat().join(",");
    house.file("data.csv", format!("{}\n{changed}\n", last.0));
    let ended = house.run(&file, "run", &["--resume"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("other examples of the task `classes`") && ended.stderr.contains("hint: "));
    house.file("data.csv", before);
    house.run(&file, "run", &["--resume"]).exits(0);
    assert_eq!(house.records("run").0.len(), records);
}
