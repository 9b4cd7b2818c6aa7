//! Charts as SVG and PNG. Curves differ in colour, marker and dash, so that none is needed alone.

use super::chart::{Chart, Ends, Series, written};
use crate::cli::font;
use bespoke::{Error, Result};
use image::{ImageFormat, RgbImage};
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange, LogCoord, WithKeyPoints};
use plotters::coord::ranged1d::{AsRangedCoord, DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::coord::{CoordTranslate, Shift};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// Ink, faint lines and paper of SVG files; style sheets turn them over where the reader's screen is dark.
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const FAINT: RGBColor = RGBColor(0xd1, 0xd9, 0xe0);

/// What turns a chart's colours over on a dark screen; `scope` is put before each rule.
pub fn dark_style(scope: &str) -> String {
    format!(
        "{scope}[fill=\"#1F2328\"]{{fill:#e6edf3}}{scope}[stroke=\"#1F2328\"]{{stroke:#e6edf3}}\
         {scope}[stroke=\"#D1D9E0\"]{{stroke:#3d444d}}"
    )
}

/// Readable on white and on near-black alike: contrast 3:1 or more with either.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x2f, 0x6f, 0xde),
    RGBColor(0xc2, 0x57, 0x0c),
    RGBColor(0x1a, 0x7f, 0x37),
    RGBColor(0x82, 0x50, 0xdf),
    RGBColor(0xcf, 0x22, 0x2e),
    RGBColor(0x0e, 0x74, 0x90),
    RGBColor(0xbf, 0x39, 0x89),
    RGBColor(0x7d, 0x5a, 0x2b),
];
/// Lengths of dash and gap, in pixels; none for a whole line.
const DASHES: [Option<(i32, i32)>; 5] = [None, Some((9, 4)), Some((3, 3)), Some((15, 5)), Some((5, 3))];
const LEVEL_DASH: Option<(i32, i32)> = Some((2, 4));
const MARKERS: usize = 7;

/// Of the whole, without the legend.
const WIDTH: i32 = 560;
const HEIGHT: i32 = 380;
const TEXT: i32 = 15;
const LEGEND_ROW: i32 = 22;

type Failed<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;

/// Height of a chart with its legend.
fn height(chart: &Chart) -> i32 {
    HEIGHT + legend(chart).len().div_ceil(legend_columns(chart)) as i32 * LEGEND_ROW + 8
}

/// An SVG picture without style sheet or background: a part of a page.
pub fn svg(chart: &Chart) -> Result<String> {
    font::register()?;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH as u32, height(chart) as u32)).into_drawing_area();
        draw(&root, chart, 1)
            .and_then(|()| root.present())
            .map_err(|e| Error::State(format!("{}: {e}", chart.name)))?;
    }
    Ok(text)
}

/// An SVG file, which follows the reader's screen.
pub fn svg_file(chart: &Chart) -> Result<String> {
    let style = format!(
        "<style>svg{{background:#fff}}@media (prefers-color-scheme:dark){{svg{{background:#0d1117}}{}}}</style>",
        dark_style("")
    );
    let text = svg(chart)?;
    let end = text.find('>').map_or(0, |end| end + 1);
    Ok(format!("{}{style}{}", &text[..end], &text[end..]))
}

/// A PNG file of twice the size, on white.
pub fn png(chart: &Chart) -> Result<Vec<u8>> {
    const SCALE: i32 = 2;
    font::register()?;
    let failed = |e: &dyn std::fmt::Display| Error::State(format!("{}: {e}", chart.name));
    let (width, height) = ((WIDTH * SCALE) as u32, (height(chart) * SCALE) as u32);
    let mut pixels = vec![255; (3 * width * height) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        draw(&root, chart, SCALE).and_then(|()| root.present()).map_err(|e| failed(&e))?;
    }
    let image = RgbImage::from_raw(width, height, pixels).ok_or_else(|| failed(&"no pixels"))?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(|e| failed(&e))?;
    Ok(bytes.into_inner())
}

/// An axis of either kind, as plotters takes it.
pub enum Scale {
    Linear(RangedCoordf64),
    Log(WithKeyPoints<LogCoord<f64>>),
}

impl From<Ends> for Scale {
    fn from(ends: Ends) -> Self {
        let range = ends.low..ends.high;
        if ends.log {
            // Plotters' own ticks are powers of ten, of which a short axis has none.
            Scale::Log(range.log_scale().with_key_points(ends.log_ticks()))
        } else {
            Scale::Linear(range.into())
        }
    }
}

impl AsRangedCoord for Ends {
    type CoordDescType = Scale;
    type Value = f64;
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        match self {
            Scale::Linear(scale) => scale.map(value, limit),
            Scale::Log(scale) => scale.map(value, limit),
        }
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self {
            Scale::Linear(scale) => scale.key_points(hint),
            Scale::Log(scale) => scale.key_points(hint),
        }
    }

    fn range(&self) -> Range<f64> {
        match self {
            Scale::Linear(scale) => scale.range(),
            Scale::Log(scale) => scale.range(),
        }
    }
}

/// `scale`: pixels that make one of ours.
fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, chart: &Chart, scale: i32) -> Result<(), Failed<DB>> {
    let pen = Pen { scale };
    let (upper, lower) = area.split_vertically(HEIGHT * scale);
    let (x, y) = chart.ends();
    let mut context = ChartBuilder::on(&upper)
        .caption(chart.title, pen.font(TEXT + 2))
        .margin(8 * scale)
        .x_label_area_size(46 * scale)
        .y_label_area_size(68 * scale)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .x_desc(chart.x.label)
        .y_desc(chart.y.label)
        .axis_desc_style(pen.font(TEXT))
        .label_style(pen.font(TEXT - 1))
        .x_label_formatter(&|v| written(*v))
        .y_label_formatter(&|v| written(*v))
        .x_labels(7)
        .y_labels(7)
        .max_light_lines(1)
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT.stroke_width(scale as u32))
        .axis_style(INK.stroke_width(scale as u32))
        .set_all_tick_mark_size(4 * scale)
        .draw()?;
    for (_, level) in chart.levels.iter().filter(|(_, level)| (y.low..=y.high).contains(level)) {
        pen.line(context.plotting_area(), vec![(x.low, *level), (x.high, *level)], LEVEL_DASH, INK)?;
    }
    for series in &chart.series {
        for part in chart.inside(&series.points) {
            pen.line(context.plotting_area(), part, series.dash(), series.colour())?;
        }
        let seen = |(_, at): &&(f64, f64)| y.place(*at).is_some_and(|place| (-0.001..=1.001).contains(&place));
        for point in series.points.iter().filter(|_| series.markers).filter(seen) {
            pen.marker(context.plotting_area(), *point, series)?;
        }
    }
    pen.legend(&lower, chart)
}

impl Series {
    fn colour(&self) -> RGBColor {
        COLOURS[self.style % COLOURS.len()]
    }

    fn dash(&self) -> Option<(i32, i32)> {
        DASHES[self.style % DASHES.len()]
    }
}

/// Draws in our pixels, wherever an element's coordinates are from.
struct Pen {
    scale: i32,
}

impl Pen {
    fn font(&self, size: i32) -> TextStyle<'static> {
        (font::FAMILY, size * self.scale).into_font().color(&INK)
    }

    fn line<DB: DrawingBackend, C: CoordTranslate>(
        &self,
        area: &DrawingArea<DB, C>,
        points: Vec<C::From>,
        dash: Option<(i32, i32)>,
        colour: RGBColor,
    ) -> Result<(), Failed<DB>>
    where
        C::From: Clone,
    {
        let style = colour.stroke_width(2 * self.scale as u32);
        match dash {
            None => area.draw(&PathElement::new(points, style)),
            Some((line, gap)) => area.draw(&DashedPathElement::new(points, line * self.scale, gap * self.scale, style)),
        }
    }

    fn marker<DB: DrawingBackend, C: CoordTranslate>(
        &self,
        area: &DrawingArea<DB, C>,
        at: C::From,
        series: &Series,
    ) -> Result<(), Failed<DB>>
    where
        C::From: Clone,
    {
        const SIZE: f64 = 5.0;
        let colour = series.colour();
        let place = |(x, y): &(f64, f64)| {
            let size = SIZE * f64::from(self.scale);
            ((x * size).round() as i32, (y * size).round() as i32)
        };
        let polygon = |corners: &[(f64, f64)]| {
            let corners: Vec<(i32, i32)> = corners.iter().map(place).collect();
            area.draw(&(EmptyElement::at(at.clone()) + Polygon::new(corners, colour.filled())))
        };
        let cross = |strokes: [[(f64, f64); 2]; 2]| {
            let [a, b] = strokes
                .map(|ends| PathElement::new(ends.map(|end| place(&end)), colour.stroke_width(2 * self.scale as u32)));
            area.draw(&(EmptyElement::at(at.clone()) + a + b))
        };
        match series.style % MARKERS {
            0 => {
                let radius = (SIZE * f64::from(self.scale)) as i32;
                area.draw(&(EmptyElement::at(at.clone()) + Circle::new((0, 0), radius, colour.filled())))
            }
            1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            2 => polygon(&[(0.0, -1.2), (1.1, 0.9), (-1.1, 0.9)]),
            3 => polygon(&[(0.0, -1.3), (1.1, 0.0), (0.0, 1.3), (-1.1, 0.0)]),
            4 => cross([[(-1.0, -1.0), (1.0, 1.0)], [(-1.0, 1.0), (1.0, -1.0)]]),
            5 => polygon(&[(0.0, 1.2), (1.1, -0.9), (-1.1, -0.9)]),
            _ => cross([[(-1.1, 0.0), (1.1, 0.0)], [(0.0, -1.1), (0.0, 1.1)]]),
        }
    }

    /// Below the chart, where it hides no curve: plotters puts its own legend onto the chart.
    fn legend<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>, chart: &Chart) -> Result<(), Failed<DB>> {
        let columns = legend_columns(chart) as i32;
        let (width, scale) = ((WIDTH - 16) / columns, self.scale);
        for (i, entry) in legend(chart).into_iter().enumerate() {
            let (column, row) = (i as i32 % columns, i as i32 / columns);
            let (x, y) = ((12 + column * width) * scale, (12 + row * LEGEND_ROW) * scale);
            let line = vec![(x, y), (x + 34 * scale, y)];
            match entry {
                Entry::Level(_) => self.line(area, line, LEVEL_DASH, INK)?,
                Entry::Series(series) => {
                    self.line(area, line, series.dash(), series.colour())?;
                    if series.markers {
                        self.marker(area, (x + 17 * scale, y), series)?;
                    }
                }
            }
            let longest = if columns == 1 { 60 } else { LONGEST_BESIDE };
            let style = self.font(TEXT - 1).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(shortened(entry.label(), longest), (x + 42 * scale, y), style))?;
        }
        Ok(())
    }
}

enum Entry<'a> {
    Series(&'a Series),
    Level(&'a str),
}

impl Entry<'_> {
    fn label(&self) -> &str {
        match self {
            Entry::Series(series) => &series.label,
            Entry::Level(label) => label,
        }
    }
}

fn legend(chart: &Chart) -> Vec<Entry<'_>> {
    let series = chart.series.iter().filter(|series| !series.points.is_empty()).map(Entry::Series);
    series.chain(chart.levels.iter().map(|(label, _)| Entry::Level(label))).collect()
}

/// Labels longer than this have a row to themselves.
const LONGEST_BESIDE: usize = 30;

fn legend_columns(chart: &Chart) -> usize {
    if legend(chart).iter().all(|entry| entry.label().chars().count() <= LONGEST_BESIDE) { 2 } else { 1 }
}

fn shortened(text: &str, longest: usize) -> String {
    let count = text.chars().count();
    if count <= longest {
        return text.to_owned();
    }
    let half = (longest - 1) / 2;
    let (head, tail): (String, String) = (text.chars().take(half).collect(), text.chars().skip(count - half).collect());
    format!("{head}…{tail}")
}
