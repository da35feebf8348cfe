"""Scenes of discs, squares, triangles and rings, in front of each other, under noise of a known law.

One to three shapes lie on a background, each in a colour that differs from the background's in every channel.
Then each symbol is replaced, with probability NOISE, by one that says nothing. Scene i depends on (key, i,
options) alone, and every step is arithmetic that is the same everywhere.
"""

from collections.abc import Sequence
from math import log2

import numpy as np
import torch

from dulcourse.data.dataset import Dataset, one_of
from dulcourse.randomness import uniforms

__all__ = ["CHANNELS", "LEVELS", "NOISE", "SHAPES", "SIDES", "SIZES", "draw", "noise_entropy"]

SIZES = {"train": 8192, "validation": 1024, "test": 2048}
SHAPES = ("disc", "square", "triangle", "ring")
SIDES = (16, 8, 32)
LEVELS = (2, 4)
CHANNELS = (1, 3)
NOISE = 0.1

_MOST = 3  # shapes of a scene
_DRAWS = 5  # uniforms that place a shape: its kind, its centre (two), its size, its turn
_BATCH = 1024  # scenes painted at once


def draw(
    indices: Sequence[int],
    *,
    key: bytes,
    split: str = "fresh",
    size: int = 16,
    levels: int = 2,
    channels: int = 1,
) -> Dataset:
    """Scenes `indices` under `key`; y is the kind of the shape in front, an index into `SHAPES`."""
    one_of("size of shapes", size, SIDES)
    one_of("levels of shapes", levels, LEVELS)
    one_of("channels of shapes", channels, CHANNELS)
    parts = [
        _draw(key, indices[i : i + _BATCH], size, levels, channels) for i in range(0, len(indices), _BATCH)
    ]
    x, y = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    return Dataset("shapes", split, x, y, levels)


def noise_entropy(levels: int) -> float:
    """H(x_i | scene) in bits: what every symbol costs at least, even whoever sees the scene without noise.

    A symbol keeps its level with probability 1 − ε + ε/L, and has any of the L − 1 others with ε/L.
    """
    other = NOISE / levels
    kept = 1 - (levels - 1) * other
    return -kept * log2(kept) - (levels - 1) * other * log2(other)


def _draw(
    key: bytes, indices: Sequence[int], size: int, levels: int, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    counts = [1, _MOST * _DRAWS, (1 + _MOST) * channels]
    u = uniforms(key, indices, sum(counts) + channels * size * size)
    many, places, colours, noise = np.split(u, np.cumsum(counts), axis=1)
    places = places.reshape(-1, _MOST, _DRAWS)
    inside, kind = _inside(places, size)
    inside &= np.arange(_MOST)[:, None, None] <= (many * _MOST).astype(np.int64)[:, :, None, None]
    image = _paint(inside, _colours(colours.reshape(-1, 1 + _MOST, channels), levels))
    front = (many[:, 0] * _MOST).astype(np.int64)
    return _noisy(image, noise.reshape(image.shape), levels), kind[np.arange(len(kind)), front]


def _inside(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels each shape covers, bool `[n, shapes, size, size]`, and the shapes' kinds `[n, shapes]`.

    Pixel centres run from −1 to 1; (a, b) are a pixel's coordinates in a shape's frame, turned and scaled.
    """
    kind = (places[..., 0] * len(SHAPES)).astype(np.int64)
    across, down, radius, turn = (places[..., i, None, None] for i in range(1, _DRAWS))
    pixels = (2 * np.arange(size) + 1 - size) / size
    right = pixels - (1.4 * across - 0.7)
    below = pixels[:, None] - (1.4 * down - 0.7)
    half = 2 * turn - 1  # tan(θ/2): sine and cosine without a library's rounding
    scale = (0.3 + 0.3 * radius) * (1 + half * half)
    a = ((1 - half * half) * right + 2 * half * below) / scale
    b = ((1 - half * half) * below - 2 * half * right) / scale
    return np.select([kind[..., None, None] == i for i in range(len(SHAPES))], _masks(a, b)), kind


def _masks(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """Whether (a, b) lies in the disc, square, triangle and ring of radius one."""
    square = a * a + b * b
    return [
        square <= 1,
        np.maximum(np.abs(a), np.abs(b)) <= 0.8,
        (b <= 0.5) & (2 * np.abs(a) - b <= 1.2),
        (square <= 1) & (square >= 0.3),
    ]


def _colours(u: np.ndarray, levels: int) -> np.ndarray:
    """Levels `[n, 1 + shapes, channels]`: the background first, then colours that differ from it."""
    background = (u[:, :1] * levels).astype(np.int64)
    step = 1 + (u[:, 1:] * (levels - 1)).astype(np.int64)
    return np.concatenate([background, (background + step) % levels], axis=1)


def _paint(inside: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The scene `[n, C, size, size]`: later shapes cover earlier ones."""
    layers = colours[:, :, :, None, None]
    image = np.broadcast_to(layers[:, 0], (*layers.shape[:1], layers.shape[2], *inside.shape[2:]))
    for shape in range(inside.shape[1]):
        image = np.where(inside[:, shape, None], layers[:, 1 + shape], image)
    return image


def _noisy(image: np.ndarray, u: np.ndarray, levels: int) -> np.ndarray:
    """Each symbol replaced by a uniform one with probability NOISE: u / NOISE is uniform below 1."""
    return np.where(u < NOISE, (u / NOISE * levels).astype(np.int64).clip(0, levels - 1), image)
