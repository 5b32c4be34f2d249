//! Which buffer holds which value while a graph is compiled.
//!
//! In: lengths of values, and which node uses which value last. Out: numbered buffers, shared out again as soon as what they hold is used no
//! longer. Must not: know an operator.

use std::collections::{BTreeSet, HashMap};

use super::execute::{Instruction, Loc, MixtureSizes};
use super::weights::Packer;
use crate::backends::BackendError;
use crate::graph::{Region, ValueId};

/// Where a value is while its region is lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Indices: an input of the graph.
    Input(usize),
    /// Floats.
    At(Loc),
}

/// What all regions share.
pub(super) struct Planner<'a> {
    pub packer: Packer<'a>,
    pub sizes: Vec<usize>,
    pub free: Vec<usize>,
    pub steps: Vec<Instruction>,
    pub mixtures: Vec<MixtureSizes>,
    /// Elements of the value in each buffer, 0 where there is none; their sum, and the largest that it has been.
    pub held: Vec<usize>,
    pub alive: usize,
    pub most: usize,
}

impl<'a> Planner<'a> {
    pub fn new(packer: Packer<'a>) -> Self {
        let (sizes, free, steps, mixtures, held) = Default::default();
        Planner { packer, sizes, free, steps, mixtures, held, alive: 0, most: 0 }
    }

    /// A new buffer that never goes into the pool.
    pub fn own(&mut self, len: usize) -> Loc {
        self.sizes.push(len);
        self.held.push(0);
        self.hold(self.sizes.len() - 1, len)
    }

    /// A value comes to life in a buffer.
    fn hold(&mut self, buffer: usize, len: usize) -> Loc {
        self.held[buffer] = len;
        self.alive += len;
        self.most = self.most.max(self.alive);
        Loc { buffer, len }
    }

    /// The smallest free buffer that is large enough, or else the largest one, grown; a new one where none is free.
    pub fn take(&mut self, len: usize) -> Loc {
        let size = |i: &usize| self.sizes[*i];
        let fitting = self.free.iter().copied().filter(|i| size(i) >= len).min_by_key(size);
        let Some(buffer) = fitting.or_else(|| self.free.iter().copied().max_by_key(size)) else { return self.own(len) };
        self.free.retain(|&i| i != buffer);
        self.sizes[buffer] = self.sizes[buffer].max(len);
        self.hold(buffer, len)
    }

    /// Gives a buffer back to the pool.
    pub fn give(&mut self, buffer: usize) {
        self.free.push(buffer);
        self.alive -= std::mem::take(&mut self.held[buffer]);
    }
}

/// Liveness within one region: which node uses a value last, and what each buffer still holds.
pub(super) struct Frame<'a> {
    pub region: &'a Region,
    pub places: Vec<Option<Place>>,
    wanted: &'a [Option<usize>],
    /// Last node that uses a value; `usize::MAX` for results, the defining node for what nobody uses.
    last: Vec<usize>,
    uses: Vec<usize>,
    /// Last node that uses anything placed in a buffer.
    until: HashMap<usize, usize>,
    /// Buffers that this region took from the pool.
    owned: BTreeSet<usize>,
}

impl<'a> Frame<'a> {
    pub fn new(region: &'a Region, args: &[Place], wanted: &'a [Option<usize>]) -> Self {
        let n = region.types.len();
        let (mut last, mut uses) = (vec![0; n], vec![0; n]);
        for (k, node) in region.nodes.iter().enumerate() {
            // a node defines the values up to the next node's first
            let end = region.nodes.get(k + 1).map_or(n, |next| next.first.0);
            last[node.first.0..end].fill(k);
            for v in &node.inputs {
                last[v.0] = k;
                uses[v.0] += 1;
            }
        }
        for v in &region.results {
            last[v.0] = usize::MAX;
            uses[v.0] += 1;
        }
        let (places, until, owned) = (vec![None; n], HashMap::new(), BTreeSet::new());
        let mut frame = Frame { region, places, wanted, last, uses, until, owned };
        for (i, &place) in args.iter().enumerate() {
            frame.put(ValueId(i), place);
        }
        frame
    }

    /// Records where a value is.
    pub fn put(&mut self, v: ValueId, place: Place) {
        self.places[v.0] = Some(place);
        if let Place::At(at) = place {
            let until = self.until.entry(at.buffer).or_insert(0);
            *until = (*until).max(self.last[v.0]);
        }
    }

    /// Where a value is; nodes are lowered in order, so every input has its place.
    pub fn place(&self, v: ValueId) -> Place {
        self.places[v.0].expect("a region's values are defined before they are used")
    }

    /// Elements per row of a value.
    pub fn len(&self, v: ValueId) -> usize {
        self.region.ty(v).elements()
    }

    /// Nothing in the buffer is used after node `k`.
    fn dead(&self, buffer: usize, k: usize) -> bool {
        self.until.get(&buffer).is_none_or(|&until| until <= k)
    }

    /// Node `k` may write over the buffer: it is ours or holds a carried value, and nothing in it is used later.
    pub fn writable(&self, buffer: usize, k: usize) -> bool {
        self.dead(buffer, k) && (self.owned.contains(&buffer) || self.wanted.contains(&Some(buffer)))
    }

    /// The buffer in which value `v`, made by node `k`, is wanted, if it is free by then (its last reader may be node `k` itself).
    pub fn target(&self, v: ValueId, k: usize) -> Option<usize> {
        let mut results = self.region.results.iter().zip(self.wanted).filter(|(r, _)| **r == v);
        match (results.next(), results.next()) {
            (Some((_, &Some(buffer))), None) if self.dead(buffer, k) => Some(buffer),
            _ => None,
        }
    }

    /// Node `k`'s only result is used once, by node `k + 1`.
    pub fn feeds_only_the_next(&self, k: usize) -> bool {
        let (node, next) = (&self.region.nodes[k], self.region.nodes.get(k + 1));
        self.uses[node.first.0] == 1 && next.is_some_and(|next| next.inputs.contains(&node.first))
    }

    /// Marks a buffer as taken from the pool by this region.
    pub fn own(&mut self, buffer: usize) {
        self.owned.insert(buffer);
    }

    /// The buffers among these values' that node `k` was the last to use; no longer ours.
    pub fn release(&mut self, values: impl Iterator<Item = ValueId>, k: usize) -> Vec<usize> {
        let mut done = Vec::new();
        for v in values {
            if let Some(Place::At(at)) = self.places[v.0]
                && self.dead(at.buffer, k)
                && self.owned.remove(&at.buffer)
            {
                done.push(at.buffer);
            }
        }
        done
    }

    /// Buffers that this region has taken from the pool and not given back.
    pub fn owned(&self) -> impl Iterator<Item = usize> {
        self.owned.iter().copied()
    }

    /// Results with the buffers where they are wanted.
    pub fn results(&self) -> Vec<(Place, Option<usize>)> {
        self.region.results.iter().zip(self.wanted).map(|(&r, &wanted)| (self.place(r), wanted)).collect()
    }
}

/// The place of floats.
pub(super) fn float(place: Place) -> Result<Loc, BackendError> {
    match place {
        Place::At(at) => Ok(at),
        Place::Input(_) => Err(BackendError::unavailable("the native backend keeps no indices between steps")),
    }
}
