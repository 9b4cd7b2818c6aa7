//! Tells the linker where libtorch is, so that no program needs LD_LIBRARY_PATH, and what the
//! shared library calls itself.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{}", soname());
        // What dependencies mark for export is no part of this library's ABI.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}

/// `libbespoke.so.MAJOR`; before version 1, where every minor version may break the ABI,
/// `libbespoke.so.0.MINOR`. The same rule as cargo-c's.
fn soname() -> String {
    let version = |part: &str| env::var(format!("CARGO_PKG_VERSION_{part}")).unwrap_or_default();
    match version("MAJOR").as_str() {
        "0" => format!("libbespoke.so.0.{}", version("MINOR")),
        major => format!("libbespoke.so.{major}"),
    }
}
