//! What tells one case from another: the identities that follow from its key.
//!
//! In: the [`CaseKey`] of a planned case. Out: the keys of what it shares with others (answers, work), of what was asked for, and hashes
//! of them. Must not: look at a model or a task.

use std::collections::BTreeMap;

use ergometer_reports::case::{CaseKey, Original};
use ergometer_suites::suite::{BackendSpec, Isolation};
use sha2::{Digest, Sha256};

use crate::files::hex;

/// Cases with this key in common give the same answers, so that one of them is scored for all. Each size of batch is scored by itself:
/// whether it changes answers is something to know. With random weights some logits are nearly equal, so that another number of threads may
/// turn an answer too: each case is then scored by itself.
pub(super) fn same_answers(key: &CaseKey, random: bool) -> CaseKey {
    match random {
        true => key.clone(),
        false => CaseKey { threads: 0, scenario: String::new(), ..key.clone() },
    }
}

/// What identifies a command: its words, where it runs if that is unusual, and how many threads work beside it. A program that is given
/// less is another one.
pub(super) fn started(command: &[String], external: Option<&BackendSpec>, background: u32) -> Vec<String> {
    let mut words = command.to_vec();
    let unusual = external.map(|b| &b.isolation).filter(|i| **i != Isolation::default());
    words.extend(unusual.map(|isolation| format!("{isolation:?}")));
    words.extend((background > 0).then(|| format!("background {background}")));
    words
}

/// Cases with this key in common do the same work and may take turns; with `any_depth` those too that differ in when they stop.
/// A reduced form does the work of its original.
pub(super) fn same_work(key: &CaseKey, any_depth: bool, original: Option<&Original>) -> CaseKey {
    let of = original.map_or((&key.model, &key.model_hash), |original| (&original.model, &original.model_hash));
    CaseKey {
        model: of.0.clone(),
        model_hash: of.1.clone(),
        depth: if any_depth { "any".into() } else { key.depth.clone() },
        backend: String::new(),
        backend_options: BTreeMap::new(),
        precision: String::new(),
        isa: String::new(),
        shapes: String::new(),
        ..key.clone()
    }
}

/// What was asked for: what a search of settings finds is no part of it.
pub(super) fn asked(key: &CaseKey, searched: bool) -> CaseKey {
    match searched {
        true => CaseKey {
            backend_options: BTreeMap::from([("settings".into(), "searched".into())]),
            shapes: "searched".into(),
            ..key.clone()
        },
        false => key.clone(),
    }
}

/// The hash of a key; that of an outside program depends on its command too.
pub(super) fn id(key: &CaseKey, command: &[String]) -> String {
    hex(&Sha256::digest(format!("{}{}", key.canonical(), command.join("\0")).as_bytes()))
}
