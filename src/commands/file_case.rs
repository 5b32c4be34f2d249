//! The suite of one case over an ONNX file, with random inputs: what `time` runs of such a model, and what `init` begins from.
//!
//! In: a model that is a file. Out: a suite as JSON, and what is random in words. Must not: run anything, or call random numbers data.
//!
//! Floating point is drawn from -1 to 1, bytes from 0 to 255, other whole numbers are 0 or 1, which every table of embeddings holds. The time is
//! cut to what was asked for: of the whole two fifths are for measuring, two fifths are the most that another engine may take for outputs to
//! compare with, and blocks are left out where iterations are long. With a large file, or one of many operations, there is one example. A first
//! iteration, one comparison, one answer and two timed iterations are done however long they take.

use ergometer_suites::{ElementKind, FileForm};
use serde_json::{Value, json};

use crate::models::file::OnnxFile;
use crate::models::interface::Interface;

/// Seconds of the whole, once the model is loaded.
pub const WHOLE: f64 = 8.0;

/// Bytes of constants from which on a file is large.
const LARGE: u64 = 256 << 20;

/// Operations a second that an engine does on any machine.
const SLOW: f64 = 5e9;

/// Most examples that are made.
const MOST: u32 = 4096;

/// The random inputs of a task of arrays.
pub fn random(interface: &Interface) -> Value {
    let inputs = interface.inputs.iter().filter_map(|port| {
        let kind = port.kind?;
        let range = match kind {
            ElementKind::F32 | ElementKind::F16 | ElementKind::F64 => [-1, 1],
            ElementKind::U8 => [0, 255],
            ElementKind::I64 | ElementKind::I32 | ElementKind::Bool => [0, 1],
        };
        Some((port.name.clone(), json!({"kind": kind.name(), "shape": port.shape, "range": range})))
    });
    Value::Object(inputs.collect())
}

/// The same in words.
pub fn words(interface: &Interface) -> String {
    let all = random(interface);
    let word = |port: &crate::models::interface::Port| {
        let range = &all[&port.name]["range"];
        let kind = port.kind.map_or("", ElementKind::name);
        format!("`{}` {kind} {:?} from {} to {}", port.name, port.shape, range[0], range[1])
    };
    interface.inputs.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// What the flags of `time` ask for.
pub struct FileCase<'a> {
    /// Name in the suite.
    pub name: &'a str,
    /// Its file.
    pub path: &'a str,
    /// What is bound.
    pub form: &'a FileForm,
    /// Backend.
    pub backend: &'a str,
    /// Rows of an iteration.
    pub batch: u32,
    /// Compute threads.
    pub threads: u32,
    /// Seconds of the whole.
    pub seconds: f64,
    /// Search the backend's settings first.
    pub tune: bool,
}

impl FileCase<'_> {
    /// The suite.
    pub fn suite(&self, file: &OnnxFile, interface: &Interface, precision: &str) -> Value {
        // every example is answered once before any is timed: of a long iteration one is enough
        let operations = file.flops.as_ref().map_or(0.0, |flops| 4.0 * flops);
        let long = file.header.constant_bytes() > LARGE || operations / SLOW > 0.05 * self.seconds;
        let examples = if long { self.batch } else { 4.max(self.batch) };
        // a larger batch has some of them twice
        let examples = examples.min(MOST);
        let mut model =
            json!({"name": self.name, "path": self.path, "shape": self.form.shape, "state": self.form.state});
        if let Some(batch) = &self.form.batch {
            model["batch"] = json!(batch);
        }
        let scenario = if self.batch == 1 { "single-stream".to_string() } else { format!("offline-b{}", self.batch) };
        let whole = self.seconds;
        json!({
            "about": "one case",
            "model": [model],
            "task": [{"name": "random", "kind": ergometer_suites::arrays::TASK.name, "examples": examples, "random": random(interface)}],
            "cases": [{
                "models": [self.name], "backends": [self.backend], "precisions": [precision], "tasks": ["random"],
                "scenarios": [scenario], "threads": [self.threads], "depth": ["once"], "tune": self.tune,
                "seconds": 0.4 * whole, "warmup_seconds": 0.05 * whole, "compare_seconds": 0.4 * whole,
                "within_seconds": 0.5 * whole, "iterations": 1, "timeout_seconds": 300.0,
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;
    use crate::onnx::small;

    #[test]
    fn inputs_are_random_by_type_and_the_time_is_shared_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut written = small::product();
        written.graph.as_mut().unwrap().input.push(small::value("ids", 7, &["N", "5"]));
        written.graph.as_mut().unwrap().input.push(small::value("pixel", 2, &["N"]));
        let model = Model::load(&small::write(folder.path(), "net.onnx", &written)).unwrap();
        let said = words(&model.interface);
        assert_eq!(said, "`x` f32 [4] from -1 to 1, `ids` i64 [5] from 0 to 1, `pixel` u8 [] from 0 to 255");
        let form = FileForm::default();
        let case = FileCase {
            name: "net",
            path: "net.onnx",
            form: &form,
            backend: "tract",
            batch: 2,
            threads: 1,
            seconds: 8.0,
            tune: false,
        };
        let suite = case.suite(model.file.as_ref().unwrap(), &model.interface, "f32");
        let cases = &suite["cases"][0];
        let of = |key: &str| cases[key].as_f64().unwrap();
        assert!(of("seconds") + of("warmup_seconds") + of("compare_seconds") < 8.0 && of("within_seconds") <= 4.0);
        assert_eq!(suite["task"][0]["random"]["ids"]["shape"][0], 5);
        assert_eq!(cases["scenarios"][0], "offline-b2");
    }
}
