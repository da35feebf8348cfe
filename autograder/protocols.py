"""How a model of each family is frozen, asked and scored: the same for grading and for calibration.

An autoregressive model is asked by the second party alone. Of a flow or a latent-variable model the first
party declares a posterior of images, and is dead before the second party, which sees none, says what they
look like.
"""

from typing import Any

import numpy as np

from autograder.reference import Trusted
from autograder.rubric import Model
from dulcourse import data
from dulcourse.data.dataset import Dataset
from dulcourse.referee import autoregressive, flow, latent
from dulcourse.referee.exam import Exam
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.respondent import Respondent
from dulcourse.referee.score import Score

__all__ = [
    "ask_first",
    "balanced_labels",
    "freeze",
    "images",
    "in_two_phases",
    "score",
]

_TWO_PHASES = {"flow": flow, "latent": latent}


def in_two_phases(model: Model) -> bool:
    """Whether the first party is shown the images."""
    return model.family in _TWO_PHASES


def freeze(exam: Exam, model: Model, checkpoint: bytes) -> Frozen:
    """What the checkpoint declares, or `Malformed`."""
    return exam.freeze(
        model.name,
        checkpoint,
        model.shape,
        model.levels,
        None if model.order is None else np.array(model.order),
        family=model.family,
        latents=model.latents,
    )


def images(exam: Exam, model: Model, n: int) -> Dataset:
    """The n images that a model is scored on; of finite data no more than its test set has."""
    if model.scarce:
        n = min(n, len(data.load(model.data, "test", **model.options)))
    return exam.images(model.name, model.data, n, **model.options)


def balanced_labels(model: Model, n: int) -> np.ndarray | None:
    """Labels of n samples, each class as often as the others; None for a model that is told none."""
    return None if model.classes is None else np.arange(n) % model.classes


def ask_first(
    party: Respondent, model: Model, frozen: Frozen, shown: Dataset, generator: np.random.Generator
) -> Any:
    """What the first party declares of the images, safe to be used; its failure is kept, never raised."""
    protocol = _TWO_PHASES[model.family]
    return protocol.ask_first(party, model.name, frozen, shown.x.numpy(), generator=generator)


def score(
    party: Respondent,
    model: Model,
    frozen: Frozen,
    shown: Dataset,
    *,
    trusted: Trusted,
    generator: np.random.Generator,
    asked: Any = None,
) -> Score:
    """What the model costs; `asked` is what the first party declared, where there was one to ask."""
    if in_two_phases(model):
        return _TWO_PHASES[model.family].score(
            party,
            model.name,
            frozen,
            asked,
            shown.x.numpy(),
            generator=generator,
            reference=trusted.reference,
        )
    return autoregressive.score(
        party,
        model.name,
        frozen,
        shown.x.numpy(),
        decoys=trusted.train,
        generator=generator,
        reference=trusted.reference,
        positions="all" if model.scarce else "one",
        labels=None if model.classes is None else shown.y.numpy(),
        classes=model.classes,
    )
