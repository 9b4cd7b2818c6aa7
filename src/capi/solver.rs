//! Published solvers and ladders: thetas that come from no file of their own.

use super::guard::{create, destroy, path, required, text};
use super::status::bespoke_status;
use super::theta::bespoke_theta;
use crate::error::Error;
use crate::ladder::Ladder;
use crate::reference::Reference;
use crate::solvers::NamedSolver;
use std::ffi::c_char;

/// Thetas of one model for several nfe. Immutable: any number of threads may use one at a time.
pub struct bespoke_ladder {
    ladder: Ladder,
}

/// Makes the published solver `name` with `nfe` evaluations, for a model of `scheduler`.
///
/// `name` is one that `bespoke solvers` lists, as `dpm++2m`, or `NAME:GRID` for another grid than the
/// solver's own. `scheduler` is `fm-ot`, `cosine`, `vp` or `edm`, or a JSON object: a model card's
/// `scheduler` with its constants, and as `end` the card's `time.end`, 1 where absent, as in
/// `{"name": "vp", "beta_max": 15, "end": 0.999}`. The solver runs on its own recurrence: it keeps at most
/// its order's predictions and one more, and a step costs the same whatever `nfe` is. It has no theta document
/// (`bespoke_theta_compile`).
///
/// # Safety
/// `name` and `scheduler` are NULL or NUL-terminated. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_solver(
    name: *const c_char,
    nfe: u32,
    scheduler: *const c_char,
    out: *mut *mut bespoke_theta,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe {
        create(out, || {
            let (name, scheduler) = (text("name", name)?, text("scheduler", scheduler)?);
            let Reference::Published { name, nfe: None, grid } = Reference::parse(name, |_| false)? else {
                return Err(Error::invalid("name", format!("{name:?}"), "NAME or NAME:GRID of a published solver"));
            };
            let solver = NamedSolver::new(name, nfe as usize, grid)?;
            bespoke_theta::published(solver, scheduler.parse()?)
        })
    }
}

/// Reads a ladder file; a theta file is a ladder of one theta.
///
/// # Safety
/// `path` is NULL or NUL-terminated. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_ladder_load(path: *const c_char, out: *mut *mut bespoke_ladder) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || Ok(bespoke_ladder { ladder: Ladder::load(self::path("path", path)?)? })) }
}

/// Gives the theta of the greatest nfe that is at most `nfe_at_most`, as an object of its own: it
/// outlives the ladder. `BESPOKE_ERROR_INVALID` where even the least nfe is more.
///
/// # Safety
/// `ladder` is NULL or an object that has not been freed. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_ladder_theta(
    ladder: *const bespoke_ladder,
    nfe_at_most: u32,
    out: *mut *mut bespoke_theta,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe {
        create(out, || bespoke_theta::new(required("ladder", ladder)?.ladder.best(nfe_at_most as usize)?.clone()))
    }
}

/// Frees a ladder; thetas taken from it stay usable. NULL is fine.
///
/// # Safety
/// `ladder` is NULL or was made by this library, and nothing uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_ladder_free(ladder: *mut bespoke_ladder) {
    // SAFETY: as the header asks.
    unsafe { destroy(ladder) }
}
