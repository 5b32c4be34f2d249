//! Data that are made beside a fetched model, since no package has them: the same bytes for the same version.
//!
//! In: the folder of an item. Out: files of arrays that the shipped suites name. Must not: ask the network, a clock or a
//! font of the system, or pass for data of the world: what they are stands in `suites/README.md`.

mod digits;
mod file_types;
mod lines;
mod mixtures;

use std::path::Path;

use ergometer_suites::arrays::npy::header;

use crate::files::write_atomically;

/// Makes files in an item's folder.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    /// Their names.
    pub files: &'static [&'static str],
    /// Makes all of them.
    pub make: fn(&Path) -> anyhow::Result<()>,
}

/// For Magika: bytes of generated files, and their types.
pub const FILE_TYPES: Making = Making { files: &["files.npy", "types.npy"], make: file_types::make };
/// For the recogniser of PP-OCR: lines of text as pictures, the texts, and its alphabet.
pub const LINES: Making = Making { files: &["lines.npy", "texts.jsonl", "alphabet.txt"], make: lines::make };
/// Handwritten digits that were held out, and a net trained on the others.
pub const DIGITS: Making = Making { files: &["test.npy", "labels.npy", "net.onnx"], make: digits::make };
/// Of SmolLM2: the net split into experts.
pub const MIXTURES: Making = Making { files: &mixtures::FILES, make: mixtures::make };

/// Writes an array: NumPy's type, axes, and the bytes of its numbers.
fn write_npy(path: &Path, kind: &str, axes: &[usize], bytes: &[u8]) -> anyhow::Result<()> {
    let axes: String = axes.iter().map(|n| format!("{n}, ")).collect();
    write_atomically(path, &[header(kind, &format!("({})", axes.trim_end()))?, bytes.to_vec()].concat())
}
