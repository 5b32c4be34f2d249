//! Numbers for people: three significant digits, one SI prefix for a value and its interval.
//!
//! In: unscaled values with their unit. Out: text. Must not: be read back by anything; files hold unscaled numbers.

/// SI prefix and factor that bring a magnitude into 1..1000.
pub fn prefix(magnitude: f64) -> (f64, &'static str) {
    const PREFIXES: [(f64, &str); 9] = [
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
        (1e-12, "p"),
    ];
    // 999.6 would be shown as 1000
    let magnitude = magnitude.abs() * 1.0005;
    PREFIXES.into_iter().find(|(factor, _)| magnitude >= *factor).unwrap_or(if magnitude == 0.0 {
        (1.0, "")
    } else {
        (1e-12, "p")
    })
}

/// A unit as it is shown, and the factor from the unscaled value, for values of about this magnitude.
pub fn scaled_unit(unit: &str, magnitude: f64) -> (f64, String) {
    match unit {
        "1/s" if magnitude.abs() < 1e5 => (1.0, "/s".into()),
        "1/s" => {
            let (factor, prefix) = prefix(magnitude);
            (factor, format!("{prefix}/s"))
        }
        "1" => (1.0, String::new()),
        "%" => (0.01, "%".into()),
        "points" => (1.0, "points".into()),
        _ => {
            let (factor, prefix) = prefix(magnitude);
            (factor, format!("{prefix}{unit}"))
        }
    }
}

/// A value with its unit, scaled: `1.24 ms`.
pub fn scaled(value: f64, unit: &str) -> String {
    let (factor, unit) = scaled_unit(unit, value);
    join(&number(value / factor), &unit)
}

/// Three significant digits without an exponent for ordinary sizes.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        "0".into()
    } else if !(1e-4..1e7).contains(&magnitude) {
        format!("{value:.2e}")
    } else {
        // the exponent after rounding: 9.996 has that of 10.0
        let rounded = format!("{magnitude:.2e}");
        let exponent: i32 = rounded.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
        let digits = (2 - exponent).clamp(0, 6) as usize;
        format!("{value:.digits$}")
    }
}

/// A number and a unit as they stand together.
pub fn join(number: &str, unit: &str) -> String {
    match unit.chars().next() {
        None => number.to_owned(),
        Some('/') => format!("{number}{unit}"),
        Some(_) => format!("{number}\u{202f}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_prefix() {
        assert_eq!(number(1234.5), "1234");
        assert_eq!(number(0.012345), "0.0123");
        assert_eq!(number(-9.996), "-10.0");
        assert_eq!(number(0.0996), "0.0996");
        assert_eq!(number(3e-7), "3.00e-7");
        assert_eq!(number(0.0), "0");
        assert_eq!(prefix(0.00123), (1e-3, "m"));
        assert_eq!(prefix(999.9), (1e3, "k"));
        assert_eq!(prefix(0.0), (1.0, ""));
        assert_eq!(scaled_unit("1/s", 1045.0), (1.0, "/s".into()));
    }
}
