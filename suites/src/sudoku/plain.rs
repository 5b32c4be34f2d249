//! A second solver for tests: the definition of *guesses* word for word, on lists, without a thought of speed.
//!
//! In: clues. Out: solutions up to two, and guesses. Must not: share code with the solver that it checks.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Generator, PuzzleOptions, Size, solve};

struct Plain {
    size: Size,
    guesses: u32,
    solutions: u32,
}

impl Plain {
    fn units(&self) -> Vec<Vec<usize>> {
        let (side, rows, columns) = (self.size.side(), self.size.box_rows(), self.size.box_columns());
        let place = |c: usize| [c / side, c % side, c / side / rows * (side / columns) + c % side / columns];
        let all = 0..side * side;
        (0..3)
            .flat_map(|k| (0..side).map(move |u| (k, u)))
            .map(|(k, u)| all.clone().filter(|&c| place(c)[k] == u).collect())
            .collect()
    }

    /// Digits that no cell in a common unit has.
    fn candidates(&self, grid: &[u8], cell: usize, units: &[Vec<usize>]) -> Vec<u8> {
        let seen = |d: u8| units.iter().any(|u| u.contains(&cell) && u.iter().any(|&c| grid[c] == d));
        (1..=self.size.side() as u8).filter(|&d| !seen(d)).collect()
    }

    fn search(&mut self, mut grid: Vec<u8>, units: &[Vec<usize>]) {
        // singles until nothing follows
        loop {
            let open: Vec<usize> = (0..grid.len()).filter(|&c| grid[c] == 0).collect();
            let Some(&first) = open.first() else {
                self.solutions += 1;
                return;
            };
            let candidates: Vec<Vec<u8>> = (0..grid.len())
                .map(|c| if grid[c] == 0 { self.candidates(&grid, c, units) } else { vec![grid[c]] })
                .collect();
            if candidates.iter().any(Vec::is_empty) {
                return;
            }
            let naked = open.iter().find(|&&c| candidates[c].len() == 1).map(|&c| (c, candidates[c][0]));
            let mut hidden = None;
            for unit in units {
                for digit in 1..=self.size.side() as u8 {
                    let places: Vec<usize> = unit.iter().copied().filter(|&c| candidates[c].contains(&digit)).collect();
                    match places[..] {
                        [] => return,
                        [only] if grid[only] == 0 => hidden = Some((only, digit)),
                        _ => {}
                    }
                }
            }
            if let Some((cell, digit)) = naked.or(hidden) {
                grid[cell] = digit;
                continue;
            }
            let fewest = open
                .iter()
                .copied()
                .fold(first, |best, c| if candidates[c].len() < candidates[best].len() { c } else { best });
            for &digit in &candidates[fewest] {
                self.guesses += 1;
                let mut branch = grid.clone();
                branch[fewest] = digit;
                self.search(branch, units);
                if self.solutions >= 2 {
                    return;
                }
            }
            return;
        }
    }
}

fn plain(size: Size, clues: &[u8]) -> (u32, u32) {
    let mut plain = Plain { size, guesses: 0, solutions: 0 };
    let units = plain.units();
    let doubled = units.iter().any(|u| (1..=9).any(|d| u.iter().filter(|&&c| clues[c] == d).count() > 1));
    if !doubled {
        plain.search(clues.to_vec(), &units);
    }
    (plain.solutions, plain.guesses)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Puzzles with one solution, with several (clues taken away) and with none (a clue changed).
    #[test]
    fn the_rating_is_the_one_that_is_defined(seed: u64, which in 0usize..3, taken in 0usize..3, changed: bool) {
        let size = Size::ALL[which];
        let mut clues = Generator::new(size, seed, PuzzleOptions::default()).unwrap().next_puzzle().unwrap().clues;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut filled: Vec<usize> = (0..clues.len()).filter(|&c| clues[c] != 0).collect();
        filled.shuffle(&mut rng);
        // many solutions of a large board are slow to tell for a plain solver
        filled.iter().take(if which == 2 { taken.min(1) } else { taken }).for_each(|&c| clues[c] = 0);
        if changed {
            let cell = filled[filled.len() - 1];
            clues[cell] = clues[cell] % size.side() as u8 + 1;
        }
        let found = solve(size, &clues);
        prop_assert_eq!((found.solutions, found.guesses), plain(size, &clues), "{:?}", clues);
    }
}
