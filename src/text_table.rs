//! Aligned columns of text for people, readable without colour.
//!
//! In: rows of cells. Out: lines as wide as the terminal. Must not: print, or know what the cells mean.

use std::fmt::Write;

/// The last column has at least so many characters; with less left, each cell has lines of its own.
const LEAST: usize = 24;

/// Rows under each other, every column as wide as its widest cell, two blanks apart, each line after `indent` blanks. The last column is
/// wrapped under itself; a line break in it is kept. Lines are as wide as the terminal.
pub fn columns(indent: usize, rows: &[Vec<String>]) -> String {
    within(crate::console::width(), indent, rows)
}

/// The same in so many characters. Where the last column would have no room, the first cell stands alone and the others under it.
pub fn within(most: usize, indent: usize, rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let cells = rows.iter().filter(|r| c + 1 < r.len()).map(|r| r[c].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    // what must not be broken: a word longer than the line cannot be helped
    let fits = indent + widths.iter().map(|w| w + 2).sum::<usize>() + LEAST <= most + 2;
    let mut text = String::new();
    for row in rows {
        let Some((last, cells)) = row.split_last() else { continue };
        if !fits && !cells.is_empty() {
            for (i, cell) in row.iter().enumerate().filter(|(i, c)| *i == 0 || !c.is_empty()) {
                let start = indent + if i == 0 { 0 } else { 4 };
                for part in wrap(cell, most.saturating_sub(start)) {
                    let _ = writeln!(text, "{}", format!("{:start$}{part}", "").trim_end());
                }
            }
            continue;
        }
        let mut line = " ".repeat(indent);
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let mut start = line.chars().count();
        // a path that does not fit beside the other cells stands under them
        let longest = last.split_whitespace().map(|w| w.chars().count()).max().unwrap_or(0);
        if start + longest > most && !cells.is_empty() {
            let _ = writeln!(text, "{}", line.trim_end());
            start = indent + 4;
            line = " ".repeat(start);
        }
        for (i, part) in wrap(last, most.saturating_sub(start).max(LEAST)).iter().enumerate() {
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
        for width in [60, 80, 110] {
            let text = within(width, 2, &rows);
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines[..3], ["  a     µJ  x", "            y", lines[2]]);
            assert!(lines[2].starts_with("  long  b   word") && lines[3].starts_with("            word"));
            assert!(lines.iter().all(|l| l.chars().count() <= width), "{text}");
        }
    }

    #[test]
    fn where_the_last_column_has_no_room_cells_stand_under_each_other() {
        let long = "word ".repeat(12);
        let rows =
            [vec!["name".to_string(), "x".repeat(50), long.trim().into()], vec!["b".into(), String::new(), "c".into()]];
        let text = within(60, 0, &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["name".to_string(), format!("    {}", "x".repeat(50))]);
        assert!(lines[2].starts_with("    word word") && lines[lines.len() - 2..] == ["b", "    c"], "{text}");
        assert!(lines.iter().all(|l| l.chars().count() <= 60), "{text}");
    }

    #[test]
    fn a_path_that_does_not_fit_stands_under_its_row() {
        let rows = [vec!["name".to_string(), "/a/".repeat(20)], vec!["b".into(), "c".into()]];
        assert_eq!(within(60, 0, &rows), format!("name\n    {}\nb     c\n", "/a/".repeat(20)));
    }

    #[test]
    fn odd_input_is_no_panic() {
        assert_eq!(columns(0, &[]), "");
        assert_eq!(columns(0, &[vec![], vec!["a".into()]]), "a\n");
        assert_eq!(wrap(&"x".repeat(200), 10).len(), 1);
    }
}
