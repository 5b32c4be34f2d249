//! One token of each of some sequences, through all layers in one run of the threads.
//!
//! In: what was embedded. Out: logits, with the bits that the layers one after another give. Must not: compute a decoder whose weights are
//! not all blocks, whose layers are not a half after the other, or that has experts.

use ergometer_kernels::{
    self as kernels, CachedScores, HeadGains, HeadTurns, KvCache, PackedBlocks, StackHead, StackLayer,
};
use ergometer_language::DecoderConfig;
use ergometer_language::config::ParallelLayers;

use super::super::super::language::Feed;
use super::super::lower::activation as kernel_activation;
use super::NativeLanguage;
use super::layers::{HeldMlp, Layer};
use super::matrix::Matrix;
use crate::models::decoder::activation;

impl NativeLanguage {
    /// Whether [`NativeLanguage::step`] can compute the model.
    pub(super) fn can_step(&self) -> bool {
        let of = &self.config.attention;
        let fits = |(i, layer): (usize, &Layer)| {
            stacked(&self.config, i, layer, None).is_some_and(|l| l.fits(&self.ctx, of.key_value_heads, of.head_width))
        };
        self.config.parallel == ParallelLayers::No && self.tail().is_some() && self.layers.iter().enumerate().all(fits)
    }

    /// The head's weights, if they are blocks.
    fn tail(&self) -> Option<&[PackedBlocks]> {
        match self.head.as_ref().unwrap_or(&self.embedding) {
            Matrix::Blocks(all) => Some(all),
            _ => None,
        }
    }

    /// From `work.x` to `work.logits`; false if threads waited long for each other.
    pub(super) fn step(&mut self, feeds: &[Feed]) -> bool {
        let mut slots: Vec<Option<&mut Vec<KvCache>>> = self.slots.iter_mut().map(Some).collect();
        // in the order of the feeds, each borrowed once: `check` has refused a slot that is fed twice
        let mut rows: Vec<_> =
            feeds.iter().filter_map(|feed| slots[feed.slot].take()).map(|slot| slot.iter_mut()).collect();
        let caches = self.layers.iter().map(|_| rows.iter_mut().filter_map(Iterator::next).collect()).collect();
        let turns = |i: usize| self.rotation_of[i].map(|r| self.rotations[r].turns());
        let layers: Vec<StackLayer> =
            self.layers.iter().enumerate().filter_map(|(i, layer)| stacked(&self.config, i, layer, turns(i))).collect();
        let head = match self.head.as_ref().unwrap_or(&self.embedding) {
            Matrix::Blocks(all) => all,
            _ => unreachable!("`can_step` has seen blocks"),
        };
        let head = StackHead { norm: self.last.of_rows(), head };
        self.work.logits.resize(feeds.len() * self.config.vocabulary, 0.0);
        kernels::layers_step(&self.ctx, &layers, caches, &head, &self.work.x, &mut self.work.logits)
    }
}

/// Layer `i` as the kernels take it; none if it is of another kind.
fn stacked<'a>(
    config: &DecoderConfig,
    i: usize,
    layer: &'a Layer,
    turns: Option<HeadTurns<'a>>,
) -> Option<StackLayer<'a>> {
    let HeldMlp::Gated { gate_up, down } = &layer.mlp else { return None };
    let of = &config.attention;
    Some(StackLayer {
        attention_norm: layer.attention_norm.of_rows(),
        qkv: layer.qkv.blocks()?,
        head_gains: layer.head_norms.as_ref().map(|g| HeadGains { q: &g.q, k: &g.k, eps: g.eps }),
        turns,
        scores: CachedScores { scale: of.scale, soft_cap: of.score_cap, window: config.layers[i].window },
        output: layer.output.blocks()?,
        output_norm: layer.attention_post_norm.as_ref().map(|n| n.of_rows()),
        mlp_norm: layer.mlp_norm.as_ref()?.of_rows(),
        kind: kernel_activation(activation(config.mlp.activation)),
        gate_up: gate_up.blocks()?,
        down: down.blocks()?,
        down_norm: layer.mlp_post_norm.as_ref().map(|n| n.of_rows()),
    })
}
