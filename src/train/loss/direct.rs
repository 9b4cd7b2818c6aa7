//! Losses of the end of the solve: RMSE (BES Eq. 6) and log-MSE (BNS), any table.

use super::LossGradient;
use super::adjoint::{check_finite, forward, reverse};
use super::features::{Difference, feature_cotangents, needed_features};
use crate::distance::Features;
use crate::error::{Error, Result};
use crate::tableau::{Contents, Tableau};
use crate::tensor::{PerRow, PerRowBuf, Register, Tensor};
use crate::train::objective::{Measure, Terms};
use crate::train::parameters::Parameters;
use crate::train::paths::Pool;
use crate::velocity::{Condition, VelocityField};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

/// A loss on x_n - x(1) of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direct {
    /// Root mean square over the elements.
    Rmse,
    /// Logarithm of the mean square: maximises PSNR.
    LogMse,
}

/// An error below this is as good as none; it keeps gradients finite.
const SMALLEST_RMS: f64 = 1e-12;

impl Direct {
    /// The mean loss of samples with the errors `rms`.
    pub fn mean(&self, rms: &[f64]) -> f64 {
        rms.iter().map(|rms| self.value_and_factor(*rms, 1.0).0).sum::<f64>() / rms.len() as f64
    }

    /// By which power of its mean square error a sample's loss falls short of least squares: what
    /// reweighted least squares divides by.
    pub fn power(&self) -> f64 {
        match self {
            Direct::Rmse => 1.0,
            Direct::LogMse => 2.0,
        }
    }

    /// The loss of a sample with error `rms`, and the factor of its error in the loss's gradient.
    fn value_and_factor(&self, rms: f64, elements: f64) -> (f64, f64) {
        let rms = rms.max(SMALLEST_RMS);
        match self {
            Direct::Rmse => (rms, 1.0 / (elements * rms)),
            Direct::LogMse => (2.0 * rms.ln(), 2.0 / (elements * rms * rms)),
        }
    }
}

/// The same scalars for every row.
pub(super) fn broadcast(tableau: &Tableau<f64>) -> Tableau<PerRowBuf> {
    tableau.map(|scalar| PerRowBuf::All(*scalar))
}

/// A solve, its error, and what the reverse pass needs.
pub struct Residual<T> {
    tableau: Tableau<PerRowBuf>,
    /// What point and state are before each stage, over x_0 and velocities: they are made again, not stored.
    contents: Vec<Contents>,
    x0: T,
    condition: Condition,
    velocities: Vec<T>,
    /// x_n, `[batch, elements]`.
    pub end: T,
    /// x_n - x(1), `[batch, elements]`.
    pub error: T,
    /// Its root mean square, per sample.
    pub rms: Vec<f64>,
}

/// Solves for the samples `rows` of the pool, which are of one size.
///
/// # Errors
/// The field's own; [`Error::NonFinite`].
pub fn direct_residual<F: VelocityField>(
    parameters: &Parameters,
    field: &F,
    pool: &Pool<F::Tensor>,
    rows: &[usize],
) -> Result<Residual<F::Tensor>> {
    let table = parameters.tableau();
    let contents = table.stages.iter().scan(Contents::start(), |contents, stage| {
        let mut next = contents.clone();
        next.advance(stage);
        Some(std::mem::replace(contents, next))
    });
    let contents = contents.collect();
    let tableau = broadcast(&table);
    let (x0, x1) = (pool.x0(rows)?, pool.x1(rows)?);
    let condition = pool.condition(rows)?;
    let trace = forward(&tableau, field, &x0, &condition, |_, _| {})?;
    let error = F::Tensor::linear_combination(&[(PerRow::All(1.0), &trace.end), (PerRow::All(-1.0), &x1)])?;
    let rms = trace.end.rmse(&x1)?;
    if rms.iter().any(|rms| !rms.is_finite()) {
        return Err(Error::NonFinite { evaluation: table.nfe() - 1, t: 1.0 });
    }
    Ok(Residual { tableau, contents, x0, condition, velocities: trace.velocities, end: trace.end, error, rms })
}

impl<T: Tensor> Residual<T> {
    /// Per-sample gradients of <cotangent, x_n> by the table's scalars, `[batch, scalars]` for
    /// each cotangent.
    ///
    /// # Errors
    /// The field's own.
    pub fn pull_back<F: VelocityField<Tensor = T>>(&self, field: &F, cotangents: Vec<T>) -> Result<Vec<DMatrix<f64>>> {
        let over_start = |row: &[f64]| {
            let sources = std::iter::once(&self.x0).chain(&self.velocities);
            let terms = row.iter().zip(sources).filter(|(c, _)| **c != 0.0);
            let terms: Vec<_> = terms.map(|(c, source)| (PerRow::All(*c), source)).collect();
            match terms.is_empty() {
                true => self.x0.zeros_like(self.x0.batch()),
                false => T::linear_combination(&terms),
            }
        };
        let registers = |k: usize| Ok((over_start(self.contents[k].point())?, over_start(self.contents[k].state())?));
        let gradients = reverse(&self.tableau, field, &self.condition, &self.velocities, registers, cotangents, false)?;
        let columns: Vec<&T> = gradients.iter().flat_map(|g| &g.scalars).collect();
        let fetched = T::fetch(&columns)?;
        check_finite(&fetched)?;
        let batch = self.x0.batch();
        Ok(fetched
            .chunks(fetched.len() / gradients.len())
            .map(|columns| DMatrix::from_fn(batch, columns.len(), |row, scalar| columns[scalar][row]))
            .collect())
    }
}

/// The loss of the samples `rows` of the pool, which are of one size, and its gradient; `features` where a term is of
/// them.
///
/// # Errors
/// The field's and the features' own; [`Error::NonFinite`]; [`Error::State`] where features are missing.
pub fn direct_loss<F: VelocityField>(
    terms: &Terms,
    features: Option<&Features>,
    parameters: &Parameters,
    field: &F,
    pool: &Pool<F::Tensor>,
    rows: &[usize],
) -> Result<LossGradient> {
    let residual = direct_residual(parameters, field, pool, rows)?;
    let batch = rows.len() as f64;
    let mut loss = 0.0;
    // The terms' mean loss, and the factor of each sample's error in its gradient.
    let mut factors = |measure: Measure, distances: &[f64], numbers: f64| {
        let mut factors = vec![0.0; distances.len()];
        for (_, direct, weight) in terms.parts().filter(|(own, _, _)| *own == measure) {
            for (sum, distance) in factors.iter_mut().zip(distances) {
                let (value, factor) = direct.value_and_factor(*distance, numbers);
                loss += weight * value / batch;
                *sum += weight * factor / batch;
            }
        }
        factors
    };
    let in_numbers = factors(Measure::Numbers, &residual.rms, residual.error.elements() as f64);
    let mut cotangent = F::Tensor::linear_combination(&[(PerRow::Each(&in_numbers), &residual.error)])?;
    if terms.measures().contains(&Measure::Features) {
        let by_layers = |difference: Difference| {
            let factors = factors(Measure::Features, &difference.lengths(), 1.0);
            Ok(vec![difference.scaled(&factors)])
        };
        let found = feature_cotangents(field, needed_features(features)?, &residual.end, &pool.x1(rows)?, by_layers)?;
        let mut parts = vec![(PerRow::All(1.0), &cotangent)];
        parts.extend(found.iter().map(|found| (PerRow::All(1.0), found)));
        cotangent = F::Tensor::linear_combination(&parts)?;
    }
    let by_scalar = residual.pull_back(field, vec![cotangent])?.swap_remove(0).row_sum().transpose();
    let gradient: DVector<f64> = parameters.table_jacobian().jacobian.tr_mul(&by_scalar);
    Ok(LossGradient { loss, gradient: gradient.as_slice().to_vec() })
}
