//! The floors of the house: the map in `src/lib.rs` is true, no module imports from above itself, or in a circle, and
//! what only one module may do is done by it.

use crate::tree::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

fn source() -> PathBuf {
    root().join("src")
}

/// Every Rust file below `folder`, and its text without comments.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            found.push((path.clone(), code.collect::<Vec<_>>().join("\n")));
        }
    }
    found
}

/// The module at the top of `src` that a file belongs to; `None` for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let relative = path.strip_prefix(source()).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    let name = first.trim_end_matches(".rs");
    (name != "lib" && name != "main").then(|| name.to_owned())
}

/// Words that follow `prefix` in `text`: those of `prefix{a, b::c}` are several.
fn after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let word = |rest: &'a str| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    };
    let mut words = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => words.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && depth == 0 && !c.is_whitespace() => {
                            words.push(word(&list[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    words
}

/// Which modules at the top of `src` name which. The program uses the library by its name.
fn modules() -> Graph {
    let all: Vec<(PathBuf, String)> = files(&source());
    let names: BTreeSet<String> = all.iter().filter_map(|(path, _)| module_of(path)).collect();
    let mut graph: Graph = names.iter().map(|name| (name.clone(), BTreeSet::new())).collect();
    for (path, text) in &all {
        let Some(own) = module_of(path) else { continue };
        let named = after(text, "crate::").into_iter().chain(after(text, "bespoke::"));
        let others = named.filter(|name| names.contains(*name) && *name != own).map(str::to_owned);
        graph.get_mut(&own).unwrap().extend(others);
    }
    graph
}

/// A circle of `graph`, if there is one: its names in order, the first again at the end.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn walk(graph: &Graph, name: &str, trail: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(start) = trail.iter().position(|passed| passed == name) {
            let mut found = trail[start..].to_vec();
            found.push(name.to_owned());
            return Some(found);
        }
        if !done.contains(name) {
            trail.push(name.to_owned());
            for next in graph.get(name).into_iter().flatten() {
                if let Some(found) = walk(graph, next, trail, done) {
                    return Some(found);
                }
            }
            trail.pop();
            done.insert(name.to_owned());
        }
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|name| walk(graph, name, &mut Vec::new(), &mut done))
}

/// The floor of every module, as the map in `src/lib.rs` has it.
fn map() -> BTreeMap<String, u32> {
    let text = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("//! |")?.split('|').map(str::trim).collect();
        let floor = cells[0].parse().ok()?;
        let name = cells[1].trim_start_matches(['[', '`']).split('`').next()?;
        Some((name.to_owned(), floor))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn the_map_names_every_module_and_no_other() {
    let mapped: BTreeSet<String> = map().into_keys().collect();
    let there: BTreeSet<String> = modules().into_keys().collect();
    assert_eq!(mapped, there, "the table at the head of src/lib.rs is the left one");
}

#[test]
fn modules_import_from_floors_below_or_one_way_within_their_own() {
    let (map, graph) = (map(), modules());
    let mut above = Vec::new();
    for (name, others) in &graph {
        above.extend(
            others
                .iter()
                .filter(|other| map[*other] > map[name])
                .map(|other| format!("{name} (floor {}) imports from {other} (floor {})", map[name], map[other])),
        );
    }
    assert!(above.is_empty(), "{}", above.join("\n"));
    if let Some(circle) = circle(&graph) {
        panic!("modules import each other in a circle: {}", circle.join(" -> "));
    }
}

/// Files of one folder, by what they name of each other: `super::other::` and names that the folder hands on.
fn siblings(folder: &Path) -> Graph {
    let own: Vec<(String, String)> = files(folder)
        .into_iter()
        .filter(|(path, _)| path.parent() == Some(folder) && !path.ends_with("mod.rs"))
        .map(|(path, text)| (path.file_stem().unwrap().to_str().unwrap().to_owned(), text))
        .collect();
    let names: BTreeSet<&String> = own.iter().map(|(name, _)| name).collect();
    let edge = |(name, text): &(String, String)| {
        let others = after(text, "super::").into_iter().filter(|other| names.contains(&(*other).to_owned()));
        (name.clone(), others.filter(|other| other != name).map(str::to_owned).collect())
    };
    own.iter().map(edge).collect()
}

#[test]
fn files_of_one_folder_do_not_import_each_other_in_a_circle() {
    let folders: BTreeSet<PathBuf> =
        files(&source()).into_iter().filter_map(|(path, _)| path.parent().map(Path::to_owned)).collect();
    for folder in folders {
        if let Some(circle) = circle(&siblings(&folder)) {
            panic!("files of {} import each other in a circle: {}", folder.display(), circle.join(" -> "));
        }
    }
}

#[test]
fn a_circle_is_found_and_named() {
    let graph = |edges: &[(&str, &[&str])]| -> Graph {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges.iter().map(|(name, others)| ((*name).to_owned(), names(others))).collect()
    };
    let straight = graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert_eq!(circle(&straight), None);
    let round = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["d", "b"]), ("d", &[])]);
    assert_eq!(circle(&round).unwrap(), ["b", "c", "b"]);
    let text = "use crate::{tensor::{Host, Tensor}, error};\nuse crate::theta::Theta;";
    assert_eq!(after(text, "crate::"), ["tensor", "error", "theta"]);
}

#[test]
fn json_is_written_by_the_module_of_documents_alone() {
    let writers = ["serde_json::to_string", "serde_json::to_vec", "serde_json::to_writer", "serde_json::to_value"];
    for (path, text) in files(&source()) {
        let found = writers.into_iter().find(|writer| text.contains(writer));
        let own = module_of(&path).as_deref() == Some("document");
        assert!(own || found.is_none(), "{}: {found:?} makes null of a NaN; see document::line", path.display());
    }
}
