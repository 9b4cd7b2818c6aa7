//! Distances between sets of samples, in the features of a network.
//!
//! | place | what |
//! |---|---|
//! | [`Features`] | samples in the features of the network that a card names |
//! | [`Moments`] | mean and covariance, batch by batch |
//! | [`frechet`] | the Fréchet distance of two Gaussians (Heusel et al. 2017) |
//! | [`precision_recall`] | k-nearest-neighbour manifolds (Kynkäänniemi et al. 2019) |

mod features;
mod frechet;
mod manifold;
mod moments;
mod set;

pub use features::Features;
pub use frechet::{Reference, frechet};
pub use manifold::{NEIGHBOURS, PrecisionRecall, precision_recall};
pub use moments::Moments;
pub use set::{Distance, MANIFOLD_SAMPLES, SampleSet};
