//! Which energy domains a right answer is charged for, by what a case says of its device.
//!
//! In: the run by hand, with boards that are metered. Out: verdicts. Must not: repeat what records say of energy
//! itself.

use ergometer_reports::{
    RecordedRun,
    case::{Sample, UnavailableMetric},
};

use crate::{
    records::{by_hand, get},
    synthetic::{Edit, summarise},
};

/// `device` by hand in the option, the report and the worker's own option; boards are metered.
#[test]
fn the_domains_of_joules_per_right_are_named_and_do_not_depend_on_spelling() {
    let metered = |unmetered: Option<&str>| {
        let mut run = by_hand();
        run.environment.versions.insert("rapl.energy_cpu".into(), "package-0+package-1".into());
        run.environment.versions.insert("nvml.energy_gpu".into(), "GPU-aa".into());
        if let Some(board) = unmetered {
            run.environment.versions.insert("nvml.unmetered".into(), board.into());
        }
        let nvml = run.environment.meters.iter_mut().find(|m| m.name == "nvml").unwrap();
        (nvml.unavailable, nvml.resolution) = (None, Some("1 J".into()));
        let samples = &mut run.cases[0].samples;
        for (of_packages, metric) in [("energy_cpu", "energy_gpu"), ("energy_cpu_edge", "energy_gpu_edge")] {
            let energy: Vec<Sample> = samples.iter().filter(|s| s.metric == of_packages).collect();
            samples.extend(energy.into_iter().map(|s| Sample { metric, ..s }));
        }
        run.cases[0].case.unavailable.retain(|u| u.metric != "energy_gpu");
        run
    };
    let told = |run: &RecordedRun, at: usize, said: &str| {
        let mut run = run.clone();
        let case = &mut run.cases[0].case;
        match at {
            0 => case.key.backend_options.insert("device".into(), said.into()),
            1 => case.versions.insert("device".into(), said.into()),
            _ => case.versions.insert("option device".into(), said.into()),
        };
        get(&summarise(&run), "", "joules_per_right").clone()
    };
    let run = metered(None);
    let both = "energy of packages package-0, package-1 and boards GPU-aa";
    for at in 0..3 {
        let packages = told(&run, at, "CPU");
        assert!(
            packages.method.contains("energy of packages package-0, package-1") && !packages.method.contains("GPU-aa")
        );
        for said in ["cuda", "CUDA:0", "Gpu", "AUTO:GPU,CPU"] {
            let all = told(&run, at, said);
            assert!(all.method.contains(both), "{}", all.method);
            assert_eq!(all.value.unwrap(), 2.0 * packages.value.unwrap(), "{said}");
        }
        let other = told(&run, at, "NPU");
        assert!(other.missing.unwrap().message.contains("`NPU`"));
    }
    let untold = get(&summarise(&run), "", "joules_per_right").missing.clone().unwrap();
    assert!(untold.message.contains("does not say whether") && untold.hint.is_some(), "{untold:?}");
    // without packages there is no sum, and the boards' part is known by a name of its own
    let mut alone = metered(None);
    alone.cases[0].samples.retain(|s| !s.metric.starts_with("energy_cpu"));
    let case = &mut alone.cases[0].case;
    case.versions.insert("device".into(), "cuda:0".into());
    case.unavailable.push(UnavailableMetric { metric: "energy_cpu".into(), reason: "no powercap".into() });
    let records = summarise(&alone);
    let (sum, boards) = (get(&records, "", "joules_per_right"), get(&records, "", "board_joules_per_right"));
    assert!(boards.method.contains("energy of boards GPU-aa") && !boards.method.contains("package"), "{boards:?}");
    assert_eq!(boards.value, told(&run, 0, "cpu").value, "both counters say the same here");
    let why = &sum.missing.as_ref().unwrap().message;
    assert!(why.contains("no powercap") && why.contains("board_joules_per_right"), "{why}");
    // nobody asks what a case on a processor costs the boards
    assert!(summarise(&run).iter().all(|r| r.metric != "board_joules_per_right"));
    // a board that it names must be a metered one
    let (here, there) = ("GPU-4f8c1d2e-0a3b-5c6d-7e8f-90a1b2c3d4e5", "GPU-4f8c1d2e-0a3b-5c6d-7e8f-90a1b2c3d4e6");
    let mut named = run.clone();
    named.environment.versions.insert("nvml.energy_gpu".into(), format!("GPU-aa+{here}"));
    assert!(told(&named, 1, &format!("cuda:{}", here.to_lowercase())).value.is_some());
    let other = told(&named, 1, &format!("cuda:{there}")).missing.unwrap();
    assert!(other.message.contains(there) && other.hint.is_some(), "{other:?}");
    let lacking = metered(Some("Old board (GPU-bb) has no energy counter"));
    assert!(told(&lacking, 0, "cuda").missing.unwrap().message.contains("GPU-bb"));
    assert!(told(&lacking, 0, "cpu").value.is_some());
}
