//! What is under test: the tree, its version, its program.

use std::ffi::CStr;
use std::path::Path;
use std::process::Command;

/// The library's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The library's version.
pub fn version() -> &'static str {
    // SAFETY: a string that lives as long as the library.
    unsafe { CStr::from_ptr(bespoke::capi::bespoke_version()) }.to_str().unwrap()
}

/// The crates that the library is built of with features and edges as `arguments` say, a line each: name and version.
pub fn crates(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--package", "bespoke", "--locked", "--offline", "--no-default-features"]);
    command.args(["--prefix", "none", "--format", "{p}"]).args(arguments).current_dir(root());
    crate::native::succeed(command)
}

/// The program with the features of the tests, built once a run: another package's is not built by cargo for tests. It is
/// asked for beside the tests, so that the library that they are linked with is the program's, too.
#[cfg(feature = "cli")]
pub fn program() -> &'static Path {
    static PROGRAM: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        let features = [
            ("default", cfg!(feature = "default")),
            ("cli", true),
            ("mpi", cfg!(feature = "mpi")),
            ("onnx", cfg!(feature = "onnx")),
            ("torch", cfg!(feature = "torch")),
        ];
        let features: Vec<&str> = features.into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
        let build = escargot::CargoBuild::new().manifest_path(root().join("Cargo.toml")).bin("bespoke").test("all");
        let build = build.current_release().no_default_features().features(features.join(","));
        build.run().unwrap().path().to_path_buf()
    });
    &PROGRAM
}
