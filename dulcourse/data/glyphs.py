"""Typeset digits without end: the fonts of matplotlib under random affine and elastic warps, with noise.

Image i depends on (key, i, options) alone. Every step is arithmetic that is the same everywhere (one rounding
an operation, sums of whole numbers, no library's sine or matrix product), so that another machine draws the
same image bit for bit.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from dulcourse.data.dataset import Dataset, one_of
from dulcourse.errors import InfrastructureError
from dulcourse.randomness import uniforms

__all__ = ["FONTS", "LEVELS", "SIZES", "SUPERSAMPLING", "draw", "fingerprint", "templates"]

SIZES = {"train": 8192, "validation": 1024, "test": 2048}
LEVELS = (4, 2, 256)
SUPERSAMPLING = {8: 4, 14: 3, 28: 2}  # by size: points along each edge of a pixel

# All bundled fonts whose characters 0 … 9 are digits (others keep brackets or arrows there).
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10"),
)

_CANVAS = 72  # template pixels along an edge; a digit is 64 high, the rest is an empty margin
_HEIGHT = 64
_FINE = 3  # sub-rows and sub-columns of a template pixel
_INK = _FINE * _FINE  # the value of a template pixel that is all ink
_WAVES = 3  # the elastic warp's highest frequency along each axis
_DRAWS = (2, 6, 2 * _WAVES**2, 2)  # uniforms for class and font, affine, elastic, contrast; then the noise
_CHUNK = 1 << 16  # points warped at once: what stays in a processor's cache


def draw(
    indices: Sequence[int], *, key: bytes, split: str = "fresh", size: int = 8, levels: int = 4
) -> Dataset:
    """Glyphs `indices` under `key`; y is the digit."""
    one_of("size of glyphs", size, sorted(SUPERSAMPLING))
    one_of("levels of glyphs", levels, LEVELS)
    batch = max(1, _CHUNK // (size * SUPERSAMPLING[size]) ** 2)
    parts = [_draw(key, indices[i : i + batch], size, levels) for i in range(0, len(indices), batch)]
    x, y = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    return Dataset("glyphs", split, x.unsqueeze(1), y, levels)


def _draw(key: bytes, indices: Sequence[int], size: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    u = uniforms(key, indices, sum(_DRAWS) + size * size)
    which, affine, elastic, contrast, noise = np.split(u, np.cumsum(_DRAWS), axis=1)
    digit = (which[:, 0] * 10).astype(np.int64)
    font = (which[:, 1] * len(FONTS)).astype(np.int64)
    coverage = _coverage(font * 10 + digit, *_warp(affine, elastic, size), size)
    return _quantise(coverage, contrast, noise.reshape(coverage.shape), levels), digit


def _between(low: float, high: float, u: np.ndarray) -> np.ndarray:
    return low + (high - low) * u


def _warp(affine: np.ndarray, elastic: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each point (u, v) of an image looks at its template: rows and columns `[n, P, P]`.

    (column, row) = A ((u, v) − shift) + Σ_ab c_ab sin(πa(u+1)/2) sin(πb(v+1)/2), where A scales, shears and
    rotates, and all coordinates run from −1 to 1.
    """
    affine = affine[:, :, None, None]
    wide, high = _between(0.72, 1.1, affine[:, 0]), _between(1.0, 1.25, affine[:, 1])
    half = _between(-0.11, 0.11, affine[:, 2])  # tan(θ/2): sine and cosine without a library's rounding
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    shear = _between(-0.25, 0.25, affine[:, 3])
    right, down = _between(-0.15, 0.15, affine[:, 4]), _between(-0.12, 0.12, affine[:, 5])

    points, waves = _grid(size)
    u, v = points[None, None, :] - right, points[None, :, None] - down
    column, row = cos * u + sin * v, cos * v - sin * u
    bend_column, bend_row = (_bend(c, waves) for c in np.split(elastic, 2, axis=1))
    return high * row + bend_row, wide * (column + shear * row) + bend_column


def _bend(u: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Σ_ab c_ab wave_a(u) wave_b(v): slow waves are strong and fast ones weak, which makes it smooth."""
    strength = np.array([[0.2 / (a * a + b * b) for a in range(1, _WAVES + 1)] for b in range(1, _WAVES + 1)])
    c = (u.reshape(-1, _WAVES, _WAVES) * 2 - 1) * strength
    lines = sum(c[:, :, a, None] * waves[a] for a in range(_WAVES))  # [n, b, P]
    return sum(lines[:, b, None, :] * waves[b][:, None] for b in range(_WAVES))


@cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The points' coordinates in [−1, 1], and the waves there, rounded so that all sines agree."""
    count = size * SUPERSAMPLING[size]
    points = (2 * np.arange(count) + 1 - count) / count
    waves = np.sin(np.pi / 2 * np.arange(1, _WAVES + 1)[:, None] * (points + 1))
    return points, np.round(waves * 2**20) / 2**20


def _coverage(which: np.ndarray, row: np.ndarray, column: np.ndarray, size: int) -> np.ndarray:
    """The share of ink in each pixel, the mean over its points: float64 `[n, size, size]` in [0, 1].

    Small images get more ink, or thin strokes would fade.
    """
    row, column = (np.clip((at + 1) * (_CANVAS / 2), 0, _CANVAS - 1).astype(np.int32) for at in (row, column))
    ink = templates().reshape(-1)[(which[:, None, None] * _CANVAS + row) * _CANVAS + column]
    points = SUPERSAMPLING[size]
    ink = ink.reshape(len(ink), size, points, size, points).sum(axis=(2, 4), dtype=np.int64)
    return np.minimum(1.0, ink * (1 + 4 / size) / (_INK * points * points))


def _quantise(coverage: np.ndarray, contrast: np.ndarray, noise: np.ndarray, levels: int) -> np.ndarray:
    """Levels of grey: paper and ink of random darkness, and noise with tails that leave no level impossible.

    The noise is s·t/(1.02 − |t|) for uniform t in (−1, 1): like a logistic draw, but without a logarithm.
    """
    paper = _between(0.0, 0.1, contrast[:, 0])[:, None, None]
    ink = _between(0.75, 1.0, contrast[:, 1])[:, None, None]
    t = noise * 2 - 1
    grey = paper + (ink - paper) * coverage + 0.02 * t / (1.02 - np.abs(t))
    return np.clip(np.floor(grey * (levels - 1) + 0.5), 0, levels - 1).astype(np.int64)


@cache
def templates() -> np.ndarray:
    """uint8 `[fonts * 10, canvas, canvas]`: each digit of each font, drawn once a process, 0 … 9 of ink."""
    shapes = [_outline(font, digit) for font in _faces() for digit in "0123456789"]
    drawn = np.stack([_fill(shape) for shape in shapes])
    drawn.setflags(write=False)
    return drawn


def fingerprint() -> str:
    """A hash of the templates, for receipts: where it is the same, so is every image."""
    return hashlib.blake2b(templates().tobytes(), digest_size=16).hexdigest()


def _faces() -> list:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    missing = [font for font in FONTS if not (folder / f"{font}.ttf").is_file()]
    if missing:
        raise InfrastructureError(
            f"matplotlib {matplotlib.__version__} came without the font {missing[0]!r} that glyphs are drawn "
            "with: install matplotlib with pip, which brings its fonts."
        )
    return [FT2Font(str(folder / f"{font}.ttf")) for font in FONTS]


def _outline(face, digit: str) -> list[np.ndarray]:
    """A digit's closed outlines `[points, (x, y)]`, centred, `_HEIGHT` high; y points down."""
    from matplotlib import ft2font
    from matplotlib.path import Path as Outline

    face.set_size(200, 72)
    flags = ft2font.LoadFlags.NO_HINTING if hasattr(ft2font, "LoadFlags") else ft2font.LOAD_NO_HINTING
    face.load_char(ord(digit), flags=flags)
    vertices, codes = face.get_path()
    polygons = Outline(vertices, codes).to_polygons()
    low, high = (bound(np.concatenate(polygons), axis=0) for bound in (np.min, np.max))
    scale = np.array([1, -1]) * _HEIGHT / (high[1] - low[1])
    return [(polygon - (low + high) / 2) * scale for polygon in polygons]


def _fill(outlines: list[np.ndarray]) -> np.ndarray:
    """Ink by the even-odd rule: inside is where a ray to the left crosses an odd number of outlines.

    Points are the centres of `_FINE` × `_FINE` cells in each template pixel.
    """
    side = _CANVAS * _FINE
    y = ((np.arange(side) + 0.5) / _FINE - _CANVAS / 2)[:, None]
    crossings = np.zeros((side, side + 1), np.uint8)
    for outline in outlines:
        (x0, y0), (x1, y1) = outline[:-1].T, outline[1:].T
        row, edge = np.nonzero((y0 <= y) != (y1 <= y))
        x = x0[edge] + (y[row, 0] - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
        column = np.ceil((x + _CANVAS / 2) * _FINE - 0.5).astype(np.int64)
        np.add.at(crossings, (row, np.clip(column, 0, side)), 1)
    inside = np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :side] % 2
    return inside.reshape(_CANVAS, _FINE, _CANVAS, _FINE).sum(axis=(1, 3), dtype=np.uint8)
