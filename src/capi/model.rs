//! Models that the library runs itself, for a host without a runtime of its own.

use super::condition::{bespoke_condition, read_condition};
use super::described::{Described, bespoke_input_properties};
use super::dlpack::{DLDevice, DLTensor};
use super::guard::{create, destroy, guard, path, required, text};
use super::layout::{HostTensor, SampleDtype};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use crate::card::Sizes;
use crate::document;
use crate::error::{Error, Result};
use crate::memory;
use crate::model::{self, FieldTask, Model, ModelField};
use crate::tensor::{Device, DeviceMemory, Dtype, PerRow, Remote, Tensor};
use crate::velocity::{Condition, VelocityField};
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

/// A velocity model opened from a card. Immutable: any number of threads may use one at a time, but one of
/// `bespoke_model_host_on_device`, which is for one.
pub struct bespoke_model {
    model: Model,
    /// Where its samples are, if not in host memory.
    device: Option<(DLDevice, Arc<DeviceMemory>)>,
    name: CString,
    card: CString,
    signature: Described,
}

/// What `bespoke_model_info` tells. Texts and arrays are the model's and live as long as it does.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_model_properties {
    /// sizeof(bespoke_model_properties), set by the caller.
    pub struct_size: u32,
    /// Length of `shape`.
    pub ndim: u32,
    /// Shape of one sample; -1 for a size that has a name, which may differ between samples.
    pub shape: *const i64,
    /// Number of classes; 0 for none.
    pub classes: i64,
    /// The class that stands for none, which guidance needs; -1 where there is none.
    pub null_class: i64,
    /// Least value of the data.
    pub data_low: f64,
    /// Greatest value of the data.
    pub data_high: f64,
    /// Standard deviation of x(0): standard normal noise times this is a start.
    pub initial_scale: f64,
    /// The card's file name without its extension.
    pub name: *const c_char,
    /// The card, a JSON object.
    pub card: *const c_char,
    /// Names of the sizes of `shape`, `ndim` of them; NULL for a number.
    pub shape_names: *const *const c_char,
    /// What the network takes besides time and state, in its order; `class` first where there are classes.
    pub inputs: *const bespoke_input_properties,
    /// Names of the scales of guidance, in the order of the passes.
    pub scales: *const *const c_char,
    /// Length of `inputs`.
    pub input_count: u32,
    /// Length of `scales`.
    pub scale_count: u32,
}

sized_struct!(bespoke_model_properties {
    ndim,
    shape,
    classes,
    null_class,
    data_low,
    data_high,
    initial_scale,
    name,
    card,
    shape_names,
    inputs,
    scales,
    input_count,
    scale_count
});

/// A model and a condition: the `user_data` of `bespoke_model_field`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_model_binding {
    /// sizeof(bespoke_model_binding), set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The model.
    pub model: *const bespoke_model,
    /// The condition of the batch, or NULL.
    pub condition: *const bespoke_condition,
}

sized_struct!(bespoke_model_binding { reserved, model, condition });

/// Opens the model that the card at `path` describes. `device` is `cpu`, `cuda` or `cuda:INDEX`,
/// and for ONNX models `tensorrt` or `tensorrt:INDEX`; NULL is `cpu`.
///
/// # Safety
/// `path` and `device` are NULL or NUL-terminated. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_open(
    path: *const c_char,
    device: *const c_char,
    out: *mut *mut bespoke_model,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe {
        create(out, || {
            let device = if device.is_null() { Device::Cpu } else { text("device", device)?.parse()? };
            bespoke_model::new(model::open(self::path("path", path)?, device)?)
        })
    }
}

/// Says what `model` is. `properties->struct_size` must be set.
///
/// # Safety
/// `model` is NULL or an object that has not been freed. `properties` is NULL or begins with its size, and that
/// many bytes of it can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_info(
    model: *const bespoke_model,
    properties: *mut bespoke_model_properties,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { structs::write("properties", properties, &required("model", model)?.properties()) })
}

/// Evaluates the velocity of `model` in solver time: `u` = u_t(x), `x` and `u` `[batch, ...]` of the
/// model's shape, `t` `[batch]` in [0, 1]; each of any dtype and strides. The network computes in
/// float32. `condition` may be NULL.
///
/// # Safety
/// `model` is NULL or an object that has not been freed. `t` and `x` are NULL or describe memory that may be read
/// during the call. `u` is NULL or describes memory that may be written, and that no other thread uses, during the
/// call. `condition` is NULL or begins with its size, and its members are what their comments say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_velocity(
    model: *const bespoke_model,
    condition: *const bespoke_condition,
    t: *const DLTensor,
    x: *const DLTensor,
    u: *mut DLTensor,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let (model, condition) = (required("model", model)?, read_condition(condition)?);
        model.velocity(
            &condition,
            &HostTensor::new("t", t)?,
            &HostTensor::anywhere("x", x)?,
            &HostTensor::anywhere("u", u)?,
        )
    })
}

/// `bespoke_model_velocity` as a `bespoke_velocity_fn`: give it to `bespoke_step` or `bespoke_sample`
/// with a `bespoke_model_binding` as `user_data`. Answers a `bespoke_status`.
///
/// # Safety
/// `t` and `x` are NULL or describe memory that may be read during the call. `u` is NULL or describes memory that
/// may be written, and that no other thread uses, during the call. `user_data` is NULL or points to a
/// `bespoke_model_binding` whose model has not been freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_field(
    user_data: *mut c_void,
    t: *const DLTensor,
    x: *const DLTensor,
    u: *mut DLTensor,
) -> i32 {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let binding: bespoke_model_binding = structs::read("user_data", user_data.cast())?;
        let (model, condition) = (required("binding.model", binding.model)?, read_condition(binding.condition)?);
        model.velocity(
            &condition,
            &HostTensor::new("t", t)?,
            &HostTensor::anywhere("x", x)?,
            &HostTensor::anywhere("u", u)?,
        )
    })
}

/// Predicts x(1) along the way: writes into `x1` the data that the velocity `u` of `model` at time `t` and
/// state `x` points to, given the model's scheduler. `t` is `[batch]`, all others `[batch, ...]` of the
/// model's shape, as `bespoke_model_velocity` takes and gives them. No network is run.
///
/// # Safety
/// `model` is NULL or an object that has not been freed. `t`, `x` and `u` are NULL or describe memory that may be
/// read during the call. `x1` is NULL or describes memory that may be written, and that no other thread uses,
/// during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_prediction(
    model: *const bespoke_model,
    t: *const DLTensor,
    x: *const DLTensor,
    u: *const DLTensor,
    x1: *mut DLTensor,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let (t, x) = (HostTensor::new("t", t)?, HostTensor::anywhere("x", x)?);
        required("model", model)?.prediction(&t, &x, &HostTensor::anywhere("u", u)?, &HostTensor::anywhere("x1", x1)?)
    })
}

/// Frees a model; NULL is fine.
///
/// # Safety
/// `model` is NULL or was made by this library, and nothing uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_model_free(model: *mut bespoke_model) {
    // SAFETY: as the header asks.
    unsafe { destroy(model) }
}

impl bespoke_model {
    pub(super) fn new(model: Model) -> Result<Self> {
        let card = model.card();
        let json = document::line(card, &card.name())?;
        Ok(Self {
            // Neither a file name that was opened nor JSON text holds a NUL.
            name: CString::new(card.name()).unwrap_or_default(),
            card: CString::new(json).unwrap_or_default(),
            signature: Described::new(card, &model.scales()),
            model,
            device: None,
        })
    }

    /// A model whose samples are in `memory`, that of `device`.
    pub(super) fn on_device(model: Model, device: DLDevice, memory: Arc<DeviceMemory>) -> Result<Self> {
        Ok(Self { device: Some((device, memory)), ..Self::new(model)? })
    }

    fn properties(&self) -> bespoke_model_properties {
        let card = self.model.card();
        bespoke_model_properties {
            struct_size: 0,
            ndim: self.signature.shape.sizes.len() as u32,
            shape: self.signature.shape.sizes.as_ptr(),
            classes: card.classes,
            null_class: card.null_class.unwrap_or(-1),
            data_low: card.data_range[0],
            data_high: card.data_range[1],
            initial_scale: card.scheduler.initial_scale(),
            name: self.name.as_ptr(),
            card: self.card.as_ptr(),
            shape_names: self.signature.shape.pointers.as_ptr(),
            inputs: self.signature.inputs.as_ptr(),
            scales: self.signature.scale_pointers.as_ptr(),
            input_count: self.signature.inputs.len() as u32,
            scale_count: self.signature.scale_pointers.len() as u32,
        }
    }

    fn velocity(
        &self,
        condition: &Condition,
        t: &HostTensor<'_>,
        x: &HostTensor<'_>,
        u: &HostTensor<'_>,
    ) -> Result<()> {
        self.check_places(&[x, u])?;
        u.check_writable()?;
        u.check_shape(x.shape())?;
        let times = self.times(t, x)?;
        if let Some((_, memory)) = &self.device {
            let velocity = self.remote()?.eval(PerRow::Each(&times), &there(memory, x), condition)?;
            return velocity.write(0..x.batch(), u.address());
        }
        let values = gathered(x)?;
        let same = times.iter().all(|t| *t == times[0]);
        let times = if same { PerRow::All(times[0]) } else { PerRow::Each(&times) };
        let velocity = self.model.with(Evaluating { times, values: &values, elements: x.elements(), condition })?;
        u.scatter(&velocity, SampleDtype::F32);
        Ok(())
    }

    fn prediction(
        &self,
        t: &HostTensor<'_>,
        x: &HostTensor<'_>,
        u: &HostTensor<'_>,
        x1: &HostTensor<'_>,
    ) -> Result<()> {
        self.check_places(&[x, u, x1])?;
        x1.check_writable()?;
        u.check_shape(x.shape())?;
        x1.check_shape(x.shape())?;
        let times = self.times(t, x)?;
        let coefficients = times.iter().map(|t| self.model.card().data_coefficients(*t));
        if let Some((_, memory)) = &self.device {
            let (p, q): (Vec<f64>, Vec<f64>) = coefficients.unzip();
            let terms = [(PerRow::Each(&p), &there(memory, x)), (PerRow::Each(&q), &there(memory, u))];
            return Remote::linear_combination(&terms)?.write(0..x.batch(), x1.address());
        }
        let (mut values, velocities) = (gathered(x)?, gathered(u)?);
        let rows = values.chunks_exact_mut(x.elements()).zip(velocities.chunks_exact(x.elements()));
        for ((p, q), (x, u)) in coefficients.zip(rows) {
            for (x, u) in x.iter_mut().zip(u) {
                *x = (p * f64::from(*x) + q * f64::from(*u)) as f32;
            }
        }
        x1.scatter(&values, SampleDtype::F32);
        Ok(())
    }

    /// Errors where one of `tensors` is not where this model's samples are; on a device they are float32.
    fn check_places(&self, tensors: &[&HostTensor<'_>]) -> Result<()> {
        let device = self.device.as_ref().map(|(device, _)| *device);
        tensors.iter().try_for_each(|tensor| {
            tensor.check_device_of(device, "the model's")?;
            if device.is_some() { tensor.check_dtype(SampleDtype::F32) } else { Ok(()) }
        })
    }

    /// The velocity field of a model on a device.
    fn remote(&self) -> Result<&ModelField<Remote>> {
        self.model.remote_field().ok_or_else(|| Error::State("the model's samples are in host memory".into()))
    }

    /// The times of a batch `x` of this model, checked.
    fn times(&self, t: &HostTensor<'_>, x: &HostTensor<'_>) -> Result<Vec<f64>> {
        let sample: Vec<usize> = x.shape()[1..].iter().map(|n| *n as usize).collect();
        let shape = &self.model.card().shape;
        shape.learn("x", &sample, &mut Sizes::new()).map_err(|_| {
            let expected = format!("[batch, {}", &shape.to_string()[1..]);
            Error::invalid("x.shape", format!("{:?}", x.shape()), expected)
        })?;
        t.check_shape(&x.shape()[..1])?;
        let mut times = memory::filled(x.batch(), 0.0f64)?;
        t.gather(&mut times, SampleDtype::F64);
        if let Some(t) = times.iter().find(|t| !(0.0..=1.0).contains(*t)) {
            return Err(Error::invalid("t", t, "times in [0, 1]"));
        }
        Ok(times)
    }
}

/// The numbers of a batch in host memory.
fn gathered(x: &HostTensor<'_>) -> Result<Vec<f32>> {
    let mut values = memory::filled(memory::numbers(x.batch(), x.elements())?, 0.0f32)?;
    x.gather(&mut values, SampleDtype::F32);
    Ok(values)
}

/// A batch of float32 on a device, whose memory `memory` is.
fn there(memory: &Arc<DeviceMemory>, x: &HostTensor<'_>) -> Remote {
    Remote::at_address(memory.clone(), Dtype::Float32, (x.batch(), x.elements()), x.address())
}

/// u_t(x) of states `[batch, elements]`.
struct Evaluating<'a> {
    times: PerRow<'a>,
    values: &'a [f32],
    elements: usize,
    condition: &'a Condition,
}

impl FieldTask for Evaluating<'_> {
    type Output = Result<Vec<f32>>;

    fn run<F: VelocityField + Sync>(self, field: &F) -> Result<Vec<f32>> {
        field.eval(self.times, &field.upload(self.values, self.elements)?, self.condition)?.to_f32()
    }
}
