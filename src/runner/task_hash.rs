//! What identifies the examples of a task: sha256 over inputs and answers, and over how they are asked and scored.
//!
//! In: a task and its examples. Out: hex. Must not: leave out what changes a score: two hashes that are equal stand for
//! numbers that are comparable.

use ergometer_suites::AnswerKind;
use ergometer_suites::task::{ExampleSet, StartNoise, Task};
use sha2::{Digest, Sha256};

use crate::files::hex;

/// The hash of these examples.
pub(super) fn of(task: &Task, set: &ExampleSet) -> String {
    let mut hash = Sha256::new();
    for example in &set.examples {
        for v in example.tokens.iter().chain([&example.puzzle_id]).chain(example.answer.tokens()) {
            hash.update(v.to_le_bytes());
        }
        if task.answers != AnswerKind::Tokens {
            hash.update(format!("{} {}", example.answer.kind().name(), example.answer));
        }
        hash.update([0xff]);
        if task.decides(set).is_some() {
            // what an example is to its question decides as much as its cells
            hash.update(example.question.to_le_bytes());
            hash.update(example.part.to_le_bytes());
            hash.update(example.variant.to_le_bytes());
        }
        if let Some(StartNoise { scale, seed }) = example.start {
            hash.update(scale.to_le_bytes());
            hash.update(seed.to_le_bytes());
        }
    }
    if task.decides(set).is_some() {
        set.questions.iter().for_each(|name| hash.update(format!("{name}\0")));
    }
    arrays(set, &mut hash);
    if let Some(language) = &set.language {
        hash.update(format!("{language:?}"));
        set.examples.iter().for_each(|e| hash.update(format!("{:?} {}\0", e.text, e.difficulty)));
    }
    hex(&hash.finalize())
}

/// What a set of arrays is beside its answers: inputs, how outputs are read, and how answers are scored.
fn arrays(set: &ExampleSet, hash: &mut Sha256) {
    for array in set.examples.iter().flat_map(|e| &e.arrays) {
        hash.update(format!("{} {:?}", array.kind, array.shape));
        hash.update(&array.bytes);
    }
    if let Some(scorer) = &set.scorer {
        hash.update(format!("{:?} {:?} {}", set.inputs, set.reads, scorer.fingerprint()));
        set.examples.iter().for_each(|e| hash.update(e.cluster.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn whatever_changes_a_score_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("d.csv"), "a,b,c\n1,0,3\n2,1,3\n").unwrap();
        let of = |text: &str| {
            let task = ergometer_suites::task("arrays").unwrap();
            of(task, &(task.examples)(&text.parse().unwrap(), Path::new(folder.path())).unwrap())
        };
        let base = "inputs = { x = \"d.csv:a\" }\nlabels = \"d.csv:b\"\nscorer = \"binary\"\n";
        let mut all: Vec<String> = [
            base.to_owned(),
            base.replace("d.csv:a", "d.csv:c"),
            base.replace("{ x", "{ y"),
            base.replace("\"d.csv:a\"", "{ from = \"d.csv:a\", kind = \"i64\" }"),
            base.replace("binary", "top-1"),
            format!("{base}threshold = 0.25"),
            format!("{base}output = \"o\""),
            format!("{base}cluster = \"d.csv:c\""),
            base.replace("\"binary\"", "[\"s\"]"),
            base.replace("\"binary\"", "[\"t\"]"),
        ]
        .iter()
        .map(|text| of(text))
        .collect();
        assert_eq!(all[0], of(base));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 10);
    }
}
