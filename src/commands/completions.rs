//! `ergometer completions`: what a shell needs to complete our words, and manual pages, all made from the definition of the command line.
//!
//! In: the name of a shell, or `man`. Out: a script on stdout; manual pages on stdout or into a folder. Must not: install anything.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::console::{self, outln};
use crate::files::write_atomically;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
bash reads the script from ~/.local/share/bash-completion/completions/ergometer,
zsh from _ergometer in a folder of its fpath, fish from
~/.config/fish/completions/ergometer.fish: write it there with `>`.

Examples:
  ergometer completions bash
  ergometer completions man --out man1")]
pub struct Args {
    /// bash, elvish, fish, powershell or zsh; `man`: manual pages
    #[arg(value_name = "SHELL", value_parser = ["bash", "elvish", "fish", "powershell", "zsh", MAN])]
    shell: String,
    /// `man`: a page for each command into this folder [default: the program's own page, on stdout]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

const MAN: &str = "man";

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut definition = crate::cli::definition();
    match (args.shell.as_str(), args.out) {
        (MAN, None) => console::out(&page(definition)?),
        (MAN, Some(folder)) => {
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
            definition.build();
            let commands = definition.get_subcommands().filter(|c| !c.is_hide_set()).cloned();
            let all: Vec<clap::Command> = std::iter::once(definition.clone()).chain(commands).collect();
            for command in all {
                // the name that users type: `ergometer run`
                let name = command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-");
                let command = command.display_name(name.clone());
                write_atomically(&folder.join(format!("{name}.1")), page(command)?.as_bytes())?;
            }
            outln!("wrote    {}      (man -l {}/ergometer.1)", folder.display(), folder.display());
        }
        (shell, Some(_)) => bail!("`--out` goes with `man`\nhint: `ergometer completions {shell} > FILE`"),
        (shell, None) => {
            let shell = clap_complete::Shell::from_str(shell, true).map_err(anyhow::Error::msg)?;
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut definition, "ergometer", &mut script);
            console::out(&String::from_utf8_lossy(&script));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: clap::Command) -> anyhow::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).context("cannot write a manual page")?;
    String::from_utf8(page).context("a manual page is not UTF-8")
}
