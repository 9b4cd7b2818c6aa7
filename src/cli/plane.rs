//! Samples that are points in the plane, as scatter plots.

use super::font;
use bespoke::{Error, Result};
use image::RgbImage;
use plotters::prelude::*;
use std::ops::Range;

/// One plot of several side by side.
pub struct Panel<'a> {
    pub title: String,
    /// Drawn: x and y by turns.
    pub points: &'a [f32],
    /// Where the same points are of another solver, such as the ground truth; each is joined with its own.
    pub others: &'a [f32],
    /// Whether they are one path, from the first to the last.
    pub joined: bool,
}

/// Width and height of a panel in pixels.
const SIDE: u32 = 420;
/// Panels in a row at most.
const COLUMNS: usize = 3;
const POINT: RGBColor = RGBColor(0x2f, 0x6f, 0xde);
const OTHER: RGBColor = RGBColor(0x8c, 0x95, 0x9f);
const FAINT: RGBColor = RGBColor(0xe4, 0xe8, 0xec);

/// All panels, on the same axes; these show `range` and whatever points lie outside.
pub fn draw(panels: &[Panel], range: [f64; 2]) -> Result<RgbImage> {
    font::register()?;
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(columns);
    let (width, height) = (SIDE * columns as u32, SIDE * rows as u32);
    let mut pixels = vec![255; width as usize * height as usize * 3];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        let range = extent(panels, range);
        let areas = root.split_evenly((rows, columns));
        panels
            .iter()
            .zip(&areas)
            .try_for_each(|(panel, area)| draw_panel(area, panel, range.clone()))
            .map_err(failed)?;
        root.present().map_err(failed)?;
    }
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::State("a scatter plot has no pixels".into()))
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::State(format!("a scatter plot cannot be drawn: {e}"))
}

/// The same for both axes, so that a circle is one.
fn extent(panels: &[Panel], [low, high]: [f64; 2]) -> Range<f64> {
    let values = panels.iter().flat_map(|panel| panel.points.iter().chain(panel.others)).filter(|v| v.is_finite());
    let (low, high) = values.fold((low, high), |(low, high), v| (low.min(f64::from(*v)), high.max(f64::from(*v))));
    let room = 0.05 * (high - low);
    low - room..high + room
}

fn pairs(values: &[f32]) -> Vec<(f64, f64)> {
    values.as_chunks().0.iter().map(|[x, y]| (f64::from(*x), f64::from(*y))).collect()
}

fn draw_panel<DB: DrawingBackend>(
    area: &DrawingArea<DB, plotters::coord::Shift>,
    panel: &Panel,
    range: Range<f64>,
) -> std::result::Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (font::FAMILY, 18))
        .margin(12)
        .x_label_area_size(26)
        .y_label_area_size(40)
        .build_cartesian_2d(range.clone(), range)?;
    let mesh = (font::FAMILY, 14);
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .label_style(mesh)
        .max_light_lines(1)
        .bold_line_style(FAINT)
        .draw()?;
    let (points, others) = (pairs(panel.points), pairs(panel.others));
    if panel.joined {
        chart.draw_series([PathElement::new(points.clone(), OTHER)])?;
    }
    chart.draw_series(points.iter().zip(&others).map(|(a, b)| PathElement::new([*a, *b], OTHER)))?;
    chart.draw_series(others.iter().map(|at| Circle::new(*at, 2, OTHER.filled())))?;
    chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, POINT.mix(0.7).filled())))?;
    Ok(())
}
