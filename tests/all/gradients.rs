//! Gradients of every loss against finite differences.

use bespoke::dopri5::Tolerance;
use bespoke::networks::{Mixture, MixtureDocument, MixtureField};
use bespoke::noise::Purpose;
use bespoke::samples::Conditioning;
use bespoke::scheduler::Scheduler;
use bespoke::train::loss::{Direct, LossGradient, bound_loss, direct_loss};
use bespoke::train::{Coordinates, Parameters, Pool, PoolOptions, Structure};
use bespoke::velocity::VelocityField;
use rand::RngExt;

const SAMPLES: usize = 6;
const UNCONDITIONAL: Conditioning = Conditioning::NONE;

/// Five modes in three dimensions, well apart: a field with curvature.
fn field(scheduler: Scheduler) -> MixtureField<f64> {
    let means = vec![
        vec![1.0, 0.5, -0.3],
        vec![-0.8, 0.2, 0.9],
        vec![0.1, -1.1, 0.4],
        vec![-0.4, 0.7, -1.0],
        vec![0.9, -0.6, -0.8],
    ];
    let document = MixtureDocument { std: 0.25, means, weights: None, class: None };
    MixtureField::new(Mixture::new(document).unwrap(), scheduler, None)
}

fn pool(field: &MixtureField<f64>) -> Pool<bespoke::tensor::Host<f64>> {
    let options = PoolOptions {
        purpose: Purpose::Train,
        seed: 3,
        indices: 0..SAMPLES,
        // Two chunks, so that reading across them is covered.
        chunk: 4,
        tolerance: Tolerance { rtol: 1e-11, atol: 1e-11 },
        dense: true,
    };
    Pool::solve(field, &UNCONDITIONAL, &options).unwrap()
}

/// Parameters away from the identity, so that no term of the gradient vanishes.
fn perturbed(structure: Structure, coordinates: Coordinates) -> Parameters {
    let mut parameters = Parameters::identity(structure).in_coordinates(coordinates).unwrap();
    let mut rng = bespoke::noise::generator(7, Purpose::Choice, 0);
    for value in &mut parameters.values {
        *value += 0.1 * (rng.random::<f64>() - 0.5);
    }
    parameters
}

/// The largest difference from central differences, relative to the gradient's size.
fn gradient_error(
    (structure, coordinates): (Structure, Coordinates),
    scheduler: Scheduler,
    loss: impl Fn(&Parameters, &MixtureField<f64>, &Pool<bespoke::tensor::Host<f64>>, &[usize]) -> LossGradient,
) -> f64 {
    let field = field(scheduler);
    let parameters = perturbed(structure, coordinates);
    let (pool, rows) = (pool(&field), [0, 2, 3, 5]);
    let value = |parameters: &Parameters| loss(parameters, &field, &pool, &rows).loss;
    let gradient = loss(&parameters, &field, &pool, &rows).gradient;
    assert_eq!(gradient.len(), parameters.values.len());
    let size = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    let h = 1e-4;
    let mut worst: f64 = 0.0;
    for (j, component) in gradient.iter().enumerate() {
        let mut shifted = parameters.clone();
        shifted.values[j] += h;
        let above = value(&shifted);
        shifted.values[j] -= 2.0 * h;
        let below = value(&shifted);
        worst = worst.max((component - (above - below) / (2.0 * h)).abs() / size);
    }
    worst
}

fn assert_close(what: &str, error: f64) {
    println!("{what}: relative error of the gradient {error:.1e}");
    assert!(error < 1e-4, "{what}: {error}");
}

#[test]
fn bound_loss_of_rk1_and_rk2() {
    for scheduler in [Scheduler::FmOt, Scheduler::Cosine, Scheduler::VP] {
        for structure in [Structure::Rk1(4), Structure::Rk2(3)] {
            let error =
                gradient_error((structure, Coordinates::Knots), scheduler.clone(), |parameters, field, pool, rows| {
                    bound_loss(parameters, 1.5, field, pool, rows).unwrap()
                });
            assert_close(&format!("bound, {structure:?}, {}", scheduler.name()), error);
        }
    }
}

#[test]
fn direct_losses_of_every_family() {
    for direct in [Direct::Rmse, Direct::LogMse] {
        for of in [
            (Structure::Rk1(4), Coordinates::Knots),
            (Structure::Rk1(4), Coordinates::Table),
            (Structure::Rk2(3), Coordinates::Knots),
            (Structure::Rk2(3), Coordinates::Table),
            (Structure::Ns(5), Coordinates::Table),
        ] {
            let error = gradient_error(of, Scheduler::FmOt, |parameters, field, pool, rows| {
                direct_loss(&direct.into(), None, parameters, field, pool, rows).unwrap()
            });
            assert_close(&format!("{direct:?}, {of:?}"), error);
        }
    }
}

#[test]
fn leaving_the_moving_path_out_would_be_seen() {
    // BES Eq. 27 is what gradients by the times have from the path that moves with them. The check above
    // can tell whether it is there only where those gradients are no rounding beside the rest.
    let field = field(Scheduler::FmOt);
    let parameters = perturbed(Structure::Rk2(3), Coordinates::Knots);
    let found = bound_loss(&parameters, 1.0, &field, &pool(&field), &[0, 1, 2]).unwrap();
    let times = parameters.values.len() / 4;
    let by_time = found.gradient[..times].iter().fold(0.0f64, |m, g| m.max(g.abs()));
    let size = found.gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    assert!(by_time > 1e-2 * size, "the times matter: {by_time} of {size}");
    assert_eq!(field.elements(), 3);
}

#[test]
fn the_bound_is_refused_where_there_are_no_scales() {
    let field = field(Scheduler::FmOt);
    let table = perturbed(Structure::Rk2(3), Coordinates::Table);
    assert!(bound_loss(&table, 1.0, &field, &pool(&field), &[0, 1]).is_err());
}
