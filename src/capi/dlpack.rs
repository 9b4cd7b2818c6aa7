//! The seven-field tensor descriptor of DLPack, which every framework can borrow out.
//!
//! The header brings these structs itself, unless the official `dlpack.h` was included first.

pub use crate::tensor::DLDataType;
use std::ffi::c_void;

/// `kDLCPU`.
const DL_CPU: i32 = 1;
/// `kDLCUDA`.
const DL_CUDA: i32 = 2;
/// `kDLCUDAHost`: pinned memory, which the host reads and writes like its own.
const DL_CUDA_HOST: i32 = 3;
/// `kDLROCMHost`: as [`DL_CUDA_HOST`].
const DL_ROCM_HOST: i32 = 11;

impl DLDevice {
    /// The host's memory.
    pub(super) const HOST: Self = Self { device_type: DL_CPU, device_id: 0 };

    /// Whether this program may read and write its memory.
    pub(super) fn is_host(self) -> bool {
        [DL_CPU, DL_CUDA_HOST, DL_ROCM_HOST].contains(&self.device_type)
    }

    /// Whether it is an NVIDIA GPU.
    pub(super) fn is_cuda(self) -> bool {
        self.device_type == DL_CUDA
    }

    /// Its name, for messages, with its index.
    pub(super) fn indexed(self) -> String {
        format!("{}:{}", device_name(self.device_type), self.device_id)
    }
}

/// What messages call [`DLDevice::is_host`].
pub(super) const HOST_MEMORY: &str = "host memory (kDLCPU, kDLCUDAHost or kDLROCMHost)";

/// Where a tensor's memory is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDevice {
    /// `DLDeviceType`.
    pub device_type: i32,
    /// Index among the devices of its type.
    pub device_id: i32,
}

/// A borrowed tensor: its memory, shape and strides are the lender's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLTensor {
    /// Start of the memory.
    pub data: *mut c_void,
    /// Where it is.
    pub device: DLDevice,
    /// Length of `shape`.
    pub ndim: i32,
    /// Type of the numbers.
    pub dtype: DLDataType,
    /// Sizes, `ndim` of them.
    pub shape: *mut i64,
    /// Distances in numbers, `ndim` of them; NULL for contiguous, last dimension fastest.
    pub strides: *mut i64,
    /// Bytes from `data` to the first number.
    pub byte_offset: u64,
}

/// The name of a device type, for messages.
pub(super) fn device_name(device_type: i32) -> String {
    let name = match device_type {
        1 => "kDLCPU",
        2 => "kDLCUDA",
        3 => "kDLCUDAHost",
        4 => "kDLOpenCL",
        7 => "kDLVulkan",
        8 => "kDLMetal",
        9 => "kDLVPI",
        10 => "kDLROCM",
        11 => "kDLROCMHost",
        12 => "kDLExtDev",
        13 => "kDLCUDAManaged",
        14 => "kDLOneAPI",
        15 => "kDLWebGPU",
        16 => "kDLHexagon",
        17 => "kDLMAIA",
        other => return format!("of device type {other}"),
    };
    format!("on {name}")
}

/// The name of a dtype, for messages.
pub(super) fn dtype_name(dtype: DLDataType) -> String {
    let DLDataType { code, bits, lanes } = dtype;
    let name = match code {
        0 => format!("int{bits}"),
        1 => format!("uint{bits}"),
        2 => format!("float{bits}"),
        3 => format!("an opaque handle of {bits} bits"),
        4 => format!("bfloat{bits}"),
        5 => format!("complex{bits}"),
        6 => format!("bool{bits}"),
        7..=14 => format!("float8 (DLPack code {code})"),
        15..=17 => format!("a float below 8 bits (DLPack code {code})"),
        other => format!("of DLPack code {other}, {bits} bits"),
    };
    if lanes == 1 { name } else { format!("{name} x {lanes} lanes") }
}
