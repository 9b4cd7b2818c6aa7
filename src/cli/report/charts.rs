//! Which charts a report has.

use super::chart::{Axis, Chart, Series};
use super::data::{Report, SolverFigures, curves};
use super::knots::KnotCurve;
use super::label;

const NFE: &str = "evaluations (nfe)";

/// All charts that have something to show.
pub fn all(report: &Report) -> Vec<Chart> {
    let mut charts = against_nfe(report);
    charts.push(errors(report));
    charts.push(paths(report));
    charts.extend(knots(report));
    charts.push(training(report));
    charts.retain(|chart| !chart.is_empty());
    charts
}

/// Style of what a row belongs to: the same in every chart.
fn style(report: &Report, curve: &str) -> usize {
    curves(&report.results).iter().position(|known| *known == curve).unwrap_or_default()
}

type Value = fn(&SolverFigures) -> Option<f64>;

fn against_nfe(report: &Report) -> Vec<Chart> {
    let to_data: Value = |row| row.distances.and_then(|found| found.to_data).map(|data| data.frechet);
    let to_truth: Value = |row| row.distances.map(|found| found.to_ground_truth.frechet);
    let precision: Value = |row| Some(row.distances?.to_data?.precision_recall?.precision);
    let recall: Value = |row| Some(row.distances?.to_data?.precision_recall?.recall);
    let truth_to_data = report
        .distances
        .as_ref()
        .and_then(|found| found.ground_truth_to_data)
        .map(|data| (data, data.precision_recall));
    let gt = &report.ground_truth;
    let entries: [(&'static str, &'static str, Axis, Value, Option<f64>); 7] = [
        ("rmse", "Error of the samples", Axis::log("rmse to the ground truth"), |row| Some(row.rmse), Some(gt.rmse)),
        ("psnr", "Likeness of the samples", Axis::linear("psnr (dB)"), |row| Some(row.psnr), Some(gt.psnr)),
        (
            "frechet-data",
            "Fréchet distance to data",
            Axis::log("Fréchet distance"),
            to_data,
            truth_to_data.map(|(data, _)| data.frechet),
        ),
        ("frechet-gt", "Fréchet distance to the ground truth's samples", Axis::log("Fréchet distance"), to_truth, None),
        (
            "precision",
            "Precision: samples that are like data",
            Axis::linear("share"),
            precision,
            truth_to_data.and_then(|(_, shares)| Some(shares?.precision)),
        ),
        (
            "recall",
            "Recall: data that samples are like",
            Axis::linear("share"),
            recall,
            truth_to_data.and_then(|(_, shares)| Some(shares?.recall)),
        ),
        ("seconds", "Time of a sample", Axis::log("seconds a sample"), |row| Some(row.seconds), Some(gt.seconds)),
    ];
    let chart = |(name, title, y, value, level): (&'static str, &'static str, Axis, Value, Option<f64>)| {
        let of_curve = |curve: &&str| {
            let mut points: Vec<(f64, f64)> = report
                .results
                .iter()
                .filter(|row| row.curve == **curve)
                .filter_map(|row| Some((row.nfe, value(row)?)))
                .collect();
            points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
            Series { label: (*curve).to_owned(), points, style: style(report, curve), markers: true }
        };
        let series = curves(&report.results).iter().map(of_curve).collect();
        let levels = level.map(|level| (format!("ground truth ({:.0} evaluations)", gt.nfe), level));
        Chart { name, title, x: Axis::log(NFE), y, series, levels: levels.into_iter().collect() }
    };
    entries.into_iter().map(chart).collect()
}

/// Share of samples whose error is at most so much.
fn errors(report: &Report) -> Chart {
    const POINTS: usize = 150;
    let series = report.shown.iter().map(|&i| {
        let row = &report.results[i];
        let mut sorted = row.errors.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        let wanted = count.min(POINTS);
        let point = |k: usize| {
            let place = (k + 1) * count / wanted - 1;
            (sorted[place], (place + 1) as f64 / count as f64)
        };
        let points = (0..wanted).map(point).collect();
        Series { label: label(row), points, style: style(report, &row.curve), markers: false }
    });
    Chart {
        name: "errors",
        title: "Errors of single samples",
        x: Axis::log("rmse of a sample"),
        y: Axis::linear("share of samples below").within(0.0, 1.0),
        series: series.collect(),
        levels: Vec::new(),
    }
}

fn paths(report: &Report) -> Chart {
    let series = report.paths.iter().map(|path| {
        let row = &report.results[path.result];
        // The start is the same for all: no error, and no place on a log axis.
        let points = path.rmse.iter().copied().filter(|(_, rmse)| *rmse > 0.0).collect();
        Series { label: label(row), points, style: style(report, &row.curve), markers: true }
    });
    Chart {
        name: "path",
        title: "One sample's distance from its path",
        x: Axis::linear("t, from noise to data").within(0.0, 1.0),
        y: Axis::log("rmse to the ground truth at t"),
        series: series.collect(),
        levels: Vec::new(),
    }
}

type Of = fn(&KnotCurve) -> &Vec<(f64, f64)>;

/// What was learned next to what others do; of each curve the solver that is pictured.
fn knots(report: &Report) -> Vec<Chart> {
    let pictured: Vec<String> = report.shown.iter().map(|&i| label(&report.results[i])).collect();
    let curves: Vec<&KnotCurve> =
        report.knots.iter().filter(|curve| !curve.learned || pictured.contains(&curve.solver)).collect();
    if !curves.iter().any(|curve| curve.learned) {
        return Vec::new();
    }
    let entries: [(&'static str, &'static str, &'static str, bool, Of); 4] = [
        ("t", "Learned time", "t(r)", false, |curve| &curve.t),
        ("t-dot", "Learned time: its derivative", "t'(r)", false, |curve| &curve.t_dot),
        ("s", "Learned scale", "s(r)", true, |curve| &curve.s),
        ("s-dot", "Learned scale: its derivative", "s'(r)", false, |curve| &curve.s_dot),
    ];
    // Published transformations take the styles that the learned ones leave.
    let style_of = |curve: &KnotCurve| {
        report.results.iter().find(|row| label(row) == curve.solver).map(|row| style(report, &row.curve))
    };
    let taken: Vec<usize> = curves.iter().filter_map(|curve| style_of(curve)).collect();
    let mut free = (0..).filter(|style| !taken.contains(style));
    let styles: Vec<usize> =
        curves.iter().map(|curve| style_of(curve).or_else(|| free.next()).unwrap_or_default()).collect();
    let chart = |(name, title, y, log, of): (&'static str, &'static str, &'static str, bool, Of)| {
        let learned = || curves.iter().filter(|curve| curve.learned).flat_map(|curve| of(curve));
        // DDIM's and EDM's derivatives grow without bound: they leave the picture.
        let (low, high) = learned().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.1), b.max(p.1)));
        let base = if name == "s-dot" { 0.0 } else { 1.0 };
        let (low, high) = (low.min(base), high.max(base));
        let room = 0.5 * (high - low).max(0.5);
        let axis = match name {
            "t" => Axis::linear(y).within(0.0, 1.0),
            _ if log => Axis::log(y).within(low / 2.0, high * 2.0),
            "t-dot" => Axis::linear(y).within(0.0, high + room),
            _ => Axis::linear(y).within(low - room, high + room),
        };
        let mut series: Vec<Series> = curves
            .iter()
            .zip(&styles)
            .map(|(curve, &style)| Series {
                label: curve.solver.clone(),
                points: of(curve).clone(),
                style,
                markers: curve.learned,
            })
            .collect();
        if !series.iter().zip(&curves).any(|(series, curve)| curve.learned && !series.points.is_empty()) {
            series.clear();
        }
        let x = Axis::linear("r, the solver's own time").within(0.0, 1.0);
        Chart { name, title, x, y: axis, series, levels: Vec::new() }
    };
    entries.into_iter().map(chart).collect()
}

/// Validation as training went on, where the theta has kept it.
fn training(report: &Report) -> Chart {
    let series = report.training.iter().filter_map(|training| {
        let entry = |entry: &serde_json::Value| Some((entry.get(0)?.as_f64()?, entry.get(1)?.as_f64()?));
        let log = training.training.0.get("log")?.as_array()?;
        let points: Vec<(f64, f64)> = log.iter().filter_map(entry).filter(|(x, _)| *x > 0.0).collect();
        let label = format!("{}@{}", training.curve, training.nfe);
        Some((label, points))
    });
    let series = series.enumerate().map(|(style, (label, points))| Series { label, points, style, markers: true });
    Chart {
        name: "training",
        title: "Training",
        x: Axis::log("forward evaluations spent (a backward one counts as two)"),
        y: Axis::log("validation rmse"),
        series: series.collect(),
        levels: Vec::new(),
    }
}
