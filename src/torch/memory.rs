//! A device's memory by libtorch's own operations, for samples that stay there where the host lends none.

use super::kind_of;
use crate::error::{Error, Result};
use crate::tensor::{Combination, DLDataType, Dtype, Operations, Sum, Term};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::slice::from_raw_parts;
use tch::{Kind, Tensor};

// Of stream.cpp.
unsafe extern "C" {
    fn bespoke_torch_enter_stream(
        device: i8,
        index: i8,
        native: *mut c_void,
        before: *mut i64,
        message: *mut c_char,
        length: usize,
    ) -> bool;
    safe fn bespoke_torch_leave_stream(device: i8, index: i8, before: i64);
}

/// The memory of one libtorch device, worked on from one stream. A sum of n terms is some 2 n launches.
pub(crate) struct TorchMemory {
    device: tch::Device,
    /// As an address; 0 is the device's default stream.
    stream: usize,
    /// What was allocated, by its address.
    held: Mutex<HashMap<usize, Tensor>>,
}

impl TorchMemory {
    /// That of `device`, which is there, from `stream`: a cudaStream_t of it, or NULL.
    pub fn new(device: tch::Device, stream: *mut c_void) -> Self {
        Self { device, stream: stream as usize, held: Mutex::default() }
    }

    /// Runs `work` on the stream.
    fn on_stream<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let _entered = Entered::new(self.device, self.stream as *mut c_void)?;
        let _guard = tch::no_grad_guard();
        work()
    }

    /// `count` numbers of type `dtype` at `numbers`, as a tensor.
    fn view(&self, numbers: *const c_void, count: usize, dtype: DLDataType) -> Result<Tensor> {
        self.shared(numbers, count, kind(dtype)?)
    }

    fn shared(&self, numbers: *const c_void, count: usize, kind: Kind) -> Result<Tensor> {
        // SAFETY: as `Operations` has it, the array is memory of this device, for as long as what is queued here takes.
        Ok(unsafe { Tensor::f_from_blob(numbers.cast(), &[count as i64], &[1], kind, self.device) }?)
    }

    /// A sum in its own type, newly allocated. Products are rounded before they are added, as in host memory.
    fn sum(&self, terms: &[Term], count: usize, to: DLDataType) -> Result<Tensor> {
        let wide = if kind(to)? == Kind::Double { Kind::Double } else { Kind::Float };
        let mut total: Option<Tensor> = None;
        for term in terms {
            let scaled = if term.numbers.is_null() {
                Tensor::f_full([count as i64], term.coefficient, (wide, self.device))?
            } else {
                self.view(term.numbers, count, term.dtype)?.f_to_kind(wide)?.f_mul_scalar(term.coefficient)?
            };
            total = Some(match total {
                None => scaled,
                Some(mut total) => total.f_add_(&scaled)?,
            });
        }
        total.ok_or_else(|| Error::State("a sum of nothing".into()))
    }

    /// All sums of a part, of which none is written before all have been read.
    fn part(&self, count: usize, sums: &[Sum], terms: &[Term]) -> Result<()> {
        let of = |sum: &Sum| &terms[sum.first_term as usize..(sum.first_term + sum.term_count) as usize];
        let mut values: Vec<Tensor> = Vec::with_capacity(sums.len());
        for (i, sum) in sums.iter().enumerate() {
            // The same sum in another place.
            let made = values.last().filter(|_| sums[i - 1].first_term == sum.first_term).map(Tensor::shallow_clone);
            values.push(made.map_or_else(|| self.sum(of(sum), count, sum.dtype), Ok)?);
        }
        for (sum, value) in sums.iter().zip(values) {
            self.view(sum.out, count, sum.dtype)?.f_copy_(&value)?;
        }
        Ok(())
    }
}

impl Operations for TorchMemory {
    fn allocate(&self, bytes: usize) -> Result<*mut c_void> {
        let memory = self.on_stream(|| Ok(Tensor::f_empty([bytes as i64], (Kind::Uint8, self.device))?))?;
        let address = memory.data_ptr();
        self.held.lock().insert(address as usize, memory);
        Ok(address)
    }

    fn release(&self, memory: *mut c_void) {
        // libtorch gives the memory to whoever asks next on the stream that it was had on.
        self.held.lock().remove(&(memory as usize));
    }

    fn combine(&self, combination: &Combination) -> Result<()> {
        // SAFETY: a launch's lists are as long as it says, and live during the call.
        let (parts, sums, terms) = unsafe {
            (
                from_raw_parts(combination.parts, combination.part_count as usize),
                from_raw_parts(combination.sums, combination.sum_count as usize),
                from_raw_parts(combination.terms, combination.term_count as usize),
            )
        };
        self.on_stream(|| {
            parts.iter().try_for_each(|part| {
                let of_part = &sums[part.first_sum as usize..(part.first_sum + part.sum_count) as usize];
                self.part(part.count as usize, of_part, terms)
            })
        })
    }

    fn copy(&self, to: *mut c_void, from: *const c_void, bytes: usize) -> Result<()> {
        self.on_stream(|| {
            let from = self.shared(from, bytes, Kind::Uint8)?;
            self.shared(to, bytes, Kind::Uint8)?.f_copy_(&from)?;
            Ok(())
        })
    }

    fn finite(&self, numbers: *const c_void, dtype: DLDataType, elements: usize, finite: &mut [u8]) -> Result<()> {
        let rows = finite.len();
        let answers = self.on_stream(|| {
            let numbers = self.view(numbers, rows * elements, dtype)?.f_reshape([rows as i64, elements as i64])?;
            let answers = numbers.f_isfinite()?.f_all_dim(1, false)?.f_to_kind(Kind::Uint8)?;
            Ok(Vec::<u8>::try_from(answers.f_to_device(tch::Device::Cpu)?)?)
        })?;
        finite.copy_from_slice(&answers);
        Ok(())
    }
}

/// libtorch's word for a type of samples.
fn kind(dtype: DLDataType) -> Result<Kind> {
    let known = [Dtype::Float32, Dtype::Float64, Dtype::Float16, Dtype::Bfloat16];
    let found = known.into_iter().find(|known| known.dlpack() == dtype);
    found.map(kind_of).ok_or_else(|| Error::State(format!("samples of DLPack code {}", dtype.code)))
}

/// While it lives, this thread's work on one device is queued on one stream.
struct Entered {
    device: (i8, i8),
    before: i64,
}

impl Entered {
    fn new(device: tch::Device, stream: *mut c_void) -> Result<Self> {
        // c10::DeviceType::CPU and CUDA; devices were counted when this one was opened.
        let device = match device {
            tch::Device::Cuda(index) => (1, index as i8),
            _ => (0, 0),
        };
        let (mut before, mut message) = (0, [0; 512]);
        // SAFETY: the places are this function's own, the message as long as it says.
        let entered = unsafe {
            bespoke_torch_enter_stream(
                device.0,
                device.1,
                stream,
                &mut before,
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        if entered {
            return Ok(Self { device, before });
        }
        let said = CStr::from_bytes_until_nul(&message).unwrap_or_default();
        Err(Error::Torch(said.to_string_lossy().into_owned()))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        bespoke_torch_leave_stream(self.device.0, self.device.1, self.before);
    }
}

/// On the CPU, which takes the very way that a GPU takes.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{DeviceMemory, Element, Host, Operand, Register, Remote, RemoteView, Update};
    use half::f16;
    use std::sync::Arc;

    /// Three updates of two registers, which read themselves and each other, and a row that moves.
    fn updates<T: Register>(registers: &mut [T], velocity: T::View<'_>) -> Result<()> {
        let (x, y, u) = (Operand::Buffer(0), Operand::Buffer(1), Operand::Velocity);
        for (rows, out) in [(0..2, 0), (1..3, 1), (0..3, 0)] {
            let terms = vec![(x, 0.3), (y, -1.7), (u, 0.11)];
            let both = [Update { out, terms }, Update { out: 1 - out, terms: vec![(u, 0.9), (x, 1.3)] }];
            T::advance(registers, velocity, rows, &both, None)?;
            T::launch(registers)?;
        }
        registers[1].move_row(2, 0)?;
        T::launch(registers)
    }

    fn agree<E: Element + PartialEq + std::fmt::Debug>(dtype: Dtype) -> Result<()> {
        const SHAPE: (usize, usize) = (3, 7);
        let numbers =
            |phase: f64| -> Vec<E> { (0..21).map(|i| E::from_f64((1.7 * f64::from(i) + phase).sin())).collect() };
        let starts = [numbers(0.0), numbers(1.0)];
        let u = numbers(2.0);
        let mut here = starts.iter().map(|start| Host::new(start.clone(), SHAPE.1)).collect::<Result<Vec<_>>>()?;
        updates(&mut here, Host::new(u.clone(), SHAPE.1)?.view())?;
        let memory = Arc::new(DeviceMemory::new(Box::new(TorchMemory::new(tch::Device::Cpu, std::ptr::null_mut()))));
        let mut there = Vec::new();
        for start in &starts {
            let mut register = Remote::new(memory.clone(), dtype, SHAPE.1);
            register.resize(SHAPE.0)?;
            register.read(0..SHAPE.0, start.as_ptr().cast())?;
            there.push(register);
        }
        updates(&mut there, RemoteView::new(u.as_ptr().cast(), dtype, SHAPE.0, SHAPE.1))?;
        for (here, there) in here.iter().zip(&there) {
            let mut end = vec![E::from_f64(0.0); 21];
            there.write(0..SHAPE.0, end.as_mut_ptr().cast())?;
            assert_eq!(here.data(), end, "{dtype:?}");
        }
        Ok(())
    }

    #[test]
    fn every_number_is_that_of_host_memory() {
        agree::<f64>(Dtype::Float64).unwrap();
        agree::<f32>(Dtype::Float32).unwrap();
        agree::<f16>(Dtype::Float16).unwrap();
    }

    #[test]
    fn numbers_that_are_not_finite_are_found_and_memory_is_given_back() {
        let operations = TorchMemory::new(tch::Device::Cpu, std::ptr::null_mut());
        let numbers = [1.0f32, 2.0, f32::NAN, 4.0, f32::INFINITY, 6.0];
        let mut finite = [7; 3];
        operations.finite(numbers.as_ptr().cast(), Dtype::Float32.dlpack(), 2, &mut finite).unwrap();
        assert_eq!(finite, [1, 0, 0]);
        let memory = operations.allocate(100).unwrap();
        assert_eq!(operations.held.lock().len(), 1);
        operations.release(memory);
        assert_eq!(operations.held.lock().len(), 0);
    }

    #[test]
    fn a_stream_that_cannot_be_had_is_told() {
        let mut anything = 0u8;
        let operations = TorchMemory::new(tch::Device::Cpu, (&raw mut anything).cast());
        let refused = operations.copy(std::ptr::null_mut(), std::ptr::null(), 0).unwrap_err();
        assert!(matches!(refused, Error::Torch(_)), "{refused}");
    }
}
