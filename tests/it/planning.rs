//! What is known before anything runs: how long a plan takes, which limit it would meet, whom nobody takes turns with.
//!
//! In: suites that are only planned. Out: what `--dry-run` and `run` say. Must not: measure.

use crate::house::House;

const CASE: &str = "[[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\n";

#[test]
fn more_answers_than_a_run_folder_keeps_are_refused_when_planned() {
    let house = House::new();
    let many = "[[task]]\nname = \"many\"\nkind = \"sudoku\"\nsize = 4\nclues = [6, 10]\nexamples = 200\n";
    let case = CASE.replace("small", "many");
    let suite = house.suite("many.toml", &format!("{many}{case}depth = [\"fixed-65536\"]\n"));
    for more in [&["--dry-run"][..], &[]] {
        house.run(&suite, "run", more).refused(&[
            "13107200 answers",
            "200 examples",
            "65536 steps",
            "hint: ",
            "`depth`",
        ]);
    }
    assert!(!house.path("run").exists(), "nothing was begun");
    let suite = house.suite("few.toml", &format!("{many}{case}depth = [\"fixed-64\"]\n"));
    house.run(&suite, "run", &["--dry-run"]).exits(0);
}

#[test]
fn a_dry_run_counts_every_phase() {
    let house = House::new();
    let suite = house.suite("plan.toml", &format!("{CASE}seconds = 7.0\nwarmup_seconds = 1.0\nthreads = [1, 2]\n"));
    let ended = house.run(&suite, "none", &["--dry-run"]);
    ended.exits(0);
    for part in ["for 2 cases: ", "searching settings 0", "reference", "scoring", "timing 17"] {
        assert!(ended.stdout.contains(part), "no `{part}` in {}", ended.stdout);
    }
    let thrice = house.run(&suite, "none", &["--dry-run", "--repeats", "3"]);
    assert!(thrice.stdout.contains("timing 51"), "{}", thrice.stdout);
    let json = house.run(&suite, "none", &["--dry-run", "--json"]);
    let cases: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let seconds = |i: usize, phase: &str| cases[i]["seconds"][phase].as_f64().unwrap();
    assert!(seconds(0, "reference") > 0.0 && seconds(0, "scoring") > 0.0);
    assert_eq!((seconds(1, "reference"), seconds(1, "scoring")), (0.0, 0.0), "shared with the first");
    // a search counts with the time that it may take
    let tuned = format!("{}tune = true\ntune_seconds = 9\n", CASE.replace("native", "tract"));
    let ended = house.run(&house.suite("tuned.toml", &tuned), "none", &["--dry-run"]);
    assert!(ended.stdout.contains("searching settings 9"), "{}", ended.stdout);
    assert!(!house.path("none").exists());
}

#[test]
fn the_timing_suites_take_at_most_twenty_minutes() {
    let house = House::new();
    for suite in ["kernels", "peers"] {
        let ended = house.ergometer(&["run", suite, "--dry-run", "--json"]);
        let cases: serde_json::Value = serde_json::from_str(&ended.exits(0).stdout).unwrap();
        let cases = cases.as_array().unwrap();
        let sum = |phase: &str| cases.iter().map(|c| c["seconds"][phase].as_f64().unwrap()).sum::<f64>();
        let total: f64 = ["search", "reference", "scoring", "timing"].into_iter().map(sum).sum();
        assert!(total <= 1200.0, "{suite}: {total} s");
        // external programs search too
        let external = cases.iter().filter(|c| c["path"].as_str().unwrap().contains("/openvino/"));
        let searched = external.filter(|c| c["seconds"]["search"].as_f64().unwrap() > 0.0).count();
        assert_eq!(searched > 0, suite == "peers", "{suite}");
    }
}

#[test]
fn a_case_that_takes_turns_with_nobody_is_named() {
    let house = House::new();
    let suite = house.suite("alone.toml", &format!("{CASE}interleave = true\n"));
    let ended = house.run(&suite, "none", &["--dry-run"]);
    ended.exits(0);
    let said = "warning: `interleave` pairs nothing with small/trm/f32/native";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    let pair = house.suite("pair.toml", &format!("{CASE}interleave = true\nprecisions = [\"f32\", \"bf16\"]\n"));
    let ended = house.run(&pair, "none", &["--dry-run"]);
    assert!(!ended.stderr.contains("pairs nothing"), "{}", ended.stderr);
}

#[test]
fn a_dry_run_refuses_what_the_run_would() {
    let house = House::new();
    let suite = house.suite(
        "one.toml",
        "[[cases]]\nmodels = [\"dense\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nseconds = 0.05\n",
    );
    let run = |more: &[&str]| {
        let mut args = vec!["run", suite.to_str().unwrap()];
        args.extend(more);
        house.ergometer(&args)
    };
    for more in [["--tuning", "nowhere.json"], ["--tuning", "one.toml"]] {
        run(&more).refused(&[more[1]]);
        run(&[&more[..], &["--dry-run"]].concat()).refused(&[more[1]]);
    }
    run(&["--out", "run", "--check"]).exits(0);
    run(&["--out", "run", "--dry-run"]).refused(&["already holds a run"]);
}

#[test]
fn parity_without_vectors_says_where_they_may_come_from() {
    let house = House::new();
    house.ergometer(&["parity", "--model", "dense", "--backend", "native"]).refused(&["dense", "--vectors FILE"]);
}
