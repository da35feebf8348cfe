"""What went wrong, in words and a matrix: computed after scoring, and worth no points.

| module | what it holds |
|---|---|
| `matrix` | every output of an autoregressive model against every input |
| `claims` | what a model and its notebook say of themselves |
| `terms` | what a bound becomes by mistakes with its terms |
| `autoregressive`, `flow`, `latent` | the commonest mistakes of each family, named |
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from dulcourse.referee import flow as flows
from dulcourse.referee import latent as latents
from dulcourse.referee.diagnosis import autoregressive, flow, latent
from dulcourse.referee.diagnosis.autoregressive import explain
from dulcourse.referee.diagnosis.claims import (
    are_bounded,
    are_probabilities,
    own_bits_per_dim,
    own_log_prob,
    said,
    units,
)
from dulcourse.referee.diagnosis.matrix import Matrix, answered, dependency, forbidden, missing
from dulcourse.referee.frozen import Frozen, FrozenOrder
from dulcourse.referee.respondent import Malformed, Respondent
from dulcourse.referee.score import Score

__all__ = [
    "Diagnosis",
    "dependency",
    "diagnose",
    "explain",
    "forbidden",
    "missing",
    "own_bits_per_dim",
    "said",
    "units",
]

Answer = TypeVar("Answer")

# Symbols, and images at least, that an autoregressive model is asked about once more, whole: that costs as
# much as its score, and is worth no points.
SYMBOLS, IMAGES = 1 << 14, 128
BASES = 8  # images in which inputs are changed, at most: the first shows nearly all that there is to see


@dataclass(frozen=True)
class Diagnosis:
    """What is found, in words; the model's own figure; what depends on what, for autoregressive models."""

    words: list[str]
    own_bits_per_dim: float | None = None
    matrix: Matrix | None = field(default=None, repr=False)


def diagnose(
    respondent: Respondent,
    name: str,
    frozen: Frozen,
    score: Score,
    images: np.ndarray,
    *,
    generator: np.random.Generator,
    asked: flows.Asked | latents.Asked | None = None,
    base: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    claimed: float | None = None,
) -> Diagnosis:
    """Ask a model that has been scored on `images` what may explain its score. Answers may fail.

    Arguments:
        asked: what the first party declared (flows and latent-variable models).
        base: training images, the first `BASES` of which are perturbed (autoregressive models).
        labels: of the images, where they were sent.
        claimed: the bits/dim that the notebook said.
    """
    if isinstance(asked, flows.Asked):
        return _flow(respondent, name, frozen, score, images, asked, claimed)
    if isinstance(asked, latents.Asked):
        return _latent(respondent, name, frozen, score, images, asked, claimed, generator)
    return _autoregressive(respondent, name, frozen, score, images, base, labels, claimed, generator)


def _autoregressive(
    respondent, name, frozen: FrozenOrder, score, images, base, labels, claimed, generator
) -> Diagnosis:
    some = slice(max(IMAGES, SYMBOLS // frozen.dims))
    images, labels = images[some], None if labels is None else labels[some]
    own = _unless_malformed(lambda: own_log_prob(respondent, name, images, labels=labels))
    worth = None
    if labels is not None and own is not None:
        wrong = (labels + 1) % (labels.max() + 1)
        other = _unless_malformed(lambda: own_log_prob(respondent, name, images, labels=wrong))
        worth = None if other is None else _bits(other, frozen) - _bits(own, frozen)
    matrix = logits = None
    if base is not None:
        base, label = base[:BASES], None if labels is None else int(labels[0])
        if frozen.dims > 1:
            matrix = _unless_malformed(
                lambda: dependency(respondent, name, frozen, base, generator, label=label)
            )
        logits = _unless_malformed(lambda: answered(respondent, name, frozen, base, label))
    bits = None if own is None else _bits(own, frozen)
    words = autoregressive.explain(
        score,
        frozen=frozen,
        claimed=claimed,
        own=bits,
        labels_worth=worth,
        matrix=matrix,
        softmax=logits is not None and are_probabilities(logits),
        bounded=logits is not None and are_bounded(logits),
    )
    return Diagnosis(words, bits, matrix)


def _flow(respondent, name, frozen, score, images, asked: flows.Asked, claimed) -> Diagnosis:
    own = _unless_malformed(lambda: own_log_prob(respondent, name, images + asked.u))
    bare = _unless_malformed(lambda: own_log_prob(respondent, name, images.astype(np.float64)))
    words = flow.explain(
        score, frozen=frozen, asked=asked, claimed=claimed, own=own, images=images, bare=bare
    )
    return Diagnosis(words, None if own is None else _bits(own, frozen))


def _latent(respondent, name, frozen, score, images, asked: latents.Asked, claimed, generator) -> Diagnosis:
    noise = generator.standard_normal((len(images), frozen.latents))
    own = _unless_malformed(lambda: own_log_prob(respondent, name, images, noise=noise))
    weights = (
        own
        if own is None
        else _unless_malformed(
            lambda: latent.log_weights(respondent, name, frozen, asked, images, own, noise)
        )
    )
    scales = _unless_malformed(
        lambda: latent.other_scales(respondent, name, frozen, asked, images, generator)
    )
    beta = _unless_malformed(lambda: latent.weight(respondent, name, frozen, asked, images, generator))
    logits = _unless_malformed(lambda: latent.decoded(respondent, name, frozen, asked))
    bits = None if own is None else _bits(own, frozen)
    words = latent.explain(
        score,
        frozen=frozen,
        asked=asked,
        claimed=claimed,
        own=bits,
        weights=weights,
        scales=scales,
        beta=beta,
        logits=logits,
    )
    return Diagnosis(words, bits)


def _bits(nats: np.ndarray, frozen: Frozen) -> float:
    return float(-nats.mean() / (np.log(2) * frozen.dims))


def _unless_malformed(answer: Callable[[], Answer]) -> Answer | None:
    try:
        return answer()
    except Malformed:
        return None
