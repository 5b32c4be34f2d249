//! The libFuzzer target: the parser that `ERGOMETER_FUZZ` names, of the table in `parsers.rs`.
//!
//! In: bytes of libFuzzer; `ERGOMETER_FUZZ_RUN`, a recorded run, for the files of runs; `ERGOMETER_FUZZ_SCRATCH`, a folder. Out: a crash
//! where an invariant broke. Must not: hold a parser of its own. One program for all parsers, so that it is built once.

#![no_main]

mod parsers;

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<(&'static parsers::Parser, PathBuf)> = OnceLock::new();
    let (parser, folder) = CHOSEN.get_or_init(|| {
        let name = std::env::var("ERGOMETER_FUZZ").expect("ERGOMETER_FUZZ names a parser");
        let known = || parsers::PARSERS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        let parser = parsers::parser(&name).unwrap_or_else(|| panic!("no parser `{name}`; known: {}", known()));
        let scratch = std::env::var_os("ERGOMETER_FUZZ_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = scratch.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        (parser, folder)
    });
    parsers::try_on(parser, bytes, folder);
});
