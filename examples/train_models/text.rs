//! Texts that ask for a digit ("three", "a small 7", "the digit nine"), and the small networks that read them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::layers::{Conv, Init, Layout, Linear};
use crate::network::EMBEDDING;

/// How large the networks are that read.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Numbers of a token that the encoder writes.
    pub token: i64,
    pub width: i64,
    /// Of what a reader makes of all tokens.
    pub embedding: i64,
}

/// Of the texts that ask for a digit.
pub const DIGITS: Sizes = Sizes { token: 8, width: 32, embedding: EMBEDDING };
const CHARACTERS: i64 = 38;
/// Characters that one looks at on a layer: two of them see nine, any of the words for a digit.
const NEIGHBOURS: i64 = 5;

/// What texts are made of: an opening, an adjective and a noun, with a digit in the place of its braces.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grammar {
    openings: Vec<String>,
    adjectives: Vec<String>,
    nouns: Vec<String>,
    words: [String; 10],
}

/// Characters as numbers: 0 is none, then the blank, the letters and the numerals.
pub fn number(character: char) -> Result<i64> {
    match character {
        ' ' => Ok(1),
        'a'..='z' => Ok(2 + i64::from(u32::from(character) - u32::from('a'))),
        '0'..='9' => Ok(28 + i64::from(u32::from(character) - u32::from('0'))),
        _ => anyhow::bail!("{character:?} is no character of these texts: expected a to z, 0 to 9 or a blank"),
    }
}

/// All texts of the grammar, padded at the end with 0.
pub struct Texts {
    /// int64 [texts of a digit, 10, length]
    characters: Tensor,
}

impl Texts {
    /// Reads `digits-texts.json` in `folder`.
    pub fn read(folder: &Path, device: Device) -> Result<Self> {
        let path = folder.join("digits-texts.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let grammar: Grammar = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let mut templates = Vec::new();
        for opening in &grammar.openings {
            for adjective in &grammar.adjectives {
                templates.extend(grammar.nouns.iter().map(|noun| format!("{opening}{adjective}{noun}")));
            }
        }
        let mut texts = Vec::new();
        for template in &templates {
            ensure!(template.contains("{}"), "{}: {template:?} has no place for a digit, {{}}", path.display());
            texts.extend(grammar.words.iter().map(|word| template.replace("{}", word)));
            texts.extend((0..10).map(|digit| template.replace("{}", &digit.to_string())));
        }
        let length = texts.iter().map(|text| text.chars().count()).max().unwrap_or_default();
        let mut characters = Vec::with_capacity(texts.len() * length);
        for text in &texts {
            let mut row = text.chars().map(number).collect::<Result<Vec<_>>>()?;
            row.resize(length, 0);
            characters.extend(row);
        }
        let characters = Tensor::from_slice(&characters).view([-1, 10, length as i64]).to_device(device);
        Ok(Self { characters })
    }

    /// One text for each of these digits, int64 [B, length].
    pub fn draw(&self, digits: &Tensor) -> Tensor {
        let text = Tensor::randint(self.characters.size()[0], digits.size(), (Kind::Int64, digits.device()));
        self.characters.index(&[Some(text), Some(digits.shallow_clone())])
    }
}

/// Some texts of several lengths at random, int64 [B, length]: for a trace, and to hold it against.
pub fn random(batch: i64) -> Tensor {
    Tensor::randint(CHARACTERS, [batch, 1 + batch % 9], (Kind::Int64, Device::Cpu))
}

/// Characters to tokens, each of which knows its neighbours. 0 becomes a token of zeros.
pub struct Encoder {
    table: usize,
    first: Conv,
    second: Conv,
}

impl Encoder {
    pub fn new(layout: &mut Layout, sizes: Sizes) -> Self {
        Self {
            table: layout.add(&[CHARACTERS, sizes.width], Init::FanIn(1), 0),
            first: Conv::along(layout, sizes.width, sizes.width, NEIGHBOURS),
            second: Conv::along(layout, sizes.width, sizes.token, NEIGHBOURS),
        }
    }

    /// int64 [B, tokens] to [B, tokens, token], in (-1, 1).
    pub fn forward(&self, w: &[Tensor], characters: &Tensor) -> Tensor {
        // A text that is padded is what it is without: its end looks the same to both layers.
        let there = characters.gt(0).to_kind(Kind::Float).unsqueeze(1).unsqueeze(2);
        let embedded = Tensor::embedding(&w[self.table], characters, -1, false, false);
        let rows = embedded.transpose(1, 2).unsqueeze(2) * &there;
        let rows = self.first.forward(w, &rows).silu() * &there;
        let tokens = self.second.forward(w, &rows).tanh() * there;
        tokens.squeeze_dim(2).transpose(1, 2)
    }
}

/// 1 for the tokens that say something, 0 for those of zeros: [B, tokens, 1] of [B, tokens, token].
pub fn says(text: &Tensor) -> Tensor {
    text.abs().amax([-1], true).gt(0.0).to_kind(Kind::Float)
}

/// Tokens to what a network is conditioned on: their mean by weights of their own. Tokens of zeros have none, so
/// that a text may be padded, and one of zeros alone stands for no text at all.
pub struct Reader {
    value: Linear,
    weight: Linear,
    output: Linear,
}

impl Reader {
    pub fn new(layout: &mut Layout, sizes: Sizes) -> Self {
        Self {
            value: Linear::new(layout, sizes.token, sizes.width),
            weight: Linear::new(layout, sizes.token, 1),
            output: Linear::new(layout, sizes.width, sizes.embedding),
        }
    }

    /// [B, tokens, token] to [B, embedding].
    pub fn forward(&self, w: &[Tensor], text: &Tensor) -> Tensor {
        let there = says(text);
        let weight = (self.weight.forward(w, text) * 4.0).sigmoid() * there;
        let total = weight.sum_dim_intlist(&[1i64][..], false, Kind::Float);
        let values = (self.value.forward(w, text).silu() * weight).sum_dim_intlist(&[1i64][..], false, Kind::Float);
        self.output.forward(w, &(values / (total + 1e-3)))
    }
}
