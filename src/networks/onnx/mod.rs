//! An ONNX model as a network, through ONNX Runtime's shared library, which is looked for when a model is opened.

mod binding;
mod library;
mod session;

use self::binding::Binding;
use self::session::{Port, Session, View, ViewMut};
use super::bytes::{decode, encoded, sizes, times};
use super::expected::{Expected, Found, listed};
use super::network::{Call, Network, Opened};
use crate::card::{Card, TimeShape};
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::memory;
use crate::tensor::{Compute, Device, Dtype, Host, Register, Tensor};
use crate::threads;
use std::sync::Arc;

/// An ONNX model on its device. Any number of threads at a time: the processor's sessions serve them side by side, the
/// others one after another.
pub struct Onnx {
    session: Arc<Session>,
    ports: Ports,
    time_shape: TimeShape,
}

/// The inputs and outputs of a graph that is what its card says.
struct Ports {
    /// With the type of its numbers.
    state: (Port, Dtype),
    time: (Port, Dtype),
    output: (Port, Dtype),
    /// By the names of the call's columns.
    inputs: Vec<Port>,
}

impl Onnx {
    /// Opens the model of `card` on `device`, and checks that its inputs and outputs are those of the card.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] where the weights are none that ONNX Runtime can run, or are not what the
    /// card says; [`Error::Unsupported`] where there is no ONNX Runtime, or it lacks what the device needs;
    /// [`Error::Invalid`] for another `compute` than f32: a model has the types that it was exported with.
    pub fn load(card: &Card, device: Device, compute: Compute) -> Result<Self> {
        if compute != Compute::F32 {
            let expected = "f32: an ONNX model is computed in the types that it was exported with";
            return Err(Error::invalid("dtype", compute, expected));
        }
        let path = card.weights_path();
        // ONNX Runtime's own message for a missing file does not say so.
        std::fs::File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let session = Session::open(&path, device, threads::count())?;
        let ports = matched(card, &session)
            .map_err(|(port, problem)| Error::format(path.display().to_string(), port, problem))?;
        Ok(Self { session: Arc::new(session), ports, time_shape: card.time.shape })
    }
}

/// The ports of `session` by the names of `card`; the one that disagrees with it, and how.
fn matched(card: &Card, session: &Session) -> Result<Ports, (String, String)> {
    let names = &card.names;
    let mut expected = vec![Expected::rows(&names.x, None, &card.shape), Expected::time(&names.time, card.time)];
    let signature = card.signature();
    expected
        .extend(signature.inputs().iter().map(|input| Expected::rows(&input.name, Some(input.dtype), &input.shape)));

    let unknown = |port: &&Port| !expected.iter().any(|own| own.name == port.name());
    if let Some(port) = session.inputs().iter().find(unknown) {
        let ours = listed(expected.iter().map(|own| own.name.as_str().into()));
        return Err((port.name().into_owned(), format!("is an input of the graph, but the card has {ours}")));
    }
    let found = |own: &Expected| {
        let port = session.inputs().iter().find(|port| own.name == port.name()).ok_or_else(|| {
            let theirs = listed(session.inputs().iter().map(Port::name));
            format!("is an input of the card, but those of the graph are {theirs}")
        })?;
        agreed(port, own).map(|dtype| (port.clone(), dtype))
    };
    let mut inputs = Vec::with_capacity(expected.len());
    for own in &expected {
        inputs.push(found(own).map_err(|problem| (own.name.clone(), problem))?);
    }
    let theirs = || listed(session.outputs().iter().map(Port::name));
    let output = match (&names.output, session.outputs()) {
        (None, [output]) => output,
        (None, _) => return Err(("outputs".into(), format!("are {}: the card's names.output says which", theirs()))),
        (Some(name), outputs) => outputs.iter().find(|port| port.name() == *name).ok_or_else(|| {
            (name.clone(), format!("is the card's names.output, but the outputs of the graph are {}", theirs()))
        })?,
    };
    let name = output.name();
    let dtype = agreed(output, &Expected::rows(&name, None, &card.shape)).map_err(|e| (name.into_owned(), e))?;
    let mut inputs = inputs.into_iter();
    let (Some(state), Some(time)) = (inputs.next(), inputs.next()) else {
        return Err(("inputs".into(), "are missing".into()));
    };
    Ok(Ports { state, time, output: (output.clone(), dtype), inputs: inputs.map(|(port, _)| port).collect() })
}

/// The type of `port`, where it is what the card says; otherwise how it is not.
fn agreed(port: &Port, expected: &Expected) -> Result<Dtype, String> {
    let sizes: Vec<Option<usize>> = port.shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let found = Found { dtype: &port.dtype, shape: &sizes, place: "the graph" };
    let dtype = expected.agreed_dtype(&found)?;
    // A graph that says nothing of a shape has no sizes here, as one of a single number does.
    match expected.shape_problem(&found).filter(|_| !sizes.is_empty()) {
        Some(problem) => Err(problem),
        None => Ok(dtype),
    }
}

impl Onnx {
    /// The graph with `inputs` bound: what was made at the evaluation before, where they are the same.
    fn binding(&self, inputs: &Inputs) -> Result<Arc<Binding>> {
        let column = |port: &Port| {
            let name = port.name();
            let column = inputs.get(&name).ok_or_else(|| Error::invalid(&*name, "absent", "there"))?;
            Ok((port.name.clone(), column.clone()))
        };
        inputs.kept().get(
            |binding: &Binding| binding.is_of(&self.session),
            || Binding::new(self.session.clone(), self.ports.inputs.iter().map(column).collect::<Result<_>>()?),
        )
    }
}

impl Network for Onnx {
    type Tensor = Host<f32>;

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f32>> {
        Host::new(memory::copied(values)?, elements)
    }

    fn forward(&self, call: &Call<'_, Host<f32>>) -> Result<Host<f32>> {
        let batch = call.x.batch();
        let mut output = call.x.zeros_like(batch)?;
        if batch == 0 {
            return Ok(output);
        }
        let Ports { state: (state_port, state_dtype), time: (time_port, time_dtype), .. } = &self.ports;
        let shape = sizes(batch, call.shape)?;
        let state = encoded(call.x.data(), *state_dtype)?;
        let (time, time_shape) = times(call.time, batch, *time_dtype, self.time_shape)?;
        let inputs = [
            (state_port.name.as_c_str(), View::new(*state_dtype, &shape, &state)?),
            (time_port.name.as_c_str(), View::new(*time_dtype, &time_shape, &time)?),
        ];
        let binding = self.binding(call.inputs)?;
        let (port, dtype) = &self.ports.output;
        let name = port.name.as_c_str();
        if *dtype == Dtype::Float32 {
            let bytes = bytemuck::cast_slice_mut(output.data_mut());
            binding.run(&inputs, (name, ViewMut::new(*dtype, &shape, bytes)?))?;
            return Ok(output);
        }
        let mut bytes = memory::filled(memory::numbers(output.data().len(), dtype.size())?, 0)?;
        binding.run(&inputs, (name, ViewMut::new(*dtype, &shape, &mut bytes)?))?;
        decode(&bytes, *dtype, output.data_mut());
        Ok(output)
    }
}

/// Opens the model that `card` names.
///
/// # Errors
/// As [`Onnx::load`].
pub(super) fn open(card: &Card, device: Device, compute: Compute) -> Result<Opened> {
    Ok(Opened::Host(Box::new(Onnx::load(card, device, compute)?)))
}
