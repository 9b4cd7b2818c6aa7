//! Charts as SVG and PNG. Curves differ in colour, marker and dash, so that none is needed alone.

use super::chart::{Chart, Scale, Series};
use bespoke::{Error, Result};
use image::{ImageFormat, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::sync::OnceLock;

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
/// Lengths of line and gap, in pixels; none for a whole line.
const DASHES: [&[f64]; 5] = [&[], &[9.0, 4.0], &[2.5, 3.0], &[10.0, 3.0, 2.5, 3.0], &[5.0, 3.0]];
const LEVEL_DASH: &[f64] = &[1.5, 4.0];
const MARKERS: usize = 7;

/// Of the whole, without the legend.
const WIDTH: i32 = 560;
const HEIGHT: i32 = 380;
const LEFT: i32 = 66;
const RIGHT: i32 = 16;
const TOP: i32 = 56;
const BOTTOM: i32 = 48;
const TEXT: i32 = 15;
const LEGEND_ROW: i32 = 22;

type Failed<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;

/// The letters of PNG files, which have no reader's fonts.
fn register() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let font = include_bytes!("../../../assets/DejaVuSans-subset.ttf");
    let good = REGISTERED.get_or_init(|| register_font("sans-serif", FontStyle::Normal, font).is_ok());
    if *good { Ok(()) } else { Err(Error::State("the font of the plots cannot be read".into())) }
}

/// Height of a chart with its legend.
fn height(chart: &Chart) -> i32 {
    HEIGHT + legend(chart).len().div_ceil(legend_columns(chart)) as i32 * LEGEND_ROW + 8
}

/// An SVG picture without style sheet or background: a part of a page.
pub fn svg(chart: &Chart) -> Result<String> {
    register()?;
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
    register()?;
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

/// A drawing area and how many of its pixels make one of ours.
struct Canvas<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    scale: i32,
}

fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, chart: &Chart, scale: i32) -> Result<(), Failed<DB>> {
    let canvas = Canvas { area, scale };
    canvas.text(LEFT, 8, chart.title, HPos::Left, VPos::Top, TEXT + 2)?;
    canvas.text(LEFT, TOP - 8, chart.y.label, HPos::Left, VPos::Bottom, TEXT)?;
    canvas.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, chart.x.label, HPos::Center, VPos::Bottom, TEXT)?;
    let (x, y) = chart.scales();
    canvas.axes(&x, &y)?;
    for (_, level) in &chart.levels {
        if let Some(at) = y.place(*level).filter(|at| (0.0..=1.0).contains(at)) {
            let row = row_of(at);
            canvas.dashed(&[(f64::from(LEFT), row), (f64::from(WIDTH - RIGHT), row)], LEVEL_DASH, INK)?;
        }
    }
    for series in &chart.series {
        canvas.series(series, &x, &y)?;
    }
    canvas.legend(chart)
}

fn column_of(at: f64) -> f64 {
    f64::from(LEFT) + at * f64::from(WIDTH - RIGHT - LEFT)
}

fn row_of(at: f64) -> f64 {
    f64::from(HEIGHT - BOTTOM) - at * f64::from(HEIGHT - BOTTOM - TOP)
}

impl<DB: DrawingBackend> Canvas<'_, DB> {
    fn pixel(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * f64::from(self.scale)).round() as i32, (y * f64::from(self.scale)).round() as i32)
    }

    fn text(&self, x: i32, y: i32, text: &str, h: HPos, v: VPos, size: i32) -> Result<(), Failed<DB>> {
        let style = ("sans-serif", size * self.scale).into_font().color(&INK).pos(Pos::new(h, v));
        self.area.draw(&Text::new(text.to_owned(), (x * self.scale, y * self.scale), style))
    }

    fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: u32) -> Result<(), Failed<DB>> {
        let points: Vec<(i32, i32)> = points.iter().map(|p| self.pixel(*p)).collect();
        self.area.draw(&PathElement::new(points, colour.stroke_width(width * self.scale as u32)))
    }

    fn axes(&self, x: &Scale, y: &Scale) -> Result<(), Failed<DB>> {
        let (left, right, top, bottom) = (LEFT.into(), (WIDTH - RIGHT).into(), TOP.into(), (HEIGHT - BOTTOM).into());
        for (value, label) in x.ticks() {
            let Some(at) = x.place(value).map(column_of) else { continue };
            self.line(&[(at, top), (at, bottom)], FAINT, 1)?;
            self.text(at as i32, HEIGHT - BOTTOM + 5, &label, HPos::Center, VPos::Top, TEXT - 1)?;
        }
        for (value, label) in y.ticks() {
            let Some(at) = y.place(value).map(row_of) else { continue };
            self.line(&[(left, at), (right, at)], FAINT, 1)?;
            self.text(LEFT - 6, at as i32, &label, HPos::Right, VPos::Center, TEXT - 1)?;
        }
        self.line(&[(left, top), (left, bottom), (right, bottom)], INK, 1)
    }

    fn series(&self, series: &Series, x: &Scale, y: &Scale) -> Result<(), Failed<DB>> {
        let places: Vec<(f64, f64)> =
            series.points.iter().filter_map(|p| Some((x.place(p.0)?, y.place(p.1)?))).collect();
        let colour = COLOURS[series.style % COLOURS.len()];
        for part in inside(&places) {
            let part: Vec<(f64, f64)> = part.into_iter().map(|(x, y)| (column_of(x), row_of(y))).collect();
            self.dashed(&part, DASHES[series.style % DASHES.len()], colour)?;
        }
        for (x, y) in places.into_iter().filter(|(_, y)| series.markers && (-0.001..=1.001).contains(y)) {
            self.marker((column_of(x), row_of(y)), series.style, colour)?;
        }
        Ok(())
    }

    /// A line along `points`, as dashes and gaps of the `pattern`.
    fn dashed(&self, points: &[(f64, f64)], pattern: &[f64], colour: RGBColor) -> Result<(), Failed<DB>> {
        if pattern.is_empty() {
            return self.line(points, colour, 2);
        }
        let Some(first) = points.first() else { return Ok(()) };
        let (mut index, mut left, mut dash) = (0, pattern[0], vec![*first]);
        for pair in points.windows(2) {
            let ((mut x, mut y), (to_x, to_y)) = (pair[0], pair[1]);
            loop {
                let length = (to_x - x).hypot(to_y - y);
                let drawn = index % 2 == 0;
                if length <= left {
                    left -= length;
                    if drawn {
                        dash.push((to_x, to_y));
                    }
                    break;
                }
                (x, y) = (x + (to_x - x) * left / length, y + (to_y - y) * left / length);
                if drawn {
                    dash.push((x, y));
                    self.line(&std::mem::take(&mut dash), colour, 2)?;
                } else {
                    dash = vec![(x, y)];
                }
                index = (index + 1) % (2 * pattern.len().div_ceil(2));
                left = pattern[index % pattern.len()];
            }
        }
        if dash.len() > 1 { self.line(&dash, colour, 2) } else { Ok(()) }
    }

    fn marker(&self, (x, y): (f64, f64), style: usize, colour: RGBColor) -> Result<(), Failed<DB>> {
        const SIZE: f64 = 5.0;
        let polygon = |corners: &[(f64, f64)]| {
            let points: Vec<(i32, i32)> =
                corners.iter().map(|(dx, dy)| self.pixel((x + dx * SIZE, y + dy * SIZE))).collect();
            self.area.draw(&Polygon::new(points, colour.filled()))
        };
        let stroke = |from: (f64, f64), to: (f64, f64)| {
            self.line(&[(x + from.0 * SIZE, y + from.1 * SIZE), (x + to.0 * SIZE, y + to.1 * SIZE)], colour, 2)
        };
        match style % MARKERS {
            0 => {
                let radius = (SIZE * f64::from(self.scale)) as i32;
                self.area.draw(&Circle::new(self.pixel((x, y)), radius, colour.filled()))
            }
            1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            2 => polygon(&[(0.0, -1.2), (1.1, 0.9), (-1.1, 0.9)]),
            3 => polygon(&[(0.0, -1.3), (1.1, 0.0), (0.0, 1.3), (-1.1, 0.0)]),
            4 => stroke((-1.0, -1.0), (1.0, 1.0)).and_then(|()| stroke((-1.0, 1.0), (1.0, -1.0))),
            5 => polygon(&[(0.0, 1.2), (1.1, -0.9), (-1.1, -0.9)]),
            _ => stroke((-1.1, 0.0), (1.1, 0.0)).and_then(|()| stroke((0.0, -1.1), (0.0, 1.1))),
        }
    }

    fn legend(&self, chart: &Chart) -> Result<(), Failed<DB>> {
        let columns = legend_columns(chart) as i32;
        let width = (WIDTH - 16) / columns;
        for (i, entry) in legend(chart).into_iter().enumerate() {
            let (column, row) = (i as i32 % columns, i as i32 / columns);
            let (x, y) = (12 + column * width, HEIGHT + 12 + row * LEGEND_ROW);
            let line = [(f64::from(x), f64::from(y)), (f64::from(x + 34), f64::from(y))];
            match entry {
                Entry::Level(_) => self.dashed(&line, LEVEL_DASH, INK)?,
                Entry::Series(series) => {
                    let colour = COLOURS[series.style % COLOURS.len()];
                    self.dashed(&line, DASHES[series.style % DASHES.len()], colour)?;
                    if series.markers {
                        self.marker((f64::from(x + 17), f64::from(y)), series.style, colour)?;
                    }
                }
            }
            let longest = if columns == 1 { 60 } else { LONGEST_BESIDE };
            self.text(x + 42, y, &shortened(entry.label(), longest), HPos::Left, VPos::Center, TEXT - 1)?;
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

/// The parts of a line that lie between y = 0 and 1.
fn inside(points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
    let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut open = false;
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let cut = |bound: f64| if y1 == y0 { 0.0 } else { ((bound - y0) / (y1 - y0)).clamp(0.0, 1.0) };
        let (a, b) = (cut(0.0), cut(1.0));
        let (from, to) = match (y0 <= y1, (0.0..=1.0).contains(&y0), (0.0..=1.0).contains(&y1)) {
            (_, true, true) => (0.0, 1.0),
            (true, ..) => (if y0 < 0.0 { a } else { 0.0 }, if y1 > 1.0 { b } else { 1.0 }),
            (false, ..) => (if y0 > 1.0 { b } else { 0.0 }, if y1 < 0.0 { a } else { 1.0 }),
        };
        let at = |f: f64| (x0 + f * (x1 - x0), y0 + f * (y1 - y0));
        if from < to && y0.max(y1) >= 0.0 && y0.min(y1) <= 1.0 {
            if !open || from > 0.0 {
                parts.push(vec![at(from)]);
            }
            if let Some(part) = parts.last_mut() {
                part.push(at(to));
            }
            open = to == 1.0;
        } else {
            open = false;
        }
    }
    parts
}
