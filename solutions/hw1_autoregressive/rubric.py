"""Homework 1: 150 points, 140 of them measured."""

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
# Bits/dim: nobody loses points to the luck of a seed, or to a Gated PixelCNN built a little differently.
GRACE = {"histogram": 0.01, "mixture": 0.01, "made": 0.01, "gated": 0.03}
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


def draw_conv_mask(generator: np.random.Generator) -> Draw:
    """Different numbers of channels, groups in no order, and kernels that are only a centre."""
    return {
        "in_groups": generator.integers(0, 3, size=generator.integers(1, 7)),
        "out_groups": generator.integers(0, 3, size=generator.integers(7, 10)),
        "kernel_size": np.asarray((1, 3, 5, 7)[generator.integers(4)]),
        "strict": np.asarray(bool(generator.integers(2))),
    }


def draw_seen(generator: np.random.Generator) -> Draw:
    """Images that are not square, a pixel near an edge or not, few layers and many."""
    height, width = generator.integers(5, 10), generator.integers(5, 10)
    return {
        "height": np.asarray(height),
        "width": np.asarray(width),
        "row": np.asarray(generator.integers(2, height)),
        "column": np.asarray(generator.integers(0, width)),
        "kernel_size": np.asarray((3, 5)[generator.integers(2)]),
        "layers": np.asarray((1, 2, 3, 12)[generator.integers(4)]),
    }


def draw_image(generator: np.random.Generator) -> Draw:
    """Activations of images that are not square, so that rows and columns cannot be confused."""
    return {"x": generator.normal(size=(2, 3, *generator.integers(2, 6, size=2)))}


def draw_gated_activation(generator: np.random.Generator) -> Draw:
    """An even number of channels, and a condition that is not the same for all images."""
    channels = 2 * int(generator.integers(1, 4))
    return {
        "a": generator.normal(size=(3, channels, *generator.integers(1, 5, size=2)), scale=2.0),
        "c": generator.normal(size=(3, channels), scale=2.0),
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


def conv_mask(in_groups, out_groups, kernel_size, strict) -> np.ndarray:
    """Rows above and columns to the left are kept; at the centre the groups decide."""
    k = int(kernel_size)
    kept = np.zeros((len(out_groups), len(in_groups), k * k), bool)
    kept[:, :, : k * k // 2] = True
    compare = np.greater if strict else np.greater_equal
    kept[:, :, k * k // 2] = compare(out_groups[:, None], in_groups[None, :])
    return kept.reshape(len(out_groups), len(in_groups), k, k)


def seen(height, width, row, column, kernel_size, layers) -> np.ndarray:
    """From the output hop by hop: up or to the left, and in all layers but one to the place itself."""
    reach = int(kernel_size) // 2
    hops = [(-up, across) for up in range(1, reach + 1) for across in range(-reach, reach + 1)]
    hops += [(0, -left) for left in range(1, reach + 1)]
    places = {(int(row), int(column))}
    for layer in range(int(layers)):
        allowed = hops if layer == 0 else [*hops, (0, 0)]
        places = {(r + up, c + across) for r, c in places for up, across in allowed}
        places = {(r, c) for r, c in places if r >= 0 and 0 <= c < width}
    return np.array([[(r, c) in places for c in range(int(width))] for r in range(int(height))])


def shift_down(x: np.ndarray) -> np.ndarray:
    """Row r shows what was in row r − 1."""
    return np.concatenate([np.zeros_like(x[:, :, :1]), x[:, :, :-1]], axis=2)


def shift_right(x: np.ndarray) -> np.ndarray:
    """Column c shows what was in column c − 1."""
    return np.concatenate([np.zeros_like(x[..., :1]), x[..., :-1]], axis=3)


def gated_activation(a: np.ndarray, c: np.ndarray) -> np.ndarray:
    """tanh(a₁ + c₁)·σ(a₂ + c₂)."""
    signal, gate = np.split(a + c[:, :, None, None], 2, axis=1)
    return np.tanh(signal) / (1 + np.exp(-gate))


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
            "answer is log2(levels), whatever the shape of the images. The levels are axis 1 of the logits.",
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

PIXELCNN = Problem(
    name="pixelcnn",
    title="4. Masked convolutions",
    withheld=("dulcourse.autoregressive.causal", "dulcourse.autoregressive.pixelcnn"),
    items=(
        Probe(
            function="conv_mask",
            draw=draw_conv_mask,
            reference=conv_mask,
            points=10,
            hint="The result is bool [out, in, k, k]. Rows above the centre and what is left of it are kept "
            "for all channels; at the centre itself the groups decide: the output's must be greater than the "
            "input's, or equal where the layer is not strict. One mask for all channels gets the channel "
            "order wrong.",
        ),
        Probe(
            function="seen",
            draw=draw_seen,
            reference=seen,
            points=10,
            hint="One layer takes one hop; only one of them (the first) must leave the place. Nothing is "
            "reached to the right in the pixel's own row, and up to the right only as far as the hops go.",
        ),
    ),
)

GATED = Problem(
    name="gated",
    title="5. A Gated PixelCNN",
    withheld=("dulcourse.autoregressive.gated_pixelcnn", "dulcourse.autoregressive.causal"),
    items=(
        Probe(
            function="shift_down",
            draw=draw_image,
            reference=shift_down,
            points=2,
            hint="Row r of the result is row r − 1 of x, row 0 is zero: rows are the axis before the last.",
        ),
        Probe(
            function="shift_right",
            draw=draw_image,
            reference=shift_right,
            points=2,
            hint="Column c of the result is column c − 1 of x, column 0 is zero: columns are the last axis.",
        ),
        Probe(
            function="gated_activation",
            draw=draw_gated_activation,
            reference=gated_activation,
            points=4,
            hint="The first half of the channels of a + c goes through tanh, the second through the sigmoid, "
            "and c is the same at every place of its image.",
        ),
        Model(
            name="gated",
            data="glyphs",
            options={"size": 8, "levels": 4},
            shape=(1, 8, 8),
            levels=4,
            order=tuple(orders.raster((1, 8, 8)).tolist()),
            classes=10,
            reference="gated",
            points=22,
        ),
    ),
)

WRITTEN = Problem(name="written", title="In words", items=(Written(cell="written", points=10),))


def thresholds(tier: str) -> dict[str, Threshold]:
    """Full points at the reference's own spread over seeds; none where a model has learned nothing.

    Nothing is left where a single logistic stands (for the table too: a uniform guess costs 0.5 more than the
    reference, and luck must not pay it), and for MADE and the Gated PixelCNN where pixels are taken for
    independent.
    """
    none = {"histogram": 0.4, "mixture": 0.4, "made": 0.19, "gated": 0.3}
    images = {"histogram": 4096, "mixture": 8192, "made": 2048, "gated": 1024}
    if tier != "smoke":
        none |= {"made": 0.25, "gated": 0.5}
        images |= {"made": 4096, "gated": 4096}
    return {
        model: Threshold(
            full=calibrated_full(FOLDER, model, tier, otherwise=0.01) + GRACE[model],
            none=none[model],
            images=images[model],
        )
        for model in none
    }


rubric = Rubric(
    name="hw1_autoregressive",
    title="Homework 1. Likelihood and autoregressive models",
    folder=FOLDER,
    problems=(HISTOGRAM, MIXTURE, MADE, PIXELCNN, GATED, WRITTEN),
    tiers={
        "smoke": Tier(seconds=40, memory_gib=2.0, thresholds=thresholds("smoke")),
        "cpu": Tier(seconds=600, thresholds=thresholds("cpu")),
        "gpu": Tier(seconds=600, memory_gib=16.0, thresholds=thresholds("gpu")),
    },
)
