"""Points of the plane in shapes that are hard for a Gaussian: moons, spirals, a checkerboard, a face, …

Every shape is centred and scaled so that a coordinate's standard deviation is about 1. With `levels` the
plane becomes a grid, and a point two whole numbers: discrete data, which a flow can be scored on.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dulcourse.data.dataset import Dataset, one_of
from dulcourse.randomness import uniforms

__all__ = ["EDGE", "KINDS", "LEVELS", "SIZES", "draw"]

SIZES = {"train": 8192, "validation": 2048, "test": 4096}
LEVELS = (None, 16, 64, 256)
EDGE = 3.5  # the grid covers [−3.5, 3.5] × [−3.5, 3.5]; what lies outside goes to the cell at its edge

_DRAWS = 4  # uniforms a point: its part, its place along the part, and two for how far off it is


def draw(
    indices: Sequence[int],
    *,
    key: bytes,
    split: str = "fresh",
    kind: str = "moons",
    levels: int | None = None,
) -> Dataset:
    """Points `indices` of a shape; y is which of its parts (moon, arm, square, ring, …) a point belongs to.

    Without `levels`, x is float32 `[n, 2]`. With them it is int64 `[n, 2, 1, 1]`: a coordinate c becomes
    ⌊levels (c + 3.5) / 7⌋, so that the centre of cell k is at 7 (k + ½) / levels − 3.5.
    """
    one_of("kind of toy2d", kind, sorted(KINDS))
    one_of("levels of toy2d", levels, LEVELS)
    part, along, *off = uniforms(key, indices, _DRAWS).T
    points, part = KINDS[kind](part, along, np.stack(off, axis=1))
    y = torch.from_numpy(part.astype(np.int64))
    if levels is None:
        return Dataset("toy2d", split, torch.from_numpy(points.astype(np.float32)), y)
    cell = np.floor(levels * (points + EDGE) / (2 * EDGE)).astype(np.int64)
    x = torch.from_numpy(np.clip(cell, 0, levels - 1))
    return Dataset("toy2d", split, x.reshape(-1, 2, 1, 1), y, levels)


Shape = tuple[np.ndarray, np.ndarray]  # points [n, 2], the part each belongs to [n]


def _one_of(count: int, u: np.ndarray) -> np.ndarray:
    return (count * u).astype(np.int64)


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _normal(u: np.ndarray) -> np.ndarray:
    """Two standard normal draws of two uniform ones (Box and Muller)."""
    return _polar(np.sqrt(-2 * np.log(1 - u[:, 0])), 2 * np.pi * u[:, 1])


def _moons(part: np.ndarray, along: np.ndarray, off: np.ndarray) -> Shape:
    moon = _one_of(2, part)
    arc = _polar(np.ones(len(part)), np.pi * along)
    arc[moon == 1] = [1.0, 0.5] - arc[moon == 1]
    noisy = arc + 0.08 * _normal(off)
    return (noisy - [0.5, 0.25]) * [1.15, 2.0], moon


def _spirals(part: np.ndarray, along: np.ndarray, off: np.ndarray) -> Shape:
    arm = _one_of(2, part)
    turns = np.sqrt(along) * 1.5  # the root spreads the points evenly along an arm
    points = _polar(1.35 * turns, 2 * np.pi * turns + np.pi * arm)
    return points + 0.06 * _normal(off), arm


def _checkerboard(part: np.ndarray, along: np.ndarray, off: np.ndarray) -> Shape:
    square = _one_of(8, part)
    column, row = square // 2, 2 * (square % 2) + square // 2 % 2
    corner = np.stack([column, row], axis=1)
    return (corner + off - 2) * np.sqrt(0.75), square


def _rings(part: np.ndarray, along: np.ndarray, off: np.ndarray) -> Shape:
    ring = _one_of(3, part)
    radius = 0.65 * (ring + 1) + 0.05 * _normal(off)[:, 0]
    return _polar(radius, 2 * np.pi * along), ring


def _eight_gaussians(part: np.ndarray, along: np.ndarray, off: np.ndarray) -> Shape:
    clump = _one_of(8, part)
    return _polar(np.full(len(part), 1.4), np.pi / 4 * clump) + 0.12 * _normal(off), clump


def _pinwheel(part: np.ndarray, along: np.ndarray, off: np.ndarray) -> Shape:
    blade = _one_of(5, part)
    radius, across = (_normal(off) * [0.4, 0.1] + [1.3, 0.0]).T
    angle = 2 * np.pi / 5 * blade + 0.8 * np.exp(radius - 1)
    return _polar(np.hypot(radius, across), angle + np.arctan2(across, radius)), blade


def _face(part: np.ndarray, along: np.ndarray, off: np.ndarray) -> Shape:
    """The outline of a head (0), two eyes (1, 2) and a smile (3)."""
    feature = np.searchsorted([0.55, 0.65, 0.75], part, side="right")
    radius = np.array([1.75, 0.0, 0.0, 1.0])[feature]
    angle = np.pi * np.where(feature == 3, 1.15 + 0.7 * along, 2 * along)
    centre = np.array([[0, 0.08], [-0.65, 0.7], [0.65, 0.7], [0, 0.08]])[feature]
    spread = np.array([0.05, 0.14, 0.14, 0.06])[feature]
    return centre + _polar(radius, angle) + spread[:, None] * _normal(off), feature


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Shape]] = {
    "moons": _moons,
    "spirals": _spirals,
    "checkerboard": _checkerboard,
    "rings": _rings,
    "eight_gaussians": _eight_gaussians,
    "pinwheel": _pinwheel,
    "face": _face,
}
