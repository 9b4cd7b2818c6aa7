//! Weights and the few layers the networks are made of.
//!
//! All weights of a network are one flat vector. The optimiser and the moving average are then a
//! handful of operations however many layers there are, which is what a small network's training
//! time on a GPU is made of.

use tch::{Device, Kind, Tensor};

/// How a weight starts.
pub enum Init {
    /// Normal, with the deviation that keeps the variance through a layer of this many inputs.
    FanIn(i64),
    Constant(f64),
}

struct Entry {
    shape: Vec<i64>,
    init: Init,
    /// How often one sample uses each number, for counting multiply-adds.
    positions: i64,
}

/// Where each weight lies in the flat vector.
#[derive(Default)]
pub struct Layout {
    entries: Vec<Entry>,
}

impl Layout {
    /// Registers a weight; the index finds it in what `split` returns.
    pub fn add(&mut self, shape: &[i64], init: Init, positions: i64) -> usize {
        self.entries.push(Entry { shape: shape.to_vec(), init, positions });
        self.entries.len() - 1
    }

    pub fn initial(&self, device: Device) -> Tensor {
        let parts: Vec<Tensor> = self
            .entries
            .iter()
            .map(|entry| {
                let size = entry.shape.iter().product::<i64>();
                let options = (Kind::Float, device);
                match entry.init {
                    Init::FanIn(inputs) => Tensor::randn([size], options) / (inputs as f64).sqrt(),
                    Init::Constant(value) => Tensor::full([size], value, options),
                }
            })
            .collect();
        Tensor::cat(&parts, 0)
    }

    /// The weights as tensors of their own shapes, differentiable with respect to `flat`.
    pub fn split(&self, flat: &Tensor) -> Vec<Tensor> {
        let sizes: Vec<i64> = self.entries.iter().map(|e| e.shape.iter().product()).collect();
        flat.split_with_sizes(&sizes, 0)
            .iter()
            .zip(&self.entries)
            .map(|(part, entry)| part.view(entry.shape.as_slice()))
            .collect()
    }

    pub fn parameters(&self) -> i64 {
        self.entries.iter().map(|e| e.shape.iter().product::<i64>()).sum()
    }

    /// Multiply-adds of one forward pass of one sample.
    pub fn multiply_adds(&self) -> i64 {
        self.entries.iter().map(|e| e.shape.iter().product::<i64>() * e.positions).sum()
    }
}

/// Layers hold indices into the split weights, so the same network runs with the weights being
/// trained and with their moving average.
pub struct Linear {
    weight: usize,
    bias: usize,
}

impl Linear {
    /// Used at each of `places` places of a sample.
    pub fn at(layout: &mut Layout, inputs: i64, outputs: i64, init: Init, places: i64) -> Self {
        let weight = layout.add(&[outputs, inputs], init, places);
        let bias = layout.add(&[outputs], Init::Constant(0.0), 0);
        Self { weight, bias }
    }

    pub fn new(layout: &mut Layout, inputs: i64, outputs: i64) -> Self {
        Self::at(layout, inputs, outputs, Init::FanIn(inputs), 1)
    }

    /// Starts as zero: for the last layer of a residual branch, which then starts as the identity.
    pub fn zero(layout: &mut Layout, inputs: i64, outputs: i64) -> Self {
        Self::at(layout, inputs, outputs, Init::Constant(0.0), 1)
    }

    pub fn forward(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        x.linear(&w[self.weight], Some(&w[self.bias]))
    }

    /// The same, computed and answered in `kind`.
    pub fn forward_in(&self, kind: Kind, w: &[Tensor], x: &Tensor) -> Tensor {
        if kind == Kind::Float {
            return self.forward(w, x);
        }
        let [x, weight, bias] = [x, &w[self.weight], &w[self.bias]].map(|tensor| tensor.to_kind(kind));
        x.linear(&weight, Some(&bias))
    }
}

/// A 3x3 convolution, padded to keep the size, a 2x2 one of stride 2, which halves it, or one along the last
/// dimension alone.
pub struct Conv {
    weight: usize,
    bias: usize,
    reach: Reach,
}

/// Where the kernel of a convolution is laid.
#[derive(Clone, Copy)]
struct Reach {
    stride: i64,
    padding: [i64; 2],
    dilation: i64,
}

impl Conv {
    /// `side`: the side of the square image it writes.
    pub fn same(layout: &mut Layout, inputs: i64, outputs: i64, side: i64) -> Self {
        Self::same_dilated(layout, inputs, outputs, side, 1, Init::FanIn(9 * inputs))
    }

    pub fn same_zero(layout: &mut Layout, inputs: i64, outputs: i64, side: i64) -> Self {
        Self::same_dilated(layout, inputs, outputs, side, 1, Init::Constant(0.0))
    }

    /// `dilation`: from one pixel that it looks at to the next.
    pub fn same_dilated(layout: &mut Layout, inputs: i64, outputs: i64, side: i64, dilation: i64, init: Init) -> Self {
        let reach = Reach { stride: 1, padding: [dilation; 2], dilation };
        Self::with_reach(layout, &[outputs, inputs, 3, 3], side * side, init, reach)
    }

    pub fn halve(layout: &mut Layout, inputs: i64, outputs: i64, side: i64) -> Self {
        let reach = Reach { stride: 2, padding: [0; 2], dilation: 1 };
        Self::with_reach(layout, &[outputs, inputs, 2, 2], side * side, Init::FanIn(4 * inputs), reach)
    }

    /// Over `kernel` neighbours, an odd number, of a row [B, C, 1, length].
    pub fn along(layout: &mut Layout, inputs: i64, outputs: i64, kernel: i64) -> Self {
        let reach = Reach { stride: 1, padding: [0, kernel / 2], dilation: 1 };
        Self::with_reach(layout, &[outputs, inputs, 1, kernel], 0, Init::FanIn(kernel * inputs), reach)
    }

    fn with_reach(layout: &mut Layout, shape: &[i64], positions: i64, init: Init, reach: Reach) -> Self {
        let weight = layout.add(shape, init, positions);
        let bias = layout.add(&shape[..1], Init::Constant(0.0), 0);
        Self { weight, bias, reach }
    }

    pub fn forward(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        convolve(x, &w[self.weight], &w[self.bias], self.reach, false)
    }

    /// The same, computed in `kind`: bfloat16 is faster while training, on processors that have it.
    pub fn forward_in(&self, kind: Kind, w: &[Tensor], x: &Tensor) -> Tensor {
        convolve_in(kind, x, &w[self.weight], &w[self.bias], self.reach, false)
    }
}

/// The way back from `Conv::halve`: a transposed 2x2 convolution of stride 2.
pub struct Double {
    weight: usize,
    bias: usize,
}

impl Double {
    const REACH: Reach = Reach { stride: 2, padding: [0; 2], dilation: 1 };

    /// `side`: the side of the square image it reads.
    pub fn new(layout: &mut Layout, inputs: i64, outputs: i64, side: i64) -> Self {
        let weight = layout.add(&[inputs, outputs, 2, 2], Init::FanIn(inputs), side * side);
        let bias = layout.add(&[outputs], Init::Constant(0.0), 0);
        Self { weight, bias }
    }

    pub fn forward(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        convolve(x, &w[self.weight], &w[self.bias], Self::REACH, true)
    }

    pub fn forward_in(&self, kind: Kind, w: &[Tensor], x: &Tensor) -> Tensor {
        convolve_in(kind, x, &w[self.weight], &w[self.bias], Self::REACH, true)
    }
}

fn convolve_in(kind: Kind, x: &Tensor, weight: &Tensor, bias: &Tensor, reach: Reach, transposed: bool) -> Tensor {
    // No conversions in the trace of a network in f32.
    if kind == Kind::Float {
        return convolve(x, weight, bias, reach, transposed);
    }
    let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_kind(kind));
    convolve(&x, &weight, &bias, reach, transposed).to_kind(Kind::Float)
}

/// The general form of a convolution, because a trace keeps its flags for good: an
/// exported network must not drop to TensorFloat-32 on a GPU, whose three digits would drown the
/// errors that solvers are compared by, and should answer the same each time.
fn convolve(x: &Tensor, weight: &Tensor, bias: &Tensor, reach: Reach, transposed: bool) -> Tensor {
    let (stride, padding, dilation) = ([reach.stride; 2], reach.padding, [reach.dilation; 2]);
    let (output_padding, groups) = ([0, 0], 1);
    let (benchmark, deterministic, cudnn, tf32) = (false, true, true, false);
    x.internal_convolution(
        weight,
        Some(bias),
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
        benchmark,
        deterministic,
        cudnn,
        tf32,
    )
}

/// A time as sines and cosines, from one radian a step down to one in 10,000 in equal ratios, as in the transformer that it
/// comes from, through two layers.
pub struct TimeEmbedding {
    frequencies: Tensor,
    layers: [Linear; 2],
}

impl TimeEmbedding {
    pub fn new(layout: &mut Layout, frequencies: i64, width: i64, device: Device) -> Self {
        let exponents = Tensor::arange(frequencies, (Kind::Float, device)) / frequencies as f64;
        Self {
            frequencies: (exponents * -10_000f64.ln()).exp(),
            layers: [Linear::new(layout, 2 * frequencies, width), Linear::new(layout, width, width)],
        }
    }

    /// timestep [B] to [B, width].
    pub fn forward(&self, w: &[Tensor], timestep: &Tensor) -> Tensor {
        let angles = timestep.unsqueeze(-1) * &self.frequencies;
        let waves = Tensor::cat(&[angles.sin(), angles.cos()], -1);
        self.layers[1].forward(w, &self.layers[0].forward(w, &waves).silu())
    }
}

pub struct GroupNorm {
    scale: usize,
    shift: usize,
}

const GROUPS: i64 = 8;

impl GroupNorm {
    pub fn new(layout: &mut Layout, channels: i64) -> Self {
        let scale = layout.add(&[channels], Init::Constant(1.0), 0);
        let shift = layout.add(&[channels], Init::Constant(0.0), 0);
        Self { scale, shift }
    }

    pub fn forward(&self, w: &[Tensor], x: &Tensor) -> Tensor {
        x.group_norm(GROUPS, Some(&w[self.scale]), Some(&w[self.shift]), 1e-5, true)
    }
}

/// Normalises, then scales and shifts each channel by what `embedding` (time and class) says.
pub struct ConditionedNorm {
    film: Linear,
}

impl ConditionedNorm {
    pub fn new(layout: &mut Layout, embedding: i64, channels: i64) -> Self {
        Self { film: Linear::zero(layout, embedding, 2 * channels) }
    }

    pub fn forward(&self, w: &[Tensor], x: &Tensor, embedding: &Tensor) -> Tensor {
        let normal = x.group_norm(GROUPS, None::<&Tensor>, None::<&Tensor>, 1e-5, true);
        let film = self.film.forward(w, embedding).unsqueeze(-1).unsqueeze(-1).chunk(2, 1);
        normal * (&film[0] + 1.0) + &film[1]
    }
}
