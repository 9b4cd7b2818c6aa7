//! The commands in the docs are ones that there are: targets of the Makefile, options of the program, files. What they
//! show of the program is run as it stands, with a model in place of CARD and a small budget.

use crate::native::{ring_card, succeed};
use crate::tree::{program, root};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
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

/// What the pages' commands find in their folder: models, samples of one as data, conditions, solvers.
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
    // What the pages have other programs write.
    fs::copy(root().join("models/conditions/digits-text-9.safetensors"), folder.join("own.safetensors")).unwrap();
    fs::create_dir(folder.join("demo")).unwrap();
    fs::copy(folder.join("data.npy"), folder.join("demo/digits.npy")).unwrap();
    ring_card(&folder.join("demo"));
    symlink(root().join("models"), folder.join("models")).unwrap();
}

/// The arguments of a line, with a small budget in place of its own, and the mixture where a model is somebody's or not an
/// ONNX one.
fn on_a_small_scale(line: &Typed) -> Vec<String> {
    let mut arguments = line.words[1..].to_vec();
    let budget = match arguments[0].as_str() {
        "train" => &[("--iterations", "2"), ("--batch", "20"), ("--pool", "20"), ("--validation", "20")][..],
        "eval" | "report" => &[("--count", "30")],
        "bench" if arguments[1] == "step" => &[("--threads", "1"), ("--size", "4K")],
        _ => &[],
    };
    for (option, few) in budget {
        if let Some(at) = arguments.iter().position(|word| word == option) {
            // For as many stages as there were.
            arguments[at + 1] = vec![*few; arguments[at + 1].split(',').count()].join(",");
        } else {
            arguments.extend([option, few].map(|&word| word.to_owned()));
        }
    }
    for word in &mut arguments {
        let shipped = word.strip_prefix("models/").and_then(|file| file.strip_suffix(".json"));
        if word == "CARD" || shipped.is_some_and(|name| !name.contains('/') && !name.ends_with("-onnx")) {
            *word = "model.json".to_owned();
        }
    }
    arguments
}

/// Page by page in its order, each in a folder of its own; but for what asks for a GPU, a server or a feature network, or
/// for minutes (the speech of docs/hosts); those have tests of their own.
#[test]
fn the_pages_commands_run() {
    let elsewhere =
        |word: &str| ["cuda", "--triton", "LAYERS", "voice/decoder.json", "voice/velocity.json"].contains(&word);
    let unopened = |word: &str| !cfg!(feature = "onnx") && word.ends_with("-onnx.json");
    let mut seen = BTreeMap::new();
    for page in pages() {
        let mut lines = typed(&page);
        lines.retain(|line| line.whole && line.words.first().is_some_and(|word| word == "bespoke"));
        lines.retain(|line| !line.words.iter().any(|word| elsewhere(word) || unopened(word)));
        if lines.is_empty() {
            continue;
        }
        let folder = TempDir::new().unwrap();
        prepare(folder.path());
        for line in &lines {
            let arguments = on_a_small_scale(line);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let Output { status, stdout, stderr } = bespoke(folder.path(), &arguments).output().unwrap();
            let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
            assert!(status.success(), "{line}: {status}\n{said}");
            for pair in arguments.windows(2).filter(|pair| ["--out", "--json", "--png", "--log"].contains(&pair[0])) {
                let made = fs::metadata(folder.path().join(pair[1]));
                assert!(made.is_ok_and(|made| made.len() > 100), "{line}: no {}", pair[1]);
            }
            *seen.entry(arguments[0].to_owned()).or_insert(0) += 1;
        }
    }
    assert!(seen.len() >= 11 && seen["train"] >= 12, "{seen:?}");
}
