//! `single-stream`: one example at a time, the next when the last is done.
//!
//! In: one row. Out: its answer; a latency and the steps for each. Must not: look at the row before it has stopped.

use std::time::Instant;

use super::{Driver, LiveRows, Observation, TimedBlock, steady, together};
use crate::backends::BackendError;

/// See the module.
pub struct SingleStream;

impl Driver for SingleStream {
    fn name(&self) -> &'static str {
        "single-stream"
    }

    fn iterate(&self, rows: &mut dyn LiveRows, first: usize, _: Instant, _: &mut [f64]) -> Result<(), BackendError> {
        together(rows, first)
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        steady(block, keep);
        Ok(())
    }
}
