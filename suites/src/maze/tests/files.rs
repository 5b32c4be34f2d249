//! Files of mazes: good ones as people have them, and what is wrong with others.

use super::super::file::read_from;
use super::*;

fn rows(text: &str) -> Result<MazeFile, SuiteError> {
    read_from(text.as_bytes(), WantedMazes::default())
}

fn refused(text: &str) -> String {
    rows(text).unwrap_err().to_string()
}

/// Question and answer of a generated maze.
fn pair(maze: &Maze) -> (String, String) {
    (text(&maze.grid.tokens(&[])), text(&maze.grid.tokens(&maze.path.marks)))
}

fn five(seed: u64) -> (String, String) {
    pair(&mazes(MazeRequest::of(5), seed, 1)[0])
}

#[test]
fn files_are_read_in_the_layout_of_maze_hard_and_others() {
    let ((q, a), (r, b)) = (five(1), five(2));
    let expected = vec![MazeGrid::parse(&q).unwrap().0, MazeGrid::parse(&r).unwrap().0];
    for file in [
        format!("source,question,answer,rating\nx,{q},{a},12\ny,{r},{b},9\n"),
        format!("question,answer\r\n{q},{a}\r\n{r},{b}"),
        format!("\u{feff}Question;Answer\n{q};{a}\n\n{r};{b}\n"),
        format!("answer\tmaze\n{a}\t{q}\n{b}\t{r}\n"),
        format!("{q},{a}\n{r},{b}\n"),
        format!("{a},{q}\n{b},{r}\n"),
        format!("\"{q}\",\"{a}\"\n\"{r}\",\"{b}\"\n"),
        format!("{q},{a}\n{q},{a}\n{r},{b}\n"),
        format!("{q},{a}\n{r},{b}\n").replace(' ', "."),
    ] {
        let found = rows(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        let grids: Vec<MazeGrid> = found.mazes.iter().map(|m| m.grid.clone()).collect();
        assert_eq!((found.side, &grids, found.solved, found.skipped), (5, &expected, 0, 0), "{file}");
        assert_eq!(found.mazes.iter().map(|m| pair(m).1).collect::<Vec<_>>(), [a.clone(), b.clone()]);
        assert_eq!(found.repeated, file.lines().count().saturating_sub(2) * usize::from(file.matches(&q).count() == 2));
    }
    for file in [format!("question\n{q}\n{r}\n"), format!("{q}\n{r}\n"), format!("question,answer\n{q},\n{r}, \n")] {
        let found = rows(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!((found.mazes.len(), found.solved), (2, 2));
        assert_eq!(pair(&found.mazes[1]).1, b, "solved here");
    }
    let limited =
        read_from(format!("{q}\n{r}\nnonsense\n").as_bytes(), WantedMazes { limit: Some(2), ..WantedMazes::default() });
    assert_eq!(limited.unwrap().mazes.len(), 2);
}

#[test]
fn faults_in_a_file_are_named_by_line() {
    let ((q, a), (r, b)) = (five(1), five(2));
    let six = pair(&mazes(MazeRequest::of(6), 1, 1)[0]).0;
    let open = format!("S{}G", " ".repeat(23));
    let closed = format!("S#   ##{}G", " ".repeat(17));
    let (around, shorter) = ("S  G o##o o##o o##o oooo ".to_owned(), "S  G  ##   ##   ##       ".to_owned());
    assert_eq!((open.len(), closed.len(), around.len(), shorter.len()), (25, 25, 25, 25));
    for (file, words) in [
        (String::new(), "holds no maze"),
        ("question,answer\n".into(), "holds no maze"),
        ("{\"question\": 1}\n".into(), "is JSON"),
        ("name,level\nx,y\n".into(), "names no column of mazes"),
        (format!("answer,level\n{a},1\n"), "names no column of mazes"),
        (format!("{q},{a}\n{}\n", &q[..24]), "line 2: column 1: the maze has 24 cells"),
        (format!("{q},{a}\n{r},{}\n", &b[..24]), "line 2: column 2: the maze has 24 cells"),
        (format!("{q},{a}\n\n{six},\n"), "line 3: the maze is 6x6, not 5x5"),
        (format!("{q},{a}\n{},{b}\n", r.replace('S', "x")), "'x' is no cell"),
        (format!("{q},{a}\n{},{b}\n", r.replace('S', " ")), "line 2: column 1: there is no `S`"),
        (format!("{q},{a}\n{},{b}\n", r.replace('G', "S")), "`S` stands twice"),
        (format!("{q},{a}\n{r},{a}\n"), "line 2: maze and answer differ at row"),
        (format!("{q},{a}\n{b},{r}\n"), "line 2: the maze has a path in it already"),
        (format!("{q},{a}\n{r},{r}\n"), "line 2: the marks of the answer are no path"),
        (format!("question,answer\n{shorter},{around}\n"), "line 2: the marked path has 11 steps, the shortest 3"),
        (format!("question\n{open}\n"), "line 2: the maze has more than one shortest path"),
        (format!("question\n{closed}\n"), "line 2: no way leads from `S` to `G`"),
        (format!("answer,question\n{a}\n"), "line 2: has 1 column; the mazes are in column 2"),
        (format!("question\n\"{q}\n{r}\n"), "line 2: a quote is not closed"),
        (format!("{q},{a}\n{}\n", "x".repeat(20_000)), "line 2: longer than 16384 bytes"),
        (format!("{q},{a}\n{}\0\n", &r[..24]), "line 2: a NUL byte"),
        ("PK\u{3}\u{4}zip".into(), "line 1: is "),
    ] {
        let said = refused(&file);
        assert!(said.contains(words) && said.contains("hint: "), "{file:?}: {said}");
    }
    assert!(refused(&format!("{q},{a}\n")[..30]).contains("line 1"), "a file that was cut off");
    let file = format!("{q},{a}\n{r},{a}\nnonsense\n{r},{b}\n");
    let found = read_from(file.as_bytes(), WantedMazes { skip_bad: true, ..WantedMazes::default() }).unwrap();
    assert_eq!((found.mazes.len(), found.skipped), (2, 2));
    assert!(found.first_skipped.unwrap().starts_with("line 2: maze and answer differ"));
    let none = read_from(&b"nonsense,x\nmore,y\n"[..], WantedMazes { skip_bad: true, ..WantedMazes::default() });
    assert!(none.unwrap_err().to_string().contains("hint: "));
    let sized = read_from(format!("{q},{a}\n").as_bytes(), WantedMazes { side: Some(7), ..WantedMazes::default() });
    assert!(sized.unwrap_err().to_string().contains("the maze is 5x5, not 7x7"));
}

#[test]
fn a_file_with_several_shortest_paths_says_so_and_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let open = format!("S{}G", " ".repeat(23));
    let one = "Soooo    o    o    o    G";
    let other = "S    o    o    o    ooooG";
    let (q, a) = five(1);
    std::fs::write(folder.path().join("m.csv"), format!("question,answer\n{open},{one}\n{q},{a}\n{q},{a}\nbad,\n"))
        .unwrap();
    let table: toml::Table = "csv = \"m.csv\"\nskip_bad = true".parse().unwrap();
    let set = examples(&table, folder.path()).unwrap();
    assert_eq!((set.examples.len(), set.examples[0].difficulty), (2, 8));
    assert_eq!(text(set.examples[0].answer.tokens()), one);
    let of = |cells: &str| Answer::from(MazeGrid::parse(cells).map(|(g, m)| g.tokens(&m)).unwrap());
    let example = &set.examples[0];
    assert!(
        Score::of_cells(&example.answer, &of(one)).exact && !Score::of_cells(&example.answer, &of(other)).exact,
        "as the released code counts"
    );
    assert!(valid(example, &of(one)) && valid(example, &of(other)));
    let notes = set.notes.join("\n");
    for words in [
        "whether a model has seen them",
        "Of 2 mazes 1 have other paths as short",
        "repeat an earlier maze: 1 row",
        "(`skip_bad`): 1 row; the first is line 5: ",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    let table: toml::Table = "csv = \"m.csv\"".parse().unwrap();
    let said = examples(&table, folder.path()).unwrap_err().to_string();
    assert!(said.contains("m.csv: line 5: ") && said.contains("hint: "), "{said}");
    let missing: toml::Table = "csv = \"none.csv\"".parse().unwrap();
    let said = examples(&missing, folder.path()).unwrap_err().to_string();
    assert!(said.contains("cannot read the mazes") && said.contains("none.csv") && said.contains("hint: "), "{said}");
}

#[test]
fn a_readable_row_is_read_again() {
    let set = set_of("side = 7\nexamples = 30\nseed = 2").unwrap();
    let mut file = String::new();
    for (i, example) in set.examples.iter().enumerate() {
        let row = readable(example);
        if i == 0 {
            file += &(row.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",") + "\n");
        }
        let cells: Vec<String> = row
            .into_iter()
            .map(|(_, field)| match field {
                Field::Text(text) => text,
                Field::Number(n) => n.to_string(),
                Field::Numbers(_) => panic!("a maze is text"),
            })
            .collect();
        file += &(cells.join(",") + "\n");
    }
    let found = rows(&file).unwrap();
    let again: Vec<Example> = found.mazes.iter().map(Maze::example).collect();
    assert_eq!(again, set.examples);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn written_mazes_are_read_again(seed: u64, side in 5usize..10, header: bool, dots: bool, mark in "[,;\t|]") {
        let made = mazes(MazeRequest::of(side), seed, 3);
        let mut file = if header { format!("question{mark}answer\n") } else { String::new() };
        for maze in &made {
            let (q, a) = pair(maze);
            file += &format!("{q}{mark}{a}\n");
        }
        let found = rows(&if dots { file.replace(' ', ".") } else { file }).unwrap();
        let distinct: HashSet<Vec<u32>> = made.iter().map(|m| m.grid.tokens(&[])).collect();
        prop_assert_eq!(found.mazes.len(), distinct.len());
        prop_assert_eq!(&found.mazes[0], &made[0]);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_from(&bytes[..], WantedMazes::default());
    }

    #[test]
    fn no_near_file_panics(text in "(question,answer\n)?([# .SGo]{25},[# .SGo]{25}\n?|S[# ]{23}G,S[ o]{23}G\n|[\",\n\r]){0,6}", skip_bad: bool) {
        let _ = read_from(text.as_bytes(), WantedMazes { skip_bad, ..WantedMazes::default() });
    }
}
