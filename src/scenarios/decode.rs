//! `decode-bN`: the tokens after the first of N requests whose prompts were read before anything was timed or metered.
//!
//! In: requests with their first tokens. Out: the others. Must not: read a prompt.
//!
//! Prompts are read once, after the block before has been metered, and their caches kept; each iteration begins from a copy of them, so that neither
//! its time nor the energy of its block has a prompt in it. All iterations of a block are of the same requests.

use super::language::{RequestSamples, of_requests};
use super::requests::LiveRequests;
use super::{Driver, Observation, TimedBlock};
use crate::backends::BackendError;

/// See the module.
pub struct Decode;

impl Driver for Decode {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn keeps_prompts(&self) -> bool {
        true
    }

    fn serve(&self, requests: &mut LiveRequests) -> Result<(), BackendError> {
        let all = 0..requests.all.len();
        while requests.advance(all.clone())? > 0 {}
        Ok(())
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        of_requests(block, RequestSamples { prefill: false, decode: true, gaps: true, first: false }, keep)
    }
}
