//! A dense language model split into eight experts: with all of them active, and with two of them.
//!
//! In: the folder of SmolLM2. Out: two GGUF files, as `ergometer convert moefy` writes them: the first computes what the dense net does, the second
//! has random routers, so that its speed means something and its text does not.

use std::path::Path;

use ergometer_language::Gguf;
use ergometer_language::convert::{Moefication, Router, moefy};

/// Experts of a layer.
const EXPERTS: usize = 8;

/// The files and how many experts are active in each.
pub const FILES: [&str; 2] = ["mixture-8-of-8.gguf", "mixture-2-of-8.gguf"];
const ACTIVE: [usize; 2] = [EXPERTS, 2];

/// Makes both.
///
/// # Errors
/// The model cannot be read, or what is made of it not be written.
pub fn make(folder: &Path) -> anyhow::Result<()> {
    let dense = Gguf::open(&folder.join("SmolLM2-135M-Instruct.Q4_1.gguf"))?;
    for (file, active) in FILES.iter().zip(ACTIVE) {
        let router = if active == EXPERTS { Router::Zero } else { Router::Random(0) };
        let wanted = Moefication { experts: EXPERTS, active, router };
        moefy(&dense, &wanted, &folder.join(file), &mut |_, _| {})?;
    }
    Ok(())
}
