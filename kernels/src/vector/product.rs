//! The matrix product on which linear layers, token mixing and attention are built. In: rows of A in tiles, and panels
//! of B, as [`TileLayout`] says. Out: the sums of one pair of tiles after another, given to an [`Epilogue`] while the
//! next ones are made. Must not: know what the sums are for.
//!
//! Tile products that read their operands from memory (AMX) need as many bytes of A and of B for every step of k as the
//! first-level cache delivers, which is more than the second level does. So k is cut into slabs, short enough that a
//! slab of two panels stays in the first level while all rows are multiplied with it; partial sums stay in their
//! buffers.

use std::marker::PhantomData;
use std::ops::Range;

use super::Simd;
use super::tile::{Element, LINE, PAIR, Raw, TileLayout};
use crate::isa::Isa;
use crate::number_format::NumberFormat;

/// What is done with the sums of a product.
pub(crate) trait Epilogue<S: Simd> {
    /// Sums of pair `j` of tiles, `rows` of each wanted, with pair `p` of panels; `sums[tile][row][column]`.
    fn apply(&mut self, s: S, p: usize, j: usize, rows: [usize; 2], sums: &[f32]);
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

    /// Rows of each tile of pair `j`.
    #[inline(always)]
    pub(crate) fn rows(self, j: usize, mr: usize) -> [usize; 2] {
        match self {
            Pairs::Rows(m) => [mr.min(m - 2 * j * mr), mr.min(m.saturating_sub((2 * j + 1) * mr))],
            Pairs::Halves(m) => [mr.min(m - j * mr); 2],
        }
    }
}

/// Words of the buffers for the sums of `count` pairs of tiles over `groups` words of k.
pub(crate) fn sums_len(isa: Isa, format: NumberFormat, count: usize, groups: usize) -> usize {
    let slabs = tiled(isa, format) && groups > super::tile::SLAB;
    if slabs { (count + 1) * PAIR } else { 2 * PAIR }
}

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
    b: &'a [u32],
    panels: Range<usize>,
    k: Range<usize>,
    /// Words of k that are multiplied at a time.
    slab: usize,
    /// Slabs in `k`.
    slabs: usize,
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
        let slab = s.slab::<F>();
        let slabs = k.len().div_ceil(slab).max(1);
        let near = slabs == 1 && layout.b_words(panels.len()) * 4 <= NEAR;
        Operands { s, layout, a, pairs, b, panels, k, slab, slabs, near, element: PhantomData }
    }

    /// Multiplies pair `j` of tiles with pair `p` of panels over one slab, into a buffer of the sums (on top of what it
    /// holds, but for the first slab). Gives the rows of each tile.
    #[inline(always)]
    fn pair(&self, p: usize, j: usize, slab: usize, sums: &mut [f32], buffer: usize) -> [usize; 2] {
        let (layout, mr, a, b) = (self.layout, self.layout.mr, self.a, self.b);
        let first = self.k.start + slab * self.slab;
        let groups = self.slab.min(self.k.end - first);
        let rows = self.pairs.rows(j, mr);
        #[cfg(test)]
        super::tile::counted::add(
            rows.iter().filter(|r| **r > 0).map(|r| if layout.lines { mr } else { *r }).sum::<usize>()
                * super::tile::NR
                * groups
                * F::FORMAT.per_word(),
        );
        let tile = mr * layout.groups;
        let at = 2 * j * tile + layout.a(0, first);
        let raw = Raw {
            a: [a[at..].as_ptr(), if rows[1] > 0 { a[at + tile..].as_ptr() } else { std::ptr::null() }],
            rows,
            b: [b[layout.b(2 * p, first)..].as_ptr(), b[layout.b(2 * p + 1, first)..].as_ptr()],
            stride: layout.groups,
            mr,
            groups,
            c: sums[buffer * PAIR..(buffer + 1) * PAIR].as_mut_ptr(),
            more: slab > 0,
            prefetch: self.ahead(p, j, slab, at, groups),
        };
        // SAFETY: tiles, panels and words are within their slices, as `new` checked, and the sums as the line above
        // did; tiles are configured on this thread as long as `product` holds a `Ready`.
        unsafe { self.s.pair::<F>(raw) }
        rows
    }

    /// Words of the next operands, a part of which each product prefetches: the next tiles of A where the panels stay
    /// near, else the next panels. Where nothing is left for this product, its own rows of A, which begin at word `at`.
    #[inline(always)]
    fn ahead(&self, p: usize, j: usize, slab: usize, at: usize, groups: usize) -> *const u32 {
        let (layout, part, index) = (self.layout, PREFETCH * groups, p - self.panels.start);
        if self.near && index * PREFETCH < 2 * layout.mr {
            self.a.as_ptr().wrapping_add(at + 2 * layout.mr * layout.groups + index * part)
        } else if !self.near && j < 2 {
            let first = self.k.start + slab * self.slab;
            let next = if slab + 1 < self.slabs {
                layout.b(2 * p, first + self.slab)
            } else {
                layout.b(2 * (p + 1), self.k.start)
            };
            self.b.as_ptr().wrapping_add(next + j * part)
        } else {
            self.a[at..].as_ptr()
        }
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
    // one more buffer than are being added to, so that the last one can be read meanwhile
    let ring = if slabs > 1 { count + 1 } else { 2 };
    assert!(sums.len() >= ring * PAIR, "no room for the sums");
    s.configure::<F>(mr);
    let _ready = Ready::<S, F>(s, PhantomData);
    if k.is_empty() {
        sums[..PAIR].fill(0.0);
        for (p, j) in panels.flat_map(|p| (0..count).map(move |j| (p, j))) {
            epilogue.apply(s, p, j, pairs.rows(j, mr), &sums[..PAIR]);
        }
        return;
    }
    // the last sums, which the epilogue takes while the next ones are made
    let mut waiting: Option<(usize, usize, [usize; 2], usize)> = None;
    macro_rules! hand_over {
        ($p:expr, $j:expr, $rows:expr, $buffer:expr) => {
            if let Some((p, j, rows, buffer)) = waiting.replace(($p, $j, $rows, $buffer)) {
                epilogue.apply(s, p, j, rows, &sums[buffer * PAIR..(buffer + 1) * PAIR]);
            }
        };
    }
    let mut position = 0;
    if operands.near {
        for j in 0..count {
            for p in panels.start..panels.end {
                let rows = operands.pair(p, j, 0, sums, position % 2);
                hand_over!(p, j, rows, position % 2);
                position += 1;
            }
        }
    } else {
        for p in panels.start..panels.end {
            for slab in 0..slabs {
                for j in 0..count {
                    let buffer = (position + j) % ring;
                    let rows = operands.pair(p, j, slab, sums, buffer);
                    if slab + 1 == slabs {
                        hand_over!(p, j, rows, buffer);
                    }
                }
            }
            position = (position + count) % ring;
        }
    }
    if let Some((p, j, rows, buffer)) = waiting {
        epilogue.apply(s, p, j, rows, &sums[buffer * PAIR..(buffer + 1) * PAIR]);
    }
}

/// Words that a pair of tiles prefetches for each word of k: a line.
const PREFETCH: usize = LINE;
