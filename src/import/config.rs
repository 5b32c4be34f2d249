//! What a released run says of its net: `all_config.yaml`, or the same as JSON, and the `dataset.json` of its data.
//!
//! In: a file. Out: nested values as [`serde_json::Value`]. Must not: read more of YAML than its trainers write (blocks
//! of keys, lists, scalars in one line or folded over several), or guess at what it does not read.

use std::path::Path;

use ergometer_suites::text;
use serde_json::{Map, Value};

use crate::models::ModelError;
use crate::models::tensors::shown_name;

/// Largest config, bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Most levels of it.
const MAX_DEPTH: usize = 16;

/// Reads a config: JSON where it begins with a brace, else YAML.
///
/// # Errors
/// No such file, no text, or a line that is not understood, by its number.
pub fn read(path: &Path) -> Result<Value, ModelError> {
    let bytes = text::read(path, MAX_BYTES).map_err(|e| match e.hint {
        None => e.hint("name the file of the run that wrote the checkpoint: all_config.yaml, or dataset.json"),
        Some(_) => e,
    })?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Ok(text::json(&bytes).map_err(|e| e.in_file(path))?);
    }
    let text = text::decode(&bytes).map_err(|e| e.in_file(path))?;
    yaml(text).map_err(|(line, message)| {
        ModelError::new(path, format!("line {line}: {message}"))
            .hint("it is read as `yaml.dump` writes it: `key: value`, blocks by indentation, lists of `- value`")
    })
}

/// A line that is not blank: its number, its indentation, what it says.
type Line<'a> = (usize, usize, &'a str);

fn yaml(text: &str) -> Result<Value, (usize, String)> {
    let mut lines: Vec<Line> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let said = line.trim_start_matches(' ');
        if said.starts_with('\t') {
            return Err((i + 1, "a tab before a key".into()));
        }
        let said = said.trim_end();
        if !said.is_empty() && !said.starts_with('#') && said != "---" {
            lines.push((i + 1, line.len() - line.trim_start_matches(' ').len(), said));
        }
    }
    let mut at = 0;
    let value = block(&lines, &mut at, 0, 0)?;
    match lines.get(at) {
        None => Ok(value),
        Some((number, ..)) => Err((*number, "indented otherwise than the lines above".into())),
    }
}

/// The block of lines at this indentation.
fn block(lines: &[Line], at: &mut usize, indent: usize, depth: usize) -> Result<Value, (usize, String)> {
    let mut found = Map::new();
    while let Some(&(number, i, said)) = lines.get(*at) {
        if i != indent || depth > MAX_DEPTH {
            break;
        }
        if said.starts_with("- ") || said == "-" {
            // what lists hold is not asked for: which data, which evaluators
            *at += 1;
            while lines.get(*at).is_some_and(|l| l.1 > indent) {
                *at += 1;
            }
            continue;
        }
        let split = said.split_once(": ").or_else(|| said.strip_suffix(':').map(|key| (key, "")));
        let Some((key, value)) = split.filter(|(key, _)| !key.is_empty() && !key.contains(['{', '[', '&', '*', '!']))
        else {
            return Err((number, format!("`{}` is no `key: value`", shown_name(said))));
        };
        *at += 1;
        let value = match (value.trim(), lines.get(*at)) {
            ("", Some(&(_, deeper, _))) if deeper > indent => block(lines, at, deeper, depth + 1)?,
            (value, _) => {
                // a long scalar is folded over lines that are indented further
                while lines.get(*at).is_some_and(|l| l.1 > indent) {
                    *at += 1;
                }
                scalar(value).ok_or_else(|| (number, format!("`{}` is a value that is not read", shown_name(value))))?
            }
        };
        if found.insert(key.trim_matches(['"', '\'']).to_owned(), value).is_some() {
            return Err((number, format!("`{}` is there twice", shown_name(key))));
        }
    }
    Ok(Value::Object(found))
}

/// A scalar in one line; empty collections count as none.
fn scalar(text: &str) -> Option<Value> {
    if text.starts_with(['&', '*', '!', '|', '>', '%', '@', '`']) {
        return None;
    }
    if let Some(inner) = ['"', '\''].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q)) {
        return Some(inner.into());
    }
    let text = text.split(" #").next().unwrap_or(text).trim_end();
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" | "[]" | "{}" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(n), _) => n.into(),
            (_, Ok(x)) if x.is_finite() => x.into(),
            _ => text.into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_trainers_write_is_read() {
        let text = "arch:\n  H_cycles: 3\n  expansion: 4\n  loss:\n    loss_type: stablemax_cross_entropy\n    name: losses@ACTLossHead\n  mlp_t: false\n\
                    \x20 name: recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1\n  rms_norm_eps: 1.0e-05\nbeta1: 0.9\n\
                    checkpoint_path: checkpoints/Arc/TinyRecursiveReasoningModel_ACTV1\n  speedy-kagu\ndata_paths:\n- data/arc\ndata_paths_test: []\n\
                    ema: true\nevaluators:\n- name: arc@ARC\n  k: 2\nload_checkpoint: null\nlr: 0.0001\nrun_name: 'a: b'\n";
        let found = yaml(text).unwrap();
        assert_eq!(
            found["arch"],
            json!({"H_cycles": 3, "expansion": 4, "loss": {"loss_type": "stablemax_cross_entropy", "name": "losses@ACTLossHead"}, "mlp_t": false,
                "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", "rms_norm_eps": 1e-5})
        );
        assert_eq!((&found["ema"], &found["lr"], &found["run_name"]), (&json!(true), &json!(1e-4), &json!("a: b")));
        assert_eq!((&found["load_checkpoint"], &found["data_paths_test"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn what_is_not_read_is_refused_by_its_line() {
        for (text, line, said) in [
            ("a: 1\n\tb: 2\n", 2, "a tab"),
            ("a: 1\nb\n", 2, "no `key: value`"),
            ("a: !!python/object:os.system x\n", 1, "a value that is not read"),
            ("a: &x 1\nb: *x\n", 1, "a value that is not read"),
            ("a: |\n  text\n", 1, "a value that is not read"),
            ("a: 1\na: 2\n", 2, "twice"),
            ("a:\n    b: 1\n  c: 2\n", 3, "indented otherwise"),
        ] {
            let (found, message) = yaml(text).unwrap_err();
            assert!(found == line && message.contains(said), "{text:?}: line {found}: {message}");
        }
        // as deep as can be written
        let deep: String = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(yaml(&deep).is_err());
    }
}
