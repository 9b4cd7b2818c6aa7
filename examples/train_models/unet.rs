//! A U-Net as people train them on images of 28 x 28: sinusoidal time embedding, residual blocks that time and class
//! scale and shift, attention at 7 x 7.

use tch::{Device, Kind, Tensor};

use crate::layers::{ConditionedNorm, Conv, Double, GroupNorm, Init, Layout, Linear, TimeEmbedding};

pub const SIDE: i64 = 28;

/// Channels at 28 x 28, 14 x 14 and 7 x 7; what a convolution costs falls by four from one to the next, and rises with
/// the square of these.
#[derive(Clone, Copy)]
pub struct Widths {
    pub wide: i64,
    pub middle: i64,
    pub deep: i64,
}

const EMBEDDING: i64 = 128;
const FREQUENCIES: i64 = 32;
const HEADS: i64 = 4;

/// What a timestep is to the embedding: times of [0, 1] count as 1,000 steps, as the usual ones do.
pub const TIMESTEPS: f64 = 1000.0;

struct Block {
    norm: GroupNorm,
    first: Conv,
    conditioned: ConditionedNorm,
    second: Conv,
}

impl Block {
    fn new(l: &mut Layout, channels: i64, side: i64) -> Self {
        Self {
            norm: GroupNorm::new(l, channels),
            first: Conv::same(l, channels, channels, side),
            conditioned: ConditionedNorm::new(l, EMBEDDING, channels),
            second: Conv::same_zero(l, channels, channels, side),
        }
    }

    fn forward(&self, w: &[Tensor], x: &Tensor, embedding: &Tensor, kind: Kind) -> Tensor {
        let h = self.first.forward_in(kind, w, &self.norm.forward(w, x).silu());
        x + self.second.forward_in(kind, w, &self.conditioned.forward(w, &h, embedding).silu())
    }
}

/// Self-attention over the places of a square image, on a residual branch.
struct Attention {
    norm: GroupNorm,
    asked: Linear,
    answer: Linear,
    channels: i64,
    side: i64,
}

impl Attention {
    fn new(l: &mut Layout, channels: i64, side: i64) -> Self {
        let (norm, asked) = (GroupNorm::new(l, channels), Linear::new(l, channels, 3 * channels));
        Self { norm, asked, answer: Linear::zero(l, channels, channels), channels, side }
    }

    fn forward(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        let (places, width) = (self.side * self.side, self.channels / HEADS);
        let tokens = self.norm.forward(w, x).flatten(2, -1).transpose(1, 2);
        // [3, B, heads, places, width]
        let asked = self.asked.forward(w, &tokens).view([-1, places, 3, HEADS, width]).permute([2, 0, 3, 1, 4]);
        let (query, key, value) = (asked.select(0, 0), asked.select(0, 1), asked.select(0, 2));
        let scores = (query * (width as f64).powf(-0.5)).matmul(&key.transpose(-2, -1)).softmax(-1, Kind::Float);
        let seen = scores.matmul(&value).transpose(1, 2).reshape([-1, places, self.channels]);
        let answer = self.answer.forward(w, &seen).transpose(1, 2);
        x + answer.reshape([-1, self.channels, self.side, self.side])
    }
}

/// Everything but the weights' values.
pub struct UNet {
    pub layout: Layout,
    time: TimeEmbedding,
    class: usize,
    stem: Conv,
    down_wide: Block,
    to_middle: Conv,
    down_middle: Block,
    to_deep: Conv,
    down_deep: Block,
    attention: Attention,
    deep: Block,
    up_deep: Block,
    from_deep: Double,
    up_middle: Block,
    from_middle: Double,
    up_wide: Block,
    norm: GroupNorm,
    output: Conv,
}

impl UNet {
    /// `classes` counts them; one more number is kept for "none", which guidance needs.
    pub fn new(widths: Widths, classes: i64, device: Device) -> Self {
        let Widths { wide, middle, deep } = widths;
        let mut layout = Layout::default();
        let l = &mut layout;
        Self {
            time: TimeEmbedding::new(l, FREQUENCIES, EMBEDDING, device),
            class: l.add(&[classes + 1, EMBEDDING], Init::FanIn(1), 0),
            stem: Conv::same(l, 1, wide, SIDE),
            down_wide: Block::new(l, wide, SIDE),
            to_middle: Conv::halve(l, wide, middle, SIDE / 2),
            down_middle: Block::new(l, middle, SIDE / 2),
            to_deep: Conv::halve(l, middle, deep, SIDE / 4),
            down_deep: Block::new(l, deep, SIDE / 4),
            attention: Attention::new(l, deep, SIDE / 4),
            deep: Block::new(l, deep, SIDE / 4),
            up_deep: Block::new(l, deep, SIDE / 4),
            from_deep: Double::new(l, deep, middle, SIDE / 4),
            up_middle: Block::new(l, middle, SIDE / 2),
            from_middle: Double::new(l, middle, wide, SIDE / 2),
            up_wide: Block::new(l, wide, SIDE),
            norm: GroupNorm::new(l, wide),
            output: Conv::same_zero(l, wide, 1, SIDE),
            layout,
        }
    }

    /// x [B, 1, 28, 28], timestep [B] of any type, class int64 [B]; convolutions in `kind`.
    ///
    /// No number here may depend on the batch size and no tensor may be made here: both would be frozen into the
    /// exported trace.
    pub fn forward(&self, kind: Kind, w: &[Tensor], x: &Tensor, timestep: &Tensor, class: &Tensor) -> Tensor {
        let time = self.time.forward(w, &timestep.to_kind(Kind::Float));
        let e = (time + Tensor::embedding(&w[self.class], class, -1, false, false)).silu();

        let wide = self.down_wide.forward(w, &self.stem.forward_in(kind, w, x), &e, kind);
        let middle = self.down_middle.forward(w, &self.to_middle.forward_in(kind, w, &wide), &e, kind);
        let deep = self.down_deep.forward(w, &self.to_deep.forward_in(kind, w, &middle), &e, kind);
        let deep = self.deep.forward(w, &self.attention.forward(w, &deep), &e, kind);
        let deep = self.up_deep.forward(w, &deep, &e, kind);
        let middle = self.up_middle.forward(w, &(self.from_deep.forward_in(kind, w, &deep) + middle), &e, kind);
        let wide = self.up_wide.forward(w, &(self.from_middle.forward_in(kind, w, &middle) + wide), &e, kind);
        self.output.forward_in(kind, w, &self.norm.forward(w, &wide).silu())
    }
}
