//! Parsers of what trainings leave: released checkpoints, the configs of their runs, and logs.
//!
//! In: bytes. Out: as [`super::PARSERS`] wants it. Must not: need a file that is not in the tree.

use std::path::Path;

use ergometer::import::checkpoint::Checkpoint;
use ergometer::import::{self, ImportRequest};
use ergometer::models::Model;

use super::{Outcome, read, root, said};

pub(super) fn checkpoints(_: &Path) -> Vec<Vec<u8>> {
    vec![read("tests/golden/released/step_7")]
}

pub(super) fn checkpoint_file(_: &[u8], path: &Path) -> Outcome {
    let mut checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return said(error),
    };
    for (name, tensor) in checkpoint.tensors.clone() {
        let mut bytes = 0;
        let took = checkpoint.bytes(&name, &mut |piece| {
            bytes += piece.len();
            Ok(())
        });
        match took {
            Ok(()) => assert_eq!(bytes as u64, tensor.elements().unwrap() * tensor.element.size as u64),
            Err(error) => return said(error),
        }
    }
    Outcome::Taken
}

/// The pickle alone, which in its archive is kept from change by a check sum.
pub(super) fn pickles(_: &Path) -> Vec<Vec<u8>> {
    let archive = read("tests/golden/released/step_7");
    let begin = archive.windows(4).position(|w| w == b"\x80\x02cc").unwrap();
    // what follows the end is another entry of the archive
    let end = archive.windows(4).position(|w| w == b"usb.").unwrap() + 4;
    vec![archive[begin..end].to_vec(), b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.".to_vec()]
}

pub(super) fn pickle(bytes: &[u8], _: &Path) -> Outcome {
    match import::pickle::read(bytes) {
        Ok(_) => Outcome::Taken,
        Err(refused) => {
            assert!(refused.message.len() < 4096 && !refused.hint.is_empty(), "{}", refused.message);
            // the seed that asks for a program of the system is refused by its name
            if refused.message.contains("`os.system`") { Outcome::Taken } else { Outcome::Nothing }
        }
    }
}

pub(super) fn run_configs(_: &Path) -> Vec<Vec<u8>> {
    vec![read("tests/golden/released/all_config.yaml")]
}

pub(super) fn run_config(_: &[u8], path: &Path) -> Outcome {
    let folder = path.parent().unwrap();
    let request = ImportRequest {
        checkpoint: root().join("tests/golden/released/step_7"),
        config: Some(path.to_owned()),
        dataset: None,
        seq_len: Some(4),
        weights: None,
        numbering: None,
        out: folder.join("imported"),
        force: true,
    };
    match import::import(&request) {
        Ok(_) => {
            Model::load(&request.out).unwrap();
            Outcome::Taken
        }
        // a config that does not fit the checkpoint is a fault of either
        Err(error) => match said(error) {
            Outcome::Refused(text) if text.contains("step_7") => Outcome::Refused(text + " (all_config.yaml)"),
            other => other,
        },
    }
}

pub(super) fn logs(_: &Path) -> Vec<Vec<u8>> {
    ["trm-att-9x9", "trm-4x4", "trm-arc"].map(|m| read(format!("suites/models/{m}/log.csv"))).into()
}

pub(super) fn log_file(_: &[u8], path: &Path) -> Outcome {
    use ergometer_reports::training::{EvaluatedDepth, records};
    match ergometer::curves::read(path.parent().unwrap(), "net", EvaluatedDepth::Full) {
        Ok(training) => {
            for record in records(&training, &[0.1, 0.5, 1.0]) {
                assert!(record.value.is_some() != record.missing.is_some(), "{record:?}");
                assert!(record.value.is_none_or(f64::is_finite) && record.lower <= record.value, "{record:?}");
            }
            ergometer_reports::plot::training::plots(&[&training], &[0.5]);
            Outcome::Taken
        }
        Err(error) => said(error),
    }
}
