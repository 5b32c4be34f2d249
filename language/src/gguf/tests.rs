//! Files written and read again; files that lie; bytes changed at random.

use std::{fs, io::Write};

use proptest::prelude::*;

use super::*;

/// A file of every kind of value and two tensors.
fn whole() -> Vec<u8> {
    let text = |t: &str| GgufValue::Text(t.into());
    let metadata = [
        ("general.architecture", text("llama")),
        ("a.unsigned", GgufValue::Unsigned(7)),
        ("a.large", GgufValue::Unsigned(1 << 40)),
        ("a.signed", GgufValue::Signed(-7)),
        ("a.far", GgufValue::Signed(-(1 << 40))),
        ("a.float", GgufValue::Float(0.5)),
        ("a.bool", GgufValue::Bool(true)),
        ("a.texts", GgufValue::Array(GgufArray::Text(vec!["x".into(), "ü".into()]))),
        ("a.numbers", GgufValue::Array(GgufArray::Signed(vec![1, -2, 3]))),
        ("a.floats", GgufValue::Array(GgufArray::Float(vec![1.5, -2.0]))),
        ("a.bools", GgufValue::Array(GgufArray::Bool(vec![true, false]))),
        (
            "a.nested",
            GgufValue::Array(GgufArray::Nested(vec![GgufArray::Unsigned(vec![1]), GgufArray::Unsigned(vec![])])),
        ),
    ]
    .map(|(k, v)| (k.to_owned(), v));
    let floats: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let blocks: Vec<u8> = (0..36).collect();
    let tensors = [
        GgufTensor { name: "a".into(), kind: BlockType::F32, shape: vec![2, 3], bytes: &floats },
        GgufTensor { name: "b".into(), kind: BlockType::Q4_0, shape: vec![2, 32], bytes: &blocks },
    ];
    let mut bytes = Vec::new();
    write(&mut bytes, &metadata, &tensors).unwrap();
    bytes
}

fn opened(bytes: &[u8]) -> Result<Gguf, LanguageError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Gguf::open(file.path())
}

/// Position of some bytes.
fn position(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|w| w == wanted).unwrap()
}

#[test]
fn what_was_written_is_read() {
    let gguf = opened(&whole()).unwrap();
    assert_eq!((gguf.version, gguf.alignment), (3, 32));
    assert_eq!(gguf.needed_text("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.unsigned("a.unsigned").unwrap(), Some(7));
    assert_eq!(gguf.unsigned("a.large").unwrap(), Some(1 << 40));
    assert_eq!(gguf.metadata()["a.signed"], GgufValue::Signed(-7));
    assert_eq!(gguf.metadata()["a.far"], GgufValue::Signed(-(1 << 40)));
    assert_eq!(gguf.float("a.float").unwrap(), Some(0.5));
    assert_eq!(gguf.boolean("a.bool").unwrap(), Some(true));
    assert_eq!(gguf.needed_texts("a.texts").unwrap(), ["x", "ü"]);
    assert_eq!(gguf.array("a.numbers").unwrap(), Some(&GgufArray::Signed(vec![1, -2, 3])));
    assert_eq!(gguf.array("a.floats").unwrap(), Some(&GgufArray::Float(vec![1.5, -2.0])));
    assert_eq!(gguf.array("a.bools").unwrap(), Some(&GgufArray::Bool(vec![true, false])));
    let GgufArray::Nested(nested) = gguf.array("a.nested").unwrap().unwrap() else { panic!() };
    assert_eq!(nested.iter().map(GgufArray::len).collect::<Vec<_>>(), [1, 0]);
    let table = gguf.tensors();
    assert_eq!(table.dequantise("a").unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(table.dequantise_rows("a", 1..2).unwrap(), [3.0, 4.0, 5.0]);
    let mut bytes = Vec::new();
    table.read_rows("b", 1..2, &mut bytes).unwrap();
    assert_eq!(bytes, (18..36).collect::<Vec<u8>>());
    assert_eq!(table.entries()["b"].shape, [2, 32]);
    assert!(table.read_rows("b", 1..3, &mut bytes).unwrap_err().message.contains("has 2 rows"));
    assert!(table.dequantise("c").unwrap_err().message.contains("`c` is missing"));
    let error = gguf.text("a.bool").unwrap_err();
    assert!(error.message.contains("`a.bool` is a boolean, not a text"), "{error}");
    assert!(gguf.needed_float("none").unwrap_err().message.contains("`none` is missing"));
    assert!(gguf.unsigned("a.signed").is_err());
}

// Over 80 lines: a table of lies
#[test]
fn every_lie_is_named() {
    let whole = whole();
    type Change = &'static dyn Fn(&mut Vec<u8>);
    let cases: [(&str, Change, &str); 17] = [
        ("magic", &|b| b[0] = b'X', "no GGUF file: it begins with `XGUF`"),
        ("version", &|b| b[4] = 1, "version 1 is not read"),
        ("big-endian", &|b| b[4..8].copy_from_slice(&3u32.to_be_bytes()), "big-endian"),
        (
            "tensors",
            &|b| b[8..16].copy_from_slice(&(1u64 << 60).to_le_bytes()),
            "the head claims 1152921504606846976 tensors",
        ),
        ("keys", &|b| b[16..24].copy_from_slice(&60_000u64.to_le_bytes()), "the head claims 60000 keys"),
        ("one key more", &|b| b[16] += 1, "byte "),
        ("key length", &|b| b[24..32].copy_from_slice(&u64::MAX.to_le_bytes()), "key 0 of the metadata: a text of"),
        ("key UTF-8", &|b| b[32] = 0xff, "no UTF-8 from its byte 0 on"),
        (
            "value type",
            &|b| {
                let at = position(b, b"a.unsigned") + 10;
                b[at] = 99;
            },
            "metadata `a.unsigned`: unknown type of value 99",
        ),
        (
            "boolean",
            &|b| {
                let at = position(b, b"a.bool") + 10;
                b[at] = 2;
            },
            "a boolean is 0 or 1, this is 2",
        ),
        (
            "array count",
            &|b| {
                let at = position(b, b"a.texts") + 7 + 8;
                b[at..at + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
            },
            "metadata `a.texts`: an array of 9223372036854775807 elements does not fit",
        ),
        (
            "twice",
            &|b| {
                let at = position(b, b"a.far\x0b");
                b[at..at + 5].copy_from_slice(b"a.far");
                let at = position(b, b"a.large");
                b[at..at + 7].copy_from_slice(b"a.bools");
            },
            "metadata `a.bools` is there twice",
        ),
        (
            "axes",
            &|b| {
                let at = position(b, b"\x01\0\0\0\0\0\0\0b") + 9;
                b[at] = 9;
            },
            "tensor `b` has 9 axes",
        ),
        (
            "rows of a part of a block",
            &|b| {
                let at = position(b, b"\x01\0\0\0\0\0\0\0b") + 13;
                b[at] = 33;
            },
            "tensor `b` of Q4_0 has rows of 33 elements",
        ),
        (
            "unread type",
            &|b| {
                let at = position(b, b"\x01\0\0\0\0\0\0\0b") + 29;
                b[at] = 16;
            },
            "tensor `b` is of type IQ2_XXS, which is not read",
        ),
        (
            "overlap",
            &|b| {
                let at = position(b, b"\x01\0\0\0\0\0\0\0b") + 33;
                b[at] = 0;
            },
            "overlaps tensor `a`",
        ),
        (
            "offset",
            &|b| {
                let at = position(b, b"\x01\0\0\0\0\0\0\0b") + 33;
                b[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
            },
            "tensor `b` has 36 bytes at offset 1099511627776 of the data",
        ),
    ];
    for (name, change, said) in cases {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let error = opened(&bytes).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(said), "{name}: {error}");
        assert!(error.to_string().contains("\nhint: "), "{name}: {error}");
    }
}

#[test]
fn alignment_is_obeyed() {
    let with = |n: u64| [("general.alignment".to_owned(), GgufValue::Unsigned(n))];
    let tensor = |name: &str| GgufTensor { name: name.into(), kind: BlockType::F32, shape: vec![5], bytes: &[7; 20] };
    let mut bytes = Vec::new();
    write(&mut bytes, &with(64), &[tensor("a"), tensor("b")]).unwrap();
    let gguf = opened(&bytes).unwrap();
    assert_eq!(gguf.alignment, 64);
    let begins: Vec<u64> = gguf.tensors().entries().values().map(|e| e.begin).collect();
    assert!(begins.iter().all(|b| b % 64 == 0) && begins[1] - begins[0] == 64, "{begins:?}");
    let refused =
        |n: u64, tensors: &[GgufTensor<'_>]| write(&mut Vec::new(), &with(n), tensors).unwrap_err().to_string();
    assert!(refused(24, &[]).contains("no power of two"));
    assert!(refused(32, &[tensor("a"), tensor("a")]).contains("`a` is there twice"));
    let cut = GgufTensor { name: "c".into(), kind: BlockType::Q4_0, shape: vec![32, 1], bytes: &[0; 18] };
    assert!(refused(32, &[cut]).contains("not those of its shape"), "blocks lie within rows");
    // what another program wrote
    let place = position(&bytes, &64u32.to_le_bytes());
    bytes[place..place + 4].copy_from_slice(&24u32.to_le_bytes());
    assert!(opened(&bytes).unwrap_err().message.contains("`general.alignment` is 24"));
}

#[test]
fn a_file_that_is_cut_off_while_it_is_read_is_an_error() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&whole()).unwrap();
    let gguf = Gguf::open(file.path()).unwrap();
    fs::OpenOptions::new().write(true).open(file.path()).unwrap().set_len(100).unwrap();
    let error = gguf.tensors().dequantise("a").unwrap_err();
    assert!(error.message.contains("became shorter"), "{error}");
}

proptest! {
    #[test]
    fn any_prefix_is_refused_or_whole(cut in 0usize..600) {
        let whole = whole();
        let result = opened(&whole[..cut.min(whole.len())]);
        prop_assert!(cut >= whole.len() - 32 || result.is_err());
    }

    #[test]
    fn changed_bytes_do_no_harm(at in proptest::collection::vec((0usize..600, any::<u8>()), 1..6)) {
        let mut bytes = whole();
        for (at, byte) in at {
            let n = bytes.len();
            bytes[at % n] = byte;
        }
        if let Ok(gguf) = opened(&bytes) {
            for (name, entry) in gguf.tensors().entries() {
                prop_assert_eq!(gguf.tensors().dequantise(name).unwrap().len(), entry.elements());
            }
        }
    }
}
