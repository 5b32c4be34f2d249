//! The machine and the build that a run's numbers come from: the content of `environment.json`.
//!
//! In: `/proc`, `/sys`, what the build left in the program, probes of backends and meters. Out: an [`Environment`]. Must not: fail because
//! something cannot be told (then it is left out), or name the user, the host or a path.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use ergometer_reports::case::SCHEMA;
use ergometer_reports::environment::Environment;

use crate::backends::BACKENDS;
use crate::backends::probe::probed;
use crate::meters::Meters;

pub mod load;
pub mod machine;

/// Observes everything that is not about one case; `foreign_before`, `idle_watts` and `ceilings` are left to the caller ([`Meters::idle_watts`], [`of_run`](crate::ceilings::of_run)). Of the backends only
/// `engines` are probed: some have to load a library for that.
pub fn observe(suite: &str, suite_hash: &str, command: &str, engines: &[&str], meters: &Meters) -> Environment {
    let machine = machine::observe();
    let told = |prefix: &str| {
        let facts = meters.facts().iter().filter(|(k, _)| k.starts_with(prefix));
        facts.map(|(_, v)| v.clone()).collect::<Vec<String>>()
    };
    let gpus = Some(told("gpu.")).filter(|g| !g.is_empty()).unwrap_or_else(machine::gpus_of_driver);
    let mut versions = build_versions();
    versions.extend(machine.settings);
    versions.extend(backend_versions(engines));
    versions.extend(meters.facts().iter().map(|(k, v)| (k.clone(), v.clone())));
    Environment {
        schema: SCHEMA,
        started: now_utc(),
        suite: suite.into(),
        suite_hash: suite_hash.into(),
        command: command.into(),
        ergometer: version(),
        os: machine.os,
        cpu: machine.cpu,
        cpus: machine.cpus,
        isa: machine.isa,
        memory_bytes: machine.memory_bytes,
        virtual_machine: machine.virtual_machine,
        gpus,
        versions,
        meters: meters.states(),
        load_before: load(),
        foreign_before: None,
        models: BTreeMap::new(),
        idle_watts: BTreeMap::new(),
        ceilings: None,
    }
}

/// Version of this program; with the commit where the build was told it in `ERGOMETER_COMMIT`.
pub fn version() -> String {
    match option_env!("ERGOMETER_COMMIT") {
        Some(commit) => format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
        None => env!("CARGO_PKG_VERSION").into(),
    }
}

/// What decides the speed of this build.
pub fn build_versions() -> BTreeMap<String, String> {
    let pairs = [
        ("rustc", env!("ERGOMETER_RUSTC")),
        ("profile", env!("ERGOMETER_PROFILE")),
        ("target", env!("ERGOMETER_TARGET")),
        ("target-features", env!("ERGOMETER_TARGET_FEATURES")),
    ];
    let mut versions: BTreeMap<String, String> = pairs.map(|(k, v)| (k.into(), v.into())).into();
    let emulated = if ergometer_kernels::amx_is_emulated() { " (emulated: no time means anything)" } else { "" };
    versions.insert("kernels.isa".into(), format!("{}{emulated}", ergometer_kernels::Isa::detect()));
    versions
}

/// `<backend>.<fact>` of every named backend that can run here, `<backend>` with the reason of those that cannot.
fn backend_versions(engines: &[&str]) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for backend in BACKENDS.iter().filter(|b| engines.contains(&b.name())) {
        match probed(*backend, None) {
            Ok(facts) => versions.extend(facts.into_iter().map(|(k, v)| (format!("{}.{k}", backend.name()), v))),
            Err(why) => {
                versions.insert(backend.name().into(), format!("unavailable: {}", why.reason));
            }
        }
    }
    versions
}

/// One-minute load average, if the system tells.
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Now in UTC by RFC 3339, to the second. For people; the wall clock is never used in arithmetic.
pub fn now_utc() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    utc(seconds)
}

/// Seconds since 1970 as `YYYY-MM-DDThh:mm:ssZ`.
pub fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years begin in March, so that the leap day is the last day of one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meters::MeterOptions;

    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let mut last = utc(0);
        for day in 1..200_000u64 {
            let text = utc(day * 86_400);
            assert!(text > last, "{text} after {last}");
            let (year, rest) = text.split_once('-').unwrap();
            let new_year = &last[..4] != year;
            assert_eq!(new_year, rest.starts_with("01-01"), "{text} after {last}");
            last = text;
        }
    }

    #[test]
    fn this_machine_and_build_are_told() {
        let nowhere = MeterOptions {
            powercap: "/nonexistent".into(),
            nvml: Some("/nonexistent.so".into()),
            ..MeterOptions::default()
        };
        let seen = observe("quick", "00", "ergometer run quick", &["reference"], &Meters::probe(&nowhere));
        assert_eq!((seen.schema, seen.suite.as_str()), (SCHEMA, "quick"));
        assert!(seen.started.len() == 20 && seen.started.as_str() > "2024", "{}", seen.started);
        assert!(seen.cpus >= 1 && seen.memory_bytes > 1 << 28, "{seen:?}");
        assert!(seen.versions["rustc"].starts_with("1."), "{:?}", seen.versions);
        assert!(seen.versions.contains_key("kernels.isa") && seen.versions.contains_key("reference.reference"));
        assert!(!seen.versions.keys().any(|k| k.starts_with("candle")), "what is not used is not probed");
        let meters: Vec<_> = seen.meters.iter().map(|m| (m.name.as_str(), m.unavailable.is_none())).collect();
        assert_eq!(meters, [("rapl", false), ("nvml", false), ("cpu", true), ("memory", true)]);
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&text).unwrap(), seen);
    }

    proptest! {
        #[test]
        fn no_second_panics(seconds: u64) {
            let _ = utc(seconds % (1 << 60));
        }
    }
}
