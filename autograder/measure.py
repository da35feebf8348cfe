"""The second party: a replay of the frozen weights answers about images nobody has seen.

First every model is scored, then its samples are judged; only then comes what is worth no points: the model's
own log-probability on those images, and the matrix of what depends on what.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from autograder.interview import Answers, Watched
from autograder.reference import Trusted
from autograder.results import Measurement
from autograder.rubric import Model, Rubric, Sampler, Threshold
from dulcourse.referee import diagnosis
from dulcourse.referee.autoregressive import score
from dulcourse.referee.edges import share
from dulcourse.referee.exam import Exam
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.respondent import Malformed, Respondent
from dulcourse.referee.sampler import SamplerResult, judge
from dulcourse.referee.score import Score

__all__ = ["Measured", "Measures"]

Answer = TypeVar("Answer")


@dataclass
class Measured:
    """One model's score, the share of its points, and what may explain it."""

    measurement: Measurement
    share: float
    words: list[str] = field(default_factory=list)
    matrix: np.ndarray | None = None  # [D, D], row: output, column: input


class Measures:
    """What is still to be asked of the second party, in order: scores, samples, explanations."""

    def __init__(
        self,
        rubric: Rubric,
        thresholds: dict[str, Threshold],
        exam: Exam,
        frozen: dict[str, Frozen],
        answers: Answers,
        trusted: Callable[[Model], Trusted],
    ):
        self.models: dict[str, Measured] = {}
        self.samplers: dict[str, SamplerResult] = {}
        self._thresholds, self._exam, self._frozen = thresholds, exam, frozen
        self._answers, self._trusted = answers, trusted
        self._items = {
            item.name: item for _, item in rubric.items if item.kind == "model" and item.name in frozen
        }
        samplers = [
            item for _, item in rubric.items if item.kind == "sampler" and item.model in answers.samples
        ]
        self._pending: list[Callable[[Respondent], None]] = [
            *(lambda party, item=item: self._score(party, item) for item in self._items.values()),
            *(lambda party, item=item: self._judge(party, item) for item in samplers),
            *(lambda party, item=item: self._explain(party, item) for item in self._items.values()),
        ]
        self._scores: dict[str, Score] = {}
        self._images: dict[str, np.ndarray] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def put(self, party: Watched) -> None:
        """Ask until nothing is left or the party dies over a question; the question stays lost (rule 5)."""
        while self._pending and party.death is None:
            self._pending.pop(0)(party)

    def _score(self, party: Respondent, item: Model) -> None:
        threshold, trusted = self._thresholds[item.name], self._trusted(item)
        images = self._exam.images(item.name, item.data, threshold.images, **item.options).x.numpy()
        found = score(
            party,
            item.name,
            self._frozen[item.name],
            images,
            decoys=trusted.train,
            generator=self._exam.generator("score", item.name),
            reference=trusted.reference,
        )
        self._scores[item.name], self._images[item.name] = found, images
        self.models[item.name] = Measured(
            measurement=Measurement(
                bits_per_dim=found.bits_per_dim,
                standard_error=found.standard_error,
                reference_bits_per_dim=found.reference_bits_per_dim,
                difference=found.difference,
                difference_standard_error=found.difference_standard_error,
                images=found.images,
                failures=found.failures,
                claimed_bits_per_dim=self._answers.claims.get(item.name),
            ),
            share=share(found, full=threshold.full, none=threshold.none),
        )

    def _judge(self, party: Respondent, item: Sampler) -> None:
        samples, trusted = self._answers.samples[item.model], self._trusted(self._items[item.model])
        if isinstance(samples, Malformed):
            self.samplers[item.id] = SamplerResult(False, None, [str(samples)])
            return
        self.samplers[item.id] = judge(
            party,
            item.model,
            self._frozen[item.model],
            samples,
            train=trusted.train,
            generator=self._exam.generator("judge", item.model),
            reference=trusted.reference,
        )

    def _explain(self, party: Respondent, item: Model) -> None:
        measured, frozen = self.models[item.name], self._frozen[item.name]
        own = _unless_malformed(lambda: diagnosis.own_bits_per_dim(party, item.name, self._images[item.name]))
        if frozen.dims > 1:
            base = self._trusted(item).train[:1]
            generator = self._exam.generator("dependency", item.name)
            measured.matrix = _unless_malformed(
                lambda: diagnosis.dependency(party, item.name, frozen, base, generator)
            )
        measured.measurement.own_bits_per_dim = own
        measured.words = diagnosis.explain(
            self._scores[item.name],
            frozen=frozen,
            claimed=measured.measurement.claimed_bits_per_dim,
            own=own,
            matrix=measured.matrix,
        )


def _unless_malformed(answer: Callable[[], Answer]) -> Answer | None:
    try:
        return answer()
    except Malformed:
        return None
