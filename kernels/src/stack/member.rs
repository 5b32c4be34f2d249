//! What one thread does of a step through all layers. In: the step, and which thread of how many it is. Out: its columns, its heads.

use super::{Held, RowNorm, StackHead, StackLayer};
use crate::activation::{ActivationKind, gate_slice, silu_slice};
use crate::blocks::activations::{RECORD, record_at};
use crate::blocks::format::BLOCK;
use crate::blocks::pack::PackedBlocks;
use crate::blocks::{product, quantise, share, share_begin};
use crate::cached::{CachedTile, TILE, attend, make_head, memory};
use crate::elementwise::add_slice;
use crate::isa::{Isa, Proof};
use crate::matrix::{MatMut, SharedWords, floats, floats_mut, scratch};
use crate::pool::SendPtr;
use crate::team::TeamMember;
use crate::vector::prefetch;

/// A step, as all its threads see it.
pub(super) struct StackStep<'a> {
    pub(super) proof: Proof,
    pub(super) isa: Isa,
    pub(super) layers: &'a [StackLayer<'a>],
    pub(super) caches: &'a [Vec<Held<'a>>],
    pub(super) head: &'a StackHead<'a>,
    pub(super) x: &'a [f32],
    pub(super) logits: SendPtr<f32>,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Key heads, and numbers in one.
    pub(super) heads: (usize, usize),
    /// What the threads make for each other, from these words on: queries, keys and values `[rows, ..]`; sums of the two products that
    /// are added to `x`, `[rows, width]`; records of what was attended; records of what gates made.
    pub(super) shared: SharedWords<'a>,
    pub(super) joined: usize,
    pub(super) sums: usize,
    pub(super) attended: usize,
    pub(super) made: usize,
}

/// What one thread has for itself.
struct Own<'m> {
    x: &'m mut [f32],
    /// Rows after a norm; what a gated product gives; heads.
    rows: &'m mut [f32],
    records: &'m mut [u32],
    queries: &'m mut [f32],
    attended: &'m mut [f32],
    /// Gates, values, and what they make, of a block of columns.
    gates: &'m mut [f32],
    scores: &'m mut [u32],
}

impl StackStep<'_> {
    /// The part of thread `i` of `n`.
    pub(super) fn run(&self, member: &TeamMember<'_>, i: usize, n: usize) {
        let (rows, width) = (self.rows, self.width);
        let queries = self.layers.iter().map(|l| l.output[0].k).max().unwrap_or(0);
        let scores = self.caches.iter().zip(self.layers).flat_map(|(caches, layer)| {
            caches.iter().map(|held| {
                let group = layer.output[0].k / (self.heads.0 * self.heads.1);
                memory(self.isa, &self.tile(layer, held, 0, (0, group.min(TILE)), (0, 1)), self.heads.1)
            })
        });
        let lengths = [
            rows * width,
            rows * width.max(self.heads.1),
            rows * (width / BLOCK) * RECORD,
            rows * queries,
            rows * queries,
            3 * rows * BLOCK,
            scores.max().unwrap_or(0),
        ];
        scratch(lengths.iter().sum(), |memory| {
            let mut rest = memory;
            let [x, normed, records, queries, attended, gates, scores] = lengths.map(|len| {
                let (own, more) = std::mem::take(&mut rest).split_at_mut(len);
                rest = more;
                own
            });
            let mut own = Own {
                x: floats_mut(x),
                rows: floats_mut(normed),
                records,
                queries: floats_mut(queries),
                attended: floats_mut(attended),
                gates: floats_mut(gates),
                scores,
            };
            own.x.copy_from_slice(self.x);
            for l in 0..self.layers.len() {
                self.layer(l, member, (i, n), &mut own);
            }
            self.norm(&self.head.norm, &mut own);
            // SAFETY: the logits are borrowed during the run, and their columns are each one thread's.
            unsafe {
                share(self.proof, own.records, self.head.head, (i, n), std::ptr::null(), self.logits.get(), rows);
            }
        });
    }

    fn layer(&self, l: usize, member: &TeamMember<'_>, who: (usize, usize), own: &mut Own<'_>) {
        let (layer, rows) = (&self.layers[l], self.rows);
        self.ask(l, who);
        self.norm(&layer.attention_norm, own);
        let then = share_begin(layer.output, who);
        // SAFETY: what is written has been read by all before they last met, and nobody else writes these columns.
        unsafe { share(self.proof, own.records, layer.qkv, who, then, self.start(self.joined), rows) };
        member.wait();

        self.attention(l, member, who, own);
        member.wait();

        let records = rows * (layer.output[0].k / BLOCK) * RECORD;
        // SAFETY: nobody writes them before all have met again.
        let records = unsafe { self.shared.read(self.attended, records) };
        let then = gates(layer.gate_up, 0).0.address(blocks_of(layer, who).0 * BLOCK);
        // SAFETY: as above.
        unsafe { share(self.proof, records, layer.output, who, then, self.start(self.sums), rows) };
        member.wait();

        self.add(layer.output_norm, own);
        self.norm(&layer.mlp_norm, own);
        self.gated(layer, who, own);
        member.wait();

        let records = rows * (layer.down[0].k / BLOCK) * RECORD;
        // SAFETY: nobody writes them before all have met again.
        let records = unsafe { self.shared.read(self.made, records) };
        let next = self.layers.get(l + 1).map_or(self.head.head, |next| next.qkv);
        // SAFETY: as above.
        unsafe { share(self.proof, records, layer.down, who, share_begin(next, who), self.start(self.sums), rows) };
        member.wait();
        self.add(layer.down_norm, own);
    }

    fn start(&self, at: usize) -> *mut f32 {
        self.shared.address(at).cast()
    }

    /// Rows of `x` after a norm, as records.
    fn norm(&self, norm: &RowNorm<'_>, own: &mut Own<'_>) {
        let rows = &mut own.rows[..own.x.len()];
        rows.copy_from_slice(own.x);
        rows.chunks_exact_mut(self.width).for_each(|row| norm.apply(self.proof, row));
        quantise(self.proof, self.isa, rows, self.width, own.records);
    }

    /// `x += after(sums)`
    fn add(&self, after: Option<RowNorm<'_>>, own: &mut Own<'_>) {
        // SAFETY: nobody writes them before all have met again.
        let sums = floats(unsafe { self.shared.read(self.sums, own.x.len()) });
        let Some(after) = after else { return add_slice(self.proof, own.x, sums) };
        for (x, sums) in own.x.chunks_exact_mut(self.width).zip(sums.chunks_exact(self.width)) {
            let row = &mut own.rows[..self.width];
            row.copy_from_slice(sums);
            after.apply(self.proof, row);
            add_slice(self.proof, x, row);
        }
    }

    /// Parts of key heads, and how many there are of each: whole heads, unless there are threads for more.
    fn parts(&self, layer: &StackLayer<'_>, n: usize) -> usize {
        let units = self.rows * self.heads.0;
        (n / units).clamp(1, layer.output[0].k / (self.heads.0 * self.heads.1))
    }

    fn tile(
        &self,
        layer: &StackLayer<'_>,
        held: &Held<'_>,
        row: usize,
        rows: (usize, usize),
        (kv_head, next_head): (usize, usize),
    ) -> CachedTile {
        let group = layer.output[0].k / (self.heads.0 * self.heads.1);
        CachedTile { kv_head, next_head, group, rows, before: row, past: held.past, scores: layer.scores }
    }

    /// Asks for what attention of a layer will read and write first, while the product before it is computed.
    fn ask(&self, l: usize, (i, n): (usize, usize)) {
        let (kv_heads, parts) = (self.heads.0, self.parts(&self.layers[l], n));
        for t in (i..self.rows * kv_heads * parts).step_by(n) {
            let (unit, first) = (t / parts, t == i);
            let [key, value, keys] = self.caches[l][unit / kv_heads].cache.soon(unit % kv_heads);
            let stretches = [key, value, if first { keys } else { (keys.0, 0) }];
            stretches.into_iter().for_each(|(from, bytes)| prefetch(from, bytes));
        }
    }

    /// Turns the queries and keys of a thread's heads, writes keys and values into the caches, attends, and rounds what came of it.
    fn attention(&self, l: usize, member: &TeamMember<'_>, (i, n): (usize, usize), own: &mut Own<'_>) {
        let (layer, (kv_heads, d)) = (&self.layers[l], self.heads);
        let queries = layer.output[0].k;
        let (group, wide) = (queries / (kv_heads * d), queries + 2 * kv_heads * d);
        let parts = self.parts(layer, n);
        // row, key head, and which of its query heads
        let task = |t: usize| {
            let (unit, part) = (t / parts, t % parts);
            (unit / kv_heads, unit % kv_heads, (group * part / parts, group * (part + 1) / parts))
        };
        let tasks = || (i..self.rows * kv_heads * parts).step_by(n).map(task);
        // SAFETY: nobody writes them before all have met again.
        let joined = floats(unsafe { self.shared.read(self.joined, self.rows * wide) });
        for (row, h, (from, to)) in tasks() {
            let turns = layer.turns.map(|turns| (turns, row));
            let (first, end) = ((h * group + from) * d, (h * group + to) * d);
            let heads = &mut own.queries[row * queries + first..row * queries + end];
            heads.copy_from_slice(&joined[row * wide + first..row * wide + end]);
            let gain = layer.head_gains.as_ref().map(|g| (g.q, g.eps));
            heads.chunks_exact_mut(d).for_each(|head| make_head(self.proof, head, gain, turns));
            if from == 0 {
                let (key, value) = (row * wide + queries + h * d, row * wide + queries + (kv_heads + h) * d);
                let head = &mut own.rows[..d];
                head.copy_from_slice(&joined[key..key + d]);
                let gain = layer.head_gains.as_ref().map(|g| (g.k, g.eps));
                make_head(self.proof, head, gain, turns);
                // SAFETY: the first part of a head of a row is one thread's alone; the caches are borrowed.
                unsafe { self.caches[l][row].place.put(h, head, &joined[value..value + d]) };
            }
        }
        if parts > 1 {
            // the others of a head read its new key
            member.wait();
        }
        let out = SendPtr(own.attended.as_mut_ptr());
        for (row, h, (from, to)) in tasks() {
            let held = &self.caches[l][row];
            for first in (from..to).step_by(TILE) {
                let tile = self.tile(layer, held, row, (first, to.min(first + TILE)), (h, h + n));
                attend(self.proof, tile, held.cache, own.queries, &out, own.scores);
            }
            for b in (h * group + from) * d / BLOCK..(h * group + to) * d / BLOCK {
                let at = self.attended + record_at(self.isa, self.rows, queries / BLOCK, row, b);
                // SAFETY: a head of a row is one thread's, and what stood here was read before all last met.
                let record = unsafe { self.shared.words(at, RECORD) };
                quantise(self.proof, self.isa, &own.attended[row * queries + b * BLOCK..][..BLOCK], BLOCK, record);
            }
        }
    }

    /// `act(gate) ⊙ up` of a thread's blocks of columns, as records.
    fn gated(&self, layer: &StackLayer<'_>, who: (usize, usize), own: &mut Own<'_>) {
        let (inner, (from, to)) = (layer.down[0].k, blocks_of(layer, who));
        let (gate, rest) = own.gates.split_at_mut(self.rows * BLOCK);
        let (up, made) = rest.split_at_mut(self.rows * BLOCK);
        let then = share_begin(layer.down, who);
        for b in from..to {
            let (gates_of, first) = gates(layer.gate_up, b * BLOCK);
            let (values_of, second) = gates(layer.gate_up, inner + b * BLOCK);
            let next = if b + 1 < to { gates_of.address(first + BLOCK) } else { then };
            let out = MatMut::new(gate, BLOCK, BLOCK);
            product(self.proof, own.records, gates_of, first, values_of.address(second), out);
            product(self.proof, own.records, values_of, second, next, MatMut::new(up, BLOCK, BLOCK));
            if layer.kind == ActivationKind::Silu {
                silu_slice(self.proof, gate, up, made);
            } else {
                made.copy_from_slice(gate);
                gate_slice(self.proof, layer.kind, made, up);
            }
            for (row, made) in made.chunks_exact(BLOCK).enumerate() {
                let at = self.made + record_at(self.isa, self.rows, inner / BLOCK, row, b);
                // SAFETY: a block of columns is one thread's, and what stood here was read before all last met.
                let record = unsafe { self.shared.words(at, RECORD) };
                quantise(self.proof, self.isa, made, BLOCK, record);
            }
        }
    }
}

/// The blocks of a gated product's columns that thread `i` of `n` multiplies.
fn blocks_of(layer: &StackLayer<'_>, (i, n): (usize, usize)) -> (usize, usize) {
    let blocks = layer.down[0].k / BLOCK;
    (blocks * i / n, blocks * (i + 1) / n)
}

/// The weight that has column `column` of gates and values, and where.
fn gates(weights: &[PackedBlocks], column: usize) -> (&PackedBlocks, usize) {
    let first = &weights[0];
    if column < first.n { (first, column) } else { (&weights[1], column - first.n) }
}
