//! The arrays of a set of examples, and how safetensors name them.
//!
//! In: the shape of the examples, chunks of them. Out: bytes of rows, the header of a file. Must not: write a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use serde::Serialize;

use super::chunk::{Chunk, Shape};

/// One array of a set.
pub struct SetArray {
    /// Its name.
    pub name: &'static str,
    /// Bytes of an element, an unsigned number.
    pub width: usize,
    /// Elements of a row; `None`: one, and the array has one axis.
    pub columns: Option<usize>,
    bytes: for<'a> fn(&'a Chunk) -> Cow<'a, [u8]>,
}

impl SetArray {
    /// The arrays of a shape, those of wider elements first, so that each begins at a multiple of its elements' size. `ids`: also where
    /// they say nothing.
    pub fn of(shape: &Shape, ids: bool) -> Vec<SetArray> {
        fn words(words: &[u32]) -> Cow<'_, [u8]> {
            words.iter().flat_map(|w| w.to_le_bytes()).collect()
        }
        let mut arrays =
            vec![SetArray { name: "difficulty", width: 4, columns: None, bytes: |c| words(&c.difficulty) }];
        if ids || shape.has_ids() {
            arrays.push(SetArray { name: "puzzle_id", width: 4, columns: None, bytes: |c| words(&c.puzzle_id) });
        }
        let width = shape.width();
        arrays.push(SetArray { name: "tokens", width, columns: Some(shape.cells), bytes: |c| (&c.tokens[..]).into() });
        arrays.push(SetArray {
            name: "answer",
            width,
            columns: Some(shape.answer_cells),
            bytes: |c| (&c.answer[..]).into(),
        });
        arrays
    }

    /// As safetensors call it.
    pub fn dtype(&self) -> &'static str {
        match self.width {
            1 => "U8",
            2 => "U16",
            _ => "U32",
        }
    }

    /// Axes for so many rows.
    pub fn axes(&self, rows: usize) -> Vec<usize> {
        std::iter::once(rows).chain(self.columns).collect()
    }

    /// The bytes of rows.
    pub fn bytes(&self, chunk: &Chunk, rows: Range<usize>) -> Vec<u8> {
        let row = self.width * self.columns.unwrap_or(1);
        (self.bytes)(chunk)[rows.start * row..rows.end * row].to_vec()
    }
}

#[derive(Serialize)]
struct Entry {
    dtype: &'static str,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Everything of a safetensors file that stands before its arrays.
pub fn tensors(arrays: &[SetArray], rows: usize, metadata: &BTreeMap<&str, String>) -> io::Result<Vec<u8>> {
    // written piece by piece, since the order of a JSON map hangs on how its library was built
    let mut text = format!("{{\"__metadata__\":{}", serde_json::to_string(metadata)?);
    let mut at = 0;
    for array in arrays {
        let shape = array.axes(rows);
        let begin = at;
        at += array.width * shape.iter().product::<usize>();
        let entry = Entry { dtype: array.dtype(), shape, data_offsets: [begin, at] };
        text += &format!(",\"{}\":{}", array.name, serde_json::to_string(&entry)?);
    }
    text.push('}');
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.into_bytes());
    Ok(bytes)
}
