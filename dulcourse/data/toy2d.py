"""Points of the plane in shapes that are hard for a Gaussian: moons, spirals, a checkerboard, a face, …

Every shape is centred and scaled so that a coordinate's standard deviation is about 1.
"""

from collections.abc import Callable

import numpy as np
import torch

from dulcourse.data.dataset import Dataset, one_of, positive
from dulcourse.randomness import derive, generator

__all__ = ["KINDS", "load"]

_SIZES = {"train": 8192, "validation": 2048, "test": 4096}


def load(split: str, *, seed: int = 0, kind: str = "moons", n: int | None = None) -> Dataset:
    """`n` points of a shape; y is which of its parts (moon, arm, square, ring, …) a point belongs to."""
    one_of("kind of toy2d", kind, sorted(KINDS))
    n = _SIZES[split] if n is None else positive("n", n)
    rng = generator(derive(b"dulcourse.data", "toy2d", split, seed), kind)
    points, part = KINDS[kind](n, rng)
    x = torch.from_numpy(points.astype(np.float32))
    return Dataset("toy2d", split, x, torch.from_numpy(part.astype(np.int64)))


Shape = tuple[np.ndarray, np.ndarray]  # points [n, 2], the part each belongs to [n]


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _moons(n: int, rng: np.random.Generator) -> Shape:
    moon = rng.integers(2, size=n)
    arc = _polar(np.ones(n), np.pi * rng.random(n))
    arc[moon == 1] = [1.0, 0.5] - arc[moon == 1]
    noisy = arc + 0.08 * rng.standard_normal((n, 2))
    return (noisy - [0.5, 0.25]) * [1.15, 2.0], moon


def _spirals(n: int, rng: np.random.Generator) -> Shape:
    arm = rng.integers(2, size=n)
    turns = np.sqrt(rng.random(n)) * 1.5  # the root spreads the points evenly along an arm
    points = _polar(1.35 * turns, 2 * np.pi * turns + np.pi * arm)
    return points + 0.06 * rng.standard_normal((n, 2)), arm


def _checkerboard(n: int, rng: np.random.Generator) -> Shape:
    square = rng.integers(8, size=n)
    column, row = square // 2, 2 * (square % 2) + square // 2 % 2
    corner = np.stack([column, row], axis=1)
    return (corner + rng.random((n, 2)) - 2) * np.sqrt(0.75), square


def _rings(n: int, rng: np.random.Generator) -> Shape:
    ring = rng.integers(3, size=n)
    radius = 0.65 * (ring + 1) + 0.05 * rng.standard_normal(n)
    return _polar(radius, 2 * np.pi * rng.random(n)), ring


def _eight_gaussians(n: int, rng: np.random.Generator) -> Shape:
    clump = rng.integers(8, size=n)
    return _polar(np.full(n, 1.4), np.pi / 4 * clump) + 0.12 * rng.standard_normal((n, 2)), clump


def _pinwheel(n: int, rng: np.random.Generator) -> Shape:
    blade = rng.integers(5, size=n)
    radius, across = 1.3 + 0.4 * rng.standard_normal(n), 0.1 * rng.standard_normal(n)
    angle = 2 * np.pi / 5 * blade + 0.8 * np.exp(radius - 1)
    return _polar(np.hypot(radius, across), angle + np.arctan2(across, radius)), blade


def _face(n: int, rng: np.random.Generator) -> Shape:
    """The outline of a head (0), two eyes (1, 2) and a smile (3)."""
    part = rng.choice(4, size=n, p=[0.55, 0.1, 0.1, 0.25])
    angle = 2 * np.pi * rng.random(n)
    radius = np.array([1.75, 0.0, 0.0, 1.0])[part]
    angle = np.where(part == 3, np.pi * (1.15 + 0.7 * angle / (2 * np.pi)), angle)
    centre = np.array([[0, 0.08], [-0.65, 0.7], [0.65, 0.7], [0, 0.08]])[part]
    spread = np.array([0.05, 0.14, 0.14, 0.06])[part]
    return centre + _polar(radius, angle) + spread[:, None] * rng.standard_normal((n, 2)), part


KINDS: dict[str, Callable[[int, np.random.Generator], Shape]] = {
    "moons": _moons,
    "spirals": _spirals,
    "checkerboard": _checkerboard,
    "rings": _rings,
    "eight_gaussians": _eight_gaussians,
    "pinwheel": _pinwheel,
    "face": _face,
}
