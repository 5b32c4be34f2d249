//! The order in which people expect names that hold numbers: `fixed-2` before `fixed-16`.
//!
//! In: two names. Out: their order; names that differ are never equal. Must not: depend on a locale.

use std::cmp::Ordering;

/// Compares two names, runs of digits by their value.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    while !x.is_empty() && !y.is_empty() {
        let ((part_x, rest_x), (part_y, rest_y)) = (part(x), part(y));
        let order = match (number(part_x), number(part_y)) {
            (Some(n), Some(m)) => (n.len(), n).cmp(&(m.len(), m)),
            _ => part_x.cmp(part_y),
        };
        if order.is_ne() {
            return order;
        }
        (x, y) = (rest_x, rest_y);
    }
    x.len().cmp(&y.len()).then(a.cmp(b))
}

/// The digits of a number without the zeros before them.
fn number(part: &str) -> Option<&str> {
    part.starts_with(|c: char| c.is_ascii_digit()).then(|| part.trim_start_matches('0'))
}

/// The run of digits, or of anything else, that a name begins with, and what follows.
fn part(name: &str) -> (&str, &str) {
    let digits = name.starts_with(|c: char| c.is_ascii_digit());
    name.split_at(name.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(name.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_ordered_by_value() {
        let mut names =
            ["t2/fixed-16", "t2/fixed-2", "t10/once", "t2/halt-16", "a", "a1", "a01", "a1b", "", "b8", "b256", "b32"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(
            names,
            ["", "a", "a01", "a1", "a1b", "b8", "b32", "b256", "t2/fixed-2", "t2/fixed-16", "t2/halt-16", "t10/once"]
        );
        for a in names {
            for b in names {
                assert_eq!(compare(a, b), compare(b, a).reverse(), "{a} {b}");
                assert_eq!(compare(a, b).is_eq(), a == b, "{a} {b}");
            }
        }
    }
}
