"""Latent-variable models: what became of the KL term, log σ or log σ², posteriors that say nothing."""

import math
from dataclasses import replace

import numpy as np

from dulcourse.referee.diagnosis.claims import figure, judged, tolerance, units, unusable
from dulcourse.referee.frozen import FrozenLatents
from dulcourse.referee.latent import Asked, Images, charge
from dulcourse.referee.respondent import Respondent
from dulcourse.referee.score import Score

__all__ = ["explain", "other_scales"]

IMAGES = 256  # that are decoded again with another standard deviation

Costs = dict[str, float]

_NEGATIVE = (
    "{:.4g} bits/dim were claimed, but a code length is never negative: was the KL term added to "
    "log p(x | z) where it should be subtracted?"
)


def other_scales(
    respondent: Respondent,
    name: str,
    frozen: FrozenLatents,
    asked: Asked,
    images: Images,
    generator: np.random.Generator,
) -> Costs:
    """Bits/dim of some images if log_std had been something else: "log σ" as it is, "log σ²", "σ"."""
    some = slice(0, IMAGES)
    noise = generator.standard_normal((len(images[some]), frozen.latents))
    mean, told = asked.mean[some], asked.log_std[some]
    scales = {"log σ": told, "log σ²": told / 2}
    if (told > 0).all():
        scales["σ"] = np.log(told)
    costs = {}
    for meaning, log_std in scales.items():
        as_meant = Asked(mean, log_std)
        charged = charge(respondent, name, frozen, as_meant, images[some], noise, np.arange(len(noise)))
        costs[meaning] = float((charged.kl + charged.reconstruction).mean()) / frozen.dims
    return costs


def explain(
    score: Score,
    *,
    frozen: FrozenLatents,
    asked: Asked,
    claimed: float | None = None,
    own: float | None = None,
    scales: Costs | None = None,
) -> list[str]:
    """What the figures say, most useful first: unusable answers, log σ² for log σ, a KL term gone wrong, a
    posterior that tells nothing.

    `own` is the model's own log-weight of the images, in bits/dim; `scales` come from `other_scales`.
    """
    words = unusable(
        score, "make encode(x) and decode(z) finite, of shapes [batch, latents] and [batch, levels, C, H, W]"
    )
    if asked.lost or not score.parts:
        return words
    said = [figure for figure in (own, claimed) if figure is not None]
    scale = _scale(scales or {}, said, frozen.levels)
    if scale:
        return words + scale  # all other figures are of a posterior that was not meant
    words += _runaway(score, frozen)
    more = _mistakes(score, frozen, asked)
    # The parts are not capped, so they explain what the model says of itself even where the score is.
    measured = score.parts["kl"] + score.parts["reconstruction"]
    uncapped = replace(score, bits_per_dim=measured)
    if own is not None and abs(own - measured) > tolerance(score):
        found = units(own, measured, frozen.dims, frozen.levels, tolerance(score), more)
        found = found and found.replace("were claimed", "are the model's own log_weight")
        words.append(found or _disagrees(own, measured))
    if claimed is not None:
        found = units(claimed, measured, frozen.dims, frozen.levels, tolerance(score), more)
        if claimed < 0 and not found:
            found = _NEGATIVE.format(claimed)
        words.append(found or judged(claimed, uncapped, frozen.dims, frozen.levels, measured))
    return words + _collapse(score, frozen)


def _scale(costs: Costs, said: list[float], levels: int) -> list[str]:
    told = costs.get("log σ", -math.inf)
    best = min(costs, key=costs.get, default="log σ")
    # What costs more than a uniform guess either way has gone wrong elsewhere.
    if best == "log σ" or told - costs[best] <= 0.01 or costs[best] > math.log2(levels):
        return []
    # Too narrow a posterior gains by any widening: the notebook's own figures say what it means.
    meant = any(abs(figure - costs[best]) < abs(figure - told) / 2 for figure in said)
    if best == "log σ²" and said and not meant:
        return []
    return [
        f"encode seems to return {best} where log σ is expected: read as {best}, its answers would cost "
        f"{figure(costs[best])} bits/dim instead of {figure(told)}; "
        + ("return log σ² / 2." if best == "log σ²" else "return its logarithm.")
    ]


def _runaway(score: Score, frozen: FrozenLatents) -> list[str]:
    kl, plain = score.parts["kl"], math.log2(frozen.levels)
    if kl <= plain:
        return []
    return [
        f"z alone costs {kl:.4g} bits/dim, where an image written out plainly costs {plain:.4g}: is the KL "
        "term in the bound, in full, and subtracted?"
    ]


def _mistakes(score: Score, frozen: FrozenLatents, asked: Asked) -> Costs:
    """What a claim becomes by mistakes with the two terms, bits/dim."""
    kl, reconstruction = score.parts["kl"], score.parts["reconstruction"]
    D, latents = frozen.dims, frozen.latents
    with np.errstate(over="ignore"):
        variance = float(0.5 * (asked.mean**2 + np.exp(asked.log_std) - 1 - asked.log_std).sum(axis=1).mean())
    mistakes = {
        "the KL term was left out": reconstruction,
        "the KL term has the wrong sign": reconstruction - kl,
        "the log-likelihood was left out, this is the KL term alone": kl,
        "the log-likelihood was averaged over the dimensions, the KL term summed": reconstruction / D + kl,
        "log σ was taken for log σ² in the KL term": reconstruction + variance / (D * math.log(2)),
    }
    if latents > 1:
        mistakes[f"the KL term was averaged over the {latents} latents"] = reconstruction + kl / latents
    return mistakes


def _disagrees(own: float, measured: float) -> str:
    return (
        f"the model's own log_weight says {figure(own)} bits/dim of images that cost {figure(measured)} by "
        "bits back: is it log p(z) + log p(x | z) − log q(z | x) at z = mean + exp(log_std) · noise?"
    )


def _collapse(score: Score, frozen: FrozenLatents) -> list[str]:
    bits = score.parts["kl"] * frozen.dims
    if bits >= 0.1:
        return []
    return [f"z tells {max(0.0, bits):.2f} bits of an image: the posterior has collapsed onto the prior."]
