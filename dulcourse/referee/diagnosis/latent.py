"""Latent-variable models: what became of the KL term, log σ or log σ², posteriors that say nothing."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from dulcourse.referee.diagnosis.claims import (
    BOUNDED,
    SOFTMAX,
    are_bounded,
    are_probabilities,
    figure,
    hopeless,
    judged,
    tolerance,
    unexplained,
    units,
    unusable,
    worse,
)
from dulcourse.referee.diagnosis.terms import LogWeights, divergences, mistakes
from dulcourse.referee.frozen import FrozenLatents
from dulcourse.referee.latent import Asked, Images, charge
from dulcourse.referee.respondent import Respondent, Spec, ask
from dulcourse.referee.score import Score

__all__ = ["decoded", "explain", "log_weights", "other_scales", "weight"]

IMAGES = 256  # that are decoded again
WIDER = 0.1  # by so much, and narrower, σ is tried
BETAS = 0.6, 2.6  # the importance-weighted bound has left 2.1; noise is 0.05 to 0.1
DEAF, ALIVE = 0.05, 0.3  # log σ that has not left 0, the prior's, beside a mean that has
AWAY = 1e7  # times what a plain image costs
MANY = 32  # images, at least, that do not all have one sign by accident
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


def weight(
    respondent: Respondent,
    name: str,
    frozen: FrozenLatents,
    asked: Asked,
    images: Images,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """The weight β of the KL term at which σ is as wide as it should be, and its standard error:

        d/dc E[−log p(x | μ + cσε)] + β d/dc KL(N(μ, c²σ²) ‖ N(0, I)) = 0   at c = 1

    Training with the ELBO leaves β = 1, and with the importance-weighted bound, whose q is wider, up to 2.
    NaN where widening does not lower the KL.
    """
    some = slice(0, IMAGES)
    told = asked.log_std[some]
    noise = generator.standard_normal(told.shape)
    costs = []
    for c in (1 - WIDER, 1 + WIDER):
        wider = Asked(asked.mean[some], told + math.log(c))
        charged = charge(respondent, name, frozen, wider, images[some], noise, np.arange(len(noise)))
        costs.append(charged.reconstruction)
    dearer = (costs[1] - costs[0]) / (2 * WIDER)
    nearer = -(np.exp(2 * told) - 1).sum(axis=1) / math.log(2)
    if nearer.mean() <= 0:
        return math.nan, math.nan
    beta = dearer.mean() / nearer.mean()
    error = (dearer - beta * nearer).std() / math.sqrt(len(noise)) / nearer.mean()
    return float(beta), float(error)


def decoded(respondent: Respondent, name: str, frozen: FrozenLatents, asked: Asked) -> np.ndarray:
    """The logits of a few images."""
    z = asked.mean[:FEW]
    answer = ask(
        respondent, f"{name}.decode", {"z": z}, {"logits": Spec((len(z), frozen.levels, *frozen.shape))}
    )
    return answer["logits"]


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
    beta: tuple[float, float] | None = None,
    logits: np.ndarray | None = None,
) -> list[str]:
    """What the figures say, most useful first: unusable answers, log σ² for log σ, a KL term gone wrong, a
    posterior that tells nothing.

    `own` is the model's own log-weight of the images, in bits/dim; `weights` hold some of them one by one,
    `scales` come from `other_scales`, `beta` from `weight`, `logits` from `decoded`.
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
    away = _away(score, frozen)
    if away:  # of such numbers no figure can be compared with another
        negative = claimed is not None and claimed < 0
        return words + away + [_NEGATIVE.format(claimed)] * negative
    runaway, collapse = _runaway(score, frozen), _collapse(score, frozen)
    words += runaway
    if logits is not None:
        words += [f"decode returns {SOFTMAX}"] * are_probabilities(logits)
        words += [f"decode returns {BOUNDED}"] * are_bounded(logits)
    # The parts are not capped, so they explain what the model says of itself even where the score is.
    measured, near = score.parts["kl"] + score.parts["reconstruction"], tolerance(score)
    sure = not runaway and not collapse and score.parts["reconstruction"] > math.log2(frozen.levels)
    if sure:
        words.append(_SURE.format(score.parts["reconstruction"], math.log2(frozen.levels)))
    words += _one_sided(asked) if not sure and not collapse else []
    # What a pixel is charged has a bound, what a model says of itself has none.
    bounded = sure and own is not None and own > measured
    disagrees = own is not None and abs(own - measured) > near and not bounded
    if bounded and claimed is not None and abs(claimed - own) <= own - measured:
        claimed = None
    if disagrees:
        words.append(_log_weight(own, measured, near, frozen, weights))
    if worse(score) and not words and not collapse and beta is not None:
        words += _weighted(*beta)
    words += hopeless(measured, frozen.levels) if not words and not collapse else []
    consistent = not words and not collapse and (claimed is None or abs(claimed - measured) <= near)
    if claimed is not None and not (disagrees and abs(claimed - own) <= near):
        words.append(_claim(claimed, measured, score, frozen, asked))
    return words + collapse + (unexplained(score) if consistent else [])


def _away(score: Score, frozen: FrozenLatents) -> list[str]:
    kl, plain = score.parts["kl"], math.log2(frozen.levels)
    if kl <= AWAY * plain:
        return []
    return [
        f"z alone costs {figure(kl)} bits/dim, where an image written out plainly costs {plain:.4g}: "
        "training has run away. Is the loss *minus* the bound, with the KL term in it, and does the gradient "
        "of either term reach both mean and log_std?"
    ]


def _one_sided(asked: Asked) -> list[str]:
    """Outputs of encode that only ever have one sign, or one value, of many images."""
    if len(asked.mean) < MANY:
        return []
    words = []
    if (asked.mean >= 0).all() and asked.mean.any():
        words.append(
            "mean of encode is never negative: is there a relu at its end? z of N(0, I) has both signs."
        )
    if (asked.log_std >= 0).all() and asked.log_std.any():
        words.append(
            "log_std of encode is never negative, so σ is 1 or more, as wide as the prior: return log σ "
            "itself, without a relu or softplus, and not σ."
        )
    elif np.quantile(np.abs(asked.log_std), 0.99) <= DEAF and np.abs(asked.mean).mean() > ALIVE:
        words.append(
            "σ is 1 for every image, though mean tells them apart: does the gradient of log p(x | z) reach "
            "log_std, or is it detached?"
        )
    return words


def _weighted(beta: float, error: float) -> list[str]:
    low, high = BETAS
    if not (beta + 2 * error < low or beta - 2 * error > high):
        return []
    return [
        f"σ is as wide as after training with the KL term weighted by β = {beta:.2g}: it must be 1 when "
        "training ends, summed like log p(x | z), with a gradient through all of it."
    ]


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
