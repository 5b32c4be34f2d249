//! Runs the steps of a plan: one kernel call each, over numbered buffers.
//!
//! In: steps, weights, indices, a number of rows. Out: buffers, changed in place. Must not: allocate; every buffer has room for the
//! whole capacity from the start. (Kernels pack into scratch memory of each thread, which grows to the largest
//! size that it has met and stays: in the first steps, and with experts when one gets more rows than any before.)

use ergometer_kernels as kernels;
use ergometer_kernels::{ActivationKind, Context, Heads, Mask, NumberFormat, RopeTables, Routes};

use super::weights::Weights;
use crate::backends::Routing;

/// A value's place: a buffer and how many elements of it a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loc {
    /// Number of the buffer.
    pub buffer: usize,
    /// Elements per row.
    pub len: usize,
}

/// What one step does. Weights and inputs are numbers; `out` is never an operand unless its text says so.
#[derive(Clone, Debug)]
pub(super) enum Instruction {
    /// Rows of a table times a factor.
    Embed { input: usize, table: usize, factor: f32, features: usize, out: Loc },
    /// One row of a table, then zeros.
    EmbedPrefix { input: usize, table: usize, width: usize, out: Loc },
    /// out = x
    Copy { x: Loc, out: Loc },
    /// Elements `from..from + width` of each row of x to `to..` of each row of out.
    CopyPart { x: Loc, from: usize, width: usize, to: usize, out: Loc },
    /// out = x + y; `out` may be x
    Add { x: Loc, y: Loc, out: Loc },
    /// x += table on every row
    AddPositions { x: Loc, table: usize },
    /// x *= factor
    Scale { x: Loc, factor: f32 },
    /// x = f(x)
    Activate { x: Loc, kind: ActivationKind },
    /// out = x·Wᵀ + b
    Linear { x: Loc, weight: usize, bias: Option<usize>, out: Loc },
    /// out = rms(out + x·Wᵀ)
    LinearNorm { x: Loc, weight: usize, eps: f32, out: Loc },
    /// Gated MLP along the features with residual and norm, or neither; `out` may be x
    GatedMlp { x: Loc, up: usize, down: usize, norm: Option<f32>, out: Loc },
    /// The same along the tokens, features `d` wide; `out` may be x
    TokenMlp { x: Loc, up: usize, down: usize, norm: Option<f32>, d: usize, out: Loc },
    /// out = rms(x + residual) over features; `out` may be x
    RmsNorm { x: Loc, residual: Option<Loc>, gain: Option<usize>, eps: f32, d: usize, out: Loc },
    /// x = rms(x + residual) over tokens
    RmsNormTokens { x: Loc, residual: Option<Loc>, eps: f32, d: usize },
    /// x = layer norm of x
    LayerNorm { x: Loc, gain: usize, bias: Option<usize>, eps: f32, d: usize },
    /// Attention of packed rows, with rotary embedding where there is a table of it.
    Attend { x: Loc, format: NumberFormat, heads: Heads, rope: Option<usize>, mask: Mask, scale: f32, out: Loc },
    /// The same of `tokens` rows of x times a weight.
    Project {
        x: Loc,
        weight: usize,
        tokens: usize,
        format: NumberFormat,
        rope: Option<usize>,
        mask: Mask,
        scale: f32,
        out: Loc,
    },
    /// Routes tokens by their scores; what follows refers to the same routes.
    Route { scores: Loc, routes: usize },
    /// out = the tokens' rows of x (`n` wide), side by side for each expert
    Gather { x: Loc, routes: usize, n: usize, out: Loc },
    /// x = the gated MLP of each expert for its rows, with the weights from `up` and `down` on
    Experts { x: Loc, routes: usize, up: usize, down: usize, experts: usize },
    /// out = the weighted sum of each token's rows of x (`n` wide)
    Combine { x: Loc, routes: usize, n: usize, out: Loc },
    /// Runs the next `len` steps `times` times.
    Repeat { times: usize, len: usize },
}

impl Instruction {
    /// Name in profiles.
    pub fn name(&self) -> &'static str {
        match self {
            Instruction::Embed { .. } | Instruction::EmbedPrefix { .. } => "embed",
            Instruction::Copy { .. } | Instruction::CopyPart { .. } => "copy",
            Instruction::Add { .. } | Instruction::AddPositions { .. } => "add",
            Instruction::Scale { .. } => "scale",
            Instruction::Activate { .. } => "activate",
            Instruction::Linear { .. } => "linear",
            Instruction::LinearNorm { .. } => "linear_norm",
            Instruction::GatedMlp { .. } => "gated_mlp",
            Instruction::TokenMlp { .. } => "token_mlp",
            Instruction::RmsNorm { .. } => "rms_norm",
            Instruction::RmsNormTokens { .. } => "rms_norm_tokens",
            Instruction::LayerNorm { .. } => "layer_norm",
            Instruction::Attend { .. } => "attend",
            Instruction::Project { .. } => "project_attend",
            Instruction::Route { .. } => "route",
            Instruction::Gather { .. } => "gather",
            Instruction::Experts { .. } => "experts",
            Instruction::Combine { .. } => "combine",
            Instruction::Repeat { .. } => "repeat",
        }
    }
}

/// The buffers, each on a cache line of its own.
pub(super) struct Arena {
    buffers: Vec<Buffer>,
    routes: Vec<Routes>,
    /// Counts of each mixture, while somebody wants them.
    pub watched: Option<Vec<Routing>>,
}

/// Sizes of a mixture of experts' routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct MixtureSizes {
    pub experts: usize,
    pub top_k: usize,
    /// Tokens of a row.
    pub tokens: usize,
}

#[derive(Default)]
struct Buffer {
    data: Vec<f32>,
    /// First aligned element.
    start: usize,
}

/// Elements in a cache line.
const LINE: usize = 16;

impl Arena {
    /// Buffers of `sizes[i] * rows` zeros, written once so that their pages are mapped.
    ///
    /// # Errors
    /// The number of bytes that cannot be had.
    pub fn new(sizes: &[usize], rows: usize) -> Result<Arena, String> {
        let mut buffers = Vec::with_capacity(sizes.len());
        for &size in sizes {
            let wanted = size.checked_mul(rows).and_then(|n| n.checked_add(LINE));
            let mut data = Vec::new();
            if wanted.is_none_or(|n| data.try_reserve_exact(n).is_err()) {
                return Err(format!("no memory for a buffer of {size} values for each of {rows} rows"));
            }
            data.resize(wanted.unwrap_or(0), 0.0f32);
            let start = data.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
            buffers.push(Buffer { data, start });
        }
        Ok(Arena { buffers, routes: Vec::new(), watched: None })
    }

    /// Routes of these mixtures for `rows` rows.
    pub fn route(&mut self, mixtures: &[MixtureSizes], rows: usize) {
        self.routes = mixtures.iter().map(|m| Routes::new(m.experts, m.top_k, m.tokens * rows)).collect();
    }

    /// Memory of the buffers.
    pub fn bytes(&self) -> usize {
        self.buffers.iter().map(|b| size_of_val(&b.data[..])).sum()
    }

    /// A value's elements, `rows` rows.
    pub fn get(&self, at: Loc, rows: usize) -> &[f32] {
        let buffer = &self.buffers[at.buffer];
        &buffer.data[buffer.start..][..rows * at.len]
    }

    /// The same to be written.
    pub fn get_mut(&mut self, at: Loc, rows: usize) -> &mut [f32] {
        let buffer = &mut self.buffers[at.buffer];
        &mut buffer.data[buffer.start..][..rows * at.len]
    }

    /// Lends `out` to be written while all other buffers can be read.
    pub fn with(&mut self, out: Loc, rows: usize, f: impl FnOnce(&Arena, &mut [f32])) {
        let mut buffer = std::mem::take(&mut self.buffers[out.buffer]);
        f(self, &mut buffer.data[buffer.start..][..rows * out.len]);
        self.buffers[out.buffer] = buffer;
    }

    /// Moves rows `keep` (ascending) of a value to the front.
    pub fn compact(&mut self, at: Loc, keep: &[usize]) {
        let buffer = &mut self.buffers[at.buffer];
        for (to, &from) in keep.iter().enumerate().filter(|(to, from)| to != *from) {
            let from = buffer.start + from * at.len;
            buffer.data.copy_within(from..from + at.len, buffer.start + to * at.len);
        }
    }

    /// Address and size of every buffer, to see that none moves.
    #[cfg(test)]
    pub fn addresses(&self) -> Vec<(usize, usize)> {
        self.buffers.iter().map(|b| (b.data.as_ptr() as usize, b.data.capacity())).collect()
    }
}

/// What a run reads.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// Threads and instruction set.
    pub ctx: &'a Context,
    /// By number.
    pub weights: &'a Weights,
    /// Indices per input of the graph, `[rows, tokens]`.
    pub inputs: &'a [&'a [u32]],
    /// Rows.
    pub rows: usize,
}

impl Run<'_> {
    /// Runs steps in order. `seen` is told of every step that has run.
    pub fn steps(self, mut steps: &[Instruction], memory: &mut Arena, seen: &mut impl FnMut(&'static str)) {
        while let Some((step, rest)) = steps.split_first() {
            steps = rest;
            if let Instruction::Repeat { times, len } = *step {
                let (body, rest) = rest.split_at(len);
                for _ in 0..times {
                    self.steps(body, memory, seen);
                }
                steps = rest;
            } else {
                self.step(step, memory);
                seen(step.name());
            }
        }
    }

    /// Operations of these steps in products, as the kernels pad them. (Of experts the rows are counted as they are, since how tiles pad them hangs on the routes.)
    pub fn flops(self, mut steps: &[Instruction]) -> f64 {
        let Run { ctx, weights: Weights { linear, tokens, heads, .. }, rows, .. } = self;
        let mut sum = 0.0;
        while let Some((step, rest)) = steps.split_first() {
            steps = rest;
            sum += match *step {
                Instruction::Linear { out, weight, .. } => {
                    let w = &linear[weight];
                    kernels::linear_operations(ctx, rows * out.len / w.n().max(1), w)
                }
                Instruction::LinearNorm { out, weight, .. } => {
                    let w = &linear[weight];
                    kernels::linear_norm_operations(ctx, rows * out.len / w.n().max(1), w)
                }
                Instruction::GatedMlp { x, up, down, .. } => {
                    let m = rows * x.len / linear[up].k().max(1);
                    kernels::gated_mlp_operations(ctx, m, &linear[up], &linear[down])
                }
                Instruction::TokenMlp { up, down, d, .. } => {
                    kernels::token_mlp_operations(ctx, rows, &tokens[up], &tokens[down], d)
                }
                Instruction::Attend { x, format, heads, mask, .. } => {
                    rows as f64 * kernels::attention_operations(ctx, format, x.len / heads.row(), heads, mask)
                }
                Instruction::Project { weight, tokens, format, mask, .. } => {
                    let w = &heads[weight];
                    rows as f64 * kernels::projected_attention_operations(ctx, format, w, tokens, mask)
                }
                // every token goes to as many experts, whichever they are
                Instruction::Experts { x, up, down, .. } => {
                    let m = rows * x.len / linear[up].k().max(1);
                    linear[up].operations(m) + linear[down].operations(m)
                }
                Instruction::Repeat { times, len } => {
                    let (body, rest) = rest.split_at(len);
                    steps = rest;
                    times as f64 * self.flops(body)
                }
                _ => 0.0,
            };
        }
        sum
    }

    // Over 80 lines: one short arm for each instruction, which the compiler checks for completeness.
    fn step(self, step: &Instruction, memory: &mut Arena) {
        let Run { ctx, weights, inputs, rows } = self;
        let plain = |i: Option<usize>| i.map(|i| &weights.plain[i][..]);
        let tables = |rope: Option<usize>| {
            rope.map(|table| RopeTables { cos: &weights.ropes[table][0], sin: &weights.ropes[table][1] })
        };
        match *step {
            Instruction::Embed { input, table, factor, features, out } => {
                let out = memory.get_mut(out, rows);
                kernels::embed(ctx, inputs[input], &weights.plain[table], factor, features, out);
            }
            Instruction::EmbedPrefix { input, table, width, out } => {
                let table = &weights.plain[table];
                for (&index, row) in inputs[input].iter().zip(memory.get_mut(out, rows).chunks_exact_mut(out.len)) {
                    row[..width].copy_from_slice(&table[index as usize * width..][..width]);
                    row[width..].fill(0.0);
                }
            }
            Instruction::Copy { x, out } => memory.with(out, rows, |m, out| kernels::copy(ctx, m.get(x, rows), out)),
            Instruction::CopyPart { x, from, width, to, out } => memory.with(out, rows, |m, values| {
                kernels::copy_rows(&m.get(x, rows)[from..], x.len, &mut values[to..], out.len, width, rows);
            }),
            Instruction::Add { x, y, out } if x.buffer == out.buffer => {
                memory.with(out, rows, |m, x| kernels::add_in_place(ctx, x, m.get(y, rows)));
            }
            Instruction::Add { x, y, out } => {
                memory.with(out, rows, |m, out| kernels::add(ctx, m.get(x, rows), m.get(y, rows), out));
            }
            Instruction::AddPositions { x, table } => {
                kernels::add_rows(ctx, memory.get_mut(x, rows), &weights.plain[table]);
            }
            Instruction::Scale { x, factor } => kernels::scale(ctx, memory.get_mut(x, rows), factor),
            Instruction::Activate { x, kind } => kernels::activation(ctx, kind, memory.get_mut(x, rows)),
            Instruction::Linear { x, weight, bias, out } => memory.with(out, rows, |m, out| {
                kernels::linear(ctx, m.get(x, rows), &weights.linear[weight], plain(bias), out);
            }),
            Instruction::LinearNorm { x, weight, eps, out } => memory.with(out, rows, |m, out| {
                kernels::linear_norm(ctx, m.get(x, rows), &weights.linear[weight], eps, out);
            }),
            Instruction::GatedMlp { x, up, down, norm, out } => memory.with(out, rows, |m, values| {
                let x = (x.buffer != out.buffer).then(|| m.get(x, rows));
                kernels::gated_mlp(ctx, x, &weights.linear[up], &weights.linear[down], norm, values);
            }),
            Instruction::TokenMlp { x, up, down, norm, d, out } => memory.with(out, rows, |m, values| {
                let x = (x.buffer != out.buffer).then(|| m.get(x, rows));
                kernels::token_mlp(ctx, x, &weights.tokens[up], &weights.tokens[down], norm, d, values);
            }),
            Instruction::RmsNorm { x, residual, gain, eps, d, out } => memory.with(out, rows, |m, values| {
                let residual = residual.map(|r| m.get(r, rows));
                if x.buffer == out.buffer {
                    kernels::rms_norm_in_place(ctx, values, residual, plain(gain), eps, d);
                } else {
                    kernels::rms_norm(ctx, m.get(x, rows), residual, plain(gain), eps, d, values);
                }
            }),
            Instruction::RmsNormTokens { x, residual, eps, d } => memory.with(x, rows, |m, values| {
                kernels::rms_norm_tokens(ctx, values, residual.map(|r| m.get(r, rows)), eps, x.len / d, d);
            }),
            Instruction::LayerNorm { x, gain, bias, eps, d } => {
                kernels::layer_norm(ctx, memory.get_mut(x, rows), plain(Some(gain)), plain(bias), eps, d);
            }
            Instruction::Project { x, weight, tokens, format, rope, mask, scale, out } => {
                memory.with(out, rows, |m, out| {
                    let w = &weights.heads[weight];
                    kernels::projected_attention(
                        ctx,
                        format,
                        m.get(x, rows),
                        w,
                        tokens,
                        tables(rope),
                        mask,
                        scale,
                        out,
                    );
                })
            }
            Instruction::Attend { x, format, heads, rope, mask, scale, out } => memory.with(out, rows, |m, out| {
                let rope = tables(rope);
                kernels::attention(ctx, format, m.get(x, rows), x.len / heads.row(), heads, rope, mask, scale, out);
            }),
            Instruction::Route { scores, routes } => {
                // taken out, so that both can be changed while the scores are read
                let (mut all, mut watched) = (std::mem::take(&mut memory.routes), memory.watched.take());
                let scores = memory.get(scores, rows);
                all[routes].route(ctx, scores);
                if let Some(watched) = &mut watched {
                    watched[routes].count(scores, all[routes].top_k());
                }
                (memory.routes, memory.watched) = (all, watched);
            }
            Instruction::Gather { x, routes, n, out } => {
                memory.with(out, rows, |m, out| m.routes[routes].gather(ctx, m.get(x, rows), n, out));
            }
            Instruction::Experts { x, routes, up, down, experts } => memory.with(x, rows, |m, values| {
                let (up, down) = (&weights.linear[up..up + experts], &weights.linear[down..down + experts]);
                m.routes[routes].experts(ctx, up, down, values);
            }),
            Instruction::Combine { x, routes, n, out } => {
                memory.with(out, rows, |m, out| m.routes[routes].combine(ctx, m.get(x, rows), n, out));
            }
            Instruction::Repeat { .. } => unreachable!("handled where steps run"),
        }
    }
}
