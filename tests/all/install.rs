//! An installed tree serves CMake and pkg-config projects elsewhere.

use crate::native::{Workshop, succeed};
use crate::tree::{program, root, version};
use bespoke::theta::{Family, Knots, Theta};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree as `make install` leaves it, moved once; and a theta to load.
fn install(workshop: &Workshop) -> (PathBuf, PathBuf) {
    let (first, prefix) = (workshop.path("first"), workshop.path("prefix"));
    let mut command = Command::new(root().join("scripts/install.sh"));
    command.arg(workshop.path("libbespoke.so")).arg(program()).arg(&first);
    succeed(command);
    std::fs::rename(first, &prefix).unwrap();
    let theta = workshop.path("theta.json");
    Theta::new(Family::Rk2(Knots::identity(6))).unwrap().save(&theta).unwrap();
    (prefix, theta)
}

fn expected() -> String {
    format!("{} rk2 6\n", version())
}

fn run(program: &Path, theta: &Path) -> String {
    let mut command = Command::new(program);
    command.arg(theta);
    succeed(command)
}

#[test]
fn a_cmake_project_finds_it() {
    let workshop = Workshop::new();
    let (prefix, theta) = install(&workshop);
    let build = workshop.path("build");
    let configure = |minimum: &str| {
        let source = workshop.path(&format!("source-{minimum}"));
        std::fs::create_dir_all(&source).unwrap();
        for file in ["CMakeLists.txt", "from_c.c", "from_cpp.cpp"] {
            let text = std::fs::read_to_string(root().join("tests/install").join(file)).unwrap();
            let asked = format!("find_package(bespoke {minimum} ");
            std::fs::write(source.join(file), text.replace("find_package(bespoke 0.2 ", &asked)).unwrap();
        }
        let mut command = Command::new("cmake");
        command.arg("-S").arg(source).arg("-B").arg(&build);
        command.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
        command
    };
    for refused in ["0.1", "0.3", "1.0", "0.2.99"] {
        assert!(!configure(refused).output().unwrap().status.success(), "{refused}");
    }
    std::fs::remove_dir_all(&build).unwrap();
    succeed(configure("0.2"));
    let mut command = Command::new("cmake");
    command.arg("--build").arg(&build);
    succeed(command);
    assert_eq!(run(&build.join("from_c"), &theta), expected());
    assert_eq!(run(&build.join("from_cpp"), &theta), expected());
}

#[test]
fn a_pkg_config_project_finds_it() {
    let workshop = Workshop::new();
    let (prefix, theta) = install(&workshop);
    let ask = |option: &str| {
        let mut command = Command::new("pkg-config");
        command.args([option, "bespoke"]).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        succeed(command).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ask("--modversion"), [version()]);
    let program = workshop.path("from_c");
    let mut command = Command::new("cc");
    command.args(ask("--cflags")).arg(root().join("tests/install/from_c.c")).arg("-o").arg(&program);
    command.args(ask("--libs")).arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    succeed(command);
    assert_eq!(run(&program, &theta), expected());
}

#[test]
fn the_operations_of_cuda_compile_out_of_it() {
    let workshop = Workshop::new();
    let (prefix, _) = install(&workshop);
    let (program, object) = (workshop.path("program.cu"), workshop.path("program.o"));
    std::fs::write(&program, "#include <bespoke_cuda.cu>\n").unwrap();
    let mut command = Command::new("c++");
    command.args(["-std=c++17", "-xc++", "-DBESPOKE_CUDA_ON_HOST", "-c"]).arg(program).arg("-o").arg(object);
    command.arg("-I").arg(prefix.join("include"));
    succeed(command);
}

#[test]
fn the_installed_program_runs() {
    let workshop = Workshop::new();
    let (prefix, _) = install(&workshop);
    let mut command = Command::new(prefix.join("bin/bespoke"));
    command.arg("--version");
    assert_eq!(succeed(command), format!("bespoke {}\n", version()));
    for file in ["man/man1/bespoke-train.1", "bash-completion/completions/bespoke", "zsh/site-functions/_bespoke"] {
        assert!(std::fs::metadata(prefix.join("share").join(file)).unwrap().len() > 500, "{file}");
    }
}
