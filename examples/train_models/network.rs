//! The velocity network: a small U-Net on 8x8 images.

use tch::{Device, Kind, Tensor};

use crate::layers::{ConditionedNorm, Conv, Double, GroupNorm, Init, Layout, Linear};
use crate::text;

pub const SIDE: i64 = 8;

const WIDE: i64 = 16; // channels at 8x8
const DEEP: i64 = 24; // channels at 4x4
const GLOBAL: i64 = 96; // units of the layer that sees the whole image
pub const EMBEDDING: i64 = 64;
const FREQUENCIES: i64 = 8;

/// Time as sines and cosines, then two layers.
pub struct TimeEmbedding {
    frequencies: Tensor,
    layers: [Linear; 2],
}

impl TimeEmbedding {
    pub fn new(layout: &mut Layout, device: Device) -> Self {
        // Angular frequencies from 1 to 3, in equal ratios: t runs over [0, 1], and a field that is
        // smooth in time is what a sampler of few steps can follow.
        let exponents = Tensor::arange(FREQUENCIES, (Kind::Float, device)) / (FREQUENCIES - 1) as f64;
        let frequencies = (exponents * 3f64.ln()).exp();
        let layers = [Linear::new(layout, 2 * FREQUENCIES, EMBEDDING), Linear::new(layout, EMBEDDING, EMBEDDING)];
        Self { frequencies, layers }
    }

    /// t [B] to [B, EMBEDDING].
    pub fn forward(&self, w: &[Tensor], t: &Tensor) -> Tensor {
        let angles = t.unsqueeze(-1) * &self.frequencies;
        let waves = Tensor::cat(&[angles.sin(), angles.cos()], -1);
        self.layers[1].forward(w, &self.layers[0].forward(w, &waves).silu())
    }
}

/// Two 3x3 convolutions on a residual branch; smooth everywhere, as ODE solvers like it.
pub struct Block {
    norm: GroupNorm,
    first: Conv,
    conditioned: ConditionedNorm,
    second: Conv,
}

impl Block {
    fn new(layout: &mut Layout, channels: i64, side: i64) -> Self {
        Self::dilated(layout, channels, side, 1)
    }

    pub fn dilated(layout: &mut Layout, channels: i64, side: i64, dilation: i64) -> Self {
        Self {
            norm: GroupNorm::new(layout, channels),
            first: Conv::same_dilated(layout, channels, channels, side, dilation, Init::FanIn(9 * channels)),
            conditioned: ConditionedNorm::new(layout, EMBEDDING, channels),
            second: Conv::same_dilated(layout, channels, channels, side, dilation, Init::Constant(0.0)),
        }
    }

    pub fn forward(&self, w: &[Tensor], x: &Tensor, embedding: &Tensor) -> Tensor {
        let h = self.first.forward(w, &self.norm.forward(w, x).silu());
        let h = self.second.forward(w, &self.conditioned.forward(w, &h, embedding).silu());
        x + h
    }
}

/// Residual layers that mix all of the 4x4 image: one multiply-add per weight, so this is where
/// most weights are.
struct GlobalBlock {
    norm: GroupNorm,
    gather: Linear,
    condition: Linear,
    scatter: Linear,
}

impl GlobalBlock {
    fn new(layout: &mut Layout) -> Self {
        let size = DEEP * (SIDE / 2) * (SIDE / 2);
        Self {
            norm: GroupNorm::new(layout, DEEP),
            gather: Linear::new(layout, size, GLOBAL),
            condition: Linear::zero(layout, EMBEDDING, 2 * GLOBAL),
            scatter: Linear::zero(layout, GLOBAL, size),
        }
    }

    fn forward(&self, w: &[Tensor], x: &Tensor, embedding: &Tensor) -> Tensor {
        let h = self.gather.forward(w, &self.norm.forward(w, x).silu().flatten(1, -1));
        let film = self.condition.forward(w, embedding).chunk(2, 1);
        let h = self.scatter.forward(w, &(h * (&film[0] + 1.0) + &film[1]).silu());
        x + h.view([-1, DEEP, SIDE / 2, SIDE / 2])
    }
}

/// What a network is given besides time and state.
#[derive(Clone, Copy, PartialEq)]
pub enum Given {
    Nothing,
    /// A class of so many, or this number itself for "none", which guidance needs.
    Class(i64),
    /// A text as its encoder writes it, zeros for "none".
    Text,
}

enum Reader {
    Nothing,
    Class(usize),
    Text(text::Encoder, text::Reader),
}

/// Everything but the weights' values.
pub struct Network {
    pub layout: Layout,
    time: TimeEmbedding,
    reader: Reader,
    stem: Conv,
    down_wide: Block,
    halve: Conv,
    down_deep: Block,
    global: GlobalBlock,
    up_deep: Block,
    double: Double,
    up_wide: Block,
    norm: GroupNorm,
    output: Conv,
    skip: Linear,
}

impl Network {
    pub fn new(channels: i64, given: Given, device: Device) -> Self {
        let mut layout = Layout::default();
        let l = &mut layout;
        Self {
            time: TimeEmbedding::new(l, device),
            reader: match given {
                Given::Nothing => Reader::Nothing,
                Given::Class(n) => Reader::Class(l.add(&[n + 1, EMBEDDING], Init::FanIn(1), 0)),
                Given::Text => Reader::Text(text::Encoder::new(l, text::DIGITS), text::Reader::new(l, text::DIGITS)),
            },
            stem: Conv::same(l, channels, WIDE, SIDE),
            down_wide: Block::new(l, WIDE, SIDE),
            halve: Conv::halve(l, WIDE, DEEP, SIDE / 2),
            down_deep: Block::new(l, DEEP, SIDE / 2),
            global: GlobalBlock::new(l),
            up_deep: Block::new(l, DEEP, SIDE / 2),
            double: Double::new(l, DEEP, WIDE, SIDE / 2),
            up_wide: Block::new(l, WIDE, SIDE),
            norm: GroupNorm::new(l, WIDE),
            output: Conv::same_zero(l, WIDE, channels, SIDE),
            skip: Linear::zero(l, EMBEDDING, channels),
            layout,
        }
    }

    /// The encoder of the texts that the network is given, where it is given texts.
    pub fn encoder(&self) -> Option<&text::Encoder> {
        match &self.reader {
            Reader::Text(encoder, _) => Some(encoder),
            Reader::Nothing | Reader::Class(_) => None,
        }
    }

    /// x [B, C, 8, 8], t [B], and what the network is given: class int64 [B] or text [B, tokens, 8].
    ///
    /// No number here may depend on the batch size and no tensor may be made here: both would be
    /// frozen into the exported trace.
    pub fn forward(&self, w: &[Tensor], x: &Tensor, t: &Tensor, given: Option<&Tensor>) -> Tensor {
        let mut embedding = self.time.forward(w, t);
        match (&self.reader, given) {
            (Reader::Class(table), Some(class)) => {
                embedding += Tensor::embedding(&w[*table], class, -1, false, false);
            }
            (Reader::Text(_, reader), Some(text)) => embedding += reader.forward(w, text),
            _ => {}
        }
        let embedding = embedding.silu();

        let wide = self.down_wide.forward(w, &self.stem.forward(w, x), &embedding);
        let deep = self.down_deep.forward(w, &self.halve.forward(w, &wide), &embedding);
        let deep = self.global.forward(w, &deep, &embedding);
        let deep = self.up_deep.forward(w, &deep, &embedding);
        let wide = self.up_wide.forward(w, &(self.double.forward(w, &deep) + wide), &embedding);
        let output = self.output.forward(w, &self.norm.forward(w, &wide).silu());

        // The normalised branch cannot tell a sample's own scale, and the answer contains a
        // multiple of x that depends on time only: give it directly.
        output + x * self.skip.forward(w, &embedding).unsqueeze(-1).unsqueeze(-1)
    }
}
