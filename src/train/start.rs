//! Where training starts on another path than the model's own (BES Thm 2.3).

use super::parameters::{Parameters, Shape};
use crate::error::Result;
use crate::path::GaussianPath;
use crate::solvers::classical;
use crate::theta::{Family, NsTable, Theta};

/// The parameters of the base solver on `path`: Euler for `rk1` and `ns`, midpoint for `rk2`.
///
/// On the model's own path this is [`Parameters::identity`].
///
/// # Errors
/// [`crate::Error::Invalid`] where the path makes no theta, as with a scale beyond what a number holds.
pub fn start_on_path(shape: Shape, path: &GaussianPath) -> Result<Parameters> {
    let family = match shape {
        Shape::Rk1(steps) => Family::Rk1(path.knots(steps)),
        Shape::Rk2(steps) => Family::Rk2(path.knots(2 * steps)),
        Shape::Ns(nfe) => {
            let euler = classical::euler(&classical::uniform_grid(nfe));
            Family::Ns(NsTable::compile(&path.transform(&euler)))
        }
    };
    Ok(Parameters::from_theta(&Theta::new(family)?))
}
