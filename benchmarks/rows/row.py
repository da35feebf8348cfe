"""What a row of the digits table is, and the two ways to train one."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from dulcourse.autoregressive.histogram import Histogram
from dulcourse.data.dataset import Dataset
from dulcourse.training import History, Loss, fit

__all__ = ["LEVELS", "SHAPE", "Bound", "Row", "by_counting", "by_gradient"]

SHAPE, LEVELS = (1, 8, 8), 17
Train = Callable[[Dataset, Dataset, torch.Generator, float], tuple[nn.Module, History | None]]


@dataclass(frozen=True)
class Bound:
    """Another bound of the same trained model: a line of the table, but no training of its own."""

    loss: Loss
    peer: str = ""
    peer_bits: float | None = None
    target: float | None = None
    batch_size: int = 16  # of the evaluation, each image with many draws


@dataclass(frozen=True)
class Row:
    """One model of the table: how it is trained, and what it is compared with."""

    train: Train
    peer: str = ""
    peer_bits: float | None = None
    target: float | None = None
    loss: Loss | None = None  # bounds: what is evaluated in place of −log p(x)
    also: Mapping[str, Bound] = field(default_factory=dict)


def by_gradient(build: Callable[[torch.Generator], nn.Module], *, steps: int, **options) -> Train:
    """Train `build(generator)` with `fit(…, **options)` until its steps are done or its time is spent.

    The rows have the steps that a slow machine does in 60 CPU-seconds, or nearly: so quicker ones get the
    same figures. Three times as many make PixelCNN and MAF memorise, and the Gated PixelCNN 0.02 better.
    """

    def train(data: Dataset, validation: Dataset, generator: torch.Generator, seconds: float):
        model = build(generator)
        spent = {"steps": steps, "max_seconds": seconds, "clock": time.process_time, "progress": False}
        return model, fit(model, data, validation, generator=generator, **spent, **options)

    return train


def by_counting(shared: bool) -> Train:
    """A histogram, with half a count added to each level."""

    def train(data: Dataset, validation: Dataset, generator: torch.Generator, seconds: float):
        return Histogram.fit(data.x, LEVELS, smoothing=0.5, shared=shared), None

    return train
