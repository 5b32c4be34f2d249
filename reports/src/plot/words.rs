//! What captions say of bars: how the intervals that they draw were found, as the records themselves have it.
//!
//! In: records. Out: sentences. Must not: speak of a bar that is not drawn, or name a method that no record has.

use crate::{case::Case, footnotes::merged, record::Record, shown};

/// A case and its values in words, for whoever points at its mark.
pub(super) fn mark_title(case: &Case, values: &[(&str, Option<&Record>)]) -> String {
    let word = |(name, record): &(&str, Option<&Record>)| {
        let shown = shown::full((*record)?);
        Some(if name.is_empty() { shown } else { format!("{name} {shown}") })
    };
    format!("{}: {}", case.path, values.iter().filter_map(word).collect::<Vec<_>>().join(", "))
}

/// What is drawn around the values of one or more measures, which have a name where there are several.
pub(super) fn intervals(drawn: &str, measures: &[(&str, &[&Record])]) -> String {
    let has = |r: &&&Record| r.lower.is_some() && r.upper.is_some();
    let mut parts = Vec::new();
    let mut lacking = Vec::new();
    for (name, records) in measures.iter().filter(|m| !m.1.is_empty()) {
        let with: Vec<&Record> = records.iter().filter(has).copied().collect();
        if with.is_empty() {
            let of = if name.is_empty() { String::new() } else { format!(" of {name}") };
            lacking.push(format!("none{of}, {}", n_of(records)));
            continue;
        }
        let methods: Vec<String> = with.iter().map(|r| method(&r.method)).collect();
        let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let some = match with.len() {
            n if n == records.len() => String::new(),
            n => format!(", {n} of {} values", records.len()),
        };
        parts.push(format!("{name}{}, {}{some}", merged(&methods).join(" or "), n_of(&with)));
    }
    if parts.is_empty() {
        let n = n_of(&measures.iter().flat_map(|m| m.1.iter().copied()).collect::<Vec<_>>());
        return format!("No {}: no value has an interval ({n}).", drawn.to_lowercase());
    }
    parts.append(&mut lacking);
    format!("{drawn}: 95 % intervals ({}).", parts.join("; "))
}

/// How a record's interval was found: those parts of its method that speak of it.
fn method(method: &str) -> String {
    // the case that it is compared with comes last, and its path may hold any word
    let method = ["; base `", "; against `"].iter().fold(method, |m, end| m.split(end).next().unwrap_or(m));
    let about = |part: &&str| part.contains("interval") || part.contains("widened");
    let parts = parts(method).into_iter().filter(about).map(|p| p.replace("within this run, ", ""));
    let parts = parts.collect::<Vec<_>>().join(", ");
    if parts.is_empty() { "by a method that the record does not name".into() } else { parts }
}

/// The parts of a method, separated by `; ` outside of parentheses.
fn parts(method: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0i32);
    for (at, c) in method.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ';' if depth <= 0 => {
                parts.push(method[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(method[from..].trim());
    parts
}

pub(super) fn n_of(records: &[&Record]) -> String {
    format!("n = {}", n_range(records.iter().map(|r| r.n)))
}

pub(super) fn n_range(ns: impl Iterator<Item = u64>) -> String {
    let ns: Vec<u64> = ns.collect();
    match (ns.iter().min(), ns.iter().max()) {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "0".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_about_the_interval_are_shown() {
        for (record, shown) in [
            ("share; Wilson interval", "Wilson interval"),
            (
                "median; t interval over 10 blocks, their correlation unknown; within this run",
                "t interval over 10 blocks, their correlation unknown",
            ),
            (
                "median; t interval over 3 starts; within this run, widened to both halves",
                "t interval over 3 starts, widened to both halves",
            ),
            (
                "median over rounds of the base's median latency over this one's; order-statistic interval over rounds; base `a/b; interval`",
                "order-statistic interval over rounds",
            ),
            (
                "quotient; MOVER interval of (share; Wilson interval) and (b)",
                "MOVER interval of (share; Wilson interval) and (b)",
            ),
            ("read off", "by a method that the record does not name"),
        ] {
            assert_eq!(method(record), shown);
        }
    }
}
