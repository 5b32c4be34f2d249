//! Files of arrays: good ones to begin from, and what is read of them.
//!
//! In: the file that bytes lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs.

use std::path::Path;

use ergometer_suites::Answer;
use ergometer_suites::arrays::npy::header;

use super::{Outcome, said};

/// Sums of two answers, as a scorer gives them.
pub(super) const SUMS: &str = "example,cluster,metric,part,numerator,denominator\n0,0,cer,0,1.0,7.0\n0,0,iou,2,3.0,9.0\n0,0,auroc,0,-0.5,1.0\n1,4,auroc,0,0.25,0.0\n1,4,r2,0,2.5,10.0\n1,4,scorer_pair.mine,0,1.0,2.0\n";

/// An array of two rows of three numbers.
fn array(kind: &str) -> Vec<u8> {
    let numbers: Vec<u8> = match kind {
        "<f4" => (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect(),
        _ => vec![0, 1, 2, 3, 4, 5],
    };
    [header(kind, "(2, 3)").unwrap(), numbers].concat()
}

pub(super) fn npy(_: &Path) -> Vec<Vec<u8>> {
    vec![array("<f4"), array("|u1")]
}

/// Archives of one array `x`, stored and deflated.
pub(super) fn npz(_: &Path) -> Vec<Vec<u8>> {
    let archive = |packed: &[u8], method: u16, bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let mut common: Vec<u8> = [20u16, 0, method, 0, 0x21].iter().flat_map(|n| n.to_le_bytes()).collect();
        [crc.sum(), packed.len() as u32, bytes.len() as u32].iter().for_each(|n| common.extend(n.to_le_bytes()));
        [5u16, 0].iter().for_each(|n| common.extend(n.to_le_bytes()));
        let local = [b"PK\x03\x04", &common[..], b"x.npy", packed].concat();
        let central = [b"PK\x01\x02\x14\x00", &common[..], &[0; 14], b"x.npy"].concat();
        let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
        [central.len() as u32, local.len() as u32].iter().for_each(|n| end.extend(n.to_le_bytes()));
        [local, central, end, vec![0, 0]].concat()
    };
    let bytes = array("<f4");
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    vec![archive(&bytes, 0, &bytes), archive(&encoder.finish().unwrap(), 8, &bytes)]
}

pub(super) fn tensors(_: &Path) -> Vec<Vec<u8>> {
    let file = |dtype: &str, bytes: usize| {
        let header = format!("{{\"x\":{{\"dtype\":\"{dtype}\",\"shape\":[2,3],\"data_offsets\":[0,{bytes}]}}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat()
    };
    vec![file("F32", 24), file("BF16", 12), file("I64", 48)]
}

pub(super) fn csv(_: &Path) -> Vec<Vec<u8>> {
    ["x,y\n1,2\n3,4\n", "\u{feff}\"x\";\"y\"\r\n1.5;-2e3\r\n\r\n0;1\r\n"].map(|t| t.as_bytes().to_vec()).into()
}

pub(super) fn jsonl(_: &Path) -> Vec<Vec<u8>> {
    ["{\"x\": [1, 2.5]}\n{\"x\": [3, -4]}\n", "{\"x\": 1}\n{\"y\": \"a\", \"x\": true}\n"]
        .map(|t| t.as_bytes().to_vec())
        .into()
}

/// What the file's `x` is as input and as labels.
pub(super) fn file(_: &[u8], path: &Path) -> Outcome {
    let name = path.file_name().unwrap().to_str().unwrap();
    let source = if name.ends_with(".npy") { name.to_owned() } else { format!("{name}:x") };
    let text = format!("inputs = {{ x = {source:?} }}\nlabels = {source:?}\nscorer = \"regression\"");
    let table: toml::Table = text.parse().unwrap();
    match (ergometer_suites::arrays::TASK.examples)(&table, path.parent().unwrap()) {
        Ok(set) => {
            assert!(!set.examples.is_empty());
            for example in &set.examples {
                let array = &example.arrays[0];
                assert_eq!(array.bytes.len(), array.elements() * array.kind.bytes());
                let Answer::Numbers(label) = &example.answer else { panic!("{:?}", example.answer) };
                assert!(label.len() == array.elements() && label.iter().all(|v| v.is_finite()));
                let right = set.scorer.as_ref().unwrap().score(&example.answer, &example.answer);
                assert!(right.sums.iter().all(|s| s.numerator == 0.0 && s.denominator.is_finite()), "{right:?}");
            }
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}
