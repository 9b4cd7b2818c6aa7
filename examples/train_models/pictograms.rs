//! Colour emoji and what they are called: Twemoji's sheet of 64 x 64 and its table, in the files of the package
//! emoji-datasource-twitter.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::dit::SIDE;
use crate::text::number;

/// On the sheet, without and with the frame of transparent pixels.
const LARGE: i64 = 64;
const CELL: i64 = LARGE + 2;
/// Characters of a text; longer ones lose words at their end.
pub const LENGTH: usize = 24;
/// How often a text is one word of the name, which several emoji share, in place of the name.
const ONE_WORD: f64 = 0.3;
/// What is learned of the table: few enough that a small network keeps them apart, and seen to be right at a glance.
const CATEGORIES: [&str; 2] = ["Animals & Nature", "Food & Drink"];

/// An emoji as the table has it; its variants of other skins are left out.
#[derive(Deserialize)]
struct Entry {
    name: String,
    short_name: String,
    short_names: Vec<String>,
    category: String,
    sheet_x: i64,
    sheet_y: i64,
}

pub struct Pictograms {
    /// uint8 [N, 4, 66, 66]: red, green, blue, and how opaque.
    images: Tensor,
    /// The texts that ask for an emoji: int64 [texts, LENGTH], those of number i from `first[i]`, as many as `count[i]`.
    /// The first of them is what it is called, the others are words of that.
    characters: Tensor,
    first: Tensor,
    count: Tensor,
    /// What they are called.
    pub called: Vec<String>,
}

impl Pictograms {
    pub fn read(folder: &Path, device: Device) -> Result<Self> {
        let describe = |name: &str| format!("cannot read {name} in {}; `make emoji-data` fetches it", folder.display());
        let table = std::fs::read_to_string(folder.join("emoji.json")).with_context(|| describe("emoji.json"))?;
        let mut table: Vec<Entry> = serde_json::from_str(&table).with_context(|| describe("emoji.json"))?;
        table.retain(|entry| CATEGORIES.contains(&entry.category.as_str()));
        let sheet = image::open(folder.join("64.png")).with_context(|| describe("64.png"))?.into_rgba8();
        let (width, height) = (i64::from(sheet.width()), i64::from(sheet.height()));
        let sheet = Tensor::from_slice(sheet.as_raw()).view([height, width, 4]).permute([2, 0, 1]);

        let (mut images, mut texts, mut first, mut count) = (vec![], vec![], vec![], vec![]);
        for entry in &table {
            let (x, y) = (entry.sheet_x * CELL, entry.sheet_y * CELL);
            ensure!(
                (0..=width - CELL).contains(&x) && (0..=height - CELL).contains(&y),
                "{}: {} lies at {x}, {y} of a sheet of {width} x {height}",
                folder.display(),
                entry.name
            );
            images.push(sheet.narrow(1, y, CELL).narrow(2, x, CELL));
            let several = entry.texts()?;
            first.push(texts.len() as i64);
            count.push(several.len() as i64);
            texts.extend(several);
        }
        let on_device = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(device);
        Ok(Self {
            images: Tensor::stack(&images, 0).to_device(device),
            characters: on_device(&texts.concat()).view([-1, LENGTH as i64]),
            first: on_device(&first),
            count: on_device(&count),
            called: table.iter().map(Entry::called).collect(),
        })
    }

    pub fn count(&self) -> i64 {
        self.first.size()[0]
    }

    /// So many images at random, and which emoji they are, int64 [B].
    pub fn batch(&self, size: i64) -> (Tensor, Tensor) {
        let index = Tensor::randint(self.count(), [size], (Kind::Int64, self.first.device()));
        (self.turned(&index), index)
    }

    /// Images of these numbers, a little turned, moved and scaled, on white: float32 [B, 3, 32, 32] in [-1, 1].
    fn turned(&self, index: &Tensor) -> Tensor {
        let (batch, options) = (index.size()[0], (Kind::Float, index.device()));
        let uniform = |least: f64, most: f64| Tensor::rand([batch], options) * (most - least) + least;
        let (angle, scale) = (uniform(-0.2, 0.2), uniform(0.95, 1.2));
        let (cos, sin) = (angle.cos() * &scale, angle.sin() * &scale);
        let rows = [
            Tensor::stack(&[cos.shallow_clone(), -&sin, uniform(-0.06, 0.06)], 1),
            Tensor::stack(&[sin, cos, uniform(-0.06, 0.06)], 1),
        ];
        let grid = Tensor::affine_grid_generator(&Tensor::stack(&rows, 1), [batch, 4, LARGE, LARGE], false);
        let cells = self.images.index_select(0, index).to_kind(Kind::Float) / 255.0;
        on_white(&cells.grid_sampler(&grid, 0, 0, false))
    }

    /// A text for each image of these numbers, int64 [B, LENGTH].
    pub fn texts(&self, index: &Tensor) -> Tensor {
        let options = (Kind::Float, index.device());
        let (first, count) = (self.first.index_select(0, index), self.count.index_select(0, index));
        let word = (Tensor::rand(index.size(), options) * &count).to_kind(Kind::Int64);
        let one = Tensor::rand(index.size(), options).lt(ONE_WORD).to_kind(Kind::Int64);
        self.characters.index_select(0, &(first + word * one))
    }

    /// What these images are called, int64 [B, LENGTH].
    pub fn names(&self, index: &Tensor) -> Tensor {
        self.characters.index_select(0, &self.first.index_select(0, index))
    }
}

/// [B, 4, 64, 64] in [0, 1] on white, at half the size.
fn on_white(cells: &Tensor) -> Tensor {
    let opaque = cells.narrow(1, 3, 1);
    let colours: Tensor = cells.narrow(1, 0, 3) * &opaque + (1.0 - &opaque);
    colours.avg_pool2d([LARGE / SIDE; 2], [LARGE / SIDE; 2], [0, 0], false, true, None) * 2.0 - 1.0
}

impl Entry {
    /// What it is called, then each word of that, as numbers.
    fn texts(&self) -> Result<Vec<Vec<i64>>> {
        let called = self.called();
        let words: Vec<&str> = called.split(' ').collect();
        let mut texts = vec![called.as_str()];
        if words.len() > 1 {
            texts.extend(words);
        }
        texts.into_iter().map(|text| padded(text).with_context(|| self.name.clone())).collect()
    }

    /// In lower case, in the characters that texts are made of: the first short name without signs, where there is one.
    fn called(&self) -> String {
        let plain = |name: &&String| !name.contains(['+', '-']);
        let name = self.short_names.iter().find(plain).unwrap_or(&self.short_name);
        let letters = name.to_lowercase().chars().filter_map(letter).collect::<String>();
        let mut called = String::new();
        for word in letters.split_whitespace() {
            if called.len() + usize::from(!called.is_empty()) + word.len() > LENGTH {
                break;
            }
            if !called.is_empty() {
                called.push(' ');
            }
            called.push_str(word);
        }
        called
    }
}

/// A character of a name as texts have it.
fn letter(character: char) -> Option<char> {
    match character {
        'a'..='z' | '0'..='9' => Some(character),
        '_' | '-' => Some(' '),
        _ => None,
    }
}

/// A text as numbers, with zeros up to LENGTH.
pub fn padded(text: &str) -> Result<Vec<i64>> {
    let mut row = text.chars().map(number).collect::<Result<Vec<_>>>()?;
    ensure!((1..=LENGTH).contains(&row.len()), "{text:?} has {} characters, expected 1 to {LENGTH}", row.len());
    row.resize(LENGTH, 0);
    Ok(row)
}
