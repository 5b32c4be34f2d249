//! The product that linear layers, token mixing and attention stand on. In: rows of A in tiles, and panels of B, as [`TileLayout`] says. Out: a pair of tiles' sums after
//! another, handed to an [`Epilogue`] while the next ones are made. Must not: know what becomes of them.
//!
//! Where a tile product reads its operands from memory (AMX), a pair's sums need as many bytes of A and of B for every step of k as the first-level cache gives, and more than the second
//! does. So k is cut into slabs, short enough that a slab of two panels stays in the first level while all rows pass by; sums in between rest in their buffers.

use std::marker::PhantomData;
use std::ops::Range;

use super::Simd;
use super::tile::{Element, LINE, PAIR, Raw, TileLayout};
use crate::isa::Isa;
use crate::number_format::NumberFormat;

/// Takes sums.
pub(crate) trait Epilogue<S: Simd> {
    /// Sums of pair `j` of tiles, `rows` of each wanted, with pair `p` of panels; `sums[tile][row][column]`.
    fn apply(&mut self, s: S, p: usize, j: usize, rows: [usize; 2], sums: &[f32]);
}

/// Which rows a pair of tiles holds.
#[derive(Clone, Copy)]
pub(crate) enum Pairs {
    /// So many rows, one tile after the other.
    Rows(usize),
    /// So many rows in the first tiles of the pairs, and as many in the second ones.
    Halves(usize),
}

impl Pairs {
    /// How many there are.
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

/// Bytes of all panels below which they stay in the first-level cache, so that rows of A need pass by only once.
const NEAR: usize = 20 << 10;

/// Tile products of one thread, ready as long as this lives.
struct Ready<S: Simd, F: Element>(S, PhantomData<(*const (), F)>);

impl<S: Simd, F: Element> Drop for Ready<S, F> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.release::<F>();
    }
}

/// A times B over the words `k` of k (whole lines, where lines are the unit): tiles of A as `pairs` says, the pairs of panels `panels` of B. `sums`: [`sums_len`] of the number of pairs.
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
    let (mr, count) = (layout.mr, pairs.count(layout.mr));
    assert!(
        layout.lines == (s.line_words::<F>() > 1) && mr <= s.tile_rows::<F>(),
        "operands of another instruction set"
    );
    assert!(k.start <= k.end && k.end <= layout.groups, "words beyond k");
    assert!(!layout.lines || [k.start, k.end, layout.groups].iter().all(|g| g.is_multiple_of(LINE)), "not whole lines");
    let tile = mr * layout.groups;
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
    // one more buffer than are being added to, so that the last one can be read meanwhile
    let ring = if slabs > 1 { count + 1 } else { 2 };
    assert!(sums.len() >= ring * PAIR, "no room for the sums");
    s.configure::<F>(mr);
    let _ready = Ready::<S, F>(s, PhantomData);
    // of B the pair `p` and of A the pair `j` of tiles, over one slab
    macro_rules! pair {
        ($p:expr, $j:expr, $slab:expr, $buffer:expr) => {{
            let (p, j, first) = ($p, $j, k.start + $slab * slab);
            let groups = slab.min(k.end - first);
            let rows = pairs.rows(j, mr);
            #[cfg(test)]
            super::tile::counted::add(
                rows.iter().filter(|r| **r > 0).map(|r| if layout.lines { mr } else { *r }).sum::<usize>()
                    * super::tile::NR * groups * F::FORMAT.per_word(),
            );
            let at = 2 * j * tile + layout.a(0, first);
            // what comes next, of which each turn asks for a part; else its own rows, which harms nobody
            let ask = PREFETCH * groups;
            let prefetch = if near && (p - panels.start) * PREFETCH < 2 * mr {
                a.as_ptr().wrapping_add(at + 2 * tile + (p - panels.start) * ask)
            } else if !near && j < 2 {
                let next = if $slab + 1 < slabs { layout.b(2 * p, first + slab) } else { layout.b(2 * (p + 1), k.start) };
                b.as_ptr().wrapping_add(next + j * ask)
            } else {
                a[at..].as_ptr()
            };
            let raw = Raw {
                a: [a[at..].as_ptr(), if rows[1] > 0 { a[at + tile..].as_ptr() } else { std::ptr::null() }],
                rows,
                b: [b[layout.b(2 * p, first)..].as_ptr(), b[layout.b(2 * p + 1, first)..].as_ptr()],
                stride: layout.groups,
                mr,
                groups,
                c: sums[$buffer * PAIR..($buffer + 1) * PAIR].as_mut_ptr(),
                more: $slab > 0,
                prefetch,
            };
            // SAFETY: tiles, panels, words and sums are within their slices, as checked above; tiles are configured on this thread.
            unsafe { s.pair::<F>(raw) }
            rows
        }};
    }
    let mut waiting: Option<(usize, usize, [usize; 2], usize)> = None;
    let mut position = 0;
    macro_rules! hand_over {
        ($p:expr, $j:expr, $rows:expr, $buffer:expr) => {
            if let Some((p, j, rows, buffer)) = waiting.replace(($p, $j, $rows, $buffer)) {
                epilogue.apply(s, p, j, rows, &sums[buffer * PAIR..(buffer + 1) * PAIR]);
            }
        };
    }
    if k.is_empty() {
        sums[..PAIR].fill(0.0);
        for (p, j) in panels.flat_map(|p| (0..count).map(move |j| (p, j))) {
            epilogue.apply(s, p, j, pairs.rows(j, mr), &sums[..PAIR]);
        }
        return;
    }
    if near {
        for j in 0..count {
            for p in panels.start..panels.end {
                let rows = pair!(p, j, 0, position % 2);
                hand_over!(p, j, rows, position % 2);
                position += 1;
            }
        }
    } else {
        for p in panels.start..panels.end {
            for slab in 0..slabs {
                for j in 0..count {
                    let buffer = (position + j) % ring;
                    let rows = pair!(p, j, slab, buffer);
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

/// Words that a pair of tiles asks for ahead for each word of k: a line.
const PREFETCH: usize = LINE;
