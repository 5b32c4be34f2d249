//! Tests of the task: boards, files, the generator, the solver, symmetry.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::file::{Wanted, read_from};
use super::symmetry::canonical;
use super::*;
use crate::task::{Split, chunk_seed};

const CASES: [(Size, Option<(usize, usize)>); 4] =
    [(Size::Four, Some((4, 6))), (Size::Six, None), (Size::Six, Some((12, 16))), (Size::Nine, None)];

fn puzzles(size: Size, clues: Option<(usize, usize)>, seed: u64, count: usize) -> Vec<Puzzle> {
    let mut generator = Generator::new(size, seed, PuzzleOptions { clues, ..PuzzleOptions::default() }).unwrap();
    (0..count).map(|_| generator.next_puzzle().unwrap()).collect()
}

fn clues(puzzle: &Puzzle) -> usize {
    puzzle.clues.iter().filter(|d| **d != 0).count()
}

fn share(puzzles: &[Puzzle], is: impl Fn(&Puzzle) -> bool) -> f64 {
    puzzles.iter().filter(|p| is(p)).count() as f64 / puzzles.len() as f64
}

fn text(cells: &[u8]) -> String {
    cells.iter().map(|d| char::from(b'0' + d)).collect()
}

mod columns;

#[test]
fn minimal_9x9_puzzles_have_the_known_statistics() {
    // Known for this way of digging: 24.4 clues, 41 % need no guess, 4.3 guesses, 10.5 % need 11 or more. The bands are
    // four standard errors or wider at 1000 puzzles.
    let puzzles = puzzles(Size::Nine, None, 11, 1000);
    let mean = |f: &dyn Fn(&Puzzle) -> f64| puzzles.iter().map(f).sum::<f64>() / 1000.0;
    let mean_clues = mean(&|p| clues(p) as f64);
    assert!((24.2..24.6).contains(&mean_clues), "{mean_clues}");
    let easy = share(&puzzles, |p| p.guesses == 0);
    assert!((0.35..0.48).contains(&easy), "{easy}");
    let mean_guesses = mean(&|p| f64::from(p.guesses));
    assert!((3.2..5.4).contains(&mean_guesses), "{mean_guesses}");
    let hard = share(&puzzles, |p| p.guesses >= 11);
    assert!((0.065..0.145).contains(&hard), "{hard}");
}

#[test]
fn minimal_4x4_puzzles_fall_into_the_36_known_classes_and_need_no_guess() {
    let puzzles = puzzles(Size::Four, None, 12, 4000);
    let classes: BTreeSet<[u8; 16]> = puzzles.iter().map(|p| canonical(&p.clues)).collect();
    let of = |n: usize| classes.iter().filter(|c| c.iter().filter(|d| **d != 0).count() == n).count();
    // 13 of 4 clues, 22 of 5 and one of 6.
    assert_eq!((classes.len(), of(4), of(5), of(6)), (36, 13, 22, 1));
    assert!(puzzles.iter().all(|p| p.guesses == 0));
}

#[test]
fn every_puzzle_is_what_it_says() {
    for (size, range) in CASES {
        for puzzle in puzzles(size, range, 13, 40) {
            let checked = Puzzle::new(size, puzzle.clues.clone(), puzzle.solution.clone()).unwrap();
            assert_eq!(checked, puzzle);
            match range {
                Some((low, high)) => assert!((low..=high).contains(&clues(&puzzle))),
                None => {
                    for cell in (0..size.cells()).filter(|&c| puzzle.clues[c] != 0) {
                        let mut fewer = puzzle.clues.clone();
                        fewer[cell] = 0;
                        assert_eq!(solve(size, &fewer).solutions, 2, "clue {cell} of {puzzle:?}");
                    }
                }
            }
        }
    }
}

/// The split and every recorded score rest on these: if this fails, a dependency changed its random numbers.
#[test]
fn a_seed_gives_the_same_puzzle_on_every_machine() {
    let first = |size| text(&puzzles(size, None, 1, 1)[0].clues);
    assert_eq!(first(Size::Four), "0003100000402000");
    assert_eq!(first(Size::Six), "001006500000043000000040060034000061");
    assert_eq!(first(Size::Nine), "420000500608000013100200000700081040000564000000000300001000050060002000000400090");
}

#[test]
fn about_one_puzzle_in_ten_is_held_out() {
    for (size, range, count) in [
        (Size::Four, (4, 6), 4000),
        (Size::Six, (12, 16), 3000),
        (Size::Six, (36, 36), 3000),
        (Size::Nine, (81, 81), 3000),
    ] {
        let test = share(&puzzles(size, Some(range), 14, count), |p| split_of(p) == Split::Test);
        assert!((0.075..0.125).contains(&test), "{size:?} {range:?}: {test}");
    }
}

#[test]
fn train_and_test_share_no_class() {
    for (size, range) in CASES {
        let clues = range.map_or_else(|| "minimal = true".to_owned(), |(low, high)| format!("clues = [{low}, {high}]"));
        let classes = |split: &str| -> HashSet<u64> {
            let text = format!("size = {}\nexamples = 150\nsplit = '{split}'\n{clues}", size.side());
            let cells = |tokens: &[u32]| tokens.iter().map(|t| (t - 1) as u8).collect();
            let puzzle =
                |e: &Example| Puzzle { size, clues: cells(&e.tokens), solution: cells(e.answer.tokens()), guesses: 0 };
            set_of(&text).unwrap().examples.iter().map(|e| class(&puzzle(e))).collect()
        };
        assert!(classes("test").is_disjoint(&classes("train")), "{size:?}");
    }
}

#[test]
fn requests_that_cannot_be_met_end_with_an_error() {
    let refused = |size, options| Generator::new(size, 1, options).expect_err("refused").to_string();
    let clues = |low, high| PuzzleOptions { clues: Some((low, high)), ..PuzzleOptions::default() };
    for (size, options) in [
        (Size::Four, clues(2, 3)),
        (Size::Four, clues(6, 5)),
        (Size::Four, clues(17, 20)),
        (Size::Nine, clues(0, 16)),
        (Size::Four, PuzzleOptions { min_guesses: 1, ..PuzzleOptions::default() }),
        (Size::Nine, PuzzleOptions { min_guesses: 5, max_guesses: Some(4), ..PuzzleOptions::default() }),
    ] {
        assert!(refused(size, options).contains("hint:"));
    }
    // Possible as far as anyone knows, but not found.
    let mut generator =
        Generator::new(Size::Six, 1, PuzzleOptions { min_guesses: 1000, ..PuzzleOptions::default() }).unwrap();
    let message = generator.next_puzzle().expect_err("none so hard").to_string();
    assert!(message.contains("20000") && message.contains("hint:"), "{message}");
    let wide = clues(0, usize::MAX);
    assert!(Generator::new(Size::Four, 1, wide).unwrap().next_puzzle().is_ok());
}

fn set_of(parameters: &str) -> Result<ExampleSet, SuiteError> {
    (TASK.examples)(&parameters.parse().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn examples_are_distinct_repeatable_and_in_the_tokens_of_the_released_model() {
    let set = set_of("size = 4\nclues = [4, 6]\nseed = 3\nexamples = 500").unwrap();
    let solved = set.examples.iter().filter(|e| {
        let clues: Vec<u8> = e.tokens.iter().map(|t| (t - 1) as u8).collect();
        solve(Size::Four, &clues).solution.map(|s| tokens(&s)) == Some(e.answer.tokens().to_vec())
    });
    assert_eq!((set.baselines[0].right, set.baselines[0].of), (solved.count() as u64, set.examples.len() as u64));
    assert_eq!((set.examples.len(), set.vocabulary), (500, 6));
    assert!(set.notes.iter().any(|n| n.contains("smoke test")));
    let distinct: HashSet<_> = set.examples.iter().map(|e| &e.tokens).collect();
    assert_eq!(distinct.len(), 500);
    assert!(set.examples.iter().all(|e| e.tokens.iter().all(|t| (1..=5).contains(t)) && e.puzzle_id == 0));
    assert_eq!(set.examples, set_of("size = 4\nclues = [4, 6]\nseed = 3\nexamples = 500").unwrap().examples);
    assert_ne!(set.examples, set_of("size = 4\nclues = [4, 6]\nseed = 4\nexamples = 500").unwrap().examples);
    assert_eq!(tokens(&[0, 1, 9]), [1, 2, 10]);
    assert_eq!(vocabulary(Size::Nine), 11);

    let hard = set_of("size = 9\nmin_guesses = 3\nmax_guesses = 9\nexamples = 20").unwrap();
    assert!(hard.examples.iter().all(|e| (3..=9).contains(&e.difficulty)));
}

#[test]
fn wrong_parameters_are_named() {
    for (parameters, word) in [
        ("", "`size`"),
        ("size = 5", "4, 6 or 9"),
        ("size = '9'", "4, 6 or 9"),
        ("size = 4\nexampels = 3", "`examples`"),
        ("size = 4\nexamples = 0", "`examples`"),
        ("size = 4\nexamples = 1000001", "1000000"),
        ("size = 4\nseed = -1", "`seed`"),
        ("size = 4\nsplit = 'tset'", "`test`"),
        ("size = 4\nclues = 5", "fewest, most"),
        ("size = 4\nclues = [5]", "fewest, most"),
        ("size = 4\nclues = [2, 3]", "2 to 3 clues"),
        ("size = 4\nclues = [4, 6]\nminimal = true", "`minimal`"),
        ("size = 4\nminimal = false", "`minimal`"),
        ("size = 4\nmin_guesses = 1", "no 4x4 puzzle needs a guess"),
        ("size = 4\nlimit = 1", "`limit`"),
        ("csv = 'a.csv'\nseed = 1", "`seed`"),
        ("csv = 'no-such.csv'", "no-such.csv"),
        ("csv = 'src'", "not a regular file"),
        ("size = 4\nclues = [16, 16]\nsplit = 'train'\nexamples = 1000", "ask for at most"),
    ] {
        let message = set_of(parameters).expect_err(parameters).to_string();
        assert!(message.contains(word) && message.contains("hint:"), "{parameters:?}: {message}");
    }
}

#[test]
fn chunks_of_a_data_set_are_prefixes_of_what_a_suite_gets_and_keep_the_sides_apart() {
    for text in ["size = 4\nclues = [4, 6]", "size = 6\nclues = [12, 16]", "size = 9"] {
        let maker = |split| TASK.maker(&text.parse().unwrap(), Path::new(""), split).unwrap();
        let suite = set_of(&format!("{text}\nexamples = 60\nseed = 5\nsplit = 'test'")).unwrap().examples;
        let classes = |split: Split, seed, count| -> HashSet<u64> {
            let cells = |tokens: &[u32]| tokens.iter().map(|t| (t - 1) as u8).collect::<Vec<_>>();
            let puzzle = |e: &Example| {
                let size = Size::from_cells(e.tokens.len()).unwrap();
                let puzzle = Puzzle::new(size, cells(&e.tokens), cells(e.answer.tokens())).unwrap();
                assert_eq!(split_of(&puzzle) == Split::Test, split == Split::Test, "{text}");
                class(&puzzle)
            };
            maker(split)(seed, count).unwrap().examples.iter().map(puzzle).collect()
        };
        let (test, train) = (maker(Split::Test), maker(Split::Train));
        assert_eq!(test(5, 60).unwrap().examples, suite);
        assert_eq!(test(5, 20).unwrap().examples, suite[..20], "fewer are the first of them");
        assert_ne!(train(5, 20).unwrap().examples, suite[..20]);
        assert_ne!(train(6, 20).unwrap().examples, train(5, 20).unwrap().examples);
        assert!(classes(Split::Test, 5, 60).is_disjoint(&classes(Split::Train, 5, 60)), "{text}");
    }
    let seeds: HashSet<u64> = (0..100).flat_map(|chunk| [0, 1, 2].map(|seed| chunk_seed(seed, chunk))).collect();
    assert_eq!(seeds.len(), 300);
    assert_eq!(chunk_seed(7, 0), 7);
    assert!(seeds.iter().all(|s| i64::try_from(*s).is_ok()), "a suite can name it");
}

#[test]
fn a_readable_row_is_read_again() {
    let set = set_of("size = 6\nexamples = 12\nseed = 2").unwrap();
    let mut file = String::new();
    for example in &set.examples {
        let row = TASK.row(example);
        let text: Vec<String> = row
            .iter()
            .map(|(_, field)| match field {
                Field::Text(text) => text.clone(),
                Field::Number(number) => number.to_string(),
                Field::Numbers(_) => panic!("a board is a text"),
            })
            .collect();
        if file.is_empty() {
            file = row.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",") + "\n";
        }
        file += &(text.join(",") + "\n");
    }
    let again: Vec<Example> = rows(&file).unwrap().puzzles.iter().map(Puzzle::example).collect();
    assert_eq!(again, set.examples);
}

#[test]
fn scores_count_every_cell() {
    let example = &set_of("size = 4\nexamples = 1").unwrap().examples[0];
    let score = |answer: &[u32]| (TASK.score)(example, &answer.to_vec().into());
    let right = example.answer.tokens();
    assert_eq!(score(right), Score { exact: true, right: 16, cells: 16 });
    let mut wrong = right.to_vec();
    wrong[3] = 0;
    assert_eq!(score(&wrong), Score { exact: false, right: 15, cells: 16 });
    for answer in [&[][..], &right[1..], &[1; 17]] {
        assert_eq!(score(answer), Score { exact: false, right: 0, cells: 16 });
    }
}

fn rows(text: &str) -> Result<PuzzleFile, SuiteError> {
    read_from(text.as_bytes(), Wanted::default())
}

fn line(puzzle: &Puzzle) -> String {
    format!("{},{}", text(&puzzle.clues), text(&puzzle.solution))
}

#[test]
fn files_are_read_with_and_without_header() {
    let puzzles = puzzles(Size::Six, None, 15, 3);
    let [a, b, c] = [0, 1, 2].map(|i| line(&puzzles[i]));
    let plain = rows(&format!("{a}\n\n{b}\r\n{c}")).unwrap();
    assert_eq!((plain.size, plain.repeated), (Size::Six, 0));
    assert_eq!(plain.puzzles, puzzles);
    assert_eq!(rows(&format!("\u{FEFF}puzzle,solution\n{a}\n{b}\n{a}")).unwrap().repeated, 1);
    let (clues, solution) = a.split_once(',').unwrap();
    let turned = format!("source,Answer,QUESTION,rating\n\"x, y\",{solution},\"{}\",3\n", clues.replace('0', "."));
    assert_eq!(rows(&turned).unwrap().puzzles, puzzles[..1]);
    assert_eq!(
        read_from(format!("{a}\nnonsense").as_bytes(), Wanted { limit: Some(1), ..Wanted::default() })
            .unwrap()
            .puzzles
            .len(),
        1
    );
}

#[test]
fn files_are_read_as_people_have_them() {
    let puzzles = puzzles(Size::Four, None, 18, 3);
    let [(a, a_solution), (b, b_solution), (c, _)] =
        [0, 1, 2].map(|i: usize| (text(&puzzles[i].clues), text(&puzzles[i].solution)));
    for delimiter in [";", "\t", "|", ","] {
        for header in ["", "id;Puzzle;x;Solution", "source;question;answer;rating"] {
            let row = |n: u32, p: &str, s: &str| match header.chars().next() {
                None => format!("{n};{p};{s};\"q; u\"\r\n"),
                Some('i') => format!("{n};{p};0.5;{s}\r"),
                Some(_) => format!("set one;{p};{s};{n}\n"),
            };
            let file =
                format!("{header}\n{}{}", row(1, &a, &a_solution), row(2, &b, &b_solution)).replace(';', delimiter);
            let found = rows(file.trim_start()).unwrap_or_else(|e| panic!("{file:?}: {e}"));
            assert_eq!((&found.puzzles[..], found.solved), (&puzzles[..2], 0), "{file:?}");
        }
    }
    // without solutions, in every way of writing an empty cell; spaces around a board are cells where there are enough
    // of them
    for blank in ["0", ".", "_", " "] {
        let file = format!("{a}\n{b}\n{c}\n").replace('0', blank);
        let found = rows(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        assert_eq!((&found.puzzles[..], found.solved), (&puzzles[..], 3));
    }
    let found = rows(&format!("puzzle,solution\n{a},\n{b},{b_solution}\n")).unwrap();
    assert_eq!((&found.puzzles[..], found.solved), (&puzzles[..2], 1));

    let bad = format!("puzzle,solution\n{a},{a_solution}\n,\n123,4\n{b},{b_solution}\n");
    let skip = |text: &str| read_from(text.as_bytes(), Wanted { skip_bad: true, ..Wanted::default() });
    let found = skip(&bad).unwrap();
    assert_eq!((&found.puzzles[..], found.skipped), (&puzzles[..2], 2));
    assert_eq!(found.first_skipped.as_deref(), Some("line 3: an empty row"));
    assert!(rows(&bad).unwrap_err().to_string().contains("skip_bad"));
    assert!(skip("puzzle,solution\n,\n").unwrap_err().to_string().contains("1 row left out"));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.csv"), bad).unwrap();
    let set = |text: &str| (TASK.examples)(&text.parse().unwrap(), folder.path());
    assert!(set("csv = 'p.csv'").is_err());
    let noted = set("csv = 'p.csv'\nskip_bad = true").unwrap().notes.join(" ");
    assert!(noted.contains("(`skip_bad`): 2 rows;") && noted.contains("line 3: an empty row"), "{noted}");
}

#[test]
fn faults_in_a_file_are_named_by_line() {
    let puzzle = &puzzles(Size::Four, None, 16, 1)[0];
    let (good, clues, solution) = (line(puzzle), text(&puzzle.clues), text(&puzzle.solution));
    let other = line(&puzzles(Size::Six, None, 16, 1)[0]);
    let blank = "0".repeat(16);
    let swapped: String = solution.chars().rev().collect();
    for (bad, word) in [
        (clues.replace('0', "1"), "no solution"),
        (blank.clone(), "more than one solution"),
        (",".into(), "an empty row"),
        (format!("{},{solution}", &clues[1..]), "15 cells"),
        (format!("{clues},{}", &solution[1..]), "15 cells"),
        (format!("{},{solution}", clues.replacen('0', "5", 1)), "'5'"),
        (format!("{},{solution}", clues.replacen('0', "é", 1)), "'é'"),
        (format!("{clues},{}", solution.replacen('1', "2", 1)), "not solved"),
        (format!("{clues},{blank}"), "not solved"),
        (format!("{clues},{swapped}"), "differ at row"),
        (format!("{blank},{solution}"), "more than one solution"),
        (other, "36 cells, not 16"),
        ("x".repeat(70_000), "65536"),
    ] {
        let message = rows(&format!("puzzle,solution\n{good}\n{bad}\n")).expect_err(&bad).to_string();
        assert!(message.starts_with("line 3: ") && message.contains(word), "{bad}: {message}");
        assert!(message.contains("hint:"), "{message}");
    }
    assert!(rows("").expect_err("empty").to_string().contains("no puzzle"));
    assert!(rows("puzzle,solution\n").is_err());
    for (text, word) in [
        ("\u{feff}version https://git-lfs.github.com/spec/v1", "holds no puzzle"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("<html><body>404</body></html>", "web page"),
        ("puzzle,id,Puzzle\n", "line 1: columns 1 and 3 are both called `puzzle`"),
        ("puzzle,solution\n1\0", "line 2: a NUL byte"),
        ("\0\0\0\0\0\0\0\0\0", "NUL byte"),
    ] {
        let message = rows(text).expect_err(text).to_string();
        // a mark before a pointer makes it a text like any other
        assert!(message.contains(word) || text.starts_with('\u{feff}'), "{text:?}: {message}");
    }
    assert!(rows("field,answer\n1,2").expect_err("header").to_string().contains("line 1: the header"));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.csv"), format!("{good}\n{good}\nx,y")).unwrap();
    let set = |text: &str| (TASK.examples)(&text.parse().unwrap(), folder.path());
    let message = set("csv = 'p.csv'").expect_err("line 3").to_string();
    assert!(message.contains("p.csv: line 3: "), "{message}");
    let two = set("csv = 'p.csv'\nlimit = 2").unwrap();
    assert_eq!((two.examples.len(), two.notes.len()), (1, 3));
    assert!(set("csv = 'p.csv'\nlimit = 2\nsize = 9").is_err());
}

#[test]
fn training_examples_come_from_the_train_side_and_are_always_the_same() {
    let source = |text: &str, seed| (TASK.training.unwrap())(&text.parse().unwrap(), seed);
    let draw = |text: &str, seed| {
        let mut source = source(text, seed).unwrap();
        (0..40).map(|_| source.next_example()).collect::<Vec<_>>()
    };
    for text in ["size = 4\nclues = [6, 8]\npuzzles = 9", "size = 6\nminimal = true\npuzzles = 5"] {
        let examples = draw(text, 3);
        assert_eq!(examples, draw(text, 3));
        assert_ne!(examples, draw(text, 4));
        for e in &examples {
            let digits = |tokens: &[u32]| tokens.iter().map(|t| (t - 1) as u8).collect::<Vec<_>>();
            let size = Size::from_cells(e.tokens.len()).unwrap();
            let puzzle = Puzzle::new(size, digits(&e.tokens), digits(e.answer.tokens())).unwrap();
            assert_eq!(split_of(&puzzle), Split::Train);
        }
    }
    for (text, word) in [
        ("size = 4", "`puzzles`"),
        ("size = 4\npuzzles = 0", "`puzzles`"),
        ("puzzles = 3", "`size`"),
        ("size = 4\npuzzles = 3\nexamples = 3", "`examples`"),
        ("size = 4\npuzzles = 3\nclues = [2, 1]", "`clues`"),
    ] {
        let error = source(text, 0).err().expect(text).to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_symmetry_moves_a_puzzle_to_the_other_side(seed: u64, which in 0..CASES.len()) {
        let (size, range) = CASES[which];
        let puzzle = &puzzles(size, range, seed, 1)[0];
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
        let turned = augment(puzzle, &mut rng);
        prop_assert_eq!(class(&turned), class(puzzle));
        prop_assert_eq!(split_of(&turned), split_of(puzzle));
        prop_assert_eq!(clues(&turned), clues(puzzle));
        if size == Size::Four {
            prop_assert_eq!(canonical(&turned.clues), canonical(&puzzle.clues));
        }
        prop_assert!(Puzzle::new(size, turned.clues, turned.solution).is_ok());
    }

    #[test]
    fn written_puzzles_are_read_again(seed: u64, which in 0..CASES.len(), header: bool, blank in "[0._]") {
        let (size, range) = CASES[which];
        let made = puzzles(size, range, seed, 5);
        let mut file = if header { "question,answer\n".to_owned() } else { String::new() };
        for puzzle in &made {
            file += &format!("{},{}\n", text(&puzzle.clues).replace('0', &blank), text(&puzzle.solution));
        }
        let rows = rows(&file).unwrap();
        prop_assert_eq!(rows.puzzles.len() + rows.repeated, 5);
        prop_assert!(rows.puzzles.iter().all(|p| made.contains(p)));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_from(&bytes[..], Wanted::default());
    }

    #[test]
    fn no_near_puzzle_panics(text in "(puzzle,solution\n)?([0-9._]{16},[1-4]{16}\n?|[0-9.]{81},[0-9]{81}|[\",\n\r]){0,4}") {
        let _ = rows(&text);
    }

    #[test]
    fn the_solver_takes_any_cells(cells in prop::collection::vec(0u8..12, 0..90), which in 0usize..3) {
        let _ = solve(Size::ALL[which], &cells);
    }
}
