//! The legs of a run: which start, which loss and how long, one after another.

use super::config::{Learn, Optimizer};
use super::forward::KEPT_SAMPLES;
use super::iteration::TRIED_ON;
use super::parameters::{Coordinates, Structure};
use super::settings::{Phase, Rung, Settings};
use super::start::Start;

/// Where a leg begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At this one of the rung's starts.
    Start(usize),
    /// At the best of the leg before, with another loss or family.
    Carried,
    /// Where the best of the starts has got to.
    Winner,
}

/// A stretch of training with one family, loss and optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// Which of [`Settings::rungs`].
    pub rung: usize,
    /// What is trained.
    pub structure: Structure,
    /// Where it begins.
    pub origin: Origin,
    /// Loss, optimiser, iterations.
    pub phase: Phase,
}

/// Each of several starts gets this share of the iterations, then the best goes on alone: which valley is the deepest
/// does not show in the first steps.
const HEAT_SHARE: usize = 3;

/// The theta of `rk1` or `rk2` that an `ns` training starts from gets one in so many of its iterations.
const BEFORE_SHARE: usize = 2;

impl Leg {
    /// The coordinates that its optimiser moves: knots for Adam, as in the paper, and where only a part is learned.
    pub fn coordinates(&self, learn: Learn) -> Coordinates {
        match (self.phase.optimizer, learn) {
            (Optimizer::GaussNewton | Optimizer::ForwardGaussNewton, Learn::Both) => Coordinates::Table,
            _ => Coordinates::Knots,
        }
    }

    /// Forward evaluations that one iteration costs about as much as.
    pub fn iteration_cost(&self) -> u64 {
        let (batch, nfe) = (self.phase.batch as u64, self.structure.nfe() as u64);
        match self.phase.optimizer {
            Optimizer::Adam => 4 * batch * nfe,
            // Two cotangents in each measure, and the mean loss of three thetas.
            Optimizer::GaussNewton => {
                let measures = self.phase.objective.end().map_or(1, |terms| terms.measures().len() as u64);
                ((2 + 4 * measures) * batch + 3 * TRIED_ON as u64) * nfe
            }
            Optimizer::ForwardGaussNewton => {
                batch * self.structure.jacobian_evaluations() + (KEPT_SAMPLES + 3 * TRIED_ON) as u64 * nfe
            }
        }
    }

    /// The same for all of it.
    pub fn cost(&self) -> u64 {
        self.iteration_cost().saturating_mul(self.phase.iterations as u64)
    }
}

/// All legs of a run.
pub fn legs(settings: &Settings) -> Vec<Leg> {
    settings.rungs.iter().enumerate().flat_map(|(i, rung)| of_rung(i, rung)).collect()
}

fn of_rung(index: usize, rung: &Rung) -> Vec<Leg> {
    let leg = |structure, origin, phase| Leg { rung: index, structure, origin, phase };
    let first = rung.phases[0];
    let before = Phase { iterations: first.iterations.div_ceil(BEFORE_SHARE), ..first };
    let heat = Phase { iterations: first.iterations.div_ceil(HEAT_SHARE), ..first };
    let rest = Phase { iterations: first.iterations.saturating_sub(heat.iterations), ..first };
    let several = rung.starts.len() > 1;
    let mut legs = Vec::new();
    for (i, start) in rung.starts.iter().enumerate() {
        let mut origin = Origin::Start(i);
        if let Start::Bespoke(structure, _) = start {
            legs.push(leg(*structure, origin, before));
            origin = Origin::Carried;
        }
        legs.push(leg(rung.structure, origin, if several { heat } else { first }));
    }
    if several {
        legs.push(leg(rung.structure, Origin::Winner, rest));
    }
    legs.extend(rung.phases[1..].iter().map(|phase| leg(rung.structure, Origin::Carried, *phase)));
    legs
}
