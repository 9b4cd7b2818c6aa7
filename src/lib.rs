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
//! The floors of the house: a module imports only from floors below its own, or one way within it
//! (`tests/floors.rs`).
//!
//! | floor | place | what lives there |
//! |---|---|---|
//! | 1 | [`error`] | the one error type |
//! | 1 | [`output`] | where output goes: files, links, pipes, standard output |
//! | 1 | [`document`] | files: JSON in, JSON out |
//! | 1 | [`npy`] | arrays of samples in files |
//! | 1 | [`stored`] | named tensors in files |
//! | 1 | [`memory`] | memory in amounts that a caller chooses: an error where there is none left |
//! | 1 | [`threads`] | the threads that a computation is shared among, after a fork too |
//! | 1 | [`number`] | f64, or a dual number over it |
//! | 2 | [`scheduler`] | alpha_t, sigma_t, snr and its inverse; model outputs as velocities |
//! | 2 | [`tensor`] | the few operations a solver needs, over host memory or a device's of the host program; dtypes |
//! | 2 | [`inputs`] | what a network is given besides time and state: named columns |
//! | 2 | `torch` | libtorch's tensors, devices and errors |
//! | 3 | [`tableau`] | a solver as a table of scalars |
//! | 3 | [`velocity`] | what a solver asks of a model, and on what condition |
//! | 3 | [`noise`] | seeded noise |
//! | 3 | [`ranks`] | the processes that share a job over MPI; the only place that names mpi |
//! | 4 | [`theta`] | the learned parameters, their constraints, their tables, the file |
//! | 4 | [`path`] | a model's Gaussian path; any solver on another one (BES Thm 2.3) |
//! | 4 | [`ladder`] | thetas of several nfe in one file |
//! | 4 | [`solvers`] | the published solvers as tables |
//! | 4 | [`reference`](mod@reference) | a solver as users write it: a published one's name, or a file |
//! | 4 | [`sampler`] | a table and a velocity to the next state: the only hot loop of serving |
//! | 4 | [`dopri5`] | the ground truth: adaptive Dormand-Prince 5(4), dense output |
//! | 5 | [`card`] | what a model's file says of its network |
//! | 5 | [`networks`] | who computes: one file a runtime |
//! | 5 | [`model`] | a network and its card as a velocity field; guidance |
//! | 6 | [`samples`] | what training and evaluation share: noises, conditions, per-sample errors |
//! | 6 | [`check`](mod@check) | which reading of a network explains it, and whether the card's does |
//! | 6 | [`distance`] | Fréchet distance, precision and recall in a network's features |
//! | 6 | [`evaluate`] | solvers side by side on the same noises |
//! | 7 | [`train`] | ground-truth paths, losses with hand-derived adjoints, optimisers |
//! | 8 | [`capi`] | the only `extern "C"`: guard, validate, call |
//! | 8 | `cli` | the program |
//!
//! Samples are flat batches `[batch, elements]`; times run from 0 (noise) to 1 (data).
//!
//! # Example
//!
//! A solver is learned for a model, here the exact velocity of two Gaussian modes, and compared with the
//! usual ones; with a model of your own, [`model::open`] gives the field.
//!
//! ```
//! use bespoke::dopri5::Tolerance;
//! use bespoke::evaluate::{Comparison, Ready, evaluate};
//! use bespoke::networks::{Mixture, MixtureDocument, MixtureField};
//! use bespoke::path::GaussianPath;
//! use bespoke::ranks::Ranks;
//! use bespoke::reference::Solver;
//! use bespoke::sampler::Plan;
//! use bespoke::samples::{Conditioning, Noises};
//! use bespoke::scheduler::Scheduler;
//! use bespoke::train::{Progress, TrainConfig, train};
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! let modes = MixtureDocument { std: 0.3, means: vec![vec![1.0, 0.0], vec![-1.0, 0.5]], weights: None, class: None };
//! let field = MixtureField::<f64>::new(Mixture::new(modes)?, Scheduler::FmOt, None);
//!
//! // Learn: rk2 with 3 steps, so 6 evaluations. The numbers are those of a small example.
//! let document = r#"{ "family": "rk2", "steps": 3, "iterations": 5, "batch": 40, "pool": 80, "validation": 40 }"#;
//! let config: TrainConfig = bespoke::document::parse(document, "config")?;
//! let range = 2.0; // greatest less least value of the data
//! let settings = config.settings(range, None)?;
//! let learned = train(&field, &Conditioning::NONE, &settings, &mut |_: &Progress| ControlFlow::Continue(()))?;
//! let theta = learned.rungs[0].theta.clone();
//! assert_eq!(theta.nfe(), 6);
//!
//! // Compare: the same noises through each.
//! let (path, tolerance) = (GaussianPath::new(Scheduler::FmOt, 1.0)?, Tolerance::default());
//! let usual = Ready::new(&Solver::parse("midpoint@6")?, &path, tolerance)?;
//! let learned = Ready::Plan(Arc::new(Plan::new(theta.tableau())));
//! let solvers = vec![("learned".to_owned(), learned), ("midpoint@6".to_owned(), usual)];
//! let comparison = Comparison { solvers, noises: Noises::Seed { seed: 1, count: 50 }, tolerance, range };
//! let table = evaluate(&field, &Conditioning::NONE, &comparison, &Ranks::alone(), |_, _| Ok(()))?;
//! assert!(table.results[0].rmse < table.results[1].rmse);
//! # Ok::<(), bespoke::Error>(())
//! ```

// A library has no say over its host's streams.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod capi;
pub mod card;
pub mod check;
pub mod distance;
pub mod document;
pub mod dopri5;
pub mod error;
pub mod evaluate;
pub mod inputs;
pub mod ladder;
pub mod memory;
pub mod model;
pub mod networks;
pub mod noise;
pub mod npy;
pub mod number;
pub mod output;
pub mod path;
pub mod ranks;
pub mod reference;
pub mod sampler;
pub mod samples;
pub mod scheduler;
pub mod solvers;
pub mod stored;
pub mod tableau;
pub mod tensor;
pub mod theta;
pub mod threads;
#[cfg(feature = "torch")]
pub mod torch;
pub mod train;
pub mod velocity;

pub use error::{Error, Result};
