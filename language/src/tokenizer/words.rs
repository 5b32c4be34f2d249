//! Pre-tokenizers: how a text is cut into words before pairs are merged, by the name in `tokenizer.ggml.pre`.
//!
//! In: a name; a text. Out: words, which together are the text. Must not: drop or change a character.
//!
//! A pre-tokenizer is a list of patterns; each cuts what the ones before it left whole, into what it matches and what is
//! between. Published patterns end in `\s+(?!\S)|\s+`: white space before a word leaves its last character to the word.
//! The engine here, which takes linear time, has no look-ahead: the patterns below end in a group `(\s+)`, and the last
//! character is given back by hand.

use regex::Regex;

/// A pre-tokenizer with what its name says beside.
pub(super) struct WordRule {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// A word that is a token as a whole is not merged up.
    pub whole_words: bool,
    /// Texts get the beginning token where the file does not say.
    pub adds_begin: bool,
    /// Bytes are written as GPT-2's characters; else spaces as U+2581 and the rest as it is.
    pub bytes: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|(\s+)";

const PLAIN: WordRule = WordRule { names: &[], patterns: &[], whole_words: false, adds_begin: false, bytes: true };

const RULES: &[WordRule] = &[
    WordRule {
        names: &["default", ""],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ..PLAIN
    },
    WordRule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"],
        patterns: &[
            r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|(\s+)",
        ],
        whole_words: true,
        adds_begin: true,
        ..PLAIN
    },
    WordRule { names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat"], patterns: &[GPT2], ..PLAIN },
    WordRule {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    WordRule {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"],
        patterns: &[
            r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|(\s+)",
        ],
        ..PLAIN
    },
    WordRule {
        names: &["qwen35"],
        patterns: &[
            r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|(\s+)",
        ],
        ..PLAIN
    },
    WordRule { names: &["falcon"], patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], ..PLAIN },
    WordRule {
        names: &["deepseek-llm"],
        patterns: &[
            "[\r\n]",
            DEEPSEEK_LETTERS,
            "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            "[一-龥ࠀ-一가-퟿]+",
            r"\p{N}+",
        ],
        ..PLAIN
    },
    WordRule {
        names: &["deepseek-coder"],
        patterns: &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
        ..PLAIN
    },
    WordRule { names: &["gemma4"], patterns: &[r"[^\n]+|[\n]+"], bytes: false, adds_begin: true, ..PLAIN },
];

/// Letters of scripts that have two cases.
const DEEPSEEK_LETTERS: &str = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

impl WordRule {
    /// The rule of a name.
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        RULES.iter().find(|r| r.names.contains(&name))
    }

    /// Every name, for an error.
    pub(super) fn names() -> String {
        let names = RULES.iter().flat_map(|r| r.names).filter(|n| !n.is_empty());
        names.copied().collect::<Vec<_>>().join(", ")
    }

    /// Its patterns, compiled.
    pub(super) fn patterns(&self) -> Result<Vec<Regex>, regex::Error> {
        self.patterns.iter().map(|p| Regex::new(p)).collect()
    }
}

/// Cuts a text into words.
pub(super) fn words<'t>(text: &'t str, patterns: &[Regex]) -> Vec<&'t str> {
    let mut words = vec![text];
    for pattern in patterns {
        let mut cut = Vec::with_capacity(words.len());
        words.iter().for_each(|word| cut_by(word, pattern, &mut cut));
        words = cut;
    }
    words
}

fn cut_by<'t>(text: &'t str, pattern: &Regex, cut: &mut Vec<&'t str>) {
    let mut done = 0;
    let mut places = pattern.capture_locations();
    while let Some(found) = pattern.captures_read_at(&mut places, text, done) {
        let mut end = found.end();
        if places.get(1).is_some() && end < text.len() {
            // white space before a word: its last character goes to the word, unless it is the only one
            let last = text[found.start()..end].char_indices().last().map_or(0, |(at, _)| at);
            if last > 0 {
                end = found.start() + last;
            }
        }
        if found.start() > done {
            cut.push(&text[done..found.start()]);
        }
        if end == found.start() {
            break;
        }
        cut.push(&text[found.start()..end]);
        done = end;
    }
    if done < text.len() {
        cut.push(&text[done..]);
    }
}
