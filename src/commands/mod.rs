//! The commands, one file each: its flags, its help with an example, and `run`.
//!
//! In: parsed flags. Out: data on stdout, progress and logs on stderr, an exit code (0 ok, 1 a case or gate failed, 2 bad input or
//! harness fault, 3 inconclusive). Must not: hold logic that another part of the program might want.

pub mod completions;
pub mod compress;
pub mod curve;
pub mod dataset;
pub mod doctor;
pub mod export;
pub mod external;
pub mod fetch;
mod file_case;
mod flags;
pub mod import;
pub mod init;
pub mod list;
pub mod meter;
mod one_case;
pub mod parity;
pub mod report;
pub mod run;
pub mod splice;
pub mod time;
#[cfg(feature = "candle")]
pub mod train;
pub mod tune;
pub mod worker;
