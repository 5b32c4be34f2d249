//! A net from nothing: the program trains one, and it answers unseen puzzles through a run.
//!
//! In: the smallest shipped training file. Out: a model folder, a run folder. Must not: depend on how long it takes; it is seconds of one
//! core.

use std::fs;

use crate::house::{House, root};

/// Share of unseen puzzles that the net has to solve: the file's own `require_accuracy`.
const REQUIRED: f64 = 0.9;

#[test]
fn a_net_is_trained_from_nothing_and_solves_what_it_has_not_seen() {
    let house = House::new();
    let file = root().join("suites/train/smoke-4x4.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("require_accuracy = {REQUIRED}\n")), "{text}");
    // its exit code says whether the accuracy that the file asks for was reached
    let trained = house.ergometer(&["train", file.to_str().unwrap(), "--out", "smoke"]);
    trained.exits(0);
    let log = fs::read_to_string(house.path("smoke/log.csv")).unwrap();
    let column = log.lines().next().unwrap().split(',').position(|name| name == "exact_full").unwrap();
    let exact = |line: &str| line.split(',').nth(column).unwrap().parse::<f64>().unwrap();
    let course: Vec<f64> = log.lines().skip(1).map(exact).collect();
    assert!(course.last().is_some_and(|share| *share >= REQUIRED), "{course:?}");

    // the same through a run of the program, on our own kernels and on puzzles of another seed
    let suite = house.file(
        "suite.toml",
        "[[model]]\nname = \"smoke\"\npath = \"smoke\"\n\
         [[task]]\nname = \"unseen\"\nkind = \"sudoku\"\nsize = 4\nclues = [6, 8]\nexamples = 200\nseed = 77\nsplit = \"test\"\n\
         [[cases]]\nmodels = [\"smoke\"]\ntasks = [\"unseen\"]\nbackends = [\"native\"]\ndepth = [\"fixed-4\"]\nseconds = 0.05\nwarmup_seconds = 0\n",
    );
    house.run(&suite, "out", &[]).exits(0);
    let records = house.records("out");
    // a sample of 200 scatters around the share that the training ended with
    let accuracy = records.value("native", "accuracy");
    assert!(accuracy >= REQUIRED - 0.05, "{accuracy}");
}
