//! Tests of the rules: each by an example made by hand and by what it promises, the split, the tasks made of them.
//!
//! In: rules. Out: verdicts. Must not: use a rule to check itself.

use super::*;
use crate::arc::rules::{Draw, VERSION, number, pair, puzzle_id, tasks};

/// Input and output of every rule, worked out by hand. A rule without a line here fails the test.
const BY_HAND: &[(&str, &str, &str)] = &[
    ("recolour", "10 31", "20 32"),
    ("swap-colours", "34 05", "43 05"),
    ("fill-commonest", "001 233", "333 333"),
    ("row-commonest", "112 003 232", "111 333 222"),
    ("mirror", "123 456", "321 654"),
    ("turn-quarter", "123 456", "36 25 14"),
    ("turn-half", "123 456", "654 321"),
    ("transpose", "123 456", "14 25 36"),
    ("crop", "0000 0120 0000 0003", "120 000 003"),
    ("scale-2", "12 03", "1122 1122 0033 0033"),
    ("tile-2", "12 03", "1212 0303 1212 0303"),
    ("reflect-2", "12 03", "1221 0330 0330 1221"),
    ("top-half", "12 34 56 78", "12 34"),
    ("drop-empty-lines", "1002 0000 3000", "12 30"),
    ("roll", "123 456", "312 645"),
    ("border", "1111 1221 1111", "3333 3223 3333"),
    ("outline", "00000 00000 00100 00000", "00000 05550 05150 05550"),
    ("hollow", "1111 1111 1121 1111", "1111 1011 1121 1111"),
    ("denoise", "1100 0020 3022 0004", "1100 0020 0022 0000"),
    ("life", "000 111 000", "010 010 010"),
    ("rays", "1002 0000 0300 0000", "1002 1002 1302 1302"),
    ("connect", "100102 000000 300002 100000", "111102 000002 300002 100000"),
    ("cross", "000 010 000", "010 111 010"),
    ("continue-pattern", "12 30 12 30 00", "12 30 12 30 12"),
    ("complete-symmetry", "12021 35063", "12021 36063"),
    ("fill-enclosed", "0111 0101 0111 0000", "0111 0141 0111 0000"),
    ("gravity", "120 003 040", "000 020 143"),
    ("largest-object", "1100 0030 2000 2200", "0000 0000 2000 2200"),
    ("colour-by-size", "5050 5000 0055 0050", "2010 2000 0033 0030"),
    ("flood", "2050 0055 5500", "2250 2255 5500"),
    ("sort-bars", "002 302 312", "002 032 132"),
    ("count", "070 007 700", "777"),
];

#[test]
fn every_rule_does_what_it_says() {
    assert_eq!((RULES.len(), VERSION, PUZZLE_IDS), (32, 1, 257));
    let names: Vec<&str> = BY_HAND.iter().map(|b| b.0).collect();
    // the numbers of trained nets: this order must never change
    assert_eq!(RULES.iter().map(|r| r.name).collect::<Vec<_>>(), names);
    for (rule, (name, input, output)) in RULES.iter().zip(BY_HAND) {
        assert_eq!((rule.apply)(&grid(input)), Some(grid(output)), "{name}");
    }
}

#[test]
fn what_a_rule_does_not_define_it_does_not_answer() {
    let apply = |name: &str, input: &str| (RULES[number(name).unwrap()].apply)(&grid(input));
    for (name, input) in [
        ("fill-commonest", "12 21"),
        ("row-commonest", "12 11"),
        ("crop", "00 00"),
        ("drop-empty-lines", "00 00"),
        ("top-half", "11 22 33"),
        ("cross", "101 000"),
        ("continue-pattern", "12 34 00"),
        ("continue-pattern", "12 12 00 12"),
        ("complete-symmetry", "15 55 11"),
        ("complete-symmetry", "12 11 11"),
        ("largest-object", "10 01"),
        ("count", "12 00"),
    ] {
        assert_eq!(apply(name, input), None, "{name} {input}");
    }
    assert_eq!(apply("fill-enclosed", "000 010 000"), Some(grid("000 010 000")));
    // a wall with a gap at a corner only is closed
    assert_eq!(apply("fill-enclosed", "0110 1001 0110"), Some(grid("0110 1441 0110")));
    let large = Grid::from_fn(16, 16, |_, _| 1).unwrap();
    assert_eq!((RULES[number("scale-2").unwrap()].apply)(&large), None, "larger than a grid may be");
}

fn draw(seed: u64, max_side: usize) -> Draw {
    Draw { rng: ChaCha8Rng::seed_from_u64(seed), max_side }
}

#[test]
fn every_rule_has_pairs_of_both_sides_at_every_size() {
    for rule in RULES {
        for (max_side, count) in [(5, 40), (7, 20), (10, 40)] {
            let mut draw = draw(max_side as u64, max_side);
            for side in [Split::Train, Split::Test] {
                let mut inputs = HashSet::new();
                for _ in 0..count {
                    let pair =
                        pair(rule, side, &mut draw).unwrap_or_else(|| panic!("{} {max_side} {side:?}", rule.name));
                    assert_eq!((rule.apply)(&pair.input), Some(pair.output.clone()), "a rule is a function");
                    assert_ne!(pair.input, pair.output);
                    assert!(pair.input.side().max(pair.output.side()) <= max_side);
                    assert!((0..8).all(|d| split_of(&pair.input.turned(d)) == side));
                    inputs.insert(pair.input);
                }
                assert!(inputs.len() * 2 > count, "{} at {max_side}: {} of {count}", rule.name, inputs.len());
            }
        }
    }
}

#[test]
fn about_one_input_in_ten_is_held_out() {
    for (max_side, seed) in [(5, 1), (10, 2)] {
        let mut draw = draw(seed, max_side);
        let inputs: Vec<Grid> = (0..3000).filter_map(|_| draw.scattered()).collect();
        let held = inputs.iter().filter(|i| split_of(i) == Split::Test).count() as f64 / inputs.len() as f64;
        assert!((0.08..0.12).contains(&held), "{max_side}: {held}");
    }
}

/// Recorded scores and trained nets rest on these: if this fails, a dependency changed its random numbers, or a rule
/// its inputs.
#[test]
fn a_seed_gives_the_same_tasks_on_every_machine() {
    let text = |g: &Grid| {
        g.rows().map(|r| r.iter().map(|c| char::from(b'0' + c)).collect::<String>()).collect::<Vec<_>>().join(" ")
    };
    let set = set_of("rules = ['gravity', 'count']\nmax_side = 5\ntasks = 2\nseed = 1").unwrap();
    let told: Vec<(String, String)> = set
        .examples
        .iter()
        .map(|e| (text(&decode(&e.tokens).unwrap()), text(&decode(e.answer.tokens()).unwrap())))
        .collect();
    let known: Vec<(String, String)> = KNOWN.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    assert_eq!(told, known);
}

const KNOWN: [(&str, &str); 2] = [("026 603 620 900", "000 600 626 923"), ("0100 1000 0010", "111")];

#[test]
fn tasks_of_rules_are_distinct_repeatable_and_held_out() {
    let text = "rules = 'all'\nmax_side = 6\ntasks = 70\nseed = 3\ntests = 2\naugmentations = 8";
    let set = set_of(text).unwrap();
    assert_eq!((set.questions.len(), set.examples.len(), set.puzzle_ids, set.vocabulary), (70, 70 * 16, 257, 12));
    assert_eq!(set.examples, set_of(text).unwrap().examples);
    assert_ne!(set.examples, set_of(&text.replace("seed = 3", "seed = 4")).unwrap().examples);
    assert_eq!(set.questions[33], format!("{}/1", RULES[1].name));
    let mut inputs: HashSet<(u64, Grid)> = HashSet::new();
    for e in &set.examples {
        let (rule, turn) = ((e.question % 32) as usize, e.variant);
        assert_eq!((e.puzzle_id, e.cluster, e.tokens.len()), (puzzle_id(rule, turn), rule as u64, 36));
        let (input, output) = (decode(&e.tokens).unwrap(), decode(e.answer.tokens()).unwrap());
        assert_eq!(split_of(&input), Split::Test);
        let variant = TaskVariant::turn(turn);
        assert_eq!((RULES[rule].apply)(&variant.undo(&input)), Some(variant.undo(&output)));
        if turn == 0 {
            assert!(inputs.insert((e.cluster, input.canonical())), "no test input twice");
        }
    }
    assert!(set.notes.iter().any(|n| n.contains("no ARC score")) && set.notes.iter().any(|n| n.contains("version 1")));
    // what is asked of one rule does not depend on the others, nor the first tasks on how many follow
    let alone = set_of("rules = ['mirror']\nmax_side = 6\ntasks = 1\nseed = 3\ntests = 2\naugmentations = 8").unwrap();
    let mirror = number("mirror").unwrap() as u64;
    let among: Vec<&Vec<u32>> = set.examples.iter().filter(|e| e.question == mirror).map(|e| &e.tokens).collect();
    assert_eq!(alone.examples.iter().map(|e| &e.tokens).collect::<Vec<_>>(), among);
    // rows that are asked for make whole tasks
    let rows = |text: &str| set_of(&format!("rules = 'all'\nmax_side = 5\n{text}")).unwrap().examples.len();
    assert_eq!(
        (rows("examples = 7"), rows("examples = 7\ntests = 2"), rows("examples = 1\naugmentations = 8")),
        (7, 6, 8)
    );
    assert_eq!(rows("split = 'train'"), 100);
}

#[test]
fn demonstrations_are_free_to_learn_from() {
    let wish = |split, seed| rules::Wish { max_side: 6, split, demonstrations: 3, tests: 2, seed };
    for number in 0..RULES.len() {
        for side in [Split::Test, Split::Train] {
            for task in tasks(number, 4, wish(side, 9)).unwrap() {
                assert_eq!((task.demonstrations.len(), task.tests.len()), (3, 2));
                assert!(task.demonstrations.iter().all(|d| split_of(&d.input) == Split::Train));
                assert!(task.tests.iter().all(|t| split_of(&t.input) == side));
                let all: HashSet<Grid> =
                    task.demonstrations.iter().chain(&task.tests).map(|p| p.input.canonical()).collect();
                assert_eq!(all.len(), 5, "{}", task.id);
            }
        }
    }
}

#[test]
fn rules_that_run_out_of_inputs_say_so() {
    let message = set_of("rules = ['tile-2']\nmax_side = 5\ntasks = 5000").unwrap_err().to_string();
    assert!(message.contains("`tile-2`") && message.contains("hint:"), "{message}");
}

#[test]
fn training_shows_the_train_side_alone_under_the_ids_that_suites_ask_about() {
    for (text, rules, turns) in [
        ("rules = 'all'\nmax_side = 5", 32, 8),
        ("rules = ['mirror', 'crop']\nmax_side = 5\naugmentations = 2\ntasks = 3", 2, 2),
    ] {
        let (mut one, mut two) = (source(text, 5).unwrap(), source(text, 5).unwrap());
        let mut ids = HashSet::new();
        for _ in 0..3000 {
            let e = one.next_example();
            assert_eq!(e, two.next_example());
            let (input, output) = (decode(&e.tokens).unwrap(), decode(e.answer.tokens()).unwrap());
            assert_eq!((split_of(&input), e.tokens.len()), (Split::Train, 25));
            let (rule, turn) = ((e.puzzle_id - 1) / 8, (e.puzzle_id - 1) % 8);
            let variant = TaskVariant::turn(turn);
            assert_eq!((e.variant, e.cluster), (turn, u64::from(rule)));
            assert_eq!((RULES[rule as usize].apply)(&variant.undo(&input)), Some(variant.undo(&output)));
            ids.insert(e.puzzle_id);
        }
        assert_eq!(ids.len(), rules * turns);
        assert!(source(text, 6).unwrap().next_example() != source(text, 5).unwrap().next_example());
    }
}
