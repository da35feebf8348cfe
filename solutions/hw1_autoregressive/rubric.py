"""Homework 1: 100 points, 90 of them measured."""

from pathlib import Path

import numpy as np
import torch

from autograder.rubric import (
    Model,
    Probe,
    Problem,
    Rubric,
    Sampler,
    Threshold,
    Tier,
    Written,
    calibrated_full,
)
from dulcourse import likelihood
from dulcourse.autoregressive import made, mixture, orders

FOLDER = Path(__file__).parent
GRACE = 0.01  # bits/dim: nobody loses points to the luck of a seed
Draw = dict[str, np.ndarray]


# What functions are asked: arguments by name, drawn outside the wall. Scalars arrive as Python numbers.


def draw_mean_bits_per_dim(generator: np.random.Generator) -> Draw:
    """Logits of any offset and some images; shapes vary, so that D cannot be a constant."""
    n, levels = generator.integers(2, 6), generator.integers(2, 7)
    shape = ((), (5,), (1, 3, 4), (3, 2, 2))[generator.integers(4)]
    return {
        "logits": generator.normal(size=(n, levels, *shape), scale=2.0) + 3.0,
        "x": generator.integers(0, levels, size=(n, *shape)),
    }


def draw_fit_histogram(generator: np.random.Generator) -> Draw:
    """Fewer numbers than levels, so that some are never seen."""
    levels = generator.integers(4, 40)
    return {
        "x": generator.integers(0, levels - 1, size=generator.integers(1, 60)),
        "levels": np.asarray(levels),
        "smoothing": np.asarray(generator.uniform(0.1, 2.0)),
    }


def draw_discretised_logistic(generator: np.random.Generator) -> Draw:
    """Both ends among x, means beyond them, scales from much below a level to much above all of them."""
    levels, n = int(generator.integers(2, 120)), 24
    x = generator.integers(0, levels, size=(n, 1))
    x[:2, 0] = 0, levels - 1
    return {
        "x": x,
        "means": generator.uniform(-0.2, 1.2, size=(1, 3)) * levels,
        "log_scales": generator.uniform(-6.0, 6.0, size=(n, 3)),
        "levels": np.asarray(levels),
    }


def draw_mixture(generator: np.random.Generator) -> Draw:
    """Weights that are far apart, so that leaving them out, or out of the log, is seen.

    Neither end among x: what is wrong with the tails has cost its points already.
    """
    levels, components = int(generator.integers(10, 120)), int(generator.integers(2, 6))
    return {
        "x": generator.integers(1, levels - 1, size=((7,), (3, 4), (2, 1, 2, 2))[generator.integers(3)]),
        "weights_logits": generator.normal(size=components, scale=2.0),
        "means": generator.uniform(0.0, 1.0, size=components) * levels,
        "log_scales": generator.uniform(-3.0, 4.0, size=components),
        "levels": np.asarray(levels),
    }


def draw_mask(generator: np.random.Generator) -> Draw:
    """Degrees with ties, where strict and not strict differ, and different numbers of units."""
    dims = generator.integers(3, 9)
    return {
        "in_degrees": generator.integers(0, dims, size=generator.integers(2, 12)),
        "out_degrees": generator.integers(0, dims, size=generator.integers(12, 20)),
        "strict": np.asarray(bool(generator.integers(2))),
    }


# What they should answer.


def mean_bits_per_dim(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The mean of −log₂ p(x)/D."""
    log_prob = likelihood.log_prob(torch.from_numpy(logits), torch.from_numpy(x))
    return likelihood.bits_per_dim(log_prob, dims=max(1, x[0].size)).mean().numpy()


def fit_histogram(x: np.ndarray, levels: np.ndarray, smoothing: np.ndarray) -> np.ndarray:
    """log((c_l + α)/(n + αL))."""
    return np.log((np.bincount(x, minlength=int(levels)) + smoothing) / (len(x) + smoothing * levels))


def discretised_logistic_log_prob(x, means, log_scales, levels) -> np.ndarray:
    """log P(x) of dulcourse, in float64."""
    tensors = map(torch.from_numpy, (x, means, log_scales))
    return mixture.discretised_logistic_log_prob(*tensors, int(levels)).numpy()


def mixture_log_prob(x, weights_logits, means, log_scales, levels) -> np.ndarray:
    """log Σ_k π_k P_k(x) of dulcourse, in float64."""
    tensors = map(torch.from_numpy, (x, weights_logits, means, log_scales))
    return mixture.mixture_log_prob(*tensors, int(levels)).numpy()


def mask(in_degrees: np.ndarray, out_degrees: np.ndarray, strict: np.ndarray) -> np.ndarray:
    """The mask of dulcourse."""
    return made.mask(torch.from_numpy(in_degrees), torch.from_numpy(out_degrees), bool(strict)).numpy()


HISTOGRAM = Problem(
    name="histogram",
    title="1. Counting",
    withheld=("dulcourse.autoregressive.histogram",),
    items=(
        Probe(
            function="mean_bits_per_dim",
            draw=draw_mean_bits_per_dim,
            reference=mean_bits_per_dim,
            points=5,
            hint="D is the number of pixels of one image, and one nat is 1/ln 2 bits: for equal logits the "
            "answer is log2(levels), whatever the shape of the images.",
        ),
        Probe(
            function="fit_histogram",
            draw=draw_fit_histogram,
            reference=fit_histogram,
            points=5,
            hint="The smoothing is added to every level's count, so the total grows by smoothing·levels; a "
            "level that never came up needs an entry too. The exponentials must sum to one.",
        ),
        Model(name="histogram", data="toy1d", shape=(1, 1, 1), levels=100, reference="histogram", points=10),
    ),
)

MIXTURE = Problem(
    name="mixture",
    title="2. A few parameters instead of a table",
    withheld=("dulcourse.autoregressive.mixture",),
    items=(
        Probe(
            function="discretised_logistic_log_prob",
            draw=draw_discretised_logistic,
            reference=discretised_logistic_log_prob,
            points=8,
            hint="Look at level 0, at level L−1 (open tails: they take all that lies beyond), and at small "
            "scales, where the difference of two sigmoids rounds to 0: use the product and logsigmoid.",
        ),
        Probe(
            function="mixture_log_prob",
            draw=draw_mixture,
            reference=mixture_log_prob,
            points=5,
            hint="The weights are softmax(weights_logits), and probabilities are added, not logarithms: "
            "logsumexp over the components of log weight + log probability.",
        ),
        Model(name="mixture", data="toy1d", shape=(1, 1, 1), levels=100, reference="mixture", points=12),
    ),
)

MADE = Problem(
    name="made",
    title="3. MADE",
    withheld=("dulcourse.autoregressive.made",),
    items=(
        Probe(
            function="mask",
            draw=draw_mask,
            reference=mask,
            points=10,
            hint="The result is bool [out, in]: row j says which inputs unit j keeps. Where degrees are "
            "equal, a strict mask is false and the other one true.",
        ),
        Model(
            name="made",
            data="glyphs",
            options={"size": 8, "levels": 4},
            shape=(1, 8, 8),
            levels=4,
            order=tuple(orders.spiral((1, 8, 8)).tolist()),
            reference="made",
            points=25,
        ),
        Sampler(model="made", points=10),
    ),
)

WRITTEN = Problem(name="written", title="In words", items=(Written(cell="written", points=10),))


def thresholds(tier: str) -> dict[str, Threshold]:
    """Full points at the reference's own spread over seeds; none where a model has learned nothing.

    Nothing is left where a single logistic stands (for the table too: a uniform guess costs 0.5 more than the
    reference, and luck must not pay it), and for MADE where pixels are taken for independent.
    """
    none = {"histogram": 0.4, "mixture": 0.4, "made": 0.19 if tier == "smoke" else 0.25}
    images = {"histogram": 4096, "mixture": 8192, "made": 2048 if tier == "smoke" else 4096}
    return {
        model: Threshold(
            full=calibrated_full(FOLDER, model, tier, otherwise=0.01) + GRACE,
            none=none[model],
            images=images[model],
        )
        for model in none
    }


rubric = Rubric(
    name="hw1_autoregressive",
    title="Homework 1. Likelihood and autoregressive models",
    folder=FOLDER,
    problems=(HISTOGRAM, MIXTURE, MADE, WRITTEN),
    tiers={
        "smoke": Tier(seconds=40, memory_gib=2.0, thresholds=thresholds("smoke")),
        "cpu": Tier(seconds=600, thresholds=thresholds("cpu")),
        "gpu": Tier(seconds=600, memory_gib=16.0, thresholds=thresholds("gpu")),
    },
)
