//! `ergometer worker`: this program as a worker (hidden; the runner starts it), becoming an external one, as the guard of either, or
//! measuring the machine's ceilings.
//!
//! In: the harness's process number. Out: the protocol on stdout, or the ceilings. Must not: be of use to people.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};

use crate::foreign::Channel;
use crate::orphans;
use crate::protocol::{Failed, FailureKind, Message};
use crate::runner::confinement::{self, Confinement};
use crate::runner::isolation;

/// Flags.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Process number of the harness: the worker ends when that one does
    #[arg(long, required_unless_present_any = ["echo", "speak"], default_value_t = 0, hide_default_value = true)]
    parent: u32,
    /// Show a correct dialogue: what each side says of a small net
    #[arg(long)]
    echo: bool,
    /// Be the worker, whoever the parent is
    #[arg(long, hide = true)]
    speak: bool,
    /// Become this program instead
    #[arg(long, num_args = 1.., allow_hyphen_values = true)]
    exec: Vec<String>,
    /// Processors that the program may use
    #[arg(long, value_delimiter = ',', requires = "exec")]
    cpus: Vec<u32>,
    /// Bytes of private memory that each of its processes may ask for
    #[arg(long, requires = "exec")]
    most_memory: Option<u64>,
    /// Keep it from files but below this folder; without a program: try whether that can be done, and say so
    #[arg(long, requires = "landlock")]
    confine: Option<std::path::PathBuf>,
    /// With rules of this version of Landlock
    #[arg(long, requires = "confine")]
    landlock: Option<u32>,
    /// With namespaces of its own
    #[arg(long, requires = "confine")]
    namespaces: bool,
    /// Kill the process group that this process leads as soon as stdin ends
    #[arg(long, conflicts_with = "exec")]
    guard: bool,
    /// Load a foreign library instead and answer on stdin, which is a socket
    #[arg(long, conflicts_with_all = ["exec", "guard"])]
    foreign: Option<String>,
    /// Keep so many threads busy instead, until it is ended
    #[arg(long, conflicts_with_all = ["exec", "guard"])]
    busy: Option<u32>,
    /// Measure the machine's ceilings at these numbers of threads instead, and print them as JSON
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["exec", "guard"])]
    ceilings: Vec<u32>,
    /// Bytes that its buffers may take
    #[arg(long, default_value_t = 0)]
    most_bytes: u64,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.guard {
        return guard();
    }
    if args.echo {
        return super::external::echo().map(|()| ExitCode::SUCCESS);
    }
    if let Some(name) = &args.foreign {
        return foreign(name).map(|()| ExitCode::SUCCESS);
    }
    if !args.speak {
        crate::worker::die_with_parent(args.parent)?;
    }
    if let Some(threads) = args.busy {
        crate::runner::background::work(threads);
        return Ok(ExitCode::SUCCESS);
    }
    if !args.ceilings.is_empty() {
        let ceilings = crate::ceilings::here(&args.ceilings, args.most_bytes);
        io::stdout().write_all(&serde_json::to_vec(&ceilings)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let namespaces = args.namespaces.then_some(()).ok_or_else(|| "not asked for".to_string());
    let confinement = args.landlock.map(|landlock| Confinement { landlock, namespaces });
    let wanted = args.confine.as_deref().zip(confinement);
    if let Some((folder, confinement)) = wanted.as_ref().filter(|_| args.exec.is_empty()) {
        confinement::rehearse(confinement, folder);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some((program, arguments)) = args.exec.split_first() {
        let confined = wanted.map_or(Ok(()), |(folder, confinement)| confinement.take_on(folder));
        let message = match isolation::limit(&args.cpus, args.most_memory).and(confined) {
            // the wish to die with the parent survives this; on success it does not return
            Ok(()) => std::process::Command::new(program).args(arguments).exec().to_string(),
            Err(error) => format!("{error:#}"),
        };
        let message = format!("cannot start `{program}`: {message}");
        let line = serde_json::to_string(&Message::Failed(Failed { kind: FailureKind::Spawn, message }))?;
        writeln!(io::stdout(), "{line}")?;
        return Ok(ExitCode::from(2));
    }
    // what a library prints must not come between the lines of the protocol: it goes to the log
    let lines = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdout(io::stderr())?;
    crate::worker::run(io::stdin().lock(), io::BufWriter::new(lines))?;
    Ok(ExitCode::SUCCESS)
}

/// From so many processes on that it was told of, the guard forgets those that are gone.
const TOLD: usize = 4096;

/// Sleeps until the harness is gone, and takes with it what its worker has started. The other end of stdin is the harness's alone, so
/// that it closes however the harness ends; lines on it name processes that have left the group.
fn guard() -> anyhow::Result<ExitCode> {
    anyhow::ensure!(getpgrp() == getpid(), "a guard leads the process group that it kills");
    let (mut told, mut most) = (BTreeSet::new(), TOLD);
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let mut numbers = line.split(' ');
        let pid = numbers.next().and_then(|n| n.parse::<u32>().ok());
        told.extend(pid.zip(numbers.next().and_then(|n| n.parse::<u64>().ok())));
        if told.len() > most {
            told.retain(|(pid, began)| orphans::is_there(*pid, *began));
            most = TOLD.max(2 * told.len());
        }
    }
    orphans::end_named(&told);
    if let Ok(mark) = std::env::var(orphans::VARIABLE) {
        orphans::end(&mark);
    }
    kill_current_process_group(Signal::KILL)?;
    Ok(ExitCode::SUCCESS)
}

/// What a process that may load a foreign library does: `nvml` meters boards, any other name is a backend's, which is probed.
pub(crate) fn foreign(name: &str) -> anyhow::Result<()> {
    let channel = Channel::of_child()?;
    #[cfg(feature = "nvml")]
    if name == crate::meters::nvml::METER.name {
        return crate::meters::nvml::serve(channel);
    }
    crate::backends::probe::serve(name, channel)
}
