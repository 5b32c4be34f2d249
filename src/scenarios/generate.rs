//! `generate-bN`: N requests together, their prompts read in one call, then a token of each until all have their answers.
//!
//! In: requests that are all there. Out: their tokens. Must not: begin another request while one is left.

use super::language::{RequestSamples, of_requests};
use super::requests::LiveRequests;
use super::{Driver, Observation, TimedBlock};
use crate::backends::BackendError;

/// See the module.
pub struct Generate;

impl Driver for Generate {
    fn name(&self) -> &'static str {
        "generate"
    }

    fn serve(&self, requests: &mut LiveRequests) -> Result<(), BackendError> {
        let all = 0..requests.all.len();
        requests.begin(all.clone())?;
        while requests.advance(all.clone())? > 0 {}
        Ok(())
    }

    fn samples(&self, block: &TimedBlock, keep: &mut dyn FnMut(Observation)) -> Result<(), String> {
        of_requests(block, RequestSamples { prefill: true, decode: true, gaps: true, first: true }, keep)
    }
}
