//! A training run with every choice made.

use super::config::{Learn, Loss, LossTerm, Optimizer, TrainConfig, TrainedFamily};
use super::objective::Objective;
use super::parameters::Structure;
use super::start::{self, Init, Start};
use crate::document::Notes;
use crate::dopri5::Tolerance;
use crate::error::{Error, Result};
use crate::path::GaussianPath;
use crate::theta::MAX_STEPS;

/// A training run with every choice made.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Solvers to train, by increasing nfe, at least one.
    pub rungs: Vec<Rung>,
    /// Velocity evaluations at which the run ends.
    pub budget: Option<u64>,
    /// Adam's first learning rate.
    pub lr: f64,
    /// L_tau of the bound.
    pub l_tau: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Noises solved for training.
    pub pool: usize,
    /// Iterations after which the pool is drawn anew; 0 for never.
    pub pool_refresh: usize,
    /// Fresh noises for validation.
    pub validation: usize,
    /// Iterations between validations; a twelfth of a phase where absent.
    pub validate_every: Option<usize>,
    /// Validations without a better one after which a phase ends.
    pub patience: Option<usize>,
    /// Of the ground truth.
    pub tolerance: Tolerance,
    /// Greatest minus least value of the data, for PSNR.
    pub range: f64,
}

/// One solver to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Rung {
    /// Its family and size.
    pub structure: Structure,
    /// What it starts from: the best of these.
    pub starts: Vec<Start>,
    /// What it goes through, at least one.
    pub phases: Vec<Phase>,
}

/// One loss, and how it is minimised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// What is minimised.
    pub objective: Objective,
    /// How.
    pub optimizer: Optimizer,
    /// Iterations.
    pub iterations: usize,
    /// Samples an iteration.
    pub batch: usize,
}

/// What a noise's ground truth takes, about, in evaluations. A budget is half for it, and of that a quarter for validation.
const TRUTH: u64 = 100;

/// Up to so many evaluations of `ns` forward passes alone come to the error of gradients or less, and cost less.
const FEW: usize = 8;

/// Evaluations of an iteration's Jacobians at most, by nfe^2: 30 samples' of `ns` at nfe 10.
const JACOBIANS: u64 = 80;

/// Iterations, batches and pools beyond this are mistakes.
const MOST: usize = 100_000_000;

impl Settings {
    /// Whether ground-truth paths are wanted at any time, not at their ends alone.
    pub fn dense(&self) -> bool {
        self.phases().any(|phase| phase.objective.end().is_none())
    }

    /// The phases of all rungs.
    pub fn phases(&self) -> impl Iterator<Item = &Phase> {
        self.rungs.iter().flat_map(|rung| &rung.phases)
    }

    /// The thetas of other models that training starts from: names of their files and what they
    /// were made for.
    pub fn given(&self) -> impl Iterator<Item = (&str, &Notes)> {
        self.rungs.iter().flat_map(|rung| &rung.starts).filter_map(|start| match start {
            Start::Given { name, model, .. } => Some((name.as_str(), model)),
            _ => None,
        })
    }
}

impl TrainConfig {
    /// Makes every choice; `range` is the data's, `path` what the model is sampled on, where that is known.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key at fault.
    pub fn settings(&self, range: f64, path: Option<&GaussianPath>) -> Result<Settings> {
        let rungs = self.rungs(&self.objectives()?, path)?;
        let resolve = self.resolve.unwrap_or(false);
        if resolve && (self.pool.is_some() || self.pool_refresh.is_some()) {
            return Err(Error::invalid("resolve", true, "no pool and no pool_refresh beside it"));
        }
        let batch = rungs.iter().flat_map(|rung| &rung.phases).map(|phase| phase.batch).max().unwrap_or(0);
        let affordable = self.budget.map_or(MOST, |budget| usize::try_from(budget / (2 * TRUTH)).unwrap_or(MOST));
        let settings = Settings {
            rungs,
            budget: self.budget,
            lr: self.lr.unwrap_or(2e-2),
            l_tau: self.l_tau.unwrap_or(1.0),
            seed: self.seed.unwrap_or(0),
            pool: if resolve { batch } else { self.pool.unwrap_or((affordable - affordable / 4).min(1500).max(batch)) },
            pool_refresh: if resolve { 1 } else { self.pool_refresh.unwrap_or(0) },
            validation: self.validation.unwrap_or((affordable / 4).clamp(10, 1000)),
            validate_every: self.validate_every,
            patience: self.patience,
            tolerance: Tolerance { rtol: self.rtol.unwrap_or(1e-5), atol: self.atol.unwrap_or(1e-5) },
            range,
        };
        if !(batch..=MOST).contains(&settings.pool) {
            let expected = format!("{batch} to {MOST}: no fewer than the samples of an iteration (batch)");
            return Err(Error::invalid("pool", settings.pool, expected));
        }
        check_range("validation", settings.validation, 1, MOST)?;
        check_range("validate_every", settings.validate_every.unwrap_or(1), 1, MOST)?;
        check_range("patience", settings.patience.unwrap_or(1), 1, MOST)?;
        if settings.budget == Some(0) {
            return Err(Error::invalid("budget", 0, "a positive count of evaluations"));
        }
        check_positive("lr", settings.lr)?;
        check_positive("l_tau", settings.l_tau)?;
        settings.tolerance.validate()?;
        Ok(settings)
    }

    fn objectives(&self) -> Result<Vec<Objective>> {
        let default = [LossTerm { loss: Loss::LogMse, weight: None }];
        let objectives = Objective::of_list(if self.loss.is_empty() { &default } else { &self.loss })?;
        if objectives.iter().any(Objective::has_features) && self.features.is_none() {
            let expected =
                "a feature card, since a loss is of features; the one that the model card names is for judging";
            return Err(Error::invalid("features", "absent", expected));
        }
        if self.optimizer.is_some_and(|optimizer| optimizer != Optimizer::Adam)
            && objectives.iter().all(|objective| objective.end().is_none())
        {
            let value = serde_json::json!(self.optimizer);
            return Err(Error::invalid("optimizer", value, "adam for the rmse-bound loss"));
        }
        let counts = &self.iterations;
        if counts.len() > 1 && counts.len() != objectives.len() {
            let expected = format!("one count, or one for each of {} losses", objectives.len());
            return Err(Error::invalid("iterations", format!("{counts:?}"), expected));
        }
        Ok(objectives)
    }

    /// What `structure` goes through to minimise the `objectives`.
    fn phases(&self, structure: Structure, objectives: &[Objective]) -> Result<Vec<Phase>> {
        let counts = &self.iterations;
        let phase = |(i, objective): (usize, &Objective)| {
            let optimizer = self.optimizer(structure, objective)?;
            let (iterations, batch) = match optimizer {
                Optimizer::Adam => (1200, 60),
                Optimizer::GaussNewton => (30, 400),
                Optimizer::ForwardGaussNewton => (40, forward_batch(structure)),
            };
            let iterations = counts.get(i).or(counts.first()).copied().unwrap_or(iterations);
            let phase = Phase { objective: *objective, optimizer, iterations, batch: self.batch.unwrap_or(batch) };
            check_range("iterations", phase.iterations, 1, MOST)?;
            check_range("batch", phase.batch, 1, MOST)?;
            Ok(phase)
        };
        objectives.iter().enumerate().map(phase).collect()
    }

    /// How `structure` is to minimise an `objective`: as is said, else as measures best where there are gradients
    /// (docs/training.md, "Forward passes alone").
    fn optimizer(&self, structure: Structure, objective: &Objective) -> Result<Optimizer> {
        let Some(terms) = objective.end() else {
            return match structure {
                Structure::Ns(_) => {
                    Err(Error::invalid("loss", "rmse-bound", "log-mse, rmse or features for family ns"))
                }
                Structure::Rk1(_) | Structure::Rk2(_) => Ok(Optimizer::Adam),
            };
        };
        let several = terms.measures().len() > 1;
        let of_numbers = !several && !objective.has_features();
        let optimizer = self.optimizer.unwrap_or(match structure {
            Structure::Ns(nfe) if nfe <= FEW && of_numbers => Optimizer::ForwardGaussNewton,
            _ => Optimizer::GaussNewton,
        });
        if several && optimizer == Optimizer::ForwardGaussNewton {
            let sum: Vec<String> = objective.list().iter().map(LossTerm::to_string).collect();
            let expected = "losses of numbers or features, not of both, for forward-gauss-newton";
            return Err(Error::invalid("loss", sum.join(","), expected));
        }
        Ok(optimizer)
    }

    fn rungs(&self, objectives: &[Objective], path: Option<&GaussianPath>) -> Result<Vec<Rung>> {
        let given = &self.init;
        let inits = given.iter().map(|text| Init::read(text)).collect::<Result<Vec<_>>>()?;
        if (self.path.is_some() || self.sigma0.is_some())
            && let Some(i) = inits.iter().position(|init| matches!(init, Init::Thetas(..)))
        {
            return Err(Error::invalid("init", &given[i], "no theta beside path or sigma0: it has a path of its own"));
        }
        let mut structures = self.structures(&inits)?;
        structures.sort_by_key(Structure::nfe);
        if let Some(pair) = structures.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid("steps", pair[0].steps(), "counts that differ"));
        }
        let learn = self.learn.unwrap_or_default();
        if learn != Learn::Both && matches!(structures[0], Structure::Ns(_)) {
            return Err(Error::invalid(
                "learn",
                serde_json::json!(learn),
                "\"t,s\" for family ns: a table has no parts",
            ));
        }
        let rung = |structure: Structure| {
            let phases = self.phases(structure, objectives)?;
            // Training begins at the identity with the paper's optimiser, and where only a part is learned.
            let gauss_newton = phases[0].optimizer != Optimizer::Adam && learn == Learn::Both;
            let anywhere = gauss_newton && self.path.is_none() && self.sigma0.is_none();
            let mut starts = match inits.as_slice() {
                [] => first_starts(structure, path, anywhere)?,
                inits => fitting_starts(structure, given, inits, structures.len() > 1, path, anywhere)?,
            };
            starts.iter_mut().for_each(|start| start.learning(learn));
            Ok(Rung { structure, starts, phases })
        };
        structures.iter().map(|structure| rung(*structure)).collect()
    }

    /// Of the solvers asked for, in the order of the document.
    fn structures(&self, inits: &[Init]) -> Result<Vec<Structure>> {
        let known: Vec<Structure> = if let [init] = inits { init.structures() } else { Vec::new() };
        let own_family = known.first().map(|structure| match structure {
            Structure::Rk1(_) => TrainedFamily::Rk1,
            Structure::Rk2(_) => TrainedFamily::Rk2,
            Structure::Ns(_) => TrainedFamily::Ns,
        });
        let family = self.family.or(own_family).unwrap_or(TrainedFamily::Rk2);
        let per_step = if family == TrainedFamily::Rk2 { 2 } else { 1 };
        let by_nfe = (!self.nfe.is_empty()).then(|| steps_of(&self.nfe, per_step)).transpose()?;
        let by_steps = (!self.steps.is_empty()).then(|| self.steps.clone());
        if let (Some(nfe), Some(steps)) = (&by_nfe, &by_steps)
            && nfe != steps
        {
            let expected = format!("absent, or what nfe = {:?} comes to: {nfe:?}", self.nfe);
            return Err(Error::invalid("steps", format!("{steps:?}"), expected));
        }
        let steps = by_nfe.or(by_steps).unwrap_or_else(|| match known.as_slice() {
            [] if family == TrainedFamily::Rk2 => vec![5],
            [] => vec![10],
            known if family == TrainedFamily::Ns => known.iter().map(Structure::nfe).collect(),
            known => known.iter().map(Structure::steps).collect(),
        });
        let structure = |steps: &usize| {
            check_range("steps", *steps, 1, MAX_STEPS)?;
            Ok(match family {
                TrainedFamily::Rk1 => Structure::Rk1(*steps),
                TrainedFamily::Rk2 => Structure::Rk2(*steps),
                TrainedFamily::Ns => Structure::Ns(*steps),
            })
        };
        steps.iter().map(structure).collect()
    }
}

/// Samples of an iteration by forward passes alone. The Jacobian of a sample costs the cube of nfe, so that twice the nfe has
/// half the samples; with no more cost than at 10 they are too few for a table of so many numbers.
fn forward_batch(structure: Structure) -> usize {
    let nfe = structure.nfe() as u64;
    (JACOBIANS * nfe * nfe / structure.jacobian_evaluations().max(1)).clamp(1, 30) as usize
}

/// What `structure` starts from where nothing is said.
fn first_starts(structure: Structure, path: Option<&GaussianPath>, anywhere: bool) -> Result<Vec<Start>> {
    let of_each = match structure {
        Structure::Ns(nfe) => vec![start::published(nfe, path)?, start::regridded(nfe, path)?],
        Structure::Rk1(_) | Structure::Rk2(_) => vec![start::bases(structure, path, anywhere)?],
    };
    Ok(of_each.into_iter().map(Start::BestOf).collect())
}

/// What `structure` starts from; of a ladder's `inits`, those that fit it.
fn fitting_starts(
    structure: Structure,
    given: &[String],
    inits: &[Init],
    ladder: bool,
    path: Option<&GaussianPath>,
    anywhere: bool,
) -> Result<Vec<Start>> {
    let mut starts = Vec::new();
    for (text, init) in given.iter().zip(inits) {
        match init.fit(structure, path, anywhere)? {
            Some(start) => starts.push(start),
            None if ladder => {}
            None => return Err(unfit(text, structure)),
        }
    }
    if starts.is_empty() { Err(unfit(&given.join(", "), structure)) } else { Ok(starts) }
}

fn unfit(value: &str, structure: Structure) -> Error {
    let steps = structure.steps();
    let expected = match structure {
        Structure::Rk1(_) => format!("a theta of family rk1 with {steps} steps"),
        Structure::Rk2(_) => format!("a theta of family rk2 with {steps} steps"),
        Structure::Ns(nfe) => {
            format!(
                "a theta or a published solver of {nfe} evaluations, published, regridded, rk1, or rk2 where they are even"
            )
        }
    };
    Error::invalid("init", value, expected)
}

/// Steps that have `nfe` evaluations.
fn steps_of(nfe: &[usize], per_step: usize) -> Result<Vec<usize>> {
    if nfe.contains(&0) {
        return Err(Error::invalid("nfe", 0, format!("at least {per_step}")));
    }
    if let Some(odd) = nfe.iter().find(|nfe| !nfe.is_multiple_of(per_step)) {
        let nearest = if *odd > 1 { format!("{} or {}", odd - 1, odd.saturating_add(1)) } else { "2".into() };
        return Err(Error::invalid("nfe", odd, format!("a multiple of {per_step} for rk2, such as {nearest}")));
    }
    Ok(nfe.iter().map(|nfe| nfe / per_step).collect())
}

fn check_range(field: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, value, format!("{least} to {most}")))
}

fn check_positive(field: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(field, value, "a positive finite number"))
}
