//! The parity matrix: every family on every backend in every precision, on tiny nets, through the binary.
//!
//! In: the golden nets and small random ones. Out: for each combination a verdict against the reference interpreter, or the gap that is
//! listed below. Must not: pass over a combination that is neither right nor listed, or keep a gap that is none.
//!
//! Nets are damped or trained (see tests/golden): with plain random weights a recursive net is chaotic and no tolerance means anything.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ergometer::backends::BACKENDS;
use ergometer::runner::precisions;
use ergometer_reports::case::{ErrorKind, Verdict};
use serde_json::json;

use crate::house::{House, root, skip_here};

/// What cannot run, and why: the one list of all gaps. `*` stands for every family.
const GAPS: &[Gap] = &[
    gap("native", "f64", "*", "it does in f32, bf16, int8"),
    gap("onnxruntime", "bf16", "*", "it does in f32"),
    gap("onnxruntime", "int8", "*", "it does in f32"),
    gap("onnxruntime", "f64", "*", "it does in f32"),
    gap("tract", "int8", "*", "it does in f32, bf16"),
    gap("tract", "f64", "*", "it does in f32, bf16"),
    gap("candle", "bf16", "*", "it does in f32"),
    gap("candle", "int8", "*", "it does in f32"),
    gap("candle", "f64", "*", "it does in f32"),
    gap("reference", "f32", "*", "it does in f64"),
    gap("reference", "bf16", "*", "it does in f64"),
    gap("reference", "int8", "*", "it does in f64"),
];

/// Backend and precision of what this machine may lack, what the reason then says, and what to say aloud.
const MACHINE: &[(&str, &str, &str, &str)] = &[
    ("onnxruntime", "*", "no ONNX Runtime library", "the ONNX Runtime library (`ergometer fetch onnxruntime`)"),
    ("tract", "bf16", "does not offer to tract", "a processor with AMX bf16"),
];

struct Gap {
    backend: &'static str,
    precision: &'static str,
    family: &'static str,
    /// In the reason that the case gives.
    because: &'static str,
}

const fn gap(backend: &'static str, precision: &'static str, family: &'static str, because: &'static str) -> Gap {
    Gap { backend, precision, family, because }
}

/// A net of every family: its name and the tokens that it takes. All but the golden ones are made here.
fn models(house: &House) -> BTreeMap<&'static str, PathBuf> {
    let golden = |name: &str| root().join("tests/golden").join(name);
    let block = json!({"seq_len": 81, "vocab_size": 11, "hidden_size": 32, "num_heads": 2, "expansion": 2.0, "num_layers": 2,
                       "pos_encodings": "rope"});
    let with = |more: serde_json::Value| {
        let mut config = block.clone();
        let (config_map, more) = (config.as_object_mut().unwrap(), more.as_object().unwrap().clone());
        config_map.extend(more);
        config
    };
    house.model("encoder", &with(json!({"model_type": "encoder"})));
    // damped: an undamped random net is chaotic over its loops
    let looped = json!({"model_type": "looped", "loops": 3, "random_weights": {"seed": 3, "damping": 0.12}});
    std::fs::create_dir(house.path("looped")).unwrap();
    house.file("looped/config.json", with(looped).to_string());
    // damped: rounding before a router may send a token to another expert, which must not be the whole of its sum
    let experts = json!({"model_type": "moe-encoder", "num_experts": 5, "experts_per_token": 2, "expert_inner": 48,
                         "random_weights": {"seed": 7, "damping": 0.03}});
    std::fs::create_dir(house.path("moe-encoder")).unwrap();
    house.file("moe-encoder/config.json", with(experts).to_string());
    BTreeMap::from([
        ("trm, MLP mixing", golden("trm-mlp-d64")),
        ("trm, attention", golden("trm-att-d64")),
        ("hrm", golden("hrm-d64")),
        ("looped", house.path("looped")),
        ("encoder", house.path("encoder")),
        ("moe-encoder", house.path("moe-encoder")),
    ])
}

#[test]
fn every_family_on_every_backend_in_every_precision() {
    let house = House::new();
    let models = models(&house);
    let backends: Vec<&str> = BACKENDS.iter().map(|b| b.name()).collect();
    // some are of language models or of other programs alone
    let of_graphs = |p: &&str| BACKENDS.iter().any(|b| b.precisions().contains(p));
    let precisions: Vec<&str> = precisions().into_iter().filter(of_graphs).collect();
    let mut text = String::from(
        "[[task]]\nname = \"nine\"\nkind = \"sudoku\"\nsize = 9\nminimal = true\nexamples = 2\nseed = 5\n",
    );
    for (i, path) in models.values().enumerate() {
        text += &format!("[[model]]\nname = \"m{i}\"\npath = {path:?}\n");
    }
    let names: Vec<String> = (0..models.len()).map(|i| format!("m{i}")).collect();
    text += &format!(
        "[[cases]]\nmodels = {names:?}\ntasks = [\"nine\"]\nbackends = {backends:?}\nprecisions = {precisions:?}\n\
         scenarios = [\"offline-b2\"]\ndepth = [\"fixed-2\"]\nmay_be_unavailable = true\n"
    );
    let suite = house.file("matrix.toml", text);
    let ended = house.run(&suite, "run", &["--check"]);
    let run = ergometer_reports::load(&house.path("run")).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    assert_eq!(run.cases.len(), models.len() * backends.len() * precisions.len(), "{ended:?}");

    let family = |model: &str| {
        let index: usize = model[1..].parse().unwrap();
        *models.keys().nth(index).unwrap()
    };
    let (mut wrong, mut used, mut right) = (Vec::new(), vec![0; GAPS.len()], 0);
    for case in run.cases.iter().map(|c| &c.case) {
        let (backend, precision, family) = (&case.key.backend, &case.key.precision, family(&case.key.model));
        let fits =
            |g: &Gap| g.backend == backend && g.precision == precision && (g.family == "*" || g.family == family);
        let listed = GAPS.iter().position(fits);
        let place = format!("{family} on {backend} in {precision}");
        let lacking = MACHINE.iter().find(|(b, p, ..)| b == backend && (*p == "*" || p == precision));
        let says = |because: &str| {
            let error = case.error.as_ref().filter(|e| e.kind == ErrorKind::Unavailable);
            error.is_some_and(|e| e.message.contains(because))
        };
        let lacking = lacking.filter(|(_, _, because, _)| says(because));
        match (&case.error, listed) {
            (None, None) => match &case.verdict {
                Some(Verdict::Reference { largest, limit, steps, .. }) if largest <= limit && *steps >= 1 => right += 1,
                other => wrong.push(format!("{place}: no verdict of the reference but {other:?}")),
            },
            (None, Some(_)) => wrong.push(format!("{place} runs: it is no gap any more, take it off the list")),
            (Some(error), Some(i))
                if error.kind == ErrorKind::Unavailable && error.message.contains(GAPS[i].because) =>
            {
                used[i] += 1;
            }
            (Some(_), Some(i)) if lacking.is_some() => used[i] += 1,
            (Some(error), Some(i)) => {
                wrong.push(format!("{place} is a gap because {}, not: {error:?}", GAPS[i].because));
            }
            (Some(error), None) => match lacking {
                Some((.., what)) => skip_here(&format!("parity of {place} for want of {what}")),
                None => wrong.push(format!("{place}: {error:?}")),
            },
        }
    }
    assert!(wrong.is_empty(), "{} of {} combinations:\n{}", wrong.len(), run.cases.len(), wrong.join("\n"));
    for (gap, used) in GAPS.iter().zip(used) {
        let built = backends.contains(&gap.backend) && precisions.contains(&gap.precision);
        assert!(used > 0 || !built, "{} in {}: listed, but nothing is there", gap.backend, gap.precision);
    }
    // the backends that need nothing but this program: native in three precisions, and the interpreter
    assert!(right >= 4 * models.len(), "{right} combinations are right");
}
