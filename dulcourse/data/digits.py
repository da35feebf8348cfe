"""1 797 scanned 8×8 digits, in 17 levels or 2 bits, that come with scikit-learn."""

from functools import cache

import numpy as np
import torch

from dulcourse.data.dataset import Dataset, one_of
from dulcourse.data.shipped import shipped

__all__ = ["LEVELS", "load"]

LEVELS = (17, 4)
_EDGES = {"train": slice(0, 1257), "validation": slice(1257, 1437), "test": slice(1437, None)}


def load(split: str, *, seed: int = 0, levels: int = 17) -> Dataset:
    """A split of the permutation `default_rng(seed)`: 1 257 to train on, 180 to validate, 360 to test.

    With `levels=4` a value v of 0 … 16 becomes ⌊4v/17⌋.
    """
    one_of("levels of digits", levels, LEVELS)
    images, labels = _scans()
    chosen = np.random.default_rng(seed).permutation(len(images))[_EDGES[split]]
    x = torch.from_numpy(images[chosen] * levels // 17).unsqueeze(1)
    return Dataset("digits", split, x, torch.from_numpy(labels[chosen]), levels)


@cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    rows = np.loadtxt(shipped("data/digits.csv.gz"), delimiter=",", dtype=np.int64)
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
