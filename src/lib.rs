//! Bespoke solvers (Shaul et al., ICLR 2024): learned few-step samplers for flow and diffusion
//! models.
//!
//! A model makes a sample by solving x' = u_t(x) from noise (t = 0) to data (t = 1). A Bespoke
//! solver is a table of some eighty numbers, learned for one model, that gets there in 8 to 20
//! evaluations. There are two paths through this crate, and every file sits on one of them:
//!
//! ```text
//! serve:  theta.json ──theta──▶ Theta ──tableau──▶ Tableau ──sampler──▶ x(1)        no libtorch
//! learn:  model card ──model──▶ VelocityField ──train::paths──▶ ground truth
//!             ──train::loss──▶ gradient ──train::optimize──▶ Theta                  libtorch only behind the field
//! ```
//!
//! | place | what lives there | knows of |
//! |---|---|---|
//! | [`scheduler`] | alpha_t, sigma_t, snr and its inverse; model outputs as velocities | number |
//! | [`tableau`] | a solver as a table of scalars, over a generic [`number`] | number |
//! | [`theta`] | the learned parameters, their constraints, their tables, the file | tableau, document |
//! | [`path`] | a model's Gaussian path; any solver on another one (BES Thm 2.3) | theta, scheduler |
//! | [`ladder`] | thetas of several nfe in one file | theta |
//! | [`solvers`] | the published solvers as tables | path, theta |
//! | [`reference`] | a solver as users write it: a published one's name, or a file | solvers, ladder |
//! | [`sampler`] | a table and a velocity to the next state: the only hot loop | tableau, tensor |
//! | [`dopri5`] | the ground truth: adaptive Dormand-Prince 5(4), dense output | tensor, velocity |
//! | [`velocity`], [`fields`] | what a solver asks of a model; the analytic Gaussian mixture | tensor |
//! | [`model`] | model cards; a network as a velocity field; guidance | velocity, scheduler |
//! | [`tensor`] | the few operations a solver needs, over host memory here and libtorch in `torch` | nothing |
//! | `torch` | the only place that names tch: TorchScript, tensors, device | model, tensor |
//! | [`train`] | ground-truth paths, losses with hand-derived adjoints, optimisers | all but torch |
//! | [`distance`] | Fréchet distance, precision and recall in a network's features | tensor |
//! | [`evaluate`] | solvers side by side on the same noises | train, sampler |
//! | [`ranks`] | the processes that share a job over MPI; the only place that names mpi | model |
//! | [`capi`] | the only `extern "C"`: guard, validate, call | all of it |
//! | [`document`], [`noise`], [`error`] | files, seeded noise, the one error type | nothing |
//!
//! Samples are flat batches `[batch, elements]`; times run from 0 (noise) to 1 (data).

pub mod capi;
pub mod distance;
pub mod document;
pub mod dopri5;
pub mod error;
pub mod evaluate;
pub mod fields;
pub mod ladder;
pub mod model;
pub mod noise;
pub mod number;
pub mod path;
pub mod ranks;
pub mod reference;
pub mod sampler;
pub mod scheduler;
pub mod solvers;
pub mod tableau;
pub mod tensor;
pub mod theta;
#[cfg(feature = "torch")]
pub mod torch;
pub mod train;
pub mod velocity;

pub use error::{Error, Result};
