//! Amounts with a unit, as a suite writes them: `256 MB`, `10 ms`, `0.5 J`.
//!
//! In: a text, the units that it may have. Out: the unscaled number. Must not: take a number without a unit, or round.

/// Units and what they stand for.
pub type Units = &'static [(&'static str, f64)];

/// Of memory: kB is 1000 bytes, KiB 1024.
pub const BYTES: Units = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

/// Of time.
pub const SECONDS: Units = &[("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];

/// Of energy.
pub const JOULES: Units = &[("J", 1.0), ("kJ", 1e3), ("mJ", 1e-3), ("uJ", 1e-6), ("µJ", 1e-6)];

/// Largest amount: more is a mistake.
const MOST: f64 = 1e18;

/// The number that a text stands for, above 0. `None`: it is no such amount.
pub fn amount(text: &str, units: Units) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = (text[..split].trim(), &text[split..]);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let plain = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let value = number.parse::<f64>().ok().filter(|_| plain)? * factor;
    (value > 0.0 && value <= MOST).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_have_a_unit() {
        assert_eq!(amount("256 MB", BYTES), Some(256e6));
        assert_eq!(amount("1.5GiB", BYTES), Some(1.5 * 1_073_741_824.0));
        assert_eq!(amount("10 ms", SECONDS), Some(0.01));
        assert_eq!(amount("0.5 J", JOULES), Some(0.5));
        for text in ["", "MB", "10", "-1 MB", "0 MB", "10 m", "1e3 B", "nan B", "10 ms later", "9999999 TB", "1.2.3 B"]
        {
            assert_eq!(amount(text, BYTES), None, "{text}");
        }
        assert_eq!(amount("10 MB", SECONDS), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = amount(&text, BYTES);
        }
    }
}
