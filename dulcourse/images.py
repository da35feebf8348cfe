"""What every model of images asks of its shape, its levels and its input."""

import torch
from torch import Tensor

from dulcourse import likelihood
from dulcourse.errors import UsageError

__all__ = ["check", "check_labels", "classes_of", "levels_of", "shape_of"]


def shape_of(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) as plain ints, each at least 1."""
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"shape is {tuple(shape)}, expected (channels, height, width), each at least 1.")
    return tuple(int(s) for s in shape)


def levels_of(levels: int) -> int:
    """L, at least 2."""
    if levels < 2:
        raise UsageError(
            f"levels is {levels}, expected at least 2: with one level there is nothing to model."
        )
    return levels


def classes_of(classes: int | None) -> int | None:
    """The number of classes, at least 1, or None for a model that takes no labels."""
    if classes is not None and classes < 1:
        raise UsageError(f"classes is {classes}, expected at least 1, or None for a model without labels.")
    return classes


def check(x: Tensor, shape: tuple[int, int, int], levels: int, model: str) -> None:
    """Refuse images that are not int64 `[batch, C, H, W]` with values in 0 … levels − 1."""
    if x.dtype != torch.int64:
        raise UsageError(f"x has dtype {x.dtype}, expected torch.int64 levels: pass the integers, unscaled.")
    if tuple(x.shape[1:]) != shape or x.ndim != 4:
        expected = ", ".join(map(str, ("batch", *shape)))
        raise UsageError(
            f"x has shape {list(x.shape)}, expected [{expected}]: "
            f"this {model} was built for images of shape {shape}."
        )
    likelihood.check_symbols(x, levels)


def check_labels(y: Tensor | None, n: int, classes: int, model: str) -> None:
    """Refuse labels that are not int64 `[n]` with values in 0 … classes − 1."""
    if y is None:
        raise UsageError(
            f"this {model} is class-conditional: pass labels y, int64 [{n}] in 0 … {classes - 1}."
        )
    if y.dtype != torch.int64 or y.shape != (n,):
        raise UsageError(f"labels y are {y.dtype} {list(y.shape)}, expected torch.int64 [{n}]: one an image.")
    low, high = (int(v) for v in torch.aminmax(y)) if n else (0, 0)
    if low < 0 or high >= classes:
        raise UsageError(f"labels y are from {low} to {high}, expected 0 to {classes - 1}.")
