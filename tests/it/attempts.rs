//! Questions decided from several rows, through the program: from a run to attempts, records and report, on after a kill, and models that
//! cannot take such a task.
//!
//! In: tiny nets with random weights on tiny rules. Out: run folders. Must not: expect a net to be right; what was decided is worked out
//! again from the answers.

use std::fs;
use std::path::Path;

use ergometer_reports::case::{Attempt, Prediction};
use ergometer_reports::{CaseRun, load};
use ergometer_suites::task::{ExampleSet, RowAnswer};
use ergometer_suites::{Answer, AnswerKind};
use serde_json::{Value, json};

use crate::house::{House, tree};

/// Parameters of the task, as a suite says them.
const RULES: &str = "kind = \"arc\"\nrules = [\"mirror\", \"crop\"]\nmax_side = 5\ntests = 2\naugmentations = 3\nexamples = 24\nseed = 3\n";

/// What the program makes of them.
fn rules() -> ExampleSet {
    let mut table: toml::Table = RULES.parse().unwrap();
    let kind = table.remove("kind").unwrap();
    let task = ergometer_suites::task(kind.as_str().unwrap()).unwrap();
    (task.examples)(&table, Path::new("")).unwrap()
}

/// A recursive net of up to three steps with a table of so many puzzle embeddings; none for 0.
fn net(set: &ExampleSet, ids: u32) -> Value {
    let features = if ids > 0 { 16 } else { 0 };
    json!({"model_type": "trm", "seq_len": set.examples[0].tokens.len(), "vocab_size": set.vocabulary, "hidden_size": 16, "num_heads": 2,
           "expansion": 1.0, "H_cycles": 1, "L_cycles": 1, "L_layers": 1, "halt_max_steps": 3, "puzzle_emb_ndim": features,
           "num_puzzle_identifiers": ids})
}

/// A suite of one model on the rules, on two backends.
fn suite(house: &House, ids: u32) -> std::path::PathBuf {
    let set = rules();
    house.model("rules", &net(&set, ids));
    let cases = "[[cases]]\nmodels = [\"rules\"]\ntasks = [\"rules\"]\nbackends = [\"reference\", \"native\"]\ndepth = [\"halt-3\"]\n\
                 scenarios = [\"offline-b4\"]\nseconds = 0.05\nwarmup_seconds = 0\n";
    let cases = [("reference", "f64"), ("native", "f32")].map(|(backend, precision)| {
        cases.replace("\"reference\", \"native\"", &format!("\"{backend}\""))
            + &format!("precisions = [\"{precision}\"]\n")
    });
    let head = "[[model]]\nname = \"rules\"\npath = \"rules\"\n[[task]]\nname = \"rules\"\n";
    house.file("rules.toml", format!("{head}{RULES}{}", cases.concat()))
}

/// The task's decisions on a case's answers, by the rule that rows keep their last answer.
fn decided_again(case: &CaseRun, set: &ExampleSet, depth: u32) -> Vec<(u64, u32, u32, bool)> {
    let latest = |example: usize| -> &Prediction {
        let of = case.predictions.iter().filter(|p| p.example == example as u64 && p.depth <= depth);
        of.max_by_key(|p| p.depth).unwrap()
    };
    let read = |e: usize| Answer::parse(AnswerKind::Tokens, &latest(e).answer).unwrap();
    let given: Vec<Answer> = (0..set.examples.len()).map(read).collect();
    let answer = |(example, answer)| RowAnswer { example, answer, halt_logit: latest(example).halt_logit };
    let answers: Vec<RowAnswer> = given.iter().enumerate().map(answer).collect();
    let kind: toml::Table = RULES.parse().unwrap();
    let decide = ergometer_suites::task(kind["kind"].as_str().unwrap()).unwrap().decide.unwrap();
    let decisions = decide(set, &answers);
    assert_eq!(decisions.len(), set.questions.len());
    let attempts = decisions.iter().flat_map(|d| d.attempts.iter().map(|a| (d.question, a.part, a.number, a.right)));
    attempts.collect()
}

fn shown(attempts: &[Attempt], depth: u32) -> Vec<(u64, u32, u32, bool)> {
    let of_depth = attempts.iter().filter(|a| a.depth == depth && a.attempt > 0);
    of_depth.map(|a| (a.question, a.part, a.attempt, a.right)).collect()
}

#[test]
fn a_run_keeps_every_attempt_and_counts_questions() {
    let (house, set) = (House::new(), rules());
    let ended = house.run(&suite(&house, set.puzzle_ids), "run", &[]);
    ended.exits(0);
    assert!(set.baselines.iter().all(|b| ended.stdout.contains(&b.name)), "{}", ended.stdout);
    let run = load(&house.path("run")).unwrap();
    assert_eq!(run.cases.len(), 2);
    for case in &run.cases {
        assert_eq!(case.case.questions, set.questions.len() as u64);
        let most = case.predictions.iter().map(|p| p.depth).max().unwrap();
        for depth in 1..=most {
            assert_eq!(shown(&case.attempts, depth), decided_again(case, &set, depth), "depth {depth}");
        }
        for a in &case.attempts {
            let rows = set.examples.iter().filter(|e| e.question == a.question).count();
            assert_eq!((a.rows as usize, &a.name), (rows, &set.questions[a.question as usize]));
            assert_eq!(a.last, a.depth == most);
        }
    }
    let records = house.records("run");
    for backend in ["reference", "native"] {
        let accuracy = records.get(backend, "accuracy");
        assert_eq!(accuracy.n, set.questions.len() as u64);
        assert!(accuracy.method.contains("every output right, per task"), "{accuracy:?}");
        let told: Vec<_> = accuracy.baselines.iter().map(|b| (&b.name, b.right, b.of)).collect();
        assert_eq!(told, set.baselines.iter().map(|b| (&b.name, b.right, b.of)).collect::<Vec<_>>());
        assert_eq!(records.get(backend, "accuracy_single").n, set.examples.len() as u64);
        assert!(records.get(backend, "accuracy_outputs").n >= accuracy.n);
        // this house has no meter, and a votes' cost without one is no number
        assert_eq!(records.get(backend, "joules_per_right").value, None);
    }
    let page = fs::read_to_string(house.path("run/report/index.html")).unwrap();
    assert!(page.contains("Without a model:") && page.contains("Where right answers came from"));
}

#[test]
fn a_run_goes_on_with_the_attempts_that_it_has() {
    let (house, set) = (House::new(), rules());
    let suite = suite(&house, set.puzzle_ids);
    house.run(&suite, "run", &[]).exits(0);
    let attempts = |run: &str| {
        let files = tree(&house.path(run));
        let attempts = files.into_iter().filter(|(path, _)| path.ends_with("attempts.csv"));
        attempts.collect::<Vec<_>>()
    };
    let before = attempts("run");
    assert_eq!(before.len(), 2);
    // as if it had been killed before the second case was finished
    let lost = house.path("run").join(before[1].0.parent().unwrap());
    fs::remove_dir_all(&lost).unwrap();
    let ended = house.run(&suite, "run", &["--resume"]);
    ended.exits(0);
    assert!(ended.stderr.contains("finished before: 1 of 2 cases"), "{}", ended.stderr);
    assert_eq!(attempts("run"), before);
    // attempts that are gone are missed, and nothing is made up from single rows
    fs::remove_file(house.path("run").join(&before[0].0)).unwrap();
    house.ergometer(&["report", "run"]).refused(&["attempts.csv", "decide 0 questions, the case has", "hint: "]);
}

#[test]
fn models_that_cannot_tell_the_rules_apart_are_refused() {
    let (house, set) = (House::new(), rules());
    assert!(set.puzzle_ids > 1);
    let small = suite(&house, set.puzzle_ids - 1);
    let table = format!("a table of {} puzzle embeddings", set.puzzle_ids);
    house.run(&small, "run", &[]).refused(&["rules.toml", "task `rules`", &table, "model `rules`", "hint: "]);
    let none = suite(&house, 0);
    house.run(&none, "run", &[]).refused(&["rules.toml", "model `rules` has no input for it", "hint: "]);
    assert!(!house.path("run").exists());
    // with more rows than there are ids, ids stand for other puzzles
    house.run(&suite(&house, set.puzzle_ids + 1), "run", &[]).refused(&["rules.toml", &table, "hint: "]);
}
