//! libtorch: the only place that names tch.

mod autocast;
mod device;
mod features;
mod module;
mod tensor;

pub use features::FeatureModule;
pub use module::Module;
pub use tensor::TorchTensor;

impl From<tch::TchError> for crate::error::Error {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends a stack trace of its own; its first line is the message.
        let text = error.to_string();
        let message = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        crate::error::Error::Torch(message.to_owned())
    }
}
