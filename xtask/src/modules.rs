//! The modules of a crate import each other in one direction only, so that it reads from the top downwards.

use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::arrows;

/// Top-level modules of a crate, each with those that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// One sentence for each cycle among the top-level modules of the crates that are not for tests.
pub(crate) fn cycles(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for package in arrows::layered() {
        let imports = imports(&root.join("crates").join(package).join("src"))?;
        if let Some(cycle) = cycle(&imports) {
            found.push(format!("`{package}`: modules import each other: {}", cycle.join(" → ")));
        }
    }
    Ok(found)
}

fn imports(source: &Path) -> anyhow::Result<Imports> {
    let mut all = Imports::new();
    let mut reexports = BTreeMap::new();
    for entry in fs::read_dir(source).with_context(|| source.display().to_string())? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if matches!(name, "lib" | "main") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            reexports.extend(reexported(&text));
            continue;
        }
        let name = name.to_owned();
        collect(&path, 0, all.entry(name).or_default())?;
    }
    let modules: BTreeSet<String> = all.keys().cloned().collect();
    for (name, imported) in &mut all {
        // `crate::FormatError` is `crate::error::FormatError`.
        let resolved = imported.iter().map(|other| reexports.get(other).unwrap_or(other));
        *imported =
            resolved.filter(|&other| other != name && modules.contains(other)).cloned().collect();
    }
    Ok(all)
}

/// Names that a crate's root takes from its modules, each with the module.
fn reexported(root: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for statement in root.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let Some((module, names)) = statement.split_once("::") else { continue };
        for name in names.split(|c: char| !c.is_alphanumeric() && c != '_') {
            found.insert(name.to_owned(), module.trim_start_matches("crate::").to_owned());
        }
    }
    found
}

/// Names that a file, or all files of a folder, take from the crate's root; `depth` folders lie between them and it.
fn collect(path: &Path, depth: usize, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), depth + 1, found)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        found.extend(imported(&text, depth));
    }
    Ok(())
}

/// First segments of the paths from the crate's root in a source text, whether they begin with `crate` or with so many `super`
/// that they lead there. Comments and modules of tests within the file do not count.
fn imported(text: &str, depth: usize) -> BTreeSet<String> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n");
    let mut found: BTreeSet<String> =
        code.split("crate::").skip(1).flat_map(first_segments).collect();
    let up = "super::".repeat(depth + 1);
    for (at, _) in code.match_indices(&up) {
        let (before, behind) = (&code[..at], &code[at + up.len()..]);
        if !before.ends_with("super::") && !behind.starts_with("super::") {
            found.extend(first_segments(behind));
        }
    }
    found
}

/// Of a path from the root, or of each path of a group in braces.
fn first_segments(rest: &str) -> Vec<String> {
    let segment = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![segment(rest)] };
    let (mut found, mut depth) = (vec![segment(group)], 0_usize);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(segment(&group[at + 1..])),
            _ => {}
        }
    }
    found
}

/// Modules of which each imports the next and the last the first, which stands at both ends.
fn cycle(imports: &Imports) -> Option<Vec<&str>> {
    let mut done = BTreeSet::new();
    imports.keys().find_map(|start| visit(start, imports, &mut Vec::new(), &mut done))
}

fn visit<'a>(
    module: &'a str,
    imports: &'a Imports,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(at) = path.iter().position(|&earlier| earlier == module) {
        return Some(path[at..].iter().copied().chain([module]).collect());
    }
    if done.contains(module) {
        return None;
    }
    path.push(module);
    let found = imports[module].iter().find_map(|next| visit(next, imports, path, done));
    path.pop();
    done.insert(module);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(modules: &[(&str, &[&str])]) -> Imports {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        modules.iter().map(|(name, imported)| ((*name).to_owned(), names(imported))).collect()
    }

    #[test]
    fn import_cycle_is_reported_in_full() {
        let acyclic = graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
        assert_eq!(cycle(&acyclic), None);
        let cyclic = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["d"]), ("d", &["b"])]);
        assert_eq!(cycle(&cyclic), Some(vec!["b", "c", "d", "b"]));
    }

    #[test]
    fn comments_and_test_modules_are_not_counted_as_imports() {
        let text = "//! See crate::docs.\nuse crate::one::Thing;\nfn f() { crate::two(crate::three::X) }\n\
                    #[cfg(test)]\nmod tests { use crate::four; }\n";
        let expected = ["one", "three", "two"].map(str::to_owned);
        assert_eq!(imported(text, 0), BTreeSet::from(expected));
        // A module of tests in a file of its own ends nothing.
        let text = "#[cfg(test)]\nmod tests;\nuse crate::five;\n";
        assert_eq!(imported(text, 0), BTreeSet::from(["five".to_owned()]));
    }

    #[test]
    fn super_paths_count_as_imports_when_they_reach_the_root() {
        let text = "use super::one::A;\nuse super::super::two::B;\nfn f() { super::three() }\n";
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        assert_eq!(imported(text, 0), names(&["one", "three"]));
        assert_eq!(imported(text, 1), names(&["two"]));
    }

    #[test]
    fn reexported_names_are_mapped_to_their_modules() {
        let root = "pub mod a;\npub use a::Thing;\npub use b::{Other, This};\nuse c::Not;\n";
        let found = reexported(root);
        assert_eq!(found.get("Thing").map(String::as_str), Some("a"));
        assert_eq!(found.get("This").map(String::as_str), Some("b"));
        assert_eq!(found.get("Not"), None);
    }

    #[test]
    fn every_path_of_a_grouped_use_is_counted() {
        let text = "use crate::{one::{A, B},\n    two, three::C};\nuse other::four;\n";
        let expected = ["one", "three", "two"].map(str::to_owned);
        assert_eq!(imported(text, 0), BTreeSet::from(expected));
    }
}
