//! The matrix product on which linear layers, token mixing and attention are built. In: rows of A in tiles, and panels
//! of B, as [`TileLayout`] says. Out: the sums of one pair of tiles after another, given to an [`Epilogue`] while the
//! next ones are made. Must not: know what the sums are for.
//!
//! Tile products that read their operands from memory (AMX) need as many bytes of A and of B for every step of k as the
//! first-level cache delivers, which is more than the second level does. So k is cut into slabs, short enough that a
//! slab of two panels stays in the first level while all rows are multiplied with it; partial sums stay in their
//! buffers. AVX2 cuts k too where all of A would not stay in the second level: a slab of A is multiplied with several
//! pairs of panels before the next.

use std::marker::PhantomData;
use std::ops::Range;

use super::Simd;
use super::tile::{AVX2_ROWS, AVX2_SLAB, Element, LINE, NR, PAIR, Raw, SLAB, TileLayout, shares};
use crate::isa::Isa;
use crate::number_format::NumberFormat;

/// What is done with the sums of a product.
pub(crate) trait Epilogue<S: Simd> {
    /// Sums of a pair of tiles with pair `p` of panels: of each tile `sums[row][column]`.
    fn apply(&mut self, s: S, p: usize, tiles: TilePair, sums: [&[f32]; 2]);
}

/// The rows of a pair of tiles.
#[derive(Clone, Copy)]
pub(crate) struct TilePair {
    /// First row of each tile.
    pub(crate) first: [usize; 2],
    /// Rows of each tile; the second may have none.
    pub(crate) rows: [usize; 2],
}

/// Which rows a pair of tiles holds.
#[derive(Clone, Copy)]
pub(crate) enum Pairs {
    /// This many rows, one tile after the other.
    Rows(usize),
    /// This many rows in the first tiles of the pairs, and as many in the second ones.
    Halves(usize),
}

impl Pairs {
    /// Number of pairs.
    #[inline(always)]
    pub(crate) fn count(self, mr: usize) -> usize {
        match self {
            Pairs::Rows(m) => m.div_ceil(2 * mr),
            Pairs::Halves(m) => m.div_ceil(mr),
        }
    }
}

/// Words of the buffers for the sums of `count` pairs of tiles over `groups` words of k.
pub(crate) fn sums_len(isa: Isa, format: NumberFormat, count: usize, groups: usize) -> usize {
    let whole = 2 * PAIR;
    if tiled(isa, format) {
        return if groups > SLAB { (count + 1) * PAIR } else { whole };
    }
    // as many as if all tiles were the largest
    let slabs = slabbed(isa, format) && groups > AVX2_SLAB && is_long(2 * count * AVX2_ROWS * groups);
    if slabs { whole.max((BLOCK * count + 1) * 2 * AVX2_ROWS * NR) } else { whole }
}

/// Products of this format cut k into slabs, if it is long enough.
pub(crate) fn slabbed(isa: Isa, format: NumberFormat) -> bool {
    tiled(isa, format) || (isa == Isa::Avx2 && format == NumberFormat::F32)
}

/// An A of so many words leaves too little of a second-level cache of 512 KiB to the panels that stream through it.
fn is_long(a_words: usize) -> bool {
    a_words * 4 > 256 << 10
}

/// Pairs of panels with which AVX2 multiplies a slab of a long A before the next: with 97 rows their sums are 100 KiB,
/// as much as the slab.
const BLOCK: usize = 8;

/// Products of this format read tiles of AMX.
pub(crate) fn tiled(isa: Isa, format: NumberFormat) -> bool {
    isa == Isa::Amx && format != NumberFormat::F32
}

/// Bytes of all panels up to which they stay in the first-level cache, so that each row of A is read once.
const NEAR: usize = 20 << 10;

/// Tile products of one thread, ready as long as this lives.
struct Ready<S: Simd, F: Element>(S, PhantomData<(*const (), F)>);

impl<S: Simd, F: Element> Drop for Ready<S, F> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.release::<F>();
    }
}

/// The operands of one product, checked, and how its work is cut.
struct Operands<'a, S: Simd, F: Element> {
    s: S,
    layout: TileLayout,
    a: &'a [u32],
    pairs: Pairs,
    /// Rows of a tile, and how many tiles have one more.
    shares: (usize, usize),
    b: &'a [u32],
    panels: Range<usize>,
    k: Range<usize>,
    /// Words of k that are multiplied at a time.
    slab: usize,
    /// Slabs in `k`.
    slabs: usize,
    /// Values of a buffer for sums, and where in it the second tile's begin.
    buffer: usize,
    /// All panels stay in the first-level cache.
    near: bool,
    element: PhantomData<F>,
}

impl<'a, S: Simd, F: Element> Operands<'a, S, F> {
    /// Checks that tiles, panels and words are within their slices, on which [`Operands::pair`] rests.
    #[inline(always)]
    fn new(
        s: S,
        layout: TileLayout,
        a: &'a [u32],
        pairs: Pairs,
        b: &'a [u32],
        panels: Range<usize>,
        k: Range<usize>,
    ) -> Self {
        let mr = layout.mr;
        assert!(
            layout.lines == (s.line_words::<F>() > 1) && mr <= s.tile_rows::<F>(),
            "operands of another instruction set"
        );
        assert!(k.start <= k.end && k.end <= layout.groups, "words beyond k");
        let ends = [k.start, k.end, layout.groups];
        assert!(!layout.lines || ends.iter().all(|g| g.is_multiple_of(LINE)), "not whole lines");
        let rows = match pairs {
            Pairs::Rows(m) if !layout.lines => m,
            Pairs::Rows(m) => m.next_multiple_of(mr),
            Pairs::Halves(m) => 2 * m.next_multiple_of(mr),
        };
        assert!(a.len() >= rows * layout.groups, "rows of A are missing");
        assert!(panels.is_empty() || b.len() >= layout.b_words(panels.end), "panels are missing");
        let slab = if layout.lines || is_long(rows * layout.groups) { s.slab::<F>() } else { usize::MAX };
        let slabs = k.len().div_ceil(slab).max(1);
        let near = slabs == 1 && layout.b_words(panels.len()) * 4 <= NEAR;
        // buffers that are read again lie without gaps, for the first-level cache
        let buffer = if slabs > 1 && !layout.lines { 2 * mr * NR } else { PAIR };
        let shares = match pairs {
            Pairs::Rows(m) => shares(m, mr, s.tile_rows::<F>()),
            Pairs::Halves(_) => (mr, 0),
        };
        Operands { s, layout, a, pairs, shares, b, panels, k, slab, slabs, buffer, near, element: PhantomData }
    }

    /// The tiles of pair `j`, and the rows of A at which they begin.
    #[inline(always)]
    fn tiles(&self, j: usize) -> (TilePair, [usize; 2]) {
        let ((rows, more), mr) = (self.shares, self.layout.mr);
        match self.pairs {
            Pairs::Rows(m) => {
                let [a, b, c] = [2 * j, 2 * j + 1, 2 * j + 2].map(|i| (i * rows + i.min(more)).min(m));
                (TilePair { first: [a, b], rows: [b - a, c - b] }, [a, b])
            }
            Pairs::Halves(m) => {
                let (first, stored) = (j * mr, 2 * j * mr);
                (TilePair { first: [first; 2], rows: [mr.min(m - first); 2] }, [stored, stored + mr])
            }
        }
    }

    /// Multiplies pair `j` of tiles with pair `p` of panels over one slab, into a buffer of the sums (on top of what it
    /// holds, but for the first slab). `next`: the pair of panels and the slab to prefetch.
    #[inline(always)]
    fn pair(&self, p: usize, j: usize, slab: usize, next: (usize, usize), sums: &mut [f32], buffer: usize) -> TilePair {
        let (layout, a, b) = (self.layout, self.a, self.b);
        let first = self.k.start + slab * self.slab;
        let groups = self.slab.min(self.k.end - first);
        let (tiles, stored) = self.tiles(j);
        let rows = tiles.rows;
        #[cfg(test)]
        super::tile::counted::add(
            rows.iter().filter(|r| **r > 0).map(|r| if layout.lines { layout.mr } else { *r }).sum::<usize>()
                * NR
                * groups
                * F::FORMAT.per_word(),
        );
        // a tile begins at its first row, also where lines are the unit
        let at = stored.map(|row| row * layout.groups + layout.a(0, first));
        let c = sums[buffer * self.buffer..(buffer + 1) * self.buffer].as_mut_ptr();
        let raw = Raw {
            a: [a[at[0]..].as_ptr(), if rows[1] > 0 { a[at[1]..].as_ptr() } else { std::ptr::null() }],
            rows,
            b: [b[layout.b(2 * p, first)..].as_ptr(), b[layout.b(2 * p + 1, first)..].as_ptr()],
            stride: layout.groups,
            mr: layout.mr,
            groups,
            c: [c, c.wrapping_add(self.buffer / 2)],
            more: slab > 0,
            prefetch: self.ahead(p, j, next, at[0], groups),
        };
        // SAFETY: tiles, panels and words are within their slices, as `new` checked, and the sums as the line above
        // did; tiles are configured on this thread as long as `product` holds a `Ready`.
        unsafe { self.s.pair::<F>(raw) }
        tiles
    }

    /// Words of the next operands, a part of which each product prefetches: the next tiles of A where the panels stay
    /// near, else the next panels. Where nothing is left for this product, its own rows of A, which begin at word `at`.
    #[inline(always)]
    fn ahead(&self, p: usize, j: usize, next: (usize, usize), at: usize, groups: usize) -> *const u32 {
        let (layout, part, index) = (self.layout, PREFETCH * groups, p - self.panels.start);
        if self.near && index * PREFETCH < 2 * layout.mr {
            self.a.as_ptr().wrapping_add(at + 2 * layout.mr * layout.groups + index * part)
        } else if !self.near && j < 2 {
            let (panel, word) = (2 * next.0, self.k.start + next.1 * self.slab);
            // the words of a slab are one run where panels alternate, else two
            let at = if layout.lines { layout.b(panel, word) + j * part } else { layout.b(panel + j, word) };
            self.b.as_ptr().wrapping_add(at)
        } else {
            self.a[at..].as_ptr()
        }
    }

    /// The sums in a buffer, of each tile.
    #[inline(always)]
    fn sums<'s>(&self, sums: &'s [f32], buffer: usize) -> [&'s [f32]; 2] {
        let (first, second) = sums[buffer * self.buffer..(buffer + 1) * self.buffer].split_at(self.buffer / 2);
        [first, second]
    }
}

/// A times B over the words `k` of k (whole lines, where lines are the unit): tiles of A as `pairs` says, the pairs of
/// panels `panels` of B. `sums`: [`sums_len`] of the number of pairs.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn product<S: Simd, F: Element, E: Epilogue<S>>(
    s: S,
    layout: TileLayout,
    a: &[u32],
    pairs: Pairs,
    b: &[u32],
    panels: Range<usize>,
    k: Range<usize>,
    sums: &mut [f32],
    epilogue: &mut E,
) {
    let operands = Operands::<S, F>::new(s, layout, a, pairs, b, panels.clone(), k.clone());
    let (mr, count, slabs) = (layout.mr, pairs.count(layout.mr), operands.slabs);
    let block = if slabs > 1 && !layout.lines { BLOCK.min(panels.len()).max(1) } else { 1 };
    // one more buffer than are being added to, so that the last one can be read meanwhile
    let ring = if slabs > 1 { block * count + 1 } else { 2 };
    assert!(sums.len() >= ring * operands.buffer, "no room for the sums");
    s.configure::<F>(mr);
    let _ready = Ready::<S, F>(s, PhantomData);
    if k.is_empty() {
        sums[..PAIR].fill(0.0);
        for (p, j) in panels.flat_map(|p| (0..count).map(move |j| (p, j))) {
            epilogue.apply(s, p, operands.tiles(j).0, [&sums[..PAIR]; 2]);
        }
        return;
    }
    // the last sums, which the epilogue takes while the next ones are made
    let mut waiting: Option<(usize, TilePair, usize)> = None;
    macro_rules! hand_over {
        ($p:expr, $tiles:expr, $buffer:expr) => {
            if let Some((p, tiles, buffer)) = waiting.replace(($p, $tiles, $buffer)) {
                epilogue.apply(s, p, tiles, operands.sums(sums, buffer));
            }
        };
    }
    let mut position = 0;
    if operands.near {
        for j in 0..count {
            for p in panels.start..panels.end {
                let tiles = operands.pair(p, j, 0, (p, 0), sums, position % 2);
                hand_over!(p, tiles, position % 2);
                position += 1;
            }
        }
    } else {
        for first in (panels.start..panels.end).step_by(block) {
            let end = panels.end.min(first + block);
            for slab in 0..slabs {
                for p in first..end {
                    let next = match (p + 1 < end, slab + 1 < slabs) {
                        (true, _) => (p + 1, slab),
                        (false, true) => (first, slab + 1),
                        (false, false) => (end, 0),
                    };
                    for j in 0..count {
                        let buffer = (position + (p - first) * count + j) % ring;
                        let tiles = operands.pair(p, j, slab, next, sums, buffer);
                        if slab + 1 == slabs {
                            hand_over!(p, tiles, buffer);
                        }
                    }
                }
            }
            position = (position + (end - first) * count) % ring;
        }
    }
    if let Some((p, tiles, buffer)) = waiting {
        epilogue.apply(s, p, tiles, operands.sums(sums, buffer));
    }
}

/// Words that a pair of tiles prefetches for each word of k: a line.
const PREFETCH: usize = LINE;
