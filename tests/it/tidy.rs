//! The house rules that a compiler does not check: one file and one line per part, a head on every file, no file too long.
//!
//! In: the files that git tracks (all files where there is no git). Out: the list of offences. Must not: judge style beyond these rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ergometer::backends::BACKENDS;
use ergometer::meters::METERS;
use ergometer::models::FAMILIES;
use ergometer_reports::metric::METRICS;
use ergometer_reports::render::FORMATS;
use ergometer_suites::TASKS;

use crate::house::{root, skip};

/// Longest source file, in lines.
const MAX_LINES: usize = 600;

/// Tracked files, relative to the root.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let names = match listed {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        _ => crate::house::tree(root())
            .into_keys()
            .map(|p| p.display().to_string() + "\n")
            .filter(|p| !p.starts_with("target"))
            .collect(),
    };
    names.lines().map(PathBuf::from).filter(|p| root().join(p).is_file()).collect()
}

/// Tracked Rust files, relative to the root, with their text.
pub fn sources() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    rust.map(|p| (p.clone(), fs::read_to_string(root().join(p)).unwrap())).collect()
}

#[test]
fn every_source_file_says_what_it_is_and_stays_short() {
    let sources = sources();
    assert!(sources.len() > 50, "{} files found", sources.len());
    let mut offences = Vec::new();
    for (path, text) in &sources {
        if !text.starts_with("//! ") {
            offences.push(format!("{}: begin with a `//!` paragraph: what it is, In, Out, Must not", path.display()));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            offences.push(format!("{}: {lines} lines, {MAX_LINES} are the most; split it", path.display()));
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn unsafe_code_and_leftovers_stay_out() {
    // written so that this file does not hold them
    let leftovers = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let mut offences = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let keyword = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|k| code.contains(k));
            // this file names the words
            if keyword && !path.starts_with("kernels") && !path.ends_with("it/tidy.rs") {
                offences.push(format!("{}:{}: unsafe code outside of kernels", path.display(), number + 1));
            }
            if leftovers.iter().any(|l| code.contains(l)) {
                offences.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

/// Names of the parts in a folder: files and folders that are no helpers.
fn parts(folder: &str, helpers: &[&str]) -> BTreeSet<String> {
    let names = fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path());
    let stems = names
        .filter(|p| p.is_dir() || p.extension().is_some_and(|e| e == "rs"))
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_string());
    stems.filter(|n| n != "mod" && n != "tests" && !helpers.contains(&n.as_str())).collect()
}

#[test]
fn every_part_has_its_file_and_its_line() {
    let set = |names: Vec<&str>| names.into_iter().map(str::to_string).collect::<BTreeSet<_>>();
    assert_eq!(
        parts("src/backends", &["session", "probe", "file", "language", "cached"]),
        set(BACKENDS.iter().map(|b| b.name()).collect()),
        "BACKENDS"
    );
    assert_eq!(parts("src/meters", &["respawn", "tally"]), set(METERS.iter().map(|m| m.name).collect()), "METERS");
    assert_eq!(parts("reports/src/render", &[]), set(FORMATS.iter().map(|f| f.name).collect()), "FORMATS");
    // a family's file may be called otherwise than its `model_type`, so that their constants are compared
    let others = ["blocks", "decoder", "embedding", "file", "interface", "language", "random", "tensors", "weights"];
    let families = parts("src/models", &others);
    let slice = fs::read_to_string(root().join("src/models/mod.rs")).unwrap();
    assert_eq!(families.len(), FAMILIES.len());
    assert!(families.iter().all(|f| slice.contains(&format!("{f}::FAMILY"))), "FAMILIES: {families:?}");
    let operators = parts("src/graph/op", &[]);
    let lines = fs::read_to_string(root().join("src/graph/op/mod.rs")).unwrap();
    assert!(operators.iter().all(|f| lines.contains(&format!("({f}::"))), "operators!: {operators:?}");
    // tasks of language are constants of one folder
    let (of_language, tasks): (Vec<_>, Vec<_>) = TASKS.iter().partition(|t| t.about.starts_with("language: "));
    let lines = fs::read_to_string(root().join("suites/src/language/mod.rs")).unwrap();
    assert!(of_language.iter().all(|t| lines.contains(&format!("pub const {}: Task", t.name.to_uppercase()))));
    let tasks: Vec<&str> = tasks.iter().map(|t| t.name).collect();
    for task in &tasks {
        let path = root().join("suites/src").join(task);
        assert!(path.is_dir() || path.with_extension("rs").is_file(), "{task} has no file");
    }
    let suites = fs::read_dir(root().join("suites/src")).unwrap().map(|e| e.unwrap().path());
    let with_task = |p: &PathBuf| {
        let file = if p.is_dir() { p.join("mod.rs") } else { p.clone() };
        fs::read_to_string(file).is_ok_and(|t| t.lines().any(|l| l.starts_with("pub const TASK: Task =")))
    };
    let files: BTreeSet<String> =
        suites.filter(with_task).map(|p| p.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    assert_eq!(files, set(tasks), "TASKS");
}

#[test]
fn no_command_knows_a_task_by_name() {
    let names: Vec<&str> =
        TASKS.iter().flat_map(|t| std::iter::once(t.name).chain(t.quick_sets().iter().map(|set| set.name))).collect();
    assert!(names.len() > TASKS.len());
    let mut commands = 0;
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("src/commands")) {
        commands += 1;
        // help and tests may show examples
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//") && !line.contains("after_help"));
        let found = lines.flat_map(|line| names.iter().filter(move |name| line.contains(&format!("\"{name}\""))));
        assert_eq!(found.collect::<Vec<_>>(), Vec::<&&str>::new(), "{}", path.display());
    }
    assert!(commands > 10);
}

#[test]
fn no_text_holds_a_path_of_a_machine() {
    // put together here, so that this file does not hold them
    let homes: Vec<String> = ["work/", "root/", "home/", "Users/", "tmp/"].iter().map(|h| format!("/{h}")).collect();
    let mut offences = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let found = homes.iter().any(|h| {
                line.match_indices(h.as_str()).any(|(at, _)| {
                    // a path begins here: not `reports/tmp/x` and not `$HOME/root/x`
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}/".contains(c))
                })
            });
            if found && !allowed(&path) {
                offences.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim().chars().take(120).collect::<String>()
                ));
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn no_text_names_where_packages_were_fetched() {
    // put together here, so that this file does not hold them
    let hosts = [
        ("crates", "io"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("golang", "org"),
        ("jfrog", "io"),
    ]
    .map(|(name, end)| format!("{name}.{end}"));
    let mut offences = Vec::new();
    for path in files() {
        // cargo itself writes where each package comes from
        if path.ends_with("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(host) = hosts.iter().find(|h| line.contains(h.as_str())) {
                offences.push(format!("{}:{}: {host}", path.display(), number + 1));
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut offences = Vec::new();
    let mut links = 0;
    for path in files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        // a golden report links to what lies beside it in a run
        if path.components().any(|c| c.as_os_str() == "golden") {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let folder = root().join(path.parent().unwrap());
        for target in targets(&text) {
            let file = target.split('#').next().unwrap_or("");
            if target.contains("://") || target.starts_with("mailto:") || file.is_empty() {
                continue;
            }
            links += 1;
            if !folder.join(file).exists() {
                offences.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(links > 10, "{links} links found");
    assert!(offences.is_empty(), "{offences:#?}");
}

/// What the links `[text](target)` of a Markdown text point to, outside of code.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        // every other part between backquotes is code
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("x");
        for rest in prose.split("](").skip(1).filter(|_| !fenced) {
            found.extend(rest.split_once(')').map(|(target, _)| target.to_string()));
        }
    }
    found
}

#[test]
fn links_are_found() {
    let text = "see [a](A.md) and ![b](b/c.svg#x), not `[c](d)`\n```\n[e](f)\n```\n[`g`](h)";
    assert_eq!(targets(text), ["A.md", "b/c.svg#x", "h"]);
}

/// Files in which such a path is an example of what a user may have.
fn allowed(path: &Path) -> bool {
    path.ends_with("Cargo.lock") || path.extension().is_some_and(|e| e == "svg")
}

#[test]
fn a_skipped_test_fails_where_all_are_required() {
    // this test once more, in a process of its own, where it skips
    let name = "tidy::a_skipped_test_fails_where_all_are_required";
    if std::env::var_os("ERGOMETER_TEST_SKIP").is_some() {
        return skip("on purpose");
    }
    let passes = |required: &str| {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", name]).env("ERGOMETER_TEST_SKIP", "1").env("ERGOMETER_REQUIRE", required);
        crate::house::ended(again).code == Some(0)
    };
    assert!(passes("0") && !passes("1"));
}

#[test]
fn methods_explain_every_metric() {
    let Ok(text) = fs::read_to_string(root().join("METHODS.md")) else {
        return skip("METHODS.md is not there");
    };
    // the first column of the table names them, several in a row where they are found alike
    let cells = text.lines().filter_map(|l| l.strip_prefix("| ")?.split(" | ").next());
    let explained: BTreeSet<&str> = cells.flat_map(|c| c.split(", ")).collect();
    let missing: Vec<&str> = METRICS.iter().map(|m| m.name).filter(|m| !explained.contains(m)).collect();
    assert!(missing.is_empty(), "METHODS.md does not explain {missing:?}");
}
