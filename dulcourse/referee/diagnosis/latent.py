"""Latent-variable models: what became of the KL term, log σ or log σ², posteriors that say nothing."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from dulcourse.referee.diagnosis.claims import (
    SOFTMAX,
    are_probabilities,
    figure,
    judged,
    tolerance,
    units,
    unusable,
)
from dulcourse.referee.diagnosis.terms import LogWeights, divergences, mistakes
from dulcourse.referee.frozen import FrozenLatents
from dulcourse.referee.latent import Asked, Images, charge
from dulcourse.referee.respondent import Respondent, Spec, ask
from dulcourse.referee.score import Score

__all__ = ["decodes_probabilities", "explain", "log_weights", "other_scales"]

IMAGES = 256  # that are decoded again
FEW = 8  # whose answers are looked at

Costs = dict[str, float]

_NEGATIVE = (
    "{:.4g} bits/dim were claimed, but a code length is never negative: was the KL term added to "
    "log p(x | z), or log σ in it, where it should be subtracted?"
)

_SURE = (
    "given z, pixels cost {:.4g} bits/dim, where a uniform guess costs {:.4g}: was the decoder trained on "
    "z = mean + exp(log_std) · noise, with noise drawn from N(0, I)?"
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


def decodes_probabilities(respondent: Respondent, name: str, frozen: FrozenLatents, asked: Asked) -> bool:
    """Whether decode has taken the softmax already."""
    z = asked.mean[:FEW]
    answer = ask(
        respondent, f"{name}.decode", {"z": z}, {"logits": Spec((len(z), frozen.levels, *frozen.shape))}
    )
    return are_probabilities(answer["logits"])


def log_weights(
    respondent: Respondent,
    name: str,
    frozen: FrozenLatents,
    asked: Asked,
    images: Images,
    own: Float64[np.ndarray, " n"],
    noise: Float64[np.ndarray, "n k"],
) -> LogWeights:
    """The model's own log-weights of some images, beside what they cost at the same noise."""
    some = slice(0, IMAGES)
    declared = Asked(asked.mean[some], asked.log_std[some])
    order = np.arange(len(images[some]))
    charged = charge(respondent, name, frozen, declared, images[some], noise[some], order)
    return LogWeights(own[some], noise[some], declared, charged)


def explain(
    score: Score,
    *,
    frozen: FrozenLatents,
    asked: Asked,
    claimed: float | None = None,
    own: float | None = None,
    weights: LogWeights | None = None,
    scales: Costs | None = None,
    softmax: bool = False,
) -> list[str]:
    """What the figures say, most useful first: unusable answers, log σ² for log σ, a KL term gone wrong, a
    posterior that tells nothing.

    `own` is the model's own log-weight of the images, in bits/dim; `weights` hold some of them one by one,
    and `scales` come from `other_scales`. `softmax` is true where decode answers probabilities.
    """
    words = unusable(
        score,
        "make encode(x) and decode(z) finite, of shapes [batch, latents] and [batch, levels, C, H, W]; "
        "decode may use nothing but z",
    )
    if asked.lost or not score.parts:
        return words
    if score.failures:  # the other figures are those of the failures too
        return words + _runaway(score, frozen)
    scale = _scale(scales or {}, own, claimed, frozen.levels)
    if scale:
        return words + scale  # all other figures are of a posterior that was not meant
    runaway, collapse = _runaway(score, frozen), _collapse(score, frozen)
    words += runaway + [f"decode returns {SOFTMAX}"] * softmax
    # The parts are not capped, so they explain what the model says of itself even where the score is.
    measured, near = score.parts["kl"] + score.parts["reconstruction"], tolerance(score)
    sure = not runaway and not collapse and score.parts["reconstruction"] > math.log2(frozen.levels)
    if sure:
        words.append(_SURE.format(score.parts["reconstruction"], math.log2(frozen.levels)))
    # What a pixel is charged has a bound, what a model says of itself has none.
    bounded = sure and own is not None and own > measured
    disagrees = own is not None and abs(own - measured) > near and not bounded
    if bounded and claimed is not None and abs(claimed - own) <= own - measured:
        claimed = None
    if disagrees:
        words.append(_log_weight(own, measured, near, frozen, weights))
    if claimed is not None and not (disagrees and abs(claimed - own) <= near):
        words.append(_claim(claimed, measured, score, frozen, asked))
    return words + collapse


def _log_weight(
    own: float, measured: float, near: float, frozen: FrozenLatents, weights: LogWeights | None
) -> str:
    """What the model's own log_weight has got wrong."""
    mistake = weights and weights.mistake(frozen.dims)
    if mistake:
        return (
            f"{own:.4g} bits/dim are the model's own log_weight where the referee finds {measured:.4g}: "
            f"{mistake}."
        )
    found = units(own, measured, frozen.dims, frozen.levels, near)
    return (
        found.replace("were claimed", "are the model's own log_weight")
        if found
        else _disagrees(own, measured)
    )


def _claim(claimed: float, measured: float, score: Score, frozen: FrozenLatents, asked: Asked) -> str:
    wrong = {words: float(bits.mean()) / frozen.dims for words, bits in divergences(asked).items()}
    parts = score.parts["reconstruction"], score.parts["kl"]
    more = mistakes(*parts, wrong, frozen.dims, frozen.latents)
    found = units(claimed, measured, frozen.dims, frozen.levels, tolerance(score), more)
    if claimed < 0 and not found:
        found = _NEGATIVE.format(claimed)
    uncapped = replace(score, bits_per_dim=measured)
    return found or judged(claimed, uncapped, frozen.dims, frozen.levels, measured)


def _scale(costs: Costs, own: float | None, claimed: float | None, levels: int) -> list[str]:
    told = costs.get("log σ", -math.inf)
    best = min(costs, key=costs.get, default="log σ")
    # What costs more than a uniform guess either way has gone wrong elsewhere.
    if best == "log σ" or told - costs[best] <= 0.01 or costs[best] > math.log2(levels):
        return []
    # Too narrow a posterior gains by any widening: the notebook's own figures say what it means.
    said = [figure for figure in (own, claimed) if figure is not None]
    meant = any(_nearer(figure, costs[best], told) for figure in said)
    if best == "log σ²" and said and (not meant or (own is not None and _nearer(own, told, costs[best]))):
        return []
    return [
        f"encode seems to return {best} where log σ is expected: read as {best}, its answers would cost "
        f"{figure(costs[best])} bits/dim instead of {figure(told)}; "
        + ("return log σ² / 2." if best == "log σ²" else "return its logarithm.")
    ]


def _nearer(value: float, to: float, than: float) -> bool:
    return abs(value - to) < abs(value - than) / 2


def _runaway(score: Score, frozen: FrozenLatents) -> list[str]:
    kl, plain = score.parts["kl"], math.log2(frozen.levels)
    if kl <= plain:
        return []
    return [
        f"z alone costs {kl:.4g} bits/dim, where an image written out plainly costs {plain:.4g}: is the KL "
        "term in the bound, in full, and subtracted?"
    ]


def _disagrees(own: float, measured: float) -> str:
    return (
        f"the model's own log_weight says {figure(own)} bits/dim of images that cost {figure(measured)} by "
        "bits back: is it log p(z) + log p(x | z) − log q(z | x) at z = mean + exp(log_std) · noise?"
    )


def _collapse(score: Score, frozen: FrozenLatents) -> list[str]:
    bits = score.parts["kl"] * frozen.dims
    if bits >= 0.1:
        return []
    return [
        f"z tells {max(0.0, bits):.2f} bits of an image: the posterior has collapsed onto the prior; is β "
        "too large, or z detached from the encoder?"
    ]
