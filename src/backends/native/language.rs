//! Native as an engine that generates: a decoder computed by our kernels, layer after layer.
//!
//! In: a [`LanguageModel`]. Out: a [`LanguageEngine`]. Must not: compile a graph (a decoder is always the same few steps, and its rows are of unlike
//! length), or let one sequence's result depend on another's.
//!
//! The tokens of all feeds of a call are rows of one batch for every product, and one call of attention has all their caches.
//! Keys lie in the cache as they are compared (normed and turned).

use ergometer_kernels::{
    self as kernels, CachedScores, CachedTokens, Context, HeadGains, KvCache, NewTokens, NumberFormat,
};
use ergometer_language::DecoderConfig;
use ergometer_language::config::ParallelLayers;

use self::layers::{HeldLinear, HeldMlp, Layer, Norm, WeightReader};
use self::matrix::Matrix;
use self::matrix::WeightsAs;
use self::rotation::Rotation;
use super::super::language::{Feed, LanguageEngine, WantedLogits, check};
use super::super::{BackendError, Facts};
use super::lower::activation as kernel_activation;
use crate::graph::{Activation, Op};
use crate::models::decoder::activation;
use crate::models::language::LanguageModel;

mod layers;
pub(super) mod matrix;
mod rotation;
mod step;

/// See the module.
pub(super) struct NativeLanguage {
    ctx: Context,
    config: DecoderConfig,
    context: usize,
    /// How layers turn queries and keys: what there is, and which of them each layer has.
    rotations: Vec<Rotation>,
    rotation_of: Vec<Option<usize>>,
    embedding: Matrix,
    /// `[context, hidden]`, where positions are learned.
    positions: Option<Vec<f32>>,
    layers: Vec<Layer>,
    last: Norm,
    /// The head, where it is not the embedding's table.
    head: Option<Matrix>,
    /// Caches: of each slot, of each layer.
    slots: Vec<Vec<KvCache>>,
    /// All layers of a few tokens can be computed in one run of the threads.
    steps: bool,
    /// Calls that are computed layer by layer before that is tried again, since other programs use the processors.
    crowded: usize,
    work: Work,
}

/// Most sequences of a call that are computed so: each thread makes the norms of all rows.
const ROWS: usize = 8;

/// So many calls, once a thread has waited long for another.
const CROWDED: usize = 64;

/// Buffers of a call, as long as the longest that there was.
#[derive(Default)]
struct Work {
    ids: Vec<u32>,
    positions: Vec<usize>,
    x: Vec<f32>,
    normed: Vec<f32>,
    joined: Vec<f32>,
    queries: Vec<f32>,
    attended: Vec<f32>,
    projected: Vec<f32>,
    inner: Vec<f32>,
    logits: Vec<f32>,
}

impl NativeLanguage {
    /// Packs the weights; room for so many sequences, whose keys and values are held in the number format `cache`.
    ///
    /// # Errors
    /// A tensor that cannot be read, no instruction set or threads for it.
    pub(super) fn load(
        ctx: Context,
        model: &LanguageModel,
        weights: WeightsAs,
        cache: NumberFormat,
        slots: usize,
    ) -> Result<Self, BackendError> {
        let config = model.config().clone();
        let reader = WeightReader { ctx: &ctx, model, weights };
        let embedding = reader.matrix("embedding.weight")?;
        let positions = match config.position_rows {
            Some(_) => Some(reader.plain("positions.weight")?),
            None => None,
        };
        let layers = (0..config.layers.len()).map(|i| reader.layer(i)).collect::<Result<Vec<_>, _>>()?;
        let last = reader.norm("norm")?;
        let head = if config.tied_head { None } else { Some(reader.matrix("head.weight")?) };
        let (mut rotations, mut rotation_of) = (Vec::<Rotation>::new(), Vec::new());
        for node in &model.graph.step.nodes {
            let Op::Attend(attention) = &node.op else { continue };
            rotation_of.push(attention.rope.as_ref().map(|rope| {
                rotations.iter().position(|r| r.is(rope)).unwrap_or_else(|| {
                    rotations.push(Rotation::new(rope, config.attention.head_width));
                    rotations.len() - 1
                })
            }));
        }
        let (of, context) = (&config.attention, model.context);
        let empty = |_| KvCache::new(of.key_value_heads, of.head_width, context, cache);
        let slots = (0..slots).map(|_| (0..config.layers.len()).map(empty).collect()).collect();
        let mut made = Self {
            ctx,
            config,
            context,
            rotations,
            rotation_of,
            embedding,
            positions,
            layers,
            last,
            head,
            slots,
            steps: false,
            crowded: 0,
            work: Work::default(),
        };
        made.steps = made.can_step();
        Ok(made)
    }

    /// Embeds the tokens of all feeds into `work.x`, and makes the turns of their positions.
    fn embed(&mut self, feeds: &[Feed]) {
        let (work, hidden) = (&mut self.work, self.config.width);
        work.ids.clear();
        work.positions.clear();
        for feed in feeds {
            let past = self.slots[feed.slot].first().map_or(0, KvCache::len);
            work.ids.extend_from_slice(feed.tokens);
            work.positions.extend(past..past + feed.tokens.len());
        }
        self.rotations.iter_mut().for_each(|r| r.at(&work.positions));
        work.x.resize(work.ids.len() * hidden, 0.0);
        self.embedding.rows(&self.ctx, &work.ids, self.config.embedding_scale, &mut work.x);
        let Some(positions) = &self.positions else { return };
        for (row, position) in work.x.chunks_exact_mut(hidden).zip(&work.positions) {
            row.iter_mut().zip(&positions[position * hidden..][..hidden]).for_each(|(x, p)| *x += p);
        }
    }

    /// Attention of a layer, from `work.normed` to `work.attended`.
    fn attend(&mut self, i: usize, feeds: &[Feed]) {
        let Self { ctx, config, rotations, rotation_of, layers, slots, work, .. } = self;
        let (layer, of) = (&layers[i], &config.attention);
        let (rows, wide, queries) = (work.positions.len(), layer.qkv.outputs(), config.query_width());
        work.joined.resize(rows * wide, 0.0);
        layer.qkv.apply(ctx, &work.normed, &mut work.joined);
        work.queries.resize(rows * queries, 0.0);
        let turns = rotation_of[i].map(|r| rotations[r].turns());
        let gains = layer.head_norms.as_ref().map(|g| HeadGains { q: &g.q, k: &g.k, eps: g.eps });
        // slots in the order of the feeds, each borrowed once: `check` has refused a slot that is fed twice
        let mut caches: Vec<Option<&mut KvCache>> = slots.iter_mut().map(|slot| Some(&mut slot[i])).collect();
        let new = |feed: &Feed| Some(NewTokens { cache: caches[feed.slot].take()?, tokens: feed.tokens.len() });
        let mut added: Vec<NewTokens> = feeds.iter().filter_map(new).collect();
        kernels::cached_append(ctx, &work.joined, gains, turns, &mut added, &mut work.queries);
        let sequence = |feed: &Feed| CachedTokens { cache: &slots[feed.slot][i], tokens: feed.tokens.len() };
        let sequences: Vec<CachedTokens> = feeds.iter().map(sequence).collect();
        let scores = CachedScores { scale: of.scale, soft_cap: of.score_cap, window: config.layers[i].window };
        work.attended.resize(rows * queries, 0.0);
        kernels::cached_attention(ctx, &work.queries, &sequences, of.heads, scores, &mut work.attended);
    }

    /// One layer, from `work.x` to `work.x`.
    fn layer(&mut self, i: usize, feeds: &[Feed]) {
        self.layers[i].attention_norm.apply(&self.ctx, &self.work.x, &mut self.work.normed);
        self.attend(i, feeds);
        let Self { ctx, config, layers, work, .. } = self;
        let (layer, hidden) = (&layers[i], config.width);
        let rows = work.x.len() / hidden;
        work.projected.resize(rows * hidden, 0.0);
        layer.output.apply(ctx, &work.attended, &mut work.projected);
        if let Some(norm) = &layer.attention_post_norm {
            norm.in_place(ctx, &mut work.projected);
        }
        if config.parallel == ParallelLayers::No {
            kernels::add_in_place(ctx, &mut work.x, &work.projected);
        }
        // where both halves read one norm, it is there already
        if let Some(norm) = &layer.mlp_norm {
            norm.apply(ctx, &work.x, &mut work.normed);
        }
        if config.parallel != ParallelLayers::No {
            kernels::add_in_place(ctx, &mut work.x, &work.projected);
        }
        let act = activation(config.mlp.activation);
        layer.mlp.apply(ctx, act, &work.normed, &mut work.inner, &mut work.projected);
        if let Some(norm) = &layer.mlp_post_norm {
            norm.in_place(ctx, &mut work.projected);
        }
        kernels::add_in_place(ctx, &mut work.x, &work.projected);
    }
}

impl LanguageEngine for NativeLanguage {
    fn facts(&self) -> Facts {
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        let tables = self.embedding.bytes() + self.head.as_ref().map_or(0, Matrix::bytes);
        let plain = self.last.bytes() + self.positions.as_ref().map_or(0, |p| 4 * p.len());
        let caches: usize = self.slots.iter().flatten().map(KvCache::bytes).sum();
        Facts { weight_bytes: (layers + tables + plain) as u64, state_bytes: caches as u64 }
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn context(&self) -> usize {
        self.context
    }

    fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    fn past(&self, slot: usize) -> usize {
        self.slots[slot].first().map_or(0, KvCache::len)
    }

    fn clear(&mut self, slot: usize) {
        self.slots[slot].iter_mut().for_each(|cache| cache.truncate(0));
    }

    fn feed(&mut self, feeds: &[Feed], wanted: WantedLogits) -> Result<(), BackendError> {
        check(self, feeds)?;
        self.embed(feeds);
        if self.steps && feeds.len() <= ROWS && feeds.iter().all(|feed| feed.tokens.len() == 1) {
            if self.crowded == 0 {
                self.crowded = if self.step(feeds) { 0 } else { CROWDED };
                return Ok(());
            }
            self.crowded -= 1;
        }
        (0..self.layers.len()).for_each(|i| self.layer(i, feeds));
        let (work, hidden) = (&mut self.work, self.config.width);
        if wanted == WantedLogits::Last {
            // the last row of each feed moves to the front
            let (mut end, mut to) = (0, 0);
            for feed in feeds {
                end += feed.tokens.len();
                work.x.copy_within((end - 1) * hidden..end * hidden, to);
                to += hidden;
            }
            work.x.truncate(to);
        }
        self.last.apply(&self.ctx, &work.x, &mut work.normed);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        work.logits.resize(work.x.len() / hidden * self.config.vocabulary, 0.0);
        head.product(&self.ctx, &work.normed, &mut work.logits);
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.work.logits
    }

    fn number_bytes(&self) -> Option<f64> {
        self.slots.first()?.first().map(|cache| cache.number_bytes() as f64)
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        self.slots[to] = self.slots[from].clone();
        Ok(())
    }

    fn activate_experts(&mut self, active: Option<usize>) -> bool {
        let Some(chosen) = active.or(self.config.mlp.experts.map(|e| e.used)) else { return true };
        let activate = |layer: &mut Layer| match &mut layer.mlp {
            HeldMlp::Experts(experts) => experts.activate(chosen),
            HeldMlp::Gated { .. } | HeldMlp::Plain { .. } => false,
        };
        self.layers.iter_mut().all(activate)
    }
}

impl HeldMlp {
    /// `out = mlp(x)`, rows by rows.
    fn apply(&self, ctx: &Context, act: Activation, x: &[f32], inner: &mut Vec<f32>, out: &mut Vec<f32>) {
        match self {
            HeldMlp::Gated { gate_up, down } => {
                let rows = x.len() / gate_up.matrix.inputs();
                out.resize(rows * down.outputs(), 0.0);
                gated(ctx, act, gate_up, down, x, inner, out);
            }
            HeldMlp::Plain { up, down } => {
                let rows = x.len() / up.matrix.inputs();
                inner.resize(rows * up.outputs(), 0.0);
                up.apply(ctx, x, inner);
                kernels::activation(ctx, kernel_activation(act), inner);
                out.resize(rows * down.outputs(), 0.0);
                down.apply(ctx, inner, out);
            }
            HeldMlp::Experts(experts) => experts.apply(ctx, act, x, inner, out),
        }
    }
}

/// Rows of a prompt that go through a gated product together: what lies between its products then stays near, and weights are read
/// again seldom enough.
const TOGETHER: usize = 96;

/// `out = down(act(gate(x)) ⊙ up(x))`.
fn gated(
    ctx: &Context,
    act: Activation,
    gate_up: &HeldLinear,
    down: &HeldLinear,
    x: &[f32],
    inner: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (width, wide, n) = (gate_up.matrix.inputs(), gate_up.outputs(), down.outputs());
    let half = wide / 2;
    for (x, out) in x.chunks(TOGETHER * width).zip(out.chunks_mut(TOGETHER * n)) {
        let rows = x.len() / width;
        // gate and up of each row, then what they make of each other
        inner.resize(rows * (wide + half), 0.0);
        let (both, made) = inner.split_at_mut(rows * wide);
        gate_up.apply(ctx, x, both);
        kernels::gated(ctx, kernel_activation(act), both, half, made);
        down.apply(ctx, made, out);
    }
}

#[cfg(test)]
mod tests;
