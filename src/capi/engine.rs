//! A sampler for one dtype, spoken to in tensors of the host.

use super::callback::Velocity;
use super::dlpack::{DL_BFLOAT, DL_CPU, DL_FLOAT, DLDataType, DLDevice, DLTensor};
use super::layout::{Dtype, HostTensor};
use crate::error::{Error, Result};
use crate::sampler::{Plan, Sampler};
use crate::tensor::{Element, Host, HostView, Tensor};
use half::{bf16, f16};
use std::ptr::null_mut;
use std::sync::Arc;

/// What a [`super::bespoke_sampler`] asks, whatever the dtype of its batch.
pub(super) trait Engine: Send {
    /// One step from and to `x`.
    fn step(&mut self, plan: &Arc<Plan>, step: usize, x: &HostTensor<'_>, velocity: &Velocity) -> Result<()>;
}

/// The engine for a dtype.
pub(super) fn engine(dtype: Dtype) -> Result<Box<dyn Engine>> {
    Ok(match dtype {
        Dtype::F32 => Box::new(Typed::<f32>::new(DL_FLOAT)?),
        Dtype::F64 => Box::new(Typed::<f64>::new(DL_FLOAT)?),
        Dtype::F16 => Box::new(Typed::<f16>::new(DL_FLOAT)?),
        Dtype::BF16 => Box::new(Typed::<bf16>::new(DL_BFLOAT)?),
    })
}

struct Typed<E> {
    sampler: Sampler<Host<E>>,
    /// Where a callback writes the velocity, or a scattered one is gathered.
    velocity: Host<E>,
    times: Vec<f32>,
    /// Of the batch, the batch first.
    shape: Vec<i64>,
    dtype: DLDataType,
}

impl<E: Element> Typed<E> {
    fn new(code: u8) -> Result<Self> {
        Ok(Self {
            sampler: Sampler::new(&Host::zeros(0, 1)?)?,
            velocity: Host::zeros(0, 1)?,
            times: Vec::new(),
            shape: Vec::new(),
            dtype: DLDataType { code, bits: 8 * size_of::<E>() as u8, lanes: 1 },
        })
    }

    /// Begins at `stage` with the samples `x`.
    fn begin(&mut self, plan: &Arc<Plan>, stage: usize, x: &HostTensor<'_>) -> Result<()> {
        let (batch, elements) = (x.batch(), x.elements());
        x.gather(self.sampler.begin(plan, stage, batch, elements)?);
        if self.velocity.elements() != elements {
            self.velocity = Host::zeros(0, elements)?;
        }
        self.velocity.resize(batch)?;
        self.shape.clear();
        self.shape.extend_from_slice(x.shape());
        self.times.clear();
        self.times.resize(batch, 0.0);
        Ok(())
    }

    /// One evaluation by the host's function, and the update with it.
    fn evaluate(&mut self, velocity: &Velocity) -> Result<()> {
        let Some((times, x)) = self.sampler.query()? else {
            return Err(Error::State("there is no evaluation left".into()));
        };
        self.times.iter_mut().zip(times).for_each(|(to, from)| *to = *from as f32);
        let shape = self.shape.as_mut_ptr();
        let float32 = DLDataType { code: DL_FLOAT, bits: 32, lanes: 1 };
        // A callback is told not to write through `t` and `x`.
        let t = describe(self.times.as_mut_ptr(), float32, shape, 1);
        let x = describe(x.data().as_ptr().cast_mut(), self.dtype, shape, self.shape.len());
        let mut u = describe(self.velocity.data_mut().as_mut_ptr(), self.dtype, shape, self.shape.len());
        velocity.call(&t, &x, &mut u)?;
        self.sampler.update(self.velocity.view())
    }
}

/// A contiguous tensor of this library's own memory.
fn describe<T>(data: *mut T, dtype: DLDataType, shape: *mut i64, rank: usize) -> DLTensor {
    DLTensor {
        data: data.cast(),
        device: DLDevice { device_type: DL_CPU, device_id: 0 },
        ndim: rank as i32,
        dtype,
        shape,
        strides: null_mut(),
        byte_offset: 0,
    }
}

impl<E: Element> Engine for Typed<E> {
    fn step(&mut self, plan: &Arc<Plan>, step: usize, x: &HostTensor<'_>, velocity: &Velocity) -> Result<()> {
        let stages = plan.tableau().step_stages(step).ok_or_else(|| {
            Error::invalid("step", step, format!("0 to {}", plan.tableau().steps() - 1))
        })?;
        x.check_writable()?;
        if plan.self_contained(stages.start) {
            self.begin(plan, stages.start, x)?;
        } else if self.sampler.stands_at(plan, stages.start) && self.sampler.batch() > 0 {
            x.check_shape(&self.shape)?;
        } else {
            return Err(Error::State(format!(
                "step {step} of this theta builds on the steps before: call the steps 0, 1, ... in order with \
                 the same sampler, theta and shape"
            )));
        }
        for _ in stages {
            self.evaluate(velocity)?;
        }
        x.scatter(self.sampler.state()?.data());
        Ok(())
    }
}
