//! `ergometer dataset` through the program: formats, sides, threads, an end by force, and bad requests.
//!
//! In: small tasks. Out: files, exit codes, messages. Must not: depend on how fast anything is.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use ergometer::models::tensors::Tensors;
use ergometer_suites::sudoku::{Puzzle, Size, Wanted, class, read, split_of};
use ergometer_suites::task::Split;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::house::{Ended, House, ended, root, skip_here, wait_until};

/// A house with tasks in it.
fn house() -> House {
    let house = House::new();
    house.file("four.toml", "[task]\nkind = \"sudoku\"\nsize = 4\nclues = [4, 8]\n");
    house.file("six.toml", "about = \"mine\"\n[task]\nkind = \"sudoku\"\nsize = 6\n");
    house.file("rules.toml", "[task]\nkind = \"arc\"\nrules = [\"mirror\", \"border\"]\nmax_side = 5\n");
    house
}

fn make(house: &House, words: &str) -> Ended {
    house.ergometer(&[&["dataset"], &words.split(' ').collect::<Vec<_>>()[..]].concat())
}

/// Arrays by name, as numbers, and metadata.
struct Arrays(Tensors<fs::File>);

impl Arrays {
    fn of(path: &Path) -> Self {
        Self(Tensors::open(path).unwrap())
    }

    fn rows(&mut self, name: &str, dtype: &str, cells: usize) -> Vec<Vec<u8>> {
        let entry = self.0.entries[name].clone();
        let wanted = if cells == 1 { vec![entry.shape[0]] } else { vec![entry.shape[0], cells] };
        assert_eq!((entry.dtype.as_str(), &entry.shape), (dtype, &wanted), "{name}");
        let width = if dtype == "U8" { 1 } else { 4 };
        let bytes = self.0.raw(name, dtype, entry.elements()).unwrap();
        bytes.chunks(cells * width).map(<[u8]>::to_vec).collect()
    }
}

fn digits(tokens: &[u8]) -> Vec<u8> {
    tokens.iter().map(|t| t - 1).collect()
}

/// The puzzles of a `.safetensors` file, each checked to have one solution and the rating that it says.
fn puzzles(path: &Path, size: Size) -> Vec<Puzzle> {
    let mut arrays = Arrays::of(path);
    let (tokens, answers) = (arrays.rows("tokens", "U8", size.cells()), arrays.rows("answer", "U8", size.cells()));
    let guesses = arrays.rows("difficulty", "U32", 1);
    let puzzle = |((tokens, answer), guesses): ((&Vec<u8>, &Vec<u8>), &Vec<u8>)| {
        let puzzle = Puzzle::new(size, digits(tokens), digits(answer)).unwrap();
        assert_eq!(puzzle.guesses.to_le_bytes()[..], guesses[..]);
        puzzle
    };
    tokens.iter().zip(&answers).zip(&guesses).map(puzzle).collect()
}

#[test]
fn every_format_holds_the_same_examples_and_puzzles_are_read_again() {
    let house = house();
    for ending in ["safetensors", "npz", "csv", "jsonl"] {
        let ended = make(&house, &format!("six.toml --split test --examples 1010 --seed 3 --out out/d.{ending}"));
        ended.exits(0);
        assert!(ended.stdout.contains("1010 examples of `sudoku`, test side, seed 3"), "{}", ended.stdout);
        assert!(
            ended.stderr.contains("no example came twice") || ended.stderr.contains("left out"),
            "{}",
            ended.stderr
        );
    }
    let left: Vec<_> = fs::read_dir(house.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "nothing but the files: {left:?}");
    let wanted = puzzles(&house.path("out/d.safetensors"), Size::Six);
    assert_eq!(wanted.len(), 1010);
    assert_eq!(wanted.iter().map(|p| &p.clues).collect::<BTreeSet<_>>().len(), 1010, "no two alike");
    let metadata = Arrays::of(&house.path("out/d.safetensors")).0.metadata.clone();
    let of = |key: &str| metadata[key].as_str();
    assert_eq!((of("format"), of("kind"), of("split"), of("seed")), ("ergometer-dataset-1", "sudoku", "test", "3"));
    assert_eq!((of("parameters"), metadata.get("numbering")), ("{\"size\":6}", None));

    let rows = read(&house.path("out/d.csv"), Wanted::default()).unwrap();
    assert!(rows.puzzles == wanted && (rows.repeated, rows.solved) == (0, 0));
    // the program itself takes it as a task
    let suite = "[[model]]\nname = \"n\"\npath = \"n\"\n[[task]]\nname = \"t\"\nkind = \"sudoku\"\ncsv = \"out/d.csv\"\n[[cases]]\n\
                 models = [\"n\"]\nbackends = [\"native\"]\ntasks = [\"t\"]\n";
    house.file("again.toml", suite);
    make(&house, "again.toml --split test --examples 5 --out e.csv").refused(&["`csv`", "hint: "]);

    let text = fs::read_to_string(house.path("out/d.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let board = |cells: &[u8]| cells.iter().map(|d| char::from(b'0' + d)).collect::<String>();
    assert_eq!(lines.len(), wanted.len());
    for (line, puzzle) in lines.iter().zip(&wanted) {
        assert_eq!(line["puzzle"], board(&puzzle.clues));
        assert_eq!(line["solution"], board(&puzzle.solution));
        assert_eq!(line["guesses"], puzzle.guesses);
    }

    // what Python's own reader of zip archives finds
    let mut python = Command::new("python3");
    python.arg("-c").arg(NPZ).arg(house.path("out/d.npz"));
    let found = ended(python);
    found.exits(0);
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    let flat = |cells: fn(&Puzzle) -> &Vec<u8>| -> String {
        wanted.iter().flat_map(|p| cells(p).iter().map(|d| format!("{:02x}", d + 1))).collect()
    };
    assert_eq!(found["tokens"]["head"], "{'descr': '|u1', 'fortran_order': False, 'shape': (1010, 36,), }");
    assert_eq!(found["difficulty"]["head"], "{'descr': '<u4', 'fortran_order': False, 'shape': (1010,), }");
    assert!(found["tokens"]["data"] == flat(|p| &p.clues));
    assert!(found["answer"]["data"] == flat(|p| &p.solution));
    let metadata = found["metadata"]["data"].as_str().unwrap();
    let bytes = (0..metadata.len()).step_by(2).map(|i| u8::from_str_radix(&metadata[i..i + 2], 16).unwrap()).collect();
    let metadata: Value = serde_json::from_str(&String::from_utf8(bytes).unwrap()).unwrap();
    assert_eq!(metadata["split"], "test");
}

/// Checks an archive and shows its arrays: header and data in hexadecimal.
const NPZ: &str = "import json, sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
assert z.testzip() is None
out = {}
for i in z.infolist():
    assert i.compress_type == zipfile.ZIP_DEFLATED and i.date_time[0] == 1980
    b = z.read(i)
    assert b[:8] == b'\\x93NUMPY\\x01\\x00'
    n = 10 + int.from_bytes(b[8:10], 'little')
    assert n % 64 == 0
    out[i.filename[:-4]] = {'head': b[10:n].decode().strip(), 'data': b[n:].hex()}
print(json.dumps(out))";

#[test]
fn the_same_request_gives_the_same_bytes_and_the_sides_share_nothing() {
    let house = house();
    let bytes = |words: &str| {
        make(&house, &format!("{words} --out x.safetensors --force")).exits(0);
        fs::read(house.path("x.safetensors")).unwrap()
    };
    let one = bytes("four.toml --split train --examples 3200 --seed 7 --threads 1");
    assert!(one == bytes("four.toml --split train --examples 3200 --seed 7 --threads 5"));
    assert!(one == bytes("four.toml --split train --examples 3200 --seed 7"));
    assert!(one != bytes("four.toml --split train --examples 3200 --seed 8"));
    let clues = |words: &str, size| {
        bytes(words);
        puzzles(&house.path("x.safetensors"), size)
    };
    for (file, size, n) in [("four.toml", Size::Four, 1500), ("six.toml", Size::Six, 1100)] {
        let side = |split: &str, side: Split| -> BTreeSet<u64> {
            let found = clues(&format!("{file} --split {split} --examples {n}"), size);
            assert!(found.iter().all(|p| split_of(p) == side), "{file} {split}");
            found.iter().map(class).collect()
        };
        assert!(side("train", Split::Train).is_disjoint(&side("test", Split::Test)), "{file}");
    }
    // what a suite with this seed is scored on
    let suite = "size = 4\nclues = [4, 8]\nexamples = 50\nseed = 9".parse().unwrap();
    let suite = (ergometer_suites::task("sudoku").unwrap().examples)(&suite, Path::new("")).unwrap();
    let held_out = clues("four.toml --split test --examples 50 --seed 9", Size::Four);
    assert!(held_out.iter().map(Puzzle::example).eq(suite.examples));
}

#[test]
fn a_task_with_ids_and_a_suites_task_are_written_too() {
    let house = house();
    for split in ["train", "test"] {
        let json = make(&house, &format!("rules.toml --split {split} --examples 40 --out {split}.safetensors --json"));
        let json: Value = serde_json::from_str(&json.exits(0).stdout).unwrap();
        assert_eq!(
            (&json["puzzle_ids"], &json["numbering"], &json["cells"]),
            (&257.into(), &"arc-rules-1".into(), &25.into())
        );
        let mut arrays = Arrays::of(&house.path(&format!("{split}.safetensors")));
        assert_eq!(arrays.rows("puzzle_id", "U32", 1).len(), 40);
        assert_eq!(arrays.rows("tokens", "U8", 25).len(), 40);
        assert_eq!(arrays.0.metadata["numbering"], "arc-rules-1");
    }
    make(&house, "rules.toml --split train --examples 3 --out rules.jsonl").exits(0);
    let text = fs::read_to_string(house.path("rules.jsonl")).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["tokens"].as_array().unwrap().len(), 25);
    assert!(line["puzzle_id"].as_u64().unwrap() > 0);
    make(&house, "rules.toml --split train --examples 3 --out rules.csv").exits(0);
    let text = fs::read_to_string(house.path("rules.csv")).unwrap();
    assert!(text.starts_with("tokens,answer,puzzle_id,difficulty\n") && text.lines().count() == 4, "{text}");

    // every task of every training file and of a shipped suite
    for entry in fs::read_dir(root().join("suites/train")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            make(&house, &format!("{} --split test --examples 2 --out one.csv --force", path.display())).exits(0);
        }
    }
    make(&house, "quick --split train --examples 2 --out q.csv").refused(&["tasks", "--task", "sudoku-4x4"]);
    make(&house, "quick --task sudoku-4x4 --split train --examples 2 --out q.csv").exits(0);
}

#[test]
fn a_call_that_was_ended_goes_on_and_gives_what_it_would_have_given() {
    let words = "six.toml --split train --examples 200000 --seed 2 --threads 2 --out d.safetensors";
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let house = house();
        let mut command = house.command(&["dataset"]);
        let mut child = command.args(words.split(' ')).spawn().unwrap();
        let chunks = || fs::read_dir(house.path("d.safetensors.parts")).map_or(0, |d| d.count());
        wait_until("some chunks", || chunks() > 4);
        let busy = make(&house, words);
        if child.try_wait().unwrap().is_none() {
            busy.refused(&["d.safetensors", "hint: "]);
        }
        let _ = kill_process(Pid::from_child(&child), signal);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = child.wait().unwrap().code();
        if signal == Signal::KILL {
            assert_eq!(code, None);
        } else {
            assert_eq!(code, Some(130), "{said}");
            assert!(said.contains("examples are kept in d.safetensors.parts"), "{said}");
            assert!(said.contains(&format!("next: ergometer dataset {words} --resume")), "{said}");
        }
        assert!(!house.path("d.safetensors").exists());
        make(&house, words).refused(&["call that was ended", "--resume", "--force"]);
        let other = words.replace("--seed 2", "--seed 3");
        make(&house, &format!("{other} --resume")).refused(&[
            "another request",
            "\"seed\": 2",
            "\"seed\": 3",
            "hint: ",
        ]);
    }
    // and to the end, with a small one whose chunks are partly taken away
    let house = house();
    let small = "six.toml --split train --examples 4500 --seed 2 --out d.safetensors";
    make(&house, small).exits(0);
    let whole = fs::read(house.path("d.safetensors")).unwrap();
    make(&house, small).refused(&["already there", "--force"]);
    fs::remove_file(house.path("d.safetensors")).unwrap();
    let mut child = house.command(&["dataset"]).args(small.split(' ')).spawn().unwrap();
    let folder = house.path("d.safetensors.parts");
    wait_until("a chunk or the end", || {
        folder.join("chunk-000000.safetensors").exists() || house.path("d.safetensors").exists()
    });
    let _ = child.kill();
    child.wait().unwrap();
    // one that was too fast to be ended has made the file
    if !house.path("d.safetensors").exists() {
        let resumed = make(&house, &format!("{small} --resume"));
        resumed.exits(0);
        assert!(resumed.stderr.contains("examples were there from an earlier call"), "{}", resumed.stderr);
    }
    assert!(whole == fs::read(house.path("d.safetensors")).unwrap());
    assert!(!folder.exists());
    // where nothing is to go on with, `--resume` begins
    make(&house, &format!("{small} --resume --force")).exits(0);
    assert!(whole == fs::read(house.path("d.safetensors")).unwrap());
}

#[test]
fn damaged_chunks_and_foreign_folders_are_named() {
    let house = house();
    let small = "six.toml --split test --examples 2500 --seed 2 --out d.npz";
    let stopped = |house: &House| {
        let mut child = house.command(&["dataset"]).args(small.replace("2500", "200000").split(' ')).spawn().unwrap();
        let chunk = house.path("d.npz.parts/chunk-000000.safetensors");
        wait_until("a chunk", || chunk.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        // a request of fewer examples, to be short
        let request = house.path("d.npz.parts/request.json");
        let text = fs::read_to_string(&request).unwrap();
        fs::write(&request, text.replace("200000", "2500")).unwrap();
        chunk
    };
    let chunk = stopped(&house);
    let bytes = fs::read(&chunk).unwrap();
    fs::write(&chunk, &bytes[..bytes.len() - 9]).unwrap();
    make(&house, &format!("{small} --resume")).refused(&["chunk-000000.safetensors", "hint: ", "remove"]);
    let mut wrong = bytes.clone();
    let last = wrong.len() - 1;
    wrong[last] = 200;
    fs::write(&chunk, &wrong).unwrap();
    make(&house, &format!("{small} --resume")).refused(&["chunk-000000.safetensors", "out of range"]);
    fs::remove_file(&chunk).unwrap();
    make(&house, &format!("{small} --resume")).exits(0);
    assert!(!house.path("d.npz.parts").exists());

    // a folder of that name that is somebody's
    fs::create_dir(house.path("e.csv.parts")).unwrap();
    house.file("e.csv.parts/letters.txt", "dear");
    make(&house, "six.toml --split test --examples 2 --out e.csv --force").refused(&["letters.txt", "hint: "]);
    assert_eq!(fs::read(house.path("e.csv.parts/letters.txt")).unwrap(), b"dear");
}

#[test]
fn bad_requests_are_refused_before_anything_is_made() {
    let house = house();
    house.file("typo.toml", "[task]\nkind = \"sudoku\"\nsize = 4\nclus = [4, 6]\n");
    house.file("full.toml", "[task]\nkind = \"sudoku\"\nsize = 4\nclues = [16, 16]\n");
    house.file("broken.toml", "[task\n");
    house.file("csv.toml", "[task]\nkind = \"sudoku\"\ncsv = \"own.csv\"\n");
    fs::create_dir(house.path("folder.csv")).unwrap();
    house.file("file", "");
    let all = "--split test --examples 5 --out o.csv";
    for (words, parts) in [
        (format!("typo.toml {all}"), &["typo.toml", "`clues`", "hint: "][..]),
        (format!("csv.toml {all}"), &["csv.toml", "`csv`", "hint: "]),
        (format!("broken.toml {all}"), &["broken.toml", "line 1", "hint: "]),
        (format!("absent.toml {all}"), &["absent.toml", "hint: "]),
        (format!("quikc {all}"), &["`quikc`", "`quick`"]),
        (format!("four.toml --task x {all}"), &["`x`", "hint: "]),
        ("four.toml --split tset --examples 5 --out o.csv".into(), &["--split", "test", "train"]),
        ("four.toml --split test --examples 0 --out o.csv".into(), &["--examples", "1 to 10000000"]),
        ("four.toml --split test --examples -3 --out o.csv".into(), &["--examples", "1 to 10000000"]),
        ("four.toml --split test --examples 99999999999999999999 --out o.csv".into(), &["--examples", "1 to 10000000"]),
        ("four.toml --split test --examples 10000001 --out o.csv".into(), &["--examples", "1 to 10000000"]),
        ("four.toml --split test --examples 5 --seed -1 --out o.csv".into(), &["--seed", "whole number"]),
        ("four.toml --split test --examples 5 --threads 0 --out o.csv".into(), &["--threads"]),
        ("four.toml --split test --examples 5 --out o.parquet".into(), &["o.parquet", ".safetensors", "hint: "]),
        ("four.toml --split test --examples 5 --out o.cvs".into(), &[".cvs", "did you mean .csv"]),
        ("four.toml --split test --examples 5 --out o".into(), &["no ending", ".jsonl"]),
        ("four.toml --split test --examples 5 --out folder.csv".into(), &["folder.csv", "is no file"]),
        ("four.toml --split test --examples 5 --out folder.csv --force".into(), &["folder.csv", "is no file"]),
        ("four.toml --split test --examples 5 --out file/o.csv".into(), &["file/o.csv", "hint: "]),
        ("four.toml --split test --examples 5 --out /proc/o.csv".into(), &["/proc/o.csv", "hint: "]),
        ("full.toml --split train --examples 5000 --out o.csv".into(), &["full.toml", "ask for at most"]),
        ("four.toml --split train --examples 5".into(), &["--out"]),
    ] {
        let ended = make(&house, &words);
        ended.refused(parts);
        let left = [house.path("o.csv"), house.path("o.csv.parts")];
        assert!(left.iter().all(|path| !path.exists()), "{words}");
    }
    // all there are (288 grids, none of them held out), and one more
    make(&house, "full.toml --split train --examples 288 --out all.csv").exits(0);
    assert_eq!(fs::read_to_string(house.path("all.csv")).unwrap().lines().count(), 289);
    make(&house, "full.toml --split train --examples 289 --out o.csv").refused(&["full.toml", "ask for at most 288"]);
    make(&house, "full.toml --split test --examples 1 --out o.csv").refused(&["full.toml", "none of", "hint: "]);
}

#[test]
fn a_full_disk_keeps_what_was_made() {
    let house = house();
    let disk = house.path("disk");
    fs::create_dir(&disk).unwrap();
    let program = house.command(&[]).get_program().to_string_lossy().into_owned();
    let words = "six.toml --split train --examples 8000 --out disk/d.safetensors";
    // a mount in a name space of its own: nothing outside sees it, and it goes with the shell
    let script = format!(
        "mount -t tmpfs -o size=400k tmpfs disk || exit 77\n{program} dataset {words}; echo code $?\n\
         mount -o remount,size=64m disk; {program} dataset {words} --resume; echo again $?; wc -c < disk/d.safetensors; ls disk | wc -l"
    );
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "sh", "-c", &script])
        .current_dir(house.path(""))
        .env("ERGOMETER_CACHE", house.path("cache"));
    let ended = match shell.output() {
        Ok(_) => ended(shell),
        Err(e) => return skip_here(&format!("full disk: no `unshare` here ({e})")),
    };
    if ended.code == Some(77) || ended.stderr.contains("unshare") {
        return skip_here(&format!("full disk: no mount of our own here ({})", ended.stderr.trim()));
    }
    assert!(ended.stdout.contains("code 2") && ended.stdout.contains("again 0"), "{ended:?}");
    assert!(
        ended.stderr.contains("No space left on device") && ended.stderr.contains("`--resume` goes on"),
        "{}",
        ended.stderr
    );
    let tail: Vec<u64> = ended.stdout.lines().filter_map(|l| l.trim().parse().ok()).collect();
    assert!(tail[0] > 8000 * 76 && tail[1] == 1, "{ended:?}");
}
