//! Learning a theta: `paths` → `loss` → `optimize`, for any field that can be evaluated and
//! differentiated.

mod config;
pub mod loss;
mod optimize;
mod parameters;
mod paths;
mod run;
mod start;
mod validate;

pub use config::{FieldConfig, Loss, Optimizer, Precision, Settings, TrainConfig, TrainedFamily};
pub use parameters::{Linearised, Parameters, Shape};
pub use paths::{Conditioning, Pool, PoolOptions};
pub use run::{Observer, Outcome, Progress, conditioning, train, train_config, train_field};
pub use start::start_on_path;
pub use validate::{Errors, Quality, errors};
