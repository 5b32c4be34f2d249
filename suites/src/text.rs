//! Files that people hand in, read as text: opened with care, recognised by their first bytes, decoded.
//!
//! In: a path or bytes. Out: UTF-8 text without a byte order mark, or an error that says what the file really is. Must
//! not: read more than it is allowed to, wait for a pipe or a device, or know any format of ours.

use std::fs::File;
use std::io::BufRead;
use std::path::Path;

pub use ergometer_files::kind::{BOM, sniff, without_mark};
use ergometer_files::{Links, Refusal, remedy};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::SuiteError;

/// Opens a regular file of any size; folders, pipes and devices are errors and are not waited for.
pub fn open(path: &Path) -> Result<File, SuiteError> {
    ergometer_files::open(path, u64::MAX, Links::Followed).map_err(|e| refused(path, &e))
}

/// Bytes of a regular file of at most `cap` bytes.
pub fn read(path: &Path, cap: u64) -> Result<Vec<u8>, SuiteError> {
    ergometer_files::read(path, cap, Links::Followed).map_err(|e| refused(path, &e))
}

/// The error of a link that leads nowhere, such as a download leaves whose store was tidied; none for anything else.
pub fn dangling(path: &Path) -> Option<SuiteError> {
    let to = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
    let error = SuiteError::new(format!("is a link to {}, where nothing is", to.display())).in_file(path);
    Some(error.hint("fetch it again, or copy what its links stand for along with it (`cp -rL`)"))
}

fn refused(path: &Path, error: &std::io::Error) -> SuiteError {
    if let Some(dangling) = dangling(path) {
        return dangling;
    }
    let message = match Refusal::of(error) {
        Some(_) => error.to_string(),
        None => format!("cannot be read: {error}"),
    };
    let refused = SuiteError::new(message).in_file(path);
    // of a file that is not there the caller knows more: what is to be named instead
    match remedy(error).filter(|_| error.kind() != std::io::ErrorKind::NotFound) {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}

/// Appends the next line without its end (`\n`, `\r\n`, or a lone `\r` as old Macs write) to `line`; false at the end
/// of the file. A line of more than `most` bytes is an error, and is not held.
pub(crate) fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>, most: usize) -> Result<bool, SuiteError> {
    let mut any = false;
    loop {
        let buffer = from.fill_buf().map_err(|e| SuiteError::new(format!("cannot be read: {e}")))?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|b| matches!(b, b'\n' | b'\r'));
        let n = end.unwrap_or(buffer.len());
        line.extend_from_slice(&buffer[..n.min(most + 1)]);
        if line.len() > most {
            return Err(SuiteError::new(format!("longer than {most} bytes")).hint("is it a CSV file?"));
        }
        let Some(end) = end else {
            from.consume(n);
            continue;
        };
        let returned = buffer[end] == b'\r';
        from.consume(end + 1);
        if returned && from.fill_buf().is_ok_and(|b| b.first() == Some(&b'\n')) {
            from.consume(1);
        }
        return Ok(true);
    }
}

/// Fields of one record of a CSV file, as they are written.
pub(crate) fn fields(record: &[u8], delimiter: u8) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .buffer_capacity(record.len().max(1))
        .from_reader(record);
    let mut fields = csv::ByteRecord::new();
    // from memory, of any length and any bytes: nothing can fail
    let _ = reader.read_byte_record(&mut fields);
    fields.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect()
}

/// Whether a name in a folder is a leftover of a system or an editor and no data: hidden files (`.DS_Store`,
/// `._a.json`, `.a.json.swp`), `Thumbs.db`, `desktop.ini`, `__MACOSX`, `a.json~`, `#a.json#`, `~$a.json`.
pub fn is_leftover(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with('.')
        || name.starts_with("~$")
        || name.starts_with('#')
        || name.ends_with('~')
        || [".bak", ".orig", ".swp", ".tmp", ".part"].iter().any(|end| lower.ends_with(end))
        || ["thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"].contains(&lower.as_str())
}

/// The text of a file's bytes, without a byte order mark.
///
/// Errors: what is no text, by what it is; the place of what is not UTF-8, or of a NUL.
pub fn decode(bytes: &[u8]) -> Result<&str, SuiteError> {
    if let Some((what, hint)) = sniff(bytes) {
        return Err(SuiteError::new(format!("is {what}")).hint(hint));
    }
    let bytes = without_mark(bytes);
    let line = |at: usize| 1 + bytes[..at].iter().filter(|b| **b == b'\n').count();
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        SuiteError::new(format!("not UTF-8 text at byte {at}"))
            .at(format!("line {}", line(at)))
            .hint("save it as UTF-8")
    })?;
    match bytes.iter().position(|b| *b == 0) {
        None => Ok(text),
        Some(at) => Err(SuiteError::new(format!("a NUL byte at byte {at}, which no text has"))
            .at(format!("line {}", line(at)))
            .hint("the file is damaged, cut short by a full disk, or no text: copy it again")),
    }
}

/// [`read`] and [`decode`].
pub fn read_text(path: &Path, cap: u64) -> Result<String, SuiteError> {
    let bytes = read(path, cap)?;
    decode(&bytes).map(str::to_owned).map_err(|e| e.in_file(path))
}

/// How the message begins where an object names a key twice.
pub const REPEATED: &str = "repeated key";

/// JSON in which no object names a key twice: of two values for one name a reader would keep either.
///
/// Errors: what [`decode`] finds; what is no JSON, by line and column, with the usual reasons named (comments, trailing
/// commas, NaN).
pub fn json(bytes: &[u8]) -> Result<Value, SuiteError> {
    let text = decode(bytes)?;
    if text.trim().is_empty() {
        return Err(SuiteError::new("is empty").hint("it must hold JSON: was the file written to its end?"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    found.map_err(|e| {
        let message = e.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(m, _)| m);
        // what names a key twice is JSON, but not of one meaning
        let no = if message.starts_with(REPEATED) { "" } else { "no JSON: " };
        let error = SuiteError::new(format!("{no}{message}")).at(format!("line {}, column {}", e.line(), e.column()));
        error.hint(reason(text, &e))
    })
}

/// Why a text is no JSON, from what stands at the place of the error.
fn reason(text: &str, e: &serde_json::Error) -> &'static str {
    let line = text.split('\n').nth(e.line().saturating_sub(1)).unwrap_or("");
    let at = e.column().saturating_sub(1).min(line.len());
    let from = (0..=at).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
    let rest = &line[from..];
    let back = line[..from].trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '-' || c == '+');
    let word = line[back.len()..].trim_start_matches(['-', '+']);
    if e.to_string().starts_with(REPEATED) {
        "keep one of them: a reader would silently lose the other"
    } else if rest.starts_with('/') || rest.starts_with('#') {
        "JSON has no comments: take them out"
    } else if e.to_string().starts_with("trailing comma") {
        "take out the comma before the closing bracket"
    } else if ["NaN", "nan", "Inf", "inf"].iter().any(|w| word.starts_with(w)) {
        "JSON has no NaN and no Infinity: write a number"
    } else if rest.starts_with('\'') {
        "JSON has double quotes only"
    } else if e.is_eof() {
        "the file ends too early: was it copied to its end?"
    } else if e.to_string().starts_with("trailing characters") {
        "one JSON value a file; lines of JSON (JSONL) are not read"
    } else if e.to_string().starts_with("number out of range") {
        "no number is so large: correct it"
    } else {
        "is it the whole file, and JSON?"
    }
}

/// A value in which every key of an object is there once.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E: Error>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(64).flat_map(char::escape_debug).collect();
                return Err(A::Error::custom(format!("{REPEATED} `{shown}`")));
            }
            let value = entries.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_really_is_is_said() {
        for (bytes, word) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"[..], "Git LFS pointer"),
            (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\r\noid", "Git LFS pointer"),
            (b"version https://hawser.github.com/spec/v1\n", "Git LFS pointer"),
            (b"# xet version 0\nfilesize = 1\n", "Xet"),
            (b"/annex/objects/SHA256E-s1--0", "git-annex"),
            (b"../../.git/annex/objects/0/1/SHA256E-s1--0", "git-annex"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "Excel"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x28\xb5\x2f\xfd\0", "zstd"),
            (b"PK\x03\x04\x14\0", "zip archive"),
            (b"\x80\x04\x95", "pickle"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x08\x08\x12\x07pytorch", "ONNX"),
            (b"\xff\xfe{\0\"\0", "UTF-16"),
            (b"\xfe\xff\0{\0\"", "UTF-16"),
            (b"{\0\"\0a\0\"\0:\x001\0}\0", "UTF-16"),
            (b"  <!DOCTYPE html><html>404</html>", "web page"),
            (b"\xEF\xBB\xBF<html>", "web page"),
            (b"\0\x05\x16\x07\0\x02", "AppleDouble"),
            (b"a\0b", "NUL byte at byte 1"),
            (b"a\n\xe9", "line 2"),
        ] {
            let message = decode(bytes).expect_err(word).to_string();
            assert!(message.contains(word) && message.contains("hint: "), "{word}: {message}");
            assert!(json(bytes).is_err());
        }
        assert_eq!(decode(b"\xEF\xBB\xBFx").unwrap(), "x");
        for name in
            [".DS_Store", "._a.json", "Thumbs.db", "desktop.ini", "a.json~", "#a.json#", "__MACOSX", ".a.json.swp"]
        {
            assert!(is_leftover(name), "{name}");
        }
        assert!(!is_leftover("00d62c1b.json"));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named_and_one_that_leads_somewhere_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (folder.path().join("a.json"), folder.path().join("blob"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let said = read_text(&link, 9).unwrap_err().to_string();
        assert!(said.contains("a.json: is a link to") && said.contains("blob, where nothing is"), "{said}");
        assert!(said.contains("hint: "), "{said}");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(read_text(&link, 9).unwrap(), "x");
        assert_eq!((dangling(&link), dangling(&file), dangling(&folder.path().join("absent"))), (None, None, None));
    }

    #[test]
    fn json_says_where_and_why_it_is_none() {
        let value = json(b"\xEF\xBB\xBF{\"a\": [1, -2, 0.5, \"x\", null, true], \"b\": {}}\r\n").unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, -2, 0.5, "x", null, true], "b": {}}));
        for (text, words) in [
            ("{\"a\": 1,\n \"a\": 2}", &["line 2", "repeated key `a`", "keep one"][..]),
            ("[{\"x\": {\"k\": 1, \"k\": 1}}]", &["repeated key `k`"]),
            ("{\"a\": 1,}", &["line 1, column 9", "trailing comma"]),
            ("{\"a\": 1 // one\n}", &["line 1", "comments"]),
            ("{\n# one\n\"a\": 1}", &["line 2", "comments"]),
            ("{\"a\": NaN}", &["line 1", "no NaN"]),
            ("{\"a\": -Infinity}", &["line 1", "no Infinity"]),
            ("{\"a\": 1e999}", &["line 1", "out of range"]),
            ("{'a': 1}", &["line 1", "double quotes"]),
            ("{\"a\": 1}\n{\"a\": 2}", &["line 2", "JSONL"]),
            ("{\"a\": [1,", &["line 1", "ends too early"]),
            ("  \n", &["is empty"]),
        ] {
            let message = json(text.as_bytes()).expect_err(text).to_string();
            assert!(words.iter().all(|w| message.contains(w)) && message.contains("hint: "), "{text}: {message}");
        }
        // nested beyond any use: an error, not an overflow of the stack
        assert!(json("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
            let _ = json(&bytes);
            let _ = sniff(&bytes);
        }

        #[test]
        fn strict_json_is_what_serde_json_reads(text in "(\\{|\\}|\\[|\\]|,|:|\"a\"|\"b\"|[0-9]|\\.|-| |null|true){0,24}") {
            if let Ok(value) = json(text.as_bytes()) {
                proptest::prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            } else if let Ok(lax) = serde_json::from_str::<Value>(&text) {
                // only a repeated key is refused beyond what serde_json refuses
                let keys = text.matches(':').count();
                proptest::prop_assert!(keys > lax.to_string().matches(':').count());
            }
        }
    }
}
