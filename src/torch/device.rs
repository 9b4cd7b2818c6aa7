//! The device a module runs on, and CUDA opened at run time.

use crate::error::{Error, Result};
use crate::tensor::Device;
use std::sync::OnceLock;

/// libtorch's device, made ready.
///
/// # Errors
/// [`Error::Unsupported`] where CUDA is asked for and cannot be had, saying why.
pub fn prepare(device: Device) -> Result<tch::Device> {
    match device {
        Device::Cpu => Ok(tch::Device::Cpu),
        Device::TensorRt(_) => Err(Error::Unsupported(format!("device {device}: only ONNX models run on it"))),
        Device::Cuda(index) => {
            load_cuda()?;
            let count = tch::Cuda::device_count();
            if (index as i64) < count {
                return Ok(tch::Device::Cuda(index));
            }
            let found = if count == 0 {
                "no NVIDIA GPU can be used on this machine".into()
            } else {
                format!("this machine has {count}")
            };
            Err(Error::Unsupported(format!("device {device}: {found}")))
        }
    }
}

/// Opens libtorch's CUDA half, once. It is not linked, so that one build serves machines without it.
fn load_cuda() -> Result<()> {
    static LOADED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let open = || {
        // SAFETY: a NUL-terminated name; the handle is kept for the life of the process.
        let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if !handle.is_null() {
            return Ok(());
        }
        // SAFETY: dlerror answers NULL or a NUL-terminated string that lives until the next dl call.
        let reason = unsafe { libc::dlerror().as_ref().map(|text| std::ffi::CStr::from_ptr(text).to_string_lossy()) };
        Err(reason.unwrap_or_default().into_owned())
    };
    LOADED.get_or_init(open).clone().map_err(|reason| {
        Error::Unsupported(format!(
            "CUDA: libtorch_cuda.so and what it needs cannot be opened ({reason}); `make libtorch-cuda` installs them"
        ))
    })
}
