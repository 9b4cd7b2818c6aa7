//! A package of AOTInductor (`.pt2`) as a network, and a second one as its vector-Jacobian product.

mod package;
mod ports;
mod umbrella;

use self::package::{Package, Unloaded};
use super::expected::{Expected, Found};
use super::libtorch::{Convention, Trial, shaped};
use super::network::{Call, Network, Opened};
use crate::card::{Card, Order};
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::tensor::{Compute, Device, Dtype, Register, Tensor};
use crate::torch::{TorchTensor, kind_of, prepare};
use crate::velocity::Vjp;
use std::path::Path;

/// A compiled network on the device that it was compiled for. Any number of threads.
pub struct Pt2 {
    convention: Convention,
    forward: Compiled,
    vjp: Option<Compiled>,
}

/// A package whose inputs are those of the card.
struct Compiled {
    package: Package,
    /// The types that it takes, in the order of its inputs.
    dtypes: Vec<Dtype>,
}

impl Pt2 {
    /// Opens the packages of `card`, checks that they take what it says, and tries them on a sample.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] where a file is none that libtorch can run here, or is not what the card
    /// says; [`Error::Unsupported`] where the device cannot be had; [`Error::Invalid`] for another `compute` than f32:
    /// a package has the types that it was compiled with.
    pub fn load(card: &Card, device: Device, compute: Compute) -> Result<Self> {
        if compute != Compute::F32 {
            let expected = "f32: a compiled package is computed in the types that it was compiled with";
            return Err(Error::invalid("dtype", compute, expected));
        }
        let device = prepare(device)?;
        // Both are read before one is loaded, which runs code of its file.
        let forward = Read::open(&card.weights_path(), card, device, false)?;
        let vjp = card.vjp_path().map(|path| Read::open(&path, card, device, true)).transpose()?;
        let (forward, vjp) = (forward.load()?, vjp.map(Read::load).transpose()?);
        let network = Self { convention: Convention::of(card, device), forward, vjp };
        network.check(&Trial::of(card, device, compute)?)?;
        Ok(network)
    }

    /// Tries both packages on a made-up sample.
    fn check(&self, trial: &Trial) -> Result<()> {
        let run = |time: &tch::Tensor, x: &tch::Tensor| self.run(time, x, trial.inputs());
        trial.repeatable(run).map_err(|problem| Error::format(self.forward.package.document(), ".", problem))?;
        let Some(vjp) = &self.vjp else { return Ok(()) };
        // A network that cannot take this very sample says so where it is given real ones.
        let (x, time) = trial.tensors()?;
        let Ok(output) = run(&time, &x) else { return Ok(()) };
        let wrong = |problem: String| Error::format(vjp.package.document(), ".", problem);
        let [again, ..] = self
            .pull_back(vjp, &time, &x, trial.inputs(), &x)
            .map_err(|error| wrong(format!("is no vector-Jacobian product of this card: {error}")))?;
        if trial.differ(&output, &again)? {
            return Err(wrong(
                "is the vector-Jacobian product of another network: its output is not that of the \
                              card's weights"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The network's output for states `x`, `[batch, shape...]`, at `time`, `[batch]`.
    fn run(&self, time: &tch::Tensor, x: &tch::Tensor, inputs: &Inputs) -> Result<tch::Tensor> {
        let given = self.convention.arguments(time, x, inputs)?;
        let [output] = self.forward.run(given)?;
        self.convention.output(output, x)
    }

    /// The output, and the gradients of `cotangent` by `x` and by `time`.
    fn pull_back(
        &self,
        vjp: &Compiled,
        time: &tch::Tensor,
        x: &tch::Tensor,
        inputs: &Inputs,
        cotangent: &tch::Tensor,
    ) -> Result<[tch::Tensor; 3]> {
        let mut given = self.convention.arguments(time, x, inputs)?;
        given.push(("cotangent", cotangent.shallow_clone()));
        let [output, by_x, by_time] = vjp.run(given)?;
        if by_time.numel() != time.numel() {
            let expected = format!("{:?}, one for each sample", time.size());
            return Err(Error::invalid("the gradient by time", format!("of shape {:?}", by_time.size()), expected));
        }
        let by_time = self.convention.output(by_time.f_reshape(time.size())?, time)?;
        Ok([self.convention.output(output, x)?, self.convention.output(by_x, x)?, by_time])
    }
}

/// A package that takes what its card says, and is not loaded yet.
struct Read {
    package: Unloaded,
    dtypes: Vec<Dtype>,
}

impl Read {
    /// Reads the package at `path`, and checks that it takes what `card` says, with a cotangent last or without.
    fn open(path: &Path, card: &Card, device: tch::Device, cotangent: bool) -> Result<Self> {
        let package = Unloaded::read(path, device)?;
        let mut expected = vec![Expected::rows("x", None, &card.shape), Expected::time("time", card.time)];
        if card.order == Order::TimeFirst {
            expected.reverse();
        }
        let signature = card.signature();
        let inputs = signature.inputs().iter();
        expected.extend(inputs.map(|input| Expected::rows(&input.name, Some(input.dtype), &input.shape)));
        expected.extend(cotangent.then(|| Expected::rows("cotangent", None, &card.shape)));
        let wrong = |field: &str, problem: String| Error::format(package.document(), field, problem);
        if package.inputs().len() != expected.len() {
            let ours: Vec<&str> = expected.iter().map(|own| own.name.as_str()).collect();
            let problem =
                format!("are {} in the package, but the card has {}", package.inputs().len(), ours.join(", "));
            return Err(wrong("inputs", problem));
        }
        let mut dtypes = Vec::with_capacity(expected.len());
        for (own, port) in expected.iter().zip(package.inputs()) {
            let found = Found { dtype: &port.dtype, shape: &port.shape(), place: "the package" };
            dtypes.push(own.agreed_dtype(&found).map_err(|problem| wrong(&own.name, problem))?);
            if let Some(problem) = own.shape_problem(&found).or_else(|| port.layout_problem()) {
                return Err(wrong(&own.name, problem));
            }
        }
        Ok(Self { package, dtypes })
    }

    fn load(self) -> Result<Compiled> {
        Ok(Compiled { package: self.package.load()?, dtypes: self.dtypes })
    }
}

impl Compiled {
    /// Its outputs for what is `given`, in the types that it takes.
    fn run<const N: usize>(&self, mut given: Vec<(&str, tch::Tensor)>) -> Result<[tch::Tensor; N]> {
        for ((_, tensor), dtype) in given.iter_mut().zip(&self.dtypes) {
            *tensor = tensor.f_to_kind(kind_of(*dtype))?;
        }
        self.package.run(&given)
    }
}

impl Network for Pt2 {
    type Tensor = TorchTensor;

    fn upload(&self, values: &[f32], elements: usize) -> Result<TorchTensor> {
        TorchTensor::upload(values, elements, self.convention.device)
    }

    fn forward(&self, call: &Call<'_, TorchTensor>) -> Result<TorchTensor> {
        let _guard = tch::no_grad_guard();
        let batch = call.x.batch();
        if batch == 0 {
            return call.x.zeros_like(0);
        }
        let x = shaped(call.x.inner(), call.shape)?;
        TorchTensor::new(self.run(&self.convention.times(call.time, batch)?, &x, call.inputs)?)
    }

    fn differentiable(&self) -> bool {
        self.vjp.is_some()
    }

    fn vjp(&self, call: &Call<'_, TorchTensor>, cotangents: &[TorchTensor]) -> Result<(TorchTensor, Vjp<TorchTensor>)> {
        let _guard = tch::no_grad_guard();
        let Some(package) = &self.vjp else {
            let problem = "this network has no vector-Jacobian product: its card names no package under \"vjp\"";
            return Err(Error::Unsupported(problem.into()));
        };
        let (x, time) = (shaped(call.x.inner(), call.shape)?, self.convention.times(call.time, call.x.batch())?);
        let mut vjp = Vjp { x: Vec::with_capacity(cotangents.len()), t: Vec::with_capacity(cotangents.len()) };
        let mut output = None;
        for cotangent in cotangents {
            let w = shaped(cotangent.inner(), call.shape)?;
            let [u, by_x, by_time] = self.pull_back(package, &time, &x, call.inputs, &w)?;
            vjp.x.push(TorchTensor::new(by_x)?);
            vjp.t.push(TorchTensor::new(by_time)?);
            output = Some(u);
        }
        let output = output.map_or_else(|| self.run(&time, &x, call.inputs), Ok)?;
        Ok((TorchTensor::new(output)?, vjp))
    }
}

/// Opens the packages that `card` names.
///
/// # Errors
/// As [`Pt2::load`].
pub(super) fn open(card: &Card, device: Device, compute: Compute) -> Result<Opened> {
    Ok(Opened::Torch(Box::new(Pt2::load(card, device, compute)?)))
}
