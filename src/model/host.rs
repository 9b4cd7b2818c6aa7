//! A network that the program using this library runs itself.

use super::field::Network;
use crate::error::{Error, Result};
use crate::tensor::{Host, PerRow, Tensor};
use crate::velocity::Vjp;

/// One forward pass: times `[batch]`, states `[batch, elements]` and classes, `[batch]` or empty, to outputs,
/// `[batch, elements]`, which are to be written.
pub type Forward = dyn Fn(&[f32], &Host<f32>, &[i64], &mut Host<f32>) -> Result<()> + Send + Sync;

/// A network given as a function.
pub struct HostNetwork {
    elements: usize,
    forward: Box<Forward>,
}

impl HostNetwork {
    /// A network of samples of `elements` numbers.
    pub fn new(elements: usize, forward: Box<Forward>) -> Self {
        Self { elements, forward }
    }
}

impl Network for HostNetwork {
    type Tensor = Host<f32>;

    fn upload(&self, values: &[f32]) -> Result<Host<f32>> {
        Host::new(values.to_vec(), self.elements)
    }

    fn forward(&self, time: PerRow<'_>, x: &Host<f32>, class: &[i64]) -> Result<Host<f32>> {
        let times: Vec<f32> = (0..x.batch()).map(|row| time.at(row) as f32).collect();
        let mut output = x.zeros_like(x.batch())?;
        (self.forward)(&times, x, class, &mut output)?;
        Ok(output)
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn vjp(
        &self,
        _time: PerRow<'_>,
        _x: &Host<f32>,
        _class: &[i64],
        _cotangents: &[Host<f32>],
    ) -> Result<(Host<f32>, Vjp<Host<f32>>)> {
        Err(Error::Unsupported("a network of the host program has no vector-Jacobian product".into()))
    }
}
