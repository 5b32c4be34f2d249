//! What happens to queries, keys and values between their joined product and attention. In: joined rows of new tokens. Out:
//! queries, normed and turned; keys, likewise, and values in the caches of their sequences. Must not: change a token that was
//! there before.

use super::cache::{KvCache, PANEL};
use crate::context::Context;
use crate::isa::Proof;
use crate::matrix::{floats_mut, scratch};
use crate::norm::rms_row;
use crate::number_format::round_bf16;
use crate::pool::SendPtr;
use crate::vector::{Simd, dispatch};

/// How heads turn, row by row (rotary position embedding).
#[derive(Clone, Copy)]
pub struct HeadTurns<'a> {
    /// Cosine of each pair's angle, `[rows, pairs]`.
    pub cos: &'a [f32],
    /// Sine of each pair's angle, `[rows, pairs]`.
    pub sin: &'a [f32],
    /// Pairs of a head; features beyond twice as many stay.
    pub pairs: usize,
    /// The features of a pair are neighbours, instead of `i` and `i + pairs`.
    pub interleaved: bool,
}

/// Norms of each head by the root of its mean square.
#[derive(Clone, Copy)]
pub struct HeadGains<'a> {
    /// Gain of queries, `[head_dim]`.
    pub q: &'a [f32],
    /// Gain of keys, `[head_dim]`.
    pub k: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// The cache of a sequence, and how many tokens are new.
pub struct NewTokens<'a> {
    /// The sequence's cache.
    pub cache: &'a mut KvCache,
    /// How many there are.
    pub tokens: usize,
}

dispatch! {
    fn turn(head: &mut [f32], turns: HeadTurns<'_>, row: usize) { turned | turned_by_vectors }
}

/// Where the keys and values of a token go, in a cache that has room for it.
pub(crate) struct TokenPlace {
    keys: SendPtr<u32>,
    values: SendPtr<u32>,
    bf16: bool,
    /// Of the first key head: its key and its value, in numbers.
    first: (usize, usize),
    /// From one key head to the next.
    step: (usize, usize),
}

impl TokenPlace {
    /// Of token `token`.
    pub(crate) fn new(cache: &mut KvCache, token: usize) -> TokenPlace {
        let step = (cache.key(1, 0) - cache.key(0, 0), cache.value(1, 0) - cache.value(0, 0));
        let first = (cache.key(0, token), cache.value(0, token));
        let bf16 = cache.is_bf16();
        TokenPlace {
            keys: SendPtr(cache.keys.as_mut_ptr()),
            values: SendPtr(cache.values.as_mut_ptr()),
            bf16,
            first,
            step,
        }
    }

    /// Writes key and value of key head `h`.
    ///
    /// # Safety
    /// Nobody else touches that head's numbers of the token, and the cache is borrowed.
    pub(crate) unsafe fn put(&self, h: usize, key: &[f32], value: &[f32]) {
        // SAFETY: the caller's promise; the cache has room.
        unsafe {
            put(&self.keys, self.bf16, self.first.0 + h * self.step.0, PANEL, key);
            put(&self.values, self.bf16, self.first.1 + h * self.step.1, 1, value);
        }
    }
}

/// Norms a head by its gain and turns it by the angles of a row, where there are any.
pub(crate) fn make_head(
    proof: Proof,
    head: &mut [f32],
    gain: Option<(&[f32], f32)>,
    turns: Option<(HeadTurns<'_>, usize)>,
) {
    if let Some((gain, eps)) = gain {
        rms_row(proof, head, None, Some(gain), eps);
    }
    if let Some((turns, row)) = turns {
        turn(proof, head, turns, row);
    }
}

/// Takes rows of queries, keys and values, `joined: [all new tokens, (heads + 2 · kv_heads) · head_dim]`, sequence after
/// sequence: norms and turns each head of the queries and of the keys, writes the queries to `q: [all new tokens, heads ·
/// head_dim]`, and appends keys and values to the caches.
///
/// # Panics
/// If a length does not fit, caches differ in their heads, or one would hold more than it may.
pub fn cached_append(
    ctx: &Context,
    joined: &[f32],
    gains: Option<HeadGains<'_>>,
    turns: Option<HeadTurns<'_>>,
    sequences: &mut [NewTokens<'_>],
    q: &mut [f32],
) {
    let Some(first) = sequences.first() else { return };
    let (kv, d) = (first.cache.kv_heads(), first.cache.head_dim());
    let rows: usize = sequences.iter().map(|s| s.tokens).sum();
    let (wide, queries) = (joined.len().checked_div(rows).unwrap_or(0), q.len().checked_div(rows).unwrap_or(0));
    assert!(
        joined.len() == rows * wide && q.len() == rows * queries && wide == queries + 2 * kv * d,
        "cached_append: {} joined values and {} of queries are no {rows} rows of {kv} key heads of {d}",
        joined.len(),
        q.len()
    );
    assert!(queries.is_multiple_of(d.max(1)), "cached_append: queries are not whole heads");
    if let Some(turns) = turns {
        assert!(2 * turns.pairs <= d, "cached_append: {} pairs in heads of {d}", turns.pairs);
        let wanted = rows * turns.pairs;
        assert!(turns.cos.len() == wanted && turns.sin.len() == wanted, "cached_append: turns are not [{rows}, pairs]");
    }
    if let Some(gains) = gains {
        assert!(gains.q.len() == d && gains.k.len() == d, "cached_append: gains are not [{d}]");
    }
    // where each sequence begins: its first row, and its place
    let mut places = Vec::with_capacity(sequences.len());
    let mut before = 0;
    for s in sequences.iter_mut() {
        assert!(s.cache.kv_heads() == kv && s.cache.head_dim() == d, "cached_append: caches differ in heads");
        s.cache.reserve(s.tokens);
        let len = s.cache.len();
        places.push((before, len, TokenPlace::new(s.cache, 0)));
        before += s.tokens;
    }
    let key_of = |token: usize| token / PANEL * d * PANEL + token % PANEL;
    let padded = d.next_multiple_of(PANEL);
    let out = SendPtr(q.as_mut_ptr());
    let chunk = ctx.chunk(rows, 2 * joined.len());
    ctx.pool().run_on(rows.div_ceil(chunk.max(1)), rows.div_ceil(chunk.max(1)), &|part| {
        let mut at = places.partition_point(|(first, ..)| *first <= part * chunk).saturating_sub(1);
        for row in part * chunk..rows.min((part + 1) * chunk) {
            while at + 1 < places.len() && places[at + 1].0 <= row {
                at += 1;
            }
            let (first, len, place) = &places[at];
            let token = len + row - first;
            let place = TokenPlace {
                keys: SendPtr(place.keys.get()),
                values: SendPtr(place.values.get()),
                first: (key_of(token), token * padded),
                ..*place
            };
            // SAFETY: rows of `q` do not overlap, and it is borrowed until `run_on` returns.
            let q = unsafe { std::slice::from_raw_parts_mut(out.get().add(row * queries), queries) };
            one(ctx.proof(), &joined[row * wide..(row + 1) * wide], (kv, d), gains, turns.map(|t| (t, row)), &place, q);
        }
    });
    sequences.iter_mut().for_each(|s| s.cache.grow(s.tokens));
}

/// One row.
fn one(
    proof: Proof,
    joined: &[f32],
    (kv, d): (usize, usize),
    gains: Option<HeadGains<'_>>,
    turns: Option<(HeadTurns<'_>, usize)>,
    place: &TokenPlace,
    q: &mut [f32],
) {
    q.copy_from_slice(&joined[..q.len()]);
    q.chunks_exact_mut(d).for_each(|head| make_head(proof, head, gains.map(|g| (g.q, g.eps)), turns));
    let (keys, values) = joined[q.len()..].split_at(kv * d);
    for (h, (key, value)) in keys.chunks_exact(d).zip(values.chunks_exact(d)).enumerate() {
        scratch(d, |memory| {
            let head = floats_mut(memory);
            head.copy_from_slice(key);
            make_head(proof, head, gains.map(|g| (g.k, g.eps)), turns);
            // SAFETY: `reserve` made room for this token, whose numbers are nobody else's, and the caches are borrowed.
            unsafe { place.put(h, head, value) };
        });
    }
}

/// Writes numbers from number `at` on, `step` apart.
///
/// # Safety
/// They are within the words, and nobody else touches them.
unsafe fn put(words: &SendPtr<u32>, bf16: bool, at: usize, step: usize, x: &[f32]) {
    // SAFETY: the caller's promise; halves of a word are written apart.
    unsafe {
        if bf16 {
            let to = words.get().cast::<u16>().add(at);
            for (i, x) in x.iter().enumerate() {
                *to.add(i * step) = (round_bf16(*x).to_bits() >> 16) as u16;
            }
        } else {
            let to = words.get().cast::<f32>().add(at);
            for (i, x) in x.iter().enumerate() {
                *to.add(i * step) = *x;
            }
        }
    }
}

/// Turns a head by the angles of a row.
#[inline(always)]
fn turned(head: &mut [f32], turns: HeadTurns<'_>, row: usize) {
    let own = row * turns.pairs..(row + 1) * turns.pairs;
    let (cos, sin) = (&turns.cos[own.clone()], &turns.sin[own]);
    if turns.interleaved {
        for i in 0..turns.pairs {
            let (x, y) = (head[2 * i], head[2 * i + 1]);
            head[2 * i] = x * cos[i] - y * sin[i];
            head[2 * i + 1] = y * cos[i] + x * sin[i];
        }
    } else {
        let (first, second) = head.split_at_mut(turns.pairs);
        let second = &mut second[..turns.pairs];
        for i in 0..turns.pairs {
            let (x, y) = (first[i], second[i]);
            first[i] = x * cos[i] - y * sin[i];
            second[i] = y * cos[i] + x * sin[i];
        }
    }
}

/// The same operations, compiled for the instruction set.
#[inline(always)]
fn turned_by_vectors<S: Simd>(_: S, head: &mut [f32], turns: HeadTurns<'_>, row: usize) {
    turned(head, turns, row);
}
