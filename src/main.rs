//! The `bespoke` program.

// What it says goes through `cli::say`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;

/// In place of the system's for the whole process, libtorch and its millions of short-lived tensors among it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
