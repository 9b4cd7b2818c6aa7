//! What a report holds, as its JSON file has it.

use super::super::measure::{Distances, Measured, SolverDistances};
use super::super::task::Task;
use super::knots::KnotCurve;
use super::trace::PathCurve;
use super::{ReportArgs, csv};
use bespoke::Result;
use bespoke::document::Notes;
use bespoke::dopri5::Tolerance;
use bespoke::reference::Solver;
use bespoke::samples::GuidanceScale;
use bespoke::tensor::Compute;
use serde::Serialize;
use std::path::Path;

/// All of it.
#[derive(Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub settings: Settings,
    /// Why something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distances: Option<Distances>,
    pub ground_truth: SolverFigures,
    pub results: Vec<SolverFigures>,
    /// Indices of the results that are pictured: one of each curve.
    pub shown: Vec<usize>,
    pub knots: Vec<KnotCurve>,
    pub paths: Vec<PathCurve>,
    pub training: Vec<Training>,
}

/// What was compared, and on what.
#[derive(Serialize)]
pub struct Settings {
    pub model: String,
    pub fingerprint: String,
    pub shape: bespoke::card::Shape,
    pub output: bespoke::scheduler::Output,
    pub scheduler: bespoke::scheduler::Scheduler,
    pub end: f64,
    pub count: usize,
    pub seed: Option<u64>,
    pub class: Option<i64>,
    pub guidance_scale: Option<GuidanceScale>,
    pub dtype: Compute,
    pub path: Option<String>,
    pub sigma0: Option<f64>,
    pub tolerance: Tolerance,
    pub sample: usize,
    pub version: &'static str,
}

impl Settings {
    pub fn new(args: &ReportArgs, task: &Task, count: usize) -> Result<Self> {
        let (card, asked) = (task.model.card(), &args.task);
        Ok(Self {
            model: card.name(),
            fingerprint: card.fingerprint()?,
            shape: card.shape.clone(),
            output: card.output,
            scheduler: card.scheduler.clone(),
            end: card.time.end,
            count,
            seed: asked.noise.noise.is_none().then_some(asked.noise.seed),
            class: asked.model.class,
            guidance_scale: asked.model.guidance_scale.clone(),
            dtype: asked.model.dtype,
            path: asked.path.path.clone(),
            sigma0: asked.path.sigma0,
            tolerance: task.comparison.tolerance,
            sample: args.sample,
            version: env!("CARGO_PKG_VERSION"),
        })
    }
}

/// One solver.
#[derive(Clone, Serialize)]
pub struct SolverFigures {
    /// As the user named it.
    pub solver: String,
    /// What it has in common with those it differs from in nfe alone.
    pub curve: String,
    pub nfe: f64,
    pub passes: f64,
    pub rmse: f64,
    pub psnr: f64,
    /// Of a sample: the median of repeats, of the ground truth the mean over all batches.
    pub seconds: f64,
    #[serde(flatten)]
    pub distances: Option<SolverDistances>,
    /// Of the per-sample rmse: least, 5 %, 25 %, median, 75 %, 95 %, greatest.
    pub quantiles: [f64; 7],
    /// The rmse of every sample.
    pub errors: Vec<f64>,
}

/// How a solver was trained.
#[derive(Serialize)]
pub struct Training {
    pub solver: String,
    pub curve: String,
    pub nfe: usize,
    pub training: Notes,
}

/// Rows in the order of the solvers, the ground truth's last.
pub fn rows(solvers: &[Solver], measured: &Measured) -> Vec<SolverFigures> {
    let evaluation = &measured.evaluation;
    let mut rows: Vec<SolverFigures> = evaluation
        .results
        .iter()
        .zip(&evaluation.errors)
        .enumerate()
        .map(|(i, (quality, errors))| SolverFigures {
            solver: quality.solver.clone(),
            curve: solvers.get(i).map_or("ground truth".into(), curve),
            nfe: quality.nfe,
            passes: quality.passes,
            rmse: quality.rmse,
            psnr: quality.psnr,
            seconds: quality.seconds,
            distances: measured.distances.as_ref().map(|found| found.solvers[i]),
            quantiles: quantiles(errors),
            errors: errors.clone(),
        })
        .collect();
    // Two of one curve and nfe are not one curve.
    for i in 0..rows.len() {
        let same = |other: &SolverFigures| other.curve == rows[i].curve && other.nfe == rows[i].nfe;
        if rows.iter().filter(|other| same(other)).count() > 1 {
            let curve = rows[i].curve.clone();
            rows.iter_mut().filter(|row| row.curve == curve).for_each(|row| row.curve = row.solver.clone());
        }
    }
    rows
}

/// The name without its nfe: of a file, its stem without a number at the end, and the family.
fn curve(solver: &Solver) -> String {
    match solver {
        Solver::GroundTruth => "ground truth".into(),
        Solver::Named(named) => {
            let grid = named.grid.as_ref().map_or(String::new(), |grid| format!(":{grid}"));
            format!("{}{grid}", named.solver.name)
        }
        Solver::Theta(name, theta) => {
            let stem = Path::new(&name.file).file_stem().map_or((&*name.file).into(), |stem| stem.to_string_lossy());
            let short = unnumbered(&stem);
            let family = theta.family_name();
            if short.contains(family) { short.to_owned() } else { format!("{short} ({family})") }
        }
    }
}

/// Without a number at the end: `theta-6` and `theta-n6` are `theta`, `rk2` stays.
fn unnumbered(stem: &str) -> &str {
    let before = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let before = if before.len() < stem.len() { before.strip_suffix('n').unwrap_or(before) } else { before };
    match before.strip_suffix(['-', '_', '.']) {
        Some(short) if !short.is_empty() && before.len() < stem.len() => short,
        _ => stem,
    }
}

fn quantiles(errors: &[f64]) -> [f64; 7] {
    let mut sorted = errors.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |q: f64| {
        let place = q * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0].map(at)
}

/// Of each curve the row whose nfe is nearest to `nfe`; at most as many as can be told apart.
pub fn shown(rows: &[SolverFigures], nfe: usize) -> Vec<usize> {
    const MOST: usize = 8;
    let far = |i: usize| (rows[i].nfe / nfe.max(1) as f64).ln().abs();
    let nearest =
        |curve: &str| (0..rows.len()).filter(|i| rows[*i].curve == curve).min_by(|a, b| far(*a).total_cmp(&far(*b)));
    curves(rows).into_iter().filter_map(nearest).take(MOST).collect()
}

/// All curves, in the order in which they first come.
pub fn curves(rows: &[SolverFigures]) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for row in rows {
        if !found.contains(&row.curve.as_str()) {
            found.push(&row.curve);
        }
    }
    found
}

pub fn training(solvers: &[Solver], rows: &[SolverFigures]) -> Vec<Training> {
    let of = |(solver, row): (&Solver, &SolverFigures)| match solver {
        Solver::Theta(_, theta) if !theta.training.is_empty() => Some(Training {
            solver: row.solver.clone(),
            curve: row.curve.clone(),
            nfe: theta.nfe(),
            training: theta.training.clone(),
        }),
        _ => None,
    };
    solvers.iter().zip(rows).filter_map(of).collect()
}

/// The table as CSV, the ground truth's row last.
pub fn table(report: &Report) -> String {
    let mut text = String::from(
        "solver,curve,nfe,passes,rmse,psnr,seconds,frechet_to_ground_truth,frechet_to_data,precision,recall,\
         rmse_least,rmse_p05,rmse_p25,rmse_median,rmse_p75,rmse_p95,rmse_greatest\n",
    );
    for row in report.results.iter().chain([&report.ground_truth]) {
        let data = row.distances.and_then(|found| found.to_data);
        let shares = data.and_then(|data| data.precision_recall);
        let optional = [
            row.distances.map(|found| found.to_ground_truth.frechet),
            data.map(|data| data.frechet),
            shares.map(|shares| shares.precision),
            shares.map(|shares| shares.recall),
        ];
        let numbers = [row.nfe, row.passes, row.rmse, row.psnr, row.seconds].map(Some);
        let quantiles = row.quantiles.map(Some);
        let cells = numbers.iter().chain(&optional).chain(&quantiles);
        let cells: Vec<String> = cells.map(|cell| cell.map_or(String::new(), |v| v.to_string())).collect();
        text += &format!("{},{},{}\n", csv::cell(&row.solver), csv::cell(&row.curve), cells.join(","));
    }
    text
}
