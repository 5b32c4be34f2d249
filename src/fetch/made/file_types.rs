//! Files of known types, generated: what Magika looks at of each, and its type.
//!
//! In: a seed. Out: arrays. Must not: be taken for files that people wrote: they are short, plain and all of one hand.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Files of each type.
const EACH: u64 = 15;
/// What the model sees: so many bytes of the beginning and of the end.
const PART: usize = 1024;
/// Stands where a file has no byte.
const PADDING: i32 = 256;
/// Of so many bytes at either end blanks are taken away.
const BLOCK: usize = 4096;

type Generate = fn(&mut Words) -> Vec<u8>;

/// Types by their place among the labels of `standard_v3_3`.
const TYPES: [(&str, i64, Generate); 20] = [
    ("bmp", 15, bmp),
    ("c", 17, c),
    ("css", 31, css),
    ("csv", 32, csv),
    ("go", 61, go),
    ("gzip", 64, gzip),
    ("html", 71, html),
    ("ini", 76, ini),
    ("java", 81, java),
    ("javascript", 83, javascript),
    ("json", 87, json),
    ("makefile", 99, makefile),
    ("markdown", 100, markdown),
    ("png", 133, png),
    ("python", 143, python),
    ("rust", 156, rust),
    ("shell", 161, shell),
    ("sql", 165, sql),
    ("wav", 195, wav),
    ("xml", 206, xml),
];

/// Makes `files.npy` (i32, files x 2048) and `types.npy` (i64).
pub fn make(folder: &Path) -> anyhow::Result<()> {
    let (mut seen, mut types) = (Vec::new(), Vec::new());
    let mut rows = 0;
    for (_, label, generate) in TYPES {
        for file in 0..EACH {
            let mut words = Words(ChaCha8Rng::seed_from_u64(label as u64 * 1000 + file));
            seen.extend(features(&generate(&mut words)).iter().flat_map(|v| v.to_le_bytes()));
            types.extend(label.to_le_bytes());
            rows += 1;
        }
    }
    super::write_npy(&folder.join("files.npy"), "<i4", &[rows, 2 * PART], &seen)?;
    super::write_npy(&folder.join("types.npy"), "<i8", &[rows], &types)
}

/// What Magika 1.0 looks at: the first and the last bytes, without blanks at their outer ends, padded.
fn features(file: &[u8]) -> Vec<i32> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let begin = &file[..file.len().min(BLOCK)];
    let begin = &begin[begin.iter().position(|b| !blank(b)).unwrap_or(begin.len())..];
    let end = &file[file.len().saturating_sub(BLOCK)..];
    let end = &end[..end.iter().rposition(|b| !blank(b)).map_or(0, |i| i + 1)];
    let (begin, end) = (&begin[..begin.len().min(PART)], &end[end.len().saturating_sub(PART)..]);
    let mut seen: Vec<i32> = begin.iter().map(|b| i32::from(*b)).collect();
    seen.resize(2 * PART - end.len(), PADDING);
    seen.extend(end.iter().map(|b| i32::from(*b)));
    seen
}

/// Words and numbers.
struct Words(ChaCha8Rng);

const WORDS: [&str; 40] = [
    "account", "address", "archive", "balance", "batch", "bridge", "cache", "client", "colour", "count", "customer",
    "device", "engine", "entry", "field", "filter", "garden", "height", "index", "invoice", "journal", "kernel",
    "ledger", "length", "market", "message", "number", "order", "packet", "parent", "query", "record", "region",
    "sample", "server", "session", "signal", "status", "summary", "weather",
];

impl Words {
    fn number(&mut self, most: u32) -> u32 {
        self.0.random_range(0..most)
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.number(WORDS.len() as u32) as usize]
    }

    fn title(&mut self) -> String {
        let word = self.word();
        word[..1].to_uppercase() + &word[1..]
    }

    fn sentence(&mut self) -> String {
        let n = 5 + self.number(8);
        let words: Vec<&str> = (0..n).map(|_| self.word()).collect();
        format!("{} {}.", self.title(), words.join(" "))
    }

    /// Pieces, 6 to 20 of them.
    fn pieces(&mut self, mut piece: impl FnMut(&mut Words) -> String) -> String {
        let n = 6 + self.number(15);
        (0..n).map(|_| piece(self)).collect()
    }
}

fn c(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, field, n) = (w.word(), w.word(), w.number(100));
        format!(
            "static int {name}_{field}(struct {name} *self, int value)\n{{\n\tif (self == NULL)\n\t\treturn -{n};\n\tself->{field} += value * {n};\n\treturn self->{field};\n}}\n\n"
        )
    });
    format!("#include <stdio.h>\n#include <stdlib.h>\n\n/* {} */\n\n{body}int main(void)\n{{\n\tprintf(\"%d\\n\", {});\n\treturn 0;\n}}\n", w.sentence(), w.number(9)).into()
}

fn css(w: &mut Words) -> Vec<u8> {
    w.pieces(|w| {
        let (name, colour, n) = (w.word(), w.number(0xff_ffff), w.number(40));
        format!(".{name} > .{} {{\n  color: #{colour:06x};\n  margin: 0 {n}px;\n  padding: {n}px;\n  display: flex;\n}}\n\n", w.word())
    })
    .into()
}

fn csv(w: &mut Words) -> Vec<u8> {
    let head = format!("id,{},{},{}\n", w.word(), w.word(), w.word());
    let mut id = 0;
    let rows = w.pieces(|w| {
        id += 1;
        format!("{id},{},{}.{},{}\n{}", w.word(), w.number(1000), w.number(100), w.word(), {
            id += 1;
            format!("{id},{},{}.{},{}\n", w.word(), w.number(1000), w.number(100), w.word())
        })
    });
    (head + &rows).into()
}

fn go(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, field, n) = (w.title(), w.title(), w.number(100));
        format!("func (s *Server) {name}{field}(ctx context.Context, n int) (int, error) {{\n\tif n > {n} {{\n\t\treturn 0, fmt.Errorf(\"{} %d\", n)\n\t}}\n\treturn n + {n}, nil\n}}\n\n", w.word())
    });
    format!("package {}\n\nimport (\n\t\"context\"\n\t\"fmt\"\n)\n\n// Server holds a {}.\ntype Server struct {{\n\t{} int\n}}\n\n{body}", w.word(), w.word(), w.title()).into()
}

fn html(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        format!("  <h2 class=\"{}\">{}</h2>\n  <p>{} {}</p>\n", w.word(), w.title(), w.sentence(), w.sentence())
    });
    format!("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>{}</title>\n</head>\n<body>\n{body}</body>\n</html>\n", w.title()).into()
}

fn ini(w: &mut Words) -> Vec<u8> {
    w.pieces(|w| {
        format!(
            "[{}]\n{} = {}\n{} = {}\n; {}\n\n",
            w.title(),
            w.word(),
            w.number(1000),
            w.word(),
            w.word(),
            w.sentence()
        )
    })
    .into()
}

fn java(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, n) = (w.title(), w.number(100));
        format!("    public int get{name}{}(int value) {{\n        if (value > {n}) {{\n            throw new IllegalArgumentException(\"{}\");\n        }}\n        return value + {n};\n    }}\n\n", w.title(), w.word())
    });
    format!("package com.{}.{};\n\nimport java.util.List;\nimport java.util.Map;\n\n/**\n * {}\n */\npublic class {}Service {{\n    private final Map<String, List<Integer>> {};\n\n{body}}}\n", w.word(), w.word(), w.sentence(), w.title(), w.word()).into()
}

fn javascript(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, field, n) = (w.word(), w.word(), w.number(100));
        format!("export async function {name}{}({field}) {{\n  const found = await fetch(`/api/{name}/${{{field}.id}}`);\n  if (!found.ok) {{\n    throw new Error('{} ' + found.status);\n  }}\n  return {field}.map((x) => x * {n});\n}}\n\n", w.title(), w.word())
    });
    format!("'use strict';\n\nimport {{ {} }} from './{}.js';\n\n// {}\n{body}", w.word(), w.word(), w.sentence())
        .into()
}

fn json(w: &mut Words) -> Vec<u8> {
    let entry = |w: &mut Words| {
        format!(
            "    {{\n      \"id\": {},\n      \"{}\": \"{}\",\n      \"{}\": [{}, {}],\n      \"active\": {}\n    }},\n",
            w.number(10_000),
            w.word(),
            w.title(),
            w.word(),
            w.number(100),
            w.number(100),
            w.number(2) == 1
        )
    };
    let entries = w.pieces(entry);
    format!(
        "{{\n  \"{}\": [\n{}\n  ],\n  \"total\": {}\n}}\n",
        w.word(),
        entries.trim_end().trim_end_matches(','),
        w.number(1000)
    )
    .into()
}

fn makefile(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, other) = (w.word(), w.word());
        format!("{name}.o: {name}.c {other}.h\n\t$(CC) $(CFLAGS) -c $< -o $@\n\n")
    });
    format!(
        "CC = gcc\nCFLAGS = -O{} -Wall\n\n.PHONY: all clean\n\nall: {}\n\n{body}clean:\n\trm -f *.o\n",
        w.number(4),
        w.word()
    )
    .into()
}

fn markdown(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        format!(
            "## {} {}\n\n{} {}\n\n- **{}**: {}\n- [{}](https://example.org/{})\n\n",
            w.title(),
            w.word(),
            w.sentence(),
            w.sentence(),
            w.word(),
            w.sentence(),
            w.word(),
            w.word()
        )
    });
    format!("# {}\n\n{}\n\n{body}", w.title(), w.sentence()).into()
}

fn python(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, field, n) = (w.word(), w.word(), w.number(100));
        format!("def {name}_{field}({field}, limit={n}):\n    \"\"\"{}\"\"\"\n    if {field} is None:\n        raise ValueError(\"{}\")\n    return [x for x in {field} if x < limit]\n\n\n", w.sentence(), w.word())
    });
    format!("#!/usr/bin/env python3\n\"\"\"{}\"\"\"\n\nimport os\nimport sys\n\n\n{body}if __name__ == \"__main__\":\n    sys.exit(len(os.environ))\n", w.sentence()).into()
}

fn rust(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, field, n) = (w.word(), w.word(), w.number(100));
        format!("/// {}\npub fn {name}_{field}({field}: &[u32]) -> Option<u32> {{\n    let found = {field}.iter().copied().filter(|v| *v > {n}).max()?;\n    Some(found + {n})\n}}\n\n", w.sentence())
    });
    format!("//! {}\n\nuse std::collections::BTreeMap;\n\n#[derive(Debug, Clone)]\npub struct {} {{\n    {}: BTreeMap<String, u32>,\n}}\n\n{body}", w.sentence(), w.title(), w.word()).into()
}

fn shell(w: &mut Words) -> Vec<u8> {
    let body = w.pieces(|w| {
        let (name, n) = (w.word(), w.number(100));
        format!("{name}() {{\n  local {}=\"$1\"\n  if [ -z \"$1\" ]; then\n    echo \"{}\" >&2\n    return {n}\n  fi\n  grep -c '{}' \"$1\" || true\n}}\n\n", w.word(), w.sentence(), w.word())
    });
    format!("#!/bin/bash\nset -euo pipefail\n\n# {}\n{body}exit 0\n", w.sentence()).into()
}

fn sql(w: &mut Words) -> Vec<u8> {
    w.pieces(|w| {
        let (table, field) = (w.word(), w.word());
        format!("CREATE TABLE {table}s (\n  id INTEGER PRIMARY KEY,\n  {field} VARCHAR({}) NOT NULL\n);\nINSERT INTO {table}s (id, {field}) VALUES ({}, '{}');\nSELECT {field}, COUNT(*) FROM {table}s WHERE id > {} GROUP BY {field};\n\n", 1 + w.number(255), w.number(1000), w.word(), w.number(50))
    })
    .into()
}

fn xml(w: &mut Words) -> Vec<u8> {
    let name = w.word();
    let body = w.pieces(|w| {
        format!(
            "  <entry id=\"{}\">\n    <{name}>{}</{name}>\n    <note>{}</note>\n  </entry>\n",
            w.number(10_000),
            w.title(),
            w.sentence()
        )
    });
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{name}s>\n{body}</{name}s>\n").into()
}

fn pixels(w: &mut Words, bytes: usize) -> Vec<u8> {
    let mut level = 128i32;
    let mut step = || {
        level = (level + w.number(21) as i32 - 10).clamp(0, 255);
        level as u8
    };
    (0..bytes).map(|_| step()).collect()
}

fn bmp(w: &mut Words) -> Vec<u8> {
    let (width, height) = (8 + 4 * w.number(30), 8 + w.number(100));
    let size = 3 * width * height;
    let mut file = b"BM".to_vec();
    [54 + size, 0, 54, 40, width, height].iter().for_each(|n| file.extend(n.to_le_bytes()));
    file.extend([1, 0, 24, 0]);
    [0, size, 2835, 2835, 0, 0].iter().for_each(|n| file.extend(n.to_le_bytes()));
    file.extend(pixels(w, size as usize));
    file
}

fn wav(w: &mut Words) -> Vec<u8> {
    let samples = 2000 + w.number(4000);
    let mut file = b"RIFF".to_vec();
    file.extend((36 + 2 * samples).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    [1u16, 1].iter().for_each(|n| file.extend(n.to_le_bytes()));
    [16_000u32, 32_000].iter().for_each(|n| file.extend(n.to_le_bytes()));
    [2u16, 16].iter().for_each(|n| file.extend(n.to_le_bytes()));
    file.extend(b"data");
    file.extend((2 * samples).to_le_bytes());
    // a wave of straight lines, and noise
    let period = 20 + w.number(80) as i32;
    for i in 0..samples as i32 {
        let line = (i % period - period / 2) * 400 + w.number(200) as i32;
        file.extend((line as i16).to_le_bytes());
    }
    file
}

fn gzip(w: &mut Words) -> Vec<u8> {
    let inside = markdown(w);
    let mut packer = GzEncoder::new(Vec::new(), Compression::new(6));
    // into memory: nothing can fail
    let _ = packer.write_all(&inside);
    packer.finish().unwrap_or_default()
}

fn png(w: &mut Words) -> Vec<u8> {
    let (width, height) = (16 + w.number(64), 16 + w.number(64));
    let rows: Vec<u8> = (0..height).flat_map(|_| [vec![0], pixels(w, 3 * width as usize)].concat()).collect();
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::new(6));
    let _ = packer.write_all(&rows);
    let packed = packer.finish().unwrap_or_default();
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, bytes) in [(b"IHDR", head), (b"IDAT", packed), (b"IEND", Vec::new())] {
        let chunk = [&kind[..], &bytes].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&chunk);
        file.extend((bytes.len() as u32).to_be_bytes());
        file.extend(chunk);
        file.extend(crc.sum().to_be_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_seen_from_both_ends() {
        let seen = features(b" \n ab \n");
        assert_eq!(seen.len(), 2 * PART);
        assert_eq!((&seen[..5], seen[5]), (&[97, 98, 32, 10, PADDING][..], PADDING));
        assert_eq!(&seen[2 * PART - 5..], [32, 10, 32, 97, 98]);
        let long: Vec<u8> = (0..5000u32).map(|i| (i % 7 + 65) as u8).collect();
        let seen = features(&long);
        assert_eq!((seen[PART - 1], seen[PART]), (i32::from(long[PART - 1]), i32::from(long[5000 - PART])));
        assert!(features(b"  ").iter().all(|v| *v == PADDING));
    }

    #[test]
    fn the_same_files_are_made_on_every_machine() {
        let [one, two] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        [&one, &two].into_iter().for_each(|folder| make(folder.path()).unwrap());
        let sum = |folder: &Path| {
            crate::files::sha256(&folder.join("files.npy"), 1 << 30, ergometer_files::Links::Refused).unwrap()
        };
        assert_eq!(sum(one.path()), sum(two.path()));
        assert_eq!(std::fs::metadata(one.path().join("types.npy")).unwrap().len(), 128 + 8 * 300);
        assert!(TYPES.windows(2).all(|t| t[0].1 < t[1].1), "no label twice");
    }
}
