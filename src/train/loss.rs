//! Losses and their gradients with respect to the outputs of a step.
//!
//! In: logits, halting logits, labels of a batch. Out: the loss, gradients, and which rows are right. Must not: know a net.
//!
//! As in the released TRM: cross entropy averaged over a row's cells, plus a share of the binary cross entropy of the halting head with
//! "this row is wholly right" as its target; both averaged over the batch. Cells whose label is padding
//! ask for nothing: they are in neither. Computed in f64.

use ergometer_suites::task::PAD;

use super::config::{CellLoss, LossConfig};
use crate::backends::session::argmax;

/// What a batch says.
#[derive(Debug, Default)]
pub struct BatchLoss {
    /// Mean over rows, of the cells.
    pub cells: f64,
    /// Mean over rows, of the halting head, unweighted.
    pub halting: f64,
    /// Gradient of the whole loss by logits, `[rows, cells, tokens]`.
    pub by_logits: Vec<f32>,
    /// Gradient by halting logits, `[rows, 2]` (the second one is not used).
    pub by_q: Vec<f32>,
    /// Rows whose every cell that counts is right.
    pub exact: Vec<bool>,
}

/// Losses of `labels.len() / cells` rows; `q` is empty for nets without a halting head.
pub fn losses(config: &LossConfig, cells: usize, logits: &[f32], q: &[f32], labels: &[u32]) -> BatchLoss {
    let (rows, tokens) = (labels.len() / cells, logits.len() / labels.len());
    let mut outcome =
        BatchLoss { by_logits: vec![0.0; logits.len()], by_q: vec![0.0; q.len()], ..BatchLoss::default() };
    let mut right = vec![true; rows];
    let mut weights = vec![0f64; tokens];
    let mut slopes = vec![0f64; tokens];
    let counted = labels.chunks_exact(cells).map(|row| row.iter().filter(|&&label| label != PAD).count());
    let shares: Vec<f64> = counted.map(|n| 1.0 / (rows * n.max(1)) as f64).collect();
    for (i, &label) in labels.iter().enumerate().filter(|(_, label)| **label != PAD) {
        let share = shares[i / cells];
        let cell = &logits[i * tokens..(i + 1) * tokens];
        let label = label as usize;
        right[i / cells] &= argmax(cell) as usize == label;
        // p = w(v) / Σ w; slopes are w'(v)
        let top = cell.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for (j, &v) in cell.iter().enumerate() {
            let v = f64::from(v);
            (weights[j], slopes[j]) = match config.cells {
                CellLoss::Softmax => {
                    let e = (v - f64::from(top)).exp();
                    (e, e)
                }
                CellLoss::Stablemax if v >= 0.0 => (v + 1.0, 1.0),
                CellLoss::Stablemax => (1.0 / (1.0 - v), 1.0 / (1.0 - v).powi(2)),
            };
        }
        let sum: f64 = weights.iter().sum();
        outcome.cells -= share * (weights[label] / sum).max(1e-300).ln();
        for j in 0..tokens {
            let of_label = if j == label { slopes[j] / weights[j] } else { 0.0 };
            outcome.by_logits[i * tokens + j] = (share * (slopes[j] / sum - of_label)) as f32;
        }
    }
    for (row, &exact) in right.iter().enumerate().take(q.len() / 2) {
        let (v, target) = (f64::from(q[row * 2]), f64::from(u8::from(exact)));
        // log(1 + e^−|v|) keeps large values finite
        outcome.halting += (v.max(0.0) - v * target + (-v.abs()).exp().ln_1p()) / rows as f64;
        outcome.by_q[row * 2] = (config.halting * (1.0 / (1.0 + (-v).exp()) - target) / rows as f64) as f32;
    }
    outcome.exact = right;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        for cells in [CellLoss::Stablemax, CellLoss::Softmax] {
            let config = LossConfig { cells, ..LossConfig::default() };
            let mut logits: Vec<f32> = (0..24).map(|i| (i as f32 * 1.3).sin() * 3.0).collect();
            let mut q = vec![0.7, 0.0, -1.2, 0.0];
            let labels = [1u32, 0, 3, 2, 2, 1]; // one cell of padding
            let total = |logits: &[f32], q: &[f32]| {
                let o = losses(&config, 3, logits, q, &labels);
                o.cells + config.halting * o.halting
            };
            let outcome = losses(&config, 3, &logits, &q, &labels);
            let h = 1e-3f32;
            for i in 0..logits.len() {
                let v = logits[i];
                logits[i] = v + h;
                let up = total(&logits, &q);
                logits[i] = v - h;
                let slope = (up - total(&logits, &q)) / f64::from(2.0 * h);
                logits[i] = v;
                assert!((slope - f64::from(outcome.by_logits[i])).abs() < 1e-4, "logit {i}: {slope}");
            }
            for i in [0, 2] {
                let v = q[i];
                q[i] = v + h;
                let up = total(&logits, &q);
                q[i] = v - h;
                let slope = (up - total(&logits, &q)) / f64::from(2.0 * h);
                q[i] = v;
                assert!((slope - f64::from(outcome.by_q[i])).abs() < 1e-4, "q {i}: {slope}");
            }
        }
    }

    #[test]
    fn a_row_is_right_when_every_cell_is() {
        let logits = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let outcome = losses(&LossConfig::default(), 2, &logits, &[], &[1, 0, 1, 1]);
        assert_eq!(outcome.exact, [true, false]);
    }

    #[test]
    fn padding_asks_for_nothing() {
        // two cells of three tokens, the second one padding: as if the row had one cell
        let (logits, other) = ([0.3, -0.2, 0.9, 5.0, 0.0, -5.0], [0.3, -0.2, 0.9, -7.0, 7.0, 7.0]);
        let alone = losses(&LossConfig::default(), 1, &logits[..3], &[], &[2]);
        for logits in [logits, other] {
            let padded = losses(&LossConfig::default(), 2, &logits, &[], &[2, PAD]);
            assert_eq!(padded.cells, alone.cells);
            assert_eq!(padded.by_logits[..3], alone.by_logits);
            assert_eq!(padded.by_logits[3..], [0.0; 3]);
            assert_eq!(padded.exact, [true]);
        }
    }
}
