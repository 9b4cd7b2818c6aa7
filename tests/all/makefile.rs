//! What the Makefile says of the tests is so.

use crate::tree::root;
use std::collections::BTreeSet;
use std::fs;

/// The files of tests whose text says `word`, by name.
fn subjects_of(word: &str) -> BTreeSet<String> {
    let files = fs::read_dir(root().join("tests/all")).unwrap().map(|entry| entry.unwrap().path());
    let says = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap().to_lowercase();
        text.contains("#[test]") && text.contains(word)
    };
    files
        .filter(|path| !path.ends_with("makefile.rs"))
        .filter(says)
        .map(|path| path.file_stem().unwrap().to_str().unwrap().into())
        .collect()
}

#[test]
fn what_libtorch_has_a_part_in_is_tested_with_it() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap().replace("\\\n", " ");
    let list = makefile.lines().find_map(|line| line.strip_prefix("TORCH_SUBJECTS := ")).unwrap();
    let named: BTreeSet<String> = list.split_whitespace().map(str::to_owned).collect();
    assert_eq!(named, subjects_of("torch"), "TORCH_SUBJECTS in the Makefile, and the files that say it");
}
