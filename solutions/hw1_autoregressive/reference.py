"""The models of homework 1 as a good student trains them: what a submission is measured against.

`build_<name>(tier)` builds one untrained, `<name>(seed, tier)` builds and trains it. `autograder calibrate`
runs them over several seeds, keeps one set of weights a tier, and takes the threshold for full points from
their spread.
"""

import torch

from dulcourse import data, training
from dulcourse.autoregressive import orders
from dulcourse.autoregressive.gated_pixelcnn import GatedPixelCNN
from dulcourse.autoregressive.histogram import Histogram
from dulcourse.autoregressive.made import MADE
from dulcourse.autoregressive.mixture import DiscretisedMixture

__all__ = [
    "build_gated",
    "build_histogram",
    "build_made",
    "build_mixture",
    "gated",
    "histogram",
    "made",
    "mixture",
]

PIXEL, IMAGE = (1, 1, 1), (1, 8, 8)
# The sizes that the notebook recommends (a test holds the two against each other).
STEPS = {
    "smoke": {"mixture": 200, "made": 300, "gated": 100},
    "cpu": {"mixture": 2000, "made": 3000, "gated": 600},
    "gpu": {"mixture": 2000, "made": 3000, "gated": 600},
}
IMAGES = {
    "smoke": {"train": 2048, "validation": 256},
    "cpu": {"train": 8192, "validation": 1024},
    "gpu": {"train": 8192, "validation": 1024},
}
CHANNELS = {"smoke": 16, "cpu": 24, "gpu": 24}  # of the Gated PixelCNN
HIDDEN = {"smoke": (64,), "cpu": (128,), "gpu": (128,)}


def build_histogram(tier: str) -> Histogram:
    """A table of 100 probabilities; the same in every tier."""
    return Histogram(PIXEL, levels=100)


def histogram(seed: int, tier: str) -> Histogram:
    """Fitted by counting: there is nothing random in it, so every seed gives the same."""
    return Histogram.fit(data.load("toy1d", "train").x, levels=100, smoothing=1.0)


def build_mixture(tier: str) -> DiscretisedMixture:
    """Six discretised logistics on 100 levels; the same in every tier."""
    return DiscretisedMixture(levels=100, components=6)


def mixture(seed: int, tier: str) -> DiscretisedMixture:
    """Fitted by Adam; its means are in levels, not of order one as in the notebook, hence the larger rate."""
    model = build_mixture(tier)
    numbers = {split: data.load("toy1d", split) for split in ("train", "validation")}
    _fit(model, numbers, seed, STEPS[tier]["mixture"], batch_size=256, lr=2e-1)
    return model


def build_made(tier: str, generator: torch.Generator | None = None) -> MADE:
    """One hidden layer of the tier's width, in the spiral ordering."""
    return MADE(IMAGE, levels=4, order=orders.spiral(IMAGE), hidden=HIDDEN[tier], generator=generator)


def made(seed: int, tier: str) -> MADE:
    """Trained on the glyphs that the notebook loads."""
    model = build_made(tier, torch.Generator().manual_seed(seed))
    _fit(model, _glyphs(tier), seed, STEPS[tier]["made"], batch_size=64, lr=1e-2)
    return model


def build_gated(tier: str, generator: torch.Generator | None = None) -> GatedPixelCNN:
    """Three layers after the first, enough to see all of an 8×8 image; told which digit to draw."""
    sizes = {"channels": CHANNELS[tier], "blocks": 3, "first": 5, "kernel": 5}
    return GatedPixelCNN(IMAGE, levels=4, classes=10, generator=generator, **sizes)


def gated(seed: int, tier: str) -> GatedPixelCNN:
    """Trained on the glyphs and their labels."""
    model = build_gated(tier, torch.Generator().manual_seed(seed))
    lr = 2e-2 if tier == "smoke" else 1e-2
    _fit(model, _glyphs(tier), seed, STEPS[tier]["gated"], batch_size=64, lr=lr, loss=_given_labels)
    return model


def _given_labels(model, x, y, generator) -> torch.Tensor:
    return -model.log_prob(x, y)


def _glyphs(tier: str) -> dict[str, data.Dataset]:
    return {split: data.load("glyphs", split, size=8, levels=4, n=n) for split, n in IMAGES[tier].items()}


def _fit(model: torch.nn.Module, splits: dict[str, data.Dataset], seed: int, steps: int, **settings) -> None:
    generator = torch.Generator().manual_seed(seed)
    training.fit(
        model,
        splits["train"],
        splits["validation"],
        generator=generator,
        steps=steps,
        schedule=training.cosine,
        progress=False,
        **settings,
    )
