//! A network that the program using this library runs itself.

use super::network::{Call, Network};
use crate::error::{Error, Result};
use crate::memory;
use crate::tensor::{Host, PerRow, Register, Remote, Tensor};

/// One forward pass of the caller: reads times `[batch]` and the call's states and inputs, and writes the
/// outputs, `[batch, elements]`.
pub type Forward<T = Host<f32>> = dyn Fn(&[f32], &Call<'_, T>, &mut T) -> Result<()> + Send + Sync;

/// A network given as a function.
pub struct CallerNetwork<T = Host<f32>> {
    forward: Box<Forward<T>>,
}

impl<T: Tensor> CallerNetwork<T> {
    /// The network that `forward` is.
    pub fn new(forward: Box<Forward<T>>) -> Self {
        Self { forward }
    }

    fn run(&self, call: &Call<'_, T>, mut output: T) -> Result<T> {
        (self.forward)(&times(call.time, call.x.batch())?, call, &mut output)?;
        Ok(output)
    }
}

/// The number of every row, as float32.
pub(crate) fn times(time: PerRow<'_>, batch: usize) -> Result<Vec<f32>> {
    memory::collected((0..batch).map(|row| time.at(row) as f32))
}

impl Network for CallerNetwork {
    type Tensor = Host<f32>;

    fn upload(&self, values: &[f32], elements: usize) -> Result<Host<f32>> {
        Host::new(memory::copied(values)?, elements)
    }

    fn forward(&self, call: &Call<'_, Host<f32>>) -> Result<Host<f32>> {
        self.run(call, call.x.zeros_like(call.x.batch())?)
    }
}

/// On a device of the caller's: what the output is before it is written is not said.
impl Network for CallerNetwork<Remote> {
    type Tensor = Remote;

    fn upload(&self, _values: &[f32], _elements: usize) -> Result<Remote> {
        Err(Error::Unsupported("nothing is brought to a device of the host program's: samples are there".into()))
    }

    fn forward(&self, call: &Call<'_, Remote>) -> Result<Remote> {
        self.run(call, call.x.beside(0, call.x.batch(), call.x.elements())?)
    }
}
