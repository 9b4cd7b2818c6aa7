//! Pieces of photographs, eight pixels high and of any width: a network of convolutions alone.

use anyhow::Result;
use serde_json::json;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

use crate::data::Photographs;
use crate::fit::{self, Settings};
use crate::generative::{kept, times};
use crate::layers::{Conv, GroupNorm, Init, Layout, Linear};
use crate::network::{Block, EMBEDDING, SIDE, TimeEmbedding};
use crate::paths::GaussianPath;
use crate::{Arguments, export, preview};

const NAME: &str = "photos-wide";
const COLOURS: i64 = 3;
const CHANNELS: i64 = 16;
/// Of the blocks: together a pixel sees 20 to either side.
const DILATIONS: [i64; 5] = [1, 2, 4, 2, 1];
/// Widths of the pieces it learns from.
const WIDTHS: std::ops::RangeInclusive<i64> = 6..=24;
const PATH: GaussianPath = GaussianPath::FmOt;

/// Everything but the weights' values.
struct Network {
    layout: Layout,
    time: TimeEmbedding,
    photo: usize,
    stem: Conv,
    blocks: Vec<Block>,
    norm: GroupNorm,
    output: Conv,
    skip: Linear,
}

impl Network {
    /// `photos` counts them; one more number is kept for "none", which guidance needs.
    fn new(photos: i64, device: Device) -> Self {
        let mut layout = Layout::default();
        let l = &mut layout;
        Self {
            time: TimeEmbedding::new(l, device),
            photo: l.add(&[photos + 1, EMBEDDING], Init::FanIn(1), 0),
            stem: Conv::same(l, COLOURS, CHANNELS, SIDE),
            blocks: DILATIONS.iter().map(|dilation| Block::dilated(l, CHANNELS, SIDE, *dilation)).collect(),
            norm: GroupNorm::new(l, CHANNELS),
            output: Conv::same_zero(l, CHANNELS, COLOURS, SIDE),
            skip: Linear::zero(l, EMBEDDING, COLOURS),
            layout,
        }
    }

    /// x [B, 3, 8, width], t [B], photo int64 [B]. As in the other network, no number here may depend on a size.
    fn forward(&self, w: &[Tensor], x: &Tensor, t: &Tensor, photo: &Tensor) -> Tensor {
        let embedding = self.time.forward(w, t) + Tensor::embedding(&w[self.photo], photo, -1, false, false);
        let embedding = embedding.silu();
        let stem = self.stem.forward(w, x);
        let h = self.blocks.iter().fold(stem, |h, block| block.forward(w, &h, &embedding));
        let output = self.output.forward(w, &self.norm.forward(w, &h).silu());
        output + x * self.skip.forward(w, &embedding).unsqueeze(-1).unsqueeze(-1)
    }
}

pub fn train(arguments: &Arguments, device: Device) -> Result<()> {
    tch::manual_seed(arguments.seed);
    let photographs = Photographs::read(&arguments.data, device)?;
    let on_gpu = device != Device::Cpu;
    let batch = arguments.batch.unwrap_or(if on_gpu { 1024 } else { 64 });
    let settings = Settings {
        iterations: arguments.iterations.unwrap_or(if on_gpu { 12_000 } else { 3_000 }),
        learning_rate: 2e-3,
        weight_decay: 0.05,
    };
    let network = Network::new(photographs.count(), device);
    println!(
        "{NAME}: {} parameters, {:.2} million multiply-adds at width {SIDE}, {} iterations of {batch}",
        network.layout.parameters(),
        network.layout.multiply_adds() as f64 / 1e6,
        settings.iterations
    );
    let widths = WIDTHS.end() - WIDTHS.start() + 1;
    let mut iteration = 0;
    let weights = fit::fit(&network.layout, &settings, device, |w| {
        // All widths in turn, neighbours far apart; 7 has no factor in common with their number.
        iteration += 1;
        let (x1, photo) = photographs.batch(batch, WIDTHS.start() + 7 * iteration % widths);
        let x1 = &x1 + (x1.rand_like() - 0.5) * photographs.level;
        let count = x1.size()[0];
        // Pieces come sorted by photograph.
        let t = times(count, PATH.end(), device).index_select(0, &Tensor::randperm(count, (Kind::Int64, device)));
        let photo = photo.where_self(&kept(count, device), &photo.full_like(photographs.count()));
        let x0 = x1.randn_like();
        let (alpha, sigma) = PATH.alpha_sigma(&t.view([-1, 1, 1, 1]));
        let x = &alpha * &x1 + &sigma * &x0;
        let target = PATH.target(&x0, &x1, &alpha, &sigma);
        network.forward(w, &x, &t, &photo).mse_loss(&target, Reduction::Mean)
    })?;
    write(arguments, &weights, photographs.count())?;
    no_grad(|| judge(arguments, &network, &weights, &photographs))
}

fn write(arguments: &Arguments, weights: &Tensor, photos: i64) -> Result<()> {
    let network = Network::new(photos, Device::Cpu);
    let weights = export::host_weights(&network.layout, weights);
    let inputs = |batch: i64| {
        let options = (Kind::Float, Device::Cpu);
        vec![
            Tensor::randn([batch, COLOURS, SIDE, 5 + batch % 9], options),
            Tensor::rand([batch], options) * PATH.end(),
            Tensor::randint(photos + 1, [batch], (Kind::Int64, Device::Cpu)),
        ]
    };
    let file = format!("{NAME}.pt");
    let target = arguments.out.join(&file);
    export::export(&target, "VelocityNetwork", inputs, |x| network.forward(&weights, &x[0], &x[1], &x[2]))?;
    let given = json!({ "inputs": [{ "name": "photo", "dtype": "int64", "shape": [], "null": photos }] });
    let (shape, card) = (json!([COLOURS, SIDE, "width"]), arguments.out.join(format!("{NAME}.json")));
    export::write_card(&card, &file, shape, PATH.reading(), given, "photos-features.json")?;
    let rate = export::throughput(&target, inputs)?;
    println!("  {rate:.0} samples per second forward at batch 512, {} threads", tch::get_num_threads());
    Ok(())
}

/// Draws pieces of several widths, wider than it has learned from among them, and compares their contrast.
fn judge(arguments: &Arguments, network: &Network, weights: &Tensor, photographs: &Photographs) -> Result<()> {
    const SAMPLES: i64 = 400;
    let w = network.layout.split(weights);
    for width in [8, 16, 32] {
        let (data, photo) = photographs.batch(SAMPLES, width);
        let noise = data.randn_like();
        let samples = preview::sample(PATH, &noise, |x, t| network.forward(&w, x, t, &photo));
        let ((value, step), (data_value, data_step)) = (preview::contrast(&samples), preview::contrast(&data));
        println!(
            "  width {width}: deviation of values {value:.3} (data {data_value:.3}), of steps between pixels {step:.3} (data {data_step:.3})"
        );
        if let Some(folder) = &arguments.preview {
            preview::save_grid(&samples, 20, &folder.join(format!("{NAME}-{width}.png")))?;
        }
    }
    Ok(())
}
