//! `ergometer splice`: tables of recorded runs in a page, made again from their records.
//!
//! In: Markdown pages with marks, and `records.csv` of the folders that the marks name. Out: the pages with their tables, or whether they
//! are up to date. Must not: measure, or touch a page that is up to date.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ergometer_files::Links;
use ergometer_reports::record::from_csv;
use ergometer_reports::splice::splice;

use crate::console::outln;

/// Largest page, bytes.
const MAX_PAGE: u64 = 16 << 20;

/// Flags.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "A table stands between two comments; it is made of records.csv in the folder named there, seen from the page:\n  <!-- records run=recorded/my-run metric=latency rows=model,scenario columns=backend,precision where=threads:2 -->\n  <!-- /records -->\nKeys of rows, columns and where: task, model, family, backend, precision, scenario, threads, depth, isa.\n`where` may be left out.\n\nExamples:\n  ergometer report my-run --format csv --out recorded/my-run\n  ergometer splice PAGE.md\n  ergometer splice PAGE.md --check   exit code 1 where it is not up to date"
)]
pub struct Args {
    /// Markdown pages
    #[arg(required = true, value_name = "PAGE")]
    pages: Vec<PathBuf>,
    /// Write nothing; exit code 1 where a page is not up to date
    #[arg(long)]
    check: bool,
}

/// Runs it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut stale = false;
    for page in &args.pages {
        let bytes = ergometer_files::read(page, MAX_PAGE, Links::Followed)
            .with_context(|| format!("cannot read the page `{}`", page.display()))?;
        let text = String::from_utf8(bytes)
            .with_context(|| format!("the page `{}` is no UTF-8 text\nhint: save it as UTF-8", page.display()))?;
        let from = page.parent().unwrap_or(Path::new(""));
        let made = splice(page, &text, |run| from_csv(&from.join(run).join("records.csv")))?;
        let same = made == text;
        if !same && !args.check {
            ergometer_files::replace(page, made.as_bytes())
                .with_context(|| format!("cannot write the page `{}`", page.display()))?;
        }
        stale |= !same && args.check;
        let state = match (same, args.check) {
            (true, _) => "up to date",
            (false, true) => "not up to date",
            (false, false) => "written",
        };
        outln!("{}: {state}", page.display());
    }
    Ok(if stale { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
