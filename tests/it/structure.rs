//! The house as imports draw it: modules of a crate do not import each other in circles.
//!
//! In: sources. Out: each circle with its imports. Must not: count what tests import, or what a module and those inside of it import of each
//! other.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::sources;

/// Path of a module within its crate.
type Module = Vec<String>;

/// Modules of a crate with their text, without comments and unit tests.
fn modules(source: &str) -> BTreeMap<Module, String> {
    let mut found = BTreeMap::new();
    for (path, text) in sources() {
        let Ok(inner) = path.strip_prefix(source) else { continue };
        let inner = inner.with_extension("");
        let mut module: Module = inner.iter().map(|p| p.to_str().unwrap().to_owned()).collect();
        if module.iter().any(|p| p == "tests") {
            continue;
        }
        if module.last().is_some_and(|l| ["mod", "lib", "main"].contains(&l.as_str())) {
            module.pop();
        }
        let tests = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
        let end = tests.into_iter().filter_map(|t| text.find(t)).min().unwrap_or(text.len());
        let text = &text[..end];
        let lines = text.lines().map(|l| l.split("//").next().unwrap_or(l));
        found.insert(module, lines.collect::<Vec<_>>().join("\n"));
    }
    found
}

/// Every path of a tree of imports: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(tree: &str, before: &[String], into: &mut Vec<Module>) {
    let (mut depth, mut begin) = (0, 0);
    let mut items = Vec::new();
    for (i, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&tree[begin..i]);
                begin = i + 1;
            }
            _ => {}
        }
    }
    items.push(&tree[begin..]);
    for item in items.into_iter().map(str::trim).filter(|i| !i.is_empty()) {
        let head = |text: &str| -> Module {
            let parts = text.split("::").map(|p| p.split_whitespace().next().unwrap_or_default().to_owned());
            before.iter().cloned().chain(parts.filter(|p| !p.is_empty())).collect()
        };
        match item.split_once('{') {
            Some((first, rest)) => {
                let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
                paths(inner, &head(first), into);
            }
            None => into.push(head(item)),
        }
    }
}

/// What a module's text names of its crate.
fn named(text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let alone = text[..at].chars().next_back().is_none_or(|c| c.is_whitespace());
        if let Some((tree, _)) = text[at + 4..].split_once(';').filter(|_| alone) {
            paths(tree, &[], &mut found);
        }
    }
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for word in text.split(|c: char| !part(c)).filter(|w| w.contains("::")) {
        found.push(word.split("::").filter(|p| !p.is_empty()).map(str::to_owned).collect());
    }
    found
}

/// The module that a path leads to, seen from `module`.
fn target<'a>(all: &'a BTreeMap<Module, String>, module: &Module, path: &[String]) -> Option<&'a Module> {
    let mut whole = match path.first()?.as_str() {
        "crate" => Vec::new(),
        _ => module.clone(),
    };
    let mut rest = path;
    while let Some((first, more)) = rest.split_first().filter(|(f, _)| ["crate", "self", "super"].contains(&f.as_str()))
    {
        if first == "super" {
            whole.pop();
        }
        rest = more;
    }
    // a path of another crate begins with none of these words and no module of ours
    if rest.len() == path.len() && !all.contains_key(&[&whole[..], &rest[..1]].concat()) {
        return None;
    }
    whole.extend(rest.iter().cloned());
    (1..=whole.len()).rev().find_map(|n| all.get_key_value(&whole[..n]).map(|(m, _)| m)).filter(|m| *m != module)
}

/// Modules that can be reached from one.
fn reached<'a>(graph: &BTreeMap<&'a Module, BTreeSet<&'a Module>>, from: &'a Module) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        for other in graph.get(module).into_iter().flatten() {
            if seen.insert(*other) {
                next.push(other);
            }
        }
    }
    seen
}

#[test]
fn modules_do_not_import_each_other_in_circles() {
    let mut wrong = Vec::new();
    let mut imports = 0;
    for source in ["src", "reports/src", "suites/src", "kernels/src", "files/src"] {
        let all = modules(source);
        assert!(!all.is_empty(), "{source} has no modules");
        let mut graph: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
        for (module, text) in &all {
            for path in named(text) {
                let Some(other) = target(&all, module, &path) else { continue };
                // what is inside belongs to it
                if !other.starts_with(module) && !module.starts_with(other) {
                    imports += usize::from(graph.entry(module).or_default().insert(other));
                }
            }
        }
        for (module, others) in &graph {
            for other in others.iter().filter(|o| reached(&graph, o).contains(module)) {
                let names = [module, *other].map(|m| format!("{source} {}", m.join("::")));
                wrong.push(format!("{} imports {}", names[0], names[1]));
            }
        }
    }
    assert!(imports > 300, "only {imports} imports were understood");
    assert!(wrong.is_empty(), "circles:\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_understood() {
    let mut found = Vec::new();
    paths("super::{a::{B, c::D as E}, f}", &[], &mut found);
    let found: Vec<String> = found.iter().map(|p| p.join("::")).collect();
    assert_eq!(found, ["super::a::B", "super::a::c::D", "super::f"]);
    let names = |text: &str| text.split("::").map(str::to_owned).collect::<Module>();
    let all: BTreeMap<Module, String> =
        ["", "a", "a::b", "c"].map(|m| (if m.is_empty() { Vec::new() } else { names(m) }, String::new())).into();
    let target = |from: &str, path: &str| target(&all, &names(from), &names(path)).map(|m| m.join("::"));
    assert_eq!(target("a::b", "super::super::c::X"), Some("c".into()));
    assert_eq!(target("c", "crate::a::b::f"), Some("a::b".into()));
    assert_eq!(target("a", "b::f"), Some("a::b".into()));
    assert_eq!(target("a", "std::fs"), None);
    assert_eq!(target("c", "self::X"), None);
}
