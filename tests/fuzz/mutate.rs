//! Seeded damage to a whole input: bytes, numbers, strings, structure.
//!
//! In: seeds and a number. Out: an input, the same for the same number. Must not: know what the bytes mean beyond quotes and digits.

/// Steele's SplitMix64: small, and all that this needs.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Numbers at which readers break.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "1e308",
    "1e309",
    "-1e309",
    "1e-320",
    "5e-324",
    "0.1",
    "1e300",
    "nan",
    "NaN",
    "inf",
    "Infinity",
    "1_0",
    "0x10",
    "007",
    "1.",
    ".5",
    "+1",
    "null",
    "true",
    "\"1\"",
    "[]",
    "{}",
    "1e",
    "--1",
];

/// Pieces of text at which readers break.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b"\r\n",
    b"\n",
    b"\n\n",
    b"\t",
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b",",
    b";",
    b":",
    b"=",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[",
    b"]]",
    b"[[cases]]\n",
    b"{}",
    b"[]",
    b"null",
    b"//",
    b"#",
    b"\x1b[2J",
    b"\x1b]0;x\x07",
    b"../",
    b"/etc/passwd",
    b"{suite}",
    "\u{202e}".as_bytes(),
    "\u{feff}".as_bytes(),
    "é".as_bytes(),
    "𝄞".as_bytes(),
    b"__proto__",
    b"=cmd()",
    b"--",
    b"-",
    b"*",
    b"%s%n",
    b"version https://git-lfs.github.com/spec/v1\n",
];

/// An input made from the seeds: one to six damages.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        damage(&mut bytes, seeds, random);
        // what grows by doubling must end
        bytes.truncate(1 << 20);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let len = bytes.len();
    let at = random.below(len + 1);
    let span = |random: &mut Random| random.below((len - at).min(64) + 1);
    match random.below(14) {
        0 => bytes.truncate(at),
        1 if at < len => bytes[at] ^= 1 << random.below(8),
        2 if at < len => bytes[at] = random.next() as u8,
        3 => drop(bytes.drain(at..at + span(random))),
        4 => {
            let piece = bytes[at..at + span(random)].to_vec();
            bytes.splice(at..at, piece);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            let upto = from + random.below((other.len() - from).min(400) + 1);
            bytes.splice(at..at, other[from..upto].iter().copied());
        }
        6 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
        7 | 8 => number(bytes, at, random),
        9 => line(bytes, at, random),
        10 => string(bytes, at, random),
        11 => {
            let piece = [&b"["[..], b"{\"a\":", b"(", b"a = [", b"a.", b"9", b"x"][random.below(7)];
            let times = [10, 200, 5_000, 50_000][random.below(4)];
            bytes.splice(at..at, piece.repeat(times / piece.len()));
        }
        12 => {
            let (a, b) = (random.below(len + 1), random.below(len + 1));
            let cut: Vec<u8> = bytes.drain(a.min(b)..a.max(b).min(a.min(b) + 200)).collect();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, cut);
        }
        // little-endian lengths, as binary files begin with
        _ => {
            let value =
                [0, 1, 7, u64::from(u32::MAX), u64::MAX, 1 << 40, len as u64, len as u64 - 8 * u64::from(len > 8)]
                    [random.below(8)];
            for (i, b) in value.to_le_bytes().into_iter().enumerate() {
                if let Some(place) = bytes.get_mut(if random.below(2) == 0 { i } else { at + i }) {
                    *place = b;
                }
            }
        }
    }
}

/// Another number in the place of the next one.
fn number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(from) = bytes[at..].iter().position(u8::is_ascii_digit).map(|i| at + i) else { return };
    let upto = bytes[from..]
        .iter()
        .position(|b| !b.is_ascii_digit() && !b".eE+-".contains(b))
        .map_or(bytes.len(), |i| from + i);
    bytes.splice(from..upto, NUMBERS[random.below(NUMBERS.len())].bytes());
}

/// The line at this place twice, or not at all, or elsewhere.
fn line(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let from = bytes[..at].iter().rposition(|b| *b == b'\n' || *b == b',').map_or(0, |i| i + 1);
    let upto = bytes[at..].iter().position(|b| *b == b'\n' || *b == b',').map_or(bytes.len(), |i| at + i + 1);
    let line = bytes[from..upto].to_vec();
    match random.below(3) {
        0 => drop(bytes.splice(from..from, line)),
        1 => drop(bytes.drain(from..upto)),
        _ => {
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, line);
        }
    }
}

/// Another text in the place of the next quoted one: another quoted one of the input, a long one, an empty one, a piece.
fn string(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let quoted = |bytes: &[u8], at: usize| -> Option<(usize, usize)> {
        let from = at + bytes[at..].iter().position(|b| *b == b'"')? + 1;
        Some((from, from + bytes[from..].iter().position(|b| *b == b'"')?))
    };
    let Some((from, upto)) = quoted(bytes, at) else { return };
    let text = match random.below(4) {
        0 => Vec::new(),
        1 => vec![b'a'; [65, 300, 70_000][random.below(3)]],
        2 => PIECES[random.below(PIECES.len())].to_vec(),
        _ => {
            let place = random.below(bytes.len());
            quoted(bytes, place).map_or(Vec::new(), |(f, u)| bytes[f..u.min(f + 400)].to_vec())
        }
    };
    bytes.splice(from..upto, text);
}
