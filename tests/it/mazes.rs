//! The task `maze` through the program: generated mazes, a file of them, the three scores apart, and bad files.
//!
//! In: tiny nets with random weights, a worker whose answers are known. Out: run folders, exit codes, messages. Must
//! not: expect a net to be right.

use std::fs;

use ergometer_reports::load;
use serde_json::json;

use crate::house::{House, root};

/// The cells along the edge of a 5x5 square, around.
const RING: [usize; 16] = [0, 1, 2, 3, 4, 9, 14, 19, 24, 23, 22, 21, 20, 15, 10, 5];

/// Four mazes that are a ring around a block of walls, of 2 to 5 steps one way and more the other.
fn rings() -> String {
    let mut text = "source,question,answer,rating\n".to_owned();
    for steps in 2..6 {
        let mut cells: Vec<char> = (0..25).map(|c| if RING.contains(&c) { ' ' } else { '#' }).collect();
        (cells[RING[0]], cells[RING[steps]]) = ('S', 'G');
        let question: String = cells.iter().collect();
        RING[1..steps].iter().for_each(|&c| cells[c] = 'o');
        text += &format!("own,{question},{},{steps}\n", cells.iter().collect::<String>());
    }
    text
}

/// Goes around a ring the short way, then the long way, then not at all, then the short way again.
const WALKER: &str = "
RING = [0, 1, 2, 3, 4, 9, 14, 19, 24, 23, 22, 21, 20, 15, 10, 5]

class Walker(Worker):
    name, version = 'walker', '1'

    def refusal(self, inputs):
        return None

    def solve(self, tokens):
        goal = next(i for i, cell in enumerate(RING) if tokens[cell] == 4)
        way = [RING[1:goal], RING[goal + 1:], [], RING[1:goal]][goal - 2]
        return [5 if cell in way else token for cell, token in enumerate(tokens)]

Walker().run()
";

/// A net for 5x5 mazes.
fn net(house: &House) {
    let config = json!({"model_type": "trm", "seq_len": 25, "vocab_size": 6, "hidden_size": 16, "num_heads": 2, "expansion": 1.0, "H_cycles": 1,
                        "L_cycles": 1, "L_layers": 1, "halt_max_steps": 3});
    house.model("maze", &config);
}

#[test]
fn exact_answers_valid_ones_and_cells_are_three_scores() {
    let house = House::new();
    net(&house);
    house.file("rings.csv", rings());
    let folder = root().join("examples/external-worker");
    let script =
        format!("import sys\nsys.path.insert(0, {:?})\nfrom worker import Worker\n{WALKER}", folder.to_str().unwrap());
    let script = house.file("walker.py", script);
    let text = format!(
        "[[backend]]\nname = \"walker\"\nkind = \"external\"\ncommand = [\"python3\", \"-B\", {:?}]\n\
         [[model]]\nname = \"maze\"\npath = \"maze\"\n[[task]]\nname = \"rings\"\nkind = \"maze\"\ncsv = \"rings.csv\"\n\
         [[cases]]\nmodels = [\"maze\"]\ntasks = [\"rings\"]\nbackends = [\"walker\"]\ndepth = [\"once\"]\nseconds = 0.05\n\
         [[cases]]\nmodels = [\"trm\"]\ntasks = [\"small\"]\nbackends = [\"native\"]\nseconds = 0.05\n",
        script.to_str().unwrap()
    );
    house.run(&house.suite("rings.toml", &text), "run", &[]).exits(0);
    let records = house.records("run");
    assert_eq!(records.value("walker", "accuracy"), 0.5);
    assert_eq!(records.value("walker", "accuracy_valid"), 0.75);
    // the long way round has the 14 cells that are no end wrong, and the copy the three marks of four steps
    assert_eq!(records.value("walker", "cell_accuracy"), 0.83);
    let baselines: Vec<(&str, u64)> =
        records.get("walker", "accuracy").baselines.iter().map(|b| (b.name.as_str(), b.right)).collect();
    assert_eq!(baselines, [("breadth-first search", 4), ("walk towards the goal", 3)]);
    assert!(
        records.of("native").iter().all(|r| r.metric != "accuracy_valid"),
        "Sudoku has one thing that its rules allow"
    );

    // each answer is judged in the file, and a file without the column is another task's
    let run = load(&house.path("run")).unwrap();
    for case in &run.cases {
        let valid: Vec<Option<bool>> = case.predictions.iter().map(|p| p.valid).collect();
        match case.case.key.backend.as_str() {
            "walker" => assert_eq!(valid, [Some(true), Some(true), Some(false), Some(true)]),
            _ => assert!(valid.iter().all(Option::is_none)),
        }
    }
    let page = fs::read_to_string(house.path("run/report/index.html")).unwrap();
    assert!(page.contains("breadth-first search"));
    let again = house.ergometer(&["report", house.path("run").to_str().unwrap()]);
    again.exits(0);
}

#[test]
fn generated_mazes_are_run_and_a_file_that_we_wrote_is_read_again() {
    let house = House::new();
    net(&house);
    house.file("five.toml", "[task]\nkind = \"maze\"\nside = 5\n");
    let all = ["dataset", "five.toml", "--split", "test", "--examples", "12", "--seed", "3", "--out", "own.csv"];
    house.ergometer(&all).exits(0);
    let text = fs::read_to_string(house.path("own.csv")).unwrap();
    assert!(text.starts_with("question,answer,steps\n") && text.lines().count() == 13, "{text}");
    let suite = "[[model]]\nname = \"maze\"\npath = \"maze\"\n\
                 [[task]]\nname = \"made\"\nkind = \"maze\"\nside = 5\nexamples = 12\nseed = 3\n\
                 [[task]]\nname = \"read\"\nkind = \"maze\"\ncsv = \"own.csv\"\n\
                 [[cases]]\nmodels = [\"maze\"]\ntasks = [\"made\", \"read\"]\nbackends = [\"native\"]\n";
    house.run(&house.suite("own.toml", suite), "run", &["--check"]).exits(0);
    let run = load(&house.path("run")).unwrap();
    let answers = |task: &str| {
        let case = run.cases.iter().find(|c| c.case.key.task == task).unwrap();
        case.predictions.iter().map(|p| (p.example, p.answer.clone(), p.exact, p.valid)).collect::<Vec<_>>()
    };
    assert!(!answers("made").is_empty());
    assert_eq!(answers("made"), answers("read"));
    house
        .ergometer(&["time", "--model", house.path("maze").to_str().unwrap(), "--backend", "native", "--dry-run"])
        .exits(0);
}

#[test]
fn bad_files_of_mazes_are_refused_by_file_and_line() {
    let house = House::new();
    net(&house);
    let good = rings();
    for (text, parts) in [
        (good.replace("own,S", "own,x"), &["rings.csv", "line 2", "hint: "][..]),
        (good.replacen('G', "S", 1), &["rings.csv", "line 2", "`S` stands twice", "hint: "]),
        (good.replace(",5\n", ",5\nown,S,G\n"), &["rings.csv", "line 6", "cells", "hint: "]),
        (good[..120].to_owned(), &["rings.csv", "hint: "]),
        (String::new(), &["rings.csv", "holds no maze", "hint: "]),
    ] {
        house.file("rings.csv", text);
        let suite = "[[model]]\nname = \"maze\"\npath = \"maze\"\n[[task]]\nname = \"rings\"\nkind = \"maze\"\ncsv = \"rings.csv\"\n\
                     [[cases]]\nmodels = [\"maze\"]\ntasks = [\"rings\"]\nbackends = [\"native\"]\n";
        house.run(&house.suite("bad.toml", suite), "run", &[]).refused(parts);
    }
}
