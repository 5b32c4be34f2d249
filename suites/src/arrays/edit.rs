//! Texts out of rows of tokens, of which edit distances are taken.
//!
//! In: tokens with an alphabet. Out: a text. Must not: normalise a text: what counts as the same is for labels and alphabet to say.

/// How the tokens of an answer become a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// What each token stands for; none: tokens stay tokens.
    pub alphabet: Option<Vec<String>>,
    /// The token of nothing in connectionist temporal classification: repeated tokens count once, and this one not at
    /// all. `None`: every token counts.
    pub blank: Option<u32>,
}

impl Decoding {
    /// The tokens that count, in order.
    pub fn tokens(&self, answer: &[u32]) -> Vec<u32> {
        let Some(blank) = self.blank else { return answer.to_vec() };
        let mut last = None;
        let mut kept = Vec::new();
        for &token in answer {
            if last != Some(token) && token != blank {
                kept.push(token);
            }
            last = Some(token);
        }
        kept
    }

    /// The text of an answer.
    ///
    /// # Errors
    /// A token that the alphabet does not have.
    pub fn text(&self, answer: &[u32]) -> Result<String, String> {
        let Some(alphabet) = &self.alphabet else { return Err("there is no alphabet".into()) };
        let symbol = |token: u32| {
            alphabet
                .get(token as usize)
                .map(String::as_str)
                .ok_or_else(|| format!("has the token {token}, and the alphabet {} symbols", alphabet.len()))
        };
        self.tokens(answer).into_iter().map(symbol).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ergometer_files::distance;

    /// Straight from the definition.
    fn brute(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) => {
                let change = brute(a_rest, b_rest) + usize::from(x != y);
                change.min(brute(a_rest, b) + 1).min(brute(a, b_rest) + 1)
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_distance_is_that_of_its_definition(
            a in proptest::collection::vec(0u8..3, 0..6),
            b in proptest::collection::vec(0u8..3, 0..6),
        ) {
            proptest::prop_assert_eq!(distance(&a, &b), brute(&a, &b));
        }
    }

    #[test]
    fn repeated_tokens_and_blanks_go() {
        let alphabet = ["", "a", "b", " "].map(String::from).to_vec();
        let ctc = Decoding { alphabet: Some(alphabet.clone()), blank: Some(0) };
        assert_eq!(ctc.text(&[0, 1, 1, 0, 1, 2, 2, 3, 0, 2]).unwrap(), "aab b");
        assert_eq!(ctc.text(&[0, 0]).unwrap(), "");
        assert!(ctc.text(&[7]).unwrap_err().contains("token 7"));
        let plain = Decoding { alphabet: Some(alphabet), blank: None };
        assert_eq!(plain.text(&[1, 1, 0, 2]).unwrap(), "aab");
        assert_eq!(Decoding { alphabet: None, blank: Some(0) }.tokens(&[5, 5, 0, 5]), [5, 5]);
        assert_eq!(distance(&["the", "cat"], &["a", "cat", "sat"]), 2);
    }
}
