//! Aligned columns of text for people, readable without colour.
//!
//! In: rows of cells. Out: lines. Must not: print, or know what the cells mean.

use std::fmt::Write;

/// Lines are wrapped at this many characters.
const WIDTH: usize = 110;

/// Rows under each other, every column as wide as its widest cell, two blanks apart, each line after `indent` blanks. The last column is
/// wrapped under itself; a line break in it is kept.
pub fn columns(indent: usize, rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let cells = rows.iter().filter(|r| c + 1 < r.len()).map(|r| r[c].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let Some((last, cells)) = row.split_last() else { continue };
        let mut line = " ".repeat(indent);
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let start = line.chars().count();
        for (i, part) in wrap(last, WIDTH.saturating_sub(start).max(30)).iter().enumerate() {
            let before = if i == 0 { line.clone() } else { " ".repeat(start) };
            let _ = writeln!(text, "{}", format!("{before}{part}").trim_end());
        }
    }
    text
}

/// Lines of at most `width` characters, broken at blanks; a longer word stands alone.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_is_wrapped_under_itself() {
        let long = "word ".repeat(30);
        let rows =
            [vec!["a".to_string(), "µJ".into(), "x\ny".into()], vec!["long".into(), "b".into(), long.trim().into()]];
        let text = columns(2, &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["  a     µJ  x", "            y", lines[2]]);
        assert!(lines[2].starts_with("  long  b   word") && lines[3].starts_with("            word"));
        assert!(lines.iter().all(|l| l.chars().count() <= WIDTH));
    }

    #[test]
    fn odd_input_is_no_panic() {
        assert_eq!(columns(0, &[]), "");
        assert_eq!(columns(0, &[vec![], vec!["a".into()]]), "a\n");
        assert_eq!(wrap(&"x".repeat(200), 10).len(), 1);
    }
}
