//! Models: a network and its card as a velocity field, and the fields that callers give.

mod caller;
mod field;
mod guidance;
mod nulls;
mod open;

pub use caller::{CallerField, Evaluate, PullBack};
pub use field::ModelField;
pub use guidance::{Chain, Pass};
pub(crate) use nulls::{NullRow, load as load_nulls};
pub use open::{FieldTask, Model, open, open_caller, open_caller_on_device, open_in, open_served};
