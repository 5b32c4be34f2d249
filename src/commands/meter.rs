//! `ergometer meter`: any program from outside: time, processor time, memory of its process tree, energy; windows by its own marks.
//!
//! In: a command, perhaps another to hold it against. Out: a table, or JSON. Must not: know what the program does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use ergometer_reports::format::{join, number, scaled_unit};
use serde_json::{Value, json};

use super::flags;
use crate::clock::monotonic_ns;
use crate::console::{self, outln};
use crate::interrupt;
use crate::meters::{MeterOptions, Meters};
use crate::program::summary::{self, Summary, shown_watts};
use crate::program::words::words;
use crate::program::{Both, End, MeteredProgram, MeteredRun};
use crate::runner::turns;

/// Version of what `--json` prints.
const SCHEMA: u32 = 1;

/// Most rounds.
const MAX_ROUNDS: u32 = 10_000;

/// Share by which idle power before and after may differ before it is said.
const DRIFT: f64 = 0.1;

const EXAMPLES: &str = "Examples:
  ergometer meter -- sleep 1
  ergometer meter --rounds 6 -- python3 -c 'print(sum(range(10**7)))'
  ergometer meter --rounds 6 --versus 'sleep 0.2' -- sleep 0.1

Marks: a program that prints lines `ergometer:begin`, `ergometer:token 17` (17
more things are done) and `ergometer:end`, on stdout or into the pipe whose
number is in ERGOMETER_MARKS, has windows without its load time, and counts per
second and per joule.";

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
    interrupt::words(|| "nothing was kept; the commands were ended".into());
    crate::orphans::adopt()?;
    let options = MeterOptions::from_env();
    let mut meters = Both { whole: Meters::probe(&options), marked: Meters::probe(&options) };
    let before = meters.whole.idle_watts(Duration::from_secs_f64(args.idle));
    meters.marked.set_idle(&before);
    let seed = args.seed.unwrap_or_else(monotonic_ns);
    let order = turns(seed, all.len(), rounds as usize);
    let failed = measure(&mut all, &order, &mut meters, args.ignore_failure)?;
    let after =
        if failed.is_some() { BTreeMap::new() } else { meters.whole.idle_watts(Duration::from_secs_f64(args.idle)) };
    let idle = Idle { before, after };
    if args.json {
        console::json(&as_json(&all, &order, seed, &idle, &meters.whole, failed.as_deref()))?;
    } else if failed.is_none() {
        table(&all, &idle, &meters.whole);
    }
    if let Some(why) = failed {
        console::warn(format!("failed: {why}"));
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// W by metric of the idle machine.
struct Idle {
    before: BTreeMap<String, f64>,
    after: BTreeMap<String, f64>,
}

impl Idle {
    /// What to say of idle power: what it was, and that it was another one afterwards.
    fn notes(&self) -> Vec<String> {
        let one = |(metric, before): (&String, &f64)| match self.after.get(metric) {
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
        self.before.iter().map(one).collect()
    }
}

/// Runs every round; gives why it was given up, if it was.
fn measure(
    all: &mut [Metered],
    order: &[Vec<usize>],
    meters: &mut Both,
    ignore: bool,
) -> anyhow::Result<Option<String>> {
    let count = order.len();
    for (round, turn) in order.iter().enumerate() {
        for &which in turn {
            let metered = &mut all[which];
            let run = metered.program.run(meters)?;
            console::detail(|| {
                format!("round {} of {count}: {:.3} s, {:?}: {}", round + 1, run.wall, run.end, metered.shown)
            });
            let problem = problem(&run, &metered.program);
            let ended = run.end.clone();
            metered.runs.push(run);
            if let Some(problem) = problem.filter(|_| !(ignore && matches!(ended, End::Code(_)))) {
                let hint = match ended {
                    End::Code(_) => "\nhint: `--ignore-failure` meters it all the same, `--show` shows what it prints",
                    End::Signal(_) => "\nhint: `--show` shows what it prints",
                    End::Timeout => "\nhint: raise `--timeout` if it needs longer",
                };
                let place = if count > 1 { format!("in round {} of {count} ", round + 1) } else { String::new() };
                return Ok(Some(format!("{place}`{}` {problem}{hint}", metered.shown)));
            }
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

/// What readers must know of runs beside their numbers.
fn notes(metered: &Metered) -> Vec<String> {
    let runs = &metered.runs;
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

/// One line a quantity; methods and reasons are said once, below.
fn table(all: &[Metered], idle: &Idle, meters: &Meters) {
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
        None => format!("– {}", footnote(&summary.missing.as_deref().unwrap_or("not there").replace("\nhint: ", "; "))),
    };
    let summaries: Vec<Vec<Summary>> = all.iter().map(|m| summary::of(&m.runs, &idle.before, meters)).collect();
    let ratios = all.get(1).map(|other| summary::ratios(&all[0].runs, &other.runs, meters)).unwrap_or_default();
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
        notes(metered).iter().for_each(|note| outln!("note: {which}{note}"));
    }
    idle.notes().iter().for_each(|note| outln!("note: {note}"));
    if all[0].runs.len() < 6 {
        let what = if all.len() > 1 { "ratios" } else { "runs" };
        outln!("next: intervals of {what} need `--rounds 6` at least");
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

/// Everything, for programs.
fn as_json(
    all: &[Metered],
    order: &[Vec<usize>],
    seed: u64,
    idle: &Idle,
    meters: &Meters,
    failed: Option<&str>,
) -> Value {
    let commands: Vec<Value> = all
        .iter()
        .map(|m| {
            let runs: Vec<Value> = m.runs.iter().map(one_run).collect();
            let summary = if failed.is_some() { Vec::new() } else { summary::of(&m.runs, &idle.before, meters) };
            json!({"command": m.program.words, "runs": runs, "summary": summary, "notes": notes(m)})
        })
        .collect();
    let ratios =
        all.get(1).filter(|_| failed.is_none()).map(|other| summary::ratios(&all[0].runs, &other.runs, meters));
    json!({
        "schema": SCHEMA, "ergometer": env!("CARGO_PKG_VERSION"), "seed": seed, "order": order, "meters": meters.states(), "domains": meters.facts(),
        "idle_watts": {"before": idle.before, "after": idle.after}, "commands": commands, "ratios": ratios, "failed": failed,
    })
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
        "end": end, "wall": run.wall, "cpu_time": run.cpu, "memory_peak": run.memory.map(|m| m.0), "processes": run.processes,
        "left_behind": run.left, "energy": joules(&run.energy), "windows": windows, "harness_cpu": run.harness_cpu, "foreign_load": run.foreign,
    })
}
