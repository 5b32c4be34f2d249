//! Own data from every format, and what is refused.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::*;
use crate::array::{Read, Reading};

/// A folder of data files.
struct Data {
    folder: tempfile::TempDir,
}

/// Bytes of an `.npy` of this type and shape.
fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    [npy::header(descr, shape).unwrap(), bytes.to_vec()].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A zip archive of these entries, deflated or stored by turns; `claimed` is what an entry says that it unpacks to.
fn zip(entries: &[(&str, &[u8])], claimed: Option<u32>) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for (i, (name, bytes)) in entries.iter().enumerate() {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let packed = if i % 2 == 0 {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        } else {
            bytes.to_vec()
        };
        let method: u16 = if i % 2 == 0 { 8 } else { 0 };
        let mut common = Vec::new();
        [20u16, 0, method, 0, 0x21].iter().for_each(|n| common.extend(n.to_le_bytes()));
        let unpacked = claimed.unwrap_or(bytes.len() as u32);
        [crc.sum(), packed.len() as u32, unpacked].iter().for_each(|n| common.extend(n.to_le_bytes()));
        [name.len() as u16, 0].iter().for_each(|n| common.extend(n.to_le_bytes()));
        let offset = out.len() as u32;
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &packed].concat());
        central.extend(
            [b"PK\x01\x02\x14\x00", &common[..], &[0; 10], &offset.to_le_bytes()[..], name.as_bytes()].concat(),
        );
    }
    let (begin, count) = (out.len() as u32, entries.len() as u16);
    let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
    [count, count].iter().for_each(|n| end.extend(n.to_le_bytes()));
    [central.len() as u32, begin].iter().for_each(|n| end.extend(n.to_le_bytes()));
    end.extend([0, 0]);
    [out, central, end].concat()
}

/// A safetensors file of one tensor.
fn tensors(dtype: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{\"x\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{}]}}}}", bytes.len());
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), bytes].concat()
}

impl Data {
    fn new() -> Self {
        let data = Self { folder: tempfile::tempdir().unwrap() };
        let x = floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        data.file("x.npy", npy("<f4", "(3, 2)", &x));
        data.file("y.npy", npy("<i8", "(3,)", &longs(&[0, 2, 1])));
        let arrays = [("x.npy", npy("<f4", "(3, 2)", &x)), ("y.npy", npy("<i8", "(3,)", &longs(&[0, 2, 1])))];
        data.file("d.npz", zip(&arrays.each_ref().map(|(n, b)| (*n, &b[..])), None));
        data.file("x.safetensors", tensors("F32", "[3,2]", &x));
        data.file("d.csv", "a,b,y,who,hard\n1,2,0,ann,3\n3,4,2,bob,1\n5,6,1,ann,2\n");
        data.file(
            "d.jsonl",
            "{\"x\": [1, 2], \"y\": 0, \"t\": \"ab\"}\n{\"x\": [3, 4], \"y\": 2, \"t\": \"b\"}\n{\"x\": [5, 6.0], \"y\": 1, \"t\": \"\"}\n",
        );
        data
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn set(&self, parameters: &str) -> Result<ExampleSet, String> {
        let table: toml::Table = parameters.parse().unwrap_or_else(|e| panic!("{parameters}: {e}"));
        (TASK.examples)(&table, self.path()).map_err(|e| e.to_string())
    }

    fn refused(&self, parameters: &str, words: &[&str]) {
        let said = self.set(parameters).err().unwrap_or_else(|| panic!("{parameters} was taken"));
        assert!(words.iter().all(|w| said.contains(w)) && said.contains("hint: "), "{parameters}: {words:?}: {said}");
        assert!(said.len() < 3000, "{said}");
    }
}

fn values(set: &ExampleSet) -> Vec<Vec<f64>> {
    set.examples.iter().map(|e| elements::numbers(&e.arrays[0])).collect()
}

#[test]
fn every_format_gives_the_same_examples() {
    let data = Data::new();
    let mut sets = Vec::new();
    for (inputs, labels) in [
        ("x.npy", "y.npy"),
        ("d.npz:x", "d.npz:y"),
        ("x.safetensors:x", "d.csv:y"),
        ("x.safetensors", "d.jsonl:y"),
        ("d.csv:a..b", "y.npy"),
        ("d.jsonl:x", "d.npz:y"),
    ] {
        let set = data
            .set(&format!("inputs = {{ image = \"{inputs}\" }}\nlabels = \"{labels}\"\nscorer = \"top-1\""))
            .unwrap_or_else(|e| panic!("{inputs}: {e}"));
        assert_eq!(set.inputs, ["image"]);
        assert_eq!(values(&set), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "{inputs}");
        let answers: Vec<Answer> = set.examples.iter().map(|e| e.answer.clone()).collect();
        assert_eq!(answers, [0, 2, 1].map(Answer::Class), "{labels}");
        assert!(set.examples.iter().all(|e| e.arrays[0].kind == ElementKind::F32 && e.arrays[0].shape == [2]));
        assert_eq!((set.answers, set.vocabulary), (Some(AnswerKind::Class), 3));
        assert_eq!(set.reads, Reading::Output { output: None, how: Read::Argmax, axis: None });
        assert_eq!(set.baselines[0].right, 1);
        sets.push(set);
    }
    assert!(sets.windows(2).all(|w| w[0].examples == w[1].examples));
}

#[test]
fn kinds_and_shapes_are_as_asked_and_what_is_converted_is_said() {
    let data = Data::new();
    data.file("d.npy", npy("<f8", "(2, 4)", &(0..8).flat_map(|i| f64::from(i).to_le_bytes()).collect::<Vec<u8>>()));
    let set =
        data.set("inputs = { x = { from = \"d.npy\", shape = [2, 2] } }\nlabels = \"d.npy\"\nscorer = \"regression\"");
    let set = set.unwrap();
    assert_eq!((set.examples[0].arrays[0].kind, &set.examples[0].arrays[0].shape[..]), (ElementKind::F32, &[2, 2][..]));
    assert!(set.notes[0].contains("`x` is f64 in d.npy, and the model is given f32"), "{:?}", set.notes);
    assert_eq!(set.examples[1].answer, Answer::Numbers(vec![4.0, 5.0, 6.0, 7.0]));
    assert_eq!(set.answers, Some(AnswerKind::Numbers));
    let set = data
        .set("inputs = { x = { from = \"d.csv:a..b\", kind = \"i64\" } }\nlabels = \"d.csv:y\"\nscorer = \"exact\"");
    assert_eq!(set.unwrap().examples[2].arrays[0].bytes[..], longs(&[5, 6])[..]);
    data.refused(
        "inputs = { x = { from = \"x.npy\", shape = [3] } }\nlabels = \"y.npy\"\nscorer = \"top-1\"",
        &["[2]", "[3]"],
    );
    data.refused(
        "inputs = { x = { from = \"x.npy\", kind = \"f8\" } }\nlabels = \"y.npy\"\nscorer = \"top-1\"",
        &["kind of numbers", "`f16`"],
    );
}

#[test]
fn clusters_difficulties_and_a_choice_of_rows() {
    let data = Data::new();
    let all = "inputs = { x = \"d.csv:a..b\" }\nlabels = \"d.csv:y\"\nscorer = \"top-5\"\ncluster = \"d.csv:who\"\ndifficulty = \"d.csv:hard\"\n";
    let set = data.set(all).unwrap();
    assert_eq!(set.examples.iter().map(|e| (e.cluster, e.difficulty)).collect::<Vec<_>>(), [(0, 3), (1, 1), (0, 2)]);
    assert_eq!(set.answers, Some(AnswerKind::Numbers));
    let some = |seed: u64| values(&data.set(&format!("{all}examples = 2\nseed = {seed}")).unwrap());
    let chosen: Vec<_> = (0..20).map(some).collect();
    assert!(chosen.iter().all(|c| c.len() == 2 && c[0][0] < c[1][0]), "in the file's order");
    assert!(chosen.iter().any(|c| *c != chosen[0]) && some(7) == some(7));
    data.refused(&format!("{all}examples = 4"), &["4 are asked for", "3 rows"]);
    data.refused(&format!("{all}seed = 4"), &["`seed`", "examples"]);
    data.refused(&all.replace("d.csv:hard", "d.csv:who"), &["line 2", "`who`", "no number"]);
}

#[test]
fn labels_of_every_scorer() {
    let data = Data::new();
    data.file("m.npy", npy("|u1", "(3, 2)", &[0, 1, 1, 1, 0, 2]));
    data.file("mask.npy", npy("|b1", "(3, 2)", &[1, 1, 0, 1, 1, 1]));
    data.file("abc", "\na\nb\n");
    let set = |more: &str| data.set(&format!("inputs = {{ x = \"x.npy\" }}\n{more}")).unwrap();
    let two = set("labels = \"m.npy\"\nmask = \"mask.npy\"\nscorer = \"tokens\"\nignore = 2");
    let ignored = scorer::IGNORED;
    let answers: Vec<Vec<u32>> = two.examples.iter().map(|e| e.answer.tokens().to_vec()).collect();
    assert_eq!(answers, [vec![0, 1], vec![ignored, 1], vec![0, ignored]]);
    assert_eq!(two.answers, Some(AnswerKind::Tokens));
    let text = set("labels = \"d.jsonl:t\"\nscorer = \"edit\"\ndecode = \"ctc\"\nalphabet = \"abc\"");
    assert_eq!(text.examples[0].answer, Answer::Text("ab".into()));
    let scored = TASK.scored(&text, &text.examples[0], &Answer::Tokens(vec![1, 1, 0, 2]));
    assert!(scored.score.exact && scored.sums.len() == 2);
    let numbers = set("labels = \"x.npy\"\nscorer = \"regression\"\ntolerance = 0.5");
    assert!(TASK.scored(&numbers, &numbers.examples[0], &Answer::Numbers(vec![1.2, 2.0])).score.exact);
    let program =
        set("labels = \"d.csv:who\"\nscorer = [\"python3\", \"{suite}/s.py\"]\nread = \"argmax\"\nscorer_seconds = 5");
    let Some(Scorer::Program(command, Read::Argmax)) = &program.scorer else { panic!("{:?}", program.scorer) };
    assert_eq!((command.command[1].as_str(), command.seconds), (&*format!("{}/s.py", data.path().display()), 5.0));
    assert_eq!(program.examples[1].answer, Answer::Text("bob".into()));
    assert_eq!(set("scorer = [\"s\"]").examples[0].answer, Answer::Text(String::new()));
}

#[test]
fn random_inputs_are_the_same_for_the_same_seed_and_are_no_data() {
    let data = Data::new();
    let text = "random = { x = { kind = \"f32\", shape = [2, 3], range = [-1, 1] }, ids = { kind = \"i64\", shape = [4], range = [0, 9] } }\nexamples = 3\n";
    let set = |seed: u64| data.set(&format!("{text}seed = {seed}")).unwrap();
    let one = set(1);
    assert!(one.examples == set(1).examples && one.examples != set(2).examples);
    assert_eq!((one.inputs.as_slice(), one.examples.len()), (&["ids".to_owned(), "x".to_owned()][..], 3));
    let all: Vec<f64> = one.examples.iter().flat_map(|e| elements::numbers(&e.arrays[1])).collect();
    assert!(all.iter().all(|v| (-1.0..1.0).contains(v)) && all.iter().any(|v| *v < 0.0));
    let ids: Vec<i64> = one.examples.iter().flat_map(|e| elements::wholes(&e.arrays[0])).collect();
    assert!(ids.iter().all(|v| (0..=9).contains(v)));
    assert!(one.notes[0].contains("Throughput only") && one.scorer.as_ref().unwrap().unscored().is_some());
    assert_eq!(data.set("random = { x = { kind = \"u8\", shape = [] } }").unwrap().examples.len(), 16);
    for (random, words) in [
        ("random = { x = { kind = \"u8\", shape = [2], range = [0, 256] } }", &["`random.x`", "beyond u8"][..]),
        ("random = { x = { kind = \"f32\", shape = [2], range = [1, 0] } }", &["begins at 1"]),
        ("random = { x = { kind = \"f32\", shape = [0] } }", &["shape"]),
        ("random = { x = { kind = \"f32\", shape = [100000, 100000] } }", &["shape"]),
        ("random = { x = { kind = \"f64\", shape = [10000000] } }\nexamples = 1000", &["GiB"]),
        ("random = { x = { kind = \"f32\" } }", &["`random.x`", "shape"]),
        ("random = { x = 3 }", &["`random.x`", "integer"]),
        ("random = {}", &["0 inputs"]),
        ("random = { x = { kind = \"f32\", shape = [2] } }\nlabels = \"y.npy\"", &["no right answer"]),
    ] {
        data.refused(random, words);
    }
}

#[test]
fn parameters_that_are_wrong_are_named() {
    let data = Data::new();
    let good = "inputs = { x = \"x.npy\" }\nlabels = \"y.npy\"\n";
    for (text, words) in [
        ("", &["`inputs`", "random"][..]),
        ("inputs = {}\nlabels = \"y.npy\"\nscorer = \"top-1\"", &["0 inputs"]),
        ("inputs = \"x.npy\"", &["inputs = { NAME"]),
        ("inputs = { x = 3 }\nscorer = \"top-1\"", &["`inputs.x`"]),
        ("inputs = { x = { from = \"x.npy\", dtype = \"f32\" } }\nscorer = \"top-1\"", &["dtype"]),
        ("inputs = { x = \"x.bin\" }\nscorer = \"top-1\"", &["names no file of arrays", ".npz"]),
        ("inputs = { x = \"d.csv\" }\nscorer = \"top-1\"", &["which column"]),
        ("inputs = { x = \"x.npy:x\" }\nscorer = \"top-1\"", &["no key `x`"]),
        ("inputs = { x = \"x.npy\" }\nscorer = \"top-1\"", &["`labels`"]),
        (good, &["`scorer`", "top-1"]),
        (&format!("{good}scorer = \"topp-1\""), &["unknown scorer", "`top-1`"]),
        (&format!("{good}scorer = \"top-0\""), &["no scorer", "1 to 1000"]),
        (&format!("{good}scorer = 3"), &["scorer"]),
        (&format!("{good}scorer = []"), &["scorer"]),
        (&format!("{good}scorer = \"top-1\"\nthreshold = 0.5"), &["`threshold`", "`binary`, `iou`"]),
        (&format!("{good}scorer = \"top-1\"\nread = \"values\""), &["`read`", "a program"]),
        (&format!("{good}scorer = \"top-1\"\nlabel = \"y\""), &["`label`", "`labels`"]),
        (&format!("{good}scorer = \"edit\"\ndecode = \"beam\""), &["`beam`"]),
        (&format!("{good}scorer = \"edit\"\nblank = 0"), &["`blank`", "ctc"]),
        (&format!("{good}scorer = \"edit\"\nalphabet = \"none\""), &["none", "token n"]),
        (&format!("{good}scorer = \"regression\"\ntolerance = -1"), &["below 0"]),
        (&format!("{good}scorer = [\"s\"]\nread = \"max\""), &["`max`", "`argmax`"]),
        (&format!("{good}scorer = [\"s\"]\nscorer_seconds = 0"), &["seconds"]),
    ] {
        data.refused(text, words);
    }
}

#[test]
fn a_first_line_of_numbers_is_a_row_though_one_is_missing() {
    let data = Data::new();
    for (name, first) in [("nan.csv", "nan,1,2,0"), ("gap.csv", "1,,2,0"), ("inf.csv", "1,2,inf,0")] {
        data.file(name, format!("{first}\n1,10,100,1\n2,20,200,2\n"));
        let text = format!("inputs = {{ x = \"{name}:1..3\" }}\nlabels = \"{name}:4\"\nscorer = \"top-1\"");
        data.refused(&text, &[name, "line 1"]);
    }
    // names that are numbers, beside one that is none, are names
    data.file("years.csv", "who,2019,y\n1,10,0\n1,20,1\n");
    let text = "inputs = { x = \"years.csv:2019\" }\nlabels = \"years.csv:y\"\nscorer = \"top-1\"";
    assert_eq!(data.set(text).unwrap().examples.len(), 2);
}

#[test]
fn labels_that_are_wrong_are_named_with_their_row() {
    let data = Data::new();
    data.file("bad.npy", npy("<i8", "(3,)", &longs(&[0, -1, 1])));
    data.file("float.npy", npy("<f4", "(3,)", &floats(&[0.0, 0.5, 1.0])));
    data.file("flat.npy", npy("|u1", "(3, 2)", &[0; 6]));
    data.file("two.npy", npy("|u1", "(2,)", &[0; 2]));
    data.file("none.npy", npy("|u1", "(3, 2)", &[1, 1, 0, 0, 1, 1]));
    let with = |labels: &str, more: &str| format!("inputs = {{ x = \"x.npy\" }}\nlabels = \"{labels}\"\n{more}");
    data.refused(&with("bad.npy", "scorer = \"top-1\""), &["row 1", "label -1", "bad.npy"]);
    data.refused(&with("y.npy", "scorer = \"top-1\"\nclasses = 2"), &["row 1", "label 2", "0 to 1"]);
    data.refused(&with("y.npy", "scorer = \"binary\""), &["row 1", "label 2", "0 to 1"]);
    data.refused(&with("float.npy", "scorer = \"top-1\""), &["row 1", "0.5", "no whole number"]);
    data.refused(&with("flat.npy", "scorer = \"top-1\""), &["row 0", "[2]", "one class"]);
    data.refused(&with("two.npy", "scorer = \"top-1\""), &["`two.npy` has 2 rows", "`inputs.x` 3"]);
    data.refused(&with("flat.npy", "scorer = \"tokens\"\nmask = \"y.npy\""), &["`mask`", "row 0", "[]"]);
    data.refused(&with("flat.npy", "scorer = \"tokens\"\nmask = \"none.npy\""), &["row 1", "asks for nothing"]);
    data.refused(&with("absent.npy", "scorer = \"top-1\""), &["absent.npy", "`labels`"]);
}

#[test]
fn files_that_are_wrong_are_refused_before_anything_is_allocated() {
    let data = Data::new();
    let x = floats(&[1.0, f32::NAN, 3.0, 4.0, 5.0, f32::INFINITY]);
    data.file("nan.npy", npy("<f4", "(3, 2)", &x));
    data.file("deep.npy", npy("<f4", "(1, 3, 2)", &x));
    data.file("short.npy", npy("<f4", "(3, 3)", &x));
    data.file("many.npy", npy("<f4", "(1000000000, 2)", &x));
    data.file("wide.npy", npy("<f4", "(2, 1000000000)", &x));
    data.file("over.npy", npy("<f4", "(3, 4294967296, 4294967296)", &x));
    data.file("flat.npy", npy("<f4", "()", &x[..4]));
    data.file("none.npy", npy("<f4", "(0, 2)", &[]));
    data.file("empty.npy", npy("<f4", "(3, 0)", &[]));
    data.file("text.npy", npy("<U3", "(3,)", &[0; 36]));
    data.file("many.safetensors", tensors("F32", "[1000000000,2]", &x));
    data.file("odd.safetensors", tensors("F8_E5M2", "[3,8]", &x));
    let good = npy("<f4", "(3, 2)", &floats(&[0.0; 6]));
    data.file("bomb.npz", zip(&[("x.npy", &good)], Some(2_000_000_000)));
    data.file("longer.npz", zip(&[("x.npy", &good)], Some(good.len() as u32 + 8)));
    let mut damaged = zip(&[("y.npy", b"y"), ("x.npy", &good)], None);
    let at = damaged.windows(4).rposition(|w| w == [0, 0, 0, 0]).unwrap_or(0).min(300);
    damaged[at] ^= 1;
    data.file("damaged.npz", damaged);
    data.file("cut.npz", &zip(&[("x.npy", &good)], None)[..60]);
    data.file("page.npz", "<!DOCTYPE html>");
    for (input, words) in [
        ("nan.npy", &["row 0, column 1", "NaN"][..]),
        ("deep.npy", &["element [0, 1]", "NaN"]),
        ("short.npy", &["[3, 3]", "24 bytes follow"]),
        ("many.npy", &["1000000000 rows", "50000000"]),
        ("wide.npy", &["2 GiB"]),
        ("over.npy", &["GiB"]),
        ("flat.npy", &["no axis"]),
        ("none.npy", &["no row"]),
        ("empty.npy", &["hold nothing"]),
        ("text.npy", &["`<U3`", "texts"]),
        ("many.safetensors", &["many.safetensors"]),
        ("odd.safetensors", &["F8_E5M2"]),
        ("x.safetensors:z", &["no tensor `z`", "`x`"]),
        ("d.npz:z", &["no array `z`", "`x`, `y`"]),
        ("d.npz", &["2 arrays", "FILE:ARRAY"]),
        ("bomb.npz:x", &["of a size that cannot be"]),
        ("longer.npz:x", &["longer.npz"]),
        ("damaged.npz:x", &["damaged.npz"]),
        ("cut.npz:x", &["zip archive"]),
        ("page.npz:x", &["zip archive"]),
        ("absent.npy", &["absent.npy"]),
        (".", &["names no file"]),
    ] {
        data.refused(&format!("inputs = {{ x = \"{input}\" }}\nlabels = \"{input}\"\nscorer = \"regression\""), words);
    }
}

#[test]
fn lines_that_are_wrong_are_named() {
    let data = Data::new();
    data.file("plain.csv", "1;2;3\n4;5;6\n");
    let set =
        data.set("inputs = { x = \"plain.csv:1..2\" }\nlabels = \"plain.csv:3\"\nscorer = \"regression\"").unwrap();
    assert_eq!(values(&set), [[1.0, 2.0], [4.0, 5.0]]);
    data.file("quoted.csv", "\u{feff}\"a, b\",c\r\n\"1\",2\r\n\r\n3,4\r\n");
    let set =
        data.set("inputs = { x = \"quoted.csv:a, b\" }\nlabels = \"quoted.csv:c\"\nscorer = \"regression\"").unwrap();
    assert_eq!((values(&set), set.examples[0].arrays[0].shape.len()), (vec![vec![1.0], vec![3.0]], 0));
    data.file("nan.csv", "a,b\n1,2\n3,nan\n");
    data.file("hole.csv", "a,b\n1,2\n3,\n");
    data.file("ragged.csv", "a,b\n1,2\n3\n");
    data.file("twice.csv", "a,a\n1,2\n");
    data.file("bytes.csv", b"a,b\n1,\xff\n");
    data.file("gz.csv", b"\x1f\x8b\x08\0\0\0");
    data.file("bad.jsonl", "{\"a\": [1, 2]}\n{\"a\": [1, \"x\"]}\n");
    data.file("ragged.jsonl", "{\"a\": [[1, 2], [3]]}\n");
    data.file("shapes.jsonl", "{\"a\": [1, 2]}\n{\"a\": [1]}\n");
    data.file("list.jsonl", "[1, 2]\n");
    data.file("huge.jsonl", "{\"a\": 1e300}\n");
    for (input, words) in [
        ("nan.csv:a..b", &["line 3, column `b`", "finite"][..]),
        ("hole.csv:b", &["line 3, column `b`", "empty"]),
        ("ragged.csv:a", &["line 3", "1 fields"]),
        ("twice.csv:a", &["two columns `a`"]),
        ("d.csv:c", &["no column `c`", "`who`"]),
        ("d.csv:b..a", &["ends before"]),
        ("plain.csv:x", &["no header"]),
        ("bytes.csv:a", &["line 2", "UTF-8"]),
        ("gz.csv:a", &["gzip"]),
        ("bad.jsonl:a", &["line 2", "[1]", "no number"]),
        ("ragged.jsonl:a", &["[1]", "1 elements, 2 are due"]),
        ("list.jsonl:a", &["no JSON object"]),
        ("d.jsonl:z", &["no key `z`"]),
        ("huge.jsonl:a", &["beyond f32"]),
    ] {
        data.refused(&format!("inputs = {{ x = \"{input}\" }}\nlabels = \"{input}\"\nscorer = \"regression\""), words);
    }
}

#[test]
fn what_was_to_be_fetched_is_named_with_the_command() {
    let data = Data::new();
    for (input, words) in [
        ("fetched:none-1.0/x.npy", &["`ergometer fetch none`", "none-1.0"][..]),
        ("fetched:../x.npy", &["names nothing"]),
        ("fetched:x.npy", &["names nothing"]),
        ("fetched:a-1/../../x.npy", &["names nothing"]),
    ] {
        data.refused(&format!("inputs = {{ x = \"{input}\" }}\nlabels = \"y.npy\"\nscorer = \"top-1\""), words);
    }
}
