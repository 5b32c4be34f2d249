//! Tests of a step through all layers. In: random layers of every kind and format, sequences of unlike length. Out: for each
//! instruction set and number of threads the bits of the operators one after another, in the logits and, since a second step
//! follows, in the caches.

use crate::blocks::tests::rows;
use crate::tests::{Draw, bits, context};
use crate::*;

/// Width, numbers in a head, key heads, query heads of each, and what lies between gate and down.
const SHAPES: [(usize, usize, usize, usize, usize); 6] = [
    (64, 32, 1, 1, 32),
    (96, 32, 3, 3, 160),
    (160, 64, 2, 7, 96),
    // whole blocks of 256
    (256, 64, 2, 2, 512),
    (256, 64, 1, 4, 256),
    (256, 128, 1, 2, 256),
];
/// What the head gives.
const OUTPUTS: usize = 53;

struct Norms {
    gain: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Norms {
    fn draw(d: &mut Draw, width: usize, centred: bool) -> Norms {
        let gain = d.values(width).to_vec();
        Norms { gain, bias: centred.then(|| d.values(width).to_vec()) }
    }

    fn of(&self) -> RowNorm<'_> {
        RowNorm { gain: &self.gain, bias: self.bias.as_deref(), eps: 1e-5 }
    }

    fn apply(&self, ctx: &Context, x: &mut [f32]) {
        match &self.bias {
            Some(bias) => layer_norm(ctx, x, Some(&self.gain), Some(bias), 1e-5, self.gain.len()),
            None => rms_norm_in_place(ctx, x, None, Some(&self.gain), 1e-5, self.gain.len()),
        }
    }
}

/// Format, rows, n, k.
type Weight = (BlockFormat, Vec<u8>, usize, usize);

/// A layer as a file has it; packed for each context.
struct Layer {
    weights: [Vec<Weight>; 4],
    norms: [Option<Norms>; 4],
    gains: Option<(Vec<f32>, Vec<f32>)>,
    turns: bool,
    scores: CachedScores,
    kind: ActivationKind,
}

struct Net {
    shape: (usize, usize, usize, usize, usize),
    layers: Vec<Layer>,
    last: Norms,
    head: Weight,
    cache: NumberFormat,
    rows: usize,
    /// Tokens that each sequence has before.
    past: Vec<usize>,
    turns: (Vec<f32>, Vec<f32>),
    d: Draw,
}

fn weight(d: &mut Draw, n: usize, k: usize) -> Weight {
    let fitting: Vec<BlockFormat> = BlockFormat::ALL.into_iter().filter(|f| k.is_multiple_of(f.block_len())).collect();
    let format = fitting[d.next() as usize % fitting.len()];
    (format, rows(d, format, n, k), n, k)
}

impl Net {
    fn draw(seed: u64) -> Net {
        let mut d = Draw { batch: 0, a: 0, b: 0, c: 0, seed, special: false, flush: false };
        let shape = SHAPES[d.next() as usize % SHAPES.len()];
        let (width, dim, kv, group, inner) = shape;
        let mut layers = Vec::new();
        for _ in 0..2 {
            let (centred, after) = (d.next().is_multiple_of(4), d.next().is_multiple_of(3));
            let queries = kv * group * dim;
            let (q, rest) = (weight(&mut d, queries, width), weight(&mut d, 2 * kv * dim, width));
            let gates = match d.next() % 2 {
                0 => vec![weight(&mut d, 2 * inner, width)],
                _ => vec![weight(&mut d, inner, width), weight(&mut d, inner, width)],
            };
            let (out, down) = (weight(&mut d, width, queries), weight(&mut d, width, inner));
            let mut norm = |is: bool| is.then(|| Norms::draw(&mut d, width, centred));
            let norms = [norm(true), norm(after), norm(true), norm(after)];
            layers.push(Layer {
                weights: [vec![q, rest], vec![out], gates, vec![down]],
                norms,
                gains: d.next().is_multiple_of(2).then(|| (d.values(dim).to_vec(), d.values(dim).to_vec())),
                turns: !d.next().is_multiple_of(3),
                scores: CachedScores {
                    scale: 0.2,
                    soft_cap: d.next().is_multiple_of(3).then_some(2.5),
                    window: d.next().is_multiple_of(3).then_some(9),
                },
                kind: [ActivationKind::Silu, ActivationKind::GeluTanh][d.next() as usize % 2],
            });
        }
        let rows = 1 + d.next() as usize % 5;
        let past = (0..rows).map(|_| d.next() as usize % 80).collect();
        let turns = (d.values(rows * dim / 2).to_vec(), d.values(rows * dim / 2).to_vec());
        let cache = [NumberFormat::F32, NumberFormat::Bf16][d.next() as usize % 2];
        let (last, head) = (Norms::draw(&mut d, width, false), weight(&mut d, OUTPUTS, width));
        Net { shape, layers, last, head, cache, rows, past, turns, d }
    }

    /// Caches of each layer, of each row.
    fn caches(&self) -> Vec<Vec<KvCache>> {
        let (_, dim, kv, ..) = self.shape;
        let mut d = self.d;
        let mut filled = |past: &usize| {
            let mut cache = KvCache::new(kv, dim, 100, self.cache);
            cache.append(&d.values(past * kv * dim), &d.values(past * kv * dim));
            cache
        };
        self.layers.iter().map(|_| self.past.iter().map(&mut filled).collect()).collect()
    }

    fn turns(&self) -> HeadTurns<'_> {
        let interleaved = self.d.seed.is_multiple_of(2);
        HeadTurns { cos: &self.turns.0, sin: &self.turns.1, pairs: self.shape.1 / 2, interleaved }
    }

    fn input(&self) -> Vec<f32> {
        let mut d = self.d;
        d.values(self.rows * self.shape.0).to_vec()
    }

    /// Two steps at once through all layers.
    fn steps(&self, ctx: &Context) -> Vec<u32> {
        let pack = |all: &[Weight]| -> Vec<PackedBlocks> {
            all.iter().map(|(format, rows, n, k)| PackedBlocks::pack(ctx, *format, rows, *n, *k)).collect()
        };
        let packed: Vec<[Vec<PackedBlocks>; 4]> =
            self.layers.iter().map(|l| [0, 1, 2, 3].map(|i| pack(&l.weights[i]))).collect();
        let head = pack(std::slice::from_ref(&self.head));
        let layers: Vec<StackLayer> = self
            .layers
            .iter()
            .zip(&packed)
            .map(|(l, [qkv, output, gate_up, down])| StackLayer {
                attention_norm: l.norms[0].as_ref().expect("always").of(),
                qkv,
                head_gains: l.gains.as_ref().map(|(q, k)| HeadGains { q, k, eps: 1e-5 }),
                turns: l.turns.then(|| self.turns()),
                scores: l.scores,
                output,
                output_norm: l.norms[1].as_ref().map(Norms::of),
                mlp_norm: l.norms[2].as_ref().expect("always").of(),
                kind: l.kind,
                gate_up,
                down,
                down_norm: l.norms[3].as_ref().map(Norms::of),
            })
            .collect();
        assert!(layers.iter().all(|l| l.fits(ctx, self.shape.2, self.shape.1)));
        let (mut caches, mut logits) = (self.caches(), vec![f32::NAN; self.rows * OUTPUTS]);
        let mut all = Vec::new();
        for _ in 0..2 {
            let held = caches.iter_mut().map(|layer| layer.iter_mut().collect()).collect();
            let last = StackHead { norm: self.last.of(), head: &head };
            layers_step(ctx, &layers, held, &last, &self.input(), &mut logits);
            all.extend(bits(&logits));
        }
        all
    }

    /// The same by one operator after another.
    fn operators(&self, ctx: &Context) -> Vec<u32> {
        let (width, dim, kv, group, inner) = self.shape;
        let product = |x: &[f32], weights: &[Weight]| {
            let packed: Vec<PackedBlocks> =
                weights.iter().map(|(format, rows, n, k)| PackedBlocks::pack(ctx, *format, rows, *n, *k)).collect();
            let mut out = vec![f32::NAN; self.rows * weights.iter().map(|w| w.2).sum::<usize>()];
            blocks_joined(ctx, x, &packed.iter().collect::<Vec<_>>(), &mut out);
            out
        };
        let (mut caches, mut all) = (self.caches(), Vec::new());
        for _ in 0..2 {
            let mut x = self.input();
            for (l, caches) in self.layers.iter().zip(&mut caches) {
                let normed = |x: &[f32], norm: usize| {
                    let mut out = x.to_vec();
                    l.norms[norm].iter().for_each(|norm| norm.apply(ctx, &mut out));
                    out
                };
                let joined = product(&normed(&x, 0), &l.weights[0]);
                let mut q = vec![0.0; self.rows * kv * group * dim];
                let mut new: Vec<NewTokens> = caches.iter_mut().map(|cache| NewTokens { cache, tokens: 1 }).collect();
                let gains = l.gains.as_ref().map(|(q, k)| HeadGains { q, k, eps: 1e-5 });
                cached_append(ctx, &joined, gains, l.turns.then(|| self.turns()), &mut new, &mut q);
                let tokens: Vec<CachedTokens> = caches.iter().map(|cache| CachedTokens { cache, tokens: 1 }).collect();
                let mut attended = vec![0.0; q.len()];
                cached_attention(ctx, &q, &tokens, kv * group, l.scores, &mut attended);
                add_in_place(ctx, &mut x, &normed(&product(&attended, &l.weights[1]), 1));
                let both = product(&normed(&x, 2), &l.weights[2]);
                let mut made = vec![0.0; self.rows * inner];
                gated(ctx, l.kind, &both, inner, &mut made);
                add_in_place(ctx, &mut x, &normed(&product(&made, &l.weights[3]), 3));
            }
            self.last.apply(ctx, &mut x);
            assert_eq!(x.len(), self.rows * width);
            all.extend(bits(&product(&x, std::slice::from_ref(&self.head))));
        }
        all
    }
}

#[test]
fn a_step_has_the_bits_of_its_operators() {
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
        for seed in 0..40 {
            let net = Net::draw(seed);
            let one = context(isa, 1).expect("it is available");
            let wanted = net.operators(&one);
            assert!(wanted.iter().any(|w| f32::from_bits(*w).is_finite()), "all is NaN");
            for threads in 1..=5 {
                let ctx = context(isa, threads).expect("it is available");
                assert!(net.steps(&ctx) == wanted, "{isa}, {threads} threads, net {seed}: {:?}", net.shape);
            }
        }
    }
}

#[test]
fn layers_that_do_not_fit_are_told() {
    let net = Net::draw(1);
    let (width, dim, kv, ..) = net.shape;
    for isa in Isa::available() {
        let ctx = context(isa, 1).expect("it is available");
        let zeros = |n: usize, k: usize| [PackedBlocks::zeros(&ctx, BlockFormat::Q8_0, n, k)];
        let (qkv, square, wide) = (zeros(width + 2 * kv * dim, width), zeros(width, width), zeros(2 * width, width));
        let narrow = zeros(2 * width - 32, width);
        let layer = StackLayer {
            attention_norm: net.last.of(),
            qkv: &qkv,
            head_gains: None,
            turns: None,
            scores: CachedScores { scale: 1.0, soft_cap: None, window: None },
            output: &square,
            output_norm: None,
            mlp_norm: net.last.of(),
            kind: ActivationKind::Silu,
            gate_up: &wide,
            down: &square,
            down_norm: None,
        };
        assert_eq!(layer.fits(&ctx, kv, dim), isa != Isa::Scalar && width.is_multiple_of(kv * dim));
        assert!(!StackLayer { gate_up: &narrow, ..layer }.fits(&ctx, kv, dim));
        assert!(!StackLayer { qkv: &square, ..layer }.fits(&ctx, kv, dim));
        assert!(!StackLayer { down: &[], ..layer }.fits(&ctx, kv, dim));
        assert!(!layer.fits(&ctx, kv, dim / 2 + 8));
    }
}
