//! Chunks and their shapes: tokens of every width, rows that are no task's, and chunks that come back as they were.
//!
//! In: examples made up here. Out: bytes. Must not: need a task that exists.

use std::path::Path;

use ergometer_suites::task::{Example, ExampleSet};
use ergometer_suites::{TASKS, task};

use super::array::SetArray;
use super::formats::FORMATS;
use super::*;

fn set(vocabulary: u32, puzzle_ids: u32, rows: u32) -> ExampleSet {
    let example = |row: u32| Example {
        tokens: vec![row, vocabulary - 1, 0],
        answer: vec![vocabulary - 1, row].into(),
        puzzle_id: row % puzzle_ids,
        difficulty: 70_000 + row,
        ..Example::default()
    };
    ExampleSet {
        examples: (0..rows).map(example).collect(),
        vocabulary,
        puzzle_ids,
        numbering: Some("mine".into()),
        questions: Vec::new(),
        baselines: Vec::new(),
        notes: Vec::new(),
        ..ExampleSet::default()
    }
}

fn request(folder: &Path) -> Request {
    let task = task("sudoku").unwrap();
    Request {
        task: TaskFile { file: "t.toml".into(), name: "t".into(), task, parameters: toml::Table::new() },
        split: Split::Train,
        examples: 6,
        seed: 1,
        threads: 1,
        out: folder.join("d.safetensors"),
        format: &FORMATS[0],
        resume: false,
        force: false,
    }
}

#[test]
fn tokens_are_as_wide_as_the_vocabulary_asks_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for (vocabulary, dtype, width) in
        [(256, "U8", 1), (257, "U16", 2), (65_536, "U16", 2), (65_537, "U32", 4), (u32::MAX, "U32", 4)]
    {
        for ids in [1, 3] {
            let request = request(folder.path());
            let set = set(vocabulary, ids, 6);
            let (shape, chunk) = Chunk::of(&set).unwrap();
            assert_eq!((shape.width(), shape.has_ids(), chunk.tokens.len()), (width, ids > 1, 18 * width));
            let parts = Parts::open(&request).unwrap();
            parts.write(0, &shape, &chunk).unwrap();
            assert_eq!(parts.read(0).unwrap(), (shape.clone(), chunk.clone()));
            let mut made = Set::new(&request, &parts, shape.clone());
            made.keep(0, &[true, false, true, true, false, true]);
            let mut found = Vec::new();
            made.each_example(|e| {
                found.push(e.clone());
                Ok(())
            })
            .unwrap();
            assert_eq!(found, [0, 2, 3, 5].map(|i: usize| set.examples[i].clone()), "{vocabulary}");
            ergometer_files::replace_with(&request.out, |file| (FORMATS[0].write)(&made, file)).unwrap();
            let bytes = std::fs::read(&request.out).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tokens = file.tensor("tokens").unwrap();
            assert_eq!((format!("{:?}", tokens.dtype()), tokens.shape()), (dtype.to_owned(), &[4, 3][..]));
            assert_eq!(tokens.data().len(), 12 * width);
            assert_eq!(file.tensor("answer").unwrap().shape(), [4, 2]);
            assert_eq!(file.tensor("difficulty").unwrap().shape(), [4]);
            assert_eq!(file.tensor("puzzle_id").is_ok(), ids > 1);
            // elements begin at multiples of their size
            let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let offset = tokens.data().as_ptr() as usize - bytes.as_ptr() as usize - header;
            assert_eq!((header % 8, offset % width), (0, 0));
            parts.remove().unwrap();
            std::fs::remove_file(&request.out).unwrap();
        }
    }
}

#[test]
fn rows_that_are_not_of_one_shape_are_a_fault_that_is_told() {
    for spoil in [
        |e: &mut Example| e.tokens.push(0),
        |e: &mut Example| e.answer = Vec::new().into(),
        |e: &mut Example| e.tokens[0] = 300,
        |e: &mut Example| e.answer = vec![0, 300].into(),
        |e: &mut Example| e.puzzle_id = 3,
    ] {
        let mut set = set(300, 3, 6);
        spoil(&mut set.examples[4]);
        let said = Chunk::of(&set).unwrap_err().to_string();
        assert!(said.contains("example 4") && said.contains("hint: "), "{said}");
    }
    assert!(Chunk::of(&set(300, 3, 0)).is_err());
}

#[test]
fn examples_that_ask_the_same_are_told_by_input_and_id() {
    let (shape, chunk) = Chunk::of(&set(300, 3, 6)).unwrap();
    let digests: HashSet<_> = (0..6).map(|row| chunk.digest(row, &shape)).collect();
    assert_eq!(digests.len(), 6);
    let mut other = chunk.clone();
    other.answer.fill(0);
    other.difficulty.fill(0);
    assert!((0..6).all(|row| digests.contains(&other.digest(row, &shape))));
    other.puzzle_id[0] += 1;
    assert!(!digests.contains(&other.digest(0, &shape)));
}

#[test]
fn examples_that_come_again_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let request = Request { examples: 2500, threads: 3, ..request(folder.path()) };
    // 2600 different ones in all, of which a seed gives any; the order does not hang on the threads
    let maker: Maker = Box::new(|seed, count| {
        let mut set = set(4000, 1, 2600);
        set.examples
            .sort_by_key(|e| (u64::from(e.tokens[0] + 1) ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29));
        set.examples.truncate(count);
        Ok(set)
    });
    let parts = Parts::open(&request).unwrap();
    let made = collect(&request, &maker, &parts).unwrap();
    let mut found = Vec::new();
    made.each_example(|e| {
        found.push(e.tokens[0]);
        Ok(())
    })
    .unwrap();
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), 2500);
    assert_eq!((made.examples, found.len()), (2500, 2500));
    assert!(made.repeated > 0);
    let mut expected = Vec::new();
    for chunk in 0.. {
        // the last of the first round is only as large as it must be
        let size = if chunk == 2 { 500 } else { 1000 };
        let set = maker(chunk_seed(1, chunk), size).unwrap();
        for e in set.examples {
            if expected.len() < 2500 && !expected.contains(&e.tokens[0]) {
                expected.push(e.tokens[0]);
            }
        }
        if expected.len() == 2500 {
            break;
        }
    }
    assert_eq!(found, expected);
    parts.remove().unwrap();

    // one more than there are
    let request = Request { examples: 2601, ..request };
    let parts = Parts::open(&request).unwrap();
    let said = collect(&request, &maker, &parts).err().unwrap().to_string();
    assert!(said.contains("t.toml") && said.contains("ask for at most "), "{said}");
    parts.remove().unwrap();

    // chunks of two data sets
    let torn: Maker = Box::new(|seed, count| Ok(set(if seed == 1 { 4000 } else { 4001 }, 1, count as u32)));
    let parts = Parts::open(&request).unwrap();
    let said = collect(&request, &torn, &parts).err().unwrap().to_string();
    assert!(said.contains("another data set") && said.contains("hint: "), "{said}");
}

#[test]
fn every_task_makes_sets_of_either_side() {
    for task in TASKS {
        let parameters = match task.name {
            "sudoku" => "size = 4",
            "arc" => "rules = 'all'",
            "maze" => "side = 5",
            _ => "",
        };
        for split in [Split::Train, Split::Test] {
            // own data are in files already, and text is no tokens before a model is known
            let puzzles = ["sudoku", "arc", "maze"].contains(&task.name);
            if !puzzles {
                let why =
                    if task.name == "arrays" { "in files already" } else { "are text, which no file of tokens holds" };
                let refused = task.maker(&toml::Table::new(), Path::new(""), split).err().unwrap().to_string();
                assert!(refused.contains(why) && refused.contains("hint: "), "{refused}");
                continue;
            }
            let made = task.maker(&parameters.parse().unwrap(), Path::new(""), split).and_then(|make| make(1, 3));
            let (shape, chunk) = Chunk::of(&made.unwrap()).unwrap();
            assert!(chunk.within(&shape) && chunk.rows() >= 3, "{}", task.name);
            assert!(!task.row(&chunk.example(0, &shape)).is_empty());
            assert_eq!(SetArray::of(&shape, false).len(), 3 + usize::from(shape.has_ids()));
        }
    }
}
