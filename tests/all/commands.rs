//! The commands in the docs are ones that there are: targets of the Makefile, options of the program, files. What the
//! README shows of the program is run as it stands, with a model in place of CARD and a small budget.

use crate::native::succeed;
use crate::tree::{program, root};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The pages of the site and of the repository.
fn pages() -> Vec<PathBuf> {
    let apart = ["README.md", "CONTRIBUTING.md", "RELEASING.md", "bindings/python/README.md", "models/README.md"];
    let mut pages: Vec<PathBuf> = apart.iter().map(|page| root().join(page)).collect();
    for folder in ["docs", "docs/hosts"] {
        let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    assert!(pages.len() > 20);
    pages
}

/// What a page has to type.
struct Typed {
    page: PathBuf,
    /// Without a comment, and without the brackets of what may be left out.
    words: Vec<String>,
    /// Whether it stands by itself: amid a sentence, values may be left out.
    whole: bool,
}

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.page.display(), self.words.join(" "))
    }
}

impl Typed {
    fn new(page: &Path, line: &str, whole: bool) -> Self {
        let line = line.split(" #").next().unwrap_or_default().replace(['[', ']'], " ");
        Self { page: page.to_owned(), words: line.split_whitespace().map(str::to_owned).collect(), whole }
    }

    /// What follows `command`, as far as the shell has it belong to it.
    fn arguments_of(&self, command: &str) -> Option<Vec<&str>> {
        let begin = self.words.iter().position(|word| word == command)?;
        let mut own = Vec::new();
        for word in &self.words[begin + 1..] {
            if ["&&", "|", "&", ">", ";"].contains(&word.as_str()) {
                break;
            }
            own.push(word.trim_matches(['\'', ';']));
            if word.ends_with(';') {
                break;
            }
        }
        Some(own)
    }
}

/// Lines of indented blocks and of fences of `sh`, and code amid sentences.
fn typed(page: &Path) -> Vec<Typed> {
    let text = fs::read_to_string(page).unwrap().replace("\\\n", " ");
    let (mut found, mut fence) = (Vec::new(), None);
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.to_owned()) };
        } else if fence.as_deref() == Some("sh") || (fence.is_none() && line.starts_with("    ")) {
            found.push(Typed::new(page, line, true));
        } else if fence.is_none() {
            found.extend(line.split('`').skip(1).step_by(2).map(|code| Typed::new(page, code, false)));
        }
    }
    found
}

fn all() -> Vec<Typed> {
    pages().iter().flat_map(|page| typed(page)).collect()
}

#[test]
fn make_has_the_targets() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let rules = makefile.lines().filter_map(|line| line.split_once(':').filter(|(_, rest)| !rest.starts_with('=')));
    let targets: BTreeSet<&str> = rules.flat_map(|(names, _)| names.split_whitespace()).collect();
    let mut seen = 0;
    for line in all().iter().filter(|line| line.words.first().is_some_and(|word| word == "make")) {
        let mut words = line.words[1..].iter();
        while let Some(word) = words.next() {
            if word == "-C" {
                words.next();
            } else if !word.starts_with('-') && !word.contains('=') {
                assert!(targets.contains(word.as_str()), "{line}: make has no {word}");
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn files_that_are_named_are_there() {
    const FOLDERS: [&str; 7] = ["scripts/", "examples/", "bindings/", "packaging/", "models/", "tests/", "bench/"];
    let mut seen = 0;
    for line in all() {
        let paths = line.words.iter().map(|word| word.trim_matches(['\'', '"', ',', '(', ')']));
        for path in paths.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder))) {
            let invented = path.contains(['*', '$', '<', '{']) || path.contains(char::is_uppercase);
            let made = line.words.iter().any(|word| word == "--out");
            if !invented && !made {
                let near = line.page.with_file_name(path);
                assert!(root().join(path).exists() || near.exists(), "{line}: there is no {path}");
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "{seen}");
}

fn bespoke(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env("RAYON_NUM_THREADS", "1").current_dir(folder);
    command
}

#[test]
fn the_program_has_the_options() {
    let folder = TempDir::new().unwrap();
    let mut seen = 0;
    for line in &all() {
        let Some(arguments) = line.arguments_of("bespoke") else { continue };
        // Not where `bespoke` is pkg-config's, or a word of a sentence.
        if !arguments.first().is_some_and(|first| first.chars().all(|c| c.is_ascii_lowercase())) {
            continue;
        }
        seen += 1;
        if line.whole {
            // An option that is not there, and a value that is none, are told before what is missing.
            let Output { status, stderr, .. } =
                bespoke(folder.path(), &[&arguments[..], &["--help"]].concat()).output().unwrap();
            assert!(status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
        } else {
            let subcommand: Vec<&str> = arguments
                .iter()
                .take(if arguments[0] == "bench" { 2 } else { 1 })
                .chain(&["--help"])
                .copied()
                .collect();
            let help = succeed(bespoke(folder.path(), &subcommand));
            for option in arguments.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{line}: there is no {option}");
            }
        }
    }
    assert!(seen > 40, "{seen}");
}

/// What the README's commands find in their folder: a model, samples of it as data, conditions, solvers.
fn prepare(folder: &Path) {
    let card = fs::read_to_string(root().join("models/digits-mixture.json")).unwrap();
    fs::write(folder.join("model.json"), card.replace("digits-features.json", "features.json")).unwrap();
    fs::copy(root().join("models/digits-mixture-modes.json"), folder.join("digits-mixture-modes.json")).unwrap();
    fs::write(folder.join("features.json"), r#"{"format": "bespoke-features", "version": 1, "runtime": "pixels"}"#)
        .unwrap();
    let data = ["sample", "--model", "model.json", "--solver", "midpoint@20", "--count", "300", "--out", "data.npy"];
    succeed(bespoke(folder, &data));
    for nfe in ["6", "10"] {
        let (solver, out) = (format!("midpoint@{nfe}"), format!("theta-{nfe}.json"));
        succeed(bespoke(folder, &["compile", &solver, "--model", "model.json", "--out", &out]));
    }
    let classes: Vec<u8> = [7i64, 1, 4].iter().flat_map(|class| class.to_le_bytes()).collect();
    let classes = TensorView::new(Dtype::I64, vec![3], &classes).unwrap();
    serialize_to_file([("class", classes)], &None, &folder.join("texts.safetensors")).unwrap();
}

#[test]
fn the_readmes_commands_run() {
    let folder = TempDir::new().unwrap();
    prepare(folder.path());
    let mut seen = BTreeSet::new();
    for line in typed(&root().join("README.md")).iter().filter(|line| line.whole && line.words[0] == "bespoke") {
        let mut arguments: Vec<&str> =
            line.words[1..].iter().map(|word| if word == "CARD" { "model.json" } else { word.as_str() }).collect();
        arguments.extend(match arguments[0] {
            "train" => &["--quiet", "--iterations", "2", "--batch", "20", "--pool", "20", "--validation", "20"][..],
            "eval" => &["--quiet", "--count", "30"],
            "report" => &["--count", "20"],
            _ => &[],
        });
        let Output { status, stdout, stderr } = bespoke(folder.path(), &arguments).output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{line}: {status}\n{said}");
        seen.insert(line.words[1].clone());
    }
    assert!(seen.len() >= 10, "{seen:?}");
    for made in [
        "theta.json",
        "eval.json",
        "report.html",
        "samples.npy",
        "samples.png",
        "dpm.json",
        "ladder.json",
        "knots.json",
    ] {
        assert!(fs::metadata(folder.path().join(made)).unwrap().len() > 100, "{made}");
    }
}
