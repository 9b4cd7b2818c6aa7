//! What a crate that depends on the library builds with it: `cargo add bespoke --no-default-features`.

use crate::tree::crates;
use std::collections::BTreeSet;

/// Crates that the library names itself.
const DIRECT: &[&str] = &[
    "half",
    "libc",
    "nalgebra",
    "num-dual",
    "parking_lot",
    "rand",
    "rand_distr",
    "rand_pcg",
    "rayon",
    "safetensors",
    "serde",
    "serde_json",
    "serde_path_to_error",
    "sha2",
    "smallvec",
    "tempfile",
    "thiserror",
    "tracing",
    "bespoke",
    "bytemuck",
    "npyz",
];

/// Names of crates that are built, of those at most `depth` edges away.
fn built(depth: &str, features: &[&str]) -> BTreeSet<String> {
    let text = crates(&[&["--edges", "normal,build", "--depth", depth], features].concat());
    text.lines().filter_map(|line| line.split(' ').next().map(String::from)).collect()
}

#[test]
fn the_library_alone_names_these_crates() {
    let expected: BTreeSet<String> = DIRECT.iter().map(|name| name.to_string()).collect();
    assert_eq!(built("1", &[]), expected);
}

/// What the program alone needs, at any depth.
#[test]
fn the_library_alone_builds_nothing_of_the_program() {
    let program = built("1", &["--features", "cli"]);
    let library = built("100", &[]);
    let mut named: BTreeSet<String> = program.difference(&built("1", &[])).cloned().collect();
    // It is named for its features, as rayon has it in any case.
    named.remove("either");
    for name in ["clap", "signal-hook", "image", "indicatif", "mimalloc", "plotters"] {
        assert!(named.contains(name), "{name} is no dependency of the program any more: mend this test");
    }
    let shared: Vec<&String> = named.intersection(&library).collect();
    assert!(shared.is_empty(), "{shared:?} are built with the library alone");
    assert!(library.len() < 90, "{} crates", library.len());
}
