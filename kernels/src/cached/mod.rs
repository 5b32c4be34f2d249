//! Attention of new tokens over a cache of keys and values, for generation. In: queries, caches to which the new tokens'
//! keys and values were appended. Out: one row of all heads per new token. Must not: change a cache.
//!
//! Work is cut into tiles: some rows (a query head of a new token) that share a key head. A tile's scores are made 16
//! keys at a time, then each row's softmax, then the sums of values. What a row sees decides its own order of operations
//! alone, so its result has the same bits alone, in a batch, and whether its tokens come one by one or many at once.

mod cache;
mod joined;
mod scalar;
#[cfg(test)]
mod tests;
mod vector;

pub use cache::KvCache;
pub use joined::{HeadGains, HeadTurns, NewTokens, cached_append};
pub(crate) use joined::{TokenPlace, make_head};

use std::ops::Range;

use crate::context::Context;
use crate::isa::Isa;
use crate::matrix::scratch;
use crate::pool::SendPtr;
use crate::vector::dispatch;

/// New tokens of one sequence.
#[derive(Clone, Copy)]
pub struct CachedTokens<'a> {
    /// The sequence's cache, which ends with their keys and values.
    pub cache: &'a KvCache,
    /// How many there are.
    pub tokens: usize,
}

/// How scores become weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CachedScores {
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Scores become `cap · tanh(score / cap)`, as in Gemma 2 (arXiv 2408.00118).
    pub soft_cap: Option<f32>,
    /// Only keys less than this far from the query, itself included.
    pub window: Option<usize>,
}

/// Rows of one key head: row `i` is query head `i % group` (of the key head's group) of new token `i / group`.
#[derive(Clone, Copy)]
pub(crate) struct CachedTile {
    pub(crate) kv_head: usize,
    /// the key head that the thread reads next, if it is one
    pub(crate) next_head: usize,
    pub(crate) group: usize,
    pub(crate) rows: (usize, usize),
    /// new tokens of the sequences before this one
    pub(crate) before: usize,
    /// tokens of this sequence that were in the cache before
    pub(crate) past: usize,
    pub(crate) scores: CachedScores,
}

impl CachedTile {
    fn len(&self) -> usize {
        self.rows.1 - self.rows.0
    }

    /// Where the tile's row `r` is in queries and outputs, in heads.
    fn at(&self, cache: &KvCache, r: usize) -> usize {
        let i = self.rows.0 + r;
        ((self.before + i / self.group) * cache.kv_heads() + self.kv_head) * self.group + i % self.group
    }

    /// The keys that row `r` sees.
    fn keys(&self, r: usize) -> Range<usize> {
        let end = self.past + (self.rows.0 + r) / self.group + 1;
        end.saturating_sub(self.scores.window.unwrap_or(end))..end
    }
}

dispatch! {
    pub(crate) fn attend(tile: CachedTile, cache: &KvCache, q: &[f32], out: &SendPtr<f32>, memory: &mut [u32]) {
        scalar::attend | vector::attend
    }
}

/// For each new token and query head `out = Σ_j softmax_j(score(q · k[j])) v[j]` over the keys of its sequence up to its
/// own that `scores` lets it see (a window of 0: zeros). `q: [all new tokens, heads · head_dim]`, sequence after sequence,
/// rotated already where the model does that; `out` likewise. Query head h reads key head `h / (heads / kv_heads)`.
/// Sums are f32; keys and values of a cache in bf16 are rounded, weights are not.
///
/// # Panics
/// If a length does not fit, caches differ in their heads, `heads` is not a multiple of theirs, or a cache has fewer
/// tokens than are new.
pub fn cached_attention(
    ctx: &Context,
    q: &[f32],
    sequences: &[CachedTokens<'_>],
    heads: usize,
    scores: CachedScores,
    out: &mut [f32],
) {
    let Some(cache) = sequences.first().map(|s| s.cache) else { return };
    let (kv_heads, dim) = (cache.kv_heads(), cache.head_dim());
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "cached_attention: {heads} query heads for {kv_heads} key heads"
    );
    let group = heads / kv_heads;
    let mut tokens = 0;
    let mut work = 0;
    for s in sequences {
        assert!(
            s.cache.kv_heads() == kv_heads && s.cache.head_dim() == dim,
            "cached_attention: caches differ in heads"
        );
        assert!(s.cache.len() >= s.tokens, "cached_attention: a cache of {} tokens, {} new", s.cache.len(), s.tokens);
        tokens += s.tokens;
        let seen = s.cache.len().min(scores.window.unwrap_or(usize::MAX));
        work += s.tokens * heads * dim * seen / PER_VALUE;
    }
    assert_eq!(q.len(), tokens * heads * dim, "cached_attention: queries are not [{tokens}, {heads} · {dim}]");
    assert_eq!(out.len(), q.len(), "cached_attention: output is not [{tokens}, {heads} · {dim}]");
    if out.is_empty() {
        return;
    }
    let threads = ctx.parts(work);
    // whole groups share what they read; where that leaves threads without work, parts of groups do
    let most = if kv_heads * sequences.len() >= 4 * threads { TILE } else { TILE.min(group.div_ceil(threads)) };
    let most = if tokens > sequences.len() { TILE } else { most };
    let start = SendPtr(out.as_mut_ptr());
    ctx.pool().run_on(threads, threads, &|thread| {
        let (mut before, mut index) = (0, 0);
        for s in sequences {
            let past = s.cache.len() - s.tokens;
            for kv_head in 0..kv_heads {
                for first in (0..s.tokens * group).step_by(most) {
                    // in turn, since later tokens see more keys
                    let own = index % threads == thread;
                    index += 1;
                    if own {
                        let rows = (first, (first + most).min(s.tokens * group));
                        let tile =
                            CachedTile { kv_head, next_head: kv_head + threads, group, rows, before, past, scores };
                        scratch(memory(ctx.isa(), &tile, dim), |memory| {
                            attend(ctx.proof(), tile, s.cache, q, &start, memory);
                        });
                    }
                }
            }
            before += s.tokens;
        }
    });
}

/// Most rows of a tile.
pub(crate) const TILE: usize = 6;

/// Multiply-adds (of queries with keys) that cost as much as streaming over one value: each key is read, and its value.
const PER_VALUE: usize = 2;

/// Words of scratch memory for a tile: scores of whole panels, and sums of values.
pub(crate) fn memory(isa: Isa, tile: &CachedTile, dim: usize) -> usize {
    let keys = tile.keys(tile.len() - 1).end;
    match isa {
        Isa::Scalar => keys,
        _ => tile.len() * (keys.next_multiple_of(cache::PANEL) + dim.next_multiple_of(cache::PANEL)),
    }
}
