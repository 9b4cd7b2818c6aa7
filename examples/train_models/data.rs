//! What the networks learn from, scaled to [-1, 1] and kept on the device.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::network::SIDE;

pub struct Data {
    /// [N, C, 8, 8]
    pub images: Tensor,
    /// int64 [N], for data that has classes.
    pub labels: Option<Tensor>,
    /// From one grey level to the next.
    pub level: f64,
}

impl Data {
    pub fn digits(folder: &Path, device: Device) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            Tensor::read_npy(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let images = read("digits-images.npy")?;
        let labels = read("digits-labels.npy")?;
        ensure!(
            images.size().get(1..) == Some(&[1, SIDE, SIDE]) && labels.size() == [images.size()[0]],
            "digits: images are {:?} and labels {:?}, expected [N, 1, {SIDE}, {SIDE}] and [N]",
            images.size(),
            labels.size()
        );
        let level = 1.0 / 8.0;
        let images = images.to_device(device).to_kind(Kind::Float) * level - 1.0;
        Ok(Self { images, labels: Some(labels.to_device(device).to_kind(Kind::Int64)), level })
    }

    /// Every 8x8 patch of every photograph, and its mirror image.
    pub fn photos(folder: &Path, device: Device) -> Result<Self> {
        let mut patches = Vec::new();
        for name in ["china.png", "flower.png"] {
            let path = folder.join("photos").join(name);
            let photo = tch::vision::image::load(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let windows = photo.to_device(device).unfold(1, SIDE, 1).unfold(2, SIDE, 1);
            let windows = windows.permute([1, 2, 0, 3, 4]).reshape([-1, 3, SIDE, SIDE]);
            patches.push(windows.flip([-1]));
            patches.push(windows);
        }
        let level = 1.0 / 127.5;
        let images = Tensor::cat(&patches, 0).to_kind(Kind::Float) * level - 1.0;
        Ok(Self { images, labels: None, level })
    }

    /// At most `count` images drawn without replacement, dequantised as in training.
    fn dequantised(&self, count: i64) -> Tensor {
        let index = Tensor::randperm(self.count(), (Kind::Int64, self.images.device())).slice(0, 0, count, 1);
        let images = self.images.index_select(0, &index);
        &images + (images.rand_like() - 0.5) * self.level
    }

    pub fn count(&self) -> i64 {
        self.images.size()[0]
    }

    pub fn channels(&self) -> i64 {
        self.images.size()[1]
    }

    /// A batch drawn with replacement, without the host learning which.
    pub fn batch(&self, size: i64) -> (Tensor, Option<Tensor>) {
        let index = Tensor::randint(self.count(), [size], (Kind::Int64, self.images.device()));
        (self.images.index_select(0, &index), self.labels.as_ref().map(|l| l.index_select(0, &index)))
    }
}

/// Photographs, whose pieces may be of any width.
pub struct Photographs {
    /// [3, H, W] each.
    photos: Vec<Tensor>,
    /// From one grey level to the next.
    pub level: f64,
}

impl Photographs {
    pub fn read(folder: &Path, device: Device) -> Result<Self> {
        let level = 1.0 / 127.5;
        let photo = |name: &str| {
            let path = folder.join("photos").join(name);
            let photo = tch::vision::image::load(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(photo.to_device(device).to_kind(Kind::Float) * level - 1.0)
        };
        Ok(Self { photos: ["china.png", "flower.png"].into_iter().map(photo).collect::<Result<_>>()?, level })
    }

    pub fn count(&self) -> i64 {
        self.photos.len() as i64
    }

    /// About `size` pieces [B, 3, 8, width] from anywhere, as many of each photograph and half of them mirrored,
    /// and the numbers of their photographs, int64 [B].
    pub fn batch(&self, size: i64, width: i64) -> (Tensor, Tensor) {
        let each = (size / self.count() / 2).max(1);
        let (mut pieces, mut numbers) = (Vec::new(), Vec::new());
        for (number, photo) in self.photos.iter().enumerate() {
            let windows = photo.unfold(1, SIDE, 1).unfold(2, width, 1);
            let options = (Kind::Int64, photo.device());
            let at = |n: i64| Some(Tensor::randint(n, [2 * each], options));
            let found = windows.index(&[None, at(windows.size()[1]), at(windows.size()[2])]).transpose(0, 1);
            pieces.push(found.narrow(0, 0, each));
            pieces.push(found.narrow(0, each, each).flip([-1]));
            numbers.push(Tensor::full([2 * each], number as i64, options));
        }
        (Tensor::cat(&pieces, 0), Tensor::cat(&numbers, 0))
    }
}

/// Photographs have hundreds of thousands of patches.
const REFERENCE: i64 = 10_000;

/// Writes `digits.npy` and `photos.npy`, float32 in [-1, 1].
pub fn write_reference(data: &Path, folder: &Path, seed: i64) -> Result<()> {
    tch::manual_seed(seed);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let sets = [("digits.npy", Data::digits(data, Device::Cpu)?), ("photos.npy", Data::photos(data, Device::Cpu)?)];
    for (name, data) in sets {
        let images = data.dequantised(REFERENCE).to_kind(Kind::Float).contiguous();
        images.write_npy(folder.join(name)).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}
