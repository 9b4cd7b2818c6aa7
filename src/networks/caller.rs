//! A network that the program using this library runs itself.

use super::network::{Call, Network};
use crate::error::Result;
use crate::memory;
use crate::tensor::{Host, PerRow, Register, Tensor};

/// One forward pass of the caller: reads times `[batch]` and the call's states and inputs, and writes the
/// outputs, `[batch, elements]`.
pub type Forward = dyn Fn(&[f32], &Call<'_, Host<f32>>, &mut Host<f32>) -> Result<()> + Send + Sync;

/// A network given as a function.
pub struct CallerNetwork {
    forward: Box<Forward>,
}

impl CallerNetwork {
    /// The network that `forward` is.
    pub fn new(forward: Box<Forward>) -> Self {
        Self { forward }
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
        let mut output = call.x.zeros_like(call.x.batch())?;
        (self.forward)(&times(call.time, call.x.batch())?, call, &mut output)?;
        Ok(output)
    }
}
