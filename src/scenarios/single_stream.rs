//! `single-stream`: one example at a time, the next when the last is done.
//!
//! In: one row. Out: its answer; a latency and the steps for each. Must not: look at the row before it has stopped.

use super::Driver;

/// See the module.
pub struct SingleStream;

impl Driver for SingleStream {
    fn name(&self) -> &'static str {
        "single-stream"
    }
}
