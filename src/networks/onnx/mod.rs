//! An ONNX model as a network, through ONNX Runtime's shared library, which is looked for when a model is opened.

mod library;
mod session;

use self::session::{Port, Session, View, ViewMut};
use super::network::{Call, Network, Opened};
use crate::card::Card;
use crate::error::{Error, Result};
use crate::inputs::CLASS;
use crate::tensor::{Compute, Device, Dtype, Host, PerRow, Tensor};
use half::{bf16, f16};
use std::borrow::Cow;

/// What the card says that an input or output of the graph is.
struct Expected {
    name: String,
    /// `None`: any float, which the numbers are converted to.
    dtype: Option<Dtype>,
    /// Of one sample.
    shape: Vec<usize>,
}

/// An ONNX model on its device. Any number of threads at a time: the processor's sessions serve them side by side, the
/// others one after another.
pub struct Onnx {
    session: Session,
    /// What is called `x` and `t` here.
    state: Port,
    time: Port,
    output: Port,
    /// The types that states, times and outputs have in the graph.
    dtypes: [Dtype; 3],
    /// The other inputs, by the names of the call's columns.
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
        let session = Session::open(&path, device, rayon::current_num_threads())?;
        let document = path.display().to_string();
        let wrong = |port: &str, problem: String| Error::format(&document, port, problem);

        let float = |name: &str, shape: &[usize]| Expected { name: name.into(), dtype: None, shape: shape.to_vec() };
        let mut expected = vec![float("x", &card.shape), float("t", &[])];
        if card.classes > 0 {
            expected.push(Expected { name: CLASS.into(), dtype: Some(Dtype::Int64), shape: Vec::new() });
        }
        let names = |names: &mut dyn Iterator<Item = Cow<'_, str>>| names.collect::<Vec<_>>().join(", ");
        let ours = names(&mut expected.iter().map(|own| Cow::Borrowed(own.name.as_str())));
        if let Some(port) = session.inputs().iter().find(|port| !expected.iter().any(|own| own.name == port.name())) {
            return Err(wrong(&port.name(), format!("is an input of the graph, but the card has {ours}")));
        }
        let theirs = names(&mut session.inputs().iter().map(Port::name));
        let mut ports = Vec::new();
        for own in &expected {
            let port = session.inputs().iter().find(|port| own.name == port.name()).ok_or_else(|| {
                wrong(&own.name, format!("is an input of the card, but those of the graph are {theirs}"))
            })?;
            ports.push((port.clone(), agreed(port, own).map_err(|problem| wrong(&own.name, problem))?));
        }
        let [output] = session.outputs() else {
            let theirs = names(&mut session.outputs().iter().map(Port::name));
            return Err(wrong("outputs", format!("are {theirs}, expected one alone")));
        };
        let output = output.clone();
        let name = output.name().into_owned();
        let output_dtype = agreed(&output, &float(&name, &card.shape)).map_err(|problem| wrong(&name, problem))?;

        let mut ports = ports.into_iter();
        let (Some((state, state_dtype)), Some((time, time_dtype))) = (ports.next(), ports.next()) else {
            return Err(wrong("inputs", "are missing".into()));
        };
        let dtypes = [state_dtype, time_dtype, output_dtype];
        Ok(Self { session, state, time, output, dtypes, inputs: ports.map(|(port, _)| port).collect() })
    }
}

/// The type of `port`, where it is what the card says, for a batch of any size.
fn agreed(port: &Port, expected: &Expected) -> Result<Dtype, String> {
    let dtype = port.dtype.clone().map_err(|found| {
        let asked = expected.dtype.map_or("a tensor of floats".into(), |dtype| format!("a tensor of {dtype}"));
        format!("is {found} in the graph, expected {asked}")
    })?;
    let float = [Dtype::Float64, Dtype::Float32, Dtype::Float16, Dtype::Bfloat16].contains(&dtype);
    match expected.dtype {
        Some(asked) if asked != dtype => return Err(format!("is of {dtype} in the graph, but of {asked} in the card")),
        None if !float => return Err(format!("is of {dtype} in the graph, expected a float")),
        _ => {}
    }
    // A graph that says nothing of a shape has no sizes here, as one of a single number does.
    if port.shape.is_empty() {
        return Ok(dtype);
    }
    let shown = |size: &i64| if *size < 0 { "any".into() } else { size.to_string() };
    let found = || port.shape.iter().map(shown).collect::<Vec<_>>().join(", ");
    let asked = || std::iter::once("any".into()).chain(expected.shape.iter().map(usize::to_string)).collect::<Vec<_>>();
    let agree = |(found, asked): (&i64, &usize)| *found < 0 || usize::try_from(*found) == Ok(*asked);
    if port.shape.len() != expected.shape.len() + 1 || !port.shape[1..].iter().zip(&expected.shape).all(agree) {
        return Err(format!("is of shape [{}] in the graph, but of [{}] in the card", found(), asked().join(", ")));
    }
    if port.shape[0] >= 0 {
        return Err(format!(
            "is of shape [{}] in the graph: its first size, the batch's, is fixed; export the model with a dynamic one",
            found()
        ));
    }
    Ok(dtype)
}

/// The bytes of `values` in `dtype`, a float.
fn encoded(values: &[f32], dtype: Dtype) -> Cow<'_, [u8]> {
    match dtype {
        Dtype::Float64 => values.iter().flat_map(|v| f64::from(*v).to_ne_bytes()).collect::<Vec<_>>().into(),
        Dtype::Float16 => values.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect::<Vec<_>>().into(),
        Dtype::Bfloat16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_ne_bytes()).collect::<Vec<_>>().into(),
        _ => Cow::Borrowed(bytemuck::cast_slice(values)),
    }
}

/// What `bytes` of `dtype`, a float, are, into `values`.
fn decode(bytes: &[u8], dtype: Dtype, values: &mut [f32]) {
    let numbers = values.iter_mut().zip(bytes.chunks_exact(dtype.size()));
    numbers.for_each(|(value, bytes)| {
        *value = match *bytes {
            [a, b] if dtype == Dtype::Float16 => f16::from_ne_bytes([a, b]).to_f32(),
            [a, b] => bf16::from_ne_bytes([a, b]).to_f32(),
            [a, b, c, d] => f32::from_ne_bytes([a, b, c, d]),
            [a, b, c, d, e, f, g, h] => f64::from_ne_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => f32::NAN,
        };
    });
}

/// The bytes of times `[batch]` in `dtype`, a float.
fn times(time: PerRow<'_>, batch: usize, dtype: Dtype) -> Vec<u8> {
    if dtype == Dtype::Float64 {
        return (0..batch).flat_map(|row| time.at(row).to_ne_bytes()).collect();
    }
    encoded(&super::times(time, batch), dtype).into_owned()
}

/// `[batch, shape...]`, as the graph counts.
fn sizes(batch: usize, shape: &[usize]) -> Result<Vec<i64>> {
    let all = std::iter::once(&batch).chain(shape);
    all.map(|n| i64::try_from(*n).map_err(|_| Error::invalid("shape", n, "a size below 2^63"))).collect()
}

impl Network for Onnx {
    type Tensor = Host<f32>;

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f32>> {
        Host::new(values.to_vec(), elements)
    }

    fn forward(&self, call: &Call<'_, Host<f32>>) -> Result<Host<f32>> {
        let batch = call.x.batch();
        let mut output = call.x.zeros_like(batch)?;
        if batch == 0 {
            return Ok(output);
        }
        let [state_dtype, time_dtype, output_dtype] = self.dtypes;
        let (shape, rows) = (sizes(batch, call.shape)?, sizes(batch, &[])?);
        let state = encoded(call.x.data(), state_dtype);
        let time = times(call.time, batch, time_dtype);
        let mut inputs = vec![
            (self.state.name.as_c_str(), View::new(state_dtype, &shape, &state)?),
            (self.time.name.as_c_str(), View::new(time_dtype, &rows, &time)?),
        ];
        for port in &self.inputs {
            let name = port.name();
            let column = call.inputs.get(&name).ok_or_else(|| Error::invalid(&*name, "absent", "there"))?;
            let value = View::new(column.dtype(), &sizes(column.batch(), column.shape())?, column.bytes())?;
            inputs.push((port.name.as_c_str(), value));
        }
        let name = self.output.name.as_c_str();
        if output_dtype == Dtype::Float32 {
            let bytes = bytemuck::cast_slice_mut(output.data_mut());
            self.session.run(&inputs, (name, ViewMut::new(output_dtype, &shape, bytes)?))?;
            return Ok(output);
        }
        let mut bytes = vec![0; output.data().len() * output_dtype.size()];
        self.session.run(&inputs, (name, ViewMut::new(output_dtype, &shape, &mut bytes)?))?;
        decode(&bytes, output_dtype, output.data_mut());
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
