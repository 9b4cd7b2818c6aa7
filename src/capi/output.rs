//! Models that predict something else than the velocity.

use super::guard::{create, guard, required, text};
use super::status::bespoke_status;
use super::theta::bespoke_theta;
use crate::error::Error;
use crate::path::GaussianPath;
use crate::sampler::Plan;
use crate::scheduler::Output;
use num_dual::first_derivative;
use std::ffi::c_char;

/// Makes a theta whose samplers take a model's output as it is, wherever one of `theta` takes the
/// velocity: in `bespoke_sampler_update`, in `bespoke_sampler_advance`, and from a callback. The
/// conversion is part of the same update.
///
/// `output` is `velocity`, `epsilon`, `x1`, `v` or `flow`, and `scheduler` as in
/// `bespoke_theta_solver`. Where `output` says nothing about the velocity at an end, the times
/// asked for stop 1e-4 short of it. Scalars (`bespoke_theta_stage`) and file stay those of `theta`.
///
/// # Safety
/// `theta` is NULL or an object that has not been freed. `scheduler` and `output` are NULL or NUL-terminated. `out`
/// is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_for_output(
    theta: *const bespoke_theta,
    scheduler: *const c_char,
    output: *const c_char,
    out: *mut *mut bespoke_theta,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe {
        create(out, || {
            let path = text("scheduler", scheduler)?.parse::<GaussianPath>()?;
            let output = text("output", output)?.parse()?;
            required("theta", theta)?.executed_by(|tableau| Plan::of_outputs(tableau, &path, output))
        })
    }
}

/// How a model's output makes the velocity at one time: u = x * state + output * (the output).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_velocity_scalars {
    /// Solver time in [0, 1]: the one asked for, or the nearest at which the output determines the velocity.
    pub t: f64,
    /// Share of data.
    pub alpha: f64,
    /// Share of noise.
    pub sigma: f64,
    /// Coefficient of the state.
    pub x: f64,
    /// Coefficient of the output.
    pub output: f64,
    /// d x / dt.
    pub x_dot: f64,
    /// d output / dt.
    pub output_dot: f64,
}

/// Gives the scalars of `count` solver times `t`, each in [0, 1]; `scalars` has room for as many.
/// `scheduler` and `output` as in `bespoke_theta_for_output`. Velocity and derivatives are by solver time.
///
/// # Safety
/// `scheduler` and `output` are NULL or NUL-terminated. `t` is NULL or has `count` numbers, and `scalars` is NULL
/// or has room for as many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_output_velocity(
    scheduler: *const c_char,
    output: *const c_char,
    count: u32,
    t: *const f64,
    scalars: *mut bespoke_velocity_scalars,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let path = text("scheduler", scheduler)?.parse::<GaussianPath>()?;
        let output: Output = text("output", output)?.parse()?;
        required("t", t)?;
        required("scalars", scalars)?;
        let times = std::slice::from_raw_parts(t, count as usize);
        if let Some(t) = times.iter().find(|t| !(0.0..=1.0).contains(*t)) {
            return Err(Error::invalid("t", t, "a time in [0, 1]"));
        }
        for (i, t) in times.iter().enumerate() {
            scalars.add(i).write(velocity_scalars(&path, output, *t));
        }
        Ok(())
    })
}

fn velocity_scalars(path: &GaussianPath, output: Output, t: f64) -> bespoke_velocity_scalars {
    let t = path.regular_time(output, t);
    let (x, x_dot) = first_derivative(|t| path.velocity_coefficients(output, t).0, t);
    let (scale, scale_dot) = first_derivative(|t| path.velocity_coefficients(output, t).1, t);
    bespoke_velocity_scalars {
        t,
        alpha: path.scheduler().alpha(t * path.end()),
        sigma: path.scheduler().sigma(t * path.end()),
        x,
        output: scale,
        x_dot,
        output_dot: scale_dot,
    }
}
