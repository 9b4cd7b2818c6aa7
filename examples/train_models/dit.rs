//! A diffusion transformer (Peebles and Xie 2023) on colour images of 32 x 32: patches are tokens, time and the mean of a
//! text scale, shift and gate every layer, and each block looks at the text's tokens (as Chen et al. 2023, PixArt). Two
//! convolutions at its end see the image and what the tokens say of it, so that patches have no seams (as Bao et al. 2023,
//! U-ViT).

use tch::{Device, Kind, Tensor};

use crate::layers::{Conv, Init, Layout, Linear, TimeEmbedding};
use crate::text;

pub const SIDE: i64 = 32;
pub const CHANNELS: i64 = 3;

const PATCH: i64 = 4;
/// Patches along a side, and all of them.
const PATCHES: i64 = SIDE / PATCH;
const PLACES: i64 = PATCHES * PATCHES;
const WIDTH: i64 = 128;
const HEADS: i64 = 4;
const BLOCKS: usize = 6;
const FREQUENCIES: i64 = 64;
/// Channels of a pixel at the end: from the tokens, and from the image.
const SAID: i64 = WIDTH / (PATCH * PATCH);
const SEEN: i64 = 16;
/// Times of [0, 1] count as 1,000 steps in the embedding.
const TIMESTEPS: f64 = 1000.0;

pub const TEXTS: text::Sizes = text::Sizes { token: 16, width: 96, embedding: WIDTH };

/// Scaled dot products of the heads, on [B, places, WIDTH] each; `bias` is added to the scores, [B, 1, 1, places].
fn attend(query: &Tensor, key: &Tensor, value: &Tensor, bias: Option<&Tensor>) -> Tensor {
    const EACH: i64 = WIDTH / HEADS;
    let heads = |x: &Tensor| x.unflatten(2, [HEADS, EACH]).transpose(1, 2);
    let scores = (heads(query) * (EACH as f64).powf(-0.5)).matmul(&heads(key).transpose(-2, -1));
    let scores = bias.map_or_else(|| scores.shallow_clone(), |bias| &scores + bias);
    scores.softmax(-1, query.kind()).matmul(&heads(value)).transpose(1, 2).flatten(2, 3)
}

fn normal(x: &Tensor) -> Tensor {
    x.layer_norm([WIDTH], None::<&Tensor>, None::<&Tensor>, 1e-6, true)
}

struct Block {
    /// Shift, scale and gate of the attention, and of the layers after it: the block starts as the identity.
    modulation: Linear,
    asked: Linear,
    answer: Linear,
    question: Linear,
    told: Linear,
    reply: Linear,
    widen: Linear,
    narrow: Linear,
}

impl Block {
    fn new(l: &mut Layout) -> Self {
        let mut at = |inputs, outputs| Linear::at(l, inputs, outputs, Init::FanIn(inputs), PLACES);
        let (asked, answer, question) = (at(WIDTH, 3 * WIDTH), at(WIDTH, WIDTH), at(WIDTH, WIDTH));
        let (widen, narrow) = (at(WIDTH, 4 * WIDTH), at(4 * WIDTH, WIDTH));
        Self {
            modulation: Linear::zero(l, WIDTH, 6 * WIDTH),
            told: Linear::new(l, TEXTS.token, 2 * WIDTH),
            reply: Linear::at(l, WIDTH, WIDTH, Init::Constant(0.0), PLACES),
            asked,
            answer,
            question,
            widen,
            narrow,
        }
    }

    fn forward(&self, kind: Kind, w: &[Tensor], x: &Tensor, e: &Tensor, text: &Tensor, mask: &Tensor) -> Tensor {
        let m = self.modulation.forward(w, e).unsqueeze(1).chunk(6, 2);
        let h = normal(x) * (&m[1] + 1.0) + &m[0];
        let asked = self.asked.forward_in(kind, w, &h).chunk(3, 2);
        let seen = attend(&asked[0], &asked[1], &asked[2], None);
        let x = x + &m[2] * self.answer.forward_in(kind, w, &seen);
        let told = self.told.forward_in(kind, w, text).chunk(2, 2);
        let read = attend(&self.question.forward_in(kind, w, &normal(&x)), &told[0], &told[1], Some(mask));
        let x = x + self.reply.forward_in(kind, w, &read);
        let h = normal(&x) * (&m[4] + 1.0) + &m[3];
        let h = self.widen.forward_in(kind, w, &h).gelu("tanh");
        x + &m[5] * self.narrow.forward_in(kind, w, &h)
    }
}

/// Everything but the weights' values.
pub struct DiT {
    pub layout: Layout,
    time: TimeEmbedding,
    encoder: text::Encoder,
    reader: text::Reader,
    patches: Linear,
    places: usize,
    blocks: Vec<Block>,
    modulation: Linear,
    say: Linear,
    see: Conv,
    join: Conv,
    output: Conv,
}

impl DiT {
    pub fn new(device: Device) -> Self {
        let mut layout = Layout::default();
        let l = &mut layout;
        let pixels = CHANNELS * PATCH * PATCH;
        Self {
            time: TimeEmbedding::new(l, FREQUENCIES, WIDTH, device),
            encoder: text::Encoder::new(l, TEXTS),
            reader: text::Reader::new(l, TEXTS),
            patches: Linear::at(l, pixels, WIDTH, Init::FanIn(pixels), PLACES),
            places: l.add(&[PLACES, WIDTH], Init::FanIn(25), 0),
            blocks: (0..BLOCKS).map(|_| Block::new(l)).collect(),
            modulation: Linear::zero(l, WIDTH, 2 * WIDTH),
            say: Linear::at(l, WIDTH, WIDTH, Init::FanIn(WIDTH), PLACES),
            see: Conv::same(l, CHANNELS, SEEN, SIDE),
            join: Conv::same(l, SAID + SEEN, SAID + SEEN, SIDE),
            output: Conv::same_zero(l, SAID + SEEN, CHANNELS, SIDE),
            layout,
        }
    }

    pub fn encoder(&self) -> &text::Encoder {
        &self.encoder
    }

    /// x [B, 3, 32, 32], t [B] in [0, 1], text [B, tokens, 16] as the encoder writes it; large layers in `kind`.
    ///
    /// No number here may depend on the batch size or on the tokens and no tensor may be made here: they would be frozen
    /// into the exported trace.
    pub fn forward(&self, kind: Kind, w: &[Tensor], x: &Tensor, t: &Tensor, text: &Tensor) -> Tensor {
        let e = (self.time.forward(w, &(t * TIMESTEPS)) + self.reader.forward(w, text)).silu();
        // Tokens of zeros are not looked at. Where there are no others all are, and say one and the same.
        let mask = ((text::says(text) - 1.0) * 1e4).transpose(1, 2).unsqueeze(1).to_kind(kind);

        let patches = x.pixel_unshuffle(PATCH).flatten(2, 3).transpose(1, 2);
        let mut h = self.patches.forward_in(kind, w, &patches) + &w[self.places];
        for block in &self.blocks {
            h = block.forward(kind, w, &h, &e, text, &mask);
        }
        let m = self.modulation.forward(w, &e).unsqueeze(1).chunk(2, 2);
        let said = self.say.forward_in(kind, w, &(normal(&h) * (&m[1] + 1.0) + &m[0])).to_kind(Kind::Float);
        let said = said.transpose(1, 2).unflatten(2, [PATCHES, PATCHES]).pixel_shuffle(PATCH);
        let both = Tensor::cat(&[said, self.see.forward_in(kind, w, x)], 1).silu();
        self.output.forward_in(kind, w, &self.join.forward_in(kind, w, &both).silu())
    }
}
