//! Samples as pictures; points in the plane as scatter plots.

use super::plane::{self, Panel};
use bespoke::card::Card;
use bespoke::{Error, Result, output};
use image::{ImageFormat, Rgb, RgbImage};
use std::io::Cursor;
use std::path::Path;

/// Pixels between samples.
const GAP: usize = 4;
/// Samples smaller than this, in pixels, are enlarged to about it.
const READABLE: usize = 48;
/// By how much differences are enlarged.
pub const MAGNIFIED: f32 = 8.0;
/// Samples side by side in a comparison.
const COMPARED: usize = 10;
const BACKGROUND: Rgb<u8> = Rgb([128, 128, 128]);

/// A picture that can be saved.
pub struct Picture(RgbImage);

impl Picture {
    /// As the bytes of a PNG file.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        let written = self.0.write_to(&mut bytes, ImageFormat::Png);
        written.map_err(|e| Error::State(format!("a picture cannot be written as PNG: {e}")))?;
        Ok(bytes.into_inner())
    }

    /// Writes a PNG file, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        output::write_bytes(path, &self.png()?)
    }
}

/// How samples of a model are drawn.
struct Layout {
    channels: usize,
    height: usize,
    width: usize,
    scale: usize,
    range: [f32; 2],
}

impl Layout {
    fn new(card: &Card) -> Result<Self> {
        let shape = card.sample_shape()?;
        let (channels, height, width) = match shape[..] {
            [channels @ (1 | 3), height, width] => (channels, height, width),
            [height, width] => (1, height, width),
            [elements] => (1, 1, elements),
            _ => {
                let expected = "[1, height, width], [3, height, width], [height, width] or [elements] for a picture";
                return Err(Error::invalid("shape", format!("{shape:?}"), expected));
            }
        };
        let scale = READABLE.div_ceil(height.max(width)).max(1);
        Ok(Self { channels, height, width, scale, range: card.data_range.map(|v| v as f32) })
    }

    fn elements(&self) -> usize {
        self.channels * self.height * self.width
    }

    fn cell(&self) -> (usize, usize) {
        (self.width * self.scale + GAP, self.height * self.scale + GAP)
    }

    fn canvas(&self, columns: usize, rows: usize) -> RgbImage {
        let (width, height) = self.cell();
        RgbImage::from_pixel((columns * width + GAP) as u32, (rows * height + GAP) as u32, BACKGROUND)
    }

    fn draw(&self, canvas: &mut RgbImage, column: usize, row: usize, sample: &[f32]) {
        let (width, height) = self.cell();
        let (left, top) = (GAP + column * width, GAP + row * height);
        let [low, high] = self.range;
        let level = |value: f32| (255.0 * (value - low) / (high - low)).round().clamp(0.0, 255.0) as u8;
        for y in 0..self.height * self.scale {
            for x in 0..self.width * self.scale {
                let at = y / self.scale * self.width + x / self.scale;
                let channel = |c: usize| level(sample[c.min(self.channels - 1) * self.height * self.width + at]);
                canvas.put_pixel((left + x) as u32, (top + y) as u32, Rgb([channel(0), channel(1), channel(2)]));
            }
        }
    }
}

/// Whether samples are points in the plane.
fn in_plane(card: &Card) -> bool {
    card.sample_shape().is_ok_and(|shape| shape == [2])
}

fn scatter(card: &Card, panels: &[Panel]) -> Result<Picture> {
    plane::draw(panels, card.data_range).map(Picture)
}

/// Samples that a picture shows at most.
pub fn most(card: &Card) -> usize {
    if in_plane(card) { 5000 } else { 100 }
}

/// Samples in rows of ten.
pub fn grid(card: &Card, samples: &[f32]) -> Result<Picture> {
    if in_plane(card) {
        return scatter(card, &[Panel { title: "samples".into(), points: samples, others: &[], joined: false }]);
    }
    rows_of(card, samples, COMPARED)
}

/// The states of one sample, in one row or as a path.
pub fn strip(card: &Card, states: &[f32]) -> Result<Picture> {
    if in_plane(card) {
        return scatter(card, &[Panel { title: "path".into(), points: states, others: &[], joined: true }]);
    }
    rows_of(card, states, usize::MAX)
}

/// How `samples` differ from `truth`, enlarged: grey is no difference. In the plane, each is joined with its own.
pub fn difference(card: &Card, samples: &[f32], truth: &[f32]) -> Result<Picture> {
    if in_plane(card) {
        let title = "samples, joined with the ground truth's".into();
        return scatter(card, &[Panel { title, points: samples, others: truth, joined: false }]);
    }
    let middle = ((card.data_range[0] + card.data_range[1]) / 2.0) as f32;
    let values: Vec<f32> = samples.iter().zip(truth).map(|(x, gt)| middle + MAGNIFIED * (x - gt)).collect();
    grid(card, &values)
}

fn rows_of(card: &Card, samples: &[f32], most: usize) -> Result<Picture> {
    let layout = Layout::new(card)?;
    let count = samples.len() / layout.elements();
    let columns = count.clamp(1, most);
    let mut canvas = layout.canvas(columns, count.div_ceil(columns));
    for (i, sample) in samples.chunks_exact(layout.elements()).enumerate() {
        layout.draw(&mut canvas, i % columns, i / columns, sample);
    }
    Ok(Picture(canvas))
}

/// The first of `solvers` is the ground truth; each of the others is drawn with its difference. `names` are of the others.
pub fn comparison(card: &Card, solvers: &[Vec<f32>], names: &[&str]) -> Result<Picture> {
    if in_plane(card) {
        return scatter(card, &panels(solvers, names));
    }
    let layout = Layout::new(card)?;
    let elements = layout.elements();
    let Some((truth, others)) = solvers.split_first() else {
        return Err(Error::State("no samples to draw".into()));
    };
    let columns = (truth.len() / elements).min(COMPARED);
    let mut canvas = layout.canvas(2 * columns, solvers.len());
    let middle = (layout.range[0] + layout.range[1]) / 2.0;
    for column in 0..columns {
        let part = column * elements..(column + 1) * elements;
        layout.draw(&mut canvas, column, 0, &truth[part.clone()]);
        for (row, samples) in others.iter().enumerate() {
            layout.draw(&mut canvas, column, row + 1, &samples[part.clone()]);
            let difference: Vec<f32> = samples[part.clone()]
                .iter()
                .zip(&truth[part.clone()])
                .map(|(x, gt)| middle + MAGNIFIED * (x - gt))
                .collect();
            layout.draw(&mut canvas, columns + column, row + 1, &difference);
        }
    }
    Ok(Picture(canvas))
}

/// The ground truth, then each solver with its distances from it.
fn panels<'a>(solvers: &'a [Vec<f32>], names: &[&str]) -> Vec<Panel<'a>> {
    let Some((truth, others)) = solvers.split_first() else { return Vec::new() };
    let first = Panel { title: "ground truth".into(), points: truth, others: &[], joined: false };
    let of = |(samples, name): (&'a Vec<f32>, &&str)| Panel {
        title: name.to_string(),
        points: samples,
        others: truth,
        joined: false,
    };
    std::iter::once(first).chain(others.iter().zip(names).map(of)).collect()
}
