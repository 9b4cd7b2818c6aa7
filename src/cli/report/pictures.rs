//! Samples and paths as PNG pictures.

use super::super::picture;
use super::data::Report;
use bespoke::card::Card;
use bespoke::{Error, Result};

/// What a picture shows.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Samples,
    Difference,
    Path,
}

pub struct Drawn {
    /// File name without extension.
    pub name: String,
    pub kind: Kind,
    /// Whose: "ground truth" or a solver.
    pub label: String,
    /// Times of a path's states.
    pub times: Vec<f64>,
    pub png: Vec<u8>,
}

/// Samples of each shown solver in a picture.
const SAMPLES: usize = 10;

/// `first` has the ground truth's samples and then every solver's, `states` the shown solvers' only; the `cards` are
/// of the former's and of the latter's size. Samples that are no pictures have none.
pub fn of(
    [card, traced]: &[Card; 2],
    first: &[Vec<f32>],
    report: &Report,
    states: &[Vec<(f64, Vec<f32>)>],
) -> Result<Vec<Drawn>> {
    let elements: usize = card.sample_shape()?.iter().product();
    let ten = |samples: &[f32]| samples[..samples.len().min(SAMPLES * elements)].to_vec();
    let mut drawn = Vec::new();
    let mut add = |kind: Kind, index: usize, label: &str, times: Vec<f64>, picture: picture::Picture| {
        let what = match kind {
            Kind::Samples => "samples",
            Kind::Difference => "difference",
            Kind::Path => "path",
        };
        let name = if index == 0 { format!("{what}-gt") } else { format!("{what}-{index}") };
        drawn.push(Drawn { name, kind, label: label.to_owned(), times, png: picture.png()? });
        Ok::<_, Error>(())
    };
    let truth = ten(&first[0]);
    match picture::grid(card, &truth) {
        Err(Error::Invalid { .. }) => return Ok(Vec::new()),
        other => add(Kind::Samples, 0, "ground truth", Vec::new(), other?)?,
    }
    for (i, &result) in report.shown.iter().enumerate() {
        let (label, samples) = (super::label(&report.results[result]), ten(&first[result + 1]));
        add(Kind::Samples, i + 1, &label, Vec::new(), picture::grid(card, &samples)?)?;
        add(Kind::Difference, i + 1, &label, Vec::new(), picture::difference(card, &samples, &truth)?)?;
    }
    for (i, path) in states.iter().enumerate() {
        let label = match i {
            0 => "ground truth".into(),
            _ => super::label(&report.results[report.paths[i - 1].result]),
        };
        let values: Vec<f32> = path.iter().flat_map(|(_, x)| x.iter().copied()).collect();
        let times = path.iter().map(|(t, _)| *t).collect();
        add(Kind::Path, i, &label, times, picture::strip(traced, &values)?)?;
    }
    Ok(drawn)
}
