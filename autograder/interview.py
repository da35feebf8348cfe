"""The first party: a living notebook answers what needs no secret images, then it is gone.

Its functions are probed, its models draw samples and say what their notebook claims of them; last, flows and
latent-variable models are shown images and declare what z they would send for them. When the student's code
kills its kernel over a question, that question is lost, and a replay of the saved weights answers the others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autograder import protocols
from autograder.rubric import Model, Probe, Rubric, Sampler
from autograder.run import History
from dulcourse.data.dataset import Dataset
from dulcourse.referee.exam import Exam
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.probe import ProbeResult, probe
from dulcourse.referee.respondent import Malformed, Respondent, Spec, ask
from dulcourse.referee.sampler import draw

__all__ = ["Answers", "Questions", "Silence", "Watched"]

Arrays = Mapping[str, np.ndarray]

PICTURES = 256  # samples that are drawn to be looked at


@dataclass
class Answers:
    """What the first party said. None of it is believed; `samples` are judged by the second."""

    probes: dict[str, ProbeResult] = field(default_factory=dict)  # by item
    samples: dict[str, np.ndarray | Malformed] = field(default_factory=dict)  # by model
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # samples that nobody judges, by model
    images: dict[str, Dataset] = field(default_factory=dict)  # that the first party was shown, by model
    declared: dict[str, Any] = field(default_factory=dict)  # what it declared of them
    claims: dict[str, float] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)


class Watched:
    """A session, and what it died of when it died over a question."""

    def __init__(self, session: Respondent, dead: type[Malformed]):
        self._session, self._dead = session, dead
        self.death: Any = None  # a SessionDead

    def call(self, name: str, arrays: Arrays) -> dict[str, np.ndarray]:
        try:
            return self._session.call(name, arrays)
        except self._dead as death:
            self.death = death
            raise


class Silence:
    """The party that answers when all others are dead."""

    def call(self, name: str, arrays: Arrays) -> dict[str, np.ndarray]:
        raise Malformed("The notebook's kernel died before this could be asked.")


class Questions:
    """What is still to be asked of the first party, in order: claims, probes, samples, images."""

    def __init__(
        self,
        rubric: Rubric,
        exam: Exam,
        frozen: dict[str, Frozen],
        spared: set[str],
        images: Mapping[str, int],
    ):
        """`frozen` are the models that can be asked about, each on so many `images`; items in `spared` are
        not asked.
        """
        self.answers = Answers()
        self._exam, self._frozen, self._n = exam, frozen, images
        self._models = {item.name: item for _, item in rubric.items if item.kind == "model"}
        shown = [self._models[name] for name in frozen if protocols.in_two_phases(self._models[name])]
        self._pending: list[Callable[[Respondent], None]] = []
        for model in frozen:
            self._pending.append(lambda party, model=model: self._claim(party, model))
        for _, item in rubric.items:
            if item.id in spared:
                continue
            if item.kind == "probe":
                self._pending.append(lambda party, item=item: self._probe(party, item))
            if item.kind == "sampler" and item.model in frozen:
                self._pending.append(lambda party, item=item: self._sample(party, item))
        for model in shown:
            self._pending.append(lambda party, model=model: self._picture(party, model))
        # Last: whatever a party remembers of the images, it is asked nothing any more.
        for model in shown:
            self._pending.append(lambda party, model=model: self._show(party, model))

    def __bool__(self) -> bool:
        return bool(self._pending)

    def put(self, party: Watched) -> None:
        """Ask until nothing is left or the party is dead; what killed it is not asked again (rule 5)."""
        while self._pending and party.death is None:
            self._pending.pop(0)(party)

    def _probe(self, party: Respondent, item: Probe) -> None:
        self.answers.probes[item.id] = probe(
            party,
            item.function,
            item.draw,
            lambda **arguments: item.reference(**{name: np.asarray(a) for name, a in arguments.items()}),
            generator=self._exam.generator(item.id),
            draws=item.draws,
            atol=item.atol,
            rtol=item.rtol,
            hint=item.hint,
        )

    def _sample(self, party: Respondent, item: Sampler) -> None:
        generator = self._exam.generator("sample", item.model)
        labels = protocols.balanced_labels(self._models[item.model], item.n)
        try:
            samples = draw(
                party, item.model, self._frozen[item.model], item.n, generator=generator, labels=labels
            )
        except Malformed as error:
            samples = error
        self.answers.samples[item.model] = samples

    def _picture(self, party: Respondent, model: Model) -> None:
        """Samples of a model whose samples nobody judges: a person wants to see some."""
        seed = self._exam.generator("picture", model.name).integers(2**62)
        question = {"n": np.asarray(PICTURES), "seed": np.asarray(seed)}
        kind = "f" if model.family == "flow" else "i"
        answer = _asked(party, f"{model.name}.sample", {"x": Spec((PICTURES, *model.shape), kind)}, question)
        if answer:
            self.answers.pictures[model.name] = np.floor(answer["x"])  # a flow's are continuous

    def _show(self, party: Respondent, model: Model) -> None:
        """A flow's or a latent model's first phase: images, and what it declares of them."""
        shown = protocols.images(self._exam, model, self._n[model.name])
        generator = self._exam.generator("show", model.name)
        declared = protocols.ask_first(party, model, self._frozen[model.name], shown, generator)
        self.answers.images[model.name], self.answers.declared[model.name] = shown, declared

    def _claim(self, party: Respondent, model: str) -> None:
        """What the notebook says of its model: shown beside what was measured, never part of it."""
        answer = _asked(party, f"{model}.claim", {"bits_per_dim": Spec((), finite=False)})
        if answer and np.isfinite(answer["bits_per_dim"]):
            self.answers.claims[model] = float(answer["bits_per_dim"])
        curves = {"step": Spec((None,), kind="i"), "train": Spec((None,)), "validation": Spec((None,))}
        answer = _asked(party, f"{model}.history", curves)
        if answer and 0 < len(answer["step"]) <= 100_000:
            self.answers.histories[model] = History(**{name: answer[name].tolist() for name in curves})


def _asked(
    party: Respondent, name: str, specs: dict[str, Spec], question: Arrays | None = None
) -> dict[str, Any] | None:
    try:
        return ask(party, name, question or {}, specs)
    except Malformed:
        return None
