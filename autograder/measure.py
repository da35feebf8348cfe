"""The second party: a replay of the frozen weights answers about images nobody has seen.

First every model is scored, then its samples are judged; only then comes what is worth no points: the model's
own log-probability on those images, and the matrix of what depends on what.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from autograder import protocols
from autograder.interview import Answers, Watched
from autograder.reference import Trusted
from autograder.results import Measurement
from autograder.rubric import Model, Rubric, Sampler, Threshold
from dulcourse.data.dataset import Dataset
from dulcourse.referee.diagnosis import diagnose
from dulcourse.referee.edges import share
from dulcourse.referee.exam import Exam
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.respondent import Malformed, Respondent
from dulcourse.referee.sampler import SamplerResult, judge
from dulcourse.referee.score import Score

__all__ = ["Measured", "Measures"]


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
        self._images: dict[str, Dataset] = dict(answers.images)

    def __bool__(self) -> bool:
        return bool(self._pending)

    def put(self, party: Watched) -> None:
        """Ask until nothing is left or the party dies over a question; the question stays lost (rule 5)."""
        while self._pending and party.death is None:
            self._pending.pop(0)(party)

    def _score(self, party: Respondent, item: Model) -> None:
        threshold, trusted = self._thresholds[item.name], self._trusted(item)
        if item.name not in self._images:  # else the first party was shown them, and is dead
            self._images[item.name] = protocols.images(self._exam, item, threshold.images)
        found = protocols.score(
            party,
            item,
            self._frozen[item.name],
            self._images[item.name],
            trusted=trusted,
            generator=self._exam.generator("score", item.name),
            asked=self._answers.declared.get(item.name),
        )
        self._scores[item.name] = found
        self.models[item.name] = Measured(
            measurement=Measurement(
                family=item.family,
                parts=dict(found.parts),
                label_gap=found.label_gap,
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
            labels=protocols.balanced_labels(self._items[item.model], len(samples)),
        )

    def _explain(self, party: Respondent, item: Model) -> None:
        measured, shown = self.models[item.name], self._images[item.name]
        found = diagnose(
            party,
            item.name,
            self._frozen[item.name],
            self._scores[item.name],
            shown.x.numpy(),
            generator=self._exam.generator("diagnosis", item.name),
            asked=self._answers.declared.get(item.name),
            base=self._trusted(item).train,
            labels=None if item.classes is None else shown.y.numpy(),
            claimed=measured.measurement.claimed_bits_per_dim,
        )
        measured.matrix, measured.words = found.matrix, found.words
        measured.measurement.own_bits_per_dim = found.own_bits_per_dim
