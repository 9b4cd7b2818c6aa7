//! The tests of the ABI in C and C++: plainly, under sanitizers and under valgrind.

use crate::native::{Workshop, ring_card, succeed};
use crate::tree::root;
use bespoke::ladder::Ladder;
use bespoke::theta::{Family, Knots, NsTable, Theta};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a program is built and run.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    /// AddressSanitizer with its leak check, in no more than 512 MB, and UndefinedBehaviorSanitizer.
    Sanitized,
    #[cfg_attr(feature = "torch", allow(dead_code, reason = "libtorch is not for valgrind"))]
    Valgrind,
}

/// A bound on the address space is none for AddressSanitizer, whose shadow takes terabytes of it: this one is on what
/// is resident. What was freed counts as long as it is kept to be watched: that is little here.
const ASAN_OPTIONS: &str = "detect_leaks=1:allocator_may_return_null=1:hard_rss_limit_mb=512:quarantine_size_mb=32";

/// No arguments.
const NOTHING: [&str; 0] = [];

struct Bench {
    workshop: Workshop,
    rk2: PathBuf,
    ns: PathBuf,
    ladder: PathBuf,
    card: String,
}

impl Bench {
    fn new() -> Self {
        let workshop = Workshop::new();
        let [rk2, ns, ladder] = ["rk2.json", "ns.json", "ladder.json"].map(|name| workshop.path(name));
        let midpoint = Theta::new(Family::Rk2(Knots::identity(4))).unwrap();
        midpoint.save(&rk2).unwrap();
        Theta::new(Family::Ns(NsTable::compile(&midpoint.tableau()))).unwrap().save(&ns).unwrap();
        let finer = Theta::new(Family::Rk2(Knots::identity(8))).unwrap();
        Ladder::new(vec![midpoint, finer]).unwrap().save(&ladder).unwrap();
        let card = ring_card(&workshop.path(""));
        Self { workshop, rk2, ns, ladder, card }
    }

    fn run(&self, source: &str, arguments: &[impl AsRef<Path>], mode: Mode) {
        self.run_with(source, arguments, mode, &[]);
    }

    fn run_with(&self, source: &str, arguments: &[impl AsRef<Path>], mode: Mode, more: &[&str]) {
        assert_eq!(succeed(self.command(source, arguments, mode, more)), "ok\n");
    }

    /// Builds `source`, and the command that runs it.
    fn command(&self, source: &str, arguments: &[impl AsRef<Path>], mode: Mode, more: &[&str]) -> Command {
        let include = root().join("tests/c");
        let include = format!("-I{}", include.display());
        let sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
        let mut flags = vec![include.as_str()];
        flags.extend(more);
        if mode == Mode::Sanitized {
            flags.extend(sanitizers);
        }
        let program = self.workshop.build(source, &flags);
        let mut command = match mode {
            Mode::Valgrind => {
                let mut command = Command::new("valgrind");
                command.args([
                    "--quiet",
                    "--error-exitcode=9",
                    "--leak-check=full",
                    "--errors-for-leak-kinds=definite",
                ]);
                command.args(["--show-leak-kinds=definite", "--fair-sched=yes"]);
                command.arg(format!("--suppressions={}", root().join("tests/c/onnxruntime.supp").display()));
                command.arg(program);
                command
            }
            Mode::Plain | Mode::Sanitized => Command::new(program),
        };
        command.args(arguments.iter().map(AsRef::as_ref)).env("ASAN_OPTIONS", ASAN_OPTIONS);
        command
    }

    fn all(&self, mode: Mode) {
        let folder = self.workshop.path("");
        let card = Path::new(&self.card);
        self.run("tests/c/abi.c", &[self.rk2.as_path(), &self.ns, card, &folder], mode);
        self.run("tests/c/solver.c", &[&self.rk2, &self.ladder], mode);
        self.run("tests/c/versions.c", &[self.rk2.as_path(), card], mode);
        self.run("tests/c/train.c", &[card], mode);
        self.run("tests/c/threads.c", &[&self.ns], mode);
        self.run("tests/c/device.c", &[&self.rk2, &self.ns, &folder], mode);
        self.run("tests/cpp/abi.cpp", &[self.rk2.as_path(), &self.ladder, card], mode);
        #[cfg(feature = "onnx")]
        self.run("tests/c/network.c", &self.network("onnx", "models/digits-fm-ot-onnx.json"), mode);
    }

    /// Arguments of network.c: a build, its card of digits, and one for the same weights and other samples.
    fn network(&self, build: &str, digits: &str) -> [PathBuf; 3] {
        let digits = root().join(digits);
        let mut card: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&digits).unwrap()).unwrap();
        card["weights"] = root().join("models").join(card["weights"].as_str().unwrap()).to_str().unwrap().into();
        card["shape"] = serde_json::json!([2]);
        let other = self.workshop.path(&format!("other-{build}.json"));
        std::fs::write(&other, card.to_string()).unwrap();
        [build.into(), digits, other]
    }
}

#[test]
fn the_programs_pass() {
    Bench::new().all(Mode::Plain);
}

/// How bindings/cuda is compiled for the host.
const CUDA_ON_HOST: [&str; 4] = ["-O2", "-ffp-contract=off", "-DBESPOKE_CUDA_ON_HOST", "-xc++"];

#[test]
fn the_kernel_of_cuda_computes_what_host_memory_does() {
    let bench = Bench::new();
    let folder = root().join("bindings/cuda");
    let object = bench.workshop.path("bespoke_cuda.o");
    let mut command = Command::new("c++");
    command.args(["-std=c++17", "-Wall", "-Wextra", "-Werror"]).args(CUDA_ON_HOST);
    command.arg("-I").arg(root().join("include")).arg("-c").arg(folder.join("bespoke_cuda.cu"));
    command.arg("-o").arg(&object);
    succeed(command);
    let flags = [format!("-I{}", folder.display()), object.display().to_string(), "-DBY_CUDA".into()];
    let flags = flags.each_ref().map(String::as_str);
    bench.run_with("tests/c/device.c", &[&bench.rk2, &bench.ns, &bench.workshop.path("")], Mode::Plain, &flags);
}

#[test]
fn what_tries_a_gpu_finds_the_kernels_right_on_the_host() {
    let bench = Bench::new();
    let program = bench.workshop.build("bindings/cuda/check.cu", &CUDA_ON_HOST);
    let mut command = Command::new(program);
    command.args([&bench.rk2, &bench.ns]);
    let said = succeed(command);
    let answers: Vec<&str> = said.lines().filter(|line| line.ends_with(": yes")).collect();
    assert!(answers.len() == 11 && !said.contains(": NO"), "{said}");
    assert!(said.contains("14 solvers, bfloat16, give host memory's bits: yes"), "{said}");
    assert!(said.contains("launches an evaluation, the update and its times: 2.000000, expected 2: yes"), "{said}");
}

#[test]
fn the_programs_pass_with_all_their_samples_on_a_device() {
    let bench = Bench::new();
    let (folder, card) = (bench.workshop.path(""), Path::new(&bench.card));
    let on_device = |source: &str, arguments: &[&Path]| {
        let flags = ["-include", "on_device.h", "-Wno-unused-function"];
        // In C++ the samplers' handles are then of each program's own.
        let more: &[&str] = if source.ends_with(".cpp") { &["-Wno-subobject-linkage"] } else { &[] };
        bench.run_with(source, arguments, Mode::Plain, &[&flags, more].concat());
    };
    on_device("tests/c/abi.c", &[&bench.rk2, &bench.ns, card, &folder]);
    on_device("tests/c/solver.c", &[&bench.rk2, &bench.ladder]);
    on_device("tests/c/versions.c", &[&bench.rk2, card]);
    on_device("tests/c/threads.c", &[&bench.ns]);
    on_device("tests/cpp/abi.cpp", &[&bench.rk2, &bench.ladder, card]);
}

#[test]
fn a_stray_access_to_a_devices_memory_crashes() {
    use std::os::unix::process::ExitStatusExt;
    let bench = Bench::new();
    let output =
        bench.command("tests/c/device.c", &[Path::new("stray"), &bench.rk2], Mode::Plain, &[]).output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
}

#[test]
fn a_fork_computes_with_threads_of_its_own() {
    let bench = Bench::new();
    bench.run("tests/c/fork.c", &[bench.rk2.as_path(), Path::new(&bench.card)], Mode::Plain);
}

#[test]
fn a_thread_may_outlive_the_library_that_it_used() {
    let bench = Bench::new();
    let [library, copy] = ["libbespoke.so", "copy.json"].map(|name| bench.workshop.path(name));
    // The program itself needs no library, or it would never be unloaded.
    bench.run_with("tests/c/unload.c", &[&library, &bench.rk2, &copy], Mode::Plain, &["-Wl,--as-needed"]);
}

#[test]
fn a_large_batch_takes_as_many_registers_as_the_solver_has() {
    Bench::new().run("tests/c/memory.c", &NOTHING, Mode::Plain);
}

#[test]
fn a_network_is_run_with_a_condition_for_each_sample_or_refused() {
    let bench = Bench::new();
    let build = if cfg!(feature = "torch") { "torch" } else { "lean" };
    bench.run("tests/c/network.c", &bench.network(build, "models/digits-fm-ot.json"), Mode::Plain);
}

// libtorch's own start-up is not clean under these, and the code under test is the same in both builds.
#[cfg(not(feature = "torch"))]
#[test]
fn the_programs_pass_under_address_and_undefined_behaviour_sanitizers() {
    Bench::new().all(Mode::Sanitized);
}

#[cfg(not(feature = "torch"))]
#[test]
fn what_takes_more_memory_than_the_sanitized_programs_may_have_is_ended() {
    let output = Bench::new().command("tests/c/greedy.c", &NOTHING, Mode::Sanitized, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("hard rss limit exhausted (512Mb"), "{}: {said}", output.status);
}

#[cfg(not(feature = "torch"))]
#[test]
fn the_programs_pass_under_valgrind_without_a_leak() {
    Bench::new().all(Mode::Valgrind);
}

#[test]
fn the_header_gives_way_to_the_official_dlpack() {
    let workshop = Workshop::new();
    let include = format!("-I{}", root().join("tests/c").display());
    succeed(Command::new(workshop.build("tests/c/dlpack_first.c", &[&include])));
}
