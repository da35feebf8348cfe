"""Homework 2: 100 points, 90 of them measured."""

from pathlib import Path

import numpy as np
import torch

from autograder.rubric import Model, Probe, Problem, Rubric, Threshold, Tier, Written, calibrated_full
from dulcourse import likelihood
from dulcourse.flows.elementwise import to_reals
from dulcourse.flows.mixture_cdf import MixtureMap
from dulcourse.flows.reshape import Squeeze

FOLDER = Path(__file__).parent
GRACE = 0.01  # bits/dim: nobody loses points to the luck of a seed
Draw = dict[str, np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]


# What functions are asked: arguments by name, drawn outside the wall. Scalars arrive as Python numbers.


def draw_mixture(generator: np.random.Generator) -> Draw:
    """One mixture for all, or one for each entry; the first and the last x so far out that F or 1 − F is 1.

    Far out is at 70 times the largest scale: e^−70 is lost in a difference, and still far from no number at
    all. Weights are far apart, so that leaving them out, or out of the log, is seen.
    """
    shape = ((6,), (3, 4), (2, 1, 3))[generator.integers(3)]
    components = int(generator.integers(2, 6))
    own = (*shape, components) if generator.integers(2) else (components,)
    means, log_scales = generator.uniform(0, 100, size=own), generator.uniform(0.0, 3.0, size=own)
    x = generator.uniform(-20, 120, size=shape)
    far = np.broadcast_to(70 * np.exp(log_scales.max(axis=-1)), shape).flat
    x.flat[0] = np.broadcast_to(means.min(axis=-1), shape).flat[0] - far[0]
    x.flat[-1] = np.broadcast_to(means.max(axis=-1), shape).flat[-1] + far[-1]
    weights_logits = generator.normal(size=own, scale=2.0)
    return {"x": x, "weights_logits": weights_logits, "means": means, "log_scales": log_scales}


def draw_from_gaussian(generator: np.random.Generator) -> Draw:
    """z as a standard normal gives it, and two that it never gives."""
    arguments = draw_mixture(generator)
    z = generator.normal(size=arguments.pop("x").shape, scale=1.5)
    z.flat[0], z.flat[-1] = -9.0, 9.0
    return {"z": z, **arguments}


def draw_change_of_variables(generator: np.random.Generator) -> Draw:
    """Determinants of both signs, from one dimension to five."""
    n, dims = generator.integers(2, 7), generator.integers(1, 6)
    jacobian = generator.normal(size=(n, dims, dims)) * np.exp(generator.uniform(-2, 2, size=(n, 1, 1)))
    jacobian[0, 0] *= -np.sign(np.linalg.det(jacobian[0]))  # one that is surely negative
    return {"z": generator.normal(size=(n, dims)), "jacobian": jacobian}


def draw_log_det_triangular(generator: np.random.Generator) -> Draw:
    """Diagonals of both signs; below them numbers that must not matter."""
    n, dims = generator.integers(2, 7), generator.integers(1, 7)
    jacobian = np.tril(generator.normal(size=(n, dims, dims), scale=3.0), k=-1)
    i = np.arange(dims)
    jacobian[:, i, i] = np.exp(generator.uniform(-3, 3, size=(n, dims))) * _signs(generator, (n, dims))
    return {"jacobian": jacobian}


def draw_dequantise(generator: np.random.Generator) -> Draw:
    """Images of several shapes, so that D cannot be a constant."""
    levels, shape = int(generator.choice((2, 4, 100, 256))), _shape(generator)
    return {
        "x": generator.integers(0, levels, size=shape),
        "u": generator.random(size=shape),
        "levels": np.asarray(levels),
    }


def draw_logit_forward(generator: np.random.Generator) -> Draw:
    """Both ends of the range among x."""
    levels, x = int(generator.choice((2, 4, 256))), generator.random(size=_shape(generator))
    x.flat[0], x.flat[-1] = 0.0, 0.9999
    alpha = float(generator.choice((0.05, 0.01, 0.001)))
    return {"x": levels * x, "levels": np.asarray(levels), "alpha": np.asarray(alpha)}


def draw_logit_inverse(generator: np.random.Generator) -> Draw:
    """y so large that 1 − σ(y) rounds to 0."""
    levels, y = int(generator.choice((2, 4, 256))), generator.normal(size=_shape(generator), scale=3.0)
    y.flat[0], y.flat[-1] = -40.0, 40.0
    alpha = float(generator.choice((0.05, 0.01, 0.001)))
    return {"y": y, "levels": np.asarray(levels), "alpha": np.asarray(alpha)}


def draw_bits_per_dim(generator: np.random.Generator) -> Draw:
    """Divided by L, by L − 1, by nothing; D from 1 to hundreds."""
    dims = int(generator.integers(1, 400))
    return {
        "log_density": generator.normal(size=generator.integers(2, 8), loc=1.0) * dims,
        "dims": np.asarray(dims),
        "scale": np.asarray(float(generator.choice((1, 2, 4, 100, 255, 256)))),
    }


def draw_bound_and_mass(generator: np.random.Generator) -> Draw:
    """Densities of every size, down to what no computer tells from 0."""
    n = generator.integers(2, 6)
    size = generator.choice((0.0, -30.0, -2000.0), size=(n, 1))
    size[0] = -2000.0
    return {"log_density": size + generator.normal(size=(n, generator.integers(1, 30)), scale=2.0)}


def draw_checkerboard(generator: np.random.Generator) -> Draw:
    """Not square, and of several channels."""
    sizes = generator.permutation(np.arange(1, 9))[:3]
    return dict(zip(("channels", "height", "width"), map(np.asarray, sizes), strict=True))


def draw_squeeze(generator: np.random.Generator) -> Draw:
    """Several channels, and a height that is not the width."""
    n, channels, height = generator.integers(1, 4), generator.integers(1, 4), generator.integers(1, 4)
    return {"x": generator.normal(size=(n, channels, 2 * height, 2 * height + 2))}


def draw_unsqueeze(generator: np.random.Generator) -> Draw:
    """What a squeeze of such images may have given."""
    n, channels, height = generator.integers(1, 4), generator.integers(1, 4), generator.integers(1, 4)
    return {"x": generator.normal(size=(n, 4 * channels, height, height + 1))}


def draw_affine_coupling(generator: np.random.Generator) -> Draw:
    """Any mask, and scales and shifts in the kept half too, where they must not matter."""
    n, *shape = _shape(generator, images=True)
    kept = generator.random(size=shape) < 0.5
    kept.flat[0], kept.flat[-1] = True, False
    return {
        "x": generator.normal(size=(n, *shape)),
        "kept": kept,
        "log_scale": generator.normal(size=(n, *shape)),
        "shift": generator.normal(size=(n, *shape)),
    }


def draw_affine_coupling_inverse(generator: np.random.Generator) -> Draw:
    """The same, from the other end."""
    arguments = draw_affine_coupling(generator)
    return {"z": arguments.pop("x"), **arguments}


def _shape(generator: np.random.Generator, images: bool = False) -> tuple[int, ...]:
    n, shapes = int(generator.integers(2, 6)), ((1, 3, 4), (3, 2, 2), (2, 1, 1), (5,))
    return (n, *shapes[generator.integers(3 if images else 4)])


def _signs(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.choice((-1.0, 1.0), size=shape)


# What they should answer.


def log_cdf(x, weights_logits, means, log_scales) -> Pair:
    """log F and log(1 − F) of dulcourse, in float64."""
    monotone, theta = _mixture(weights_logits, means, log_scales)
    return _arrays(monotone.log_cdf(torch.from_numpy(x), theta))


def log_density(x, weights_logits, means, log_scales) -> np.ndarray:
    """log F', the slope of z times the density of z."""
    z, log_slope = to_gaussian(x, weights_logits, means, log_scales)
    return log_slope - (z**2 + np.log(2 * np.pi)) / 2


def to_gaussian(x, weights_logits, means, log_scales) -> Pair:
    """z and log f' of dulcourse, in float64."""
    monotone, theta = _mixture(weights_logits, means, log_scales)
    return _arrays(monotone(torch.from_numpy(x), theta))


def from_gaussian(z, weights_logits, means, log_scales) -> np.ndarray:
    """x of dulcourse, in float64."""
    monotone, theta = _mixture(weights_logits, means, log_scales)
    return _arrays(monotone.inverse(torch.from_numpy(z), theta))[0]


def _mixture(weights_logits, means, log_scales) -> tuple[MixtureMap, torch.Tensor]:
    """dulcourse counts means from K centres ½, 1½, …, and keeps log-scales between bounds by a tanh."""
    components, bound = weights_logits.shape[-1], 8.0
    means = means - np.arange(components) - 0.5
    theta = np.concatenate([weights_logits, means, bound * np.arctanh(log_scales / bound)], axis=-1)
    monotone = MixtureMap(components, "logistic", low=0.0, high=float(components), bound=bound)
    return monotone, torch.from_numpy(theta)


def _arrays(pair: tuple[torch.Tensor, torch.Tensor]) -> Pair:
    return tuple(tensor.detach().numpy() for tensor in pair)


def change_of_variables(z: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """log N(z; 0, I) + log|det J|."""
    return np.linalg.slogdet(jacobian)[1] - 0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=1)


def log_det_triangular(jacobian: np.ndarray) -> np.ndarray:
    """Σ_i log|J_ii|."""
    return np.log(np.abs(np.diagonal(jacobian, axis1=1, axis2=2))).sum(axis=1)


def dequantise(x: np.ndarray, u: np.ndarray, levels: np.ndarray) -> Pair:
    """(x + u)/L and −D log L."""
    return (x + u) / levels, np.full(len(x), -x[0].size * np.log(levels))


def logit_forward(x: np.ndarray, levels: np.ndarray, alpha: np.ndarray) -> Pair:
    """x/L, then the logit of dulcourse with margin α."""
    return _arrays(to_reals(int(levels), margin=float(alpha))(torch.from_numpy(x)))


def logit_inverse(y: np.ndarray, levels: np.ndarray, alpha: np.ndarray) -> Pair:
    """The same layers backwards."""
    return _arrays(to_reals(int(levels), margin=float(alpha)).inverse(torch.from_numpy(y)))


def bits_per_dim(log_density: np.ndarray, dims: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """−(log p_y − D log c)/(D ln 2)."""
    log_prob = torch.from_numpy(log_density - dims * np.log(scale))
    return likelihood.bits_per_dim(log_prob, dims=int(dims)).numpy()


def bound_and_mass(log_density: np.ndarray) -> Pair:
    """The mean of log p, and the log of the mean of p."""
    mass = np.logaddexp.reduce(log_density, axis=1) - np.log(log_density.shape[1])
    return log_density.mean(axis=1), mass


def checkerboard(channels: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """True where h + w is even."""
    return np.indices((channels, height, width))[1:].sum(axis=0) % 2 == 0


def squeeze(x: np.ndarray) -> np.ndarray:
    """The squeeze of dulcourse."""
    return Squeeze()(torch.from_numpy(x))[0].numpy()


def unsqueeze(x: np.ndarray) -> np.ndarray:
    """Its inverse."""
    return Squeeze().inverse(torch.from_numpy(x))[0].numpy()


def affine_coupling(x, kept, log_scale, shift) -> Pair:
    """x·exp(s) + t and Σ s, where x is not kept."""
    z = np.where(kept, x, x * np.exp(log_scale) + shift)
    return z, _over(~kept, log_scale)


def affine_coupling_inverse(z, kept, log_scale, shift) -> Pair:
    """(z − t)·exp(−s) and −Σ s, where z is not kept."""
    x = np.where(kept, z, (z - shift) * np.exp(-log_scale))
    return x, -_over(~kept, log_scale)


def _over(half: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    return np.where(half, log_scale, 0.0).reshape(len(log_scale), -1).sum(axis=1)


CDF_FLOW = Problem(
    name="cdf_flow",
    title="1. One dimension: bend a distribution function",
    withheld=("dulcourse.flows.mixture_cdf",),
    items=(
        Probe(
            function="log_cdf",
            draw=draw_mixture,
            reference=log_cdf,
            points=4,
            hint="Far out one of the two is 0 and the other as negative as can be: 1 − F is not computed as "
            "a difference, but as the mixture of sigmoid(−a). Weights are softmax(weights_logits).",
        ),
        Probe(
            function="log_density",
            draw=draw_mixture,
            reference=log_density,
            points=4,
            hint="The derivative of sigmoid((x − μ)/s) holds a factor 1/s, −log s in the logarithm, and the "
            "densities of the components are added, not their logarithms: logsumexp.",
        ),
        Probe(
            function="to_gaussian",
            draw=draw_mixture,
            reference=to_gaussian,
            points=4,
            hint="Part 0 is z: where F rounds to 1, take −ndtri(1 − F), with 1 − F from its own sum. Part 1 "
            "is log F'(x) minus the log-density of the standard normal at z.",
        ),
        Probe(
            function="from_gaussian",
            draw=draw_from_gaussian,
            reference=from_gaussian,
            points=4,
            atol=1e-5,
            hint="Put the result into to_gaussian: z must come back. Does the first interval hold the "
            "solution even for z = 9, and are there enough halvings (64)?",
        ),
        Model(
            name="cdf_flow",
            family="flow",
            data="toy1d",
            shape=(1, 1, 1),
            levels=100,
            reference="cdf_flow",
            points=8,
        ),
    ),
)

PLANE = Problem(
    name="plane",
    title="2. The plane",
    withheld=("dulcourse.flows.masked_autoregressive", "dulcourse.flows.affine"),
    items=(
        Probe(
            function="change_of_variables",
            draw=draw_change_of_variables,
            reference=change_of_variables,
            points=4,
            hint="log|det J| is added, and its absolute value is taken before the logarithm (slogdet gives "
            "both apart). The prior has D terms −½ log 2π.",
        ),
        Probe(
            function="log_det_triangular",
            draw=draw_log_det_triangular,
            reference=log_det_triangular,
            points=2,
            hint="The sum over the diagonal of log|J_ii|, one number for each matrix of the batch.",
        ),
        Model(
            name="plane",
            family="flow",
            data="toy2d",
            options={"kind": "moons", "levels": 64},
            shape=(2, 1, 1),
            levels=64,
            reference="plane",
            points=16,
        ),
    ),
)

DEQUANTISATION = Problem(
    name="dequantisation",
    title="3. Integers",
    withheld=("dulcourse.flows.elementwise",),
    items=(
        Probe(
            function="dequantise",
            draw=draw_dequantise,
            reference=dequantise,
            points=2,
            hint="y = (x + u)/L. Dividing D numbers by L shrinks volumes by L^D: the log-determinant is "
            "−D log L, one number for each image.",
        ),
        Probe(
            function="logit_forward",
            draw=draw_logit_forward,
            reference=logit_forward,
            points=4,
            hint="Two steps, each with its slope: x ↦ q has slope (1 − 2α)/L, and q ↦ logit(q) has "
            "slope 1/(q(1 − q)). Sum the logarithms over all entries of an image.",
        ),
        Probe(
            function="logit_inverse",
            draw=draw_logit_inverse,
            reference=logit_inverse,
            points=3,
            hint="The log-determinant is that of y ↦ x: minus the other one, written in y. Where sigmoid(y) "
            "rounds to 1, F.logsigmoid(−y) is still exact.",
        ),
        Probe(
            function="bits_per_dim",
            draw=draw_bits_per_dim,
            reference=bits_per_dim,
            points=4,
            hint="From y = (x + u)/c back to x + u: every dimension owes log2(c) bits, whatever D is. "
            "With scale = 1 it is −log2 p/D.",
        ),
        Probe(
            function="bound_and_mass",
            draw=draw_bound_and_mass,
            reference=bound_and_mass,
            points=5,
            hint="Part 0 is the mean of the logarithms, part 1 the logarithm of the mean: logsumexp over the "
            "last axis, minus log n. Part 1 is never below part 0.",
        ),
    ),
)

REALNVP = Problem(
    name="realnvp",
    title="4. RealNVP",
    withheld=tuple(
        f"dulcourse.flows.{module}" for module in ("coupling", "monotone", "nice", "realnvp", "reshape")
    ),
    items=(
        Probe(
            function="affine_coupling",
            draw=draw_affine_coupling,
            reference=affine_coupling,
            points=5,
            hint="Where kept is true, z is x, and nothing that a network says there counts, in the "
            "log-determinant either: it is the sum of log_scale over the transformed half.",
        ),
        Probe(
            function="affine_coupling_inverse",
            draw=draw_affine_coupling_inverse,
            reference=affine_coupling_inverse,
            points=3,
            hint="First the shift is taken away, then the scale. The log-determinant is that of z ↦ x: minus "
            "the sum of log_scale over the transformed half.",
        ),
        Probe(
            function="checkerboard",
            draw=draw_checkerboard,
            reference=checkerboard,
            points=2,
            hint="bool [channels, height, width], true where h + w is even, alike in every channel.",
        ),
        Probe(
            function="squeeze",
            draw=draw_squeeze,
            reference=squeeze,
            points=2,
            hint="Number the entries of one image and follow four of them: channel 4c + 2i + j holds the "
            "pixels (2h + i, 2w + j) of channel c. A reshape alone cuts the image elsewhere.",
        ),
        Probe(
            function="unsqueeze",
            draw=draw_unsqueeze,
            reference=unsqueeze,
            points=2,
            hint="unsqueeze(squeeze(x)) must be x, entry by entry.",
        ),
        Model(
            name="realnvp",
            family="flow",
            data="glyphs",
            options={"size": 8, "levels": 4},
            shape=(1, 8, 8),
            levels=4,
            reference="realnvp",
            points=12,
        ),
    ),
)

WRITTEN = Problem(name="written", title="In words", items=(Written(cell="written", points=10),))


def thresholds(tier: str) -> dict[str, Threshold]:
    """Full points at the reference's own spread over seeds; none where a flow has learned nothing.

    Nothing is left short of a uniform guess on the line, where the two coordinates of the plane are taken for
    independent, and where the pixels of a glyph are independent Gaussians behind their logit.
    """
    smoke = tier == "smoke"
    none = {"cdf_flow": 0.4, "plane": 0.4 if smoke else 0.5, "realnvp": 0.19 if smoke else 0.25}
    images = {
        "cdf_flow": 2048 if smoke else 4096,
        "plane": 2048 if smoke else 4096,
        "realnvp": 256 if smoke else 512,
    }
    return {
        model: Threshold(
            full=calibrated_full(FOLDER, model, tier, otherwise=0.01) + GRACE,
            none=none[model],
            images=images[model],
        )
        for model in none
    }


rubric = Rubric(
    name="hw2_flows",
    title="Homework 2. Flows",
    folder=FOLDER,
    problems=(CDF_FLOW, PLANE, DEQUANTISATION, REALNVP, WRITTEN),
    tiers={
        "smoke": Tier(seconds=40, memory_gib=2.0, thresholds=thresholds("smoke")),
        "cpu": Tier(seconds=600, thresholds=thresholds("cpu")),
        "gpu": Tier(seconds=600, memory_gib=16.0, thresholds=thresholds("gpu")),
    },
)
