//! The scalar reference of attention over a cache: loops as the formula reads.

use super::CachedTile;
use super::cache::{KvCache, PANEL};
use crate::matrix::floats_mut;
use crate::pool::SendPtr;

/// `memory` has room for a weight per key.
pub(super) fn attend(tile: CachedTile, cache: &KvCache, q: &[f32], out: &SendPtr<f32>, memory: &mut [u32]) {
    let (dim, scores) = (cache.head_dim(), tile.scores);
    for r in 0..tile.len() {
        let at = tile.at(cache, r) * dim;
        let (query, keys) = (&q[at..at + dim], tile.keys(r));
        // SAFETY: `cached_attention` checked that `out` is as long as `q`, and no other thread has this row.
        let out = unsafe { std::slice::from_raw_parts_mut(out.get().add(at), dim) };
        let weights = &mut floats_mut(memory)[..keys.len()];
        for (j, weight) in keys.clone().zip(weights.iter_mut()) {
            let key = cache.key(tile.kv_head, j);
            let key = (0..dim).map(|d| cache.number(&cache.keys, key + d * PANEL));
            *weight = scores.scale * query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>();
            if let Some(cap) = scores.soft_cap {
                *weight = cap * (*weight / cap).tanh();
            }
        }
        let most = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        weights.iter_mut().for_each(|weight| *weight = (*weight - most).exp());
        let sum: f32 = weights.iter().sum();
        out.fill(0.0);
        for (j, weight) in keys.zip(weights) {
            let value = cache.value(tile.kv_head, j);
            let value = (0..dim).map(|d| cache.number(&cache.values, value + d));
            out.iter_mut().zip(value).for_each(|(out, v)| *out += *weight / sum * v);
        }
    }
}
