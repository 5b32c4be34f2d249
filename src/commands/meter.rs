//! `ergometer meter`: any program from outside: time, processor time, memory of its process tree, energy; windows by its own marks.
//!
//! In: a command, perhaps another to hold it against. Out: a table, or JSON, of the rounds that were finished, also where one failed or the
//! whole was interrupted. Must not: know what the program does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use ergometer_reports::format::{join, number, scaled_unit};
use serde_json::{Value, json};

use super::flags;
use crate::clock::monotonic_ns;
use crate::console::{self, outln};
use crate::meters::{METERS, MeterOptions, Meters};
use crate::program::summary::{self, IdleReadings, Periods, Summary, shown_watts};
use crate::program::words::words;
use crate::program::{Both, End, MeteredProgram, MeteredRun};
use crate::runner::turns;
use crate::{interrupt, orphans};

/// Version of what `--json` prints.
const SCHEMA: u32 = 1;

/// Most rounds.
const MAX_ROUNDS: u32 = 10_000;

/// Share by which idle power before and after may differ before it is said.
const DRIFT: f64 = 0.1;

/// Most readings of idle power before, and after; moves of the slowest counter that each takes.
const IDLE_READINGS: usize = 5;
const MOVES: f64 = 20.0;

const EXAMPLES: &str = "Examples:
  ergometer meter -- sleep 1
  ergometer meter --rounds 6 -- python3 -c 'print(sum(range(10**7)))'
  ergometer meter --rounds 6 --versus 'sleep 0.2' -- sleep 0.1

Marks: a program that prints lines `ergometer:begin`, `ergometer:token 17` (17
more things are done) and `ergometer:end`, on stdout or into the pipe whose
number is in ERGOMETER_MARKS, has windows without its load time, and counts per
second and per joule. Flush after each mark: a mark counts when it is heard, and
what is printed into a pipe waits in a buffer (`python3 -u`, `fflush(stdout)`,
`stdbuf -oL`).";

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Runs of each command [default: 1, with --versus 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ROUNDS)), allow_negative_numbers = true)]
    rounds: Option<u32>,
    /// Another command, in quotes, to hold this one against: both in each round, in random balanced order
    #[arg(long, value_name = "CMD")]
    versus: Option<String>,
    /// File that is the standard input of each run [default: empty]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// End a run after so many seconds
    #[arg(long, value_name = "S", value_parser = flags::seconds, allow_negative_numbers = true)]
    timeout: Option<f64>,
    /// Seconds for which the idle machine is metered before and after; 0: not at all
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = flags::tolerance, allow_negative_numbers = true)]
    idle: f64,
    /// Seed of the order [default: of the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Keep on where a run leaves with another exit code than 0
    #[arg(long)]
    ignore_failure: bool,
    /// Show on stderr what the commands print
    #[arg(long)]
    show: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// A command, its name in tables, and its runs.
struct Metered {
    program: MeteredProgram,
    shown: String,
    runs: Vec<MeteredRun>,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let rounds = args.rounds.unwrap_or(if args.versus.is_some() { 10 } else { 1 });
    let program = |words: Vec<String>| MeteredProgram {
        words,
        input: args.input.clone(),
        timeout: args.timeout.map(Duration::from_secs_f64),
        show: args.show,
    };
    let metered = |words: Vec<String>, shown: String| Metered { program: program(words), shown, runs: Vec::new() };
    let mut all = vec![metered(args.command.clone(), interrupt::shell(&args.command))];
    if let Some(line) = &args.versus {
        if line.trim().is_empty() {
            bail!("`--versus` names no command\nhint: give it in quotes, as in `--versus 'gzip -k file'`");
        }
        let shell = || vec!["sh".into(), "-c".into(), line.clone()];
        all.push(metered(words(line).unwrap_or_else(shell), line.clone()));
    }
    orphans::adopt()?;
    let options = MeterOptions::from_env();
    let mut meters = Both { whole: Meters::probe(&options), marked: Meters::probe(&options) };
    let seed = args.seed.unwrap_or_else(monotonic_ns);
    let order = turns(seed, all.len(), rounds as usize);
    let finished = Finished {
        all,
        complete: 0,
        order,
        seed,
        idle: Idle::default(),
        machine: Machine::of(&meters.whole),
        json: args.json,
    };
    let shared = Arc::new(Mutex::new(finished));
    let kept = Arc::clone(&shared);
    interrupt::words(move || held(&kept).interrupted());
    let time = Duration::from_secs_f64(args.idle);
    let before = read_idle(&mut meters.whole, time);
    meters.marked.set_idle(&Idle::means(&before));
    held(&shared).idle.before = before;
    let failed = measure(&shared, &mut meters, args.ignore_failure)?;
    if failed.is_none() || held(&shared).complete > 0 {
        let after = read_idle(&mut meters.whole, time);
        let _gate = interrupt::gate();
        held(&shared).idle.after = after;
    }
    // an interruption waits until all is said, or comes before any of it
    let _gate = interrupt::gate();
    let mut finished = held(&shared);
    finished.machine = Machine::of(&meters.whole);
    finished.print(failed.as_deref())?;
    if let Some(why) = failed {
        let kept = finished.complete;
        let above =
            if kept > 0 && !args.json { format!("; above is what the {kept} before it took") } else { String::new() };
        let (why, hint) = why.split_once('\n').unwrap_or((&why, ""));
        console::warn(format!("failed: {why}{above}\n{hint}").trim_end());
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was metered so far; the interruption reads it too.
struct Finished {
    all: Vec<Metered>,
    /// Rounds in which every command has run and none has failed.
    complete: usize,
    order: Vec<Vec<usize>>,
    seed: u64,
    idle: Idle,
    machine: Machine,
    json: bool,
}

fn held(finished: &Mutex<Finished>) -> MutexGuard<'_, Finished> {
    finished.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the meters say of themselves.
struct Machine {
    periods: Periods,
    states: Value,
    domains: Value,
}

impl Machine {
    fn of(meters: &Meters) -> Self {
        let metrics = METERS.iter().flat_map(|meter| meter.metrics).copied();
        let periods = metrics.filter_map(|metric| Some((metric, meters.period(metric)?))).collect();
        Self { periods, states: json!(meters.states()), domains: json!(meters.facts()) }
    }
}

/// Readings in W by metric of the idle machine.
#[derive(Default)]
struct Idle {
    before: IdleReadings,
    after: IdleReadings,
}

/// Reads the idle machine's power for `time`: several times, where the slowest counter moves often enough.
fn read_idle(meters: &mut Meters, time: Duration) -> IdleReadings {
    let slowest = Machine::of(meters).periods.values().copied().fold(0.0, f64::max);
    let parts = (time.as_secs_f64() / (MOVES * slowest)).min(IDLE_READINGS as f64).max(1.0) as u32;
    let mut readings = IdleReadings::new();
    for _ in 0..parts {
        for (metric, watts) in meters.idle_watts(time / parts) {
            readings.entry(metric).or_default().push(watts);
        }
    }
    meters.set_idle(&Idle::means(&readings));
    readings
}

impl Idle {
    fn means(readings: &IdleReadings) -> BTreeMap<String, f64> {
        readings.iter().map(|(metric, all)| (metric.clone(), all.iter().sum::<f64>() / all.len() as f64)).collect()
    }

    /// All readings, of those metrics that were read before the first run.
    fn all(&self) -> IdleReadings {
        let both = |(metric, before): (&String, &Vec<f64>)| {
            let after = self.after.get(metric).into_iter().flatten();
            (metric.clone(), before.iter().chain(after).copied().collect())
        };
        self.before.iter().map(both).collect()
    }

    /// What to say of idle power: what it was, and that it was another one afterwards.
    fn notes(&self) -> Vec<String> {
        let after = Self::means(&self.after);
        let one = |(metric, before): (&String, &f64)| match after.get(metric) {
            Some(after) if (after - before).abs() > DRIFT * before.abs().max(after.abs()) => format!(
                "idle power of {metric} drifted from {} before to {} after: what is above idle is uncertain by as much",
                shown_watts(*before),
                shown_watts(*after)
            ),
            Some(after) => {
                format!("idle power of {metric}: {} before, {} after", shown_watts(*before), shown_watts(*after))
            }
            None => format!("idle power of {metric}: {} before", shown_watts(*before)),
        };
        Self::means(&self.before).iter().map(one).collect()
    }
}

/// Runs every round; gives why it was given up, if it was.
fn measure(shared: &Mutex<Finished>, meters: &mut Both, ignore: bool) -> anyhow::Result<Option<String>> {
    let order = held(shared).order.clone();
    let count = order.len();
    for (round, turn) in order.iter().enumerate() {
        for &which in turn {
            let (program, shown) = {
                let metered = &held(shared).all[which];
                (metered.program.clone(), metered.shown.clone())
            };
            let run = program.run(meters)?;
            // one that was ended by an interruption is none that failed: here this thread stands still then
            let _gate = interrupt::gate();
            console::detail(|| format!("round {} of {count}: {:.3} s, {:?}: {shown}", round + 1, run.wall, run.end));
            let problem = problem(&run, &program);
            let ended = run.end.clone();
            held(shared).all[which].runs.push(run);
            if let Some(problem) = problem.filter(|_| !(ignore && matches!(ended, End::Code(_)))) {
                let hint = match ended {
                    End::Code(_) => "\nhint: `--ignore-failure` meters it all the same, `--show` shows what it prints",
                    End::Signal(_) => "\nhint: `--show` shows what it prints",
                    End::Timeout => "\nhint: raise `--timeout` if it needs longer",
                };
                let place = if count > 1 { format!("in round {} of {count} ", round + 1) } else { String::new() };
                return Ok(Some(format!("{place}`{shown}` {problem}{hint}")));
            }
        }
        {
            let _gate = interrupt::gate();
            held(shared).complete = round + 1;
        }
        if count > 1 && round + 1 < count && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            console::info(format!("round {} of {count} done", round + 1));
        }
    }
    Ok(None)
}

/// What is wrong with how a run ended.
fn problem(run: &MeteredRun, program: &MeteredProgram) -> Option<String> {
    let said = match run.words.is_empty() {
        true => String::new(),
        false => format!("; its last words: {}", run.words.split_whitespace().collect::<Vec<_>>().join(" ")),
    };
    match run.end {
        End::Code(0) => None,
        End::Code(code) => Some(format!("left with exit code {code}{said}")),
        End::Signal(signal) => Some(format!("was ended by signal {signal}{said}")),
        End::Timeout => Some(format!(
            "did not end within {} s and was killed{said}",
            program.timeout.unwrap_or_default().as_secs_f64()
        )),
    }
}

/// What readers must know of the first `complete` runs beside their numbers.
fn notes(metered: &Metered, complete: usize) -> Vec<String> {
    let runs = &metered.runs[..complete];
    let mut notes: Vec<String> = Vec::new();
    if metered.program.words.first().is_some_and(|w| w == "sh") && !metered.shown.starts_with("sh ") {
        notes.push("it goes through a shell, whose start is in its time".into());
    }
    let mut add = |note: String| {
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    runs.iter().flat_map(|r| &r.notes).for_each(|n| add(n.clone()));
    let left = runs.iter().map(|r| r.left).max().unwrap_or(0);
    if left > 0 {
        add(format!(
            "when it ended it left up to {left} of its processes behind, which were ended; what they used up to then is counted"
        ));
    }
    let codes: Vec<String> = runs.iter().filter(|r| r.end != End::Code(0)).map(|r| format!("{:?}", r.end)).collect();
    if !codes.is_empty() {
        add(format!("{} of {} runs did not leave with exit code 0", codes.len(), runs.len()));
    }
    let foreign = runs.iter().filter_map(|r| r.foreign).fold(0.0, f64::max);
    if foreign >= crate::environment::load::NOTED {
        add(format!(
            "up to {foreign:.2} processors were busy with other programs in a run: its time and its energy hold that"
        ));
    }
    if runs.iter().any(|r| r.harness_cpu > 0.01 * r.wall && r.harness_cpu > 0.02) {
        add("ergometer itself used more than 1 % of a processor in a run".into());
    }
    if runs.iter().any(|r| matches!(&r.marked, Some(Ok(w)) if w.sums.counts_up)) {
        add("the numbers of its marks count up 1, 2, 3: each is taken as so many more, not as a number of things so far".into());
    }
    let late = runs.iter().filter_map(|r| Some(r.marked.as_ref()?.as_ref().ok()?.sums.at_once)).max().unwrap_or(0);
    if late > 0 {
        add(format!("up to {late} windows of a run were heard when they were over, and hold no time"));
    }
    notes
}

/// A summary's value with its interval.
fn shown(summary: &Summary) -> Option<String> {
    let value = summary.value?;
    let (factor, unit) = match summary.unit {
        "1/J" => (1.0, "/J".into()),
        unit => scaled_unit(unit, value),
    };
    let mut text = join(&number(value / factor), &unit);
    if let Some((lower, upper)) = summary.lower.zip(summary.upper) {
        text += &format!(" ({}–{})", number(lower / factor), number(upper / factor));
    }
    Some(text)
}

impl Finished {
    /// The finished rounds: a table of them, if there are any, or JSON.
    fn print(&self, failed: Option<&str>) -> anyhow::Result<()> {
        match self.json {
            true => console::json(&self.as_json(failed)),
            false if self.complete > 0 => {
                self.table();
                Ok(())
            }
            false => Ok(()),
        }
    }

    /// Prints what is finished when all is interrupted; what to say of it.
    fn interrupted(&self) -> String {
        let (complete, count) = (self.complete, self.order.len());
        if complete == 0 || self.print(Some("interrupted")).is_err() {
            return "nothing was kept; the commands were ended".into();
        }
        format!("{complete} of {count} rounds were finished and are told above; the commands were ended")
    }

    /// Every quantity of each command over the finished rounds.
    fn summaries(&self) -> Vec<Vec<Summary>> {
        let idle = self.idle.all();
        let of = |m: &Metered| match self.complete {
            0 => Vec::new(),
            n => summary::of(&m.runs[..n], &idle, &self.machine.periods),
        };
        self.all.iter().map(of).collect()
    }

    /// Ratios of the finished rounds, where there are two commands.
    fn ratios(&self) -> Option<Vec<Summary>> {
        let other = self.all.get(1).filter(|_| self.complete > 0)?;
        let n = self.complete;
        Some(summary::ratios(&self.all[0].runs[..n], &other.runs[..n], &self.machine.periods))
    }

    /// One line a quantity; methods and reasons are said once, below.
    fn table(&self) {
        let all = &self.all;
        let mut said: Vec<String> = Vec::new();
        let mut footnote = |text: &str| {
            let at = said.iter().position(|known| known == text).unwrap_or_else(|| {
                said.push(text.to_string());
                said.len() - 1
            });
            format!("[{}]", at + 1)
        };
        let mut cell = |summary: &Summary| match shown(summary) {
            Some(value) => format!("{value} {}", footnote(&summary.method)),
            None => {
                format!("– {}", footnote(&summary.missing.as_deref().unwrap_or("not there").replace("\nhint: ", "; ")))
            }
        };
        let (summaries, ratios) = (self.summaries(), self.ratios().unwrap_or_default());
        let mut names: Vec<&str> = Vec::new();
        for summary in summaries.iter().flatten() {
            if !names.contains(&summary.name.as_str()) {
                names.push(&summary.name);
            }
        }
        let mut rows = Vec::new();
        if all.len() > 1 {
            rows.push(["", "command", "versus", "versus / command"].map(String::from).to_vec());
        }
        for name in names {
            let mut row = vec![name.to_string()];
            for of in summaries.iter().chain((all.len() > 1).then_some(&ratios)) {
                row.push(of.iter().find(|s| s.name == name).map(&mut cell).unwrap_or_default());
            }
            rows.push(row);
        }
        outln!("command  {}", all[0].shown);
        if let Some(other) = all.get(1) {
            outln!("versus   {}", other.shown);
        }
        outln!();
        console::out(&aligned(&rows));
        for (i, text) in said.iter().enumerate() {
            outln!("[{}] {text}", i + 1);
        }
        for (metered, which) in all.iter().zip(["command", "versus"]) {
            let which = if all.len() > 1 { format!("{which}: ") } else { String::new() };
            notes(metered, self.complete).iter().for_each(|note| outln!("note: {which}{note}"));
        }
        self.idle.notes().iter().for_each(|note| outln!("note: {note}"));
        if self.complete < self.order.len() {
            outln!("note: {} of {} rounds were finished: the numbers are of those", self.complete, self.order.len());
        }
        if self.complete < 6 {
            let what = if all.len() > 1 { "ratios" } else { "runs" };
            outln!("next: intervals of {what} need `--rounds 6` at least");
        }
    }

    /// Everything, for programs.
    fn as_json(&self, failed: Option<&str>) -> Value {
        let one = |(m, summary): (&Metered, Vec<Summary>)| {
            let runs: Vec<Value> = m.runs.iter().map(one_run).collect();
            json!({"command": m.program.words, "runs": runs, "summary": summary, "notes": notes(m, self.complete)})
        };
        let commands: Vec<Value> = self.all.iter().zip(self.summaries()).map(one).collect();
        let idle = json!({
            "before": Idle::means(&self.idle.before), "after": Idle::means(&self.idle.after), "readings": self.idle.all(),
        });
        json!({
            "schema": SCHEMA, "ergometer": env!("CARGO_PKG_VERSION"), "seed": self.seed, "order": self.order, "meters": self.machine.states,
            "domains": self.machine.domains, "idle_watts": idle, "rounds": self.complete, "commands": commands, "ratios": self.ratios(),
            "failed": failed,
        })
    }
}

/// Columns of numbers, each as wide as its widest cell: none of them is broken, whatever the terminal's width.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

fn one_run(run: &MeteredRun) -> Value {
    let joules = |energy: &BTreeMap<&'static str, crate::program::Joules>| -> Value {
        let one = |j: &crate::program::Joules| match j {
            Ok((joules, edges)) => json!({"joules": joules, "edges": edges}),
            Err(why) => json!({"missing": why}),
        };
        energy.iter().map(|(metric, j)| (metric.to_string(), one(j))).collect::<serde_json::Map<_, _>>().into()
    };
    let end = match run.end {
        End::Code(code) => json!({"code": code}),
        End::Signal(signal) => json!({"signal": signal}),
        End::Timeout => json!({"timeout": true}),
    };
    let windows = run.marked.as_ref().map(|marked| match marked {
        Ok(w) => json!({
            "windows": w.sums.windows, "seconds": w.sums.seconds, "counted": w.sums.counted, "before": w.sums.before, "cpu_time": w.cpu,
            "energy": joules(&w.energy),
        }),
        Err(why) => json!({"missing": why}),
    });
    json!({
        "end": end, "wall": run.wall, "cpu_time": run.cpu, "memory_peak": run.memory.as_ref().ok().map(|m| m.bytes), "processes": run.processes,
        "left_behind": run.left, "energy": joules(&run.energy), "windows": windows, "harness_cpu": run.harness_cpu, "foreign_load": run.foreign,
    })
}
