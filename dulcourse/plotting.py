"""One visual language for every figure of the course.

Each function returns a new `Figure` and touches no global state: nothing to close, nothing shown twice. The
colours can be told apart without seeing red from green, and the background is opaque, so that dark pages keep
their axes.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from math import ceil
from typing import Protocol, runtime_checkable

import matplotlib
import numpy as np
import torch
from jaxtyping import Bool, Int, Int64, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from dulcourse.errors import UsageError

__all__ = ["COLOURS", "Losses", "curves", "dependency", "distribution", "show_images", "style"]

# Okabe and Ito's palette, in the order in which lines take them.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "red": "#D55E00",
    "black": "#000000",
}
_GREY, _PALE = "#8A8A8A", "#E3E3E3"


@runtime_checkable
class Losses(Protocol):
    """What `curves` draws, such as the `History` of `training.fit`: bits/dim at each evaluation."""

    step: Sequence[int]
    train: Sequence[float]
    validation: Sequence[float]


class _Picture(Figure):
    """A figure that a notebook shows as a cell's last value, whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight", metadata={"Software": None})
        return file.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """The course's look, for figures of your own: `with style(): figure, axes = plt.subplots()`."""
    look = {
        "axes.axisbelow": True,
        "axes.edgecolor": _GREY,
        "axes.grid": True,
        "axes.prop_cycle": matplotlib.cycler(color=list(COLOURS.values())),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "figure.dpi": 110,
        "figure.facecolor": "white",
        "figure.figsize": (6.4, 3.8),
        "font.size": 11,
        "grid.color": _PALE,
        "image.interpolation": "nearest",
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "savefig.facecolor": "white",
        "savefig.transparent": False,
    }
    with matplotlib.rc_context(look):
        yield


def show_images(
    x: Shaped[Tensor, "n C H W"],
    levels: int | None = None,
    columns: int = 8,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Images in rows of `columns`: dark ink on white paper, or RGB; a title above each if there are any.

    x has values 0 … levels−1, or in [0, 1] when `levels` is None; C is 1 or 3.
    """
    pictures = _unit(x, levels)
    if titles is not None and len(titles) != len(pictures):
        raise UsageError(f"{len(titles)} titles for {len(pictures)} images: expected one each.")
    if columns < 1:
        raise UsageError(f"columns is {columns}: expected at least 1 image in a row.")
    high, wide = pictures.shape[1:3]
    gap = ceil(wide / 10)
    head = gap if titles is None else ceil(0.35 * wide)
    columns = min(columns, len(pictures))
    rows = ceil(len(pictures) / columns)
    # One canvas for all: matplotlib takes as long for one picture of any size as for another.
    paper = np.ones((rows * (head + high) + gap, columns * (gap + wide) + gap, 3))
    corners = [
        (gap + i % columns * (gap + wide), head + i // columns * (head + high)) for i in range(len(pictures))
    ]
    for picture, (left, top) in zip(pictures, corners, strict=True):
        paper[top : top + high, left : left + wide] = picture
    scale = min(0.9 / wide, 9 / paper.shape[1])  # inches a pixel
    with style():
        figure = _Picture(figsize=(paper.shape[1] * scale, paper.shape[0] * scale))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(paper, extent=(0, paper.shape[1], paper.shape[0], 0), aspect="auto")
        frames = [Rectangle(corner, wide, high) for corner in corners]
        axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=_PALE, linewidth=0.8))
        for title, (left, top) in zip(titles or (), corners, strict=False):
            axes.text(left + wide / 2, top - 0.06 * wide, title, ha="center", fontsize=10)
    return figure


def _unit(x: Tensor, levels: int | None) -> np.ndarray:
    """`[n, H, W, 3]` in [0, 1], as matplotlib draws colours."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or len(x) == 0:
        raise UsageError(f"images of shape {list(x.shape)}: expected [n, 1 or 3, height, width], n ≥ 1.")
    values = x.detach().cpu().to(torch.float64).numpy()
    top = 1 if levels is None else levels - 1
    if not (values.min() >= 0 and values.max() <= top):
        raise UsageError(
            f"images have values from {values.min():g} to {values.max():g}, expected 0 to {top}: pass the "
            "data's levels, or none for values in [0, 1]."
        )
    values = (values / top).transpose(0, 2, 3, 1)
    return values if x.shape[1] == 3 else np.repeat(1 - values, 3, axis=3)


def curves(history: Losses, references: Mapping[str, float] | None = None) -> Figure:
    """Training and validation loss in bits/dim against the step, the best validation marked.

    `references` are levels worth comparing with, by name, such as {"histogram": 1.45}.
    """
    if not len(history.step):
        raise UsageError("the history is empty: expected one evaluation or more, so train a little longer.")
    step, validation = np.asarray(history.step), np.asarray(history.validation, dtype=float)
    with style():
        figure, axes = _axes("optimiser steps", "bits per dimension")
        axes.plot(step, history.train, label="training")
        axes.plot(step, validation, label="validation")
        if np.isfinite(validation).any():
            best = np.nanargmin(validation)
            label = f"best: {validation[best]:.3f} at step {step[best]}"
            axes.plot(step[best], validation[best], "o", color=COLOURS["black"], label=label, zorder=3)
        colours = cycle(COLOURS[name] for name in ("green", "purple", "sky", "red"))
        for colour, (name, value) in zip(colours, (references or {}).items(), strict=False):
            axes.axhline(value, color=colour, linestyle="--", linewidth=1.2, label=f"{name}: {value:.3f}")
        axes.legend()
    return figure


def dependency(
    matrix: Bool[Tensor, "D D"] | Bool[np.ndarray, "D D"],
    order: Int64[Tensor, " D"] | Int64[np.ndarray, " D"] | None = None,
    title: str | None = None,
) -> Figure:
    """Which output (row) depends on which input (column), in generation order: only the past is allowed.

    `matrix[i, j]` says that the conditional of symbol i changes with symbol j; `order[t]` is the symbol
    generated t-th (raster order if not given). Blue is as it should be, amber a blind spot, red a leak.
    """
    matrix = np.asarray(matrix)
    order = np.arange(len(matrix)) if order is None else np.asarray(order)
    seen = matrix[np.ix_(order, order)]
    allowed = np.tri(len(seen), k=-1, dtype=bool)
    kinds = np.where(allowed, np.where(seen, 1, 2), np.where(seen, 3, 0))
    names = ["must not be seen", "seen", "missing: a blind spot", "seen, but forbidden: a leak"]
    colours = ["white", "#A6CBE3", COLOURS["orange"], "#C1121F"]
    with style():
        figure, axes = _axes(
            "input, in generation order", "output, in generation order", size=(7.1, 4.4), right=2.85
        )
        axes.grid(False)
        axes.imshow(kinds, cmap=ListedColormap(colours), vmin=0, vmax=3)
        axes.spines[:].set_visible(True)
        handles = [
            Patch(facecolor=colour, edgecolor=_GREY, label=f"{name} ({np.sum(kinds == kind)})")
            for kind, (name, colour) in enumerate(zip(names, colours, strict=True))
        ]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=9)
        axes.set_title(title or "")
    return figure


def distribution(
    log_p: Mapping[str, Shaped[Tensor, " levels"] | Shaped[np.ndarray, " levels"]] | None = None,
    counts: Int[Tensor, " levels"] | Int[np.ndarray, " levels"] | None = None,
) -> Figure:
    """P(x) on 0 … levels−1: bars for the frequencies of `counts`, a line for each named exp(log_p)."""
    if log_p is None and counts is None:
        raise UsageError("there is nothing to draw: give log_p, counts, or both.")
    with style():
        figure, axes = _axes("value x", "probability")
        if counts is not None:
            counts = np.asarray(counts)
            label = f"data ({counts.sum()} draws)"
            edges = np.arange(len(counts) + 1) - 0.5
            axes.stairs(counts / counts.sum(), edges, fill=True, color="#C9C9C9", label=label)
        for name, values in (log_p or {}).items():
            values = np.exp(torch.as_tensor(values).detach().cpu().numpy())
            axes.stairs(values, np.arange(len(values) + 1) - 0.5, baseline=None, linewidth=1.6, label=name)
        axes.legend()
        axes.set_ylim(bottom=0)
    return figure


def _axes(
    xlabel: str, ylabel: str, size: tuple[float, float] = (6.4, 3.8), right: float = 0.15
) -> tuple[Figure, Axes]:
    """One panel; `right` inches beside it are left free. Margins that are known need no layout engine, which
    would take longer than all the drawing.
    """
    wide, high = size
    left, bottom, top = 0.8, 0.6, 0.35
    box = (left / wide, bottom / high, (wide - left - right) / wide, (high - bottom - top) / high)
    figure = _Picture(figsize=size)
    return figure, figure.add_axes(box, xlabel=xlabel, ylabel=ylabel)
