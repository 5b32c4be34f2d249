//! The vector body of the gated MLP along the tokens, over the shared product: tokens are packed as panels, weights are
//! rows.

use crate::linear::pack::PackedTokens;
use crate::matrix::{MatMut, MatRef, floats_mut};
use crate::norm;
use crate::number_format::NumberFormat;
use crate::vector::operand::{ColumnScales, RowSource, pack_panels, row, value};
use crate::vector::product::{Epilogue, Pairs, TilePair, product, sums_len};
use crate::vector::tile::{Bf16, Element, F32, Int8, NR, PANEL, TileLayout};
use crate::vector::{Simd, math};

/// Pairs of panels of tokens that are multiplied together, so that rows of weights are read half as often.
const TOGETHER: usize = 2;

/// Words of scratch memory: sums, panels of tokens, panels of hidden values, and of int8 hidden values before they are
/// rounded.
pub(super) fn memory(up: &PackedTokens, down: &PackedTokens) -> usize {
    let (isa, format) = (up.isa, up.format);
    let counts = (up.n / 2).div_ceil(up.layout.mr).max(1);
    let above = sums_len(isa, format, counts, up.layout.groups);
    let below = sums_len(isa, format, down.n.div_ceil(2 * down.layout.mr), down.layout.groups);
    let unrounded = if format == NumberFormat::Int8 { down.t * NR } else { 0 };
    above.max(below) + TOGETHER * (NR * (up.layout.groups + down.layout.groups) + unrounded)
}

/// As the scalar reference.
#[inline(always)]
pub(super) fn tokens<S: Simd>(
    s: S,
    x: Option<MatRef<'_>>,
    up: &PackedTokens,
    down: &PackedTokens,
    norm: Option<f32>,
    out: MatMut<'_>,
    memory: &mut [u32],
) {
    match up.format {
        NumberFormat::F32 => columns_of::<S, F32>(s, x, up, down, norm, out, memory),
        NumberFormat::Bf16 => columns_of::<S, Bf16>(s, x, up, down, norm, out, memory),
        NumberFormat::Int8 => columns_of::<S, Int8>(s, x, up, down, norm, out, memory),
    }
}

#[inline(always)]
fn columns_of<S: Simd, F: Element>(
    s: S,
    x: Option<MatRef<'_>>,
    up: &PackedTokens,
    down: &PackedTokens,
    norm: Option<f32>,
    mut out: MatMut<'_>,
    memory: &mut [u32],
) {
    let (t, inner, per) = (up.t, down.t, F::FORMAT.per_word());
    let (above, below) = (up.layout, down.layout);
    let (panels, memory) = memory.split_at_mut(above.b_words(TOGETHER));
    let (hidden, memory) = memory.split_at_mut(below.b_words(TOGETHER));
    let unrounded = if F::FORMAT == NumberFormat::Int8 { TOGETHER * inner * NR } else { 0 };
    let (unrounded, sums) = memory.split_at_mut(unrounded);
    let (unrounded, sums) = (floats_mut(unrounded), floats_mut(sums));
    let mut columns = [ColumnScales::new(); TOGETHER];
    for column in (0..out.cols()).step_by(TOGETHER * NR) {
        let pairs = (out.cols() - column).div_ceil(NR).min(TOGETHER);
        for (p, columns) in columns.iter_mut().enumerate().take(pairs) {
            let from = x.map_or(RowSource::Own(&out), RowSource::Rows);
            pack_panels::<S, F>(s, from, column + p * NR, t, above, p, panels, columns);
        }
        if F::FORMAT == NumberFormat::Bf16 {
            // the padding of hidden tokens for tiles must not be NaN
            for (p, g) in (0..2 * pairs).flat_map(|p| (inner.div_ceil(per)..below.groups).map(move |g| (p, g))) {
                hidden[below.b(p, g)..][..PANEL].fill(0);
            }
        }
        let mut epilogue = GatedTokens::<F> {
            up,
            columns: &columns,
            below,
            hidden,
            unrounded,
            inner,
            format: std::marker::PhantomData,
        };
        let (halves, k) = (Pairs::Halves(inner), 0..above.groups);
        product::<S, F, _>(s, above, &up.data, halves, panels, 0..pairs, k, sums, &mut epilogue);
        if F::FORMAT == NumberFormat::Int8 {
            for (p, columns) in columns.iter_mut().enumerate().take(pairs) {
                let from = RowSource::Rows(MatRef::new(&unrounded[p * inner * NR..], NR));
                pack_panels::<S, F>(s, from, 0, inner, below, p, hidden, columns);
            }
        }
        let mut epilogue = TokenOutputs::<F> {
            down,
            columns: &columns,
            add: norm.is_some(),
            x,
            column,
            out: &mut out,
            format: std::marker::PhantomData,
        };
        let (rows, k) = (Pairs::Rows(t), 0..below.groups);
        product::<S, F, _>(s, below, &down.data, rows, hidden, 0..pairs, k, sums, &mut epilogue);
    }
    if let Some(eps) = norm {
        norm::vector::rms_columns(s, None, eps, out);
    }
}

/// Makes hidden values of sums, gates in the first tile of a pair: rows are hidden tokens, and become words of B.
struct GatedTokens<'a, F: Element> {
    up: &'a PackedTokens,
    columns: &'a [ColumnScales; TOGETHER],
    below: TileLayout,
    hidden: &'a mut [u32],
    unrounded: &'a mut [f32],
    inner: usize,
    format: std::marker::PhantomData<F>,
}

impl<S: Simd, F: Element> Epilogue<S> for GatedTokens<'_, F> {
    #[inline(always)]
    fn apply(&mut self, s: S, p: usize, tiles: TilePair, [gates, rest]: [&[f32]; 2]) {
        let (first, rows) = (tiles.first[0], tiles.rows[0]);
        let step = if F::FORMAT == NumberFormat::Bf16 { 2 } else { 1 };
        for r in (0..rows).step_by(step) {
            let (i, g0, u0) = (first + r, row(gates, r), row(rest, r));
            match F::FORMAT {
                NumberFormat::F32 | NumberFormat::Bf16 => {
                    let word = i / step;
                    let at = [self.below.b(2 * p, word), self.below.b(2 * p + 1, word)];
                    // the last of an odd number of rows has no partner
                    let (g1, u1) = if r + 1 < rows { (row(gates, r + 1), row(rest, r + 1)) } else { (NONE, NONE) };
                    let hidden = floats_mut(self.hidden);
                    for v in (0..NR).step_by(S::LANES) {
                        let to = &mut hidden[at[v / PANEL] + v % PANEL..][..S::LANES];
                        let (g, u) = (s.load(&g0[v..]), s.load(&u0[v..]));
                        if F::FORMAT == NumberFormat::F32 {
                            s.store(to, s.mul(math::silu(s, g), u));
                        } else {
                            let low = s.mul(math::silu_rough(s, g), u);
                            let high = s.mul(math::silu_rough(s, s.load(&g1[v..])), s.load(&u1[v..]));
                            s.store(to, s.pair_bf16(low, high));
                        }
                    }
                }
                NumberFormat::Int8 => {
                    let to = &mut self.unrounded[(p * self.inner + i) * NR..][..NR];
                    let (gate, up) = (self.up.scale(i), self.up.scale(self.inner + i));
                    let columns = &self.columns[p];
                    for v in (0..NR).step_by(S::LANES) {
                        let (scales, offsets) = (&columns.scales[v..], &columns.offsets[v..]);
                        let g = value::<S, F>(s, &g0[v..], gate, scales, offsets);
                        let u = value::<S, F>(s, &u0[v..], up, scales, offsets);
                        s.store(&mut to[v..], s.mul(math::silu_rough(s, g), u));
                    }
                }
            }
        }
    }
}

/// A row of zeros.
const NONE: &[f32; NR] = &[0.0; NR];

/// Makes outputs of sums, plus x where a norm follows.
struct TokenOutputs<'a, 'b, F: Element> {
    down: &'a PackedTokens,
    columns: &'a [ColumnScales; TOGETHER],
    add: bool,
    x: Option<MatRef<'a>>,
    column: usize,
    out: &'a mut MatMut<'b>,
    format: std::marker::PhantomData<F>,
}

impl<S: Simd, F: Element> Epilogue<S> for TokenOutputs<'_, '_, F> {
    #[inline(always)]
    fn apply(&mut self, s: S, p: usize, tiles: TilePair, sums: [&[f32]; 2]) {
        let (column, columns) = (self.column + p * NR, &self.columns[p]);
        for (t, sums) in sums.into_iter().enumerate() {
            for r in 0..tiles.rows[t] {
                let (i, sums) = (tiles.first[t] + r, row(sums, r));
                let scale = self.down.scale(i);
                let to = &mut self.out.row(i)[column..];
                for v in (0..NR).step_by(S::LANES) {
                    if v >= to.len() {
                        break;
                    }
                    let mut y = value::<S, F>(s, &sums[v..], scale, &columns.scales[v..], &columns.offsets[v..]);
                    if self.add {
                        let before = match self.x {
                            Some(x) => s.load(&x.row(i)[column + v..]),
                            None => s.load(&to[v..]),
                        };
                        y = s.add(before, y);
                    }
                    s.store(&mut to[v..], y);
                }
            }
        }
    }
}
