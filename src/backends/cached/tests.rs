//! Caches that move between batches, over a file that adds up what it sees: no library is needed, and long feeds run in pieces.

use std::cell::Cell;

use super::*;

/// Tokens that are known, and logits of a row.
const KNOWN: usize = 10;

/// Two caches of two heads and three features, in which each place holds the token plus a number of the head and the cache. Logits of a
/// row: the sum of the tokens that it sees, its position, the tokens of its run, and nothing.
struct Adding {
    batches: bool,
    runs: usize,
    /// Caches that were not a run's result.
    copied: Cell<usize>,
}

struct Held {
    shape: [usize; 4],
    data: Vec<f32>,
}

impl CacheRunner for Adding {
    type Cache = Held;

    fn batches(&self) -> bool {
        self.batches
    }

    fn cache(&self, shape: [usize; 4], data: Vec<f32>) -> Result<Held, BackendError> {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        self.copied.set(self.copied.get() + 1);
        Ok(Held { shape, data })
    }

    fn elements<'a>(&self, cache: &'a Held) -> Result<&'a [f32], BackendError> {
        Ok(&cache.data)
    }

    fn run(&mut self, call: &FileCall, caches: &[Held], logits: &mut Vec<f32>) -> Result<Vec<Held>, BackendError> {
        self.runs += 1;
        let (rows, new) = (call.rows, call.tokens());
        let mut made = Vec::new();
        for (i, cache) in caches.iter().enumerate() {
            let [held_rows, heads, past, dim] = cache.shape;
            assert_eq!((held_rows, past + new), (rows, call.mask.len() / rows));
            let mut data = Vec::new();
            for line in 0..rows * heads {
                data.extend_from_slice(&cache.data[line * past * dim..(line + 1) * past * dim]);
                let (row, mark) = (line / heads, (10 * (line % heads) + i) as f32);
                data.extend(call.ids[row * new..(row + 1) * new].iter().flat_map(|&id| [id as f32 * 100.0 + mark; 3]));
            }
            made.push(Held { shape: [rows, heads, past + new, dim], data });
        }
        for &at in &call.at {
            let (row, i) = (at as usize / new, at as usize % new);
            let total = call.mask.len() / rows;
            let seen = (0..total - new + i + 1).filter(|place| call.mask[row * total + place] == 1);
            let mut sum = 0.0;
            for (n, cache) in made.iter().enumerate() {
                for head in 0..2 {
                    let first = (row * 2 + head) * total;
                    sum +=
                        seen.clone().map(|place| cache.data[(first + place) * 3] - (10 * head + n) as f32).sum::<f32>();
                }
            }
            logits.extend([sum / 400.0, call.positions[at as usize] as f32, new as f32]);
            logits.extend([0.0; KNOWN - 3]);
        }
        Ok(made)
    }

    fn weight_bytes(&self) -> u64 {
        0
    }
}

fn engine(batches: bool) -> FileLanguage<Adding> {
    FileLanguage {
        runner: Adding { batches, runs: 0, copied: Cell::new(0) },
        sizes: vec![(2, 3); 2],
        context: 5000,
        vocabulary: KNOWN,
        past: vec![0; 4],
        groups: Vec::new(),
        logits: Vec::new(),
    }
}

#[test]
fn sums_are_those_of_each_sequence_whatever_it_was_fed_with() {
    for batches in [true, false] {
        let mut e = engine(batches);
        let mut sums = [0.0f32; 4];
        let mut fed = [0; 4];
        let feed =
            |e: &mut FileLanguage<Adding>, sums: &mut [f32; 4], fed: &mut [usize; 4], all: &[(usize, &[u32])]| {
                let feeds: Vec<Feed> = all.iter().map(|&(slot, tokens)| Feed { slot, tokens }).collect();
                e.feed(&feeds, WantedLogits::Last).unwrap();
                for (logits, &(slot, tokens)) in e.logits().chunks_exact(KNOWN).zip(all) {
                    sums[slot] += tokens.iter().sum::<u32>() as f32;
                    fed[slot] += tokens.len();
                    assert_eq!(
                        (logits[0], logits[1], e.past(slot)),
                        (sums[slot], (fed[slot] - 1) as f32, fed[slot]),
                        "slot {slot}"
                    );
                }
            };
        feed(&mut e, &mut sums, &mut fed, &[(2, &[1, 2, 3]), (0, &[4]), (1, &[5, 6, 7])]);
        feed(&mut e, &mut sums, &mut fed, &[(0, &[1]), (1, &[2]), (2, &[3])]);
        feed(&mut e, &mut sums, &mut fed, &[(0, &[4]), (1, &[5]), (2, &[6])]);
        feed(&mut e, &mut sums, &mut fed, &[(2, &[7]), (0, &[8, 9])]);
        feed(&mut e, &mut sums, &mut fed, &[(1, &[7, 2])]);
        e.copy(1, 3).unwrap();
        (sums[3], fed[3]) = (sums[1], fed[1]);
        e.clear(0);
        (sums[0], fed[0]) = (0.0, 0);
        feed(&mut e, &mut sums, &mut fed, &[(3, &[1]), (1, &[2]), (0, &[3])]);
        let places: usize = e.groups.iter().map(|g| g.slots.len() * g.places).sum();
        assert_eq!(e.facts().state_bytes as usize, places * 2 * 2 * 3 * 4);
        (0..4).for_each(|slot| e.clear(slot));
        assert_eq!((e.facts().state_bytes, e.groups.len()), (0, 0));
    }
}

#[test]
fn what_is_fed_together_again_is_not_copied_and_runs_as_one() {
    let mut e = engine(true);
    let step = |e: &mut FileLanguage<Adding>| {
        e.feed(&[Feed { slot: 0, tokens: &[1] }, Feed { slot: 1, tokens: &[2] }], WantedLogits::Last).unwrap();
    };
    e.feed(&[Feed { slot: 0, tokens: &[1, 2] }], WantedLogits::Last).unwrap();
    (0..3).for_each(|_| step(&mut e));
    assert_eq!((e.runner.runs, e.groups.len(), e.groups[0].empty.as_slice()), (4, 1, &[0, 2][..]));
    // two caches of the first prompt, empty, and two of both rows
    assert_eq!(e.runner.copied.get(), 4);
    // without batches each runs alone, and stays alone
    let mut e = engine(false);
    (0..3).for_each(|_| step(&mut e));
    assert_eq!((e.runner.runs, e.groups.len(), e.runner.copied.get()), (6, 2, 4));
}

#[test]
fn long_feeds_run_in_pieces_and_give_all_logits_in_order() {
    let tokens: Vec<u32> = (0..1200).map(|i| i % 7).collect();
    let mut e = engine(true);
    e.feed(&[Feed { slot: 1, tokens: &tokens }], WantedLogits::All).unwrap();
    let whole = e.logits().to_vec();
    let mut sum = 0;
    for (i, logits) in whole.chunks_exact(KNOWN).enumerate() {
        sum += tokens[i];
        assert_eq!((logits[0], logits[1] as usize), (sum as f32, i));
        assert!(logits[2] as usize <= PIECE);
    }
    assert_eq!((e.runner.runs, whole.len()), (3, 1200 * KNOWN));
    // two of one length share the places of a run
    let feeds = [Feed { slot: 0, tokens: &tokens[..600] }, Feed { slot: 2, tokens: &tokens[600..] }];
    e.feed(&feeds, WantedLogits::All).unwrap();
    let sums = |logits: &[f32]| logits.chunks_exact(KNOWN).map(|l| l[0]).collect::<Vec<f32>>();
    assert_eq!(sums(&e.logits()[..600 * KNOWN]), sums(&whole[..600 * KNOWN]));
    assert_eq!((e.logits().len(), e.runner.runs), (1200 * KNOWN, 6));
    e.feed(&[Feed { slot: 3, tokens: &tokens }], WantedLogits::Last).unwrap();
    assert_eq!(e.logits()[..2], whole[1199 * KNOWN..1199 * KNOWN + 2]);
}
