//! The page: one file without a script, and with nothing that is loaded from elsewhere.

use super::super::picture::MAGNIFIED;
use super::chart::Chart;
use super::data::{Report, SolverFigures};
use super::pictures::{Drawn, Kind};
use super::{draw, label};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bespoke::Result;
use serde_json::Value;

const STYLE: &str = include_str!("page.css");

/// All of it.
pub fn html(report: &Report, charts: &[Chart], pictures: &[Drawn]) -> Result<String> {
    let title = format!("Solvers of {}", escaped(&report.settings.model));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}@media (prefers-color-scheme:dark){{{}}}\n</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n",
        draw::dark_style("figure svg ")
    );
    page += &introduction(report);
    page += &table(report);
    let chart = |names: &[&str]| -> Result<String> {
        let found = charts.iter().filter(|chart| names.contains(&chart.name));
        let figures = found.map(figure).collect::<Result<String>>()?;
        Ok(if figures.is_empty() { figures } else { format!("<div class=\"charts\">\n{figures}</div>\n") })
    };
    page += "<h2>Against the number of evaluations</h2>\n";
    page += &chart(&["rmse", "psnr", "frechet-data", "frechet-gt", "precision", "recall", "seconds"])?;
    page += &samples(pictures);
    page += "<h2>Not only the mean</h2>\n";
    page += &quantiles(report);
    page += &chart(&["errors"])?;
    page += &format!("<h2>The path of sample {}</h2>\n", report.settings.sample);
    page += &path_pictures(pictures);
    page += &chart(&["path"])?;
    let knots = chart(&["t", "t-dot", "s", "s-dot"])?;
    if !knots.is_empty() {
        page += "<h2>What was learned</h2>\n<p>A Bespoke solver steps along x&#772;(r) = s(r) x(t(r)). The base solver \
                 has t = r and s = 1; DDIM and EDM are transformations of the same kind, chosen by hand. Markers are \
                 knots; a curve that leaves the picture goes on outside it. A solver of family ns is a table: it has \
                 times, and no scale.</p>\n";
        page += &knots;
    }
    page += &training(report, &chart(&["training"])?);
    page += &format!(
        "</main>\n<footer>Made by bespoke {}. All numbers are in the JSON and CSV files beside this page.</footer>\n\
         </body>\n</html>\n",
        report.settings.version
    );
    Ok(page)
}

fn introduction(report: &Report) -> String {
    let settings = &report.settings;
    let tolerance = settings.tolerance;
    let mut facts = vec![
        ("model", settings.model.clone()),
        ("samples", format!("{}, each of shape {}", settings.count, settings.shape)),
        ("scheduler", format!("{}, up to t = {}", settings.scheduler.name(), settings.end)),
        ("network computed in", settings.dtype.to_string()),
        (
            "ground truth",
            format!(
                "adaptive RK45, rtol {:e}, atol {:e}, {:.0} evaluations",
                tolerance.rtol, tolerance.atol, report.ground_truth.nfe
            ),
        ),
    ];
    facts.extend(settings.seed.map(|seed| ("seed", seed.to_string())));
    facts.extend(settings.guidance_scale.as_ref().map(|scale| ("guidance scale", scale.to_string())));
    facts.extend(settings.class.map(|class| ("class", class.to_string())));
    facts.extend(settings.path.as_ref().map(|path| ("path of published solvers", path.clone())));
    if let Some(found) = &report.distances {
        let data = found.data_count.map_or(String::new(), |count| format!(", against {count} samples of data"));
        facts.push(("features", format!("{}{data}", found.features)));
    }
    let rows: String =
        facts.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(value))).collect();
    let note = report.note.as_ref().map_or(String::new(), |note| format!("<p>{}</p>\n", escaped(note)));
    format!(
        "<p>Every solver starts from the same noises; errors are against the ground truth of those noises.</p>\n\
         <dl>\n{rows}</dl>\n{note}"
    )
}

fn table(report: &Report) -> String {
    let rows = || report.results.iter().chain([&report.ground_truth]);
    let to_truth = rows().any(|row| row.distances.is_some());
    let to_data = rows().any(|row| row.distances.is_some_and(|found| found.to_data.is_some()));
    let mut heads = vec!["solver", "nfe", "forward passes", "rmse", "psnr (dB)"];
    heads.extend(to_data.then_some(["Fréchet to data", "precision", "recall"]).into_iter().flatten());
    heads.extend(to_truth.then_some("Fréchet to ground truth"));
    heads.push("ms a sample");
    let line = |row: &SolverFigures| {
        let mut cells = vec![number(row.nfe), number(row.passes), fixed(row.rmse, 6), fixed(row.psnr, 2)];
        if to_data {
            let data = row.distances.and_then(|found| found.to_data);
            let shares = data.and_then(|data| data.precision_recall);
            let optional = |value: Option<f64>, digits| value.map_or("–".into(), |value| fixed(value, digits));
            cells.push(optional(data.map(|data| data.frechet), 5));
            cells.push(optional(shares.map(|shares| shares.precision), 3));
            cells.push(optional(shares.map(|shares| shares.recall), 3));
        }
        if to_truth {
            cells.push(row.distances.map_or("–".into(), |found| fixed(found.to_ground_truth.frechet, 6)));
        }
        cells.push(fixed(row.seconds * 1e3, 3));
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr><th scope=\"row\" title=\"{}\">{}</th>{cells}</tr>\n", escaped(&row.solver), escaped(&label(row)))
    };
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let lines: String = rows().map(line).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n\
         <p class=\"small\">The row of the ground truth is its own distance from a solve of a hundredth of its \
         tolerance. Time is wall-clock, of this machine, in batches.</p>\n"
    )
}

fn quantiles(report: &Report) -> String {
    let line = |row: &SolverFigures| {
        let cells: String = row.quantiles.iter().map(|q| format!("<td>{}</td>", fixed(*q, 6))).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escaped(&label(row)))
    };
    let lines: String = report.results.iter().chain([&report.ground_truth]).map(line).collect();
    format!(
        "<p>The rmse of single samples: quantiles.</p>\n<div class=\"scroll\"><table>\n<thead><tr>\
         <th scope=\"col\">solver</th><th scope=\"col\">least</th><th scope=\"col\">5 %</th><th scope=\"col\">25 %</th>\
         <th scope=\"col\">median</th><th scope=\"col\">75 %</th><th scope=\"col\">95 %</th>\
         <th scope=\"col\">greatest</th></tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n"
    )
}

fn figure(chart: &Chart) -> Result<String> {
    let svg = draw::svg(chart)?;
    let described = format!(
        "<svg role=\"img\" aria-label=\"{}: {} against {}\"",
        escaped(chart.title),
        escaped(chart.y.label),
        escaped(chart.x.label)
    );
    Ok(format!("<figure>{}</figure>\n", svg.replacen("<svg", &described, 1)))
}

fn image(drawn: &Drawn, what: &str) -> String {
    format!(
        "<img alt=\"{what}: {}\" src=\"data:image/png;base64,{}\">",
        escaped(&drawn.label),
        STANDARD.encode(&drawn.png)
    )
}

fn samples(pictures: &[Drawn]) -> String {
    let Some(truth) = pictures.iter().find(|drawn| drawn.kind == Kind::Samples) else { return String::new() };
    let mut text = format!(
        "<h2>Samples of the same noises</h2>\n<p>Of each solver the samples, and their difference from the ground \
         truth's, {MAGNIFIED} times as large: grey is no difference.</p>\n\
         <figure class=\"samples\"><figcaption>ground truth</figcaption>{}</figure>\n",
        image(truth, "samples")
    );
    for drawn in pictures.iter().filter(|drawn| drawn.kind == Kind::Samples).skip(1) {
        let difference = pictures.iter().find(|other| other.kind == Kind::Difference && other.label == drawn.label);
        text += &format!(
            "<figure class=\"samples\"><figcaption>{}</figcaption>{}{}</figure>\n",
            escaped(&drawn.label),
            image(drawn, "samples"),
            difference.map_or(String::new(), |other| image(other, "difference"))
        );
    }
    text
}

fn path_pictures(pictures: &[Drawn]) -> String {
    let of = |drawn: &Drawn| {
        let times: Vec<String> = drawn.times.iter().map(|t| format!("{t:.2}")).collect();
        format!(
            "<figure class=\"samples\"><figcaption>{}, at t = {}</figcaption>{}</figure>\n",
            escaped(&drawn.label),
            times.join(", "),
            image(drawn, "path")
        )
    };
    let figures: String = pictures.iter().filter(|drawn| drawn.kind == Kind::Path).map(of).collect();
    if figures.is_empty() {
        return String::new();
    }
    format!("<p>From noise to data, at the ends of the solver's steps.</p>\n{figures}")
}

fn training(report: &Report, chart: &str) -> String {
    if report.training.is_empty() {
        return String::new();
    }
    let mut text = format!("<h2>Training</h2>\n{chart}");
    for training in &report.training {
        let mut rows = String::new();
        for (key, value) in training.training.0.iter().filter(|(key, _)| *key != "log") {
            rows += &format!("<dt>{}</dt><dd>{}</dd>\n", escaped(key), escaped(&plain(value)));
        }
        text += &format!(
            "<details><summary>{}@{} ({})</summary>\n<dl>\n{rows}</dl></details>\n",
            escaped(&training.curve),
            training.nfe,
            escaped(&training.solver)
        );
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// As few digits as it takes.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn fixed(value: f64, digits: usize) -> String {
    if value != 0.0 && value.abs() < 0.5 * 0.1f64.powi(digits as i32 - 1) {
        format!("{value:.1e}")
    } else {
        format!("{value:.digits$}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
