//! Suite files: shipped ones to begin from, and what is read of them.
//!
//! In: the file that bytes lie in. Out: an [`Outcome`]. Must not: keep anything between two inputs.

use std::path::Path;

use ergometer_suites::suite::{Known, Suite};

use super::{Outcome, read, said};

pub(super) fn suites(_: &Path) -> Vec<Vec<u8>> {
    ["suites/quick.toml", "suites/matrix.toml", "suites/peers.toml", "examples/external-worker/suite.toml"]
        .map(read)
        .into_iter()
        .chain([SWEPT.into()])
        .collect()
}

/// What the shipped suites leave out.
const SWEPT: &str = "[[model]]\nname = 'm'\npath = 'm'\n[[task]]\nname = 't'\nkind = 'sudoku'\nexamples = 3\n\
    sweep = { size = [4, 6], seed = [1, 2] }\n[[cases]]\nmodels = 'm'\ntasks = 't'\nbackends = 'native'\nbatch = [1, 4]\nthreads = '1..all'\n";

pub(super) const KNOWN: Known = Known {
    backends: &["native", "tract", "candle", "onnxruntime", "reference"],
    precisions: &["f32", "f64", "bf16", "int8"],
    processors: 2,
};

pub(super) fn suite(_: &[u8], path: &Path) -> Outcome {
    let suite = match Suite::load(path, &KNOWN) {
        Ok(suite) => suite,
        Err(error) => return said(error),
    };
    for case in &suite.cases {
        assert_eq!(case.scenario.to_string().parse(), Ok(case.scenario));
        assert_eq!(case.depth.to_string().parse(), Ok(case.depth));
    }
    let mut names: Vec<String> = suite.cases.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|w| w[0] != w[1]), "two cases of one name");
    // parameters are read when a task is made; large ones take their time, which is theirs to take
    let small = |t: &&ergometer_suites::suite::TaskSpec| {
        let n = |key: &str| t.parameters.get(key).and_then(|v| v.as_integer()).unwrap_or(1000);
        n("examples").min(n("tasks")) <= 20 && n("size") == 4
    };
    for name in suite.tasks.values().filter(small).map(|t| t.name.clone()).collect::<Vec<_>>() {
        if let Err(error) = suite.examples(&name) {
            return said(error);
        }
    }
    Outcome::Taken
}
