"""Pictures of a submission: samples, curves, dependencies, as PNG files that carry their own description.

The arrays come from a student's notebook: they may be huge, not finite, of any shape. What cannot be drawn is
not drawn, and the page says so; a picture never costs a result.
"""

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from autograder.receipt import library_hash
from autograder.results import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curve", "description", "draw"]

MOST_SAMPLES = 32
MOST_PIXELS = 64  # a side
MOST_POINTS = 1000  # of a curve
MOST_SYMBOLS = 1024  # a side of the dependency matrix
BITS = 64.0  # bits/dim; curves are cut off there
SHOWS = "Shows"  # the key under which a picture keeps the digest of what it was drawn from

# matplotlib keeps its settings in one place for all threads.
DRAWING = threading.Lock()


class Curve(Protocol):
    """A training's bits/dim at each evaluation."""

    step: list[int]
    train: list[float]
    validation: list[float]


@dataclass
class _Losses:
    step: list[int]
    train: list[float]
    validation: list[float]


def draw(
    folder: Path,
    model: str,
    *,
    samples: np.ndarray | None = None,
    levels: int = 2,
    history: Curve | None = None,
    references: dict[str, float] | None = None,
    dependency: np.ndarray | None = None,
    order: np.ndarray | None = None,
) -> dict[str, str]:
    """Draw what is given into `folder`; returns name -> file, as `ItemResult.figures` has it.

    Names are `samples` (`[n, C, H, W]` in 0 … levels−1), `curves` (with `references`, bits/dim by name) and
    `dependency` (`[D, D]`, row = output, column = input, in the model's `order`). Nothing is raised for
    arrays that cannot be drawn; their names are missing in the answer.
    """
    wanted: dict[str, tuple[Callable[..., tuple[Figure, str]], tuple[Any, ...]]] = {}
    if samples is not None:
        wanted["samples"] = _samples, (samples, levels)
    if history is not None:
        wanted["curves"] = _curves, (history, references)
    if dependency is not None:
        wanted["dependency"] = _dependency, (dependency, order)
    files = {}
    for name, (make, given) in wanted.items():
        path, shows = folder / f"{model}-{name}.png", _digest(given)
        # What is scored again mostly looks as it did, and drawing it takes as long as a good part of that.
        if _told(path, SHOWS) != shows:
            try:
                with DRAWING:
                    data = _png(*make(*given), shows)
            except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError):
                continue  # includes UsageError; a file that cannot be written is not included
            write_atomically(path, data)
        files[name] = path.name
    return files


def description(path: Path) -> str:
    """What a picture shows, for those who cannot see it: the text that `draw` wrote into the file."""
    return _told(path, "Description")


def _told(path: Path, key: str) -> str:
    """A text in a picture; nothing where there is no picture."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get(key, ""))
    except (OSError, ValueError, SyntaxError):
        return ""


def _digest(given: tuple[Any, ...]) -> str:
    """Of what a picture shows, and of the programs that draw it."""
    content = repr((library_hash(), _drawn_by(), [_plain(value) for value in given]))
    return hashlib.sha256(content.encode()).hexdigest()


@cache
def _drawn_by() -> tuple[str, ...]:
    return tuple(version(name) for name in ("matplotlib", "numpy", "pillow"))


def _plain(value: Any) -> Any:
    """What is equal for equal content, and says all of it."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if hasattr(value, "validation"):
        return [*value.step], [*value.train], [*value.validation]
    return value


def _samples(samples: np.ndarray, levels: int) -> "tuple[Figure, str]":
    import torch

    from dulcourse import plotting

    x = np.asarray(samples)
    if x.ndim != 4 or x.size == 0:
        raise ValueError(f"samples of shape {x.shape}")
    if x.shape[1:] == (2, 1, 1):
        return _points(_levels(x, levels)[:, :, 0, 0], levels)
    if x[0].size == 1:
        counts = np.bincount(_levels(x[:100_000], levels).reshape(-1), minlength=levels)
        words = f"How often each of {levels} values came in {counts.sum()} samples."
        return plotting.distribution(counts=counts), words
    step = -(-max(x.shape[2:]) // MOST_PIXELS)
    shown = _levels(x[:MOST_SAMPLES, : 3 if x.shape[1] == 3 else 1, ::step, ::step], levels)
    words = f"The first {len(shown)} of {len(x)} samples, as the notebook drew them."
    return plotting.show_images(torch.from_numpy(shown), levels=levels), words


def _points(x: np.ndarray, levels: int) -> "tuple[Figure, str]":
    """Pairs of numbers, as points of the plane."""
    from matplotlib.figure import Figure

    from dulcourse import plotting

    with plotting.style():
        figure = Figure(figsize=(4.2, 4.2))
        axes = figure.add_axes((0.17, 0.15, 0.79, 0.79), xlabel="first number", ylabel="second number")
        axes.plot(x[:, 0], x[:, 1], ".", markersize=4)
        axes.set(xlim=(0, levels), ylim=(0, levels))
    return figure, f"{len(x)} samples, as the notebook drew them, each a point of the plane."


def _levels(x: np.ndarray, levels: int) -> np.ndarray:
    finite = np.nan_to_num(x.astype(np.float64), nan=0.0)
    return np.clip(np.rint(finite), 0, levels - 1).astype(np.int64)


def _curves(history: Curve, references: dict[str, float] | None) -> "tuple[Figure, str]":
    from dulcourse import plotting

    n = min(len(history.step), len(history.train), len(history.validation))
    keep = np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).astype(int)) if n else []
    step = np.array([float(history.step[i]) for i in keep])
    train, validation = (_bits([values[i] for i in keep]) for values in (history.train, history.validation))
    usable = np.isfinite(step) & (np.abs(step) < 1e12)
    step, train, validation = step[usable].astype(np.int64), train[usable], validation[usable]
    if not np.isfinite(train).any() and not np.isfinite(validation).any():
        raise ValueError("no loss is finite")
    losses = _Losses(step.tolist(), train.tolist(), validation.tolist())
    return plotting.curves(losses, references), _curve_words(step, train, validation)


def _bits(values: list[float]) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(values), np.clip(values, -BITS, BITS), np.nan)


def _curve_words(step: np.ndarray, train: np.ndarray, validation: np.ndarray) -> str:
    words = f"Loss in bits/dim until step {step[-1]}, as the notebook recorded it"
    if np.isfinite(validation).any():
        best = int(np.nanargmin(validation))
        return f"{words}: validation is lowest, {validation[best]:.3f}, at step {step[best]}."
    return f"{words}: training only, lowest {np.nanmin(train):.3f}."


def _dependency(matrix: np.ndarray, order: np.ndarray | None) -> "tuple[Figure, str]":
    from dulcourse import plotting

    matrix = np.asarray(matrix, dtype=bool)
    D = len(matrix)
    order = np.arange(D) if order is None else np.asarray(order, dtype=np.int64)
    if (
        matrix.shape != (D, D)
        or not 1 < D <= MOST_SYMBOLS
        or not np.array_equal(np.sort(order), np.arange(D))
    ):
        raise ValueError(f"a dependency matrix of shape {matrix.shape}, an order of shape {order.shape}")
    words, title = _dependency_words(matrix, order)
    return plotting.dependency(matrix, order, title=title), words


def _dependency_words(matrix: np.ndarray, order: np.ndarray) -> tuple[str, str | None]:
    """The description, and the title where there is a leak."""
    from dulcourse.referee.diagnosis import forbidden, missing

    pair, unseen = forbidden(matrix, order), missing(matrix, order)
    total = len(order) * (len(order) - 1) // 2
    words, title = "No output sees an input that it must not.", None
    if pair is not None:
        title = f"Output {pair[0]} sees input {pair[1]}"
        words = f"{title}, which is forbidden: the first such pair in generation order."
    if unseen:
        words += f" {len(unseen)} of {total} earlier inputs are not used."
    else:
        words += " Every output sees all earlier inputs."
    return words, title


def _png(figure: "Figure", words: str, shows: str) -> bytes:
    file = io.BytesIO()
    metadata = {"Description": words, SHOWS: shows, "Software": None}
    quick = {"compress_level": 1}  # hardly larger, in a fifth of the time
    figure.savefig(file, format="png", dpi=120, facecolor="white", metadata=metadata, pil_kwargs=quick)
    return file.getvalue()
