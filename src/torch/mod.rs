//! libtorch: its tensors, devices and errors. Only this and the runtimes in `networks` name tch.

mod autocast;
mod device;
mod memory;
mod tensor;

pub(crate) use autocast::Autocast;
pub(crate) use device::prepare;
pub(crate) use memory::TorchMemory;
pub use tensor::TorchTensor;
pub(crate) use tensor::{column, kind_of};

use crate::error::Error;

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        reported(&error.to_string())
    }
}

/// The error that libtorch reports so.
pub(crate) fn reported(text: &str) -> Error {
    match wanted_bytes(text) {
        Some(bytes) => Error::Memory { bytes },
        None => Error::Torch(cause(text).to_owned()),
    }
}

/// What went wrong, out of libtorch's report with its stack traces: the last line that names an error, as in
/// `RuntimeError: ...`, or else the first line.
fn cause(report: &str) -> &str {
    let names_error = |line: &&str| {
        line.split_once(": ").is_some_and(|(name, _)| {
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            is_name && (name.ends_with("Error") || name.ends_with("Exception"))
        })
    };
    let mut lines = report.lines().map(str::trim);
    let first = lines.clone().find(|line| !line.is_empty()).unwrap_or_default();
    let line = lines.rfind(names_error).unwrap_or(first);
    line.strip_prefix("Internal torch error: ").unwrap_or(line)
}

/// The bytes that libtorch's allocators say they could not have, where a report is theirs.
fn wanted_bytes(report: &str) -> Option<usize> {
    let (_, rest) = report.split_once("ried to allocate ")?;
    let mut words = rest.split_whitespace();
    let count: f64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.trim_end_matches(['.', ',']) {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return None,
    };
    Some((count * unit) as usize)
}

/// Dtype and shape of a tensor that is defined, for messages.
pub(crate) fn described(tensor: &tch::Tensor) -> String {
    use tch::Kind;
    let dtype = match tensor.f_kind() {
        Ok(Kind::Float) => "float32".to_owned(),
        Ok(Kind::Double) => "float64".to_owned(),
        Ok(Kind::Half) => "float16".to_owned(),
        Ok(Kind::Int) => "int32".to_owned(),
        Ok(other) => format!("{other:?}").to_lowercase(),
        Err(_) => "a tensor of a dtype that is not known".to_owned(),
    };
    format!("{dtype} {:?}", tensor.size())
}

/// An error of a network, with what it was given.
pub(crate) fn explained(error: impl Into<Error>, given: &[(&str, tch::Tensor)]) -> Error {
    let given: Vec<String> = given.iter().map(|(name, tensor)| format!("{name} {}", described(tensor))).collect();
    match error.into() {
        Error::Torch(cause) => Error::Torch(format!("{cause} (the network was given {})", given.join(", "))),
        other => other,
    }
}

/// A network's tensor as the library takes it: dense float32 on `device`.
///
/// # Errors
/// [`Error::Invalid`] where it is undefined or its numbers are not floating point; libtorch's own.
pub(crate) fn dense(tensor: tch::Tensor, device: tch::Device) -> crate::error::Result<tch::Tensor> {
    use tch::Kind;
    const OUTPUT: &str = "the network's output";
    if !tensor.defined() {
        return Err(Error::invalid(OUTPUT, "an undefined tensor", "a tensor"));
    }
    let tensor = match tensor.f_kind()? {
        Kind::QInt8 | Kind::QUInt8 | Kind::QInt32 => tensor.f_dequantize()?,
        Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 => tensor,
        _ => return Err(Error::invalid(OUTPUT, described(&tensor), "floating-point numbers")),
    };
    let tensor = if tensor.is_sparse() || tensor.is_mkldnn() { tensor.f_to_dense(None, false)? } else { tensor };
    Ok(tensor.f_to_device(device)?.f_to_kind(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_last_line_that_names_an_error() {
        let report = "Internal torch error: The following operation failed in the TorchScript interpreter.\n\
                      Traceback of TorchScript, serialized code (most recent call last):\n  File \"code\", line 3\n\
                      RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x8 and 4x4)\n";
        assert_eq!(cause(report), "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x8 and 4x4)");
        assert_eq!(cause("Internal torch error: no such thing\nException raised from f at a.cpp:1"), "no such thing");
        assert_eq!(cause("note: builtins.ValueError: a\nbuiltins.ValueError: b"), "builtins.ValueError: b");
        assert_eq!(cause(""), "");
    }

    #[test]
    fn memory_that_libtorch_cannot_have_is_recognised() {
        let cpu = "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error";
        assert_eq!(wanted_bytes(cpu), Some(4096));
        assert_eq!(wanted_bytes("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has"), Some(3 << 29));
        assert_eq!(wanted_bytes("RuntimeError: shapes do not match"), None);
    }
}
