//! The keys and values of a sequence, which grow token by token. In: rows of new tokens. Out: memory laid out as
//! attention reads it: keys in panels of 16 tokens (for each place in the head the 16 tokens' numbers), values row by
//! row, padded to 16 numbers; f32 or bf16.

use crate::matrix::{Aligned, floats_mut, halves_mut};
use crate::number_format::{NumberFormat, round_bf16};

/// Tokens of a panel of keys, and the multiple to which rows of values are padded.
pub(super) const PANEL: usize = 16;

/// Tokens that the first memory is for.
const FIRST: usize = 64;

/// Keys and values of one sequence and one layer.
#[derive(Clone)]
pub struct KvCache {
    kv_heads: usize,
    head_dim: usize,
    /// Tokens that may come.
    most: usize,
    /// Tokens that there is memory for.
    capacity: usize,
    len: usize,
    bf16: bool,
    /// head, panel, place, token
    pub(super) keys: Aligned,
    /// head, token, place
    pub(super) values: Aligned,
}

impl KvCache {
    /// An empty cache for at most `most` tokens of `kv_heads` heads of `head_dim` numbers, in bf16 for every format but
    /// f32. Its memory doubles as tokens come, up to what [`KvCache::bytes_for`] says, and stays.
    pub fn new(kv_heads: usize, head_dim: usize, most: usize, format: NumberFormat) -> KvCache {
        let (keys, values) = (Aligned::default(), Aligned::default());
        KvCache { kv_heads, head_dim, most, capacity: 0, len: 0, bf16: format != NumberFormat::F32, keys, values }
    }

    /// Bytes that a cache with memory for so many tokens holds.
    pub fn bytes_for(kv_heads: usize, head_dim: usize, tokens: usize, format: NumberFormat) -> usize {
        let (keys, values) = words(kv_heads, head_dim, tokens, format != NumberFormat::F32);
        4 * (keys + values)
    }

    /// Adds tokens: `keys` and `values: [tokens, kv_heads · head_dim]`, keys rotated already where the model does that.
    ///
    /// # Panics
    /// If a length does not fit, or the cache would hold more than it may.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        assert!(width > 0 && keys.len().is_multiple_of(width), "KvCache: keys are not whole rows of {width}");
        assert_eq!(keys.len(), values.len(), "KvCache: as many keys as values");
        let tokens = keys.len() / width;
        self.reserve(tokens);
        for (i, (keys, values)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
            for head in 0..self.kv_heads {
                let own = head * self.head_dim..(head + 1) * self.head_dim;
                let (key, value) = (self.key(head, self.len + i), self.value(head, self.len + i));
                write(&mut self.keys, self.bf16, key, PANEL, &keys[own.clone()]);
                write(&mut self.values, self.bf16, value, 1, &values[own]);
            }
        }
        self.len += tokens;
    }

    /// The lines that a new token's key and value will be written to, and the first of the keys: of key head `head`, to be asked
    /// for before they are needed. Bytes from where each stretch begins.
    pub(crate) fn soon(&self, head: usize) -> [(*const u8, usize); 3] {
        /// Bytes of keys before those that attention itself asks for.
        const FIRST: usize = 16 << 10;
        let size = if self.bf16 { 2 } else { 4 };
        let at = |words: &Aligned, number: usize| words.start().cast::<u8>().wrapping_add(number * size);
        let panel = self.head_dim * PANEL * size;
        [
            (at(&self.keys, self.key(head, self.len / PANEL * PANEL)), panel),
            (at(&self.values, self.value(head, self.len)), self.padded() * size),
            (at(&self.keys, self.key(head, 0)), FIRST.min(self.len / PANEL * panel)),
        ]
    }

    /// Memory for so many more tokens.
    pub(crate) fn reserve(&mut self, tokens: usize) {
        assert!(tokens <= self.most - self.len, "KvCache: {tokens} tokens more than {} of {}", self.len, self.most);
        let needed = self.len + tokens;
        if needed <= self.capacity {
            return;
        }
        let capacity = needed.max(2 * self.capacity).next_multiple_of(FIRST).min(self.most);
        let (keys, values) = words(self.kv_heads, self.head_dim, capacity, self.bf16);
        let (mut keys, mut values) = (Aligned::zeros(keys), Aligned::zeros(values));
        // each head's numbers begin elsewhere in larger memory
        let per = if self.bf16 { 2 } else { 1 };
        let (panels, panel) = (self.capacity.div_ceil(PANEL), self.head_dim * PANEL / per);
        let (row, used) = (self.padded() / per, self.len.div_ceil(PANEL) * panel);
        for head in 0..self.kv_heads {
            let (from, to) = (head * panels * panel, head * capacity.div_ceil(PANEL) * panel);
            keys[to..to + used].copy_from_slice(&self.keys[from..from + used]);
            let (from, to, used) = (head * self.capacity * row, head * capacity * row, self.len * row);
            values[to..to + used].copy_from_slice(&self.values[from..from + used]);
        }
        (self.keys, self.values, self.capacity) = (keys, values, capacity);
    }

    /// So many more tokens have been written.
    pub(crate) fn grow(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Forgets the tokens from `len` on; 0 empties the cache for another sequence.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that may be in it.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Numbers in a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes in which a number is kept.
    pub fn number_bytes(&self) -> usize {
        if self.bf16 { 2 } else { 4 }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.keys) + size_of_val(&*self.values)
    }

    pub(super) fn is_bf16(&self) -> bool {
        self.bf16
    }

    /// Numbers of a padded row of values.
    pub(super) fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(PANEL)
    }

    /// Where the key of a token begins, in numbers; the next of its numbers is `PANEL` further.
    pub(super) fn key(&self, head: usize, token: usize) -> usize {
        (head * self.capacity.div_ceil(PANEL) + token / PANEL) * self.head_dim * PANEL + token % PANEL
    }

    /// Where the value of a token begins, in numbers.
    pub(super) fn value(&self, head: usize, token: usize) -> usize {
        (head * self.capacity + token) * self.padded()
    }

    /// A number of `keys` or `values`.
    pub(super) fn number(&self, words: &[u32], at: usize) -> f32 {
        if self.bf16 { f32::from_bits(words[at / 2] >> (16 * (at % 2)) << 16) } else { f32::from_bits(words[at]) }
    }
}

/// Words of the keys and of the values.
fn words(kv_heads: usize, head_dim: usize, capacity: usize, bf16: bool) -> (usize, usize) {
    let keys = kv_heads * capacity.next_multiple_of(PANEL) * head_dim;
    let values = kv_heads * capacity * head_dim.next_multiple_of(PANEL);
    if bf16 { (keys / 2, values / 2) } else { (keys, values) }
}

/// Writes `x` from number `at` on, `step` apart.
fn write(words: &mut [u32], bf16: bool, at: usize, step: usize, x: &[f32]) {
    if bf16 {
        let to = halves_mut(words)[at..].iter_mut().step_by(step);
        to.zip(x).for_each(|(to, x)| *to = (round_bf16(*x).to_bits() >> 16) as u16);
    } else {
        floats_mut(words)[at..].iter_mut().step_by(step).zip(x).for_each(|(to, x)| *to = *x);
    }
}
