//! Tests of the task: tokens, variants, votes, baselines, parameters, training. JSON and rules have files of their own.

mod of_json;
mod of_rules;
mod votes;

use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::grid::{COLOURS, MAX_SIDE};
use super::rules::{PUZZLE_IDS, RULES, split_of};
use super::tokens::{EOS, PAD, decode, encode, encode_at};
use super::*;
use crate::error::SuiteError;
use crate::task::{Decision, ExampleSet, RowAnswer, Split, Training};

/// A grid from rows of digits.
fn grid(rows: &str) -> Grid {
    let rows: Vec<&str> = rows.split_whitespace().collect();
    let cells = rows.iter().flat_map(|r| r.bytes().map(|b| b - b'0')).collect();
    Grid::new(rows.len(), rows[0].len(), cells).unwrap()
}

fn any_grid(most: usize) -> impl Strategy<Value = Grid> {
    (1..=most, 1..=most).prop_flat_map(|(height, width)| {
        let cells = proptest::collection::vec(0..COLOURS, height * width);
        cells.prop_map(move |cells| Grid::new(height, width, cells).unwrap())
    })
}

fn set_of(parameters: &str) -> Result<ExampleSet, SuiteError> {
    (TASK.examples)(&parameters.parse().unwrap(), Path::new("/nowhere"))
}

fn source(parameters: &str, seed: u64) -> Result<Box<dyn Training>, SuiteError> {
    (TASK.training.unwrap())(&parameters.parse().unwrap(), seed)
}

/// A folder with a file of two halves: two tasks to train on, `b` with two tests, and two to evaluate on.
fn collection() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"train": {"t1": {"train": [{"input": [[1, 2]], "output": [[2, 1]]}, {"input": [[3, 2]], "output": [[2, 3]]}],
                                    "test": [{"input": [[4, 5]], "output": [[5, 4]]}]},
                             "t2": {"train": [{"input": [[1]], "output": [[1, 1, 1, 1]]}], "test": [{"input": [[2]], "output": [[2, 2, 2, 2]]}]}},
                   "eval": {"a": {"train": [{"input": [[1, 0], [0, 2]], "output": [[7]]}, {"input": [[3, 0], [0, 4]], "output": [[8]]}],
                                  "test": [{"input": [[3, 0], [0, 5]], "output": [[7]]}]},
                            "b": {"train": [{"input": [[1, 0, 6]], "output": [[6, 0, 1]]}],
                                  "test": [{"input": [[1, 2, 3]], "output": [[3, 2, 1]]}, {"input": [[4, 4, 4]], "output": [[4, 4, 4]]}]}}}"#;
    std::fs::write(folder.path().join("arc.json"), text).unwrap();
    folder
}

fn file_set(parameters: &str) -> Result<ExampleSet, SuiteError> {
    let folder = collection();
    (TASK.examples)(&format!("file = 'arc.json'\n{parameters}").parse().unwrap(), folder.path())
}

#[test]
fn tokens_are_the_released_models() {
    let told = encode(&grid("12 09"), 4);
    assert_eq!(told, [3, 4, 1, 0, 2, 11, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode_at(&grid("12 09"), 4, (1, 2)), [0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 2, 11, 0, 0, 1, 1]);
    assert_eq!(encode(&grid("12 09"), 2), [3, 4, 2, 11]);
    // as `_crop`: the largest area, of two as large the flatter; what is beyond it does not matter
    let crop = |tokens: &[u32]| decode(tokens);
    assert_eq!(crop(&[3, 3, 1, 3, 1, 1, 3, 1, 1]), Some(grid("1 1 1")));
    assert_eq!(crop(&[3, 3, 3, 3, 1, 1, 3, 1, 1]), Some(grid("111")));
    assert_eq!(crop(&[3, 3, 0, 3, 3, 12, 9, 1, 1]), Some(grid("11 11")));
    assert_eq!(crop(&[1, 3, 3, 3]), None);
    assert_eq!(crop(&[3, 3, 3]), None);
    assert_eq!(crop(&[]), None);
    assert_eq!(crop(&vec![2; 31 * 31]), None);
}

#[test]
fn turns_are_numbered_as_numpy_makes_them() {
    let told = |d| grid("123 456").turned(d);
    assert_eq!(told(0), grid("123 456"));
    assert_eq!(told(1), grid("36 25 14"));
    assert_eq!(told(2), grid("654 321"));
    assert_eq!(told(3), grid("41 52 63"));
    assert_eq!(told(4), grid("321 654"));
    assert_eq!(told(5), grid("456 123"));
    assert_eq!(told(6), grid("14 25 36"));
    assert_eq!(told(7), grid("63 52 41"));
}

proptest! {
    #[test]
    fn grids_survive_tokens_at_any_place(grid in any_grid(MAX_SIDE), more in 0..5usize) {
        let side = (grid.side() + more).min(MAX_SIDE);
        prop_assert_eq!(decode(&encode(&grid, side)), Some(grid));
    }

    #[test]
    fn variants_invert_and_have_one_code_each(grid in any_grid(7), seed: u64) {
        let variant = TaskVariant::random(&mut ChaCha8Rng::seed_from_u64(seed));
        prop_assert_eq!(TaskVariant::of_code(variant.code()), Some(variant));
        prop_assert_eq!(&variant.undo(&variant.apply(&grid)), &grid);
        prop_assert_eq!(variant.apply(&grid).count(0), grid.count(0));
        prop_assert_eq!(grid.turned(seed as u32).canonical(), grid.canonical());
    }

    #[test]
    fn codes_cover_all_variants(code in 0..8 * 362_880u32) {
        prop_assert_eq!(TaskVariant::of_code(code).unwrap().code(), code);
        prop_assert_eq!(TaskVariant::of_code(code + 8 * 362_880), None);
    }

    #[test]
    fn no_answer_panics(tokens in proptest::collection::vec(any::<u32>(), 0..40), code: u32, logit: f64) {
        let example = Example { tokens: encode(&grid("12"), 5), answer: encode(&grid("21"), 5).into(), variant: code, ..Example::default() };
        let tokens = Answer::Tokens(tokens);
        score(&example, &tokens);
        let set = ExampleSet { examples: vec![example], vocabulary: 12, puzzle_ids: 1, numbering: None, questions: vec![], baselines: vec![], notes: vec![] , ..ExampleSet::default() };
        let decisions = TASK.decide.unwrap()(&set, &[RowAnswer { example: 0, answer: &tokens, halt_logit: Some(logit) }, RowAnswer { example: 9, answer: &tokens, halt_logit: None }]);
        prop_assert_eq!((decisions.len(), decisions[0].rows, decisions[0].right), (1, 1, false));
    }
}

#[test]
fn a_score_counts_cells_that_are_asked_for_and_agrees_with_the_grid() {
    let example = Example { answer: encode(&grid("12 34"), 4).into(), ..Example::default() };
    let with = |changes: &[(usize, u32)]| {
        let mut answer = example.answer.tokens().to_vec();
        changes.iter().for_each(|&(at, token)| answer[at] = token);
        score(&example, &answer.into())
    };
    assert_eq!(with(&[]), Score { exact: true, right: 8, cells: 8 });
    // padding is not asked for
    assert_eq!(with(&[(15, 7), (3, 5)]), Score { exact: true, right: 8, cells: 8 });
    assert_eq!(with(&[(0, 7)]), Score { exact: false, right: 7, cells: 8 });
    // a wrong edge that leaves the grid as it is
    assert_eq!(with(&[(2, PAD)]), Score { exact: true, right: 7, cells: 8 });
    // an edge that is a colour makes the grid larger
    assert!(!with(&[(2, 5), (6, 5)]).exact);
    assert_eq!(score(&example, &vec![3, 4].into()), Score { exact: false, right: 0, cells: 8 });
}

#[test]
fn a_file_gives_a_row_for_each_test_and_variant() {
    let set = file_set("side = 5").unwrap();
    assert_eq!((set.vocabulary, set.puzzle_ids, &set.questions[..]), (12, 5, &["a".to_owned(), "b".to_owned()][..]));
    let told: Vec<_> =
        set.examples.iter().map(|e| (e.question, e.part, e.variant, e.puzzle_id, e.difficulty)).collect();
    // tasks of the other half come first in the numbering
    assert_eq!(told, [(0, 0, 0, 3, 1), (1, 0, 0, 4, 2), (1, 1, 0, 4, 0)]);
    assert_eq!(decode(&set.examples[1].tokens), Some(grid("123")));
    assert_eq!(decode(set.examples[1].answer.tokens()), Some(grid("321")));
    assert_eq!(set.examples[0].tokens.len(), 25);
    assert!(set.notes.iter().any(|n| n.contains("Transductive")));

    let four = file_set("side = 5\naugmentations = 4\nsubset = 'train'").unwrap();
    assert_eq!((four.puzzle_ids, four.questions.len(), four.examples.len()), (17, 2, 8));
    let ids: Vec<u32> = four.examples.iter().map(|e| e.puzzle_id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    let distinct: HashSet<_> = four.examples.iter().map(|e| (e.question, &e.tokens, e.answer.tokens())).collect();
    assert_eq!(distinct.len(), 8);
    for e in &four.examples {
        let variant = TaskVariant::of_code(e.variant).unwrap();
        let wanted = [grid("54"), grid("2222")][e.question as usize].clone();
        assert_eq!(variant.undo(&decode(e.answer.tokens()).unwrap()), wanted);
    }
    // more variants do not change the first ones
    let eight = file_set("side = 5\naugmentations = 8\nsubset = 'train'").unwrap();
    let codes = |set: &ExampleSet, question, most| -> Vec<u32> {
        set.examples.iter().filter(|e| e.question == question).map(|e| e.variant).take(most).collect()
    };
    assert_eq!(codes(&four, 0, 4), codes(&eight, 0, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_two_variants_make_the_same_task_and_none_is_missed(
        inputs in proptest::collection::vec(any_grid(2).prop_map(|g| g.recolour(|c| c % 3)), 2), id in "[a-z]{1,3}",
    ) {
        let pairs: Vec<Pair> = inputs.iter().map(|g| Pair { input: g.clone(), output: g.turned(4) }).collect();
        let task = ArcTask { id, demonstrations: vec![pairs[0].clone()], tests: vec![pairs[1].clone()] };
        let made = |v: &TaskVariant| task.grids().map(|g| v.apply(g)).collect::<Vec<_>>();
        // draws are random: ten times as many as there can be variants of one colour leave none of those out
        let variants = set::variants(&task, 600);
        let distinct: HashSet<Vec<Grid>> = variants.iter().map(made).collect();
        prop_assert_eq!(distinct.len(), variants.len());
        prop_assert_eq!(variants[0], TaskVariant::turn(0));
        // the first variants do not hang on how many are asked for
        prop_assert_eq!(&set::variants(&task, 7)[..], &variants[..variants.len().min(7)]);
        // a task of background has its turns alone, one of a colour nine times as many, one of two colours 9 * 8 / 2 or
        // more
        let colours: HashSet<u8> = task.grids().flat_map(|g| g.cells().to_vec()).filter(|c| *c > 0).collect();
        let copies: HashSet<Vec<Grid>> = (0..8).map(|d| made(&TaskVariant::turn(d))).collect();
        match colours.len() {
            0 => prop_assert_eq!(variants.len(), copies.len()),
            1 => prop_assert_eq!(variants.len(), 9 * copies.len()),
            _ => prop_assert!(variants.len() >= 36),
        }
    }
}

#[test]
fn tasks_are_left_out_by_size_and_number() {
    let small = file_set("max_side = 2").unwrap();
    assert_eq!(
        (&small.questions[..], small.puzzle_ids, small.examples[0].tokens.len()),
        (&["a".to_owned()][..], 3, 900)
    );
    assert!(
        small.notes.iter().any(|n| n.starts_with("Left out because a grid is larger") && n.contains(": 1 task.")),
        "{:?}",
        small.notes
    );
    let few = |parameters: &str| file_set(parameters).unwrap().questions.len();
    assert_eq!((few("tasks = 1"), few("tasks = 9"), few("examples = 1"), few("examples = 3")), (1, 2, 1, 2));
    let chosen: HashSet<Vec<String>> =
        (0..20).map(|seed| file_set(&format!("tasks = 1\nseed = {seed}")).unwrap().questions).collect();
    assert_eq!(chosen.len(), 2);
    for (parameters, words) in [
        ("side = 2", &["`t2`", "`side`", "`max_side = 2`"][..]),
        ("max_side = 1", &["no task is left"]),
        ("max_side = 9\nside = 8", &["`side`", "no room"]),
        ("subset = 'test'", &["`subset`", "`train`, `eval`"]),
        ("split = 'train'", &["`split`", "subset"]),
        ("tasks = 1\nexamples = 1", &["`examples`", "`tasks`"]),
        ("tests = 1", &["`tests`", "`file`"]),
        ("rules = 'all'", &["`file`", "one source"]),
        ("augmentations = 2000", &["`augmentations`", "1024"]),
    ] {
        let message = file_set(parameters).expect_err(parameters).to_string();
        assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint:"), "{parameters}: {message}");
    }
}

#[test]
fn what_names_no_tasks_is_refused() {
    for (parameters, words) in [
        ("", &["`rules = \"all\"`", "dataset"][..]),
        ("file = 'none.json'", &["/nowhere/none.json", "ergometer fetch"]),
        ("dataset = 'arc-agi-7'", &["`dataset`", "`arc-agi-1`"]),
        ("rules = ['miror']", &["`rules`", "`mirror`"]),
        ("rules = ['mirror', 'mirror']", &["twice"]),
        ("rules = []", &["`rules`", "\"all\""]),
        ("rules = 'all'\nmax_side = 4", &["`max_side`", "5 to 10"]),
        ("rules = 'all'\nsubset = 'eval'", &["`subset`"]),
        ("rules = 'all'\nsplit = 'both'", &["`split`"]),
        ("rules = 'all'\naugmentations = 9", &["`augmentations`"]),
        ("rules = 'all'\ntask = 9", &["`tasks`"]),
        ("rules = 'all'\ntasks = 100000\naugmentations = 8\ntests = 2", &["rows"]),
    ] {
        let message = set_of(parameters).expect_err(parameters).to_string();
        assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint:"), "{parameters}: {message}");
    }
}

#[test]
fn baselines_have_two_attempts_and_need_every_output() {
    let set = file_set("side = 5").unwrap();
    let told: Vec<_> = set.baselines.iter().map(|b| (b.name.as_str(), b.right, b.of)).collect();
    // `a`: the second nearest demonstration is right; `b`: the copy is right for one of two tests
    assert_eq!(told, [("copy the input", 0, 2), ("best single training-set lookup", 1, 2)]);
    assert_eq!(distance(&grid("12 34"), &grid("12 35")), 1);
    assert_eq!(distance(&grid("12 34"), &grid("120 340 000")), 5);
    let pair = |input: &str, output: &str| Pair { input: grid(input), output: grid(output) };
    let task = ArcTask {
        id: "x".into(),
        demonstrations: vec![pair("111", "1"), pair("112", "1"), pair("100", "2"), pair("112", "3")],
        tests: vec![pair("112", "3")],
    };
    // nearest first, what is said twice counts once, of two as near the earlier
    assert_eq!(lookup(&task, &grid("112")), [grid("1"), grid("3")]);
    assert_eq!(lookup(&task, &grid("000")), [grid("2"), grid("1")]);
    let identity = ArcTask { id: "y".into(), demonstrations: vec![pair("1", "1")], tests: vec![pair("12", "12")] };
    let told: Vec<u64> = baseline::baselines([&task, &identity].into_iter()).iter().map(|b| b.right).collect();
    assert_eq!(told, [1, 1]);
}

#[test]
fn a_file_trains_on_demonstrations_alone() {
    let folder = collection();
    let parameters = format!("file = '{}'\nside = 6\naugmentations = 3", folder.path().join("arc.json").display());
    let mut from = source(&parameters, 1).unwrap();
    let examples: Vec<Example> = (0..2000).map(|_| from.next_example()).collect();
    let mut again = source(&parameters, 1).unwrap();
    assert!(examples.iter().all(|e| *e == again.next_example()));
    // moved or not: the grid without its margin of padding, as it was before the variant
    let grid_of = |tokens: &[u32], code| {
        let first = (0..6).find(|r| (0..6).any(|c| tokens[r * 6 + c] >= 2)).unwrap();
        let left = (0..6).find(|c| (0..6).any(|r| tokens[r * 6 + c] >= 2)).unwrap();
        let at = |r: usize, c: usize| if r < 6 && c < 6 { tokens[r * 6 + c] } else { PAD };
        let moved: Vec<u32> = (0..36).map(|i| at(first + i / 6, left + i % 6)).collect();
        (TaskVariant::of_code(code).unwrap().undo(&decode(&moved).unwrap()), (first, left))
    };
    let mut pairs = HashSet::new();
    let mut places = HashSet::new();
    for e in &examples {
        let ((input, a), (output, b)) = (grid_of(&e.tokens, e.variant), grid_of(e.answer.tokens(), e.variant));
        assert_eq!(a, b, "input and output are moved together");
        assert!((1..=12).contains(&e.puzzle_id) && e.puzzle_id.div_ceil(3) == e.cluster as u32 + 1);
        pairs.insert((e.cluster, input, output));
        places.insert(a);
    }
    let of = |task, input: &str, output: &str| (task, grid(input), grid(output));
    let wanted = [
        of(0, "12", "21"),
        of(0, "32", "23"),
        of(1, "1", "1111"),
        of(2, "10 02", "7"),
        of(2, "30 04", "8"),
        of(3, "106", "601"),
    ];
    assert_eq!(pairs, HashSet::from(wanted));
    assert!(places.len() > 8 && places.contains(&(0, 0)), "{places:?}");
    let relative = source("file = 'arc.json'", 1).err().unwrap().to_string();
    assert!(relative.contains("`file`") && relative.contains("hint:"), "{relative}");
    for key in ["split = 'test'", "seed = 1", "examples = 4"] {
        assert!(source(&format!("rules = 'all'\n{key}"), 1).err().unwrap().to_string().contains("training"));
    }
}

#[test]
fn a_numbering_names_tasks_demonstrations_and_variants_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let of = |ids: &str, demonstration: &str, test: &str, rest: &str| {
        let task = format!(
            "{{\"train\": [{{\"input\": [[{demonstration}, 2]], \"output\": [[2]]}}], \"test\": [{{\"input\": [[{test}]], \"output\": [[1]]}}]}}"
        );
        let tasks: Vec<String> = ids.chars().map(|id| format!("\"{id}\": {task}")).collect();
        std::fs::write(folder.path().join("t.json"), format!("{{{}}}", tasks.join(","))).unwrap();
        let table = format!("file = 't.json'\nside = 6\n{rest}").parse().unwrap();
        (TASK.examples)(&table, folder.path()).unwrap().numbering.unwrap()
    };
    let first = of("ab", "1", "3", "augmentations = 2");
    assert!(first.starts_with("arc-file-"));
    assert_eq!(first, of("ba", "1", "3", "augmentations = 2"), "the order of a file means nothing");
    assert_eq!(first, of("ab", "1", "3", "augmentations = 2\ntasks = 1"), "nor does a choice among its tasks");
    for other in [
        of("ac", "1", "3", "augmentations = 2"),
        of("ab", "4", "3", "augmentations = 2"),
        of("ab", "1", "3", "augmentations = 3"),
    ] {
        assert_ne!(first, other);
    }
    let table = "rules = 'all'\ntasks = 2".parse().unwrap();
    assert_eq!((TASK.examples)(&table, folder.path()).unwrap().numbering.as_deref(), Some("arc-rules-1"));
}

#[test]
fn chunks_of_a_data_set_keep_the_sides_of_rules_and_the_tests_of_files_apart() {
    let folder = collection();
    let maker = |text: &str, split| TASK.maker(&text.parse().unwrap(), folder.path(), split);
    // `tasks` is a suite's way to say how many
    let rules = "rules = ['mirror', 'border', 'gravity']\nmax_side = 5\ntasks = 7";
    let inputs = |split| -> HashSet<Grid> {
        let set = maker(rules, split).unwrap()(4, 90).unwrap();
        assert_eq!((set.vocabulary, set.puzzle_ids), (12, PUZZLE_IDS));
        assert_eq!(set.numbering.as_deref(), Some("arc-rules-1"));
        assert_eq!(set.examples.len(), 90);
        set.examples.iter().map(|e| decode(&e.tokens).unwrap().canonical()).collect()
    };
    let (train, test) = (inputs(Split::Train), inputs(Split::Test));
    assert!(train.is_disjoint(&test));
    let side = |grids: &HashSet<Grid>, side| grids.iter().all(|g| split_of(g) == side);
    assert!(side(&train, Split::Train) && side(&test, Split::Test));
    let suite =
        set_of("rules = ['mirror', 'border', 'gravity']\nmax_side = 5\nexamples = 30\nseed = 4").unwrap().examples;
    assert_eq!(maker(rules, Split::Test).unwrap()(4, 30).unwrap().examples, suite);
    assert_eq!(maker(rules, Split::Test).unwrap()(4, 12).unwrap().examples, suite[..12], "fewer are the first of them");
    let drawn = |count| maker(rules, Split::Train).unwrap()(4, count).unwrap().examples;
    assert_eq!(drawn(30)[..12], drawn(12));
    assert!(drawn(30).iter().all(|e| e.difficulty > 0), "cells that change");

    let file = "file = 'arc.json'\naugmentations = 2\nside = 6";
    let (train, test) = (maker(file, Split::Train).unwrap(), maker(file, Split::Test).unwrap());
    let (train, test) = (train(1, 400).unwrap(), test(1, 400).unwrap());
    assert_eq!((train.puzzle_ids, &train.numbering), (test.puzzle_ids, &test.numbering));
    let asked: HashSet<_> = test.examples.iter().map(|e| (e.puzzle_id, decode(&e.tokens))).collect();
    // those that are moved about the canvas do not begin at its corner
    let learned: HashSet<_> = train.examples.iter().map(|e| (e.puzzle_id, decode(&e.tokens))).collect();
    assert!(asked.is_disjoint(&learned) && learned.len() > 4 && asked.len() == 6, "{asked:?} {learned:?}");

    for (text, split, word) in [
        ("rules = 'all'\nsubset = 'eval'", Split::Train, "`subset`"),
        ("rules = ['mirro']", Split::Test, "`mirror`"),
        ("file = 'absent.json'", Split::Train, "absent.json"),
        ("", Split::Test, "`rules"),
    ] {
        let said = maker(text, split).err().expect(text).to_string();
        assert!(said.contains(word) && said.contains("hint: "), "{text}: {said}");
    }
}
