//! The command line: every command, and what happens with errors.
//!
//! In: arguments. Out: an exit code. Must not: do the work of a command.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ergometer_files::{capped_at, remedy};

use crate::commands;
use crate::console::{self, Color};
use crate::{interrupt, orphans};

/// Measures what a right answer costs: accuracy, latency, memory and energy of AI models in the same run.
#[derive(Parser, Debug)]
#[command(name = "ergometer", version, about, long_about = None, disable_help_subcommand = true, after_help = START)]
pub struct Cli {
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    quiet: bool,
    /// Say more: what is started, read and written, what was searched and why cases are measured together, with times
    #[arg(short, long, global = true, help_heading = "Output")]
    verbose: bool,
    /// Colours; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    color: Color,
    #[command(subcommand)]
    command: Option<Commands>,
}

const START: &str = "Start with:\n  ergometer run quick        measure the shipped nets, about three minutes\n  ergometer doctor           what this machine can measure";

/// Said at the end of every help.
const EXIT_CODES: &str =
    "Exit codes: 0 ok, 1 a case failed, 2 bad input or no way to do it, 3 inconclusive, 130 interrupted";

#[derive(Subcommand, Debug)]
enum Commands {
    /// Run a suite: cases into a run folder, with records and a plotted report
    Run(commands::run::Args),
    /// One case, right now: the quick look
    Time(commands::time::Args),
    /// A commented suite for a model
    Init(commands::init::Args),
    /// Any program from outside: its time, memory and energy
    Meter(commands::meter::Args),
    /// A language model speaks, with its tokens a second and per joule
    Generate(commands::generate::Args),
    /// Search a backend's settings for the fastest on this machine
    Tune(commands::tune::Args),
    /// Outputs of a backend against recorded vectors
    Parity(commands::parity::Args),
    /// A model as an ONNX file for other runtimes
    Export(commands::export::Args),
    /// A reduced form of an ONNX file, by ONNX Runtime's own tools
    Compress(commands::compress::Args),
    /// A GGUF file made of another: other types of weights, or experts
    Convert(commands::convert::Args),
    /// Is a program of yours a correct backend?
    External(commands::external::Args),
    /// What trainings took to reach an accuracy, from their logs
    Curve(commands::curve::Args),
    /// A released checkpoint of TRM or HRM as a model; none of its code is run
    Import(commands::import::Args),
    /// Reports from recorded runs alone
    Report(commands::report::Args),
    /// Tables of recorded runs in a Markdown page, made again from their records
    Splice(commands::splice::Args),
    /// Obtain runtimes and data sets by name, pinned and checked
    Fetch(commands::fetch::Args),
    /// A task's examples as a file for any trainer
    Dataset(commands::dataset::Args),
    /// Train a reference model
    #[cfg(feature = "candle")]
    Train(commands::train::Args),
    /// What this machine can measure, what it cannot, and what to do about it
    Doctor(commands::doctor::Args),
    /// What there is: models, backends, tasks, scenarios, meters, metrics, suites, datasets
    List(commands::list::Args),
    /// Completions for a shell, and manual pages
    Completions(commands::completions::Args),
    #[command(hide = true)]
    Worker(commands::worker::Args),
}

/// The command line with the exit codes in every help.
pub(crate) fn definition() -> clap::Command {
    let with_codes = |command: clap::Command| {
        let before = command.get_after_help().map(|h| format!("{h}\n\n")).unwrap_or_default();
        command.after_help(format!("{before}{EXIT_CODES}"))
    };
    with_codes(Cli::command()).mut_subcommands(with_codes)
}

/// A command line, the program's name first. Nothing is run.
///
/// # Errors
/// A mistake, or the help that was asked for, with the text that a user sees.
pub fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> clap::error::Result<Cli> {
    definition().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches))
}

/// Parses and runs.
pub fn main() -> ExitCode {
    interrupt::keep_writing_errors();
    console::finish(dispatch())
}

fn dispatch() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(said) => {
            // help and versions are data, mistakes are not
            console::set(0, console::color_of(std::env::args_os().skip(1)));
            match said.use_stderr() {
                true => console::warn(format!("{}{}", said.render().to_string().trim_end(), choices(&said))),
                false => console::out(&said.render().to_string()),
            }
            return ExitCode::from(said.exit_code() as u8);
        }
    };
    console::set(i8::from(cli.verbose) - i8::from(cli.quiet), cli.color);
    console::detail(|| {
        let home = ergometer_suites::home().map_or("nowhere".into(), |h| h.display().to_string());
        let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
        let version = env!("CARGO_PKG_VERSION");
        format!("ergometer {version}, `{}`; shipped suites and models: {home}", interrupt::shell(&words))
    });
    let starts_others = !matches!(cli.command, None | Some(Commands::Worker(_)));
    if starts_others {
        interrupt::install();
        // where the kernel has no such thing, what hides from its mark is not found
        let _ = orphans::adopt();
    }
    let result = match cli.command {
        None => {
            console::out(&definition().render_help().to_string());
            return ExitCode::SUCCESS;
        }
        Some(Commands::Run(args)) => commands::run::run(args),
        Some(Commands::Init(args)) => commands::init::run(args),
        Some(Commands::Time(args)) => commands::time::run(args),
        Some(Commands::Meter(args)) => commands::meter::run(args),
        Some(Commands::Generate(args)) => commands::generate::run(args),
        Some(Commands::Tune(args)) => commands::tune::run(args),
        Some(Commands::Parity(args)) => commands::parity::run(args),
        Some(Commands::Export(args)) => commands::export::run(args),
        Some(Commands::Convert(args)) => commands::convert::run(args),
        Some(Commands::External(args)) => commands::external::run(args),
        Some(Commands::Curve(args)) => commands::curve::run(args),
        Some(Commands::Import(args)) => commands::import::run(args),
        Some(Commands::Report(args)) => commands::report::run(args),
        Some(Commands::Splice(args)) => commands::splice::run(args),
        Some(Commands::Compress(args)) => commands::compress::run(args),
        Some(Commands::Fetch(args)) => commands::fetch::run(args),
        Some(Commands::Dataset(args)) => commands::dataset::run(args),
        #[cfg(feature = "candle")]
        Some(Commands::Train(args)) => commands::train::run(args),
        Some(Commands::Doctor(args)) => commands::doctor::run(args),
        Some(Commands::List(args)) => commands::list::run(args),
        Some(Commands::Completions(args)) => commands::completions::run(args),
        Some(Commands::Worker(args)) => commands::worker::run(args),
    };
    if starts_others {
        orphans::end_children(&BTreeSet::new());
    }
    result.unwrap_or_else(|error| {
        console::warn(format!("error: {}", explain(&error)));
        // inconclusive is not a fault of the input
        ExitCode::from(if error.is::<crate::runner::Unfit>() { 3 } else { 2 })
    })
}

/// What there is to choose from, where something is missing.
fn choices(said: &clap::Error) -> String {
    if said.kind() != clap::error::ErrorKind::MissingRequiredArgument {
        return String::new();
    }
    let text = said.to_string();
    let names = |list: Vec<(String, std::path::PathBuf)>| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let asked = text.lines().filter(|l| l.starts_with("  ")).collect::<String>();
    let mut lines = String::new();
    let mut add = |what: &str, list: Vec<String>| lines += &format!("\nhint: {what} are {}", list.join(", "));
    if asked.contains("<SUITE>") {
        add("shipped suites", names(ergometer_suites::shipped_suites()));
    }
    if asked.contains("--model") {
        add("shipped models", names(ergometer_suites::shipped_models()));
    }
    if asked.contains("--backend") {
        add("backends", crate::backends::BACKENDS.iter().map(|b| b.name().to_string()).collect());
    }
    if asked.contains("<KIND>") {
        add("kinds", commands::list::kinds().map(str::to_string).collect());
    }
    lines
}

/// Most characters of one cause: longer than any list of ours, and short enough to be read.
const MOST_SAID: usize = 4000;

/// What was tried and why it failed, each cause once, then every hint on a line of its own.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let (mut said, mut hints) = (String::new(), Vec::new());
    for cause in error.chain() {
        let text = cause.to_string();
        let (message, hint) =
            text.split_once("\nhint: ").map_or((text.as_str(), None), |(m, h)| (m, Some(h.to_string())));
        hints.extend(hint);
        // an error that quotes its source already has said it
        if !said.ends_with(message) {
            said += if said.is_empty() { "" } else { ": " };
            said += &capped_at(message.to_owned(), MOST_SAID);
        }
    }
    if hints.is_empty() {
        hints.extend(error.chain().find_map(|cause| remedy(cause.downcast_ref()?)).map(str::to_string));
    }
    hints.dedup();
    hints.into_iter().fold(said, |all, hint| all + "\nhint: " + &hint)
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;
    use ergometer_files::Refusal;

    use super::*;

    #[test]
    fn a_refusal_of_the_system_has_a_remedy_unless_there_is_a_nearer_one() {
        let error = |e: io::Error| explain(&anyhow::Error::from(e).context("cannot read `a`"));
        for (refusal, remedy) in
            [(Refusal::Link, "in the place of the link"), (Refusal::Kind("a device"), "a regular file")]
        {
            let text = error(refusal.into());
            assert!(text.starts_with("cannot read `a`: not a regular file but") && text.contains(remedy), "{text}");
            assert_eq!(text.matches("\nhint: ").count(), 1, "{text}");
        }
        assert!(
            error(io::ErrorKind::StorageFull.into())
                .ends_with("\nhint: free some space, or name a place on another disk")
        );
        let near = Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)).context("no `a`\nhint: make it").unwrap_err();
        assert!(explain(&near).ends_with("\nhint: make it"), "{}", explain(&near));
        assert!(!error(io::Error::other("x")).contains("hint"));
    }
}
