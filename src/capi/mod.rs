//! The C ABI, declared for C in `include/bespoke.h` (generated from here) and promised in `docs/abi.md`.
//!
//! The only `extern "C"` of the library: guard against panics, check what came in, call safe Rust.
#![allow(non_camel_case_types)] // C's names

mod batch;
mod call;
mod callback;
mod condition;
mod described;
mod device;
mod dlpack;
mod engine;
mod guard;
mod host;
mod layout;
mod lent;
mod model;
mod noise;
mod output;
mod reference;
mod sampler;
mod solver;
mod status;
mod structs;
mod theta;
mod train;
mod watched;

pub use batch::*;
pub use call::{bespoke_call, bespoke_input};
pub use callback::bespoke_velocity_fn;
pub use condition::{
    bespoke_condition, bespoke_condition_keep, bespoke_kept_condition, bespoke_kept_condition_free, bespoke_scale,
};
pub use described::bespoke_input_properties;
pub use device::{
    bespoke_device_allocate_fn, bespoke_device_combination, bespoke_device_combine_fn, bespoke_device_copy_fn,
    bespoke_device_finite_fn, bespoke_device_ops, bespoke_device_part, bespoke_device_release_fn, bespoke_device_sum,
    bespoke_device_term,
};
pub use dlpack::{DLDataType, DLDevice, DLTensor};
pub use host::*;
pub use model::*;
pub use noise::*;
pub use output::*;
pub use reference::*;
pub use sampler::*;
pub use solver::*;
pub use status::*;
pub use theta::*;
pub use train::*;
