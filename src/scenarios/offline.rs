//! `offline-bN`: all examples at hand, in batches of N rows; a batch lasts as long as its slowest row.
//!
//! In: N rows. Out: their answers; for each batch a latency and the steps of all its rows. Must not: look at a row before all have stopped.

use std::time::Instant;

use super::{Driver, LiveRows, Observation, TimedBlock, steady, together};
use crate::backends::BackendError;

/// See the module.
pub struct Offline;

impl Driver for Offline {
    fn name(&self) -> &'static str {
        "offline"
    }

    fn iterate(&self, rows: &mut dyn LiveRows, first: usize, _: Instant, _: &mut [f64]) -> Result<(), BackendError> {
        together(rows, first)
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        steady(block, keep);
        Ok(())
    }
}
