//! Models: the card that describes one, and the velocity field made from it.

mod card;
mod field;
mod host;
mod open;

pub use card::{Card, Direction, Runtime, Time};
pub use field::{ModelField, Network};
pub use host::{Forward, HostNetwork};
pub use open::{Device, Dtype, Model, open, open_host, open_in};
