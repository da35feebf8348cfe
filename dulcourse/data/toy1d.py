"""A mixture on 0 … 99 whose law is known, so that its entropy is a number a model can be held against."""

from collections.abc import Sequence
from functools import cache
from math import erf, sqrt

import numpy as np
import torch

from dulcourse.data.dataset import Dataset
from dulcourse.randomness import uniforms

__all__ = ["LEVELS", "SIZES", "draw", "probabilities"]

LEVELS = 100
SIZES = {"train": 4096, "validation": 1024, "test": 2048}

# weight, mean, standard deviation: a clump cut off at 0, two that overlap, and a sharp one
_CLUMPS = ((0.20, 4.0, 6.0), (0.30, 33.0, 6.0), (0.35, 52.0, 10.0), (0.15, 86.0, 2.0))


@cache
def probabilities() -> np.ndarray:
    """P(x) = Σ_k π_k [Φ((x+½−μ_k)/σ_k) − Φ((x−½−μ_k)/σ_k)], float64 `[100]`, the tails added to 0 and 99."""
    p = np.diff([_below(edge) for edge in range(LEVELS + 1)])
    p.setflags(write=False)
    return p


def draw(indices: Sequence[int], *, key: bytes, split: str = "fresh") -> Dataset:
    """Number i is the value at which the distribution function passes a uniform draw of its own."""
    u = uniforms(key, indices, 1)[:, 0]
    inner = [_below(edge) for edge in range(1, LEVELS)]
    x = torch.from_numpy(np.searchsorted(inner, u, side="right").astype(np.int64))
    return Dataset("toy1d", split, x.reshape(-1, 1, 1, 1), levels=LEVELS)


def _below(edge: int) -> float:
    """P(x < edge)."""
    if edge in (0, LEVELS):
        return float(edge > 0)
    return sum(weight * (1 + erf((edge - 0.5 - mean) / (std * sqrt(2)))) / 2 for weight, mean, std in _CLUMPS)
