//! What a worker claims and nothing else shows: counts of operations, times, bytes; each held to what was seen, and
//! withheld beyond it.
//!
//! In: synthetic runs. Out: verdicts. Must not: repeat the tests of the records that are believed.

use std::collections::BTreeMap;

use ergometer_reports::{
    Record,
    case::{Sample, Verdict},
};

use crate::synthetic::{self, Edit, summarise};

fn get<'a>(records: &'a [Record], path: &str, metric: &str) -> &'a Record {
    records.iter().find(|r| r.path.contains(path) && r.metric == metric).expect("every case has every metric")
}

#[test]
fn operations_that_a_worker_reports_are_held_to_the_ceiling() {
    let mut run = synthetic::small();
    let case = run.cases.iter_mut().find(|c| c.case.path.contains("dense-6/f32/native")).unwrap();
    case.case.verdict = Some(Verdict::AccuracyOnly);
    let path = "dense-6/f32/native";
    let records = summarise(&run);
    let told = get(&records, path, "flop_rate").clone();
    assert!(told.method.contains("as it reports them") && told.value.is_some(), "{told:?}");
    let case = run.cases.iter_mut().find(|c| c.case.path.contains(path)).unwrap();
    case.samples.edit(|s| s.metric == "flops_executed", |s| s.value *= 1e9);
    for metric in ["flops_executed", "flop_rate", "share_of_ceiling"] {
        let records = summarise(&run);
        let record = get(&records, path, metric);
        let missing = record.missing.as_ref().unwrap_or_else(|| panic!("{metric} is believed: {record:?}"));
        assert!(missing.message.contains("times what 2 threads of this processor do at best"), "{missing:?}");
    }
    // a board may do more, and nobody knows how much
    let case = run.cases.iter_mut().find(|c| c.case.path.contains(path)).unwrap();
    case.case.versions.insert("device".into(), "cuda:0".into());
    assert!(get(&summarise(&run), path, "flops_executed").value.is_some());
}

#[test]
fn times_that_leave_much_untold_are_withheld_and_bytes_that_nobody_had() {
    let mut run = synthetic::small();
    let path = "dense-6/f32/native";
    let blocks = {
        let records = summarise(&run);
        get(&records, path, "throughput").value.unwrap()
    };
    let case = run.cases.iter_mut().find(|c| c.case.path.contains(path)).unwrap();
    let mut windows: BTreeMap<u32, f64> = BTreeMap::new();
    for s in case.samples.iter().filter(|s| s.metric == "latency" && s.phase == "steady") {
        *windows.entry(s.block).or_default() += s.value;
    }
    // the harness saw twice the time
    let first = case.samples.iter().find(|s| s.metric == "memory_peak").unwrap();
    for (block, seconds) in windows {
        case.samples.push(Sample { block, metric: "window", value: 2.0 * seconds, ..first });
    }
    case.samples.edit(|s| s.metric == "weight_bytes", |s| s.value = 1e12);
    let records = summarise(&run);
    for metric in ["latency", "latency_p99"] {
        let missing = get(&records, path, metric).missing.clone().unwrap();
        assert!(missing.message.contains("iterations fill 50.0 % of the"), "{missing:?}");
    }
    let rate = get(&records, path, "throughput");
    assert!((rate.value.unwrap() / blocks - 0.5).abs() < 1e-9 && rate.lower.is_some(), "{rate:?}");
    assert!(rate.note.as_ref().unwrap().contains("by the harness's clock, since iterations fill 50.0 %"), "{rate:?}");
    let bytes = get(&records, path, "weight_bytes").missing.clone().unwrap();
    assert!(bytes.message.contains("its process never had more than"), "{bytes:?}");
}
