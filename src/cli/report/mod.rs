//! `bespoke report`: a model and some solvers as one page that opens anywhere.

mod chart;
mod charts;
mod csv;
mod data;
mod draw;
mod knots;
mod page;
mod pictures;
mod times;
mod trace;

use super::arrays;
use super::judge::{Judge, JudgeArgs};
use super::measure::measure;
use super::say::note;
use super::task::{Task, TaskArgs};
use bespoke::evaluate::Ready;
use bespoke::ranks::Ranks;
use bespoke::reference::Solver;
use bespoke::samples::Noises;
use bespoke::{Error, Result, document, output};
use data::{Report, Settings, SolverFigures};
use std::path::{Path, PathBuf};

/// Compare solvers on one page: tables, curves, pictures, paths, learned parameters.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  bespoke report --model models/digits-fm-ot.json --solver ladder.json@4,6,8,10 \
    --solver midpoint@4,6,8,10,20 --solver dpm++2m@4,6,8,10,20 --out report.html\n\n\
    The ground truth is always on it. Beside report.html come report.json, report.csv, and in report-plots/ \
    every plot as SVG, PNG and CSV, every picture as PNG. Solvers that differ in nfe alone are one curve; so are \
    theta files called alike but for a number at the end. The Fréchet distance is in the features that the model's card names, or --features.")]
pub struct ReportArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// Of every curve, the solver with about this nfe is pictured.
    #[arg(long, value_name = "N", default_value_t = 10)]
    nfe: usize,
    /// Index of the sample whose path through time is shown.
    #[arg(long, value_name = "I", default_value_t = 0)]
    sample: usize,
    /// Where the page is written; the other files take its name.
    #[arg(long, value_name = "REPORT.html")]
    out: PathBuf,
}

pub fn run(args: ReportArgs) -> Result<()> {
    let (asked, ranks) = (&args.task, Ranks::alone());
    let mut solvers = asked.solvers()?;
    solvers.retain(|solver| !matches!(solver, Solver::GroundTruth));
    let stem = stem(&args.out)?;
    output::check(&args.out)?;
    let mut task = asked.open(&solvers, &ranks)?;
    // Its own row is the level that no solver is asked to be below.
    task.comparison.solvers.push(("gt".into(), Ready::GroundTruth(task.comparison.tolerance)));
    let card = task.model.card();
    let count = match &task.comparison.noises {
        Noises::Seed { count, .. } => *count,
        given => given.count(card.sample_shape()?.iter().product()),
    };
    if args.sample >= count {
        return Err(Error::invalid("sample", args.sample, format!("0 to {}", count - 1)));
    }
    let (judge, note) = open_judge(&asked.judge, &task)?;
    let measured = measure(&task, judge, &ranks, asked.quiet)?;
    let mut rows = data::rows(&solvers, &measured);
    for (row, seconds) in rows.iter_mut().zip(times::of(&task)?) {
        row.seconds = seconds.unwrap_or(row.seconds);
    }
    let truth = rows.pop().ok_or_else(|| Error::State("the ground truth was not measured".into()))?;
    let shown = data::shown(&rows, args.nfe);
    let settings = Settings::new(&args, &task, count)?;
    let trace = trace::of(&task, &shown, args.sample)?;
    let report = Report {
        settings,
        note,
        distances: measured.distances.clone(),
        ground_truth: truth,
        knots: knots::of(&solvers, &rows.iter().map(label).collect::<Vec<_>>(), &card.gaussian_path()?)?,
        paths: trace.paths,
        training: data::training(&solvers, &rows),
        shown: shown.clone(),
        results: rows,
    };
    // The first batch is of the first size.
    let cards = [0, task.conditioning.size_of(args.sample)].map(|size| task.conditioning.card(card, size));
    let pictures = pictures::of(&cards, &measured.first, &report, &trace.states)?;
    write(&args.out, &stem, &report, &pictures)?;
    if !asked.quiet {
        let (page, stem) = (args.out.display(), stem.display());
        note!("{page}, {stem}.json, {stem}.csv and {stem}-plots/ written");
    }
    Ok(())
}

/// The page's path without its extension.
fn stem(out: &Path) -> Result<PathBuf> {
    match (out.file_stem(), out.extension()) {
        (Some(_), Some(extension)) if extension == "html" => Ok(out.with_extension("")),
        _ => Err(Error::invalid("out", out.display(), "a file name that ends in .html")),
    }
}

/// The network that judges samples; where the card's own cannot run here, a note that says so.
fn open_judge(args: &JudgeArgs, task: &Task) -> Result<(Option<Judge>, Option<String>)> {
    let (card, asked) = (task.model.card(), args.features.is_some() || args.data.is_some());
    if task.conditioning.sizes() > 1 && !asked {
        return Ok((None, Some("No Fréchet distance: the samples are of several sizes.".into())));
    }
    let Some(features) = args.card(card) else {
        let note = "No Fréchet distance: the model's card names no feature card, and --features was not given.";
        return Ok((None, Some(note.into())));
    };
    arrays::one_size("features, data", &task.conditioning)?;
    match args.open(&features, card, task.device, &Ranks::alone()) {
        Err(Error::Unsupported(reason)) if !asked => Ok((None, Some(format!("No Fréchet distance: {reason}.")))),
        other => other.map(|judge| (Some(judge), None)),
    }
}

/// Everything is made before anything is written; the page comes last.
fn write(out: &Path, stem: &Path, report: &Report, pictures: &[pictures::Drawn]) -> Result<()> {
    let charts = charts::all(report);
    let beside = |end: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let folder = beside("-plots");
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for chart in &charts {
        files.push((folder.join(format!("{}.svg", chart.name)), draw::svg_file(chart)?.into_bytes()));
        files.push((folder.join(format!("{}.png", chart.name)), draw::png(chart)?));
        files.push((folder.join(format!("{}.csv", chart.name)), chart.csv().into_bytes()));
    }
    for picture in pictures {
        files.push((folder.join(format!("{}.png", picture.name)), picture.png.clone()));
    }
    files.push((beside(".json"), document::text(report, "report")?.into_bytes()));
    files.push((beside(".csv"), data::table(report).into_bytes()));
    files.push((out.to_owned(), page::html(report, &charts, pictures)?.into_bytes()));
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    files.iter().try_for_each(|(path, bytes)| output::write_bytes(path, bytes))
}

/// Names of rows, for whoever shows them.
fn label(row: &SolverFigures) -> String {
    if row.solver == "gt" { "ground truth".into() } else { format!("{}@{}", row.curve, row.nfe) }
}
