//! Number formats of the operands of products. In: f32. Out: words of 32 bits that hold one f32, two bf16 or four int8,
//! and the plain functions that round to them, which the scalar references use and with which the vector bodies must
//! agree.

/// The number format in which a product multiplies. Sums, and everything outside products, are f32 (of int8: exact
/// integers, then f32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberFormat {
    /// 32-bit floats.
    F32,
    /// bfloat16: 16-bit floats with 8 bits of significand. Weights and activations are rounded to the nearest, ties to
    /// even.
    Bf16,
    /// 8-bit integers, symmetric: weights with a scale for each output, activations with one for each row, found anew
    /// for each row (largest magnitude / 127).
    Int8,
}

impl NumberFormat {
    /// Numbers in a word.
    pub fn per_word(self) -> usize {
        match self {
            NumberFormat::F32 => 1,
            NumberFormat::Bf16 => 2,
            NumberFormat::Int8 => 4,
        }
    }
}

/// The nearest bf16, ties to even, as an f32; infinity and NaN stay.
pub(crate) fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return f32::NAN;
    }
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// The scale of a symmetric int8 row of this largest magnitude (magnitude / 127), and the factor to multiply with
/// before rounding (its inverse). A row that is not finite has the scale NaN, which makes every sum of it NaN.
pub(crate) fn scale_of(largest: f32) -> (f32, f32) {
    if largest == 0.0 {
        return (0.0, 0.0);
    }
    if !largest.is_finite() {
        return (f32::NAN, 0.0);
    }
    // a row of denormals would have an infinite inverse: it counts as zeros
    let inverse = 127.0 / largest;
    if inverse.is_finite() { (largest / 127.0, inverse) } else { (0.0, 0.0) }
}

/// Largest magnitude; NaN if there is one.
pub(crate) fn largest(row: impl Iterator<Item = f32>) -> f32 {
    row.fold(0.0, |most, x| if x.is_nan() || most.is_nan() { f32::NAN } else { x.abs().max(most) })
}

/// A symmetric int8 row as integers, with its scale.
pub(crate) fn quantise(row: &[f32]) -> (Vec<i32>, f32) {
    let (scale, inverse) = scale_of(largest(row.iter().copied()));
    (row.iter().map(|x| (x * inverse).round_ties_even() as i32).collect(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_the_nearest_even() {
        for (x, y) in [
            (1.0, 1.0),
            (1.003_906_2, 1.0),
            (1.003_907, 1.007_812_5),
            (1.011_718_8, 1.015_625),
            (-1.003_907, -1.007_812_5),
        ] {
            assert_eq!(round_bf16(x), y, "{x}");
        }
        assert_eq!(round_bf16(f32::MAX), f32::INFINITY);
        assert_eq!(round_bf16(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert!(round_bf16(f32::NAN).is_nan());
    }

    #[test]
    fn int8_rows_keep_their_largest_value_and_zero() {
        let (q, scale) = quantise(&[0.0, 2.0, -1.0, 0.004]);
        assert_eq!(q, [0, 127, -64, 0]);
        assert!((scale * 127.0 - 2.0).abs() < 1e-6);
        assert_eq!(quantise(&[0.0; 3]), (vec![0; 3], 0.0));
        assert!(quantise(&[1.0, f32::INFINITY]).1.is_nan() && quantise(&[f32::NAN, 1.0]).1.is_nan());
        assert_eq!(quantise(&[1e-44, 0.0]).1, 0.0, "denormals are zeros");
    }
}
