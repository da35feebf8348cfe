"""RGB patches of the two photographs that come with scikit-learn: a temple and a flower.

Each photograph is cut into vertical strips; training, validation and test patches come from different strips,
so that no pixel is in two splits. The photographs are public, so there are no fresh patches.
"""

from functools import cache

import numpy as np
import torch
from PIL import Image

from dulcourse.data.dataset import Dataset, one_of, positive
from dulcourse.data.shipped import shipped

__all__ = ["LEVELS", "SIDES", "SIZES", "STRIPS", "load"]

SIZES = {"train": 8192, "validation": 1024, "test": 2048}
SIDES = (8, 16, 32)
LEVELS = (256, 32, 4)
STRIPS = {  # columns of a photograph, which is 640 wide
    "train": ((0, 192), (320, 512)),
    "validation": ((192, 256), (512, 576)),
    "test": ((256, 320), (576, 640)),
}


def load(split: str, *, seed: int = 0, size: int = 8, levels: int = 256, n: int | None = None) -> Dataset:
    """`n` patches at places of their split drawn by `default_rng(seed)`; y is the photograph, 0 or 1.

    A value v of 0 … 255 becomes ⌊levels · v / 256⌋.
    """
    one_of("size of photos", size, SIDES)
    one_of("levels of photos", levels, LEVELS)
    n = SIZES[split] if n is None else positive("n", n)
    pictures = _photographs()
    columns = np.concatenate([np.arange(low, high - size + 1) for low, high in STRIPS[split]])
    rng = np.random.default_rng(seed)
    which = rng.integers(len(pictures), size=n)
    row = rng.integers(pictures.shape[1] - size + 1, size=n)
    patches = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), axis=(1, 2))
    x = patches[which, row, rng.choice(columns, size=n)].astype(np.int64) * levels // 256
    return Dataset("photos", split, torch.from_numpy(x), torch.from_numpy(which), levels)


@cache
def _photographs() -> np.ndarray:
    """uint8 `[2, 427, 640, 3]`."""
    return np.stack([np.asarray(Image.open(shipped(f"images/{name}.jpg"))) for name in ("china", "flower")])
