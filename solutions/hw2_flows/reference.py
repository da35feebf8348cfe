"""The models of homework 2 as a good student trains them: what a submission is measured against.

`build_<name>(tier)` builds one untrained, `<name>(seed, tier)` builds and trains it. `autograder calibrate`
runs them over several seeds, keeps one set of weights a tier, and takes the threshold for full points from
their spread.
"""

import torch

from dulcourse import data, training
from dulcourse.flows.base import Compose, Flow
from dulcourse.flows.conditioners import DenseNet
from dulcourse.flows.coupling import Coupling, channels, checkerboard
from dulcourse.flows.dequantisation import negative_elbo
from dulcourse.flows.elementwise import Scaling, to_reals
from dulcourse.flows.masked_autoregressive import MaskedAutoregressive
from dulcourse.flows.mixture_cdf import MixtureCDF, MixtureMap
from dulcourse.flows.monotone import ScaleShift
from dulcourse.flows.reshape import Squeeze

__all__ = ["build_cdf_flow", "build_plane", "build_realnvp", "cdf_flow", "plane", "realnvp"]

NUMBER, POINT, IMAGE = (1, 1, 1), (2, 1, 1), (1, 8, 8)
# The sizes that the notebook recommends (a test holds the two against each other).
STEPS = {
    "smoke": {"cdf_flow": 200, "plane": 300, "realnvp": 300},
    "cpu": {"cdf_flow": 2000, "plane": 3000, "realnvp": 3000},
    "gpu": {"cdf_flow": 2000, "plane": 3000, "realnvp": 3000},
}
WIDTH = {"smoke": 64, "cpu": 128, "gpu": 128}
IMAGES = {
    "smoke": {"train": 2048, "validation": 256},
    "cpu": {"train": 8192, "validation": 1024},
    "gpu": {"train": 8192, "validation": 1024},
}

Generator = torch.Generator | None


def build_cdf_flow(tier: str) -> Flow:
    """Sixteen logistics on [0, 100); the same in every tier."""
    return Flow(MixtureCDF(NUMBER, MixtureMap(16, "logistic", low=0.0, high=100.0)), NUMBER, levels=100)


def cdf_flow(seed: int, tier: str) -> Flow:
    """Its parameters start at zero, so seeds differ in their batches and noise."""
    model = build_cdf_flow(tier)
    numbers = {split: data.load("toy1d", split) for split in ("train", "validation")}
    _fit(model, numbers, seed, STEPS[tier]["cdf_flow"], batch_size=256, lr=5e-2)
    return model


def build_plane(tier: str, generator: Generator = None) -> Flow:
    """Eight logistics for each coordinate, those of the second from a network with two hidden layers."""
    monotone = MixtureMap(8, "logistic", low=-1.0, high=1.0)
    conditional = MaskedAutoregressive(POINT, hidden=(64, 64), monotone=monotone, generator=generator)
    return Flow(Compose([Scaling(2 / 64, -1.0), conditional]), POINT, levels=64)


def plane(seed: int, tier: str) -> Flow:
    """Trained on the moons that the notebook loads."""
    model = build_plane(tier, torch.Generator().manual_seed(seed))
    moons = {split: data.load("toy2d", split, kind="moons", levels=64) for split in ("train", "validation")}
    _fit(model, moons, seed, STEPS[tier]["plane"], batch_size=256, lr=1e-2)
    return model


def build_realnvp(tier: str, generator: Generator = None) -> Flow:
    """A logit, four couplings with checkerboards, a squeeze, four with channel masks; dense networks."""

    def coupling(mask: torch.Tensor) -> Coupling:
        hidden = (WIDTH[tier], WIDTH[tier])
        return Coupling(mask, DenseNet(tuple(mask.shape), 2, hidden, generator=generator), ScaleShift())

    turns = [True, False, True, False]
    fine = [coupling(checkerboard(IMAGE, first)) for first in turns]
    coarse = [coupling(channels(Squeeze().out_shape(IMAGE), first)) for first in turns]
    return Flow(Compose([to_reals(4, margin=0.05), *fine, Squeeze(), *coarse]), IMAGE, levels=4)


def realnvp(seed: int, tier: str) -> Flow:
    """Trained on the glyphs that the notebook loads."""
    model = build_realnvp(tier, torch.Generator().manual_seed(seed))
    glyphs = {split: data.load("glyphs", split, size=8, levels=4, n=n) for split, n in IMAGES[tier].items()}
    _fit(model, glyphs, seed, STEPS[tier]["realnvp"], batch_size=64, lr=3e-3)
    return model


def _fit(model: Flow, splits: dict[str, data.Dataset], seed: int, steps: int, **settings) -> None:
    training.fit(
        model,
        splits["train"],
        splits["validation"],
        generator=torch.Generator().manual_seed(seed),
        steps=steps,
        schedule=training.cosine,
        loss=negative_elbo,
        progress=False,
        **settings,
    )
