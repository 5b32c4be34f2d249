//! Lines of text as pictures, drawn with the shipped font, for a recogniser of text.
//!
//! In: the model file, which carries its alphabet; a seed. Out: pictures as the model of PP-OCR sees them, the texts, the
//! alphabet. Must not: be taken for photographs: one font, black on white, level.

use std::path::Path;

use anyhow::{Context, ensure};
use ergometer_files::Links;
use ergometer_reports::render::png::grey_line;
use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::files::write_atomically;
use crate::onnx::proto::Model;

/// Lines.
const LINES: u64 = 100;
/// Rows and columns of a picture, as the released pipeline feeds the model.
const HEIGHT: usize = 48;
const WIDTH: usize = 320;
/// Largest model.
const MAX_MODEL: u64 = 64 << 20;
/// The key of the model's metadata that has its alphabet, a symbol a line; the blank comes before them, and a space after.
const ALPHABET: &str = "character";

const WORDS: [&str; 32] = [
    "about", "Berlin", "castle", "Dover", "energy", "Friday", "green", "harbour", "island", "June", "kettle", "London",
    "mirror", "Norway", "orange", "Paris", "quiet", "River", "silver", "Turin", "under", "Vienna", "winter", "Xenon",
    "yellow", "Zurich", "bridge", "number", "market", "planet", "window", "Street",
];

/// Makes `lines.npy` (f32, lines x 3 x 48 x 320), `texts.jsonl` and `alphabet.txt`.
pub fn make(folder: &Path) -> anyhow::Result<()> {
    let (mut pictures, mut texts) = (Vec::new(), String::new());
    for line in 0..LINES {
        let text = text(line);
        let drawn = grey_line(&text, HEIGHT as u32).with_context(|| format!("cannot draw `{text}`"))?;
        let width = drawn.len() / HEIGHT;
        ensure!(width <= WIDTH, "`{text}` is {width} pixels wide, {WIDTH} are the most");
        // the same in three colours, -1 to 1; what is right of the line is 0, as in the released pipeline
        for _ in 0..3 {
            for row in drawn.chunks_exact(width) {
                pictures.extend(row.iter().flat_map(|p| (f32::from(*p) / 127.5 - 1.0).to_le_bytes()));
                pictures.extend(std::iter::repeat_n(0, 4 * (WIDTH - width)));
            }
        }
        texts += &format!("{}\n", serde_json::json!({"text": text}));
    }
    super::write_npy(&folder.join("lines.npy"), "<f4", &[LINES as usize, 3, HEIGHT, WIDTH], &pictures)?;
    write_atomically(&folder.join("texts.jsonl"), texts.as_bytes())?;
    let model = folder.join("ch_PP-OCRv4_rec_infer.onnx");
    let bytes = ergometer_files::read(&model, MAX_MODEL, Links::Refused)?;
    let read = Model::decode(&bytes[..]).with_context(|| format!("{} is no ONNX file", model.display()))?;
    let entry = read.metadata_props.into_iter().find(|e| e.key.as_deref() == Some(ALPHABET));
    let symbols = entry.and_then(|e| e.value).with_context(|| format!("{} has no alphabet", model.display()))?;
    let alphabet: Vec<&str> = std::iter::once("").chain(symbols.lines()).chain([" "]).collect();
    write_atomically(&folder.join("alphabet.txt"), (alphabet.join("\n") + "\n").as_bytes())
}

/// Two words, or a word and a number.
fn text(line: u64) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(0x6c69_6e65 + line);
    let mut word = || WORDS[random.random_range(0..WORDS.len())];
    let (one, two) = (word(), word());
    if line.is_multiple_of(3) { format!("{one} {}", random.random_range(10..10_000)) } else { format!("{one} {two}") }
}
