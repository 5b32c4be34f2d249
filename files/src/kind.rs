//! What a file is by its first bytes, whatever its name says.
//!
//! In: bytes. Out: words for people, and what to do. Must not: read a file, or guess at plain text.

/// What a file is by its first bytes, and what to do about it.
type Kind = (&'static str, &'static str);

const UNPACK: &str = "unpack it first";
const CONVERT: &str = "convert it: weights are read from safetensors files (`safetensors.torch.save_file` in Python)";
const EXPORT: &str = "open it in the program that made it and export it as text";
const LFS: Kind =
    ("a Git LFS pointer, not the file that it stands for", "run `git lfs pull` where the repository lies");
const ANNEX: Kind =
    ("a git-annex pointer, not the file that it stands for", "run `git annex get` where the repository lies");
/// What files of other formats begin with, what they are, and what to do about them.
const KNOWN: &[(&[u8], &str, &str)] = &[
    (b"version https://git-lfs.github.com/", LFS.0, LFS.1),
    // as Git LFS was called before its first version
    (b"version https://hawser.github.com/", LFS.0, LFS.1),
    (
        b"# xet version ",
        "a pointer of Hugging Face's Xet store, not the file that it stands for",
        "fetch the file itself (`hf download`, or `git xet` where the repository lies)",
    ),
    (b"/annex/objects/", ANNEX.0, ANNEX.1),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first (`gunzip`)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first (`unzstd`)"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it first (`unxz`)"),
    (b"BZh", "compressed with bzip2", "unpack it first (`bunzip2`)"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (
        b"PK\x03\x04",
        "a zip archive (a PyTorch checkpoint, an NPZ file and a spreadsheet are such archives)",
        "unpack it; weights of PyTorch are converted by `safetensors.torch.save_file` in Python",
    ),
    (b"\x80\x02", "a Python pickle (PyTorch)", CONVERT),
    (b"\x80\x03", "a Python pickle", CONVERT),
    (b"\x80\x04", "a Python pickle", CONVERT),
    (b"\x80\x05", "a Python pickle", CONVERT),
    (b"GGUF", "a GGUF file", CONVERT),
    (b"\x89HDF", "an HDF5 file (Keras, h5py)", CONVERT),
    (b"\x93NUMPY", "a NumPy array file", CONVERT),
    (b"PAR1", "a Parquet file", "save it as CSV or JSON first"),
    (b"ARROW1", "an Arrow file", "save it as CSV or JSON first"),
    (b"SQLite format 3", "a SQLite data base", "save it as CSV or JSON first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a file of Excel or Word from before 2007", EXPORT),
    (b"%PDF", "a PDF file", EXPORT),
    (b"\x89PNG", "a PNG image", EXPORT),
    (b"\x7fELF", "a program", "name the data file"),
    (b"\0\x05\x16\x07", "macOS's shadow of a file (AppleDouble)", "name the file without `._`"),
];
/// What a file is by its first bytes, and what to do about it; `None` for plain text and for what is not known.
pub fn sniff(head: &[u8]) -> Option<Kind> {
    // an editor may have put a mark before what is text
    let text = without_mark(head);
    let known = KNOWN.iter().find(|(magic, ..)| text.starts_with(magic)).map(|(_, what, hint)| (*what, *hint));
    known.or_else(|| by_shape(head)).or_else(|| markup(text))
}

/// Kinds without bytes of their own at the start: pointers of git-annex, text in other encodings, ONNX.
fn by_shape(head: &[u8]) -> Option<Kind> {
    const SAVE: &str = "save it as UTF-8";
    // where links are checked out as text
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    if line.starts_with(b"..") && line.windows(14).any(|w| w == b"/annex/objects") {
        return Some(ANNEX);
    }
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some(("text in UTF-32", SAVE)),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(("text in UTF-16", SAVE)),
        // ONNX: field 1 (the IR version, a small number), then a string or the next field
        [0x08, 1..=15, 0x12 | 0x1a | 0x22 | 0x2a | 0x32 | 0x3a | 0x42, ..] => {
            Some(("an ONNX file", "a model is a folder with config.json and model.safetensors"))
        }
        [a, 0, b, 0, c, 0, d, 0, ..] | [0, a, 0, b, 0, c, 0, d, ..]
            if [a, b, c, d].iter().all(|c| c.is_ascii_graphic() || c.is_ascii_whitespace()) && head.len() >= 8 =>
        {
            Some(("text in UTF-16 (without a byte order mark)", SAVE))
        }
        _ => None,
    }
}

/// Text of another format: web pages, XML, rich text.
fn markup(text: &[u8]) -> Option<Kind> {
    let text = text.trim_ascii_start();
    let begins = |word: &str| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word.as_bytes()));
    if ["<!doctype html", "<html", "<head", "<!--", "<body"].iter().any(|w| begins(w)) {
        return Some((
            "a web page (HTML), perhaps an error page saved in its place",
            "fetch the raw file, not the page about it",
        ));
    }
    if begins("<?xml") || begins("<Error>") {
        return Some(("XML, perhaps the error message of a server", "fetch the file itself again"));
    }
    if begins("{\\rtf") {
        return Some(("a rich-text document", "save it as plain text"));
    }
    None
}

/// The byte order mark of UTF-8, which some editors write.
pub const BOM: &[u8] = b"\xEF\xBB\xBF";

/// A file's bytes without the byte order mark of UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}
