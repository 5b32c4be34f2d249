//! What examples of tasks of language asked: `examples.jsonl` of a run folder, so that an answer can be read beside its question.
//!
//! In: lines of JSON, one an example of a task. Out: [`RecordedExample`]s. Must not: be needed for any number; a run of a program that did not write
//! the file has none.

use std::path::Path;

use ergometer_files::Links;
use serde::{Deserialize, Serialize};

use crate::error::ReportError;

/// Name of the file.
pub const EXAMPLES: &str = "examples.jsonl";

/// Largest such file.
const MAX_EXAMPLES_BYTES: u64 = 64 << 20;

/// What one example asked, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedExample {
    /// Name of its task.
    pub task: String,
    /// Index into the task's examples.
    pub example: u64,
    /// The prompt, before a chat template.
    pub prompt: String,
    /// What was to be chosen from; empty where the model was to write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The right answer; of choices the index of the right one.
    pub answer: String,
}

/// The lines of the file. Tasks whose examples would make it larger than can be read back are left out.
pub fn to_lines(examples: &[RecordedExample]) -> Vec<u8> {
    let mut all = Vec::new();
    for task in examples.chunk_by(|a, b| a.task == b.task) {
        let lines = task.iter().filter_map(|e| serde_json::to_string(e).ok()).map(|line| line + "\n");
        let lines: String = lines.collect();
        if (all.len() + lines.len()) as u64 <= MAX_EXAMPLES_BYTES {
            all.extend(lines.into_bytes());
        }
    }
    all
}

/// Reads the file of a run folder; one that is not there holds nothing.
///
/// # Errors
/// It cannot be read, is too large, or a line is not as this program writes it.
pub(super) fn load(dir: &Path) -> Result<Vec<RecordedExample>, ReportError> {
    let path = dir.join(EXAMPLES);
    if std::fs::symlink_metadata(&path).is_err() {
        return Ok(Vec::new());
    }
    let bytes =
        ergometer_files::read(&path, MAX_EXAMPLES_BYTES, Links::Refused).map_err(ReportError::io("read", &path))?;
    let line = |(line, number): (&[u8], u64)| {
        serde_json::from_slice(line).map_err(|e| {
            let hint = "the file is not as ergometer writes it; was it edited? Without it the run is read all the same";
            ReportError::bad(&path, Some(number), e.to_string(), hint)
        })
    };
    bytes.split(|b| *b == b'\n').zip(1..).filter(|(line, _)| !line.is_empty()).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), []);
        let one = |example, prompt: &str| RecordedExample {
            task: "ask".into(),
            example,
            prompt: prompt.into(),
            choices: vec!["a".into(), "b".into()],
            answer: "1".into(),
        };
        let all = [one(0, "two\nlines \u{0} \"quoted\""), one(1, "")];
        let mut bytes = to_lines(&all);
        std::fs::write(dir.path().join(EXAMPLES), &bytes).unwrap();
        assert_eq!(load(dir.path()).unwrap(), all);
        bytes.extend(b"{\"task\": 3}\n");
        std::fs::write(dir.path().join(EXAMPLES), &bytes).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("examples.jsonl") && error.contains('3'), "{error}");
    }
}
