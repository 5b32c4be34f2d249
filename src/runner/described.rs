//! What a backend says of a case before it runs: its instruction set, its shapes, its options with defaults written out.
//!
//! In: a built-in backend, or the block of another program. Out: [`SaidOfCase`]. Must not: load anything.

use std::collections::BTreeMap;

use ergometer_suites::suite::BackendSpec;

use crate::backends::{Backend, BackendError, Options};

/// See the module.
pub(super) struct SaidOfCase {
    pub isa: String,
    pub shapes: String,
    pub options: BTreeMap<String, String>,
    /// Program and arguments of an external backend; empty for a built-in one.
    pub command: Vec<String>,
}

/// What is said of a case with these options.
///
/// # Errors
/// The backend refuses them.
pub(super) fn described(
    built_in: Option<&'static dyn Backend>,
    external: Option<&BackendSpec>,
    options: &Options,
) -> anyhow::Result<SaidOfCase> {
    let unknown = |command| {
        let unknown = || "unknown".to_string();
        SaidOfCase { isa: unknown(), shapes: unknown(), options: options.extra.clone(), command }
    };
    let Some(backend) = built_in else {
        return Ok(unknown(external.map(|b| b.command.clone()).unwrap_or_default()));
    };
    match backend.describe(options) {
        Ok(d) => Ok(SaidOfCase { isa: d.isa, shapes: d.shapes.to_string(), options: d.options, command: Vec::new() }),
        // its worker says so again, and that is then the case's end
        Err(BackendError::Unavailable(_)) => Ok(unknown(Vec::new())),
        Err(e) => anyhow::bail!("{e}"),
    }
}
