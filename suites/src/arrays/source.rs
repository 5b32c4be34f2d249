//! Where numbers come from: a named array, tensor, column or key of a file, whose first axis is the examples.
//!
//! In: `file.npz:key` and the like. Out: how many rows there are, and those that are chosen, as [`Array`]s or texts.
//! Must not: hold more than the chosen rows, believe a size before the file has it, or pass on what is no number.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use ergometer_files::counted;

use super::elements::{MAX_BYTES, MAX_ROWS, Stored, convert};
use super::npy::read_header;
use super::table;
use crate::array::{Array, ElementKind};
use crate::error::{SuiteError, did_you_mean};
use crate::tensors::{TensorFile, shown_name};
use crate::text;
use crate::zip::{Packing, ZipArchive};

const WHOLE: &str = "write or copy the file again: it is cut off or damaged";
const FEWER: &str = "ask for fewer `examples`, or split the file";

/// Formats, by the ending of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileFormat {
    Npy,
    Npz,
    Tensors,
    Csv,
    Jsonl,
}

const ENDINGS: [(&str, FileFormat); 6] = [
    (".npy", FileFormat::Npy),
    (".npz", FileFormat::Npz),
    (".safetensors", FileFormat::Tensors),
    (".csv", FileFormat::Csv),
    (".tsv", FileFormat::Csv),
    (".jsonl", FileFormat::Jsonl),
];

/// A source of rows.
#[derive(Clone, Debug)]
pub struct ArraySource {
    /// The file.
    pub path: PathBuf,
    /// Name of the array, tensor, column (or `first..last`) or key; none where the file has one array.
    pub key: Option<String>,
    format: FileFormat,
}

/// How rows are wanted.
#[derive(Clone, Debug, Default)]
pub struct WantedRows {
    /// Kind of their elements; `None`: the file's own, where arrays have it, else the next that holds it.
    pub kind: Option<ElementKind>,
    /// Shape of each; `None`: the file's own.
    pub shape: Option<Vec<usize>>,
}

impl ArraySource {
    /// The source that a text such as `data/x.npz:key` names; its path starts at `folder`.
    ///
    /// # Errors
    /// An ending that is not known; a key that is missing, or one of a file that has none.
    pub fn parse(folder: &Path, text: &str) -> Result<Self, SuiteError> {
        let named = |end: &str| -> Option<(&str, Option<&str>)> {
            let lower = text.to_ascii_lowercase();
            let at = lower.rfind(end)? + end.len();
            match text.get(at..)? {
                "" => Some((text, None)),
                rest => Some((text.get(..at)?, Some(rest.strip_prefix(':')?))),
            }
        };
        let found = ENDINGS.iter().find_map(|(end, format)| Some((named(end)?, *format)));
        let Some(((path, key), format)) = found else {
            let endings: Vec<&str> = ENDINGS.iter().map(|e| e.0).collect();
            return Err(SuiteError::new(format!("`{}` names no file of arrays", shown_name(text))).hint(format!(
                "write `FILE` or `FILE:KEY` with a file that ends in {}: NAME.npz:array, NAME.csv:column",
                endings.join(", ")
            )));
        };
        let key = key.filter(|k| !k.is_empty());
        match (format, key) {
            (FileFormat::Npy, Some(key)) => {
                return Err(SuiteError::new(format!(
                    "a `.npy` file holds one array and has no key `{}`",
                    shown_name(key)
                ))
                .hint(format!("write `{path}`")));
            }
            (FileFormat::Csv | FileFormat::Jsonl, None) => {
                return Err(SuiteError::new(format!("`{}` does not say which column", shown_name(text)))
                    .hint(format!("write `{path}:COLUMN`, or of a CSV file `{path}:FIRST..LAST`")));
            }
            _ => {}
        }
        let path = crate::locate::data_file(folder, path)?;
        Ok(Self { path, key: key.map(str::to_owned), format })
    }

    /// As it was written.
    pub fn shown(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        match &self.key {
            Some(key) => format!("{name}:{key}"),
            None => name.into_owned(),
        }
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// The file cannot be read, is not whole, has no such key, or more than [`MAX_ROWS`] rows.
    pub fn rows(&self) -> Result<usize, SuiteError> {
        match self.format {
            FileFormat::Csv => table::csv_rows(&self.path),
            FileFormat::Jsonl => table::jsonl_rows(&self.path),
            _ => self.stream(|head, _| Ok(head.rows)),
        }
    }

    /// What the numbers are in the file; none where they are written as text.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn stored(&self) -> Result<Option<Stored>, SuiteError> {
        match self.format {
            FileFormat::Csv | FileFormat::Jsonl => Ok(None),
            _ => self.stream(|head, _| Ok(Some(head.stored))),
        }
    }

    /// The rows of these numbers, which ascend. Numbers that are written as text are f32 where no kind is asked for.
    ///
    /// # Errors
    /// As [`rows`](Self::rows); a row that is not there; what is no number or not of the kind, by row and place; rows of
    /// another shape; more than [`MAX_BYTES`].
    pub fn arrays(&self, chosen: &[usize], wanted: &WantedRows) -> Result<Vec<Array>, SuiteError> {
        let arrays = match self.format {
            FileFormat::Csv => {
                table::csv_arrays(&self.path, self.column(), chosen, wanted.kind.unwrap_or(ElementKind::F32))
            }
            FileFormat::Jsonl => {
                table::jsonl_arrays(&self.path, self.column(), chosen, wanted.kind.unwrap_or(ElementKind::F32))
            }
            _ => self.stream(|head, from| self.chosen(&head, from, chosen, wanted.kind)),
        }?;
        let Some(shape) = &wanted.shape else { return Ok(arrays) };
        let shaped = |array: Array| {
            let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            if elements != Some(array.elements()) {
                return Err(self
                    .error(format!("rows have the shape {:?}, which does not fill {shape:?}", array.shape))
                    .hint("write a `shape` of as many elements"));
            }
            Ok(Array { shape: shape.clone(), ..array })
        };
        arrays.into_iter().map(shaped).collect()
    }

    /// The rows of these numbers, which ascend, as texts: strings as they are, whole numbers in digits.
    ///
    /// # Errors
    /// As [`arrays`](Self::arrays); rows of more than one element.
    pub fn texts(&self, chosen: &[usize]) -> Result<Vec<String>, SuiteError> {
        match self.format {
            FileFormat::Csv => table::csv_texts(&self.path, self.column(), chosen),
            FileFormat::Jsonl => table::jsonl_texts(&self.path, self.column(), chosen),
            _ => {
                let wanted = WantedRows { kind: Some(ElementKind::I64), shape: None };
                let text = |array: Array| match super::elements::wholes(&array)[..] {
                    [one] => Ok(one.to_string()),
                    _ => Err(self
                        .error(format!("a row has the shape {:?}, and one element is due", array.shape))
                        .hint("name an array of one axis, or a text column of a CSV or JSONL file")),
                };
                self.arrays(chosen, &wanted)?.into_iter().map(text).collect()
            }
        }
    }

    fn column(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    fn error(&self, message: impl Into<String>) -> SuiteError {
        let error = SuiteError::new(message).in_file(&self.path);
        match &self.key {
            Some(key) => error.at(format!("`{}`", shown_name(key))),
            None => error,
        }
    }

    /// Hands type and shape of the numbers to `then`, with their bytes.
    fn stream<T>(&self, then: impl FnOnce(ArrayHead, &mut dyn Read) -> Result<T, SuiteError>) -> Result<T, SuiteError> {
        let file = text::open(&self.path).map_err(|e| match e.hint {
            Some(_) => e,
            None => e.hint("name a file of arrays; a path in a suite starts at the suite file's folder"),
        })?;
        let length = file.metadata().map_or(0, |m| m.len());
        match self.format {
            FileFormat::Npz => self.stream_npz(file, then),
            FileFormat::Tensors => self.stream_tensors(file, then),
            _ => {
                let mut from = BufReader::with_capacity(1 << 20, file);
                self.stream_npy(&mut from, length, then)
            }
        }
    }

    /// An `.npy` of so many bytes in all.
    fn stream_npy<T>(
        &self,
        from: &mut dyn Read,
        length: u64,
        then: impl FnOnce(ArrayHead, &mut dyn Read) -> Result<T, SuiteError>,
    ) -> Result<T, SuiteError> {
        let mut from = from;
        let header =
            read_header(&mut from).map_err(|why| self.error(format!("no array of NumPy: {why}")).hint(WHOLE))?;
        let head = ArrayHead::new(header.stored, &header.shape).map_err(|why| self.error(why).hint(FEWER))?;
        let has = length.saturating_sub(header.bytes);
        if head.bytes() != Some(has) {
            let message = format!(
                "its header describes {} of shape {:?}, and {} follow",
                header.stored.name(),
                header.shape,
                counted(has, "byte")
            );
            return Err(self.error(message).hint(WHOLE));
        }
        then(head, &mut from)
    }

    fn stream_npz<T>(
        &self,
        file: File,
        then: impl FnOnce(ArrayHead, &mut dyn Read) -> Result<T, SuiteError>,
    ) -> Result<T, SuiteError> {
        let mut archive = ZipArchive::new(&self.path, file, Packing::Any)?;
        let names: Vec<&str> = archive.names().filter_map(|n| n.strip_suffix(".npy")).collect();
        let entry = match (&self.key, &names[..]) {
            (Some(key), _) if names.contains(&key.as_str()) => format!("{key}.npy"),
            (None, [one]) => format!("{one}.npy"),
            (None, _) => {
                return Err(self
                    .error(format!("holds {}: {}", counted(names.len(), "array"), some(&names)))
                    .hint("write `FILE:ARRAY`"));
            }
            (Some(key), _) => return Err(self.missing("array", key, &names)),
        };
        let mut reader = archive.reader(&entry)?;
        let length = reader.left();
        let given = self.stream_npy(&mut reader, length, then)?;
        // the check sum is looked at where the entry ends
        io::copy(&mut reader, &mut io::sink())
            .map_err(|e| self.error(format!("entry `{}`: {e}", shown_name(&entry))).hint(WHOLE))?;
        Ok(given)
    }

    fn stream_tensors<T>(
        &self,
        file: File,
        then: impl FnOnce(ArrayHead, &mut dyn Read) -> Result<T, SuiteError>,
    ) -> Result<T, SuiteError> {
        let mut file =
            TensorFile::new(&self.path, file).map_err(|e| if e.hint.is_none() { e.hint(WHOLE) } else { e })?;
        let names: Vec<&str> = file.entries.keys().map(String::as_str).collect();
        let name = match (&self.key, &names[..]) {
            (Some(key), _) if file.entries.contains_key(key) => key.clone(),
            (None, [one]) => (*one).to_owned(),
            (None, _) => {
                return Err(self
                    .error(format!("holds {}: {}", counted(names.len(), "tensor"), some(&names)))
                    .hint("write `FILE:TENSOR`"));
            }
            (Some(key), _) => return Err(self.missing("tensor", key, &names)),
        };
        let entry = file.entries[&name].clone();
        let Some(stored) = Stored::of_safetensors(&entry.dtype) else {
            return Err(self
                .error(format!("is {}, which is not read here", entry.dtype))
                .hint("save it as f32, f16, bf16, f64, a whole number or bool"));
        };
        let head = ArrayHead::new(stored, &entry.shape).map_err(|why| self.error(why).hint(FEWER))?;
        let mut reader = BufReader::with_capacity(1 << 20, file.reader(&name)?);
        then(head, &mut reader)
    }

    fn missing(&self, what: &str, key: &str, names: &[&str]) -> SuiteError {
        let near = did_you_mean(key, names.iter().copied());
        SuiteError::new(format!("has no {what} `{}`{near}", shown_name(key)))
            .in_file(&self.path)
            .hint(format!("there are {}", some(names)))
    }

    /// The chosen rows out of all, which come one after the other.
    fn chosen(
        &self,
        head: &ArrayHead,
        from: &mut dyn Read,
        chosen: &[usize],
        kind: Option<ElementKind>,
    ) -> Result<Vec<Array>, SuiteError> {
        let kind = kind.unwrap_or(head.stored.natural());
        let wide = head.row_bytes.max(head.row_bytes / head.stored.bytes() * kind.bytes());
        if chosen.len().saturating_mul(wide) > MAX_BYTES {
            let message = format!(
                "{} of {} are more than {} GiB, the most that is held",
                counted(chosen.len(), "row"),
                counted(wide, "byte"),
                MAX_BYTES >> 30
            );
            return Err(self.error(message).hint(FEWER));
        }
        let cut = |row: usize, e: io::Error| self.error(format!("row {row}: {e}")).hint(WHOLE);
        let mut arrays = Vec::with_capacity(chosen.len());
        let mut at = 0;
        for &row in chosen {
            if row >= head.rows {
                let message = format!("row {row} is due, and there are {}", head.rows);
                return Err(self.error(message).hint("all inputs, labels and columns have one row an example"));
            }
            let skip = (row - at) as u64 * head.row_bytes as u64;
            let skipped = io::copy(&mut (&mut *from).take(skip), &mut io::sink()).map_err(|e| cut(row, e))?;
            let mut bytes = Vec::new();
            (&mut *from).take(head.row_bytes as u64).read_to_end(&mut bytes).map_err(|e| cut(row, e))?;
            if skipped != skip || bytes.len() != head.row_bytes {
                return Err(cut(row, io::ErrorKind::UnexpectedEof.into()));
            }
            at = row + 1;
            let bytes = convert(head.stored, bytes, kind).map_err(|(element, why)| {
                let place = element_place(&head.row, element);
                self.error(format!("row {row}{place} {why}"))
                    .hint("a model can do nothing with it: mend or leave out the row")
            })?;
            arrays.push(Array { kind, shape: head.row.clone(), bytes: bytes.into() });
        }
        Ok(arrays)
    }
}

/// Names in backquotes, a dozen at most.
fn some(names: &[&str]) -> String {
    let mut shown: Vec<String> = names.iter().take(12).map(|n| format!("`{}`", shown_name(n))).collect();
    if names.len() > 12 {
        shown.push("...".into());
    }
    if shown.is_empty() { "none".into() } else { shown.join(", ") }
}

/// Where an element stands in a row of this shape: its column, or its place along each axis.
fn element_place(shape: &[usize], element: usize) -> String {
    match shape {
        [] => String::new(),
        [_] => format!(", column {element}"),
        _ => {
            let mut rest = element;
            let mut place: Vec<usize> = Vec::new();
            for axis in shape.iter().rev() {
                place.push(rest % (*axis).max(1));
                rest /= (*axis).max(1);
            }
            place.reverse();
            format!(", element {place:?}")
        }
    }
}

/// What a file says of the numbers that follow.
struct ArrayHead {
    stored: Stored,
    rows: usize,
    /// Shape of a row.
    row: Vec<usize>,
    row_bytes: usize,
}

impl ArrayHead {
    /// Errors: no first axis; more rows or larger ones than are read.
    fn new(stored: Stored, shape: &[usize]) -> Result<Self, String> {
        let Some((rows, row)) = shape.split_first() else {
            return Err("has no axis: the first axis of an array is its examples".into());
        };
        if *rows > MAX_ROWS {
            return Err(format!("claims {rows} rows, {MAX_ROWS} are the most"));
        }
        let bytes = row.iter().try_fold(stored.bytes(), |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_BYTES);
        match bytes {
            Some(row_bytes) if row_bytes > 0 => Ok(Self { stored, rows: *rows, row: row.to_vec(), row_bytes }),
            Some(_) => Err(format!("has rows of the shape {row:?}, which hold nothing")),
            None => Err(format!("claims rows of the shape {row:?}, more than {} GiB each", MAX_BYTES >> 30)),
        }
    }

    /// Bytes of all rows.
    fn bytes(&self) -> Option<u64> {
        (self.rows as u64).checked_mul(self.row_bytes as u64)
    }
}
