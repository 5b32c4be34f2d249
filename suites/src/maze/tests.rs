//! Tests of the task: grids, paths against brute force, symmetry, the generator, parameters, training; files are in
//! `tests/files.rs`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::symmetry::{copy, turn};
use super::*;
use crate::task::chunk_seed;

mod files;

/// Of rows of a maze: rows are apart by `/`.
pub(super) fn grid(rows: &str) -> (MazeGrid, Vec<usize>) {
    MazeGrid::parse(&rows.replace('/', "")).unwrap()
}

fn text(tokens: &[u32]) -> String {
    tokens.iter().map(|t| character(*t)).collect()
}

fn mazes(request: MazeRequest, seed: u64, count: usize) -> Vec<Maze> {
    let mut generator = MazeGenerator::new(request, seed).unwrap();
    (0..count).map(|_| generator.next_maze().unwrap()).collect()
}

/// A grid of random cells, many of them walls; start and goal may be cut off from each other.
fn scattered(side: usize, seed: u64) -> MazeGrid {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    loop {
        let walls: Vec<bool> = (0..side * side).map(|_| rng.random_range(0..5) < 2).collect();
        let (start, goal) = (rng.random_range(0..walls.len()), rng.random_range(0..walls.len()));
        if let Ok(grid) = MazeGrid::new(side, walls, start, goal) {
            return grid;
        }
    }
}

/// Every path from start to goal that meets no cell twice, by trying them all.
fn all_paths(grid: &MazeGrid) -> Vec<Vec<usize>> {
    fn go(grid: &MazeGrid, path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
        let cell = path[path.len() - 1];
        if cell == grid.goal() {
            return found.push(path.clone());
        }
        let (side, here) = (grid.side() as isize, (cell / grid.side(), cell % grid.side()));
        for (down, right) in [(0, 1), (1, 0), (0, -1), (-1, 0)] {
            let (row, column) = (here.0 as isize + down, here.1 as isize + right);
            if (0..side).contains(&row) && (0..side).contains(&column) {
                let next = (row * side + column) as usize;
                if !grid.walls()[next] && !path.contains(&next) {
                    path.push(next);
                    go(grid, path, found);
                    path.pop();
                }
            }
        }
    }
    let mut found = Vec::new();
    go(grid, &mut vec![grid.start()], &mut found);
    found
}

/// Marks of a path, ends left out.
fn between(path: &[usize]) -> Vec<usize> {
    let mut marks = path[1..path.len() - 1].to_vec();
    marks.sort_unstable();
    marks
}

/// Whether no two cells of a path touch that do not follow each other.
fn touches_nowhere(side: usize, path: &[usize]) -> bool {
    let apart = |a: usize, b: usize| (a / side).abs_diff(b / side) + (a % side).abs_diff(b % side);
    (0..path.len()).all(|i| (i + 2..path.len()).all(|k| apart(path[i], path[k]) > 1))
}

#[test]
fn tokens_are_those_of_maze_hard() {
    // `# SGo` from 1 on, in the order of the released build_maze_dataset.py; 0 is padding
    let (g, marks) = grid("S#   / #   / #   / #   /  ooG");
    assert_eq!((g.start(), g.goal(), marks), (0, 24, vec![22, 23]));
    assert_eq!(g.tokens(&[])[..7], [3, 1, 2, 2, 2, 2, 1]);
    assert_eq!(g.tokens(&[22])[20..], [2, 2, 5, 2, 4]);
    assert_eq!((VOCABULARY, character(0), character(6)), (6, '?', '?'));
}

#[test]
fn paths_that_are_known_are_counted() {
    // an open square: the number of shortest paths between opposite corners is a binomial coefficient
    for side in [5usize, 6, 9] {
        let open = MazeGrid::new(side, vec![false; side * side], 0, side * side - 1).unwrap();
        let n = 2 * (side - 1) as u64;
        let binomial = (1..=n / 2).fold(1, |b, k| b * (n - k + 1) / k);
        let found = shortest(&open).unwrap();
        assert_eq!((u64::from(found.count), found.steps, found.marks.len()), (binomial, n as u32, n as usize - 1));
    }
    let large = MazeGrid::new(30, vec![false; 900], 0, 899).unwrap();
    assert_eq!(shortest(&large).unwrap().count, MANY, "counting ends");
    let (walled, _) = grid("S#   /##   /     /     /    G");
    assert_eq!(shortest(&walled), None);
    let (corridor, marks) = grid("Soooo/####o/ooooo/o####/ooooG");
    let found = shortest(&corridor).unwrap();
    assert_eq!((found.steps, found.count, found.visited), (16, 1, 17));
    assert_eq!(found.marks, marks);
}

#[test]
fn a_path_is_told_from_what_is_none() {
    let path = |rows: &str| {
        let (g, marks) = grid(rows);
        is_path(&g, &marks)
    };
    assert!(path("SooG / ### /     / ### /     "), "the shortest");
    assert!(path("S  G /o##o /o  o /o##o /oooo "), "a longer one");
    assert!(path("SG   / ### /     /     /     "), "without a mark");
    for (rows, why) in [
        ("S  G / ### /     / ### /     ", "nothing is marked"),
        ("SoG  /o### /     /     /     ", "a mark beside it"),
        ("So G / ### /     /     /     ", "a gap"),
        ("SooG / ### /   oo/     /     ", "marks elsewhere"),
        ("SooG /o##o /o  o /o##o /oooo ", "two ways"),
        ("ooG  /oS   /     /     /     ", "it touches itself at its start"),
    ] {
        assert!(!path(rows), "{why}: {rows}");
    }
    let (g, _) = grid("S  G / ### /     / ### /     ");
    assert!(!is_path(&g, &[1, 2, 6]) && !is_path(&g, &[1, 2, 2]) && !is_path(&g, &[1, 2, 25]), "walls, twice, outside");
    assert!(!is_path(&g, &[0, 1, 2]), "the start is no mark");
}

#[test]
fn scores_count_every_cell_and_paths_of_any_length() {
    let (g, marks) = grid("SooG / ### /     / ### /     ");
    let example = Maze { path: shortest(&g).unwrap(), grid: g.clone() }.example();
    assert_eq!((example.answer.tokens(), example.difficulty), (&g.tokens(&marks)[..], 3));
    let of = |answer: Vec<u32>| {
        let answer = Answer::from(answer);
        (Score::of_cells(&example.answer, &answer), valid(&example, &answer))
    };
    let whole = |exact, right| Score { exact, right, cells: 25 };
    assert_eq!(of(example.answer.tokens().to_vec()), (whole(true, 25), true));
    assert_eq!(of(example.tokens.clone()), (whole(false, 23), false), "a copy of the maze");
    let around: Vec<usize> = [5, 10, 15, 20, 21, 22, 23, 24, 19, 14, 9, 4].into();
    assert_eq!(of(g.tokens(&around)), (whole(false, 25 - 14), true), "a longer path");
    let mut opened = example.answer.tokens().to_vec();
    opened[6] = token::FREE;
    assert_eq!(of(opened), (whole(false, 24), false), "a wall was taken away");
    let mut moved = example.answer.tokens().to_vec();
    moved[3] = token::PATH;
    assert_eq!(of(moved), (whole(false, 24), false), "the goal was taken away");
    assert_eq!(of(vec![0; 25]), (whole(false, 0), false));
    for wrong in [0, 24, 26] {
        assert_eq!(of(vec![token::FREE; wrong]), (whole(false, 0), false));
    }
    assert_eq!(of(vec![u32::MAX; 25]), (whole(false, 0), false));
}

#[test]
fn turns_are_the_eight_of_a_square() {
    let rows =
        |side: usize, cells: &[usize]| -> Vec<Vec<usize>> { cells.chunks(side).map(<[usize]>::to_vec).collect() };
    for side in [5usize, 6] {
        // made another way: quarter turns and transposes of rows
        let mut expected = BTreeSet::new();
        let mut square = rows(side, &(0..side * side).collect::<Vec<_>>());
        for _ in 0..4 {
            let transposed: Vec<Vec<usize>> = (0..side).map(|c| square.iter().map(|r| r[c]).collect()).collect();
            expected.insert(square.concat());
            expected.insert(transposed.concat());
            square = transposed.into_iter().map(|r| r.into_iter().rev().collect()).collect();
        }
        let turns: BTreeSet<Vec<usize>> = (0..8).map(|number| turn(side, number)).collect();
        assert_eq!((turns.len(), turns), (8, expected));
    }
}

#[test]
fn every_maze_is_what_it_says() {
    for side in SIDES {
        for split in [Split::Train, Split::Test] {
            let request = MazeRequest { split: Some(split), ..MazeRequest::of(side) };
            for maze in mazes(request, side as u64, 10) {
                let found = shortest(&maze.grid).unwrap();
                assert_eq!(found, maze.path);
                assert_eq!((found.count, found.marks.len() as u32 + 1), (1, found.steps));
                assert!(found.steps >= side as u32 && is_path(&maze.grid, &found.marks));
                assert_eq!(split_of(side, maze.grid.walls()), split);
                // every free cell can be reached: none is there to no purpose
                let reached = search(&maze.grid, maze.grid.start(), None);
                assert!(maze.grid.walls().iter().zip(&reached.distances).all(|(w, d)| *w != d.is_some()));
            }
        }
    }
}

#[test]
fn a_band_of_lengths_is_kept_and_long_paths_are_there_to_be_had() {
    // Maze-Hard: 30x30, more than 110 steps
    for maze in mazes(MazeRequest { min_path: 111, ..MazeRequest::of(30) }, 3, 30) {
        assert!(maze.path.steps >= 111);
    }
    for maze in mazes(MazeRequest { min_path: 12, max_path: Some(14), ..MazeRequest::of(9) }, 3, 100) {
        assert!((12..=14).contains(&maze.path.steps));
    }
}

#[test]
fn the_difficulty_is_spread_and_loops_are_common() {
    for (side, most) in [(7, 20.0), (15, 75.0)] {
        let of = mazes(MazeRequest::of(side), 9, 600);
        let steps: Vec<f64> = of.iter().map(|m| f64::from(m.path.steps)).collect();
        let mean = steps.iter().sum::<f64>() / 600.0;
        let distinct: BTreeSet<u64> = steps.iter().map(|s| *s as u64).collect();
        assert!((side as f64..most).contains(&mean), "{side}: {mean}");
        assert!(distinct.len() > side, "{side}: {distinct:?}");
        // with a loop there are at least as many ways between free cells as cells
        let loops = of.iter().filter(|m| {
            let cells: Vec<usize> = (0..side * side).filter(|&c| !m.grid.walls()[c]).collect();
            let ways: usize = cells.iter().map(|&c| m.grid.free_beside(c).count()).sum::<usize>() / 2;
            ways >= cells.len()
        });
        let share = loops.count() as f64 / 600.0;
        assert!((0.4..1.0).contains(&share), "{side}: {share}");
    }
}

#[test]
fn about_one_maze_in_ten_is_held_out() {
    for side in [5, 7, 9, 15, 30] {
        let count = if side == 30 { 1500 } else { 3000 };
        let held_out = mazes(MazeRequest::of(side), 5, count)
            .iter()
            .filter(|m| split_of(side, m.grid.walls()) == Split::Test)
            .count() as f64
            / count as f64;
        assert!((0.07..0.13).contains(&held_out), "{side}: {held_out}");
    }
}

#[test]
fn train_and_test_share_no_walls_in_any_turn() {
    let side = 5;
    let walls = |split| -> HashSet<Vec<bool>> {
        let request = MazeRequest { split: Some(split), ..MazeRequest::of(side) };
        mazes(request, 6, 3000).iter().map(|m| m.grid.walls().to_vec()).collect()
    };
    let (train, test) = (walls(Split::Train), walls(Split::Test));
    assert!(train.len() > 500 && test.len() > 50, "{} {}", train.len(), test.len());
    for of_test in &test {
        for number in 0..8 {
            let turned: Vec<bool> = turn(side, number).into_iter().map(|c| of_test[c]).collect();
            assert!(!train.contains(&turned));
        }
    }
}

#[test]
fn requests_that_cannot_be_met_end_with_an_error() {
    let fails = |request: MazeRequest| {
        let made = MazeGenerator::new(request, 1).and_then(|mut g| g.next_maze());
        made.unwrap_err().to_string()
    };
    let said = fails(MazeRequest { min_path: 24, ..MazeRequest::of(5) });
    assert!(
        said.contains("`min_path`: no 5x5 maze has a shortest path of 24 steps") && said.contains("20 at"),
        "{said}"
    );
    let said = fails(MazeRequest { min_path: 18, max_path: Some(19), ..MazeRequest::of(5) });
    assert!(said.contains("`min_path`: none of 20000 5x5 mazes") && said.contains("18 to 19 steps"), "{said}");
    let said = fails(MazeRequest { min_path: 9, max_path: Some(8), ..MazeRequest::of(9) });
    assert!(said.contains("no number is from 9 to 8") && said.contains("hint: "), "{said}");
    let said = fails(MazeRequest::of(31));
    assert!(said.contains("`side`") && said.contains("from 5 to 30"), "{said}");
}

fn set_of(parameters: &str) -> Result<ExampleSet, SuiteError> {
    examples(&parameters.parse().unwrap(), Path::new(""))
}

#[test]
fn examples_are_distinct_and_repeatable_and_say_what_they_are() {
    let parameters = "side = 6\nexamples = 200\nseed = 4";
    let set = set_of(parameters).unwrap();
    assert_eq!(set.examples, set_of(parameters).unwrap().examples);
    assert_ne!(set.examples, set_of("side = 6\nexamples = 200\nseed = 5").unwrap().examples);
    assert_eq!((set.examples.len(), set.vocabulary, set.puzzle_ids), (200, 6, 1));
    let distinct: HashSet<&Vec<u32>> = set.examples.iter().map(|e| &e.tokens).collect();
    assert_eq!(distinct.len(), 200);
    let mut walls: HashMap<u64, Vec<u32>> = HashMap::new();
    for e in &set.examples {
        assert_eq!((e.tokens.len(), e.answer.tokens().len(), e.puzzle_id), (36, 36, 0));
        let of = e.tokens.iter().map(|t| u32::from(*t == token::WALL)).collect::<Vec<_>>();
        // a class is that of its walls: the same number never stands for others than turned ones
        let first = walls.entry(e.cluster).or_insert(of.clone());
        assert!((0..8).any(|n| turn(6, n).into_iter().map(|c| first[c]).eq(of.iter().copied())));
    }
    let names: Vec<&str> = set.baselines.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["breadth-first search", "walk towards the goal"]);
    assert_eq!((set.baselines[0].right, set.baselines[0].of, set.baselines[1].of), (200, 200, 200));
    assert!((1..200).contains(&set.baselines[1].right), "{:?}", set.baselines[1]);
    assert!(set.notes.iter().any(|n| n.contains("a copy of the maze")), "{:?}", set.notes);
    assert!(set.notes.iter().any(|n| n.contains("Breadth-first search looks at")), "{:?}", set.notes);
}

#[test]
fn wrong_parameters_are_named() {
    for (parameters, words) in [
        ("", "`side`: is missing"),
        ("side = 4", "a whole number from 5 to 30"),
        ("side = 31", "a whole number from 5 to 30"),
        ("side = \"7\"", "a whole number from 5 to 30"),
        ("size = 7", "did you mean `side`"),
        ("side = 7\nexamples = 0", "`examples`"),
        ("side = 7\nexamples = 1000001", "`examples`"),
        ("side = 7\nseed = -1", "`seed`"),
        ("side = 7\nsplit = \"tset\"", "did you mean `test`"),
        ("side = 7\nmin_path = 1", "`min_path`"),
        ("side = 7\nmin_path = 38\nexamples = 1", "ask for shorter paths"),
        ("side = 7\nmax_path = 6", "without `min_path` it is the side, 7"),
        ("side = 7\nmin_path = 10\nmax_path = 9", "no number is from 10 to 9"),
        ("side = 7\nmin_path = 48\nexamples = 1", "write 39 at the very most"),
        ("side = 7\nlimit = 3", "goes with `csv` only"),
        ("side = 7\nskip_bad = true", "goes with `csv` only"),
        ("csv = \"a.csv\"\nexamples = 3", "does not go with `csv`"),
        ("csv = \"\"", "`csv`"),
        ("csv = \"none.csv\"", "none.csv"),
    ] {
        let said = set_of(parameters).unwrap_err().to_string();
        assert!(said.contains(words) && said.contains("hint: "), "{parameters}: {said}");
    }
}

#[test]
fn all_mazes_of_a_band_can_be_had_and_one_more_is_refused() {
    let said = set_of("side = 5\nmin_path = 14\nexamples = 100000").unwrap_err().to_string();
    assert!(said.contains("`examples`") && said.contains("ask for at most"), "{said}");
}

#[test]
fn chunks_of_a_data_set_are_prefixes_of_what_a_suite_gets_and_keep_the_sides_apart() {
    let table: toml::Table = "side = 7".parse().unwrap();
    let side_of = |e: &Example| {
        let walls: Vec<bool> = e.tokens.iter().map(|t| *t == token::WALL).collect();
        split_of(7, &walls)
    };
    for split in [Split::Train, Split::Test] {
        let maker = TASK.maker(&table, Path::new(""), split).unwrap();
        let (few, many) = (maker(chunk_seed(7, 0), 20).unwrap(), maker(chunk_seed(7, 0), 50).unwrap());
        assert_eq!(few.examples[..], many.examples[..20]);
        assert!(many.examples.iter().all(|e| side_of(e) == split));
        assert_ne!(few.examples, maker(chunk_seed(7, 1), 20).unwrap().examples);
    }
    let suite = set_of("side = 7\nexamples = 20\nseed = 7").unwrap();
    assert_eq!(suite.examples, TASK.maker(&table, Path::new(""), Split::Test).unwrap()(7, 20).unwrap().examples);
    let file: toml::Table = "csv = \"a.csv\"".parse().unwrap();
    let Err(refused) = TASK.maker(&file, Path::new(""), Split::Test) else { panic!("a file has no sides") };
    assert!(refused.to_string().contains("has no sides"), "{refused}");
}

#[test]
fn training_examples_come_from_the_train_side_and_are_always_the_same() {
    for parameters in ["side = 6", "side = 6\npuzzles = 20\nmax_path = 12"] {
        let table: toml::Table = parameters.parse().unwrap();
        let source = |seed| (TASK.training.unwrap())(&table, seed).unwrap();
        let (mut one, mut again, mut other) = (source(1), source(1), source(2));
        let (mut differ, mut distinct) = (false, HashSet::new());
        for _ in 0..300 {
            let example = one.next_example();
            assert_eq!(example, again.next_example());
            differ |= example != other.next_example();
            let (g, none) = MazeGrid::parse(&text(&example.tokens)).unwrap();
            assert!(none.is_empty() && split_of(6, g.walls()) == Split::Train);
            let found = shortest(&g).unwrap();
            assert_eq!((found.count, found.steps), (1, example.difficulty));
            assert_eq!(g.tokens(&found.marks), example.answer.tokens());
            distinct.insert(example.tokens);
        }
        assert!(differ);
        // a pool of 20 in 16 copies has 320 examples at most, of which 300 draws meet some 195
        let least = if parameters.contains("puzzles") { 120..=230 } else { 290..=300 };
        assert!(least.contains(&distinct.len()), "{parameters}: {}", distinct.len());
    }
    for wrong in
        ["side = 6\nexamples = 3", "side = 6\npuzzles = 0", "side = 6\nsplit = \"test\"", "side = 6\ncsv = \"a\""]
    {
        let Err(refused) = (TASK.training.unwrap())(&wrong.parse().unwrap(), 1) else { panic!("{wrong}") };
        assert!(refused.to_string().contains("hint: "), "{wrong}: {refused}");
    }
}

#[test]
fn a_walk_towards_the_goal_is_right_where_nothing_stands_in_its_way() {
    let of = |rows: &str| walk(&grid(rows).0);
    assert_eq!(of("S#   / #   /   G /     /     "), Some(vec![5, 10, 11, 12]));
    assert_eq!(of("S   G/#### /   # / # # / #   ").map(|m| m.len()), Some(3));
    assert_eq!(of("     / ### /S  #G/ ### /     "), None, "a dead end");
}

#[test]
fn a_seed_gives_the_same_mazes_on_every_machine() {
    let rows = |m: &Maze| {
        let cells = text(&m.grid.tokens(&m.path.marks));
        cells
            .as_bytes()
            .chunks(m.grid.side())
            .map(|r| String::from_utf8_lossy(r).into_owned())
            .collect::<Vec<_>>()
            .join("/")
    };
    let first = |request: MazeRequest, seed| rows(&mazes(request, seed, 1)[0]);
    assert_eq!(first(MazeRequest::of(5), 1), " So##/ #oo#/  #oo/   #o/#   G");
    assert_eq!(
        first(MazeRequest { split: Some(Split::Test), ..MazeRequest::of(8) }, 2),
        "#    ###/  # # ##/ #  ooo#/  ##o#oo/  Soo #G/ # ## # / ##    #/#   ##  "
    );
    assert_eq!(
        first(MazeRequest { split: Some(Split::Train), min_path: 30, ..MazeRequest::of(11) }, 3),
        "S##   #  ##/ooo# # #  #/##ooooooo# /  # # ##ooo/#  ###  ##o/  ### # ##o/#oG#      o/oo# ## # #o/o#  # ###oo/ooo## ##oo#/ #ooooooo##"
    );
    let (g, _) = grid("S#   / #   /   G /     /     ");
    assert_eq!(class(5, g.walls()), 0xfef6_aa5d_2aed_cc81);
    assert_eq!(class(5, &[false; 25]), 0x44e9_782d_e0ce_242a);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn search_finds_what_trying_all_paths_finds(seed: u64, side in 5usize..7) {
        let grid = scattered(side, seed);
        let all = all_paths(&grid);
        let least = all.iter().map(Vec::len).min();
        let best: Vec<&Vec<usize>> = all.iter().filter(|p| Some(p.len()) == least).collect();
        match shortest(&grid) {
            None => prop_assert!(all.is_empty()),
            Some(found) => {
                prop_assert_eq!(Some(found.steps as usize + 1), least);
                prop_assert_eq!(found.count as usize, best.len());
                prop_assert!(best.iter().any(|p| between(p) == found.marks));
            }
        }
        // a path is one if it touches itself nowhere, and the shortest never do
        for path in all.iter().take(200) {
            prop_assert_eq!(is_path(&grid, &between(path)), touches_nowhere(side, path), "{:?}", path);
        }
        prop_assert!(best.iter().all(|p| touches_nowhere(side, p)));
    }

    #[test]
    fn what_is_no_path_is_not_taken_for_one(seed: u64, kept in prop::collection::vec(any::<bool>(), 25)) {
        let grid = scattered(5, seed);
        let marks: Vec<usize> =
            (0..25).filter(|&c| kept[c] && !grid.walls()[c] && c != grid.start() && c != grid.goal()).collect();
        let is_one = all_paths(&grid).iter().any(|p| between(p) == marks && touches_nowhere(5, p));
        prop_assert_eq!(is_path(&grid, &marks), is_one);
    }

    #[test]
    fn no_turn_moves_a_maze_to_the_other_side_or_its_path_out_of_it(seed: u64, side in 5usize..12, number in 0u32..8, swapped: bool) {
        let maze = &mazes(MazeRequest::of(side), seed, 1)[0];
        let (grid, marks) = copy(&maze.grid, &maze.path.marks, number, swapped);
        prop_assert_eq!(class(side, grid.walls()), class(side, maze.grid.walls()));
        let found = shortest(&grid).unwrap();
        prop_assert_eq!((&found.marks, found.count, found.steps), (&marks, 1, maze.path.steps));
        let tokens = maze.grid.tokens(&maze.path.marks);
        let turned: Vec<u32> = turn(side, number).into_iter().map(|c| tokens[c]).collect();
        let swap = |t: u32| match t { token::START => token::GOAL, token::GOAL => token::START, other => other };
        let expected: Vec<u32> = turned.into_iter().map(|t| if swapped { swap(t) } else { t }).collect();
        prop_assert_eq!(grid.tokens(&marks), expected);
    }

    #[test]
    fn no_answer_panics_and_exact_ones_are_valid(tokens in prop::collection::vec(any::<u32>(), 0..40), seed: u64) {
        let example = mazes(MazeRequest::of(5), seed, 1)[0].example();
        let answer = Answer::from(tokens.iter().map(|t| t % 7).collect::<Vec<u32>>());
        prop_assert!(!Score::of_cells(&example.answer, &answer).exact || valid(&example, &answer));
        prop_assert!(!valid(&example, &Answer::from(tokens)));
        prop_assert!(Score::of_cells(&example.answer, &example.answer).exact && valid(&example, &example.answer));
    }
}
