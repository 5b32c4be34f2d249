//! Probing a backend without being taken down by it: one that loads a foreign library is probed in a process of its own.
//!
//! In: a backend and the options of a case. Out: its versions, or why it cannot run here; a crash, an early end or a silence of the library
//! is such a reason. Must not: load a foreign library in this process, or probe the same one twice in a run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{Backend, Options, Unavailable, backend};
use crate::foreign::{Channel, Foreign, SECONDS, limit};

type Facts = BTreeMap<String, String>;
/// Name of the backend and environment of the case's worker.
type Key = (&'static str, Vec<(&'static str, String)>);

/// What the child says: first what it is about to load, then what came of it.
#[derive(Serialize, Deserialize)]
enum Answer {
    Loading(String),
    Probed(Result<Facts, Unavailable>),
}

/// Versions and build features of a backend, or why it cannot run here. `options`: of the case, which may name a library of its own.
pub fn probed(backend: &'static dyn Backend, options: Option<&Options>) -> Result<Facts, Unavailable> {
    static KNOWN: Mutex<BTreeMap<Key, Result<Facts, Unavailable>>> = Mutex::new(BTreeMap::new());
    if backend.library().is_none() {
        return backend.probe();
    }
    let environment = options.map(|o| backend.environment(o)).unwrap_or_default();
    let key = (backend.name(), environment);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = known.get(&key) {
        return before.clone();
    }
    let found = apart(backend.name(), &key.1);
    crate::console::detail(|| match &found {
        Ok(facts) => format!("backend {}: ready, {facts:?}", backend.name()),
        Err(why) => format!("backend {}: unavailable, {}", backend.name(), why.reason),
    });
    known.insert(key, found.clone());
    found
}

/// Obtains what a case's backend lacks, then probes what is foreign in it: what every command does before it starts a worker.
pub fn ready(backend: &'static dyn Backend, options: &Options) -> Result<(), Unavailable> {
    backend.prepare(options)?;
    match backend.library() {
        Some(_) => probed(backend, Some(options)).map(drop),
        None => Ok(()),
    }
}

/// The probe in a child.
fn apart(name: &str, environment: &[(&'static str, String)]) -> Result<Facts, Unavailable> {
    let mut library = String::from("its library");
    let mut ask = || -> Result<Result<Facts, Unavailable>, String> {
        let mut child = Foreign::start(name, environment)?;
        loop {
            match child.receive(limit())? {
                Answer::Loading(words) => library = words,
                Answer::Probed(found) => return Ok(found),
            }
        }
    };
    ask().unwrap_or_else(|end| {
        let hint = match end.contains("did not answer") {
            true => format!("{SECONDS} gives a library that is only slow more time"),
            false => "the file may be cut off, damaged or made for another system".to_string(),
        };
        let whole = crate::fetch::item(name).map(|_| format!("; `ergometer fetch {name}` obtains a whole one"));
        let hint = hint + &whole.unwrap_or_default();
        Err(Unavailable { reason: format!("{library} cannot be used: {end}"), hint: Some(hint) })
    })
}

/// The child's side.
pub fn serve(name: &str, mut channel: Channel) -> anyhow::Result<()> {
    const SOON: Duration = Duration::from_secs(5);
    let backend = backend(name).with_context(|| format!("there is no backend `{name}` in this program"))?;
    let mut probe = || match backend.library().map(|find| find()) {
        Some(Err(nowhere)) => Err(nowhere),
        Some(Ok(words)) => {
            channel.send(&Answer::Loading(words), SOON).ok();
            backend.probe()
        }
        None => backend.probe(),
    };
    let found = probe();
    channel.send(&Answer::Probed(found), SOON)?;
    // the other side ends this process: what the library would do on leaving matters to nobody
    channel.receive(None);
    Ok(())
}
