//! libtorch: its tensors, devices and errors. Only this and the runtimes in `networks` name tch.

mod autocast;
mod device;
mod tensor;

pub(crate) use autocast::Autocast;
pub(crate) use device::prepare;
pub use tensor::TorchTensor;
pub(crate) use tensor::column;

impl From<tch::TchError> for crate::error::Error {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends a stack trace of its own; its first line is the message.
        let text = error.to_string();
        let message = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        crate::error::Error::Torch(message.to_owned())
    }
}
