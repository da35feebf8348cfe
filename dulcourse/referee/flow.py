"""Blind scoring of flows: local bits back.

A flow is a latent-variable model whose posterior is infinitely narrow. Party A gets y = x + u, with u the
referee's, and returns z₀ = f(y) and a matrix J of its choice, for an honest one ∂f/∂y. With Jᵀ = QU and
Λ = Uᵀ, so that ΛΛᵀ = JJᵀ, the referee draws

    z = z₀ + σΛε,    log q = Σ(−ε²/2 − ½ log 2π) − Σ log(σ|Λ_ii|),

which holds for any triangular Λ. Party B gets z alone and returns ŷ = f⁻¹(z). An image costs

    S = log q − log N(z; 0, I) − log N(y; ŷ, σ²I)  →  −log p(y)  as  σ → 0,

because for an honest pair ŷ − y = σQε, and what is left of log q − log N(y; ŷ, σ²I) is −log|det J|. A false
J, a false inverse or a map that is not one-to-one make ŷ miss y by more, and cost what they miss.

Is that the length of the discrete image? u is drawn uniformly from the multiples of 2⁻³² in [0, 1)^D: a
sender chooses it with 32·D bits of another message, and whoever has y = x + u, which is exact in float64,
reads x = ⌊y⌋ and u and gets these bits back. y lies on a grid of spacing 2⁻³², 400 000 of which make one σ,
so the sum of N(y; ŷ, σ²I) over the grid is 1 to the last digit, and Σ_x E_u 2^−S ≤ 1: x is paid for in full
and u not at all. Nothing is rounded on the way to the charge but z, on a grid of its own (`bitsback`).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from dulcourse.flows.base import Flow
from dulcourse.referee import bitsback
from dulcourse.referee.code import capped, spared
from dulcourse.referee.frozen import Frozen, buffers_of, sha_of
from dulcourse.referee.precision import home, precisely
from dulcourse.referee.respondent import Malformed, Respondent, Spec
from dulcourse.referee.score import Score, check_images, given_reference, summary

__all__ = ["SIGMA", "Asked", "ask_first", "dequantisation", "freeze", "reference_charges", "score"]

Images = Int64[np.ndarray, "n C H W"]

SIGMA = 1e-4  # in data units: −log p(y) to 0.0002 bits/dim, where single precision still tells y from ŷ
SLOPES = 1e12  # the largest entry of a Jacobian that is taken at its word
FINE = 2**32  # u is one of so many numbers in [0, 1)
ROUNDING = 1e-9  # a pivot smaller than this, against the largest entry, is not known to many digits
BATCH = 256  # images that the reference is asked about at once


@dataclass(frozen=True, eq=False)
class Asked:
    """What A declared of images + u, made safe before any noise is drawn. `spread` is σΛ."""

    u: Float64[np.ndarray, "n C H W"]
    z0: Float64[np.ndarray, "n D"]
    spread: Float64[np.ndarray, "n D D"]
    log_det: Float64[np.ndarray, " n"]  # as claimed, nats (or NaN): compared after scoring, never used
    volume: Float64[np.ndarray, " n"]  # log|det J| before any clamp; NaN where rounding decides it
    flat: Bool[np.ndarray, " n"]  # where J is so small that `spread` had to be larger
    failures: int = 0
    reason: str = ""
    lost: bool = False  # nothing came that could be used: every image has failed
    slopes: Float64[np.ndarray, "n D"] | None = (
        None  # |∂z_i/∂x_i|: the determinant's factors, if J is triangular
    )


def freeze(checkpoint: bytes, shape: tuple[int, int, int], levels: int) -> Frozen:
    """The homework's sizes and the checkpoint's fingerprint. Raises `Malformed` for unreadable bytes."""
    buffers_of(checkpoint, only=())
    return Frozen(tuple(shape), levels, sha_of(checkpoint))


def dequantisation(
    shape: tuple[int, int, int, int], generator: np.random.Generator
) -> Float64[np.ndarray, "n C H W"]:
    """u, uniform on the multiples of 2⁻³² in [0, 1)."""
    return generator.integers(FINE, size=shape) / FINE


def ask_first(
    respondent: Respondent, name: str, frozen: Frozen, images: Images, *, generator: np.random.Generator
) -> Asked:
    """Phase 1: draw u, send images + u to A, and keep what it declares of them.

    A must be gone before `score` is called with what comes back.
    """
    check_images("images", images, frozen.shape, frozen.levels)
    n, dims = len(images), frozen.dims
    u = dequantisation(images.shape, generator)
    order = generator.permutation(n)

    def specs(k: int) -> dict[str, Spec]:
        shapes = {"z": (k, dims), "jacobian": (k, dims, dims), "log_det": (k,)}
        return {key: Spec(shape, finite=False) for key, shape in shapes.items()}

    try:
        answer = bitsback.ask_in_pieces(
            respondent, f"{name}.forward", {"x": images + u}, specs, dims * (dims + 2), order
        )
    except Malformed as error:
        none, eye = np.zeros((n, dims)), np.tile(np.eye(dims), (n, 1, 1))
        unknown, flat = np.full(n, np.nan), np.zeros(n, bool)
        return Asked(u, none, eye, np.zeros(n), unknown, flat, n, str(error), lost=True)
    return _made_safe(u, answer["z"], answer["jacobian"], answer["log_det"])


def _made_safe(u: np.ndarray, z: np.ndarray, jacobian: np.ndarray, log_det: np.ndarray) -> Asked:
    bad = bitsback.unusable(z, jacobian)
    jacobian = bitsback.clamped(jacobian, bad, SLOPES)
    jacobian[bad] = np.eye(z.shape[1]) / SIGMA  # q is the prior: z tells B nothing
    reason = f"{bad.sum()} answers of forward held numbers that are not finite" if bad.any() else ""
    z0 = bitsback.clamped(z, bad, bitsback.MEANS)
    told = np.where(np.isfinite(log_det), np.clip(log_det, -SLOPES, SLOPES), np.nan)
    triangle = np.linalg.qr(jacobian.swapaxes(1, 2), mode="r").swapaxes(1, 2)
    slopes = np.abs(np.einsum("nii->ni", jacobian))
    return Asked(
        u, z0, _spread(triangle), told, *_slopes(triangle, bad), int(bad.sum()), reason, slopes=slopes
    )


def _spread(triangle: Float64[np.ndarray, "n D D"]) -> Float64[np.ndarray, "n D D"]:
    """σΛ of Jᵀ = QU, Λ = Uᵀ: lower triangular, its diagonal between e^±15 and its entries within ±1e6."""
    spread = np.clip(SIGMA * triangle, -bitsback.MEANS, bitsback.MEANS)
    i = np.arange(spread.shape[1])
    diagonal = spread[:, i, i]
    scale = math.exp(bitsback.LOG_SCALES)
    spread[:, i, i] = np.where(diagonal < 0, -1.0, 1.0) * np.clip(np.abs(diagonal), 1 / scale, scale)
    return spread


def _slopes(
    triangle: Float64[np.ndarray, "n D D"], bad: Bool[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """log|det J| and where J is flat, for the diagnosis: `_spread` has lost both to its clamps."""
    diagonal = np.abs(np.einsum("nii->ni", triangle))
    least, largest = diagonal.min(axis=1), np.abs(triangle).max(axis=(1, 2))
    known = ~bad & (least > ROUNDING * largest) & (largest < SLOPES)
    volume = np.log(np.where(known[:, None], diagonal, np.nan)).sum(axis=1)
    return volume, ~bad & (SIGMA * least < math.exp(-bitsback.LOG_SCALES))


def score(
    respondent: Respondent,
    name: str,
    frozen: Frozen,
    asked: Asked,
    images: Images,
    *,
    generator: np.random.Generator,
    reference: Flow | None = None,
    reference_bits: Float64[np.ndarray, " r"] | None = None,
) -> Score:
    """Phase 2: draw ε, send z alone to B, and charge −log₂ p(x + u)/D for each image.

    The reference is charged its −log₂ p(x + u)/D for the same u, without any noise; where it is not there to
    be asked, `reference_bits` (bits/dim of each image) stands in for it.
    """
    check_images("images", images, frozen.shape, frozen.levels)
    n, dims = len(images), frozen.dims
    noise = generator.standard_normal((n, dims))
    z = bitsback.on_grid(asked.z0 + np.einsum("nij,nj->ni", asked.spread, noise))
    y = images + asked.u
    try:
        found = _ask_back(respondent, name, frozen, asked, z, generator.permutation(n))
        bad, lost = int(bitsback.unusable(found).sum()), False
        said = f"{bad} answers of inverse held numbers that are not finite" if bad else ""
        failures, reason = asked.failures + bad, asked.reason or said
    except Malformed as error:
        found, failures, reason, lost = np.full_like(y, np.nan), n, str(error), True
    # From the noise that was drawn, never from z.
    log_q = bitsback.log_normal(noise) - np.log(np.abs(np.einsum("nii->ni", asked.spread))).sum(axis=1)
    log_prior, log_p = bitsback.log_normal(z), _log_gaussian(y, found, frozen.levels)
    uncapped = (log_q - log_prior - log_p) / math.log(2)
    bits = capped(uncapped, np.full(n, lost), dims, frozen.levels)
    return summary(
        bits / dims,
        _reference(reference, reference_bits, y, frozen),
        bits,
        failures=failures,
        reason=reason,
        parts={} if lost else _parts(-log_prior, log_p - log_q, found - y, spared(bits, uncapped)),
    )


def _ask_back(respondent, name, frozen: Frozen, asked: Asked, z: np.ndarray, order: np.ndarray) -> np.ndarray:
    """What B makes of z, sent in this order."""
    if asked.lost:
        raise Malformed(asked.reason)
    return bitsback.ask_in_pieces(
        respondent,
        f"{name}.inverse",
        {"z": z},
        lambda k: {"x": Spec((k, *frozen.shape), finite=False)},
        2 * frozen.dims,
        order,
    )["x"]


def _log_gaussian(y: np.ndarray, found: np.ndarray, levels: int) -> Float64[np.ndarray, " n"]:
    """log N(y; ŷ, σ²I) in nats; where ŷ is not finite, the uniform density on [0, L)."""
    # Farther off than this is far beyond the cap; here the charge before it is a number that can be shown.
    near = np.clip(found, -bitsback.MEANS, bitsback.MEANS)
    log_p = -0.5 * ((y - near) / SIGMA) ** 2 - math.log(SIGMA) - 0.5 * math.log(2 * math.pi)
    return np.where(np.isfinite(found), log_p, -math.log(levels)).reshape(len(y), -1).sum(axis=1)


def _reference(reference, reference_bits, y, frozen: Frozen) -> Float64[np.ndarray, " n"] | None:
    if reference is None:
        return given_reference(reference_bits, len(y))
    return reference_charges(reference, y, frozen.levels) / frozen.dims


def reference_charges(
    reference: Flow, y: Float64[np.ndarray, "n C H W"], levels: int
) -> Float64[np.ndarray, " n"]:
    """−log₂ p(y) of a trusted flow, bits an image, as its own log_prob says in float64; capped like any."""
    batches = [torch.from_numpy(y[start : start + BATCH]) for start in range(0, len(y), BATCH)]

    def nats(model: Flow, dtype: torch.dtype) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([model.log_prob(x.to(home(model), dtype)) for x in batches])

    bits = -precisely(reference, nats).double().cpu().numpy() / math.log(2)
    return capped(bits, np.zeros(len(y), bool), y[0].size, levels)


def _parts(
    prior: np.ndarray, log_det: np.ndarray, miss: np.ndarray, cut: dict[str, float]
) -> dict[str, float]:
    """Bits/dim of z under the prior, of the log-determinant that the round trip amounts to (subtracted), and
    what the cap took off; beside them ŷ − y in σ.
    """
    dims = miss[0].size
    bits = {"prior": prior.mean() / math.log(2), "log_det": log_det.mean() / math.log(2)} | cut
    with np.errstate(over="ignore", invalid="ignore"):
        far = np.median(np.sqrt((miss.reshape(len(miss), -1) ** 2).mean(axis=1)) / SIGMA)
    beside = {"round_trip": float(far)} if np.isfinite(far) else {}
    return {key: float(value) / dims for key, value in bits.items()} | beside
