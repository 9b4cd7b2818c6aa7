"""Writes data/ from the data sets that scikit-learn carries inside its own package.

    pip install scikit-learn pillow
    python scripts/make-data.py

Nothing is downloaded: the digits and the two photographs are files of the scikit-learn wheel.
data/README.md says where each comes from and under which licence.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn import datasets

DATA = Path(__file__).resolve().parent.parent / "data"

# Half size: an 8x8 patch of the full photograph is nearly always a flat colour.
PHOTO_SHRINK = 2


def main() -> None:
    (DATA / "photos").mkdir(parents=True, exist_ok=True)

    digits = datasets.load_digits()
    images = digits.images.astype(np.uint8)[:, None]  # whole numbers 0..16, kept as they are
    assert (images[:, 0] == digits.images).all()
    np.save(DATA / "digits-images.npy", images)
    np.save(DATA / "digits-labels.npy", digits.target.astype(np.uint8))

    for name in ("china", "flower"):
        photo = Image.fromarray(datasets.load_sample_image(f"{name}.jpg"))
        size = (photo.width // PHOTO_SHRINK, photo.height // PHOTO_SHRINK)
        photo.resize(size, Image.Resampling.LANCZOS).save(DATA / "photos" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
