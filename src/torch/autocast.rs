//! libtorch's own mixed precision: matrix products and convolutions in bf16, whatever would suffer from it in f32.

use tch::Device;

/// c10::ScalarType::BFloat16.
const BFLOAT16: i8 = 15;

// torch-sys has these for CUDA alone, and not the dtype. Each sees to the calling thread.
unsafe extern "C" {
    /// at::autocast::is_autocast_enabled(c10::DeviceType)
    #[link_name = "_ZN2at8autocast19is_autocast_enabledEN3c1010DeviceTypeE"]
    safe fn is_enabled(device: i8) -> bool;
    /// at::autocast::set_autocast_enabled(c10::DeviceType, bool)
    #[link_name = "_ZN2at8autocast20set_autocast_enabledEN3c1010DeviceTypeEb"]
    safe fn set_enabled(device: i8, enabled: bool);
    /// at::autocast::get_autocast_dtype(c10::DeviceType)
    #[link_name = "_ZN2at8autocast18get_autocast_dtypeEN3c1010DeviceTypeE"]
    safe fn dtype(device: i8) -> i8;
    /// at::autocast::set_autocast_dtype(c10::DeviceType, c10::ScalarType)
    #[link_name = "_ZN2at8autocast18set_autocast_dtypeEN3c1010DeviceTypeENS1_10ScalarTypeE"]
    safe fn set_dtype(device: i8, dtype: i8);
}

/// While it lives, this thread's networks on one kind of device run in bf16.
pub struct Autocast {
    device: i8,
    before: (bool, i8),
}

impl Autocast {
    /// Until it is dropped.
    pub fn bf16(device: Device) -> Self {
        // c10::DeviceType::CPU and CUDA.
        let device = i8::from(device.is_cuda());
        let before = (is_enabled(device), dtype(device));
        set_dtype(device, BFLOAT16);
        set_enabled(device, true);
        Self { device, before }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        set_enabled(self.device, self.before.0);
        set_dtype(self.device, self.before.1);
    }
}
