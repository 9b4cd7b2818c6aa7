//! The learned parameters, their constraints, and their file.

pub mod bound;
pub mod knots;
mod table;

pub use knots::Knots;
pub use table::NsTable;
pub(crate) use table::row as table_row;

use crate::document::{self, Notes};
use crate::error::{Error, Result};
use crate::tableau::Tableau;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Steps of a solver at most. Few-step solvers have tens; a file with more is damaged or hostile.
pub const MAX_STEPS: usize = 1000;

/// The coefficients of a solver.
#[derive(Clone, Debug, PartialEq)]
pub enum Family {
    /// RK1-Bespoke, one evaluation a step (BES Eq. 17).
    Rk1(Knots<f64>),
    /// RK2-Bespoke, two evaluations a step (BES Eq. 19-20).
    Rk2(Knots<f64>),
    /// Non-stationary: the table itself (BNS).
    Ns(NsTable),
}

/// A solver's coefficients, with notes on what they were made for. Immutable once loaded.
/// ```
/// use bespoke::theta::Theta;
///
/// // RK1-Bespoke of two steps that has learned nothing: Euler's method.
/// let text = r#"{ "format": "bespoke-theta", "version": 1, "family": "rk1", "steps": 2,
///     "t": [0, 0.5, 1], "t_dot": [1, 1], "s": [1, 1, 1], "s_dot": [0, 0] }"#;
/// let theta = Theta::parse(text, "an example")?;
/// assert_eq!((theta.family_name(), theta.nfe()), ("rk1", 2));
/// assert_eq!(theta.tableau().stages[1].t, 0.5);
///
/// let refused = Theta::parse(&text.replace("0.5", "1.5"), "an example").unwrap_err();
/// assert!(refused.to_string().contains("t"), "{refused}");
/// # Ok::<(), bespoke::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Theta {
    /// The coefficients.
    pub family: Family,
    /// What it was trained for: name, fingerprint, guidance_scale of the model.
    pub model: Notes,
    /// How it was trained: settings, seed, evaluations, validation rmse.
    pub training: Notes,
}

/// Keys of [`Theta::model`] that say which model it is: its fingerprint, and what a server calls its network.
pub const MODEL_KEYS: [&str; 2] = ["fingerprint", "velocity_model"];

/// Whether two such notes are of different models, as far as both say.
pub fn different_models(one: &Notes, other: &Notes) -> bool {
    let differ = |key: &&str| matches!((one.text(key), other.text(key)), (Some(a), Some(b)) if a != b);
    MODEL_KEYS.iter().any(differ)
}

/// What messages call the model of such notes.
pub fn model_name(notes: &Notes) -> &str {
    notes.text("velocity_model").or(notes.text("name")).unwrap_or("another model")
}

/// The file (version 1), see `docs/formats.md`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThetaFile {
    format: String,
    version: u64,
    family: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    t: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t_dot: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s_dot: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    b: Option<Vec<Vec<f64>>>,
    #[serde(default, skip_serializing_if = "Notes::is_empty")]
    model: Notes,
    #[serde(default, skip_serializing_if = "Notes::is_empty")]
    training: Notes,
}

const FORMAT: &str = "bespoke-theta";
const VERSION: u64 = 1;

impl Theta {
    /// A solver without notes.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the coefficient that breaks a constraint (BES Eq. 18, 21).
    pub fn new(family: Family) -> Result<Self> {
        match &family {
            Family::Rk1(knots) => check_knots(knots, 1)?,
            Family::Rk2(knots) => check_knots(knots, 2)?,
            Family::Ns(table) => check_ns(table)?,
        }
        let theta = Self { family, model: Notes::default(), training: Notes::default() };
        theta.check_table()?;
        Ok(theta)
    }

    /// Any solver as a theta of family `ns`: every state written out by x(0) and all velocities.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more evaluations than steps a theta may have: each is a row.
    pub fn compile(tableau: &Tableau<f64>) -> Result<Self> {
        if tableau.nfe() > MAX_STEPS {
            let expected = format!("at most {MAX_STEPS}, the rows of a theta of family ns");
            return Err(Error::invalid("nfe", tableau.nfe(), expected));
        }
        Self::new(Family::Ns(NsTable::compile(tableau)))
    }

    /// Each number may be finite and their quotients not.
    fn check_table(&self) -> Result<()> {
        match self.tableau().scalars().iter().find(|v| !v.is_finite()) {
            Some(v) => {
                Err(Error::invalid("s, s_dot, t_dot", format!("such that a coefficient is {v}"), "finite coefficients"))
            }
            None => Ok(()),
        }
    }

    /// Reads a theta file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] naming the key at fault.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        Self::from_file(document::read(path)?, &name)
    }

    /// Parses the text of a theta file; `name` is what messages call it.
    ///
    /// # Errors
    /// [`Error::Format`] naming the key at fault.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        Self::from_file(document::parse(text, name)?, name)
    }

    /// Writes a theta file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`]; an earlier file is then untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        document::write(path, &self.to_file())
    }

    /// The text of its file.
    ///
    /// # Errors
    /// [`Error::Format`] where the notes cannot be written.
    pub fn to_json(&self) -> Result<String> {
        document::text(&self.to_file(), "theta")
    }

    /// `rk1`, `rk2` or `ns`.
    pub fn family_name(&self) -> &'static str {
        match &self.family {
            Family::Rk1(_) => "rk1",
            Family::Rk2(_) => "rk2",
            Family::Ns(_) => "ns",
        }
    }

    /// Number of steps n; for `ns` every evaluation is one.
    pub fn steps(&self) -> usize {
        match &self.family {
            Family::Rk1(knots) => knots.t_dot.len(),
            Family::Rk2(knots) => knots.t_dot.len() / 2,
            Family::Ns(table) => table.t.len(),
        }
    }

    /// Number of velocity evaluations of a sample.
    pub fn nfe(&self) -> usize {
        match &self.family {
            Family::Rk1(knots) | Family::Rk2(knots) => knots.t_dot.len(),
            Family::Ns(table) => table.t.len(),
        }
    }

    /// The solver as a table.
    pub fn tableau(&self) -> Tableau<f64> {
        match &self.family {
            Family::Rk1(of) => knots::rk1(of),
            Family::Rk2(of) => knots::rk2(of),
            Family::Ns(table) => table.tableau(),
        }
    }

    pub(crate) fn to_file(&self) -> ThetaFile {
        let mut file = ThetaFile {
            format: FORMAT.into(),
            version: VERSION,
            family: self.family_name().into(),
            steps: Some(self.steps() as u64),
            t: Vec::new(),
            t_dot: None,
            s: None,
            s_dot: None,
            a: None,
            b: None,
            model: self.model.clone(),
            training: self.training.clone(),
        };
        match &self.family {
            Family::Rk1(knots) | Family::Rk2(knots) => {
                file.t = knots.t.clone();
                file.t_dot = Some(knots.t_dot.clone());
                file.s = Some(knots.s.clone());
                file.s_dot = Some(knots.s_dot.clone());
            }
            Family::Ns(table) => {
                file.t = table.t.clone();
                file.a = Some(table.a.clone());
                file.b = Some(table.b.clone());
            }
        }
        file
    }

    pub(crate) fn from_file(file: ThetaFile, document: &str) -> Result<Self> {
        document::check_format(document, (&file.format, file.version), (FORMAT, VERSION))?;
        let wrong = |field: &str, problem: String| Error::format(document, field, problem);
        let family = match file.family.as_str() {
            "rk1" | "rk2" => {
                absent("a", &file.a, document)?;
                absent("b", &file.b, document)?;
                let knots = Knots {
                    t: file.t,
                    t_dot: present("t_dot", file.t_dot, document)?,
                    s: present("s", file.s, document)?,
                    s_dot: present("s_dot", file.s_dot, document)?,
                };
                let per_step = if file.family == "rk1" { 1 } else { 2 };
                let steps = present("steps", file.steps, document)?;
                check_steps(steps, "t_dot", knots.t_dot.len(), per_step, document)?;
                if per_step == 1 { Family::Rk1(knots) } else { Family::Rk2(knots) }
            }
            "ns" => {
                absent("t_dot", &file.t_dot, document)?;
                absent("s", &file.s, document)?;
                absent("s_dot", &file.s_dot, document)?;
                let table =
                    NsTable { t: file.t, a: present("a", file.a, document)?, b: present("b", file.b, document)? };
                check_steps(file.steps.unwrap_or(table.t.len() as u64), "t", table.t.len(), 1, document)?;
                Family::Ns(table)
            }
            other => return Err(wrong("family", format!("is {other:?}, expected \"rk1\", \"rk2\" or \"ns\""))),
        };
        let theta = Theta::new(family).map_err(|e| match e {
            Error::Invalid { field, value, expected } => wrong(&field, format!("is {value}, expected {expected}")),
            other => other,
        })?;
        Ok(Theta { model: file.model, training: file.training, ..theta })
    }
}

fn present<T>(field: &str, value: Option<T>, document: &str) -> Result<T> {
    value.ok_or_else(|| Error::format(document, field, "is missing, and this family needs it"))
}

fn absent<T>(field: &str, value: &Option<T>, document: &str) -> Result<()> {
    match value {
        None => Ok(()),
        Some(_) => Err(Error::format(document, field, "is there, but this family has no such key")),
    }
}

fn check_steps(steps: u64, field: &str, intervals: usize, per_step: usize, document: &str) -> Result<()> {
    if steps == 0 || steps > MAX_STEPS as u64 {
        return Err(Error::format(document, "steps", format!("is {steps}, expected 1 to {MAX_STEPS}")));
    }
    let expected = steps as usize * per_step;
    if intervals != expected {
        let problem = format!("is of length {intervals}, expected {expected} for steps = {steps}");
        return Err(Error::format(document, field, problem));
    }
    Ok(())
}

fn check_length(field: &str, length: usize, expected: usize) -> Result<()> {
    if length != expected {
        return Err(Error::invalid(field, format!("of length {length}"), format!("of length {expected}")));
    }
    Ok(())
}

fn check_all(field: &str, values: &[f64], expected: &str, good: impl Fn(f64) -> bool) -> Result<()> {
    match values.iter().position(|v| !good(*v)) {
        Some(i) => Err(Error::invalid(format!("{field}[{i}]"), values[i], expected)),
        None => Ok(()),
    }
}

/// BES Eq. 18 and 21.
fn check_knots(knots: &Knots<f64>, per_step: usize) -> Result<()> {
    let intervals = knots.t_dot.len();
    if intervals == 0 || !intervals.is_multiple_of(per_step) || intervals > MAX_STEPS * per_step {
        let expected =
            format!("of a length that is a multiple of {per_step}, from {per_step} to {}", MAX_STEPS * per_step);
        return Err(Error::invalid("t_dot", format!("of length {intervals}"), expected));
    }
    check_length("t", knots.t.len(), intervals + 1)?;
    check_length("s", knots.s.len(), intervals + 1)?;
    check_length("s_dot", knots.s_dot.len(), intervals)?;
    check_all("t", &knots.t, "a finite number", f64::is_finite)?;
    for (i, expected) in [(0, 0.0), (intervals, 1.0)] {
        if knots.t[i] != expected {
            return Err(Error::invalid(format!("t[{i}]"), knots.t[i], format!("{expected} at this end")));
        }
    }
    if let Some(i) = (1..knots.t.len()).find(|&i| knots.t[i] <= knots.t[i - 1]) {
        return Err(Error::invalid(
            format!("t[{i}]"),
            knots.t[i],
            format!("more than t[{}] = {}", i - 1, knots.t[i - 1]),
        ));
    }
    check_all("t_dot", &knots.t_dot, "a positive finite number", |v| v > 0.0 && v.is_finite())?;
    check_all("s", &knots.s, "a positive finite number", |v| v > 0.0 && v.is_finite())?;
    if knots.s[0] != 1.0 {
        return Err(Error::invalid("s[0]", knots.s[0], "1"));
    }
    check_all("s_dot", &knots.s_dot, "a finite number", f64::is_finite)
}

fn check_ns(table: &NsTable) -> Result<()> {
    let n = table.t.len();
    if n == 0 || n > MAX_STEPS {
        return Err(Error::invalid("t", format!("of length {n}"), format!("of length 1 to {MAX_STEPS}")));
    }
    check_length("a", table.a.len(), n)?;
    check_length("b", table.b.len(), n)?;
    check_all("t", &table.t, "a time in [0, 1]", |t| (0.0..=1.0).contains(&t))?;
    check_all("a", &table.a, "a finite number", f64::is_finite)?;
    for (i, row) in table.b.iter().enumerate() {
        check_length(&format!("b[{i}]"), row.len(), i + 1)?;
        check_all(&format!("b[{i}]"), row, "a finite number", f64::is_finite)?;
    }
    Ok(())
}
