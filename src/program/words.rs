//! A command line as words, without a shell where none is needed: its start would be counted.
//!
//! In: a line as a user types it. Out: program and arguments, or the line for a shell where it holds signs that only a shell understands. Must
//! not: guess what such a sign means.

/// Signs that mean something to a shell outside of quotes.
const SIGNS: &str = "|&;<>()$`*?[]{}~#!\n";

/// Words of a line, quotes and backslashes taken as a shell takes them. `None`: it needs a shell, or a quote is not closed.
pub fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = line.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '$' | '`' | '!' => return None,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            ' ' | '\t' => words.extend(word.take()),
            c if SIGNS.contains(c) => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    // an assignment before a command is a shell's too
    let plain = words.first().is_some_and(|first| !first.is_empty() && !first.contains('='));
    plain.then_some(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_lines_are_split_and_others_left_to_a_shell() {
        let of = |line: &str| words(line).map(|w| w.join("|"));
        assert_eq!(of("gzip -kc  Cargo.lock"), Some("gzip|-kc|Cargo.lock".into()));
        assert_eq!(of("python3 -c 'print(1); x'"), Some("python3|-c|print(1); x".into()));
        assert_eq!(of(r#"a "b c\"d" e\ f '' "\n""#), Some(r#"a|b c"d|e f||\n"#.into()));
        for line in [
            "a | b",
            "a; b",
            "a && b",
            "echo $HOME",
            "ls *.rs",
            "a > b",
            "A=1 b",
            "a 'b",
            "a \"$b\"",
            "",
            "  ",
            "a # b",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(words in prop::collection::vec("[ -~]{1,12}", 1..6)) {
            prop_assume!(!words[0].contains('='));
            let line = crate::interrupt::shell(&words);
            prop_assert_eq!(super::words(&line), Some(words));
        }
    }
}
