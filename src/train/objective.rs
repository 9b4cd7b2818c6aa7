//! What a phase minimises: the paper's bound, or a weighted sum of losses of the end of the solve.

use super::config::{Loss, LossTerm};
use super::loss::Direct;
use super::optimize::gauss_newton_weights;
use crate::error::{Error, Result};
use crate::samples::{Errors, Quality};

/// What a phase minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// The paper's bound of the RMSE (BES Eq. 26).
    RmseBound,
    /// Losses of the end of the solve.
    End(Terms),
}

/// In what ends of solves are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Their own numbers.
    Numbers,
    /// The layers of a feature network.
    Features,
}

/// Losses of the end of the solve, each times its weight; of weight 0 where one does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Of the root mean square error.
    pub rmse: f64,
    /// Of the logarithm of the mean square error.
    pub log_mse: f64,
    /// Of the logarithm of the squared distance in features.
    pub features: f64,
}

impl Objective {
    /// The phases that a list of losses asks for: neighbours that have weights are one sum.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a weight of the bound or of a loss by itself, and for a loss twice in one sum.
    pub fn of_list(losses: &[LossTerm]) -> Result<Vec<Self>> {
        let together = |a: &LossTerm, b: &LossTerm| a.weight.is_some() && b.weight.is_some();
        losses.chunk_by(together).map(Self::of_sum).collect()
    }

    fn of_sum(sum: &[LossTerm]) -> Result<Self> {
        // Where one of two weights was forgotten, the two would follow each other in place of being added.
        if let [LossTerm { weight: Some(_), .. }] = sum {
            return Err(Error::invalid(
                "loss",
                sum[0],
                "no weight, or weights of its neighbours too: of a sum each has one",
            ));
        }
        let mut terms = Terms { rmse: 0.0, log_mse: 0.0, features: 0.0 };
        for term in sum {
            let slot = match term.loss {
                Loss::RmseBound if term.weight.is_none() => return Ok(Self::RmseBound),
                Loss::RmseBound => {
                    let expected = "rmse, log-mse and features in a sum: the bound stands alone, without a weight";
                    return Err(Error::invalid("loss", term, expected));
                }
                Loss::Rmse => &mut terms.rmse,
                Loss::LogMse => &mut terms.log_mse,
                Loss::Features => &mut terms.features,
            };
            if *slot != 0.0 {
                return Err(Error::invalid("loss", term, "each loss once in a sum"));
            }
            *slot = term.weight.unwrap_or(1.0);
        }
        Ok(Self::End(terms))
    }

    /// As a list of losses says it.
    pub fn list(&self) -> Vec<LossTerm> {
        let Objective::End(Terms { rmse, log_mse, features }) = *self else { return vec![Loss::RmseBound.into()] };
        let given = [(Loss::Rmse, rmse), (Loss::LogMse, log_mse), (Loss::Features, features)];
        let given: Vec<_> = given.into_iter().filter(|(_, weight)| *weight != 0.0).collect();
        let alone = given.len() == 1;
        let term = |(loss, weight): (Loss, f64)| LossTerm { loss, weight: (!alone).then_some(weight) };
        given.into_iter().map(term).collect()
    }

    /// The losses of the end, where it is of them.
    pub fn end(&self) -> Option<&Terms> {
        match self {
            Objective::RmseBound => None,
            Objective::End(terms) => Some(terms),
        }
    }

    /// Whether it compares features.
    pub fn has_features(&self) -> bool {
        self.end().is_some_and(|terms| terms.features != 0.0)
    }

    /// By which of two validations the better solver is told: less is better. Without features it is the rmse, whatever
    /// the loss of numbers.
    pub fn score(&self, quality: &Quality) -> f64 {
        match (self.end(), quality.features) {
            (Some(terms), Some(distance)) if terms.features != 0.0 => {
                // PSNR is the mean logarithm of the mean square error, in dB, but for a constant.
                let log_mse = -quality.psnr * std::f64::consts::LN_10 / 10.0;
                let features = Direct::LogMse.mean(&[distance]);
                // Without a share in the sum, an rmse that is not finite has none in the score.
                let share = |weight: f64, value: f64| if weight == 0.0 { 0.0 } else { weight * value };
                share(terms.rmse, quality.rmse) + share(terms.log_mse, log_mse) + terms.features * features
            }
            _ => quality.rmse,
        }
    }
}

impl From<Direct> for Terms {
    fn from(direct: Direct) -> Self {
        let none = Terms { rmse: 0.0, log_mse: 0.0, features: 0.0 };
        match direct {
            Direct::Rmse => Terms { rmse: 1.0, ..none },
            Direct::LogMse => Terms { log_mse: 1.0, ..none },
        }
    }
}

impl Terms {
    /// Each loss that counts, of what it is, and its weight.
    pub fn parts(&self) -> impl Iterator<Item = (Measure, Direct, f64)> {
        let all = [
            (Measure::Numbers, Direct::Rmse, self.rmse),
            (Measure::Numbers, Direct::LogMse, self.log_mse),
            (Measure::Features, Direct::LogMse, self.features),
        ];
        all.into_iter().filter(|(_, _, weight)| *weight != 0.0)
    }

    /// In what it compares.
    pub fn measures(&self) -> Vec<Measure> {
        let mut measures: Vec<Measure> = self.parts().map(|(measure, _, _)| measure).collect();
        measures.dedup();
        measures
    }

    /// The mean over samples that are this far from the ground truth.
    pub fn mean(&self, errors: &Errors) -> f64 {
        let of = |measure: Measure| match measure {
            Measure::Numbers => errors.rms.as_slice(),
            Measure::Features => errors.features.as_deref().unwrap_or_default(),
        };
        self.parts().map(|(measure, direct, weight)| weight * direct.mean(of(measure))).sum()
    }

    /// The weights of samples, of `most` numbers at most, that are this far away, under which least squares follow the
    /// loss's gradient. They are in proportion to one another, and over both measures too.
    pub fn least_squares_weights(&self, measure: Measure, distances: &[f64], most: usize) -> Vec<f64> {
        // The first counts as one: what there is alone has no unit.
        let unit = self.parts().next().map_or(1.0, |first| slope(first, most));
        let mut sums = vec![0.0; distances.len()];
        for part in self.parts().filter(|(own, _, _)| *own == measure) {
            let share = slope(part, most) / unit;
            let weights = gauss_newton_weights(distances, part.1.power());
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += share * weight);
        }
        sums
    }
}

/// What a part's gradient has in front of the sum of squares' over a power of the distance: one over the `most` numbers
/// of a mean, and 2 for the square in the logarithm.
fn slope((measure, direct, weight): (Measure, Direct, f64), most: usize) -> f64 {
    let of = match measure {
        Measure::Numbers => 1.0 / most as f64,
        Measure::Features => 1.0,
    };
    weight * of * direct.power()
}
