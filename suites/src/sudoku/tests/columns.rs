//! Tests of the layouts in which people keep puzzles: published headers, comments, quotes, delimiters; and of the place
//! that an error names.
//!
//! In: files made here. Out: verdicts. Must not: need a network.

use super::*;

/// Two puzzles with their solutions.
fn two() -> [(String, String); 2] {
    let puzzles = puzzles(Size::Four, None, 19, 2);
    [0, 1].map(|i: usize| (text(&puzzles[i].clues), text(&puzzles[i].solution)))
}

/// Reads it, and holds it to the two puzzles, read with their own solutions.
#[track_caller]
fn is_two(file: &str) -> PuzzleFile {
    let found = rows(file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let clues: Vec<String> = found.puzzles.iter().map(|p| text(&p.clues)).collect();
    assert_eq!(clues, two().map(|p| p.0), "{file}");
    found
}

#[test]
fn headers_in_use_are_read() {
    let [(a, x), (b, y)] = two();
    // header, a row of P and S for puzzle and solution, rows solved here, whether a choice is told
    for (header, row, solved, told) in [
        ("id,puzzle,solution,clues,difficulty", "7,P,S,24,2.2", 0, false),
        ("clues,difficulty,puzzle,solution", "24,2.2,P,S", 0, false),
        ("puzzle,solution,answer", "P,S,S", 0, true),
        ("puzzle,answer,solution,label", "P,S,S,3", 0, true),
        ("unsolved,solved,label", "P,S,5", 0, false),
        ("unsolved,solved,label", "P,S,S", 0, true),
        ("quizzes,solutions", "P,S", 0, false),
        ("source,question,answer,rating", "s,P,S,0", 0, false),
        ("clues,solution", "P,S", 0, false),
        ("Sudoku,Solution", "P,S", 0, false),
        ("puzzle,question", "P,P", 2, true),
        ("puzzle,question,answer", "P,how many?,S", 0, false),
        (",puzzle,solution", "0,P,S", 0, false),
        ("#,puzzle,solution", "1,P,S", 0, false),
        ("# puzzle,solution", "P,S", 0, false),
        ("'puzzle','solution'", "'P','S'", 0, false),
        ("\"puzzle\",\"solution\"", "\"P\",\"S\"", 0, false),
        ("id,cells given,solution", "1,P,S", 0, true),
        ("clues,field,solution", "24,P,S", 0, true),
        ("puzzle,solution", "P,", 2, false),
    ] {
        let line = |p: &str, s: &str| row.replace('P', p).replace('S', s);
        for delimiter in [",", ";", "\t", "|"] {
            let file = format!("{header}\n{}\n{}\n", line(&a, &x), line(&b, &y)).replace(',', delimiter);
            let found = is_two(&file);
            assert_eq!((found.solved, found.columns.is_some()), (solved, told), "{file}: {:?}", found.columns);
        }
    }
    // the first rows may be wrong: what a column holds is seen over several
    let file = format!("clues,question,answer\n24,,\n24,{a},{x}\n25,{b},{y}\n");
    let found = read_from(file.as_bytes(), Wanted { skip_bad: true, ..Wanted::default() }).unwrap();
    assert_eq!((found.puzzles.len(), found.skipped), (2, 1));
    for (file, words) in [
        ("field,answer\n1,2".to_owned(), &["line 1", "no column of puzzles", "puzzle, puzzles"][..]),
        (format!("puzzle,puzzle\n{a},{b}\n"), &["line 1", "columns 1 and 2 are both called `puzzle`"]),
        ("id,clues\n1,24\n".to_owned(), &["line 2", "column 2", "2 cells"]),
    ] {
        let message = rows(&file).expect_err(&file).to_string();
        assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint:"), "{file}: {message}");
    }
}

#[test]
fn comments_quotes_and_named_delimiters_are_read() {
    let [(a, x), (b, y)] = two();
    let grid = |p: &str| format!("{}\n{}\n{}\n{}", &p[..4], &p[4..8], &p[8..12], &p[12..]);
    for file in [
        format!("# made by hand, of 2026\n#\npuzzle,solution\n{a},{x}\n# a remark\n{b},{y}\n"),
        // apart by blanks, which can be empty cells too
        format!("{a} {x}\n{b} {y}\n"),
        format!("puzzle solution\n{a}  {x}\n{b}  {y}\n"),
        format!("{},{x}\n{},{y}\n", a.replace('0', " "), b.replace('0', " ")),
        format!("sep=;\r\npuzzle;solution\r\n{a};{x}\r\n{b};{y}\r\n"),
        format!("\"sep=|\"\npuzzle|solution\n{a}|{x}\n{b}|{y}\n"),
        format!("SEP=\t\n{a}\t{x}\n{b}\t{y}\n"),
        format!("puzzle,solution,remark\n{a},{x},\"two\nlines, and \"\"more\"\"\"\n{b},{y},\"\"\n"),
        format!("puzzle,solution\n\"{}\",\"{}\"\n{b},{y}\n", grid(&a), grid(&x)),
        format!("'{a}','{x}'\n'{b}','{y}'\n"),
        format!("puzzle,solution,size\n{a},{x},5\" wide\n{b},{y},it's\n"),
    ] {
        assert_eq!(is_two(&file).solved, 0, "{file}");
    }
    let file = format!("{}\n{}\n", a.replace('0', " "), b.replace('0', " "));
    assert_eq!(is_two(&file).solved, 2, "{file}");
}

#[test]
fn errors_name_the_line_on_which_a_row_begins() {
    let [(a, x), (b, y)] = two();
    for (file, words) in [
        (format!("# one\n# two\npuzzle,solution\n{a},{x}\n# three\n12,3\n"), &["line 6: ", "2 cells"][..]),
        (format!("sep=;\npuzzle;solution\n{a};{x}\n12;3\n"), &["line 4: ", "2 cells"]),
        (format!("puzzle,solution,remark\n{a},{x},\"1\n2\n3\"\n12,3,\n"), &["line 5: ", "2 cells"]),
        (format!("puzzle,solution\n{a},{x}\n\"{b},{y}\n{a},{x}\n"), &["line 3: column 1: a quote", "not closed"]),
        (format!("puzzle,solution\n{a},{x}\n{b},\"{y}\n"), &["line 3: column 2: a quote", "not closed"]),
        (format!("puzzle,solution\n{a},'{y}\n"), &["line 2: column 2: ", "solution has '\\''"]),
        ("{\"puzzle\": \"1\"}\n".into(), &["line 1: is JSON", "CSV"]),
        ("\u{feff}\n\n [\n".into(), &["line 3: is JSON", "CSV"]),
    ] {
        let message = rows(&file).expect_err(&file).to_string();
        assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint:"), "{file}: {message}");
    }
    // without a header a first row that is wrong does not make puzzles of the solutions
    for (row, words) in [
        (format!("{}A,{x}", &a[..15]), ["line 1: column 1", "'A'"]),
        (format!("{},{x}", &a[..15]), ["line 1: column 1", "15 cells"]),
        (format!("7,{}\u{a0},{x}", &a[..15]), ["line 1: column 2", "'\\u{a0}'"]),
    ] {
        let id = if row.starts_with("7,") { "8," } else { "" };
        for file in [format!("{row}\n"), format!("{row}\n{id}{b},{y}\n")] {
            let message = rows(&file).expect_err(&file).to_string();
            assert!(words.iter().all(|w| message.contains(w)), "{file}: {message}");
        }
        let skipping = Wanted { skip_bad: true, ..Wanted::default() };
        let found = read_from(format!("{row}\n{id}{b},{y}\n").as_bytes(), skipping).unwrap();
        assert_eq!((text(&found.puzzles[0].clues), found.puzzles.len(), found.skipped), (b.clone(), 1, 1));
    }
    // whichever comes first
    assert_eq!(rows(&format!("{x},{a}\n{y},{b}\n")).unwrap().puzzles.len(), 2);
    // a quote that is never closed costs its own row alone
    let file = format!("puzzle,solution\n{a},\"{x}\n{b},{y}\n");
    let found = read_from(file.as_bytes(), Wanted { skip_bad: true, ..Wanted::default() }).unwrap();
    assert_eq!((found.puzzles.len(), found.skipped), (1, 1));
    assert!(found.first_skipped.unwrap().starts_with("line 2: column 2: a quote"));
    let open = format!("{a},{x},\"{}", "words\n".repeat(100_000));
    assert!(rows(&open).expect_err("open").to_string().contains("line 1: column 3: a quote"));
}
