//! The formats of a file of examples.
//!
//! In: a `Set`. Out: its bytes, the same for the same set. Must not: know a task: what is readable of an example the task says
//! ([`Task::row`](ergometer_suites::Task::row)).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use ergometer_suites::error::near_matches;
use ergometer_suites::task::Field;

use super::array::{SetArray, tensors};
use super::npz;
use super::set::Set;

/// A format: one line in [`FORMATS`].
pub struct Format {
    /// How files end, without the dot.
    pub ending: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Writes a file.
    pub write: fn(&Set, &mut File) -> io::Result<()>,
}

/// Every format.
pub const FORMATS: &[Format] = &[
    Format {
        ending: "safetensors",
        about: "arrays and what they are, for Python, Rust and others",
        write: safetensors,
    },
    Format { ending: "npz", about: "the same arrays for NumPy, compressed", write: npz::write },
    Format {
        ending: "csv",
        about: "one line an example, as the task's own reader takes it where it has one",
        write: csv,
    },
    Format { ending: "jsonl", about: "one JSON object an example", write: jsonl },
];

/// The format of a file by its ending.
///
/// # Errors
/// There is none of this ending.
pub fn of(path: &Path) -> anyhow::Result<&'static Format> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    FORMATS.iter().find(|f| f.ending == ending).with_context(|| {
        let known: Vec<String> = FORMATS.iter().map(|f| format!(".{}", f.ending)).collect();
        let near = near_matches(ending, FORMATS.iter().map(|f| f.ending));
        let meant = near.first().map_or_else(String::new, |near| format!("; did you mean .{near}?"));
        let what =
            if ending.is_empty() { "no ending that says its format".into() } else { format!("the ending .{ending}") };
        format!("{} has {what}\nhint: the ending says the format: {}{meant}", path.display(), known.join(", "))
    })
}

fn safetensors(set: &Set, file: &mut File) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let arrays = SetArray::of(&set.shape, false);
    out.write_all(&tensors(&arrays, set.examples as usize, &set.metadata()?)?)?;
    arrays.iter().try_for_each(|array| set.write(array, &mut out))?;
    out.flush()
}

fn csv(set: &Set, file: &mut File) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut first = true;
    set.each_example(|example| {
        let row = set.task().row(example);
        if std::mem::take(&mut first) {
            writeln!(out, "{}", row.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","))?;
        }
        let text = |field: &Field| match field {
            Field::Text(text) => text.clone(),
            Field::Number(number) => number.to_string(),
            Field::Numbers(numbers) => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        };
        writeln!(out, "{}", row.iter().map(|(_, field)| text(field)).collect::<Vec<_>>().join(","))
    })?;
    out.flush()
}

fn jsonl(set: &Set, file: &mut File) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    set.each_example(|example| {
        let text = |field: &Field| match field {
            Field::Text(text) => serde_json::to_string(text),
            Field::Number(number) => serde_json::to_string(number),
            Field::Numbers(numbers) => serde_json::to_string(numbers),
        };
        let row = set.task().row(example);
        let fields = row.iter().map(|(name, field)| Ok(format!("\"{name}\":{}", text(field)?)));
        writeln!(out, "{{{}}}", fields.collect::<io::Result<Vec<_>>>()?.join(","))
    })?;
    out.flush()
}
