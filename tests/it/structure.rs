//! The house as imports draw it: modules of a crate do not import each other in circles.
//!
//! In: sources. Out: each circle with its imports. Must not: count what tests import, or what a module and those inside of it import of each
//! other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    for source in ["src", "reports/src", "suites/src", "kernels/src", "files/src", "language/src"] {
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

/// Whether a file holds tests and nothing that others use.
fn is_test(path: &Path) -> bool {
    let path = path.display().to_string();
    path.starts_with("tests/") || path.contains("/tests/") || path.contains("/benches/") || path.ends_with("tests.rs")
}

/// Name of the type that a line declares for others, if it does.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().skip_while(|w| *w == "unsafe");
    let kind = words.next()?;
    let name = words.next().filter(|_| ["struct", "enum", "trait", "union", "type"].contains(&kind))?;
    Some(name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or(name))
}

#[test]
fn no_two_types_have_one_name() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in sources() {
        // a mirror of ONNX's own names
        if is_test(&path) || path.ends_with("onnx/proto.rs") {
            continue;
        }
        for name in text.lines().filter_map(declared) {
            // each command has its arguments
            if !(name == "Args" && path.starts_with("src/commands")) {
                found.entry(name.to_owned()).or_default().push(path.display().to_string());
            }
        }
    }
    assert!(found.len() > 300, "{} types found", found.len());
    let twice: Vec<_> = found.into_iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(twice.is_empty(), "types of one name, of which all but one want a name that says more: {twice:#?}");
}

#[test]
fn declarations_of_types_are_recognised() {
    let cases = [
        ("pub struct A {", Some("A")),
        ("    pub(super) enum B<T> {", Some("B")),
        ("pub(crate) type C = u8;", Some("C")),
        ("pub unsafe trait D: Send {", Some("D")),
        ("pub fn struct_of() {", None),
        ("struct Private;", None),
        ("pub const E: u8 = 1;", None),
    ];
    for (line, name) in cases {
        assert_eq!(declared(line), name, "{line}");
    }
}

/// Lines that a function may have without a reason.
const MAX_FUNCTION: usize = 80;

/// What stands above a longer one.
const REASON: &str = "// Over 80 lines: ";

/// Functions longer than [`MAX_FUNCTION`] lines without a [`REASON`] above: line and length. Formatted code is expected.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let before_name = line.trim_start().split("fn ").next().unwrap_or_default();
        let qualifiers = ["pub", "const", "async", "unsafe", "extern"];
        let is_function = line.contains("fn ")
            && before_name.split_whitespace().all(|w| qualifiers.iter().any(|q| w.starts_with(q)) || w == "\"C\"")
            && !line.ends_with(';')
            && !line.ends_with('}');
        if !is_function {
            continue;
        }
        let close = format!("{indent}}}");
        let length = lines[i..].iter().position(|l| *l == close).map_or(0, |n| n + 1);
        let above = lines[..i].iter().rev().take_while(|l| {
            let l = l.trim_start();
            l.starts_with("//") || l.starts_with("#[") || l.starts_with(')')
        });
        if length > MAX_FUNCTION && !above.into_iter().any(|l| l.trim_start().starts_with(REASON)) {
            found.push((i + 1, length));
        }
    }
    found
}

#[test]
fn long_functions_say_why() {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        for (line, length) in long_functions(&text) {
            offences.push(format!("{}:{line}: {length} lines", path.display()));
        }
    }
    assert!(offences.is_empty(), "split them, or write `{REASON}...` above: {offences:#?}");
}

#[test]
fn long_functions_are_found() {
    let body = "    x;\n".repeat(MAX_FUNCTION);
    let long = format!("fn a() {{\n    x;\n}}\n\npub(super) const fn b(\n    x: u8,\n) {{\n{body}}}\n");
    assert_eq!(long_functions(&long), [(5, MAX_FUNCTION + 4)]);
    let said = long.replace("pub(super)", &format!("{REASON}a table.\n#[inline]\npub(super)"));
    assert_eq!(long_functions(&said), []);
}
