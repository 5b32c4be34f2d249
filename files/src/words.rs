//! Words of messages: counts with their nouns, as a sentence wants them (`1 row`, `2 rows`), remarks joined, quotations
//! that stay short.
//!
//! In: a number and a singular noun; texts. Out: text. Must not: know a verb: a sentence is put so that it needs none.

use std::fmt::Display;

/// `1 row`, `2 rows`, `0 entries`.
pub fn counted(n: impl Display, noun: &str) -> String {
    let n = n.to_string();
    let noun = if n == "1" { noun.to_owned() } else { plural(noun) };
    format!("{n} {noun}")
}

/// The plural of a regular English noun.
fn plural(noun: &str) -> String {
    let before_y = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    match before_y {
        Some(stem) => format!("{stem}ies"),
        None if ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end)) => format!("{noun}es"),
        None => format!("{noun}s"),
    }
}

/// Remarks one after another in one line; a full stop at the end of one gives way to what separates them.
pub fn joined<T: AsRef<str>>(remarks: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for remark in remarks {
        if !text.is_empty() {
            let whole = text.trim_end_matches('.').len();
            text.truncate(whole);
            text.push_str("; ");
        }
        text.push_str(remark.as_ref());
    }
    text
}

/// Levenshtein distance: the fewest insertions, deletions and substitutions between two sequences. Of names it finds the one that was meant.
pub fn distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Most characters of a message, a place or a hint: what is quoted from a file may be as long as the file.
const MOST: usize = 1000;

/// [`capped_at`] what a message, a place or a hint may have.
pub fn capped(text: String) -> String {
    capped_at(text, MOST)
}

/// Leaves out the middle of what has more than `most` characters, so that the words around a quotation stay.
pub fn capped_at(text: String, most: usize) -> String {
    let characters = text.chars().count();
    if characters <= most {
        return text;
    }
    let head: String = text.chars().take(most * 3 / 4).collect();
    let tail: String = text.chars().skip(characters - most / 4).collect();
    format!("{head} ... {} characters left out ... {tail}", characters - most * 3 / 4 - most / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_all_else_is_plural() {
        for (n, noun, text) in [
            (0, "row", "0 rows"),
            (1, "row", "1 row"),
            (2, "row", "2 rows"),
            (11, "entry", "11 entries"),
            (1, "entry", "1 entry"),
            (2, "key", "2 keys"),
            (3, "batch", "3 batches"),
        ] {
            assert_eq!(counted(n, noun), text);
        }
        assert_eq!(counted(1.5, "second"), "1.5 seconds");
    }

    #[test]
    fn remarks_are_joined_without_a_stop_before_a_semicolon() {
        assert_eq!(joined(["It is so.", "timed on 3", "End."]), "It is so; timed on 3; End.");
        assert_eq!(joined(Vec::<String>::new()), "");
    }

    #[test]
    fn a_long_quotation_keeps_both_ends() {
        assert_eq!(capped("é".repeat(MOST)), "é".repeat(MOST));
        let text = capped(format!("before {} after", "é".repeat(1 << 20)));
        assert!(text.starts_with("before é") && text.ends_with("é after"), "{text}");
        assert!(text.contains(&format!("{} characters left out", (1 << 20) + 13 - MOST)), "{text}");
        assert!(text.chars().count() < MOST + 50);
    }
}
