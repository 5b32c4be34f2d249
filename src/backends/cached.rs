//! Language models as exported files: what the engines that run such files have in common.
//!
//! In: feeds, and something that runs the file once ([`CacheRunner`]). Out: a [`LanguageEngine`]. Must not: know a library, or copy a cache between two
//! calls of the same sequences.
//!
//! The file takes caches and gives them back with the call's keys and values at their end. Sequences that were fed together stay together: their
//! caches are rows of one value, filled up at the front where they are of unlike length, and the value that a call gives is the next call's
//! input as it is. Only when other sequences are fed together than before are their caches copied into new values. Feeds of one call with
//! as many tokens each run as one batch, where the engine takes batches; others run one after the other. Long feeds run in pieces, because scores take memory
//! by the square of their length.

use std::collections::BTreeMap;

use super::language::{Feed, LanguageEngine, WantedLogits, check};
use super::{BackendError, Facts};
use crate::models::language::LanguageModel;

/// Most tokens of one run, over all rows.
const PIECE: usize = 512;
/// Most logits of one run.
const MOST_LOGITS: usize = 1 << 26;

/// One run of the file.
pub(super) struct FileCall {
    /// Sequences.
    pub rows: usize,
    /// Tokens of each, `[rows, tokens]`.
    pub ids: Vec<i64>,
    /// Their positions, `[rows, tokens]`.
    pub positions: Vec<i64>,
    /// Which places of the caches hold something, with the call's own, `[rows, past + tokens]`.
    pub mask: Vec<i64>,
    /// Rows of `[rows · tokens]` that have logits.
    pub at: Vec<i64>,
}

impl FileCall {
    /// Tokens of each sequence.
    pub fn tokens(&self) -> usize {
        self.ids.len() / self.rows
    }
}

/// Something that runs an exported decoder whose rows of logits are asked for.
pub(super) trait CacheRunner {
    /// Keys or values of a layer, `[rows, key heads, tokens, head size]`.
    type Cache;
    /// Whether a call may have several rows.
    fn batches(&self) -> bool;
    /// A cache of this shape with these elements.
    ///
    /// # Errors
    /// The library said so.
    fn cache(&self, shape: [usize; 4], data: Vec<f32>) -> Result<Self::Cache, BackendError>;
    /// The elements of a cache.
    ///
    /// # Errors
    /// It is not of f32.
    fn elements<'a>(&self, cache: &'a Self::Cache) -> Result<&'a [f32], BackendError>;
    /// Runs the file; puts the logits `[at, vocabulary]` after those there. Gives the new caches, layer by layer, keys before values.
    ///
    /// # Errors
    /// The library said so, or gave something else.
    fn run(
        &mut self,
        call: &FileCall,
        caches: &[Self::Cache],
        logits: &mut Vec<f32>,
    ) -> Result<Vec<Self::Cache>, BackendError>;
    /// Bytes of weights held, as far as the library tells.
    fn weight_bytes(&self) -> u64;
}

/// Sequences whose caches are rows of the same values.
struct Together<C> {
    /// By row; none: it was cleared, or went on in other company.
    slots: Vec<Option<usize>>,
    /// Places at the front of each row that hold nothing.
    empty: Vec<usize>,
    /// Places of each row.
    places: usize,
    /// Layer by layer, keys before values.
    caches: Vec<C>,
}

/// See the module.
pub(super) struct FileLanguage<R: CacheRunner> {
    runner: R,
    /// Heads and head size of each cache.
    sizes: Vec<(usize, usize)>,
    context: usize,
    vocabulary: usize,
    past: Vec<usize>,
    groups: Vec<Together<R::Cache>>,
    logits: Vec<f32>,
}

impl<R: CacheRunner> FileLanguage<R> {
    /// Room for so many sequences of a model that `runner` has loaded.
    pub(super) fn new(model: &LanguageModel, slots: usize, runner: R) -> Self {
        Self {
            runner,
            sizes: model.graph.attention_sizes().flat_map(|size| [size; 2]).collect(),
            context: model.context,
            vocabulary: model.config().vocabulary,
            past: vec![0; slots],
            groups: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Where a slot's cache lies.
    fn place(&self, slot: usize) -> Option<(&Together<R::Cache>, usize)> {
        self.groups.iter().find_map(|g| g.slots.iter().position(|s| *s == Some(slot)).map(|row| (g, row)))
    }

    /// Copies of the caches of these slots, as rows in this order.
    fn gather(&self, slots: &[usize]) -> Result<Together<R::Cache>, BackendError> {
        let places = slots.iter().map(|&slot| self.past[slot]).max().unwrap_or(0);
        let empty: Vec<usize> = slots.iter().map(|&slot| places - self.past[slot]).collect();
        let mut caches = Vec::with_capacity(self.sizes.len());
        for (i, &(heads, dim)) in self.sizes.iter().enumerate() {
            let mut data = Vec::with_capacity(slots.len() * heads * places * dim);
            for (&slot, &empty) in slots.iter().zip(&empty) {
                let from = self.place(slot).map(|(group, row)| (group, row, &group.caches[i]));
                for head in 0..heads {
                    data.resize(data.len() + empty * dim, 0.0);
                    if let Some((group, row, cache)) = from {
                        let all = self.runner.elements(cache)?;
                        let first = (row * heads + head) * group.places;
                        data.extend_from_slice(&all[(first + group.empty[row]) * dim..(first + group.places) * dim]);
                    }
                }
            }
            caches.push(self.runner.cache([slots.len(), heads, places, dim], data)?);
        }
        Ok(Together { slots: slots.iter().map(|&slot| Some(slot)).collect(), empty, places, caches })
    }

    /// Leaves the rows of these slots to nobody.
    fn release(&mut self, slots: &[usize]) {
        for group in &mut self.groups {
            for slot in &mut group.slots {
                *slot = slot.filter(|slot| !slots.contains(slot));
            }
        }
        self.groups.retain(|group| group.slots.iter().any(Option::is_some));
    }

    /// The group that holds these slots and no other; made if there is none.
    fn together(&mut self, slots: &[usize]) -> Result<usize, BackendError> {
        let same = |group: &Together<R::Cache>| group.slots.iter().copied().eq(slots.iter().map(|&slot| Some(slot)));
        if let Some(known) = self.groups.iter().position(same) {
            return Ok(known);
        }
        let made = self.gather(slots)?;
        self.release(slots);
        self.groups.push(made);
        Ok(self.groups.len() - 1)
    }

    /// Feeds sequences as many tokens each; gives the logits of each that are wanted.
    fn run(&mut self, feeds: &[Feed], wanted: WantedLogits) -> Result<Vec<Vec<f32>>, BackendError> {
        let slots: Vec<usize> = feeds.iter().map(|feed| feed.slot).collect();
        let (rows, all) = (feeds.len(), feeds[0].tokens.len());
        let group = self.together(&slots)?;
        let most = match wanted {
            WantedLogits::Last => PIECE,
            WantedLogits::All => PIECE.min(MOST_LOGITS / self.vocabulary.max(1)),
        };
        let piece = (most / rows).max(1);
        let mut each = vec![Vec::new(); rows];
        for first in (0..all).step_by(piece) {
            let end = all.min(first + piece);
            let n = end - first;
            let last = end == all;
            let group = &mut self.groups[group];
            let at: Vec<usize> = match wanted {
                WantedLogits::All => (0..rows * n).collect(),
                WantedLogits::Last if last => (1..=rows).map(|row| row * n - 1).collect(),
                // nobody reads it: a file of no answer is not every library's
                WantedLogits::Last => vec![0],
            };
            let whole = |n: usize| n as i64;
            let call = FileCall {
                rows,
                ids: feeds.iter().flat_map(|f| &f.tokens[first..end]).map(|&id| i64::from(id)).collect(),
                positions: slots.iter().flat_map(|&slot| (self.past[slot]..self.past[slot] + n).map(whole)).collect(),
                mask: (group.empty.iter())
                    .flat_map(|&empty| (0..group.places + n).map(move |place| i64::from(place >= empty)))
                    .collect(),
                at: at.into_iter().map(whole).collect(),
            };
            let mut logits = Vec::new();
            group.caches = self.runner.run(&call, &group.caches, &mut logits)?;
            group.places += n;
            slots.iter().for_each(|&slot| self.past[slot] += n);
            if logits.len() != call.at.len() * self.vocabulary || group.caches.len() != self.sizes.len() {
                return Err(BackendError::Failed("the file gave results of other shapes than the model's".into()));
            }
            if wanted == WantedLogits::Last && !last {
                continue;
            }
            match each.as_mut_slice() {
                [only] if only.is_empty() => *only = logits,
                _ => {
                    let per_row = logits.len() / rows;
                    each.iter_mut().zip(logits.chunks_exact(per_row)).for_each(|(to, part)| to.extend_from_slice(part));
                }
            }
        }
        Ok(each)
    }
}

impl<R: CacheRunner> LanguageEngine for FileLanguage<R> {
    fn facts(&self) -> Facts {
        let of_place: usize = self.sizes.iter().map(|(heads, dim)| 4 * heads * dim).sum();
        let held: usize = self.groups.iter().map(|group| group.slots.len() * group.places * of_place).sum();
        Facts { weight_bytes: self.runner.weight_bytes(), state_bytes: held as u64 }
    }

    fn slots(&self) -> usize {
        self.past.len()
    }

    fn context(&self) -> usize {
        self.context
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn past(&self, slot: usize) -> usize {
        self.past[slot]
    }

    fn clear(&mut self, slot: usize) {
        self.release(&[slot]);
        self.past[slot] = 0;
    }

    fn feed(&mut self, feeds: &[Feed], wanted: WantedLogits) -> Result<(), BackendError> {
        check(self, feeds)?;
        // places in `feeds`, of what runs together
        let mut batches: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (i, feed) in feeds.iter().enumerate() {
            let alone = if self.runner.batches() { 0 } else { i };
            batches.entry((feed.tokens.len(), alone)).or_default().push(i);
        }
        let mut each = vec![Vec::new(); feeds.len()];
        for places in batches.into_values() {
            let batch: Vec<Feed> = places.iter().map(|&i| feeds[i]).collect();
            for (i, logits) in places.into_iter().zip(self.run(&batch, wanted)?) {
                each[i] = logits;
            }
        }
        self.logits = if each.len() == 1 { each.swap_remove(0) } else { each.concat() };
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn number_bytes(&self) -> Option<f64> {
        Some(4.0)
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        if from == to {
            return Ok(());
        }
        self.clear(to);
        if self.past[from] > 0 {
            let mut made = self.gather(&[from])?;
            made.slots = vec![Some(to)];
            self.groups.push(made);
            self.past[to] = self.past[from];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
