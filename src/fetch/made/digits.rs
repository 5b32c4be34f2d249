//! Handwritten digits: those held out as arrays, and a small net that is trained here on the others.
//!
//! In: scikit-learn's `digits.csv.gz` (8x8 counts of 0 to 16 and the digit, in the order of the file). Out: arrays and an
//! ONNX file. Must not: look at a held-out digit while training.
//!
//! The net is 64-32-10 with one layer of rectified units, trained by stochastic gradient descent in f64 from a fixed
//! seed. The trainer of this program knows nets of tokens alone, so that it is not used.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, ensure};
use ergometer_files::Links;
use flate2::read::GzDecoder;
use prost::Message;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::files::write_atomically;
use crate::onnx::proto::*;

/// Pixels, hidden units, classes.
const PIXELS: usize = 64;
const HIDDEN: usize = 32;
const CLASSES: usize = 10;
/// The last rows of the file are held out.
const TEST: usize = 500;
const EPOCHS: usize = 40;
const RATE: f64 = 0.05;
/// The brightest pixel.
const BRIGHTEST: f64 = 16.0;
const FLOAT: i32 = 1;

/// Makes `test.npy` (f32, 500 x 64), `labels.npy` (i64) and `net.onnx`.
pub fn make(folder: &Path) -> anyhow::Result<()> {
    let file = ergometer_files::open(&folder.join("digits.csv.gz"), 1 << 20, Links::Refused)?;
    let rows =
        BufReader::new(GzDecoder::new(file)).lines().map(|line| row(&line?)).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(rows.len() > 2 * TEST, "{} digits", rows.len());
    let (train, test) = rows.split_at(rows.len() - TEST);
    let pixels: Vec<u8> = test.iter().flat_map(|(x, _)| x.iter().flat_map(|v| (*v as f32).to_le_bytes())).collect();
    let labels: Vec<u8> = test.iter().flat_map(|(_, y)| (*y as i64).to_le_bytes()).collect();
    super::write_npy(&folder.join("test.npy"), "<f4", &[TEST, PIXELS], &pixels)?;
    super::write_npy(&folder.join("labels.npy"), "<i8", &[TEST], &labels)?;
    write_atomically(&folder.join("net.onnx"), &Net::trained(train).file().encode_to_vec())
}

/// Pixels and digit of a line.
fn row(line: &str) -> anyhow::Result<(Vec<f64>, usize)> {
    let numbers = line.split(',').map(|n| n.trim().parse::<f64>()).collect::<Result<Vec<_>, _>>();
    let mut numbers =
        numbers.with_context(|| format!("not a line of digits: `{}`", line.chars().take(60).collect::<String>()))?;
    ensure!(numbers.len() == PIXELS + 1, "a line of {} numbers", numbers.len());
    let digit = numbers.pop().map_or(0, |d| d as usize);
    ensure!(digit < CLASSES, "the digit {digit}");
    Ok((numbers, digit))
}

struct Net {
    /// `[PIXELS][HIDDEN]` and `[HIDDEN][CLASSES]`, row-major, with what is added.
    first: Vec<f64>,
    first_bias: Vec<f64>,
    second: Vec<f64>,
    second_bias: Vec<f64>,
}

impl Net {
    fn trained(digits: &[(Vec<f64>, usize)]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(0x6469_6769);
        let mut weights = |n: usize, inputs: usize| -> Vec<f64> {
            let most = (6.0 / inputs as f64).sqrt();
            (0..n).map(|_| random.random_range(-most..most)).collect()
        };
        let mut net = Self {
            first: weights(PIXELS * HIDDEN, PIXELS),
            first_bias: vec![0.0; HIDDEN],
            second: weights(HIDDEN * CLASSES, HIDDEN),
            second_bias: vec![0.0; CLASSES],
        };
        let mut order: Vec<usize> = (0..digits.len()).collect();
        for epoch in 0..EPOCHS {
            order.shuffle(&mut random);
            let rate = RATE * (1.0 - epoch as f64 / EPOCHS as f64);
            order.iter().for_each(|&i| net.learn(&digits[i].0, digits[i].1, rate));
        }
        net
    }

    fn hidden(&self, x: &[f64]) -> Vec<f64> {
        let sum = |h: usize| x.iter().enumerate().map(|(i, v)| v / BRIGHTEST * self.first[i * HIDDEN + h]).sum::<f64>();
        (0..HIDDEN).map(|h| (sum(h) + self.first_bias[h]).max(0.0)).collect()
    }

    fn logits(&self, hidden: &[f64]) -> Vec<f64> {
        let sum = |c: usize| hidden.iter().enumerate().map(|(h, v)| v * self.second[h * CLASSES + c]).sum::<f64>();
        (0..CLASSES).map(|c| sum(c) + self.second_bias[c]).collect()
    }

    /// A step down the cross entropy of one digit.
    fn learn(&mut self, x: &[f64], digit: usize, rate: f64) {
        let hidden = self.hidden(x);
        let logits = self.logits(&hidden);
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let all: f64 = logits.iter().map(|l| (l - top).exp()).sum();
        let slope: Vec<f64> =
            logits.iter().enumerate().map(|(c, l)| (l - top).exp() / all - f64::from(u8::from(c == digit))).collect();
        for h in (0..HIDDEN).filter(|&h| hidden[h] > 0.0) {
            let back: f64 = (0..CLASSES).map(|c| slope[c] * self.second[h * CLASSES + c]).sum();
            (0..CLASSES).for_each(|c| self.second[h * CLASSES + c] -= rate * slope[c] * hidden[h]);
            x.iter().enumerate().for_each(|(i, v)| self.first[i * HIDDEN + h] -= rate * back * v / BRIGHTEST);
            self.first_bias[h] -= rate * back;
        }
        (0..CLASSES).for_each(|c| self.second_bias[c] -= rate * slope[c]);
    }

    /// `logits[N, 10]` of `x[N, 64]`, which are counts of 0 to 16.
    fn file(&self) -> Model {
        let tensor = |name: &str, dims: &[usize], values: &mut dyn Iterator<Item = f64>| Tensor {
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: Some(FLOAT),
            name: Some(name.into()),
            raw_data: Some(values.flat_map(|v| (v as f32).to_le_bytes()).collect()),
            ..Tensor::default()
        };
        let node = |operator: &str, inputs: &[&str], output: &str| Node {
            input: inputs.iter().map(|n| (*n).to_owned()).collect(),
            output: vec![output.into()],
            op_type: Some(operator.into()),
            ..Node::default()
        };
        let value = |name: &str, features: usize| {
            let rows = Dim { dim_value: None, dim_param: Some("N".into()) };
            let features = Dim { dim_value: Some(features as i64), dim_param: None };
            let tensor_type =
                Some(TensorType { elem_type: Some(FLOAT), shape: Some(Shape { dim: vec![rows, features] }) });
            ValueInfo { name: Some(name.into()), r#type: Some(Type { tensor_type }) }
        };
        let graph = Graph {
            node: vec![
                node("MatMul", &["x", "first"], "a"),
                node("Add", &["a", "first_bias"], "b"),
                node("Relu", &["b"], "hidden"),
                node("MatMul", &["hidden", "second"], "c"),
                node("Add", &["c", "second_bias"], "logits"),
            ],
            name: Some("digits".into()),
            initializer: vec![
                tensor("first", &[PIXELS, HIDDEN], &mut self.first.iter().map(|w| w / BRIGHTEST)),
                tensor("first_bias", &[HIDDEN], &mut self.first_bias.iter().copied()),
                tensor("second", &[HIDDEN, CLASSES], &mut self.second.iter().copied()),
                tensor("second_bias", &[CLASSES], &mut self.second_bias.iter().copied()),
            ],
            doc_string: None,
            input: vec![value("x", PIXELS)],
            output: vec![value("logits", CLASSES)],
        };
        Model {
            ir_version: Some(8),
            producer_name: Some("ergometer".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(17) }],
            metadata_props: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_learns_what_can_be_learned_and_lines_are_checked() {
        // a digit is a row of eight bright pixels, or the first of two more
        let digits: Vec<(Vec<f64>, usize)> = (0..200)
            .map(|i| {
                let digit = i % CLASSES;
                (
                    (0..PIXELS).map(|p| if p / 6 == digit { 16.0 } else { f64::from((i * p) as u32 % 3) }).collect(),
                    digit,
                )
            })
            .collect();
        let net = Net::trained(&digits);
        let right = digits.iter().filter(|(x, digit)| {
            let logits = net.logits(&net.hidden(x));
            (0..CLASSES).all(|c| logits[c] <= logits[*digit])
        });
        assert!(right.count() > 195);
        assert!(net.file().encode_to_vec().len() > 4 * (PIXELS * HIDDEN + HIDDEN * CLASSES));
        let line = |n: usize, digit: &str| format!("{}{digit}", "0,".repeat(n));
        assert_eq!(row(&line(64, "7")).unwrap().1, 7);
        for bad in [line(63, "7"), line(64, "17"), line(64, "x")] {
            assert!(row(&bad).is_err());
        }
    }
}
