//! The harness: graphs, models, backends, meters, worker, runner and commands.
//!
//! In: suites, models, flags. Out: run folders and reports. Must not: hold unsafe code (that is crate `kernels`), score (crate `suites`)
//! or summarise (crate `reports`).

pub mod backends;
pub mod ceilings;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod compatibility;
pub mod compress;
pub mod console;
pub mod curves;
pub mod dataset;
pub mod environment;
pub mod external;
pub mod fetch;
pub mod files;
pub mod foreign;
pub mod generation;
pub mod graph;
pub mod group;
pub mod import;
pub mod interrupt;
pub mod meters;
pub mod models;
pub mod onnx;
pub mod orphans;
pub mod parity;
mod pipe;
pub mod processes;
pub mod program;
pub mod protocol;
pub mod runner;
pub mod scenarios;
pub mod text_table;
#[cfg(feature = "candle")]
pub mod train;
pub mod worker;
