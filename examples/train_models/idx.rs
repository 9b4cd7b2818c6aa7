//! Fashion-MNIST, in the IDX files that it is published in.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::unet::SIDE;

pub struct Fashion {
    /// uint8 [N, 1, 28, 28]: as they are, since a float takes four times the memory.
    images: Tensor,
    /// int64 [N]
    pub labels: Tensor,
}

impl Fashion {
    /// `part`: `train`, 60,000 images, or `t10k`, the 10,000 that are kept for tests.
    pub fn read(folder: &Path, part: &str, device: Device) -> Result<Self> {
        let images = read(&folder.join(format!("{part}-images-idx3-ubyte")))?;
        let labels = read(&folder.join(format!("{part}-labels-idx1-ubyte")))?;
        let count = images.size()[0];
        ensure!(
            images.size() == [count, SIDE, SIDE] && labels.size() == [count],
            "{}: images are {:?} and labels {:?}, expected [N, {SIDE}, {SIDE}] and [N]",
            folder.display(),
            images.size(),
            labels.size()
        );
        let (images, labels) = (images.unsqueeze(1).to_device(device), labels.to_device(device).to_kind(Kind::Int64));
        Ok(Self { images, labels })
    }

    pub fn count(&self) -> i64 {
        self.images.size()[0]
    }

    /// The images of these numbers, scaled to [-1, 1], and their labels.
    pub fn select(&self, index: &Tensor) -> (Tensor, Tensor) {
        let images = self.images.index_select(0, index).to_kind(Kind::Float) / 127.5 - 1.0;
        (images, self.labels.index_select(0, index))
    }

    /// A batch drawn with replacement.
    pub fn batch(&self, size: i64) -> (Tensor, Tensor) {
        self.select(&Tensor::randint(self.count(), [size], (Kind::Int64, self.images.device())))
    }

    /// The first `count` images.
    pub fn first(&self, count: i64) -> (Tensor, Tensor) {
        self.select(&Tensor::arange(count.min(self.count()), (Kind::Int64, self.images.device())))
    }
}

/// A file of bytes: two of zero, 8 for their type, the number of sizes, the sizes as big-endian 32-bit numbers, and
/// the bytes.
fn read(path: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(path).with_context(|| {
        format!("cannot read {}; `make fashion-data` fetches Fashion-MNIST to demo/fashion", path.display())
    })?;
    parse(&bytes).with_context(|| format!("{} is no IDX file of bytes", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Tensor> {
    let (head, rest) = bytes.split_at_checked(4).context("it ends within its first four bytes")?;
    ensure!(head[..3] == [0, 0, 8], "it begins with {head:?}, expected [0, 0, 8, sizes]");
    let (sizes, values) =
        rest.split_at_checked(4 * usize::from(head[3])).with_context(|| format!("it ends within {} sizes", head[3]))?;
    let sizes: Vec<i64> =
        sizes.chunks_exact(4).map(|s| i64::from(u32::from_be_bytes([s[0], s[1], s[2], s[3]]))).collect();
    let expected = sizes.iter().try_fold(1i64, |product, size| product.checked_mul(*size));
    ensure!(
        expected == i64::try_from(values.len()).ok(),
        "{} bytes follow the sizes {sizes:?}, which ask for {expected:?}",
        values.len()
    );
    Ok(Tensor::from_slice(values).view(sizes.as_slice()))
}
