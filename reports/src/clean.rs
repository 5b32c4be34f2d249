//! One place that cleans text which people see, and one that cleans cells which spreadsheets read.
//!
//! In: text from suites, folder names, configs, workers. Out: the same text without what steers a terminal, reorders or
//! hides characters, or is read as a formula. Must not: change text that is harmless, or lose a character: what is
//! unsafe is shown as `\u{1b}`.

use std::borrow::Cow;

/// Characters that people would not see as they are: controls, marks of writing direction, and those without a width.
fn unsafe_char(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}' | '\u{e0000}'..='\u{e0fff}')
}

fn replaced(text: &str, keep: impl Fn(char) -> bool, shown: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(|c| unsafe_char(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let one = |c: char| if unsafe_char(c) && !keep(c) { shown(c) } else { c.to_string() };
    Cow::Owned(text.chars().map(one).collect())
}

fn visible(c: char) -> String {
    if matches!(c, '\n' | '\r' | '\t') { " ".into() } else { c.escape_unicode().to_string() }
}

/// Text for one line of a terminal, a page or a table: line breaks and tabs become blanks, whatever else cannot be seen
/// its number.
pub fn clean(text: &str) -> Cow<'_, str> {
    replaced(text, |_| false, visible)
}

/// The same for text of several lines.
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| matches!(c, '\n' | '\t'), visible)
}

/// JSON with the same characters escaped as JSON does it: the same value to a program, harmless to a terminal.
pub fn clean_json(text: &str) -> Cow<'_, str> {
    let escaped = |c: char| {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    replaced(text, |c| matches!(c, '\n' | '\t' | '\r'), escaped)
}

/// A cell of a file that a spreadsheet may open: what would be read as a formula begins with an apostrophe. Numbers
/// stay numbers.
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    let number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) && text.parse::<f64>().is_ok();
    // blanks before the sign are passed over by some
    let formula =
        text.trim_start_matches(' ').starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let text = replaced(text, |c| c == '\n', visible);
    if formula && !number { Cow::Owned(format!("'{text}")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_reorders_or_hides_is_shown_by_number() {
        assert_eq!(clean("\u{1b}]0;title\u{7}\u{1b}[31mred"), "\\u{1b}]0;title\\u{7}\\u{1b}[31mred");
        assert_eq!(
            clean("abc\u{202e}fdp.exe\u{2066}\u{200b}\u{9b}1m\u{feff}"),
            "abc\\u{202e}fdp.exe\\u{2066}\\u{200b}\\u{9b}1m\\u{feff}"
        );
        assert_eq!(clean("a\nb\tc\rd"), "a b c d");
        assert_eq!(clean_lines("a\nb\tc\rd\u{8}"), "a\nb\tc d\\u{8}");
        for plain in ["", "Größe 12 µs – 95\u{202f}% ≤ ~", "数独", "naïve e\u{301}"] {
            assert!(matches!(clean(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"name": "a\u{202e}b\u{7f}\u{e0041}\u{1b}"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let cleaned = clean_json(&text);
        assert!(!cleaned.chars().any(|c| unsafe_char(c) && c != '\n'), "{cleaned}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&cleaned).unwrap(), value);
    }

    #[test]
    fn formulas_are_text_and_numbers_stay_numbers() {
        for formula in
            ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1", "-", "+", "-inf", "＝1", "--1"]
        {
            assert!(csv_cell(formula).starts_with('\''), "{formula}");
        }
        for plain in ["-1.5", "+3", "-1e-7", "1=1", "", "a-b", "–", "≤ 3 ms", "f32"] {
            assert_eq!(csv_cell(plain), plain);
        }
        assert_eq!(csv_cell("a\u{1b}[2J"), "a\\u{1b}[2J");
    }
}
