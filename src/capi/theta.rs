//! Theta: a solver, made once and used by any thread.

use super::guard::{create, destroy, guard, path, required, text};
use super::status::bespoke_status;
use super::structs::{self, sized_struct};
use crate::document::{self, Notes};
use crate::error::{Error, Result};
use crate::path::GaussianPath;
use crate::sampler::Plan;
use crate::solvers::NamedSolver;
use crate::tableau::Tableau;
use crate::tensor::{Operand, Update};
use crate::theta::Theta;
use std::borrow::Cow;
use std::ffi::{CString, c_char};
use std::ops::Range;
use std::ptr::null;
use std::sync::Arc;

/// A solver: a learned one, which has a theta document, or a published one. Immutable: any number of
/// threads may use one at a time.
pub struct bespoke_theta {
    solver: Solver,
    pub(super) plan: Arc<Plan>,
    scalars: Scalars,
    family: CString,
    model: CString,
    training: CString,
    /// Of a learned one.
    document: Option<CString>,
}

/// Where a handle's solver comes from.
#[derive(Clone)]
pub(super) enum Solver {
    /// Numbers that were learned or read.
    Theta(Theta),
    /// A published one, for a model sampled on a path.
    Published(NamedSolver, GaussianPath),
}

impl Solver {
    pub(super) fn tableau(&self) -> Result<Tableau<f64>> {
        match self {
            Solver::Theta(theta) => Ok(theta.tableau()),
            Solver::Published(named, path) => named.tableau(path),
        }
    }

    /// As a theta: a published one written out as a table of its own.
    fn theta(&self) -> Result<Cow<'_, Theta>> {
        match self {
            Solver::Theta(theta) => Ok(Cow::Borrowed(theta)),
            Solver::Published(named, path) => named.theta(path).map(Cow::Owned),
        }
    }
}

/// What each evaluation does to the registers, as C reads it: all in two arrays.
#[derive(Default)]
struct Scalars {
    registers: Vec<u32>,
    coefficients: Vec<f64>,
    stages: Vec<[Sum; 2]>,
}

/// A combination: where its terms lie, and where it goes.
#[derive(Clone)]
struct Sum {
    terms: Range<usize>,
    velocity: f64,
    register: u32,
}

impl bespoke_theta {
    pub(super) fn new(theta: Theta) -> Result<Self> {
        let (family, document) = (theta.family_name(), CString::new(theta.to_json()?).unwrap_or_default());
        let notes = (theta.model.clone(), theta.training.clone());
        Self::make(Solver::Theta(theta), family, notes, Some(document))
    }

    /// A published solver, which is no theta: it runs on the registers of its own recurrence.
    pub(super) fn published(named: NamedSolver, path: GaussianPath) -> Result<Self> {
        let notes = named.notes(&path);
        Self::make(Solver::Published(named, path), "published", notes, None)
    }

    fn make(
        solver: Solver,
        family: &str,
        (model, training): (Notes, Notes),
        document: Option<CString>,
    ) -> Result<Self> {
        let plan = Plan::new(solver.tableau()?);
        Ok(Self {
            scalars: Scalars::new(&plan),
            plan: Arc::new(plan),
            family: CString::new(family).unwrap_or_default(),
            model: json(&model)?,
            training: json(&training)?,
            document,
            solver,
        })
    }

    /// The same solver, executed by the plan that `plan` makes of its table.
    pub(super) fn executed_by(&self, plan: impl FnOnce(Tableau<f64>) -> Plan) -> Result<Self> {
        let plan = Arc::new(plan(self.solver.tableau()?));
        let same = match &self.solver {
            Solver::Theta(theta) => Self::new(theta.clone())?,
            Solver::Published(named, path) => Self::published(named.clone(), path.clone())?,
        };
        Ok(Self { plan, ..same })
    }
}

impl Scalars {
    fn new(plan: &Plan) -> Self {
        let mut scalars = Self::default();
        for updates in plan.updates() {
            let sums = [0, 1].map(|i| updates.get(i).map_or(Sum::NONE, |update| scalars.sum(update)));
            scalars.stages.push(sums);
        }
        scalars.registers.shrink_to_fit();
        scalars.coefficients.shrink_to_fit();
        scalars.stages.shrink_to_fit();
        scalars
    }

    fn sum(&mut self, update: &Update) -> Sum {
        let (first, mut velocity) = (self.registers.len(), 0.0);
        for (operand, c) in &update.terms {
            match operand {
                Operand::Velocity => velocity += c,
                Operand::Buffer(register) => {
                    // Registers are at most as many as evaluations, a few thousand.
                    self.registers.push(*register as u32);
                    self.coefficients.push(*c);
                }
            }
        }
        Sum { terms: first..self.registers.len(), velocity, register: update.out as u32 }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.registers) + size_of_val(&*self.coefficients) + size_of_val(&*self.stages)
    }

    fn view(&self, sum: &Sum) -> bespoke_combination {
        let (registers, coefficients) = (&self.registers[sum.terms.clone()], &self.coefficients[sum.terms.clone()]);
        let pointers =
            if registers.is_empty() { (null(), null()) } else { (registers.as_ptr(), coefficients.as_ptr()) };
        bespoke_combination {
            target: sum.register,
            count: registers.len() as u32,
            velocity: sum.velocity,
            registers: pointers.0,
            coefficients: pointers.1,
        }
    }
}

impl Sum {
    const NONE: Self = Self { terms: 0..0, velocity: 0.0, register: BESPOKE_REGISTER_NONE };
}

fn json(notes: &Notes) -> Result<CString> {
    let text = document::line(notes, "theta")?;
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
    /// Registers that keep something of one evaluation for later ones. With the state and the next point
    /// a sampler holds that many batches, and two more.
    pub kept_registers: u32,
    /// `rk1`, `rk2` or `ns`; `published` for a solver of `bespoke_theta_solver`.
    pub family: *const c_char,
    /// What it was trained or made for, a JSON object.
    pub model: *const c_char,
    /// How it was trained, a JSON object; of a published one its name, as `solver`.
    pub training: *const c_char,
    /// The theta file, a JSON object; NULL for a published solver, which has none until
    /// `bespoke_theta_compile` makes one.
    pub document: *const c_char,
    /// Memory that the theta itself takes, in bytes, nearly: for whoever keeps many.
    pub bytes: u64,
}

sized_struct!(bespoke_theta_properties { steps, nfe, kept_registers, family, model, training, document, bytes });

/// The register of the state: x(0) at first.
pub const BESPOKE_REGISTER_STATE: u32 = 0;
/// The register of a point amid a step, while the state waits for the step's end.
pub const BESPOKE_REGISTER_POINT: u32 = 1;
/// No register: nothing is written.
pub const BESPOKE_REGISTER_NONE: u32 = 0xFFFF_FFFF;

/// What a register becomes: velocity * (the velocity that was just taken) + sum_j `coefficients[j]` *
/// (register `registers[j]`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_combination {
    /// The register that is written, or BESPOKE_REGISTER_NONE.
    pub target: u32,
    /// Number of registers that are read.
    pub count: u32,
    /// Coefficient of the velocity.
    pub velocity: f64,
    /// The registers that are read, `count` of them, each once; the theta's.
    pub registers: *const u32,
    /// Their coefficients; the theta's.
    pub coefficients: *const f64,
}

/// The scalars of one evaluation, for a host that applies them in a kernel of its own.
///
/// There are 2 + `kept_registers` registers, each a batch: the state, which begins as x(0), the point,
/// and what is kept. For k = 0 ... nfe - 1: evaluate the velocity at time `t` and the point, which is where
/// the stage before wrote `next`, at first the state; then write `next` and `kept`, both computed
/// from what the registers held before. After the last, `next.target` holds x(1).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bespoke_stage {
    /// sizeof(bespoke_stage), set by the caller.
    pub struct_size: u32,
    /// 1 where the next point ends a step, as `bespoke_step` counts them.
    pub ends_step: u32,
    /// 1 where this evaluation and those after it need nothing but the state: a solve may begin here.
    pub self_contained: u32,
    /// 0.
    pub reserved: u32,
    /// Time of the evaluation, in [0, 1].
    pub t: f64,
    /// The next point, into BESPOKE_REGISTER_STATE or BESPOKE_REGISTER_POINT.
    pub next: bespoke_combination,
    /// What is kept of this evaluation, into a register from 2 on or into none.
    pub kept: bespoke_combination,
}

sized_struct!(bespoke_stage { ends_step, self_contained, reserved, t, next, kept });

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

/// Writes a theta file. An earlier file stays whole until the new one is, with its owner and mode; a
/// symbolic link is followed, a pipe or a device written to, and `-` is standard output. A published
/// solver is written as `bespoke_theta_compile` makes it.
///
/// # Safety
/// `theta` is NULL or an object that has not been freed. `path` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_save(theta: *const bespoke_theta, path: *const c_char) -> bespoke_status {
    // SAFETY: as the header asks.
    guard(|| unsafe { required("theta", theta)?.solver.theta()?.save(self::path("path", path)?) })
}

/// Makes the theta of family `ns` that samples as `theta` does: a table of its own, with a document. Its
/// samplers keep every velocity, where those of a published solver keep as many as its order. A learned
/// theta comes back as it is. `BESPOKE_ERROR_INVALID` for more than 1000 evaluations.
///
/// # Safety
/// `theta` is NULL or an object that has not been freed. `out` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bespoke_theta_compile(
    theta: *const bespoke_theta,
    out: *mut *mut bespoke_theta,
) -> bespoke_status {
    // SAFETY: as the header asks.
    unsafe { create(out, || bespoke_theta::new(required("theta", theta)?.solver.theta()?.into_owned())) }
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
            steps: self.plan.steps() as u32,
            nfe: self.plan.nfe() as u32,
            kept_registers: self.plan.kept_registers() as u32,
            family: self.family.as_ptr(),
            model: self.model.as_ptr(),
            training: self.training.as_ptr(),
            document: self.document.as_ref().map_or(null(), |document| document.as_ptr()),
            bytes: self.bytes() as u64,
        }
    }

    fn bytes(&self) -> usize {
        let texts = [&self.family, &self.model, &self.training].into_iter().chain(&self.document);
        let numbers = match &self.solver {
            // Its document says every number, in more bytes than it takes.
            Solver::Theta(_) => self.document.as_ref().map_or(0, |document| document.count_bytes()),
            Solver::Published(..) => 0,
        };
        let texts: usize = texts.map(|text| text.count_bytes() + 1).sum();
        size_of::<Self>() + self.plan.bytes() + self.scalars.bytes() + numbers + texts
    }

    fn stage(&self, k: usize) -> Result<bespoke_stage> {
        let (Some((t, ends_step)), Some([next, kept])) = (self.plan.evaluation(k), self.scalars.stages.get(k)) else {
            return Err(Error::invalid("k", k, format!("0 to {}", self.plan.nfe() - 1)));
        };
        Ok(bespoke_stage {
            struct_size: 0,
            ends_step: ends_step.into(),
            self_contained: self.plan.self_contained(k).into(),
            reserved: 0,
            t,
            next: self.scalars.view(next),
            kept: self.scalars.view(kept),
        })
    }
}
