//! `ergometer doctor`: what this machine can measure, what it cannot, and what to do about it.
//!
//! In: the machine, probes of backends and meters, the shipped suites and models. Out: aligned text or JSON, the same facts in both. Must
//! not: change anything but the remembered ceilings, or call a probe good that did not try.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use ergometer_reports::ceiling::{MachineCeiling, MachineCeilings, matters_for};
use ergometer_reports::environment::{Environment, MeterState};
use serde::Serialize;

use crate::backends::BACKENDS;
use crate::backends::probe::probed;
use crate::ceilings::CeilingCache;
use crate::console;
use crate::environment::{load, machine, observe};
use crate::files::user_cache;
use crate::meters::{MeterOptions, Meters};
use crate::text_table::columns;

/// How long it looks at what else runs.
const LOOK: Duration = Duration::from_millis(500);

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  ergometer doctor --json\n  ergometer doctor --ceilings")]
pub struct Args {
    /// Measure what this machine can do at best (arithmetic, memory, waiting), some seconds; `run` and `time` remember it
    #[arg(long)]
    ceilings: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One backend as probed.
#[derive(Debug, Serialize)]
struct BackendState {
    name: &'static str,
    about: &'static str,
    precisions: &'static [&'static str],
    /// Versions and build features, when ready.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    facts: BTreeMap<String, String>,
    /// Why it is unavailable and what to do about it; none: ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
}

/// Everything that is shown.
#[derive(Debug, Serialize)]
struct Findings {
    ergometer: String,
    os: String,
    cpu: String,
    cpus: u32,
    isa: Vec<String>,
    /// What the own kernels would use.
    kernels_isa: String,
    memory_bytes: u64,
    virtual_machine: bool,
    gpus: Vec<String>,
    load: Option<f64>,
    /// Processors that other programs kept busy while this looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign: Option<f64>,
    /// Why so many threads as there are processors are not worth so many cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<String>,
    build: BTreeMap<String, String>,
    /// Limits and settings that decide speed.
    settings: BTreeMap<String, String>,
    backends: Vec<BackendState>,
    meters: Vec<MeterState>,
    suites: Vec<String>,
    models: Vec<String>,
    /// What the machine can do at best, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    ceilings: Option<Roofs>,
    /// What to type next.
    next: String,
}

/// Ceilings as measured now, and what each limits.
#[derive(Debug, Serialize)]
struct Roofs {
    #[serde(flatten)]
    ceilings: MachineCeilings,
    matters_for: BTreeMap<String, &'static str>,
}

impl Roofs {
    /// Measures anew, with one thread and with all processors; `run` and `time` then find it in the cache.
    fn measure() -> anyhow::Result<Self> {
        let ceilings = CeilingCache::new(&user_cache()?)?.measure(&[machine::observe().cpus]);
        let matters_for = ceilings.list.iter().map(|c| (c.name.clone(), matters_for(&c.name))).collect();
        Ok(Self { ceilings, matters_for })
    }
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut findings = find(&MeterOptions::from_env());
    if args.ceilings {
        findings.ceilings = Some(Roofs::measure()?);
    }
    match args.json {
        true => console::json(&findings)?,
        false => console::out(&text(&findings)),
    }
    Ok(ExitCode::SUCCESS)
}

fn find(options: &MeterOptions) -> Findings {
    let meters = Meters::probe(options);
    let seen: Environment = observe("", "", "", &[], &meters);
    let backends = BACKENDS.iter().map(|backend| {
        console::detail(|| format!("probe backend {}", backend.name()));
        let (facts, unavailable) = match probed(*backend, None) {
            Ok(facts) => (facts, None),
            Err(why) => (BTreeMap::new(), Some(why.text())),
        };
        BackendState {
            name: backend.name(),
            about: backend.about(),
            precisions: backend.precisions(),
            facts,
            unavailable,
        }
    });
    let names = |shipped: Vec<(String, _)>| shipped.into_iter().map(|(name, _)| name).collect::<Vec<String>>();
    let (suites, models) = (names(ergometer_suites::shipped_suites()), names(ergometer_suites::shipped_models()));
    let next = match suites.iter().find(|s| *s == "quick").or(suites.first()) {
        Some(suite) => format!("ergometer run {suite}"),
        None => "set ERGOMETER_HOME to the folder of the shipped suites, then: ergometer list suites".into(),
    };
    let machine = machine::observe();
    console::detail(|| format!("look at what else runs, {} s", LOOK.as_secs_f64()));
    Findings {
        ergometer: seen.ergometer,
        os: seen.os,
        cpu: seen.cpu,
        cpus: seen.cpus,
        isa: seen.isa,
        kernels_isa: ergometer_kernels::Isa::detect().to_string(),
        memory_bytes: seen.memory_bytes,
        virtual_machine: seen.virtual_machine,
        gpus: seen.gpus,
        load: seen.load_before,
        foreign: load::observe(LOOK).foreign,
        shared: machine.shared(),
        build: crate::environment::build_versions(),
        settings: machine.settings,
        backends: backends.collect(),
        meters: meters.states(),
        suites,
        models,
        ceilings: None,
        next,
    }
}

fn text(f: &Findings) -> String {
    let row = |a: &str, b: &str| vec![a.to_string(), b.to_string()];
    let none = |list: &[String]| if list.is_empty() { "none".into() } else { list.join(" ") };
    let pairs =
        |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", ");
    let virtual_machine = if f.virtual_machine {
        "yes: expect noise from neighbours; energy counters are rarely passed through"
    } else {
        "no sign of one"
    };
    let mut machine = vec![
        row("processor", &f.cpu),
        row(
            "processors",
            &format!("{} usable{}", f.cpus, f.shared.as_ref().map(|s| format!("\n{s}")).unwrap_or_default()),
        ),
        row("extensions", &none(&f.isa)),
        row("kernels use", &f.kernels_isa),
        row("memory", &format!("{:.1} GiB", f.memory_bytes as f64 / (1u64 << 30) as f64)),
        row("virtual", virtual_machine),
        row("GPUs", &if f.gpus.is_empty() { "none seen".into() } else { f.gpus.join(", ") }),
        row("system", &f.os),
    ];
    if !f.settings.is_empty() {
        machine.push(row("settings", &pairs(&f.settings)));
    }
    let busy = match f.foreign {
        Some(foreign) if foreign > load::BUSY => {
            format!("other programs use {}: numbers will be noisy", load::processors(foreign))
        }
        Some(_) => "no: other programs hardly use a processor".into(),
        None => "the system does not say".into(),
    };
    machine.push(row("busy", &busy));
    if let Some(load) = f.load {
        machine.push(row("load", &format!("{load:.2} over the last minute")));
    }
    machine.push(row("build", &pairs(&f.build)));

    // What is wrong and what to do about it stands in the last column, one line each.
    let state = |name: &str, ready: String, unavailable: &Option<String>| match unavailable {
        None => vec![name.to_string(), "ready".into(), ready],
        Some(why) => vec![name.to_string(), "unavailable".into(), why.clone()],
    };
    let backends: Vec<_> = f
        .backends
        .iter()
        .map(|b| state(b.name, format!("{}\n{}", b.precisions.join(" "), pairs(&b.facts)), &b.unavailable))
        .collect();
    let meters: Vec<_> = f
        .meters
        .iter()
        .map(|m| {
            let resolution = m.resolution.as_deref().unwrap_or_default();
            let estimate = if m.estimate { " (an estimate)" } else { "" };
            state(&m.name, format!("{}{estimate}\nresolution {resolution}", m.metrics.join(" ")), &m.unavailable)
        })
        .collect();
    let shipped = [row("suites", &none(&f.suites)), row("models", &none(&f.models))];
    let ready = f.backends.iter().filter(|b| b.unavailable.is_none()).count();
    let ceilings = f.ceilings.as_ref().map(roofs).unwrap_or_default();
    format!(
        "ergometer {}\n\nMachine\n{}\nBackends: {ready} of {} ready\n{}\nMeters\n{}\n{ceilings}Shipped\n{}\nNext: {}\n",
        f.ergometer,
        columns(2, &machine),
        f.backends.len(),
        columns(2, &backends),
        columns(2, &meters),
        columns(2, &shipped),
        f.next
    )
}

/// The ceilings as a table, name by name; what each is and limits stands beside its first line.
fn roofs(roofs: &Roofs) -> String {
    let mut rows = vec![["", "threads", "best", "median", "n", ""].map(String::from).to_vec()];
    let mut last = String::new();
    for shown in roofs.ceilings.list.iter().map(MachineCeiling::shown) {
        let (name, what) = match shown.name == last {
            true => (String::new(), String::new()),
            false => (shown.name.clone(), format!("{}\nfor {}", shown.what, matters_for(&shown.name))),
        };
        last.clone_from(&shown.name);
        rows.push(vec![name, shown.threads.to_string(), shown.best, shown.median, shown.n.to_string(), what]);
    }
    let missing: Vec<Vec<String>> =
        (roofs.ceilings.missing.iter()).map(|m| vec![m.name.clone(), "unavailable".into(), m.reason.clone()]).collect();
    let busy = match roofs.ceilings.load {
        Some(load) if load > 0.5 => format!("\n  measured at a load of {load:.2}: what else runs lowers them"),
        _ => String::new(),
    };
    let about = format!("Ceilings: the best of n repetitions; a rate is that of all threads together{busy}");
    format!("{about}\n{}{}\n", columns(2, &rows), columns(2, &missing))
}

#[cfg(test)]
mod tests {
    use ergometer_reports::ceiling::MissingCeiling;

    use super::*;
    use crate::meters::fake_powercap::FakePowercap;

    #[test]
    fn text_and_json_say_the_same_and_every_unavailable_has_a_reason() {
        let nowhere = MeterOptions {
            powercap: "/nonexistent".into(),
            nvml: Some("/nonexistent.so".into()),
            ..MeterOptions::default()
        };
        let findings = find(&nowhere);
        let (text, json) = (text(&findings), serde_json::to_value(&findings).unwrap());
        for meter in json["meters"].as_array().unwrap() {
            assert!(text.contains(meter["name"].as_str().unwrap()));
            let why = meter.get("unavailable").and_then(|w| w.as_str());
            assert_eq!(why.is_none(), meter.get("resolution").is_some(), "{meter}");
            assert!(why.is_none_or(|w| w.contains("hint:")), "{meter}");
        }
        for backend in BACKENDS {
            assert!(text.contains(backend.name()));
        }
        assert!(text.contains("/nonexistent") && text.contains("unavailable"), "{text}");
        let last = text.trim_end().lines().next_back().unwrap();
        assert_eq!(last, format!("Next: {}", json["next"].as_str().unwrap()));
        assert!(text.lines().all(|l| l.is_ascii() || !l.contains('\u{1b}')));
    }

    #[test]
    fn every_ceiling_has_a_line_with_its_unit_and_what_it_limits() {
        let one = |name: &str, threads, unit: &str, best| MachineCeiling {
            name: name.into(),
            what: format!("what {name} is"),
            unit: unit.into(),
            threads,
            best,
            median: best,
            n: 7,
            working_set: None,
        };
        let list = vec![
            one("f32.avx2", 1, "FLOP/s", 1.2e11),
            one("f32.avx2", 2, "FLOP/s", 2.4e11),
            one("barrier", 2, "s", 9e-7),
        ];
        let missing = vec![MissingCeiling { name: "bf16.amx".into(), reason: "this CPU lacks AMX".into() }];
        let ceilings = MachineCeilings { measured: String::new(), load: Some(2.5), list, missing };
        let text = roofs(&Roofs { ceilings, matters_for: BTreeMap::new() });
        for part in [
            "threads",
            "120\u{202f}GFLOP/s",
            "240\u{202f}GFLOP/s",
            "900\u{202f}ns",
            "for latency",
            "lacks AMX",
            "load of 2.50",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.matches("what f32.avx2 is").count(), 1, "said once: {text}");
    }

    #[test]
    fn a_ready_energy_meter_shows_its_resolution() {
        let fake = FakePowercap::new().zone("intel-rapl:0", "package-0", 40.0).run().unwrap();
        let findings = find(&MeterOptions { powercap: fake.root().into(), ..MeterOptions::default() });
        let rapl = findings.meters.iter().find(|m| m.name == "rapl").unwrap();
        assert!(rapl.resolution.as_ref().unwrap().contains(" J each "), "{rapl:?}");
    }
}
