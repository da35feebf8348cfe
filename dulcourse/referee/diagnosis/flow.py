"""Flows: log-determinants against Jacobians, forward against inverse, the prior that was assumed."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from dulcourse.referee.bitsback import log_normal
from dulcourse.referee.diagnosis.claims import figure, judged, unusable
from dulcourse.referee.flow import SIGMA, Asked
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.score import Score

__all__ = ["explain"]

Nats = Float64[np.ndarray, " n"]
SLACK = 0.002  # bits/dim by which two figures for the same images may differ


def explain(
    score: Score,
    *,
    frozen: Frozen,
    asked: Asked,
    claimed: float | None = None,
    own: Nats | None = None,
) -> list[str]:
    """What the figures say, most useful first: unusable answers, a false log-determinant, an inverse that is
    none, another prior, other units.

    `own` is the model's own log p(x + u), in nats, for the images and noise in `asked`.
    """
    words = unusable(score, "make forward(x) and inverse(z) finite, with z of shape [batch, D]")
    if asked.lost:
        return words
    with np.errstate(all="ignore"):  # numbers of any size may have been answered
        found = _log_det(asked, frozen) + _inverse(score)
        found += _prior(asked, own, frozen) if own is not None and not found else []
    if claimed is not None and not found:
        more = _mistakes(score.parts, frozen) if {"prior", "log_det"} <= set(score.parts) else {}
        honest = score.bits_per_dim if own is None else -own.mean() / (frozen.dims * math.log(2))
        # What a model says of itself is not capped.
        uncapped = replace(score, bits_per_dim=float(honest))
        found = [judged(claimed, uncapped, frozen.dims, frozen.levels, float(honest), more)]
    return words + found


def _log_det(asked: Asked, frozen: Frozen) -> list[str]:
    """The log-determinant that forward returned against that of the Jacobian that came with it."""
    told, true = asked.log_det, log_det_of(asked)
    if not np.isfinite(told).all():
        return [f"log_det of forward is not finite for {int((~np.isfinite(told)).sum())} images; log(0)?"]
    if np.abs(told - true).mean() <= SLACK * frozen.dims * math.log(2):
        return []
    return [
        f"log_det of forward is {figure(told.mean())} nats on average where its Jacobian has "
        f"{figure(true.mean())}: {_pattern(told, true, frozen)}."
    ]


def log_det_of(asked: Asked) -> Nats:
    """log|det J| of the Jacobians in `asked`, nats."""
    D = asked.z0.shape[1]
    return np.log(np.abs(np.einsum("nii->ni", asked.spread))).sum(axis=1) - D * math.log(SIGMA)


def _pattern(told: Nats, true: Nats, frozen: Frozen) -> str:
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
    offset = (told - true).mean()
    if _alike(told, true + offset, true):
        if math.isclose(offset, D * math.log(frozen.levels), rel_tol=0.01):
            return (
                f"it is {D} · log {frozen.levels} too large: x is divided by {frozen.levels} without its "
                f"log-determinant, which is log₂ {frozen.levels} bits/dim"
            )
        return (
            f"it is off by {offset:+.3f} for every image: a constant scaling that is left out, the sign of "
            "some layer, or scales counted where they are not applied (the kept half of a coupling)"
        )
    if _ratio(told, true) < 0:
        return "the sign of some layer is wrong; forward returns log|det ∂z/∂x|, inverse its negative"
    if 0.35 <= _ratio(told, true) <= 0.65:
        return f"about half is missing; sum over all {D} dimensions and all layers"
    return "compare each layer's log_det with its autograd Jacobian; the first that differs is the one"


def _ratio(told: Nats, true: Nats) -> float:
    return float(told.mean() / true.mean()) if true.mean() else math.inf


def _alike(a: Nats, b: Nats, scale: Nats) -> bool:
    return bool(np.abs(a - b).mean() <= 0.01 * max(1e-6, np.abs(scale).mean()))


def _inverse(score: Score) -> list[str]:
    miss = score.parts.get("round_trip")
    if miss is None or miss <= 1.5:  # one σ is what the referee's own noise makes of an exact inverse
        return []
    words = f"inverse(forward(x)) misses x by {miss * SIGMA:.2g} levels"
    if miss <= 100:
        return [f"{words}: an inverse by bisection needs more steps, or float32 is used inside."]
    return [
        f"{words}: forward and inverse do not undo each other; check the layers one by one, in reverse order."
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
