"""Flows: log-determinants against Jacobians, forward against inverse, the prior that was assumed."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from dulcourse.referee.bitsback import LOG_SCALES, MEANS, log_normal
from dulcourse.referee.diagnosis.claims import figure, hopeless, judged, tolerance, unexplained, unusable
from dulcourse.referee.flow import SIGMA, Asked
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.score import Score

__all__ = ["explain"]

Nats = Float64[np.ndarray, " n"]
Images = Int64[np.ndarray, "n C H W"]
SLACK = 0.002  # bits/dim by which two figures for the same images may differ
DEARER = 0.05  # bits/dim that jumps of a density may cost on the way to z and back
SHRUNK = 0.1  # a mean of z² far below that of N(0, I)
SAVES = 1.0  # bits/dim that stretching z must save before it is worth a word
SPIKES = 0.1  # bits/dim by which a density may be higher at whole numbers than between: a good one is lower
ENTRIES = 8  # of x, at most, whose slopes are looked at one by one
MANY = 32  # images, at least, in which an order is no accident
ORDERED = 1 - 1e-5  # a correlation of ranks that rounding leaves of 1


def explain(
    score: Score,
    *,
    frozen: Frozen,
    asked: Asked,
    claimed: float | None = None,
    own: Nats | None = None,
    images: Images | None = None,
    bare: Nats | None = None,
) -> list[str]:
    """What the figures say, most useful first: unusable answers, a false log-determinant, an inverse that is
    none, another prior, a map without slope, other units, a density of whole numbers, idle layers.

    `own` is the model's own log p(x + u), in nats, for the `images` and the noise in `asked`; `bare` is
    log p(x), without noise.
    """
    words = unusable(score, "make forward(x) and inverse(z) finite, with z of shape [batch, D]")
    if asked.lost:
        return words
    bits = None if own is None else float(-own.mean() / (frozen.dims * math.log(2)))
    far = _far(asked)
    if far:
        return words + far  # all other figures are of a z that was not meant
    with np.errstate(all="ignore"):  # numbers of any size may have been answered
        found = _log_det(asked, frozen)
        if score.failures:  # they are in the score, in its parts and in z: nothing else explains these
            return words + found
        found += _inverse(score, asked, bool(found))
        found += _prior(asked, own, frozen) if own is not None and not found else []
        found += _flat(asked) if not found else []
        found += _dearer(score, bits) if not found else []
        found += _shrunk(asked) if not found else []
        found += _spikes(own, bare, frozen) if own is not None and bare is not None and not found else []
    idle = [] if found or images is None else _idle(images + asked.u, asked)
    lost = hopeless(bits, frozen.levels) if bits is not None and not found and not idle else []
    consistent = not found and not idle and not lost
    if claimed is not None and not found:
        found = [_claim(claimed, score, frozen, bits)]
        consistent &= bits is None or abs(claimed - bits) <= tolerance(score)
    return words + lost + found + idle + (unexplained(score) if consistent else [])


def _claim(claimed: float, score: Score, frozen: Frozen, own: float | None) -> str:
    """A claim beside what the model says of itself, which is not capped, or beside the score."""
    honest = score.bits_per_dim if own is None else own
    uncapped = replace(score, bits_per_dim=honest)
    return judged(claimed, uncapped, frozen.dims, frozen.levels, honest, _mistakes(score.parts, frozen))


def _far(asked: Asked) -> list[str]:
    cut = int((np.abs(asked.z0) >= MEANS).any(axis=1).sum())
    return [f"z of forward is {MEANS:g} or more for {cut} images, and was cut off there."] if cut else []


def _log_det(asked: Asked, frozen: Frozen) -> list[str]:
    """The log-determinant that forward returned against that of the Jacobian that came with it."""
    finite = np.isfinite(asked.log_det)
    if not finite.all():
        return [f"log_det of forward is not finite for {int((~finite).sum())} images; log(0)?"]
    known = np.isfinite(asked.volume)
    if known.mean() < 0.25:
        return []
    told, true, z = asked.log_det[known], asked.volume[known], asked.z0[known]
    # A correct log_det has more digits than autograd where a density is all but nil: few images are no proof.
    if np.quantile(np.abs(told - true), 0.9) <= SLACK * frozen.dims * math.log(2):
        return []
    return [
        f"log_det of forward is {figure(told.mean())} nats on average where its Jacobian has "
        f"{figure(true.mean())}: {_of_one(told, asked, known) or _pattern(told, true, z, frozen)}."
    ]


def _of_one(told: Nats, asked: Asked, known: np.ndarray) -> str | None:
    """Where the slopes ∂z_i/∂x_i of a few dimensions explain it: their product, or one of them."""
    if asked.slopes is None or not 1 < asked.slopes.shape[1] <= ENTRIES:
        return None
    each = np.log(np.maximum(asked.slopes[known], 1e-300))
    total, D = each.sum(axis=1), each.shape[1]
    if _alike(told, total, total):
        return (
            "it is the sum of log|∂z_i/∂x_i|, the determinant of a triangular Jacobian, and this one is not: "
            "some z_i depends on what comes after x_i"
        )
    alone = [i for i in range(D) if _alike(told, each[:, i], each[:, i])]
    return f"it is log|∂z_{alone[0] + 1}/∂x_{alone[0] + 1}| alone; sum over all {D}" if alone else None


def _pattern(told: Nats, true: Nats, z: np.ndarray, frozen: Frozen) -> str:
    D = frozen.dims
    if not told.any():
        return "it is zero throughout; return the sum of the layers' log-determinants"
    factors = {
        -1.0: "the sign is wrong; forward returns log|det ∂z/∂x|, inverse its negative",
        0.5: f"it is half of it; sum over all {D} dimensions, not over the half that a coupling changes last",
        1 / D: f"it is averaged over the {D} dimensions; sum it",
        1 / math.log(2): "it is in bits; return nats",
        2.0: "it is counted twice",
    }
    for factor, words in factors.items():
        if _alike(told, factor * true, true):
            return words
    if _alike(told, true + log_normal(z), log_normal(z)):
        return "the prior's log N(z; 0, I) is in it, which log_prob adds; log f'(x) = log F'(x) − log φ(z)"
    # Of a layer, or of all: right on average, to more digits than by luck.
    if abs((told - true).mean()) <= 1e-4 * np.abs(told - true).mean():
        return "it is averaged over the batch; return one number for each image"
    if (z**2).mean() < SHRUNK and told.mean() > true.mean():
        return (
            "z has shrunk to 0, the mode of N(0, I), because log_det does not charge for contracting: the "
            "sign of some layer is wrong, or its scales are averaged or left out where they are to be summed"
        )
    offset = float((told - true).mean())
    if _alike(told, true + offset, true):
        return _constant(offset, D, frozen.levels)
    if 0.35 <= _ratio(told, true) <= 0.65:
        return f"about half is missing; sum over all {D} dimensions and all layers"
    return "compare each layer's log_det with its autograd Jacobian; the first that differs is the one"


def _constant(offset: float, D: int, levels: int) -> str:
    """What a log_det that is off by the same amount for every image has forgotten, or counts for nothing."""
    each, range_ = offset / D, math.log(levels)
    known = {
        range_: f"it is {D} · log {levels} too large: x is divided by {levels} without its log-determinant, "
        f"which is log₂ {levels} bits/dim",
        2 * range_: f"it is 2 · {D} · log {levels} too large: the log-determinant of x/{levels} is "
        f"−{D} · log {levels}, not +",
        -range_: f"it is {D} · log {levels} too small: the log-determinant of x/{levels} is counted twice",
    }
    for value, words in known.items():
        if math.isclose(each, value, rel_tol=1e-3):
            return words
    left_out = f"a constant scaling is left out (by {math.exp(-each):.4g} if it is of all {D} dimensions)"
    kept_half = "scales are counted where they are not applied (the kept half of a coupling)"
    if D == 1 or each < math.log(
        2
    ):  # training drives scales that cost nothing to their bounds, far beyond this
        causes = left_out
    else:
        causes = kept_half if each > range_ else f"{kept_half}, or {left_out}"
    return f"it is off by {offset:+.3f} for every image: {causes}"


def _ratio(told: Nats, true: Nats) -> float:
    return float(told.mean() / true.mean()) if true.mean() else math.inf


def _alike(a: Nats, b: Nats, scale: Nats) -> bool:
    return bool(np.abs(a - b).mean() <= 0.01 * max(1e-6, np.abs(scale).mean()))


def _inverse(score: Score, asked: Asked, wrong_log_det: bool) -> list[str]:
    miss = score.parts.get("round_trip")
    if miss is None or miss <= 1.5:  # one σ is what the referee's own noise makes of an exact inverse
        return []
    if asked.flat.mean() > 0.25 and not (wrong_log_det and miss > 1000):
        return []  # where a map is flat, no inverse finds x again
    words = f"inverse(forward(x)) misses x by {miss * SIGMA:.2g} levels"
    if miss <= 100:
        return [
            f"{words}: forward and inverse differ by a little, an inverse by bisection needs more steps, or "
            "float32 is used inside."
        ]
    words += ": forward and inverse do not undo each other; check the layers one by one, in reverse order"
    if wrong_log_det:
        words += " (a layer whose network sees what it is to transform breaks its inverse and its log_det)"
    elif miss <= 1000:
        words += " (if it is by bisection, it may need more steps)"
    return [f"{words}."]


def _flat(asked: Asked) -> list[str]:
    many, least = int(asked.flat.sum()), math.exp(-LOG_SCALES) / SIGMA
    if many <= 0.1 * len(asked.flat):
        return []
    return [
        f"around {many} of {len(asked.flat)} images forward is so flat (a slope below {least:.2g}) that z "
        "hardly tells where x was, and no inverse finds it again: a density with spikes narrower than the "
        "noise u, or z scaled down too far."
    ]


def _shrunk(asked: Asked) -> list[str]:
    """What would be saved by z = cf(x) with the best c: ½(m − 1 − log m) nats, m the mean of z²."""
    mean = max(float((asked.z0**2).mean()), 1e-300)
    saved = 0.5 * (mean - 1 - math.log(mean)) / math.log(2)
    if mean >= SHRUNK or saved <= SAVES:
        return []
    return [
        f"z is {math.sqrt(mean):.2g} large where N(0, I) is 1, and stretching it would save {saved:.1f} "
        "bits/dim: was log_det left out of the loss?"
    ]


def _spikes(own: Nats, bare: Nats, frozen: Frozen) -> list[str]:
    """Whether whole numbers cost less than a uniform guess, and what lies between them a lot more."""
    at_x, between = (float(-nats.mean() / (frozen.dims * math.log(2))) for nats in (bare, own))
    if between - at_x <= SPIKES or at_x >= math.log2(frozen.levels):
        return []
    return [
        f"the density is {between - at_x:.2f} bits/dim higher at whole numbers x than at x + u: was it "
        "trained on x + u, with new u from [0, 1) at every step?"
    ]


def _idle(y: Float64[np.ndarray, "n C H W"], asked: Asked) -> list[str]:
    """Entries of z that come in the order of one entry of x in all images, so no other entry moves them."""
    n, D = asked.z0.shape
    if n < MANY or D < 2:
        return []
    x, z = (_standard_ranks(values) for values in (y.reshape(n, D), asked.z0))
    alone = int((np.abs(z.T @ x).max(axis=1) >= n * ORDERED).sum())
    if alone == D:
        return [
            "every entry of z follows from one x alone: no layer looks at the others, and the entries are "
            "modelled as if they were independent."
        ]
    if D < 4 or alone < D / 4:
        return []
    return [
        f"{alone} of the {D} entries of z follow from one x each, whatever the others are: no layer "
        "transforms them by the others; flip the mask from layer to layer."
    ]


def _standard_ranks(values: Float64[np.ndarray, "n D"]) -> Float64[np.ndarray, "n D"]:
    """Of each column, with mean 0 and variance 1: products of two are n times Spearman's correlation."""
    ranks = values.argsort(axis=0, kind="stable").argsort(axis=0).astype(np.float64)
    return (ranks - ranks.mean(axis=0)) / ranks.std(axis=0)


def _dearer(score: Score, own: float | None) -> list[str]:
    """What has been charged beyond −log p(x + u) of a model whose figures agree with each other."""
    if own is None:
        return []
    measured = score.parts["prior"] - score.parts["log_det"]
    if measured - own <= DEARER * max(1.0, abs(own)):
        return []
    return [
        f"by way of z and back images cost {figure(measured)} bits/dim where log_prob says {figure(own)}: "
        f"not every x comes back to {SIGMA:g} levels; is something rounded inside, or too steep for it?"
    ]


def _prior(asked: Asked, own: Nats, frozen: Frozen) -> list[str]:
    """log p(x) less the log-determinant is the prior that log_prob assumed; the referee's is N(0, I)."""
    D, told, true = frozen.dims, own - asked.log_det, log_normal(asked.z0)
    if np.abs(told - true).mean() <= SLACK * D * math.log(2):
        return []
    constant = 0.5 * D * math.log(2 * math.pi)
    if _alike(told, true + constant, true):
        return ["log_prob lacks the prior's −½ log 2π of each dimension."]
    if _alike(told, true / D, true):
        return [
            f"log_prob averages the prior over the {D} dimensions and sums the log-determinant; sum both."
        ]
    if _alike(told, true - 2 * asked.log_det, true):
        return ["log_prob subtracts the log-determinant; log p(x) = log p(z) + log|det ∂z/∂x|."]
    return [
        f"log_prob gives z {figure(told.mean())} nats on average where N(0, I) gives "
        f"{figure(true.mean())}: another prior; the referee, like sample, draws z from N(0, I), so train "
        "with that."
    ]


def _mistakes(parts, frozen: Frozen) -> dict[str, float]:
    """What a claim becomes by mistakes with the log-determinant, bits/dim."""
    prior, log_det = parts["prior"], parts["log_det"]
    return {
        "the log-determinant has the wrong sign": prior + log_det,
        "the log-determinant was left out": prior,
        "half of the log-determinant is missing: sum it over all dimensions and layers": prior - log_det / 2,
        f"the log-determinant was divided by the {frozen.dims} dimensions twice": prior
        - log_det / frozen.dims,
    }
