//! `prefill-bN`: N prompts read in one call, up to the first token of each.
//!
//! In: requests that are all there. Out: their first tokens. Must not: decode.

use super::language::{RequestSamples, of_requests};
use super::requests::LiveRequests;
use super::{Driver, Observation, TimedBlock};
use crate::backends::BackendError;

/// See the module.
pub struct Prefill;

impl Driver for Prefill {
    fn name(&self) -> &'static str {
        "prefill"
    }

    fn serve(&self, requests: &mut LiveRequests) -> Result<(), BackendError> {
        requests.begin(0..requests.all.len())
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        of_requests(block, RequestSamples { prefill: true, decode: false, gaps: false, first: true }, keep)
    }
}
