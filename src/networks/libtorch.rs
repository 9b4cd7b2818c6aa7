//! What the runtimes of libtorch share: a call as libtorch's tensors, and a made-up sample on which a network is tried.

use crate::card::{Card, Input, Order, Time, TimeDtype, TimeShape};
use crate::error::{Error, Result};
use crate::inputs::{Column, Inputs};
use crate::tensor::{Compute, Dtype, PerRow};
use crate::torch::{column, dense};
use tch::Kind;

/// How a network is called by place, on its device.
pub(super) struct Convention {
    pub device: tch::Device,
    pub time: Time,
    order: Order,
}

impl Convention {
    pub fn of(card: &Card, device: tch::Device) -> Self {
        Self { device, time: card.time, order: card.order }
    }

    /// One number per sample, `[batch]`.
    pub fn times(&self, time: PerRow<'_>, batch: usize) -> Result<tch::Tensor> {
        Ok(match time {
            PerRow::All(t) => tch::Tensor::f_full([batch as i64], t, (Kind::Float, self.device))?,
            PerRow::Each(_) => {
                let values: Vec<f32> = (0..batch).map(|row| time.at(row) as f32).collect();
                tch::Tensor::f_from_slice(&values)?.f_to_device(self.device)?
            }
        })
    }

    /// What the network is given, in its order, by the names that messages call it: `time` is `[batch]`, `x`
    /// `[batch, shape...]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for times that differ where the network takes one; libtorch's own.
    pub fn arguments<'a>(
        &self,
        time: &tch::Tensor,
        x: &tch::Tensor,
        inputs: &'a Inputs,
    ) -> Result<Vec<(&'a str, tch::Tensor)>> {
        let (state, time) = (("x", x.shallow_clone()), ("time", self.clock(time)?));
        let mut arguments = match self.order {
            Order::StateFirst => vec![state, time],
            Order::TimeFirst => vec![time, state],
        };
        for input in inputs.columns() {
            arguments.push((input.name(), column(input, self.device)?));
        }
        Ok(arguments)
    }

    /// Times `[batch]` in the type and shape that the network takes.
    fn clock(&self, time: &tch::Tensor) -> Result<tch::Tensor> {
        let time = match self.time.dtype {
            TimeDtype::Float32 => time.shallow_clone(),
            TimeDtype::Int64 => time.f_detach()?.f_to_kind(Kind::Int64)?,
        };
        Ok(match self.time.shape {
            TimeShape::Batch => time,
            TimeShape::Column => time.f_reshape([-1, 1])?,
            TimeShape::Scalar => {
                let (least, greatest) = (time.f_min()?.f_double_value(&[])?, time.f_max()?.f_double_value(&[])?);
                if least != greatest {
                    let expected = "one time for the whole batch: the card says time.shape scalar";
                    return Err(Error::invalid("t", format!("{least} to {greatest} as the network counts"), expected));
                }
                time.f_select(0, 0)?
            }
        })
    }

    /// What a network answers for states `x` as the library takes it: dense float32 of their shape.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is of another shape, or its numbers are not floating point; libtorch's own.
    pub fn output(&self, answer: tch::Tensor, x: &tch::Tensor) -> Result<tch::Tensor> {
        let output = dense(answer, self.device)?;
        if output.size() != x.size() {
            return Err(Error::invalid(
                "the model's output shape",
                format!("{:?}", output.size()),
                format!("{:?}", x.size()),
            ));
        }
        Ok(output)
    }
}

/// The states of a call in their own shape.
pub(super) fn shaped(x: &tch::Tensor, shape: &[usize]) -> Result<tch::Tensor> {
    let sizes: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|n| *n as i64)).collect();
    Ok(x.f_reshape(&sizes)?)
}

/// How many numbers of a network's output are compared, to find one that draws at random.
const DRAWS: usize = 128;

/// Numbers of an input of a made-up sample, before they come again.
const PATTERN: i32 = 13;

/// A made-up row of `input`. Floats and masks are of many values: networks that are silent where they are given zeros
/// are all alike there. Integers are 0, the one index that every table has.
fn made_up(input: &Input) -> Result<Column> {
    let number = |i: i32| match input.dtype {
        Dtype::Int64 | Dtype::Int32 => 0.0,
        Dtype::Bool => f64::from(i % 3).min(1.0),
        Dtype::Float64 | Dtype::Float32 | Dtype::Float16 | Dtype::Bfloat16 => f64::from(i + 1).sin(),
    };
    let pattern: Vec<Vec<u8>> = (0..PATTERN).map(|i| input.dtype.encode(number(i))).collect::<Result<_>>()?;
    input.made_up(&pattern.concat())
}

/// A made-up sample, on which a network is tried.
pub(super) struct Trial {
    /// Of a batch of one.
    shape: Vec<i64>,
    time: f64,
    inputs: Inputs,
    device: tch::Device,
    /// By which two outputs may differ, relatively, and be equal but for rounding.
    tolerance: f64,
}

impl Trial {
    pub fn of(card: &Card, device: tch::Device, compute: Compute) -> Result<Self> {
        let signature = card.signature();
        let inputs = Inputs::new(signature.inputs().iter().map(made_up).collect::<Result<_>>()?)?;
        let shape = std::iter::once(1).chain(card.shape.made_up()?.into_iter().map(|n| n as i64)).collect();
        let time = 0.5 * card.time.scale + card.time.offset;
        let time = if card.time.dtype == TimeDtype::Int64 { time.round() } else { time };
        let tolerance = if compute == Compute::Bf16 { 3e-2 } else { 1e-4 };
        Ok(Self { shape, time, inputs, device, tolerance })
    }

    /// State and time, `[1, shape...]` and `[1]`.
    pub fn tensors(&self) -> Result<(tch::Tensor, tch::Tensor)> {
        let (count, options) = (self.shape.iter().product::<i64>(), (Kind::Float, self.device));
        let x = tch::Tensor::f_arange(count, options)?.f_mul_scalar(0.7)?.f_sin()?.f_reshape(&self.shape)?;
        Ok((x, tch::Tensor::f_full([1], self.time, options)?))
    }

    /// What else the network is given.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Whether two outputs differ by more than rounding.
    pub fn differ(&self, a: &tch::Tensor, b: &tch::Tensor) -> Result<bool> {
        let largest = |tensor: &tch::Tensor| -> Result<f64> { Ok(tensor.f_abs()?.f_max()?.f_double_value(&[])?) };
        // Where either is not finite this is false: the solver will find it.
        Ok(largest(&a.f_sub(b)?)? > self.tolerance * largest(a)?)
    }

    /// Has `run` answer several times for the same time and state: they must stay as they are, and the outputs be
    /// equal.
    pub fn repeatable(&self, run: impl Fn(&tch::Tensor, &tch::Tensor) -> Result<tch::Tensor>) -> Result<(), String> {
        let _guard = tch::no_grad_guard();
        // A network that cannot take this very sample says so where it is given real ones.
        let Ok((x, time)) = self.tensors() else { return Ok(()) };
        let (Ok(own_x), Ok(own_time)) = (x.f_mul_scalar(1.0), time.f_mul_scalar(1.0)) else { return Ok(()) };
        let Ok(first) = run(&own_time, &own_x) else { return Ok(()) };
        for (name, own, given) in [("x", &own_x, &x), ("time", &own_time, &time)] {
            if !own.f_equal(given).unwrap_or(true) {
                return Err(format!(
                    "is a network that writes into its input {name}, expected one that leaves it as it is"
                ));
            }
        }
        // Of a small sample dropout may spare the same numbers twice: some hundred are compared in all.
        for _ in 0..(DRAWS / x.numel().max(1)).max(1) {
            let Ok(again) = run(&time, &x) else { return Ok(()) };
            if self.differ(&first, &again).unwrap_or(false) {
                let problem = "is a network that draws random numbers: two equal calls gave different outputs; \
                               expected one that was exported for evaluation, without dropout or noise of its own";
                return Err(problem.to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_made_up_sample_is_not_silent() {
        let text = r#"{ "format": "bespoke-model", "version": 1, "runtime": "pt2", "weights": "net.pt2",
            "shape": ["frames", 3], "output": "velocity", "scheduler": { "name": "fm-ot" }, "inputs": [
            { "name": "cond", "dtype": "float32", "shape": ["frames", 2] },
            { "name": "half", "dtype": "float16", "shape": [] },
            { "name": "mask", "dtype": "bool", "shape": ["frames"] },
            { "name": "tokens", "dtype": "int64", "shape": ["tokens"] } ] }"#;
        let card = Card::parse(text, Path::new("card.json")).unwrap();
        let trial = Trial::of(&card, tch::Device::Cpu, Compute::F32).unwrap();
        let bytes = |name: &str| trial.inputs().get(name).unwrap().bytes();
        let cond: &[f32] = bytemuck::cast_slice(bytes("cond"));
        assert_eq!((cond.len(), cond[0], cond[13]), (16, 1f32.sin(), cond[0]));
        assert_ne!(bytes("half"), [0, 0]);
        assert_eq!(bytes("mask"), [0, 1, 1, 0, 1, 1, 0, 1]);
        assert_eq!(bytes("tokens"), [0; 64]);
        assert_eq!(trial.tensors().unwrap().0.size(), [1, 8, 3]);
    }
}
