//! What several runs of a program say together: the run is the observation.
//!
//! In: [`MeteredRun`]s in time order. Out: a [`Summary`] for each quantity, and ratios round by round. Must not: take anything inside of a run for an
//! observation of its own, or hide that runs are few.
//!
//! Times, memory and rates are medians with an interval by order statistics (six runs and more); joules and processor time are means with
//! Student's t over runs, joules widened by what the edges of their windows can hide, and what is above idle by how well idle power is known.
//! METHODS.md says the same.

use std::collections::{BTreeMap, BTreeSet};

use ergometer_reports::stats::CONFIDENCE;
use ergometer_reports::stats::level::{Spacing, sides};
use ergometer_reports::stats::quantile::{least_for_median, median};
use serde::Serialize;

use super::{Joules, MeteredRun};

/// Share of an energy from which on the error of its edges is said, and above which there is no number.
const EDGES_NOTED: f64 = 0.01;
const EDGES_MOST: f64 = 0.5;

/// Share of the page faults after the last look at memory from which on it is said.
const UNSEEN_NOTED: f64 = 0.01;

/// Seconds between two moves of the counter behind an energy metric, where they are known.
pub type Periods = BTreeMap<&'static str, f64>;

/// Readings of the idle machine's power in W, in time order, by energy metric.
pub type IdleReadings = BTreeMap<String, Vec<f64>>;

/// One quantity over all runs of a command.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// What it is.
    pub name: String,
    /// Its unit, unscaled.
    pub unit: &'static str,
    /// The number; none where it is missing.
    pub value: Option<f64>,
    /// Its interval at 95 %.
    pub lower: Option<f64>,
    /// See `lower`.
    pub upper: Option<f64>,
    /// Runs behind it.
    pub n: usize,
    /// How it was found; why it has no interval; what it leaves out.
    pub method: String,
    /// Why there is no number.
    pub missing: Option<String>,
}

impl Summary {
    fn missing(name: &str, unit: &'static str, why: String) -> Self {
        let (value, lower, upper) = (None, None, None);
        Self { name: name.into(), unit, value, lower, upper, n: 0, method: String::new(), missing: Some(why) }
    }

    /// Median of one number a run.
    fn median(name: &str, unit: &'static str, values: &[f64]) -> Self {
        let Some(estimate) = median(values) else { return Self::missing(name, unit, "no run has it".into()) };
        let (interval, method) = match estimate.interval {
            Ok(interval) => (Some(interval), format!("{} over {} runs", estimate.method, estimate.n)),
            Err(_) if values.len() == 1 => (None, "one run: how much runs differ is not known".into()),
            Err(_) => {
                (None, format!("median of {} runs; an interval needs {}", estimate.n, least_for_median(CONFIDENCE)))
            }
        };
        Self {
            name: name.into(),
            unit,
            value: Some(estimate.value),
            lower: interval.map(|i| i.0),
            upper: interval.map(|i| i.1),
            n: values.len(),
            method,
            missing: None,
        }
    }

    /// Mean of one number a run, each of which may be off by so much, all of them in one direction.
    fn mean(name: &str, unit: &'static str, values: &[(f64, f64)]) -> Self {
        if values.is_empty() {
            return Self::missing(name, unit, "no run has it".into());
        }
        let n = values.len() as f64;
        let (value, off) = (values.iter().map(|v| v.0).sum::<f64>() / n, values.iter().map(|v| v.1).sum::<f64>() / n);
        let numbers: Vec<f64> = values.iter().map(|v| v.0).collect();
        let sides = sides(&numbers, Spacing::Independent);
        let mut method = match sides {
            Some(_) => format!("mean; {}", Spacing::Independent.method(values.len(), "run")),
            None => "one run: how much runs differ is not known".into(),
        };
        if off > EDGES_NOTED * value.abs() {
            method += &format!(
                "; the edges of its windows can be {:.1} % of it, which the interval holds",
                100.0 * off / value.abs()
            );
        }
        Self {
            name: name.into(),
            unit,
            value: Some(value),
            lower: sides.map(|(below, _)| (value - below - off).max(0.0)),
            upper: sides.map(|(_, above)| value + above + off),
            n: values.len(),
            method,
            missing: None,
        }
    }

    /// Mean of what each run used beyond the idle machine in the same time; may be below 0: nothing is clamped. `joules` are gross, each
    /// with what its edges can hide.
    fn above_idle(name: &str, joules: &[(f64, f64)], seconds: &[f64], readings: &[f64]) -> Self {
        let n = joules.len() as f64;
        let watts = readings.iter().sum::<f64>() / readings.len() as f64;
        let above: Vec<f64> = joules.iter().zip(seconds).map(|(j, s)| j.0 - watts * s).collect();
        let (value, long) = (above.iter().sum::<f64>() / n, seconds.iter().sum::<f64>() / n);
        let edges = joules.iter().map(|j| j.1).sum::<f64>() / n;
        let (runs, idle) = (sides(&above, Spacing::Independent), sides(readings, Spacing::Row));
        let interval = runs.zip(idle).map(|((below, over), (less, more))| {
            // idle power that is more than was read leaves less above it
            (value - below - edges - more * long, value + over + edges + less * long)
        });
        let mut method = match (runs, idle) {
            (None, _) => "one run: how much runs differ is not known".to_string(),
            (_, None) => "mean; idle power was read once: how far off that is is not known".to_string(),
            (_, Some((less, more))) => format!(
                "mean; {}, and over {} readings of idle power, which they know to {} to {} W",
                Spacing::Independent.method(joules.len(), "run"),
                readings.len(),
                ergometer_reports::format::number(watts - less),
                ergometer_reports::format::number(watts + more)
            ),
        };
        method += &format!("; gross less {} over the same time", shown_watts(watts));
        let (lower, upper) = interval.unzip();
        Self { name: name.into(), unit: "J", value: Some(value), lower, upper, n: joules.len(), method, missing: None }
    }

    fn with(mut self, note: &str) -> Self {
        self.method += &format!("; {note}");
        self
    }
}

/// What of the joules of a window is believed: those whose edges can hide at most half of them.
fn believed(joules: &Joules, seconds: f64, period: Option<f64>) -> Result<(f64, f64), String> {
    let needs = |share: Option<f64>| {
        // the error of the edges falls as the window grows
        let half = share.map(|share| seconds * share / EDGES_MOST).or(period.map(|period| 4.0 * period));
        let Some(half) = half else { return String::new() };
        format!(
            "; a number needs a window of at least {}, one that is good to 1 % {}",
            shown_seconds(half),
            shown_seconds(half * EDGES_MOST / EDGES_NOTED)
        )
    };
    match joules {
        Err(why) if why.contains("shorter than the counter's period") => Err(format!("{why}{}", needs(None))),
        Err(why) => Err(why.clone()),
        Ok((value, edges)) if *edges > EDGES_MOST * value => Err(format!(
            "the edges of a window of {} can be {:.0} % of its energy{}",
            shown_seconds(seconds),
            100.0 * edges / value,
            needs((*value > 0.0).then(|| edges / value))
        )),
        Ok(pair) => Ok(*pair),
    }
}

fn shown_seconds(seconds: f64) -> String {
    ergometer_reports::format::scaled(seconds, "s").replace('\u{202f}', " ")
}

/// The energy metrics that any of the runs has, with or without a number.
fn metrics(runs: &[MeteredRun]) -> BTreeSet<&'static str> {
    runs.iter().flat_map(|r| r.energy.keys().copied()).collect()
}

/// J of every run by one metric, or why one of them has none.
fn joules_of<'a>(
    each: impl Iterator<Item = (Option<&'a Joules>, f64)>,
    period: Option<f64>,
) -> Result<Vec<(f64, f64)>, String> {
    each.map(|(joules, seconds)| match joules {
        Some(joules) => believed(joules, seconds, period),
        None => Err("a run has no reading".into()),
    })
    .collect()
}

/// Processor time: what is said of it where several processes are behind it.
fn processor_time(name: &str, runs: &[MeteredRun], seconds: impl Iterator<Item = f64>) -> Summary {
    let time = Summary::mean(name, "s", &seconds.map(|s| (s, 0.0)).collect::<Vec<_>>());
    match runs.iter().map(|r| r.processes).max().unwrap_or(0) {
        0 | 1 => time,
        n => time.with(&format!(
            "of {n} processes that were seen, and what they had waited for; 20 ms low for each at most"
        )),
    }
}

/// The largest memory, and how much of each run was not looked at.
fn memory_peak(runs: &[MeteredRun]) -> Summary {
    let peaks: Result<Vec<_>, String> = runs.iter().map(|r| r.memory.clone()).collect();
    let peaks = match peaks {
        Ok(peaks) => peaks,
        Err(why) => return Summary::missing("memory_peak", "B", why),
    };
    let summary = Summary::median("memory_peak", "B", &peaks.iter().map(|p| p.bytes as f64).collect::<Vec<_>>());
    let mut note = "looked at each 20 ms".to_string();
    if peaks.iter().any(|p| p.several) {
        note += "; pages that several processes share count in each";
    }
    let unseen = peaks.iter().map(|p| p.unseen).fold(0.0, f64::max);
    if unseen > UNSEEN_NOTED {
        note += &format!("; {:.0} % of its page faults came after the last look", 100.0 * unseen);
    }
    summary.with(&note)
}

/// Every quantity of the runs of one command.
pub fn of(runs: &[MeteredRun], idle: &IdleReadings, periods: &Periods) -> Vec<Summary> {
    let walls: Vec<f64> = runs.iter().map(|r| r.wall).collect();
    let mut found = vec![
        Summary::median("wall", "s", &walls),
        processor_time("cpu_time", runs, runs.iter().map(|r| r.cpu)),
        memory_peak(runs),
    ];
    for metric in metrics(runs) {
        let period = periods.get(metric).copied();
        match joules_of(runs.iter().map(|r| (r.energy.get(metric), r.wall)), period) {
            Err(why) => found.push(Summary::missing(metric, "J", why)),
            Ok(values) => {
                found.push(Summary::mean(metric, "J", &values).with("gross, of the whole machine"));
                if let Some(readings) = idle.get(metric).filter(|readings| !readings.is_empty()) {
                    found.push(Summary::above_idle(&format!("{metric}_above_idle"), &values, &walls, readings));
                }
            }
        }
    }
    found.extend(windows(runs, periods));
    found
}

/// Watts for people.
pub fn shown_watts(watts: f64) -> String {
    ergometer_reports::format::scaled(watts, "W").replace('\u{202f}', " ")
}

/// What was metered between marks, where any run wrote some.
fn windows(runs: &[MeteredRun], periods: &Periods) -> Vec<Summary> {
    let mut marked = Vec::new();
    for (run, i) in runs.iter().zip(1..) {
        match &run.marked {
            Some(Ok(windows)) => marked.push(windows),
            Some(Err(why)) => return vec![Summary::missing("windows", "s", format!("run {i}: {why}"))],
            None => {}
        }
    }
    if marked.is_empty() {
        return Vec::new();
    }
    if marked.len() < runs.len() {
        let why = format!("{} of {} runs wrote marks", marked.len(), runs.len());
        return vec![Summary::missing("windows", "s", why)];
    }
    let seconds: Vec<f64> = marked.iter().map(|w| w.sums.seconds).collect();
    let mut found = vec![
        Summary::median("windows", "s", &seconds).with("between marks"),
        Summary::median("before_windows", "s", &marked.iter().map(|w| w.sums.before).collect::<Vec<_>>())
            .with("from the start to the first mark: loading"),
        processor_time("cpu_time_windows", runs, marked.iter().map(|w| w.cpu)),
    ];
    let counted = marked.iter().all(|w| w.sums.counted > 0);
    if counted {
        let mut add = |name: &str, unit, of: &dyn Fn(&super::InWindows) -> f64| {
            let values: Vec<f64> = marked.iter().map(|w| of(w)).collect();
            match values.iter().all(|v| v.is_finite()) {
                true => found.push(Summary::median(name, unit, &values)),
                false => found.push(Summary::missing(name, unit, "a window took no time that could be seen".into())),
            }
        };
        add("counted", "1", &|w| w.sums.counted as f64);
        add("counted_per_second", "1/s", &|w| w.sums.counted as f64 / w.sums.seconds);
        add("first_count", "s", &|w| w.sums.first.0 / w.sums.first.1 as f64);
    }
    for metric in metrics(runs) {
        let each = marked.iter().map(|w| (w.energy.get(metric), w.sums.seconds / w.sums.windows as f64));
        match joules_of(each, periods.get(metric).copied()) {
            Err(why) => found.push(Summary::missing(&format!("{metric}_windows"), "J", why)),
            Ok(values) => {
                found.push(
                    Summary::mean(&format!("{metric}_windows"), "J", &values).with("gross, of the whole machine"),
                );
                if counted {
                    let off = values.iter().map(|v| v.1 / v.0).sum::<f64>() / values.len() as f64;
                    let per: Vec<f64> = values.iter().zip(&marked).map(|(j, w)| w.sums.counted as f64 / j.0).collect();
                    let mut per = Summary::median(
                        &format!("counted_per_joule_{}", metric.trim_start_matches("energy_")),
                        "1/J",
                        &per,
                    );
                    per.lower = per.lower.map(|l| l / (1.0 + off));
                    per.upper = per.upper.map(|u| if off < 1.0 { u / (1.0 - off) } else { f64::INFINITY });
                    found.push(per);
                }
            }
        }
    }
    found
}

/// Ratio of two commands in each round, the second's over the first's: above 1 the first took less.
pub fn ratios(first: &[MeteredRun], second: &[MeteredRun], periods: &Periods) -> Vec<Summary> {
    let mut found = Vec::new();
    let mut add = |name: &str, of: &dyn Fn(&MeteredRun) -> Option<f64>, off: f64| {
        let pairs: Option<Vec<f64>> =
            first.iter().zip(second).map(|(a, b)| Some(of(b)? / of(a)?)).map(|r| r.filter(|r| r.is_finite())).collect();
        let Some(pairs) = pairs.filter(|p| !p.is_empty()) else {
            return found.push(Summary::missing(name, "1", "a round lacks one of the two".into()));
        };
        let mut ratio = Summary::median(name, "1", &pairs);
        ratio.method = ratio.method.replace("runs", "rounds").replace("run", "round");
        ratio.lower = ratio.lower.map(|l| l * (1.0 - off).max(0.0));
        ratio.upper = ratio.upper.map(|u| u * (1.0 + off));
        found.push(ratio);
    };
    add("wall", &|r| Some(r.wall), 0.0);
    add("cpu_time", &|r| Some(r.cpu).filter(|s| *s > 0.0), 0.0);
    add("memory_peak", &|r| r.memory.as_ref().ok().map(|m| m.bytes as f64), 0.0);
    let all: Vec<&MeteredRun> = first.iter().chain(second).collect();
    for metric in metrics(first) {
        let period = periods.get(metric).copied();
        let of = |r: &MeteredRun| believed(r.energy.get(metric)?, r.wall, period).ok();
        // both may be off at once, in opposite directions
        let off = 2.0 * all.iter().filter_map(|r| of(r)).map(|(j, e)| e / j).fold(0.0, f64::max);
        add(metric, &|r| of(r).map(|(joules, _)| joules), off);
    }
    if all.iter().all(|r| matches!(&r.marked, Some(Ok(_)))) {
        let of = |r: &MeteredRun| r.marked.as_ref()?.as_ref().ok().map(|w| w.sums.seconds);
        add("windows", &of, 0.0);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::marks::{Marked, parse};
    use super::super::{End, InWindows, MemoryPeak};
    use super::*;

    fn run(wall: f64, joules: Joules) -> MeteredRun {
        MeteredRun {
            end: End::Code(0),
            wall,
            cpu: wall / 2.0,
            memory: Ok(MemoryPeak { bytes: 1 << 20, several: false, unseen: 0.0 }),
            processes: 1,
            left: 0,
            energy: BTreeMap::from([("energy_cpu", joules)]),
            marked: None,
            notes: Vec::new(),
            harness_cpu: 0.0,
            foreign: None,
            words: String::new(),
        }
    }

    fn summary(runs: &[MeteredRun], name: &str) -> Summary {
        let all = of(runs, &BTreeMap::from([("energy_cpu".to_string(), vec![9.9, 10.1, 10.0])]), &Periods::new());
        all.into_iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn few_runs_have_no_interval_and_say_so() {
        let one = summary(&[run(1.0, Ok((20.0, 0.02)))], "wall");
        assert_eq!((one.value, one.lower, one.n), (Some(1.0), None, 1));
        assert!(one.method.contains("one run"), "{}", one.method);
        let five: Vec<MeteredRun> = (1..=5).map(|i| run(f64::from(i), Ok((20.0, 0.02)))).collect();
        let wall = summary(&five, "wall");
        assert!(wall.lower.is_none() && wall.method.contains("an interval needs 6"), "{}", wall.method);
        let six: Vec<MeteredRun> = (1..=6).map(|i| run(f64::from(i), Ok((20.0 * f64::from(i), 0.1)))).collect();
        let wall = summary(&six, "wall");
        assert_eq!((wall.value, wall.lower, wall.upper), (Some(3.5), Some(1.0), Some(6.0)));
        let energy = summary(&six, "energy_cpu");
        assert!((energy.value.unwrap() - 70.0).abs() < 1e-9 && energy.upper.unwrap() > 100.0, "{energy:?}");
        let above = summary(&six, "energy_cpu_above_idle");
        assert!((above.value.unwrap() - 35.0).abs() < 1e-9, "20 W of which 10 are idle, over 3.5 s: {above:?}");
    }

    #[test]
    fn what_is_above_idle_is_no_better_known_than_idle_power() {
        // runs that are all alike: what is not known is in the edges, and in idle power over 60 s
        let runs = vec![run(60.0, Ok((1500.0, 0.6))); 6];
        let above = |readings: &[f64]| {
            let idle = BTreeMap::from([("energy_cpu".to_string(), readings.to_vec())]);
            of(&runs, &idle, &Periods::new()).into_iter().find(|s| s.name == "energy_cpu_above_idle").unwrap()
        };
        let steady = above(&[20.0; 10]);
        assert_eq!((steady.value, steady.n), (Some(300.0), 6));
        assert!((steady.lower.unwrap() - 299.4).abs() < 1e-9 && (steady.upper.unwrap() - 300.6).abs() < 1e-9);
        // 5 % off in half of the readings: one watt over 60 s
        let drifted = above(&[20.0, 20.0, 20.0, 20.0, 20.0, 21.0, 21.0, 21.0, 21.0, 21.0]);
        assert!((drifted.value.unwrap() - 270.0).abs() < 1e-9, "{drifted:?}");
        assert!(drifted.lower.unwrap() <= 240.0 && drifted.upper.unwrap() >= 300.0, "{drifted:?}");
        assert!(drifted.method.contains("10 readings of idle power"), "{}", drifted.method);
        let once = above(&[20.0]);
        assert!(once.lower.is_none() && once.method.contains("idle power was read once"), "{once:?}");
        // above idle and gross are both means: their difference is idle power over the mean time
        let uneven: Vec<MeteredRun> = [1.0, 1.0, 1.0, 9.0].map(|wall| run(wall, Ok((20.0 * wall, 0.001)))).to_vec();
        let (gross, above) = (summary(&uneven, "energy_cpu"), summary(&uneven, "energy_cpu_above_idle"));
        assert!((gross.value.unwrap() - above.value.unwrap() - 10.0 * 3.0).abs() < 1e-9, "{gross:?} {above:?}");
    }

    #[test]
    fn a_peak_says_what_was_not_looked_at() {
        let mut some = run(1.0, Err("none".into()));
        some.memory = Ok(MemoryPeak { bytes: 1 << 20, several: true, unseen: 0.3 });
        let peak = summary(&[some.clone()], "memory_peak");
        assert!(peak.method.contains("30 % of its page faults") && peak.method.contains("share"), "{peak:?}");
        some.memory = Err("too short".into());
        assert_eq!(summary(&[some], "memory_peak").missing.as_deref(), Some("too short"));
    }

    #[test]
    fn a_window_too_short_for_its_counter_has_no_number_and_says_how_long_it_would_have_to_be() {
        let short = summary(&[run(0.01, Ok((0.5, 0.4)))], "energy_cpu");
        let why = short.missing.unwrap();
        assert!(short.value.is_none() && why.contains("80 % of its energy"), "{why}");
        assert!(why.contains("at least 16.0 ms") && why.contains("1 % 800 ms"), "{why}");
        let unmoved = believed(&Err(crate::meters::unmoved(0.001, 0.1)), 0.001, Some(0.1)).unwrap_err();
        assert!(unmoved.contains("at least 400 ms") && unmoved.contains("1 % 20.0 s"), "{unmoved}");
        // any other reason stays as it is
        assert_eq!(believed(&Err("reset".into()), 1.0, Some(0.1)), Err("reset".into()));
    }

    #[test]
    fn ratios_are_by_rounds_and_above_one_where_the_first_takes_less() {
        let first: Vec<MeteredRun> = (0..6).map(|i| run(1.0 + f64::from(i), Ok((10.0, 0.1)))).collect();
        let second: Vec<MeteredRun> = (0..6).map(|i| run(2.0 * (1.0 + f64::from(i)), Ok((30.0, 0.3)))).collect();
        let all = ratios(&first, &second, &Periods::new());
        let of = |name: &str| all.iter().find(|s| s.name == name).unwrap();
        // rounds differ sixfold, and their ratios do not
        assert_eq!((of("wall").value, of("wall").lower, of("wall").upper), (Some(2.0), Some(2.0), Some(2.0)));
        let energy = of("energy_cpu");
        assert!((energy.value.unwrap() - 3.0).abs() < 1e-9 && energy.lower.unwrap() < 2.95, "{energy:?}");
        assert!(of("wall").method.contains("6 rounds"), "{}", of("wall").method);
        let few = ratios(&first[..3], &second[..3], &Periods::new());
        assert!(few[0].lower.is_none() && few[0].method.contains("3 rounds; an interval needs 6"), "{}", few[0].method);
    }

    #[test]
    fn windows_have_rates_and_none_if_a_run_has_no_marks() {
        let mut with = run(10.0, Ok((100.0, 0.1)));
        let mut sums = Marked::default();
        for (line, at) in [("begin", 4.0), ("token 30", 5.0), ("token 30", 9.0), ("end", 10.0)] {
            sums.heard(&parse(format!("ergometer:{line}").as_bytes()).unwrap(), at);
        }
        let sums = sums.finish().unwrap().unwrap();
        let energy = BTreeMap::from([("energy_cpu", Ok((30.0, 0.03)))]);
        with.marked = Some(Ok(InWindows { sums, cpu: 3.0, energy }));
        let value = |name: &str| summary(std::slice::from_ref(&with), name).value;
        assert_eq!((value("windows"), value("before_windows"), value("counted")), (Some(6.0), Some(4.0), Some(60.0)));
        assert_eq!((value("counted_per_second"), value("first_count")), (Some(10.0), Some(1.0)));
        assert_eq!((value("energy_cpu_windows"), value("counted_per_joule_cpu")), (Some(30.0), Some(2.0)));
        let both = [with.clone(), run(10.0, Ok((100.0, 0.1)))];
        assert!(summary(&both, "windows").missing.unwrap().contains("1 of 2 runs wrote marks"));
    }
}
