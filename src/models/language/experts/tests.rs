//! Routers that are fitted to outputs of which the right choice is known.

use super::solve::{Gram, factors, mixture, mixture_error};
use super::*;

/// A number from -1 to 1, the same for the same place.
fn number(i: usize) -> f64 {
    let z = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((z ^ z >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

#[test]
fn a_ridge_without_strength_finds_the_weights_that_made_the_rows() {
    let (width, wanted) = (5, 3);
    let weights: Vec<f64> = (0..width * wanted).map(|i| number(i + 900)).collect();
    let mut gram = Gram::new(width, wanted);
    let mut half = Gram::new(width, wanted);
    for t in 0..40 {
        let x: Vec<f64> = (0..width).map(|i| number(t * width + i)).collect();
        let y: Vec<f64> = weights.chunks_exact(width).map(|w| w.iter().zip(&x).map(|(w, x)| w * x).sum()).collect();
        if t % 2 == 0 { gram.add(&x, &y) } else { half.add(&x, &y) }
    }
    gram.join(&half);
    let found = gram.ridge(1e-12);
    assert!(found.iter().zip(&weights).all(|(f, w)| (f - w).abs() < 1e-6), "{found:?} {weights:?}");
    // strength pulls towards zero
    assert!(gram.ridge(10.0).iter().map(|w| w * w).sum::<f64>() < weights.iter().map(|w| w * w).sum::<f64>());
}

#[test]
fn factors_make_the_chosen_expert_the_whole_where_the_others_put_out_nothing() {
    let (width, experts, tokens) = (4, 4, 24);
    // token t has one expert that puts out anything, and its score is highest
    let mut outputs = vec![vec![0.0; tokens * width]; experts];
    let mut scores = vec![0.0; tokens * experts];
    for t in 0..tokens {
        let e = t % experts;
        (0..width).for_each(|i| outputs[e][t * width + i] = number(t * width + i));
        scores[t * experts + e] = 1.0;
    }
    let all: Vec<usize> = (0..tokens).collect();
    let even = vec![1.0; tokens];
    let found = factors(&scores, 1.0, &outputs, 1, &even, &all);
    assert!(found.iter().all(|f| (f * experts as f64 - 1.0).abs() < 2e-3), "{found:?}");
    assert!(mixture_error(&scores, 1.0, &found, &outputs, 1, &even, &all) < 1e-5);
    let y = mixture(&scores, 1.0, &found, &outputs, 1, width);
    assert!((y[0] - outputs[0][0]).abs() < 2e-3 * outputs[0][0].abs());
    // the wrong choice loses everything
    scores.chunks_exact_mut(experts).for_each(|s| s.rotate_right(1));
    assert!(mixture_error(&scores, 0.0, &found, &outputs, 1, &even, &all) > 0.99);
}

#[test]
fn a_fitted_router_takes_the_expert_that_the_input_tells() {
    let (width, experts, tokens) = (6, 3, 240);
    // an expert's output is as long as one of the inputs is large
    let x: Vec<f64> = (0..tokens * width).map(number).collect();
    let outputs: Vec<Vec<f64>> =
        (0..experts).map(|e| (0..tokens).flat_map(|t| vec![(3.0 * x[t * width + e]).exp(); width]).collect()).collect();
    let (router, y) = fit(&x, width, &outputs, 1);
    let chosen = |t: usize| {
        let score = |e: usize| -> f64 {
            let w = &router.router[e * width..][..width];
            w.iter().zip(&x[t * width..]).map(|(w, x)| f64::from(*w) * x).sum()
        };
        (0..experts).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap()
    };
    let best =
        |t: usize| (0..experts).max_by(|&a, &b| outputs[a][t * width].total_cmp(&outputs[b][t * width])).unwrap();
    let right = (0..tokens).filter(|&t| chosen(t) == best(t)).count();
    assert!(right > tokens * 9 / 10, "{right} of {tokens}");
    assert!(router.lost < 0.2 && y.iter().all(|v| v.is_finite()), "{}", router.lost);
}
