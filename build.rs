//! Tells the linker where libtorch is, so that no program needs LD_LIBRARY_PATH, and what the
//! shared library calls itself; compiles what of libtorch has no interface in C.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        #[cfg(feature = "torch")]
        {
            compile_shims(std::path::Path::new(&lib));
            link_umbrella();
        }
        // What torch-sys marks for export, for its own C++, is no part of this library's ABI.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{}", soname());
    }
}

/// The loader of AOTInductor's packages, and streams, against the headers beside `lib`, libtorch's folder of libraries,
/// with what torch-sys takes from the environment.
#[cfg(feature = "torch")]
fn compile_shims(lib: &std::path::Path) {
    const SOURCES: [&str; 2] = ["src/networks/pt2/loader.cpp", "src/torch/stream.cpp"];
    SOURCES.iter().for_each(|source| println!("cargo:rerun-if-changed={source}"));
    for name in ["LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let root = env::var_os("LIBTORCH_INCLUDE").map_or_else(|| lib.join(".."), Into::into);
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .std("c++17")
        // What is warned of there is libtorch's own.
        .flag(format!("-isystem{}", root.join("include").display()))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .files(SOURCES)
        .compile("bespoke_torch");
}

/// A library called libtorch.so that holds nothing; src/networks/pt2/umbrella.rs says what for.
#[cfg(feature = "torch")]
fn link_umbrella() {
    const SOURCE: &str = "src/networks/pt2/umbrella.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    let library = std::path::PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("umbrella.so");
    let mut command = cc::Build::new().pic(true).get_compiler().to_command();
    command.args(["-shared", "-nostdlib", "-Wl,-soname,libtorch.so", SOURCE, "-o"]).arg(&library);
    match command.status() {
        Ok(status) if status.success() => {}
        failed => panic!("{command:?}: {failed:?}"),
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
