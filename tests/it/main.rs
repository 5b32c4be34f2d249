//! End-to-end tests: everything here goes through the binary, with fake workers (`tests/fakes`) where a worker must misbehave.
//!
//! In: the built program, golden models, python3 for the fakes. Out: what a user would see: exit codes, messages, run folders, reports. Must
//! not: reach into the harness, or wait for a time to pass where something can be waited for.

mod arrays;
mod attempts;
mod bad_input;
mod busy;
mod ceilings;
mod check;
mod claims;
mod cli;
mod compress;
mod constraints;
mod curve;
mod data;
mod dataset;
mod depths;
mod documents;
mod errors;
mod examples;
mod external;
mod hostile_files;
mod house;
mod identity;
mod import;
mod interrupt;
mod isolation;
mod matrix;
mod mazes;
mod meter;
mod meters;
mod mutation;
mod onnx_files;
mod onnx_forms;
mod onnxruntime;
mod output;
mod parity;
mod planning;
// unit tests of the meter use the rest of it
#[allow(dead_code)]
#[path = "../fakes/powercap.rs"]
mod powercap;
mod random;
mod resume;
mod scenarios;
#[cfg(feature = "candle")]
mod smoke;
mod structure;
mod tidy;
mod turns;
mod waves;

#[path = "../fuzz/mutate.rs"]
mod mutate;
#[path = "../fuzz/parsers.rs"]
mod parsers;
