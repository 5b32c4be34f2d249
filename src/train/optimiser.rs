//! AdamW and the moving average of the weights, in plain vectors.
//!
//! In: gradients. Out: moved weights. Must not: know what the weights are for, beyond which of them decay.
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101: the decay is not part of the gradient.

use super::config::OptimiserConfig;
use crate::graph::{Param, Role};

/// Weights and what the optimiser knows of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimiser {
    /// The weights.
    pub weights: Vec<Vec<f32>>,
    /// Running mean of the gradient.
    pub first: Vec<Vec<f32>>,
    /// Running mean of its square.
    pub second: Vec<Vec<f32>>,
    /// Moving average of the weights.
    pub average: Vec<Vec<f32>>,
    /// Steps made.
    pub steps: u64,
    trained: Vec<bool>,
    decays: Vec<bool>,
    /// Features of a row of a table of puzzle embeddings, whose rows move only when they are met.
    rows: Vec<Option<usize>>,
}

impl Optimiser {
    /// Starts at these weights.
    pub fn new(params: &[Param], weights: Vec<Vec<f32>>) -> Self {
        let zeros: Vec<Vec<f32>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        let decays = |p: &Param| p.role == Role::Weight && p.shape.len() > 1 && !p.name.contains("embed");
        Self {
            average: weights.clone(),
            weights,
            first: zeros.clone(),
            second: zeros,
            steps: 0,
            trained: params.iter().map(|p| p.role != Role::Buffer).collect(),
            decays: params.iter().map(decays).collect(),
            rows: params
                .iter()
                .map(|p| (p.role == Role::PuzzleTable).then(|| p.elements() / p.shape[0].max(1)))
                .collect(),
        }
    }

    /// Whether a parameter is trained at all.
    pub fn trains(&self, i: usize) -> bool {
        self.trained[i]
    }

    /// One step. `gradients[i]` is empty where there is none; a row of a puzzle table whose gradient is 0 was not met and stays. Gives the length of the whole gradient before clipping.
    pub fn step(&mut self, config: &OptimiserConfig, lr: f64, gradients: &[Vec<f32>]) -> f64 {
        self.steps += 1;
        let length = gradients.iter().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let scale = config.clip.map_or(1.0, |clip| (clip / length.max(1e-30)).min(1.0)) as f32;
        let (b1, b2) = (config.betas.0 as f32, config.betas.1 as f32);
        let correct = |b: f64| (1.0 / (1.0 - b.powf(self.steps as f64))) as f32;
        let (c1, c2) = (correct(config.betas.0), correct(config.betas.1));
        let lr = lr as f32;
        // the average follows quickly at first: its decay never looks back further than the run
        let keep = config.ema.min((self.steps as f64 + 1.0) / (self.steps as f64 + 10.0)) as f32;
        for (i, gradient) in gradients.iter().enumerate() {
            if !self.trained[i] {
                continue;
            }
            let decay = if self.decays[i] { lr * config.weight_decay as f32 } else { 0.0 };
            let lr = match (self.rows[i], config.puzzle_lr) {
                (Some(_), Some(puzzle_lr)) => (f64::from(lr) * puzzle_lr / config.lr.max(1e-30)) as f32,
                _ => lr,
            };
            let met: Option<Vec<bool>> =
                self.rows[i].map(|n| gradient.chunks(n.max(1)).map(|row| row.iter().any(|&g| g != 0.0)).collect());
            let stays = |j: usize| self.rows[i].zip(met.as_ref()).is_some_and(|(n, met)| !met[j / n.max(1)]);
            let weights = self.weights[i].iter_mut().zip(&mut self.average[i]);
            let moments = self.first[i].iter_mut().zip(&mut self.second[i]);
            for (j, ((&g, (w, average)), (m, v))) in gradient.iter().zip(weights).zip(moments).enumerate() {
                if stays(j) {
                    *average = keep * *average + (1.0 - keep) * *w;
                    continue;
                }
                let g = g * scale;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *w -= decay * *w + lr * (*m * c1) / ((*v * c2).sqrt() + 1e-8);
                *average = keep * *average + (1.0 - keep) * *w;
            }
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Start;

    fn param(name: &str, shape: &[usize], role: Role) -> Param {
        Param { name: name.into(), shape: shape.to_vec(), role, start: Start::Constant(0.0) }
    }

    const CONFIG: OptimiserConfig = OptimiserConfig {
        lr: 0.1,
        warmup: 0,
        final_share: 1.0,
        betas: (0.9, 0.99),
        weight_decay: 0.5,
        clip: None,
        ema: 0.9,
        puzzle_lr: None,
    };

    #[test]
    fn the_first_step_is_the_learning_rate_and_only_matrices_decay() {
        let params = [
            param("w", &[1, 1], Role::Weight),
            param("b", &[1], Role::Weight),
            param("embed_tokens", &[1, 1], Role::Weight),
            param("H_init", &[1], Role::Buffer),
        ];
        let mut optimiser = Optimiser::new(&params, vec![vec![2.0]; 4]);
        let length = optimiser.step(&CONFIG, 0.1, &[vec![3.0], vec![-4.0], vec![0.0], vec![1.0]]);
        assert!((length - 26f64.sqrt()).abs() < 1e-9);
        // sign of the gradient times the rate, and for the matrix 0.1 · 0.5 · 2 of decay
        let want = [2.0 - 0.1 - 0.1, 2.0 + 0.1, 2.0, 2.0];
        for (got, want) in optimiser.weights.iter().zip(want) {
            assert!((got[0] - want).abs() < 1e-5, "{} {want}", got[0]);
        }
    }

    #[test]
    fn rows_of_a_puzzle_table_move_when_they_are_met_and_at_their_own_rate() {
        let params = [param("puzzle_emb.weights", &[3, 2], Role::PuzzleTable), param("b", &[1], Role::Weight)];
        let config = OptimiserConfig { puzzle_lr: Some(0.4), ..CONFIG };
        let mut optimiser = Optimiser::new(&params, vec![vec![1.0; 6], vec![1.0]]);
        // the schedule is at half its rate
        optimiser.step(&config, 0.05, &[vec![0.0, 0.0, 2.0, -2.0, 0.0, 0.0], vec![1.0]]);
        optimiser.step(&config, 0.05, &[vec![0.0; 6], vec![1.0]]);
        let want = [1.0, 1.0, 0.8, 1.2, 1.0, 1.0];
        for (got, want) in optimiser.weights[0].iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
        assert!((optimiser.weights[1][0] - 0.9).abs() < 1e-5, "{:?}", optimiser.weights[1]);
        assert!(optimiser.average[0][2] < 0.9 && optimiser.average[0][0] == 1.0);
    }

    #[test]
    fn it_finds_the_bottom_of_a_bowl_and_the_average_follows() {
        let mut optimiser = Optimiser::new(&[param("b", &[2], Role::Weight)], vec![vec![5.0, -3.0]]);
        for step in 0..600 {
            let w = optimiser.weights[0].clone();
            let lr = 0.1 * (1.0 - f64::from(step) / 600.0);
            optimiser.step(&CONFIG, lr, &[vec![2.0 * (w[0] - 1.0), 0.2 * (w[1] - 2.0)]]);
        }
        for (got, want) in optimiser.average[0].iter().zip([1.0, 2.0]) {
            assert!((got - want).abs() < 0.05, "{got} {want}");
        }
    }
}
