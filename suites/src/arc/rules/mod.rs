//! Our own procedural rules on small grids: a closed table, and tasks made of it.
//!
//! In: a rule's name, a side of the split, a random number generator. Out: pairs and tasks. Must not: renumber or
//! change a rule, because trained nets know rules by number and scores rest on what they do; a changed rule is a new
//! one at the end of the table.

mod colour;
mod draw;
mod lines;
mod local;
mod objects;
mod shape;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use draw::Draw;

use super::grid::Grid;
use super::json::{ArcTask, Pair};
use crate::error::SuiteError;
use crate::hash::hash;
use crate::task::Split;

/// A rule: what it does, and inputs on which that can be seen.
pub struct ArcRule {
    /// Its name in suites.
    pub name: &'static str,
    /// What becomes of the input; `None` where that is not defined or says nothing.
    pub apply: fn(&Grid) -> Option<Grid>,
    /// A random input, on which `apply` may still give `None`.
    make: fn(&mut Draw) -> Option<Grid>,
}

/// Version of the table: larger when rules are added.
pub const VERSION: u32 = 1;

/// All rules; a rule's place is its number. Directions are not listed: turned copies of a task have numbers of their
/// own.
pub const RULES: &[ArcRule] = &[
    ArcRule { name: "recolour", apply: colour::recolour, make: colour::some_ones },
    ArcRule { name: "swap-colours", apply: colour::swap, make: colour::threes_and_fours },
    ArcRule { name: "fill-commonest", apply: colour::fill_commonest, make: colour::full },
    ArcRule { name: "row-commonest", apply: colour::row_commonest, make: colour::full },
    ArcRule { name: "mirror", apply: shape::mirror, make: Draw::scattered },
    ArcRule { name: "turn-quarter", apply: shape::turn_quarter, make: Draw::scattered },
    ArcRule { name: "turn-half", apply: shape::turn_half, make: Draw::scattered },
    ArcRule { name: "transpose", apply: shape::transpose, make: Draw::scattered },
    ArcRule { name: "crop", apply: shape::crop, make: shape::with_margin },
    ArcRule { name: "scale-2", apply: shape::scale_2, make: shape::quarter_size },
    ArcRule { name: "tile-2", apply: shape::tile_2, make: shape::quarter_size },
    ArcRule { name: "reflect-2", apply: shape::reflect_2, make: shape::quarter_size },
    ArcRule { name: "top-half", apply: shape::top_half, make: Draw::scattered },
    ArcRule { name: "drop-empty-lines", apply: shape::drop_empty_lines, make: Draw::sparse },
    ArcRule { name: "roll", apply: shape::roll, make: Draw::scattered },
    ArcRule { name: "border", apply: local::border, make: Draw::scattered },
    ArcRule { name: "outline", apply: local::outline, make: local::without_five },
    ArcRule { name: "hollow", apply: local::hollow, make: local::solid },
    ArcRule { name: "denoise", apply: local::denoise, make: local::noisy },
    ArcRule { name: "life", apply: local::life, make: local::ones },
    ArcRule { name: "rays", apply: lines::rays, make: Draw::sparse },
    ArcRule { name: "connect", apply: lines::connect, make: lines::two_colours },
    ArcRule { name: "cross", apply: lines::cross, make: lines::seeds },
    ArcRule { name: "continue-pattern", apply: lines::continue_pattern, make: lines::begun_pattern },
    ArcRule { name: "complete-symmetry", apply: lines::complete_symmetry, make: lines::masked },
    ArcRule { name: "fill-enclosed", apply: objects::fill_enclosed, make: objects::frames },
    ArcRule { name: "gravity", apply: objects::gravity, make: Draw::scattered },
    ArcRule { name: "largest-object", apply: objects::largest, make: objects::several },
    ArcRule { name: "colour-by-size", apply: objects::colour_by_size, make: objects::fives },
    ArcRule { name: "flood", apply: objects::flood, make: objects::maze },
    ArcRule { name: "sort-bars", apply: objects::sort_bars, make: objects::bars },
    ArcRule { name: "count", apply: objects::count, make: objects::few_of_one },
];

/// Rows of a table of puzzle embeddings: 0 is left blank as in the released TRM, then eight turns for each rule.
pub const PUZZLE_IDS: u32 = 1 + 8 * RULES.len() as u32;

/// The puzzle id of a turned copy of a rule's tasks.
pub fn puzzle_id(rule: usize, dihedral: u32) -> u32 {
    1 + 8 * rule as u32 + dihedral % 8
}

/// Number of the rule of this name.
pub fn number(name: &str) -> Option<usize> {
    RULES.iter().position(|r| r.name == name)
}

/// Smallest and largest `max_side`.
pub const SIDES: std::ops::RangeInclusive<usize> = 5..=10;
/// Inputs that are drawn before a wish is given up.
const MAX_TRIES: usize = 20_000;
/// Part of the split: must never change.
const SALT: u64 = 0x6172_6331;

/// The side of the split on which all eight copies of this input are, whatever the rule.
pub fn split_of(input: &Grid) -> Split {
    Split::of_hash(class(input))
}

/// Equal for inputs that differ by a turn only.
fn class(input: &Grid) -> u64 {
    let least = input.canonical();
    let sides = [least.height() as u64, least.width() as u64];
    hash(SALT, sides.into_iter().chain(least.cells().iter().map(|&c| u64::from(c))))
}

/// A random pair of a rule on this side of the split, no grid larger than `draw` allows. The input has two colours or
/// more, and the rule changes it. `None` if 20,000 inputs were none of that.
pub fn pair(rule: &ArcRule, split: Split, draw: &mut Draw) -> Option<Pair> {
    (0..MAX_TRIES).find_map(|_| {
        let input = (rule.make)(draw)?;
        let output = (rule.apply)(&input)?;
        let plain = input.cells().iter().all(|&c| c == input.cells()[0]);
        let fits = input.side().max(output.side()) <= draw.max_side;
        (fits && !plain && input != output && split == split_of(&input)).then_some(Pair { input, output })
    })
}

/// What tasks of rules are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Most rows and columns, of [`SIDES`].
    pub max_side: usize,
    /// Where the test inputs come from; demonstrations are always free to learn from.
    pub split: Split,
    /// Demonstrations of each task.
    pub demonstrations: usize,
    /// Tests of each task.
    pub tests: usize,
    /// Of all random numbers.
    pub seed: u64,
}

/// Tasks of one rule, always the same for the same wish, and no matter how many come after. No two test inputs, and no
/// two inputs of one task, are copies of each other.
///
/// Errors: the rule has too few inputs for so many tasks.
pub fn tasks(number: usize, count: usize, wish: Wish) -> Result<Vec<ArcTask>, SuiteError> {
    let Some(rule) = RULES.get(number) else { return Ok(Vec::new()) };
    let side = u64::from(wish.split == Split::Test);
    let rng = ChaCha8Rng::seed_from_u64(hash(SALT, [wish.seed, side, number as u64, wish.max_side as u64]));
    let mut draw = Draw { rng, max_side: wish.max_side };
    let mut used = std::collections::HashSet::new();
    let mut made = Vec::new();
    for index in 0..count {
        let mut own = std::collections::HashSet::new();
        let mut fresh = |from: Split, test: bool| {
            let mut tries = 0..1000;
            tries.find_map(|_| {
                let pair = pair(rule, from, &mut draw)?;
                let class = class(&pair.input);
                let new = own.insert(class) && (!test || used.insert(class));
                new.then_some(pair)
            })
        };
        let demonstrations: Option<Vec<Pair>> = (0..wish.demonstrations).map(|_| fresh(Split::Train, false)).collect();
        let tests: Option<Vec<Pair>> = (0..wish.tests).map(|_| fresh(wish.split, true)).collect();
        let (Some(demonstrations), Some(tests)) = (demonstrations, tests) else {
            return Err(SuiteError::new(format!(
                "rule `{}` has no further input for task {} on grids up to {side}x{side}",
                rule.name,
                index + 1,
                side = wish.max_side,
            ))
            .at("`tasks`")
            .hint("ask for fewer tasks, or for a larger `max_side`"));
        };
        made.push(ArcTask { id: format!("{}/{index}", rule.name), demonstrations, tests });
    }
    Ok(made)
}
