//! A fixed 64-bit hash of numbers.
//!
//! In: numbers. Out: a number that is the same on every machine and in every version. Must not: ever change, because
//! splits into train and test rest on it.

/// Hash of numbers in order: the finisher of splitmix64 after each.
pub(crate) fn hash(start: u64, numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(start, |state, number| {
        let mut z = (state ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}
