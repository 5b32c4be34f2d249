//! What a suite demands beside the work itself: where an external program runs, and what a case is to keep to.
//!
//! In: the keys of a block. Out: [`Isolation`], [`CaseLimits`], or the error with its place. Must not: check what this machine offers.

use super::amount::{BYTES, JOULES, SECONDS, amount};
use super::{CaseLimits, Isolation, MAX_BACKGROUND, MAX_THREADS};
use crate::error::SuiteError;
use crate::toml_table::Keys;

/// Keys that say where an external program runs.
pub(super) fn isolation(keys: &Keys, external: bool) -> Result<Isolation, SuiteError> {
    const OWN: [&str; 4] = ["pass", "confined", "cpus", "most_memory"];
    if let Some(key) = OWN.into_iter().find(|key| !external && keys.has(key)) {
        return Err(SuiteError::new("belongs to backends of kind `external` only").at(keys.place(key)));
    }
    let pass = keys.strings("pass")?.unwrap_or_default();
    let odd = |name: &String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = pass.iter().find(|name| odd(name)) {
        return Err(SuiteError::new(format!("`{name}` is no name of a variable")).at(keys.place("pass")));
    }
    let cpus = keys.integers("cpus", 0..=u64::from(MAX_THREADS) - 1)?.unwrap_or_default();
    let most_memory = keys.get("most_memory", "a size such as \"2 GB\"", |v| amount(v.as_str()?, BYTES))?;
    Ok(Isolation {
        pass,
        confined: keys.boolean("confined")?.unwrap_or(false),
        cpus: cpus.into_iter().map(|n| n as u32).collect(),
        most_memory: most_memory.map(|bytes| bytes as u64),
    })
}

/// What the cases of a block are to keep to.
pub(super) fn limits(keys: &Keys) -> Result<CaseLimits, SuiteError> {
    let memory = keys.get("memory_limit", "a size such as \"256 MB\"", |v| amount(v.as_str()?, BYTES))?;
    let deadline = keys.get("deadline", "a time such as \"10 ms\"", |v| amount(v.as_str()?, SECONDS))?;
    let energy = keys.get("max_energy", "an energy such as \"0.5 J\"", |v| amount(v.as_str()?, JOULES))?;
    let background = keys.integer("background", 0..=u64::from(MAX_BACKGROUND))?.unwrap_or(0) as u32;
    if background > 0 && deadline.is_none() {
        return Err(SuiteError::new("is for cases with a `deadline`")
            .at(keys.place("background"))
            .hint("write `deadline = \"10 ms\"` beside it, or leave it out"));
    }
    let bound = |key| keys.get(key, "a time such as \"200 ms\"", |v| amount(v.as_str()?, SECONDS));
    let served = match (bound("ttft_bound")?, bound("tpot_bound")?) {
        (Some(first), Some(next)) => Some((first, next)),
        (None, None) => None,
        (first, _) => {
            let (there, lacks) =
                if first.is_some() { ("ttft_bound", "tpot_bound") } else { ("tpot_bound", "ttft_bound") };
            return Err(SuiteError::new("goes with the other bound: goodput is at a bound on both")
                .at(keys.place(there))
                .hint(format!("write `{lacks} = \"50 ms\"` beside it, or leave it out")));
        }
    };
    Ok(CaseLimits { memory, deadline, energy, background, served, lag: bound("lag_bound")? })
}
