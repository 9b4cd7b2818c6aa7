//! The velocity network: a small U-Net on 8x8 images.

use tch::{Device, Kind, Tensor};

use crate::layers::{ConditionedNorm, Conv, Double, GroupNorm, Init, Layout, Linear};

pub const SIDE: i64 = 8;

const WIDE: i64 = 16; // channels at 8x8
const DEEP: i64 = 24; // channels at 4x4
const GLOBAL: i64 = 96; // units of the layer that sees the whole image
const EMBEDDING: i64 = 64;
const FREQUENCIES: i64 = 8;

/// Two 3x3 convolutions on a residual branch; smooth everywhere, as ODE solvers like it.
struct Block {
    norm: GroupNorm,
    first: Conv,
    conditioned: ConditionedNorm,
    second: Conv,
}

impl Block {
    fn new(layout: &mut Layout, channels: i64, side: i64) -> Self {
        Self {
            norm: GroupNorm::new(layout, channels),
            first: Conv::same(layout, channels, channels, side),
            conditioned: ConditionedNorm::new(layout, EMBEDDING, channels),
            second: Conv::same_zero(layout, channels, channels, side),
        }
    }

    fn forward(&self, w: &[Tensor], x: &Tensor, embedding: &Tensor) -> Tensor {
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

/// Everything but the weights' values.
pub struct Network {
    pub layout: Layout,
    frequencies: Tensor,
    time: [Linear; 2],
    class: Option<usize>,
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
    /// `classes` counts the real ones; one more is kept for "none", which guidance needs.
    pub fn new(channels: i64, classes: Option<i64>, device: Device) -> Self {
        let mut layout = Layout::default();
        let l = &mut layout;
        // Angular frequencies from 1 to 3, in equal ratios: t runs over [0, 1], and a field that is
        // smooth in time is what a sampler of few steps can follow.
        let exponents = Tensor::arange(FREQUENCIES, (Kind::Float, device)) / (FREQUENCIES - 1) as f64;
        let frequencies = (exponents * 3f64.ln()).exp();
        Self {
            frequencies,
            time: [Linear::new(l, 2 * FREQUENCIES, EMBEDDING), Linear::new(l, EMBEDDING, EMBEDDING)],
            class: classes.map(|n| l.add(&[n + 1, EMBEDDING], Init::FanIn(1), 0)),
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

    /// x [B, C, 8, 8], t [B], class int64 [B] where the network has classes.
    ///
    /// No number here may depend on the batch size and no tensor may be made here: both would be
    /// frozen into the exported trace.
    pub fn forward(&self, w: &[Tensor], x: &Tensor, t: &Tensor, class: Option<&Tensor>) -> Tensor {
        let angles = t.unsqueeze(-1) * &self.frequencies;
        let waves = Tensor::cat(&[angles.sin(), angles.cos()], -1);
        let mut embedding = self.time[1].forward(w, &self.time[0].forward(w, &waves).silu());
        if let (Some(table), Some(class)) = (self.class, class) {
            embedding += Tensor::embedding(&w[table], class, -1, false, false);
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
