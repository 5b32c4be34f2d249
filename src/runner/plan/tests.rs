//! Plans of small suites: groups, bases, blocks, globs, and models without a graph.
//!
//! In: suites of a few lines. Out: assertions on planned cases. Must not: start a worker.

use ergometer_reports::case::ErrorKind;
use ergometer_suites::suite::Known;
use serde_json::json;

use super::*;

/// The plan of these `[[cases]]` blocks over a small net and two small tasks.
fn planned(cases: &str) -> Plan {
    with_suite(cases).1
}

fn with_suite(cases: &str) -> (Suite, Plan) {
    let house = tempfile::tempdir().unwrap();
    let config = json!({"model_type": "encoder", "seq_len": 16, "vocab_size": 6, "hidden_size": 16, "num_layers": 1, "num_heads": 2,
                        "expansion": 1.0, "pos_encodings": "learned"});
    let model = Model::random(&config, 7).unwrap();
    Model::save(&house.path().join("net"), &config, model.graph().unwrap(), &model.params).unwrap();
    let mut text = String::from("[[model]]\nname = \"net\"\npath = \"net\"\n");
    for task in ["a", "b"] {
        text += &format!("[[task]]\nname = {task:?}\nkind = \"sudoku\"\nsize = 4\nclues = [6, 8]\nexamples = 3\n");
    }
    for own in ["x", "y"] {
        text += &format!("[[backend]]\nname = {own:?}\nkind = \"external\"\ncommand = [\"none\"]\n");
    }
    let known = Known { backends: &["native"], precisions: &["f32", "bf16"], processors: 2 };
    let text = format!("{text}[defaults]\nmodels = [\"net\"]\ntasks = [\"a\"]\n{cases}");
    let suite = Suite::parse(&text, &house.path().join("suite.toml"), &known).unwrap();
    let plan = Plan::new(&suite, |_| true).unwrap();
    (suite, plan)
}

#[test]
fn a_model_without_a_graph_is_opaque_and_nothing_judges_it() {
    let (suite, mut plan) = with_suite("[[cases]]\nbackends = [\"native\"]\n");
    let known = plan.cases[0].clone();
    assert!(known.key.family == "dense" && known.costs.is_some());
    plan.models.get_mut("net").unwrap().graph = None;
    let case = plan.case(&suite, &known.spec, None).unwrap();
    assert_eq!((case.key.family.as_str(), case.costs), ("opaque", None));
    assert!(crate::runner::estimate::timing(&case, false) > 0.0);
    let cache = tempfile::tempdir().unwrap();
    let (task, model) = (&plan.tasks["a"], &plan.models["net"]);
    let why = crate::runner::reference::vectors(&case, model, task, cache.path()).unwrap_err();
    // which is a verdict of accuracy only, not a failure
    assert!(why.kind == ErrorKind::Unavailable && why.message.contains("`net` has no graph"), "{why:?}");
    assert!(std::fs::read_dir(cache.path()).unwrap().next().is_none());
}

fn names(interleaved: &[&PlannedCase]) -> Vec<String> {
    interleaved.iter().map(|c| format!("{}-{}", c.key.backend, c.key.precision)).collect()
}

#[test]
fn cases_that_differ_in_backend_or_precision_alone_sit_together() {
    let plan = planned(
        "[[cases]]\nbackends = [\"x\"]\nprecisions = [\"bf16\"]\ninterleave = true\n\
         [[cases]]\nbackends = [\"native\"]\n\
         [[cases]]\nbackends = [\"y\", \"x\"]\nthreads = [1, 2]\ninterleave = true\n\
         [[cases]]\nbackends = [\"y\"]\nscenarios = [\"offline-b1\", \"offline-b2\"]\ninterleave = true\n\
         [[cases]]\nbackends = [\"y\"]\ntasks = [\"b\"]\ninterleave = true\n",
    );
    let interleaved_groups = interleaved_groups(&plan.cases);
    let found: Vec<Vec<String>> = interleaved_groups.iter().map(|s| names(s)).collect();
    let want: [&[&str]; 6] =
        [&["x-bf16", "y-f32", "x-f32"], &["native-f32"], &["y-f32", "x-f32"], &["y-f32"], &["y-f32"], &["y-f32"]];
    assert_eq!(found, want, "two threads, other batches and another task are groups of their own");
    // a base that nobody named is the first in full precision, whoever comes first
    assert_eq!(names(&[base(&interleaved_groups[0], interleaved_groups[0][0]).unwrap()]), ["y-f32"]);
}

#[test]
fn the_base_is_of_the_backend_that_the_suite_names() {
    let block = |name: &str| {
        format!(
            "[[cases]]\nbackends = [\"y\", \"x\"]\nprecisions = [\"bf16\", \"f32\"]\ninterleave = true\nbase = {name:?}\n"
        )
    };
    let plan = planned(&block("x"));
    let interleaved_groups = interleaved_groups(&plan.cases);
    assert_eq!(interleaved_groups.len(), 1);
    assert!(interleaved_groups[0].iter().all(|c| names(&[base(&interleaved_groups[0], c).unwrap()]) == ["x-f32"]));
    let plan = planned(&block("native"));
    assert!(
        base(&super::interleaved_groups(&plan.cases)[0], &plan.cases[0]).is_none(),
        "nothing stands in for what was asked"
    );
}

#[test]
fn a_sitting_is_expected_to_have_the_rounds_that_its_comparisons_need() {
    let block = |names: &str| format!("[[cases]]\nbackends = [{names}]\nprecisions = [\"f32\", \"bf16\"]\n");
    let turns = planned(&format!("{}interleave = true\n", block("\"x\", \"y\"")));
    assert_eq!(turns.cases.iter().map(|c| c.compared).collect::<Vec<_>>(), [3; 4], "all but their base");
    let apart = planned(&block("\"x\", \"y\""));
    assert!(apart.cases.iter().all(|c| c.compared == 0));
    // an iteration takes ten seconds: six blocks of it, seven for the intervals of three comparisons
    let seconds = |mut case: PlannedCase, compared: usize| {
        let flops_step = 10.0 * crate::runner::estimate::RATE * f64::from(case.key.threads.max(1));
        case.costs = Some(Costs { flops_step, ..Costs::default() });
        (case.max_steps, case.compared) = (1, compared);
        (case.spec.seconds, case.spec.warmup_seconds, case.spec.iterations) = (1.0, 0.0, 1);
        crate::runner::estimate::timing(&case, false)
    };
    let mut cases = turns.cases.into_iter();
    let mut next = |compared| seconds(cases.next().unwrap(), compared);
    let (alone, three, nine) = (next(1), next(3), next(9));
    assert!((three - alone - 10.0).abs() < 1e-9 && (nine - alone - 30.0).abs() < 1e-9, "{alone} {three} {nine}");
    let apart = seconds(apart.cases.into_iter().next().unwrap(), 9);
    assert!((apart - alone).abs() < 1e-9, "{apart}: no rounds for a case that takes no turns");
}

#[test]
fn globs_match_paths() {
    for (pattern, text, want) in [
        ("*native*", "sudoku/trm/f32/native/single-stream/t1/halt-16", true),
        ("sudoku/*/f32/*", "sudoku/trm/f32/native", true),
        ("t?", "t2", true),
        ("t?", "t12", false),
        ("*a*b", "xaxbxb", true),
        ("", "x", false),
        ("*", "", true),
    ] {
        assert_eq!(glob(pattern, text), want, "{pattern} on {text}");
    }
}
