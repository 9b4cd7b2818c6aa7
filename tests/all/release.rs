//! What a release is made of agrees with itself: one version everywhere, licences of all that is built in.

use crate::native::succeed;
use crate::tree::{crates, root, version};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The version after the first `mark` of a file.
fn version_in(text: &str, mark: &str) -> String {
    let (_, after) = text.split_once(mark).unwrap_or_else(|| panic!("there is no {mark:?}"));
    after
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '-')
        .collect()
}

#[test]
fn one_version_stands_everywhere() {
    for (file, mark) in [
        ("Cargo.lock", "name = \"bespoke\"\nversion"),
        ("packaging/vcpkg/bespoke/vcpkg.json", "\"version\""),
        ("packaging/conda/recipe.yaml", "version: \""),
        ("CHANGELOG.md", "\n## "),
    ] {
        assert_eq!(version_in(&read(file), mark), version(), "{file}");
    }
}

/// A clone of what `set-version.sh` writes to, with itself in it.
fn copies() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        "packaging/vcpkg/bespoke/vcpkg.json",
        "packaging/conda/recipe.yaml",
        "scripts/release/set-version.sh",
    ] {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join(file), to).unwrap();
    }
    fs::write(folder.path().join("CHANGELOG.md"), format!("# Changelog\n\n## {} - unreleased\n\n- new\n", version()))
        .unwrap();
    folder
}

#[test]
fn a_release_writes_its_version_everywhere_and_nothing_else() {
    let folder = copies();
    let script = folder.path().join("scripts/release/set-version.sh");
    let mut command = Command::new(&script);
    succeed({
        command.arg("7.11.13");
        command
    });
    let changed = |file: &str| {
        let (before, after) = (read(file), fs::read_to_string(folder.path().join(file)).unwrap());
        let lines: Vec<_> =
            before.lines().zip(after.lines()).filter(|(a, b)| a != b).map(|(_, b)| b.to_owned()).collect();
        assert_eq!(before.lines().count(), after.lines().count(), "{file}");
        lines
    };
    assert_eq!(changed("Cargo.toml"), ["version = \"7.11.13\""]);
    assert_eq!(changed("Cargo.lock"), ["version = \"7.11.13\""]);
    assert_eq!(changed("packaging/vcpkg/bespoke/vcpkg.json"), ["  \"version\": \"7.11.13\","]);
    assert_eq!(changed("packaging/conda/recipe.yaml"), ["  version: \"7.11.13\""]);
    let changelog = fs::read_to_string(folder.path().join("CHANGELOG.md")).unwrap();
    assert!(changelog.contains("\n## 7.11.13 - 20") && !changelog.contains("unreleased"), "{changelog}");

    // The changelog's section is not there a second time.
    let again = Command::new(&script).arg("7.11.14").output().unwrap();
    assert!(!again.status.success());
    for wrong in ["7.11", "v1.2.3", ""] {
        assert!(!Command::new(&script).arg(wrong).output().unwrap().status.success(), "{wrong}");
    }
}

/// Crates that library and program have built in, and their versions. Macros run in the compiler, and leave nothing
/// of themselves.
fn built_in() -> BTreeSet<String> {
    let text = crates(&["--features", "cli,onnx", "--edges", "normal,no-proc-macro"]);
    let name = |line: &str| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        (name != "bespoke").then(|| format!("{name} {version}"))
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn the_licences_of_all_that_is_built_in_are_gathered() {
    let page = read("LICENSES-OF-DEPENDENCIES.md");
    let listed: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("- ")).collect();
    let missing: Vec<_> = built_in().into_iter().filter(|name| !listed.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "`make licenses` gathers those of {missing:?}");
    assert!(page.matches("```").count() > 20, "the texts of the licences are not there");
}
