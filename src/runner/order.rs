//! The order of turns: random, balanced, and the same again from the same seed.
//!
//! In: a seed, a number of entries and of rounds. Out: for each round the entries in their order. Must not: read a
//! clock, or give one entry a place more than once more often than another entry.
//!
//! A disturbance with a period of its own meets a fixed order always at the same entry. Here each set of as many rounds
//! as there are entries is a Latin square (every entry once in every place) whose rows, places and entries are
//! shuffled; the last square may be cut off.
//!
//! The seed is in `environment.json`.

/// A small generator (splitmix64): good enough to shuffle, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn shuffled(&mut self, n: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            // the bias of a remainder of 2^64 is nothing at these sizes
            all.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
        all
    }
}

/// The entries `0..of` in the order of their turns, round by round.
pub fn turns(seed: u64, of: usize, rounds: usize) -> Vec<Vec<usize>> {
    let mut random = Random(seed);
    let mut all = Vec::with_capacity(rounds);
    while all.len() < rounds && of > 0 {
        let [rows, places, entries] = [(); 3].map(|()| random.shuffled(of));
        for row in rows.into_iter().take(rounds - all.len()) {
            all.push(places.iter().map(|place| entries[(place + row) % of]).collect());
        }
    }
    all.resize(rounds, Vec::new());
    all
}

/// Whether a case of so many blocks has one in this round of so many: its blocks are spread evenly.
pub fn takes_part(round: u32, rounds: u32, blocks: u32) -> bool {
    let before = |round: u32| u64::from(round) * u64::from(blocks) / u64::from(rounds.max(1));
    before(round + 1) > before(round)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_seat_is_in_every_place_as_often_as_any_other(seed: u64, of in 1usize..17, rounds in 1usize..24) {
            let all = turns(seed, of, rounds);
            prop_assert_eq!(&all, &turns(seed, of, rounds));
            prop_assert_eq!(all.len(), rounds);
            let mut counts = vec![vec![0usize; of]; of];
            for round in &all {
                let mut sorted = round.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..of).collect::<Vec<_>>(), "each once a round");
                round.iter().enumerate().for_each(|(place, entry)| counts[*entry][place] += 1);
            }
            let (least, most) = (rounds / of, rounds.div_ceil(of));
            prop_assert!(counts.iter().flatten().all(|n| (least..=most).contains(n)), "{:?}", counts);
        }

        #[test]
        fn blocks_are_spread_over_all_rounds(rounds in 1u32..40, blocks in 1u32..40) {
            let blocks = blocks.min(rounds);
            let taken: Vec<u32> = (0..rounds).filter(|r| takes_part(*r, rounds, blocks)).collect();
            prop_assert_eq!(taken.len() as u32, blocks);
            let gaps = taken.windows(2).map(|w| w[1] - w[0]);
            prop_assert!(gaps.clone().all(|g| g <= rounds.div_ceil(blocks)));
        }
    }

    #[test]
    fn orders_are_random_and_a_period_finds_no_hold() {
        // of two cases each comes first in half of ten rounds, in ever other orders
        let firsts = |seed| turns(seed, 2, 10).iter().map(|t| t[0]).collect::<Vec<_>>();
        let different: std::collections::BTreeSet<_> = (0..200).map(firsts).collect();
        assert!(different.len() > 20, "{} orders", different.len());
        assert!(different.iter().all(|f| f.iter().sum::<usize>() == 5));
        // a disturbance of every fourth turn falls on both alike, over many runs
        let hit = |seed| {
            let all: Vec<usize> = turns(seed, 2, 10).concat();
            all.iter().step_by(4).map(|s| 2 * *s as i64 - 1).sum::<i64>()
        };
        let sum: i64 = (0..1000).map(hit).sum();
        assert!(sum.abs() < 300, "{sum} of 5000 turns");
        assert!(turns(1, 0, 3).iter().all(Vec::is_empty));
    }

    /// Share of interleaved groups of so many like cases in which the speed-up of the second over the first is told
    /// apart from 1, where every `period`-th turn is slowed down by a tenth.
    fn false_alarms(cases: usize, period: usize, order: impl Fn(u64) -> Vec<Vec<usize>>) -> f64 {
        let mut alarms = 0;
        for seed in 0..1000 {
            let mut random = Random(!seed);
            let mut noise = || 1.0 + 0.01 * (random.next() as f64 / u64::MAX as f64 - 0.5);
            let phase = seed as usize % period;
            let mut blocks = vec![Vec::new(); cases];
            for (turn, entry) in order(seed).into_iter().flatten().enumerate() {
                blocks[entry].push(noise() * if turn % period == phase { 1.1 } else { 1.0 });
            }
            let ratios: Vec<f64> = blocks[0].iter().zip(&blocks[1]).map(|(base, own)| base / own).collect();
            let (lower, upper) = ergometer_reports::stats::quantile::median(&ratios).unwrap().interval.unwrap();
            alarms += u32::from(lower > 1.0 || upper < 1.0);
        }
        f64::from(alarms) / 1000.0
    }

    #[test]
    fn a_disturbance_with_a_period_raises_no_more_false_alarms_than_chance() {
        for cases in [2, 3, 4, 6] {
            for period in [2, 3, 4, 5, 6, 8, 12] {
                let share = false_alarms(cases, period, |seed| turns(seed, cases, 10));
                assert!(share <= 0.065, "{cases} cases, every {period}th turn: {share}");
            }
        }
        // what a fixed order does
        let share = false_alarms(2, 2, |_| vec![vec![0, 1]; 10]);
        assert!(share > 0.9, "{share}");
    }
}
