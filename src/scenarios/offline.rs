//! `offline-bN`: all examples at hand, in batches of N rows; a batch lasts as long as its slowest row.
//!
//! In: N rows. Out: their answers; for each batch a latency and the steps of all its rows. Must not: look at a row before all have stopped.

use super::Driver;

/// See the module.
pub struct Offline;

impl Driver for Offline {
    fn name(&self) -> &'static str {
        "offline"
    }
}
