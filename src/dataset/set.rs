//! The examples that were kept, over all chunks.
//!
//! In: which rows of which chunk are kept. Out: their bytes or examples, in order, as often as a format asks. Must not: hold more than one
//! chunk at a time.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

use ergometer_suites::Task;
use ergometer_suites::task::Example;

use super::Request;
use super::array::SetArray;
use super::chunk::{Chunk, Shape};
use super::parts::Parts;

/// All examples of a file.
pub struct Set<'a> {
    request: &'a Request,
    parts: &'a Parts,
    /// What every example has.
    pub shape: Shape,
    /// Examples that are kept.
    pub examples: u64,
    /// Examples that came again and were left out.
    pub repeated: u64,
    /// Examples that an earlier call had made.
    pub found: u64,
    /// Chunks and their rows that are kept.
    kept: Vec<(u64, Vec<Range<usize>>)>,
}

impl<'a> Set<'a> {
    /// An empty one.
    pub fn new(request: &'a Request, parts: &'a Parts, shape: Shape) -> Self {
        Self { request, parts, shape, examples: 0, repeated: 0, found: 0, kept: Vec::new() }
    }

    /// Adds the rows of the next chunk that are marked.
    pub fn keep(&mut self, chunk: u64, rows: &[bool]) {
        let mut ranges = Vec::new();
        let mut at = 0;
        for run in rows.chunk_by(|a, b| a == b) {
            if run[0] {
                ranges.push(at..at + run.len());
                self.examples += run.len() as u64;
            }
            at += run.len();
        }
        self.kept.push((chunk, ranges));
    }

    /// The task.
    pub fn task(&self) -> &'static Task {
        self.request.task.task
    }

    /// What a file says of itself.
    pub fn metadata(&self) -> io::Result<BTreeMap<&'static str, String>> {
        let request = self.request;
        let mut metadata = BTreeMap::from([
            ("format", "ergometer-dataset-1".to_owned()),
            ("kind", self.task().name.to_owned()),
            ("split", request.split.name().to_owned()),
            ("seed", request.seed.to_string()),
            ("examples", self.examples.to_string()),
            ("parameters", serde_json::to_string(&request.task.parameters)?),
            ("vocabulary", self.shape.vocabulary.to_string()),
            ("puzzle_ids", self.shape.puzzle_ids.to_string()),
        ]);
        metadata.extend(self.shape.numbering.clone().map(|numbering| ("numbering", numbering)));
        Ok(metadata)
    }

    /// Writes one array of all examples.
    pub fn write(&self, array: &SetArray, out: &mut impl Write) -> io::Result<()> {
        self.each(|chunk, rows| out.write_all(&array.bytes(chunk, rows)))
    }

    /// Every example.
    pub fn each_example(&self, mut take: impl FnMut(&Example) -> io::Result<()>) -> io::Result<()> {
        self.each(|chunk, mut rows| rows.try_for_each(|row| take(&chunk.example(row, &self.shape))))
    }

    fn each(&self, mut take: impl FnMut(&Chunk, Range<usize>) -> io::Result<()>) -> io::Result<()> {
        for (number, ranges) in self.kept.iter().filter(|(_, ranges)| !ranges.is_empty()) {
            let (_, chunk) = self.parts.read(*number).map_err(|e| io::Error::other(format!("{e:#}")))?;
            ranges.iter().try_for_each(|rows| take(&chunk, rows.clone()))?;
        }
        Ok(())
    }
}
