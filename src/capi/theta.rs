//! Theta: a solver's numbers, loaded once and used by any thread.

use super::guard::{create, destroy, guard, path, required, text};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use crate::document::Notes;
use crate::error::{Error, Result};
use crate::sampler::Plan;
use crate::tableau::{Base, Row};
use crate::theta::Theta;
use std::ffi::{CString, c_char};
use std::ptr::null;
use std::sync::Arc;

/// A solver. Immutable: any number of threads may use one at a time.
pub struct bespoke_theta {
    pub(super) theta: Theta,
    pub(super) plan: Arc<Plan>,
    family: CString,
    model: CString,
    training: CString,
    document: CString,
    /// Of every stage, the coefficients of the next point and of the next base.
    rows: Vec<[Coefficients; 2]>,
}

/// A table's row as C reads it.
#[derive(Default)]
struct Coefficients {
    x: f64,
    evaluations: Vec<u32>,
    u: Vec<f64>,
}

impl bespoke_theta {
    pub(super) fn new(theta: Theta) -> Result<Self> {
        let tableau = theta.tableau();
        let rows = tableau.stages.iter().map(|stage| match &stage.base {
            Base::Row(base) => [Coefficients::new(&stage.next), Coefficients::new(base)],
            Base::Keep | Base::Next => [Coefficients::new(&stage.next), Coefficients::default()],
        });
        Ok(Self {
            rows: rows.collect(),
            plan: Arc::new(Plan::new(tableau)),
            family: CString::new(theta.family_name()).unwrap_or_default(),
            model: json(&theta.model)?,
            training: json(&theta.training)?,
            document: CString::new(theta.to_json()?).unwrap_or_default(),
            theta,
        })
    }
}

impl bespoke_theta {
    /// The same theta, executed by `plan`.
    pub(super) fn executed_by(self, plan: Plan) -> Self {
        Self { plan: Arc::new(plan), ..self }
    }
}

impl Coefficients {
    fn new(row: &Row<f64>) -> Self {
        // Evaluations are at most a few thousand.
        let used = row.u.iter().filter(|(_, c)| *c != 0.0);
        let (evaluations, u) = used.map(|(j, c)| (*j as u32, *c)).unzip();
        Self { x: row.x, evaluations, u }
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
    /// The theta file, a JSON object.
    pub document: *const c_char,
}

sized_struct!(bespoke_theta_properties { steps, nfe, kept_velocities, family, model, training, document });

/// A linear combination: x * base + sum_j u[j] * (velocity of evaluation evaluations[j]).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_combination {
    /// Coefficient of the base.
    pub x: f64,
    /// Coefficients of the velocities, `count` of them; the theta's.
    pub u: *const f64,
    /// Their evaluations, in increasing order; the theta's.
    pub evaluations: *const u32,
    /// Number of velocities.
    pub count: u32,
    /// 0.
    pub reserved: u32,
}

/// The next base is the present one.
pub const BESPOKE_BASE_KEEP: u32 = 0;
/// The next base is the next point: a step ends.
pub const BESPOKE_BASE_NEXT: u32 = 1;
/// The next base is the combination `base`.
pub const BESPOKE_BASE_COMBINATION: u32 = 2;

/// The scalars of one evaluation, for a host that applies them in a kernel of its own.
///
/// Start with base = point = x(0). For k = 0 ... nfe - 1: evaluate u_k at time `t` and the point; the
/// next point is the combination `next` of the base and the velocities so far; then the base becomes
/// what `base_rule` says, computed from the base before. After the last, the point is x(1).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_stage {
    /// sizeof(bespoke_stage), set by the caller.
    pub struct_size: u32,
    /// BESPOKE_BASE_KEEP, BESPOKE_BASE_NEXT or BESPOKE_BASE_COMBINATION.
    pub base_rule: u32,
    /// 1 where the next point ends a step, as `bespoke_step` counts them.
    pub ends_step: u32,
    /// 0.
    pub reserved: u32,
    /// Time of the evaluation, in [0, 1].
    pub t: f64,
    /// The next point.
    pub next: bespoke_combination,
    /// The next base, where `base_rule` is BESPOKE_BASE_COMBINATION; else zeros.
    pub base: bespoke_combination,
}

sized_struct!(bespoke_stage { base_rule, ends_step, reserved, t, next, base });

/// Gives the scalars of evaluation `k`, 0 to nfe - 1. `stage->struct_size` must be set.
/// The arrays are the theta's and live as long as it does.
///
/// # Safety
/// `theta` is NULL or an object that has not been freed. `stage` is NULL or begins with its size, and that many
/// bytes of it can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_stage(
    theta: *const bespoke_theta,
    k: u32,
    stage: *mut bespoke_stage,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { structs::write("stage", stage, &required("theta", theta)?.stage(k as usize)?) })
}

/// Reads a theta file.
///
/// # Safety
/// `path` is NULL or NUL-terminated. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_load_theta(path: *const c_char, out: *mut *mut bespoke_theta) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || bespoke_theta::new(Theta::load(self::path("path", path)?)?)) }
}

/// Reads a theta from the text of its file, as a host has it that keeps it in a file of its own.
///
/// # Safety
/// `json` is NULL or NUL-terminated. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_parse(json: *const c_char, out: *mut *mut bespoke_theta) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || bespoke_theta::new(Theta::parse(text("json", json)?, "json")?)) }
}

/// Writes a theta file, atomically: an earlier file stays whole until the new one is.
///
/// # Safety
/// `theta` is NULL or an object that has not been freed. `path` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_save(theta: *const bespoke_theta, path: *const c_char) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { required("theta", theta)?.theta.save(self::path("path", path)?) })
}

/// Says what `theta` is. `properties->struct_size` must be set.
///
/// # Safety
/// `theta` is NULL or an object that has not been freed. `properties` is NULL or begins with its size, and that
/// many bytes of it can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_info(
    theta: *const bespoke_theta,
    properties: *mut bespoke_theta_properties,
) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { structs::write("properties", properties, &required("theta", theta)?.properties()) })
}

/// Frees a theta; samplers made from it stay usable. NULL is fine.
///
/// # Safety
/// `theta` is NULL or was made by this library, and nothing uses it any more.
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
            document: self.document.as_ptr(),
        }
    }

    fn stage(&self, k: usize) -> Result<bespoke_stage> {
        let (Some(stage), Some([next, base])) = (self.plan.tableau().stages.get(k), self.rows.get(k)) else {
            return Err(Error::invalid("k", k, format!("0 to {}", self.plan.nfe() - 1)));
        };
        Ok(bespoke_stage {
            struct_size: 0,
            base_rule: match stage.base {
                Base::Keep => BESPOKE_BASE_KEEP,
                Base::Next => BESPOKE_BASE_NEXT,
                Base::Row(_) => BESPOKE_BASE_COMBINATION,
            },
            ends_step: stage.ends_step.into(),
            reserved: 0,
            t: stage.t,
            next: next.view(),
            base: base.view(),
        })
    }
}

impl Coefficients {
    fn view(&self) -> bespoke_combination {
        let pointers = if self.u.is_empty() { (null(), null()) } else { (self.u.as_ptr(), self.evaluations.as_ptr()) };
        let (u, evaluations) = pointers;
        bespoke_combination { x: self.x, u, evaluations, count: self.u.len() as u32, reserved: 0 }
    }
}
