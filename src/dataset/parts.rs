//! Finished chunks beside the file that is being made, so that a call that was ended can go on.
//!
//! In: chunks. Out: the same again, from `FILE.parts/`. Must not: mix chunks of two requests, or let two processes work there at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use ergometer_files::Folder;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use super::Request;
use super::array::{SetArray, tensors};
use super::chunk::{Chunk, Shape};
use crate::interrupt;
use crate::models::tensors::Tensors;

/// What the chunks are of.
const REQUEST: &str = "request.json";
const LOCK: &str = "lock";
/// Largest [`REQUEST`].
const MAX_REQUEST: u64 = 4 << 20;
/// The metadata of a chunk that holds its shape.
const SHAPE: &str = "shape";

/// The folder of chunks.
pub struct Parts {
    folder: Folder,
    path: PathBuf,
    _lock: File,
}

impl Parts {
    /// Opens the folder, new or as an earlier call left it.
    ///
    /// # Errors
    /// The file is there already; chunks that are not to be used, or of another request; another process is at work; the folder cannot be made.
    pub fn open(request: &Request) -> anyhow::Result<Self> {
        let out = &request.out;
        let name = out.file_name().and_then(|n| n.to_str()).with_context(|| {
            format!("`{}` names no file that can be written\nhint: the name of the file must be UTF-8", out.display())
        })?;
        let path = out.with_file_name(format!("{name}.parts"));
        match out.symlink_metadata() {
            Ok(there) if !there.is_file() => {
                bail!("{} is there and is no file\nhint: name another file with `--out`", out.display())
            }
            Ok(_) => ensure!(request.force, "{} is already there\nhint: `--force` overwrites it", out.display()),
            Err(_) => {}
        }
        let cannot = || {
            format!(
                "cannot work in `{}`\nhint: is there space, and may you write there? `--out` names another place",
                path.display()
            )
        };
        let _gate = interrupt::gate();
        let folder = Folder::create(&path).with_context(cannot)?;
        let lock = folder.lock_file(LOCK).with_context(cannot)?;
        // where the file system has no locks nothing is known of others
        if flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            bail!("another process is making {}\nhint: wait for it, or name another file with `--out`", out.display());
        }
        let parts = Self { folder, path: path.clone(), _lock: lock };
        let wanted = wanted(request)?;
        if parts.folder.has(REQUEST).with_context(cannot)? && !parts.ready()?.is_empty() {
            let there = parts.folder.read(REQUEST, MAX_REQUEST).unwrap_or_default();
            if request.resume {
                let there = String::from_utf8_lossy(&there);
                ensure!(
                    there == wanted,
                    "the examples in {} are of another request{}\nhint: give the same command again, or `--force` without `--resume` to begin anew",
                    path.display(),
                    first_difference(&there, &wanted)
                );
                return Ok(parts);
            }
            ensure!(
                request.force,
                "{} holds examples of a call that was ended\nhint: `--resume` goes on with them, `--force` begins anew",
                path.display()
            );
            for name in parts.folder.names().with_context(cannot)?.iter().filter(|n| *n != LOCK) {
                parts.folder.remove(name).with_context(cannot)?;
            }
        } else {
            // a folder of somebody's is not taken over
            let names = parts.folder.names().with_context(cannot)?;
            let foreign = names
                .iter()
                .find(|n| ![LOCK, REQUEST].contains(&n.as_str()) && !n.starts_with(ergometer_files::TEMPORARY));
            if let Some(name) = foreign {
                bail!(
                    "{} holds `{name}`, which is nothing of ours\nhint: name another file with `--out`, or move the folder away",
                    path.display()
                );
            }
        }
        parts.folder.write(REQUEST, wanted.as_bytes()).with_context(cannot)?;
        Ok(parts)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Chunks that are there.
    pub fn ready(&self) -> anyhow::Result<BTreeSet<u64>> {
        let names = self.folder.names().with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(names
            .iter()
            .filter_map(|n| n.strip_prefix("chunk-")?.strip_suffix(".safetensors")?.parse().ok())
            .filter(|chunk| names.binary_search(&name(*chunk)).is_ok())
            .collect())
    }

    /// Keeps a chunk.
    pub fn write(&self, chunk: u64, shape: &Shape, rows: &Chunk) -> anyhow::Result<()> {
        let arrays = SetArray::of(shape, true);
        let mut bytes = tensors(&arrays, rows.rows(), &[(SHAPE, serde_json::to_string(shape)?)].into())?;
        arrays.iter().for_each(|array| bytes.extend(array.bytes(rows, 0..rows.rows())));
        let _gate = interrupt::gate();
        self.folder.write(&name(chunk), &bytes).with_context(|| {
            format!(
                "failed to write chunk {chunk} in `{}`\nhint: is there space, and may you write there? `--resume` goes on with those that are there",
                self.path.display()
            )
        })
    }

    /// A chunk again.
    pub fn read(&self, chunk: u64) -> anyhow::Result<(Shape, Chunk)> {
        let path = self.path.join(name(chunk));
        let read = || -> anyhow::Result<(Shape, Chunk)> {
            let mut file = Tensors::new(&path, self.folder.open_file(&name(chunk), u64::MAX)?)?;
            let shape = file.metadata.get(SHAPE).with_context(|| format!("metadata has no `{SHAPE}`"))?;
            let shape: Shape = serde_json::from_str(shape)?;
            let rows = file.entries.get("difficulty").map_or(0, |e| e.elements());
            let mut found = Vec::new();
            for array in SetArray::of(&shape, true) {
                let elements = rows.checked_mul(array.columns.unwrap_or(1)).context("a size that no chunk has")?;
                found.push(file.raw(array.name, array.dtype(), elements)?);
            }
            let [difficulty, puzzle_id, tokens, answer] =
                <[Vec<u8>; 4]>::try_from(found).map_err(|_| anyhow!("too few arrays"))?;
            let words = |b: Vec<u8>| b.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let chunk = Chunk { tokens, answer, difficulty: words(difficulty), puzzle_id: words(puzzle_id) };
            ensure!(chunk.within(&shape), "tokens or ids out of range");
            Ok((shape, chunk))
        };
        read().with_context(|| {
            format!("{}: not usable\nhint: remove this file, and `--resume` makes it again", path.display())
        })
    }

    /// Takes the folder away.
    pub fn remove(self) -> anyhow::Result<()> {
        let _gate = interrupt::gate();
        let (parent, last) = (self.path.parent().unwrap_or(Path::new("")), self.path.file_name().unwrap_or_default());
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let removed = Folder::open(parent).and_then(|parent| parent.remove(&last.to_string_lossy()));
        removed.with_context(|| {
            format!("the file is made, but {} cannot be removed\nhint: remove it", self.path.display())
        })
    }
}

fn name(chunk: u64) -> String {
    format!("chunk-{chunk:06}.safetensors")
}

/// Everything that the examples hang on, one value a line.
fn wanted(request: &Request) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&json!({
        "format": "ergometer-dataset-parts-1",
        "program": env!("CARGO_PKG_VERSION"),
        "kind": request.task.task.name,
        "split": request.split.name(),
        "examples": request.examples,
        "seed": request.seed,
        "parameters": request.task.parameters,
    }))? + "\n")
}

/// ` (there X, here Y)` for the first line in which they differ.
fn first_difference(there: &str, here: &str) -> String {
    let shown = |line: Option<&str>| {
        let text: String = line.unwrap_or("nothing").trim().trim_end_matches(',').chars().take(60).collect();
        text
    };
    let (mut a, mut b) = (there.lines(), here.lines());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return String::new(),
            (x, y) if x != y => return format!(" (there {}, here {})", shown(x), shown(y)),
            _ => {}
        }
    }
}
