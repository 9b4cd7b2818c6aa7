//! The integration tests: one crate, so that they are linked once. A file is a subject, and
//! `cargo test --release --test all sampler::` runs one of them.
//!
//! `tests/allocations.rs` stands apart: its allocator counts for the whole process.
#![allow(clippy::type_complexity)] // tables of cases

mod abi_surface;
mod bespoke_families;
mod betas;
mod c_abi;
mod c_examples;
mod callbacks;
mod capi_sampler;
mod capi_train;
mod check;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cli_solvers;
#[cfg(feature = "cli")]
mod commands;
mod common;
#[cfg(feature = "torch")]
mod conditioned;
mod cpp_examples;
mod dependencies;
mod diffusion;
#[cfg(feature = "torch")]
mod digits;
mod distance;
mod documents;
#[cfg(feature = "torch")]
mod emoji;
mod ended;
#[cfg(feature = "torch")]
mod fashion;
#[cfg(feature = "torch")]
mod feature_loss;
mod floors;
mod forward;
mod gpu_check;
mod gradients;
mod ground_truth;
mod header;
mod host_network;
#[cfg(all(unix, feature = "cli"))]
mod input_files;
#[cfg(feature = "cli")]
mod install;
#[cfg(feature = "cli")]
mod jobs;
mod ladder;
mod makefile;
mod memory;
mod mixture;
mod model_field;
#[cfg(all(feature = "cli", feature = "mpi"))]
mod mpi;
mod native;
mod noise;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(all(unix, feature = "cli"))]
mod output_files;
mod outputs;
mod paths;
mod pt2;
mod references;
mod registers;
mod release;
#[cfg(feature = "cli")]
mod report;
mod sampler;
mod schedulers;
#[cfg(all(feature = "cli", feature = "onnx"))]
mod shipped;
mod signature;
mod sizes;
mod solvers;
mod tensors;
#[cfg(feature = "torch")]
mod torchscript;
#[cfg(feature = "cli")]
mod train_options;
mod training;
mod tree;
