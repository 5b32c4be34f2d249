//! How the value of a record is shown: its unit, its digits, its interval.
//!
//! In: [`Record`]s. Out: text for people. Must not: be read back by anything; files hold unscaled numbers.

use crate::{
    format::{join, number, scaled_unit},
    metric::{Shown, metric},
    record::Record,
};

fn shown(record: &Record) -> Shown {
    metric(&record.metric).map_or(Shown::Number, |m| m.shown)
}

/// The unit a record is shown in: shares as %.
fn shown_unit(record: &Record) -> &str {
    match shown(record) {
        Shown::Percent | Shown::Share => "%",
        Shown::Number | Shown::Points | Shown::Whole => &record.unit,
    }
}

/// A record's value with unit, e.g. `1.24 ms`; `None` where it is missing.
pub fn value(record: &Record) -> Option<String> {
    let value = record.value?;
    let (factor, unit) = scaled_unit(shown_unit(record), value);
    Some(join(&digits(record, value / factor), &unit))
}

/// A record's interval without unit, in the prefix of its value, e.g. `1.21–1.27`; `None` where it has no two-sided
/// one.
pub fn interval(record: &Record) -> Option<String> {
    let (value, lower, upper) = (record.value?, record.lower?, record.upper?);
    let (factor, _) = scaled_unit(shown_unit(record), value);
    let between = if shown(record) == Shown::Points { " to " } else { "–" };
    Some(format!("{}{between}{}", digits(record, lower / factor), digits(record, upper / factor)))
}

/// The value with its interval, a bound with `≤`, or `–`.
pub fn full(record: &Record) -> String {
    let Some(text) = value(record) else { return "–".into() };
    match interval(record) {
        Some(interval) => format!("{text} ({interval})"),
        None if record.lower.is_none() && record.upper.is_some() => format!("≤ {text}"),
        None => text,
    }
}

fn digits(record: &Record, value: f64) -> String {
    match shown(record) {
        Shown::Share => format!("{value:.1}"),
        Shown::Points => format!("{:+.2}", if value.abs() < 0.005 { 0.0 } else { value }),
        Shown::Whole => format!("{value:.0}"),
        Shown::Number | Shown::Percent => number(value),
    }
}
