//! Files of puzzles and mazes: good ones to begin from, and what is read of them.
//!
//! In: the file that bytes lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs.

use std::path::Path;

use super::{Outcome, said};

pub(super) fn puzzles(_: &Path) -> Vec<Vec<u8>> {
    let four = "puzzle,solution\n1204341221434321,1234341221434321\n0234341221434321,1234341221434321\n";
    let quoted = "\u{feff}\"quizzes\",\"solutions\"\r\n\"12.4341221434321\",\"1234341221434321\"\r\n";
    [four, quoted, "1204341221434321,1234341221434321\n"].map(|t| t.as_bytes().to_vec()).into()
}

pub(super) fn puzzle_file(_: &[u8], path: &Path) -> Outcome {
    use ergometer_suites::sudoku::Wanted;
    let lenient = ergometer_suites::sudoku::read(path, Wanted { skip_bad: true, ..Wanted::default() });
    match ergometer_suites::sudoku::read(path, Wanted::default()) {
        Ok(rows) => {
            assert_eq!(lenient.unwrap().puzzles.len(), rows.puzzles.len());
            assert!(!rows.puzzles.is_empty());
            for p in &rows.puzzles {
                assert!(ergometer_suites::sudoku::is_solved(rows.size, &p.solution), "{p:?}");
                assert!(p.clues.iter().zip(&p.solution).all(|(c, s)| *c == 0 || c == s), "{p:?}");
            }
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}

pub(super) fn mazes(_: &Path) -> Vec<Vec<u8>> {
    // rows of five cells: the answer goes down, right and down again
    let (question, answer) = ("S#    # #    #### #     G", "S#   o# # ooo####o#   ooG");
    let named = format!("source,question,answer,rating\nx,{question},{answer},8\n");
    let quoted = format!("\u{feff}\"question\";\"answer\"\r\n\"{question}\";\"{answer}\"\r\n");
    [named, quoted, format!("{question}\n")].map(String::into_bytes).into()
}

pub(super) fn maze_file(_: &[u8], path: &Path) -> Outcome {
    use ergometer_suites::maze::{WantedMazes, is_path, read, shortest};
    let lenient = read(path, WantedMazes { skip_bad: true, ..WantedMazes::default() });
    match read(path, WantedMazes::default()) {
        Ok(rows) => {
            assert_eq!(lenient.unwrap().mazes.len(), rows.mazes.len());
            assert!(!rows.mazes.is_empty());
            for maze in &rows.mazes {
                assert_eq!(maze.grid.side(), rows.side);
                assert!(is_path(&maze.grid, &maze.path.marks), "{maze:?}");
                let best = shortest(&maze.grid).unwrap();
                assert_eq!((best.steps, best.count), (maze.path.steps, maze.path.count), "{maze:?}");
            }
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}
