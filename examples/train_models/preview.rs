//! A look at what a trained network draws: an image grid, and the classifier's opinion.

use std::path::Path;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use crate::paths::GaussianPath;

/// The midpoint rule with 50 steps, 100 evaluations of `output` (x, t [B]) → the network's answer.
pub fn sample(path: GaussianPath, noise: &Tensor, output: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
    const STEPS: i64 = 50;
    let velocity = |x: &Tensor, t: f64| {
        let times = Tensor::full([x.size()[0]], t, (Kind::Float, x.device()));
        path.velocity(&output(x, &times), x, t)
    };
    let h = path.end() / STEPS as f64;
    let mut x = noise.shallow_clone();
    for i in 0..STEPS {
        let t = i as f64 * h;
        let middle = &x + velocity(&x, t) * (h / 2.0);
        x = &x + velocity(&middle, t + h / 2.0) * h;
    }
    x
}

/// Writes images [rows x columns, C, H, W] in [-1, 1] as one enlarged grid, row by row.
pub fn save_grid(images: &Tensor, columns: i64, path: &Path) -> Result<()> {
    const ENLARGE: i64 = 5;
    let framed = images.clamp(-1.0, 1.0).constant_pad_nd([0, 1, 0, 1]);
    let (count, channels, height, width) = framed.size4()?;
    let rows = count / columns;
    let grid = framed
        .narrow(0, 0, rows * columns)
        .view([rows, columns, channels, height, width])
        .permute([2, 0, 3, 1, 4])
        .reshape([1, channels, rows * height, columns * width])
        .expand([1, 3, rows * height, columns * width], false);
    let large = grid.upsample_nearest2d([rows * height * ENLARGE, columns * width * ENLARGE], None, None);
    let pixels = ((large + 1.0) * 127.5).round();
    tch::vision::image::save(&pixels, path).with_context(|| format!("cannot write {}", path.display()))?;
    println!("  {}", path.display());
    Ok(())
}

/// Contrast of images: deviation of the values, and of the step from one pixel to the next.
pub fn contrast(images: &Tensor) -> (f64, f64) {
    let side = images.size()[3];
    let steps = images.narrow(3, 1, side - 1) - images.narrow(3, 0, side - 1);
    (images.std(true).double_value(&[]), steps.std(true).double_value(&[]))
}

/// Rms distance from each image to the nearest of `others`, the median over the images. With the
/// same tensor twice, an image is not its own neighbour.
pub fn nearest(images: &Tensor, others: &Tensor) -> f64 {
    let (a, b) = (images.flatten(1, -1), others.flatten(1, -1));
    let distances = Tensor::cdist(&a, &b, 2.0, None::<i64>) / (a.size()[1] as f64).sqrt();
    let distances = if std::ptr::eq(images, others) {
        distances.shallow_clone().fill_diagonal_(f64::INFINITY, false)
    } else {
        distances
    };
    distances.amin([1], false).median().double_value(&[])
}
