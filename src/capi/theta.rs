//! Theta: a solver's numbers, loaded once and used by any thread.

use super::guard::{create, destroy, guard, path, required};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::sampler::Plan;
use crate::theta::Theta;
use std::ffi::{CString, c_char};
use std::sync::Arc;

/// A solver. Immutable: any number of threads may use one at a time.
pub struct bespoke_theta {
    pub(super) theta: Theta,
    pub(super) plan: Arc<Plan>,
    family: CString,
    model: CString,
    training: CString,
}

impl bespoke_theta {
    pub(super) fn new(theta: Theta) -> Result<Self> {
        Ok(Self {
            plan: Arc::new(Plan::new(theta.tableau())),
            family: CString::new(theta.family_name()).unwrap_or_default(),
            model: json(&theta.model)?,
            training: json(&theta.training)?,
            theta,
        })
    }
}

fn json(notes: &Notes) -> Result<CString> {
    let text = serde_json::to_string(notes).map_err(|e| Error::format("theta", "notes", e))?;
    // JSON text holds no NUL: it would be escaped.
    Ok(CString::new(text).unwrap_or_default())
}

/// What `bespoke_theta_info` tells. The texts are the theta's and live as long as it does.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_theta_properties {
    /// sizeof(bespoke_theta_properties), set by the caller.
    pub struct_size: u32,
    /// Number of steps: `bespoke_step` takes 0 to steps - 1.
    pub steps: u32,
    /// Number of velocity evaluations of a sample.
    pub nfe: u32,
    /// Velocities that a sampler keeps at once, at most; with the state and the next point it
    /// holds that many batches, and two more.
    pub kept_velocities: u32,
    /// `rk1`, `rk2` or `ns`.
    pub family: *const c_char,
    /// What it was trained for, a JSON object.
    pub model: *const c_char,
    /// How it was trained, a JSON object.
    pub training: *const c_char,
}

sized_struct!(bespoke_theta_properties { steps, nfe, kept_velocities, family, model, training });

/// Reads a theta file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_load_theta(path: *const c_char, out: *mut *mut bespoke_theta) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || bespoke_theta::new(Theta::load(self::path("path", path)?)?)) }
}

/// Writes a theta file, atomically: an earlier file stays whole until the new one is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_save(theta: *const bespoke_theta, path: *const c_char) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { required("theta", theta)?.theta.save(self::path("path", path)?) })
}

/// Says what `theta` is. `properties->struct_size` must be set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_info(
    theta: *const bespoke_theta,
    properties: *mut bespoke_theta_properties,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { structs::write("properties", properties, &required("theta", theta)?.properties()) })
}

/// Frees a theta; samplers made from it stay usable. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_free(theta: *mut bespoke_theta) {
    // SAFETY: as the header asks.
    unsafe { destroy(theta) }
}

impl bespoke_theta {
    fn properties(&self) -> bespoke_theta_properties {
        // Counts are at most a few thousand, see `MAX_STEPS`.
        bespoke_theta_properties {
            struct_size: 0,
            steps: self.plan.tableau().steps() as u32,
            nfe: self.plan.nfe() as u32,
            kept_velocities: self.plan.kept_velocities() as u32,
            family: self.family.as_ptr(),
            model: self.model.as_ptr(),
            training: self.training.as_ptr(),
        }
    }
}
