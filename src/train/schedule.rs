//! The legs of a run: which start, which loss and how long, one after another.

use super::config::{Learn, Optimizer};
use super::forward::KEPT_SAMPLES;
use super::parameters::{Coordinates, Shape};
use super::settings::{Rung, Settings, Stage};
use super::start::Start;
use super::step::TRIED_ON;

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
    pub shape: Shape,
    /// Where it begins.
    pub origin: Origin,
    /// Loss, optimiser, iterations.
    pub stage: Stage,
}

/// Each of several starts gets this share of the iterations; then the best goes on alone.
const HEAT_SHARE: usize = 10;

impl Leg {
    /// The coordinates that its optimiser moves: knots for Adam, as in the paper, and where only a part is learned.
    pub fn coordinates(&self, learn: Learn) -> Coordinates {
        match (self.stage.optimizer, learn) {
            (Optimizer::GaussNewton | Optimizer::ForwardGaussNewton, Learn::Both) => Coordinates::Table,
            _ => Coordinates::Knots,
        }
    }

    /// Forward evaluations that one iteration costs about as much as.
    pub fn iteration_cost(&self) -> u64 {
        let (batch, nfe) = (self.stage.batch as u64, self.shape.nfe() as u64);
        match self.stage.optimizer {
            Optimizer::Adam => 4 * batch * nfe,
            // Two cotangents, and the mean loss of three thetas.
            Optimizer::GaussNewton => (6 * batch + 3 * TRIED_ON as u64) * nfe,
            Optimizer::ForwardGaussNewton => {
                batch * self.shape.jacobian_evaluations() + (KEPT_SAMPLES + 3 * TRIED_ON) as u64 * nfe
            }
        }
    }

    /// The same for all of it.
    pub fn cost(&self) -> u64 {
        self.iteration_cost().saturating_mul(self.stage.iterations as u64)
    }
}

/// All legs of a run.
pub fn legs(settings: &Settings) -> Vec<Leg> {
    settings.rungs.iter().enumerate().flat_map(|(i, rung)| of_rung(settings, i, rung)).collect()
}

/// Evaluations of an iteration's Jacobians at most where no batch was given: 30 samples' of `ns` at nfe 10.
const JACOBIANS: u64 = 8_000;
/// Samples an iteration at least.
const FEWEST: usize = 4;

/// The stage with its batch as `shape` has it where none was given: exact Jacobians grow with the cube of nfe.
fn sized(shape: Shape, stage: Stage) -> Stage {
    if stage.optimizer != Optimizer::ForwardGaussNewton || stage.batch_given {
        return stage;
    }
    let affordable = (JACOBIANS / shape.jacobian_evaluations().max(1)) as usize;
    Stage { batch: stage.batch.min(affordable.max(FEWEST)), ..stage }
}

fn of_rung(settings: &Settings, index: usize, rung: &Rung) -> Vec<Leg> {
    let leg = |shape, origin, stage| Leg { rung: index, shape, origin, stage: sized(shape, stage) };
    let first = settings.stages[0];
    let heat = Stage { iterations: first.iterations.div_ceil(HEAT_SHARE), ..first };
    let rest = Stage { iterations: first.iterations.saturating_sub(heat.iterations), ..first };
    let several = rung.starts.len() > 1;
    let mut legs = Vec::new();
    for (i, start) in rung.starts.iter().enumerate() {
        let mut origin = Origin::Start(i);
        if let Start::Bespoke(shape, _) = start {
            legs.push(leg(*shape, origin, settings.before));
            origin = Origin::Carried;
        }
        legs.push(leg(rung.shape, origin, if several { heat } else { first }));
    }
    if several {
        legs.push(leg(rung.shape, Origin::Winner, rest));
    }
    legs.extend(settings.stages[1..].iter().map(|stage| leg(rung.shape, Origin::Carried, *stage)));
    legs
}
