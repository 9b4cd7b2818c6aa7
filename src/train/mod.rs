//! Learning a theta: `paths` → `loss` → `optimize`, for any field that can be evaluated and
//! differentiated.
//!
//! A document (`config`) becomes settings with every choice made, whose legs (`schedule`) `run`
//! goes through one iteration (`step`) after another.

mod accuracy;
mod checkpoint;
mod config;
mod entry;
mod exchange;
mod forward;
mod iteration;
mod job;
mod journal;
mod kept;
mod log;
pub mod loss;
mod objective;
mod optimize;
mod parameters;
mod paths;
mod pools;
mod progress;
mod run;
mod schedule;
mod settings;
mod solve;
mod start;
mod state;
mod validate;

pub use accuracy::{Accuracy, Differences};
pub use config::{FieldConfig, Learn, Loss, LossTerm, Optimizer, Precision, TrainConfig, TrainedFamily};
pub use entry::{Asked, conditioning, suited_to, train_config, train_field};
pub use job::Job;
pub use kept::parts_beside;
pub use objective::{Measure, Objective, Terms};
pub use parameters::{Coordinates, Linearised, Parameters, Structure};
pub use paths::{Pool, PoolOptions};
pub use progress::{Observer, Progress, Watch};
pub use run::{Outcome, train, train_job};
pub use settings::{Phase, Rung, Settings};
pub use start::{Start, start_on_path};
pub use state::Trained;
pub use validate::errors;
