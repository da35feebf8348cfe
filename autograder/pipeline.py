"""One submission's way through the grader: the one path that every submission takes, as a list of steps.

1. The notebook is rebuilt upon the release.
2. The first party runs it; the weights it hands in are frozen before anything is drawn.
3. The first party is probed, draws samples, and is killed. If it died before, a replay answers.
4. The second party replays the frozen weights and answers the referee about images nobody has seen.
5. Points and words; figures, run and result are written, the result last.
"""

import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autograder import points
from autograder.batch import Batch
from autograder.rebuild import Rebuilt, rebuild
from autograder.receipt import receipt_for
from autograder.reference import References
from autograder.results import ItemResult, Receipt, SubmissionResult, Verdict
from autograder.rubric import Item, Problem, Rubric, Tier
from autograder.run import Run, save_run
from autograder.submission import HandedIn, Submission, Unreadable, read
from dulcourse.errors import InfrastructureError

__all__ = ["Desk", "Task", "grade_one", "nothing_to_run", "prepare"]

OpenSession = Callable[[], Any]
WORDS = 20_000  # characters that are kept of one answer in words
STAND_INS = 3  # replays that answer in place of a first party that died, at most


@dataclass(frozen=True)
class Desk:
    """What is the same for all submissions of a batch."""

    rubric: Rubric
    batch: Batch
    secret: bytes
    release: dict[str, Any]
    rubric_sha256: str
    out: Path
    trusted: References

    @property
    def tier(self) -> Tier:
        return self.rubric.tier(self.batch.tier)


@dataclass(frozen=True)
class Task:
    """One submission, ready to run; with a `saved` run its weights are scored again instead."""

    submission: Submission
    rebuilt: Rebuilt
    receipt: Receipt
    saved: Run | None = None

    @property
    def student(self) -> str:
        return self.submission.student

    @property
    def seconds_factor(self) -> float:
        return self.submission.time_factor

    def again(self, saved: Run | None) -> "Task":
        return replace(self, saved=saved)


def prepare(desk: Desk, submission: Submission) -> Task | SubmissionResult:
    """Step 1; a result at once where there is nothing to run."""
    if submission.path is None:
        return nothing_to_run(desk, submission, Verdict.missing, "Nothing was handed in.")
    try:
        handed_in: HandedIn = read(submission.path)
    except Unreadable as error:
        return nothing_to_run(desk, submission, Verdict.unreadable, str(error))
    rebuilt = rebuild(desk.release, handed_in)
    receipt = receipt_for(handed_in.sha256, rebuilt, desk.batch, desk.secret, desk.rubric_sha256)
    return Task(submission, rebuilt, receipt)


def grade_one(desk: Desk, task: Task, open_session: OpenSession) -> SubmissionResult:
    """Steps 2 to 5. The result is returned, everything beside it is on disk by then.

    What the machine cannot do before a party has its notebook is `infrastructure_error`: not charged, and
    begun again, from the same draws, by the next run. Nothing after that is (rule 5).
    """
    from dulcourse.referee.exam import Exam

    began = time.monotonic()
    exam = Exam(desk.secret, f"{task.student}/{task.receipt.submitted}")
    try:
        examined = _Examined(desk, task, exam, open_session)
        examined.hear_first_party()
        examined.hear_second_party()
    except InfrastructureError as error:
        return nothing_to_run(desk, task.submission, Verdict.infrastructure_error, str(error))
    folder = desk.out / task.student
    items = examined.items()
    _draw_figures(folder, items, examined)
    save_run(folder, examined.run)
    return _result(desk, task, examined, items, time.monotonic() - began)


def nothing_to_run(desk: Desk, submission: Submission, verdict: Verdict, reason: str) -> SubmissionResult:
    """The result of a submission that was not run, by its own fault or by ours."""
    ours = verdict is Verdict.infrastructure_error
    items = [] if ours else [_zero(problem, item, [reason]) for problem, item in desk.rubric.items]
    return SubmissionResult(
        assignment=desk.rubric.name,
        student=submission.student,
        verdict=verdict,
        reason=reason,
        points=0.0,
        out_of=_measured(desk.rubric),
        by_hand=0.0,
        seconds=0.0,
        items=items,
    )


class _Examined:
    """A submission under examination: what each party said, and what has become of it."""

    def __init__(self, desk: Desk, task: Task, exam: Any, open_session: OpenSession):
        self.desk, self.task, self.exam, self._open = desk, task, exam, open_session
        self.run: Run = task.saved or Run(verdict=Verdict.infrastructure_error)
        self.frozen: dict[str, Any] = {}
        self.refused: dict[str, str] = {}  # models whose checkpoint cannot be used, and why
        self.verdict, self.reason = self.run.verdict, self.run.reason
        self.answers: Any = None
        self.measures: Any = None

    def hear_first_party(self) -> None:
        """Steps 2 and 3: run, freeze, ask; the party is dead when this returns."""
        from autograder.interview import Silence

        questions = None
        if self.task.saved is None:
            with self.exam.party(self._open()) as session:
                self.run = _recorded(session.run(**self._order("train")), self.task)
                self.verdict, self.reason = self.run.verdict, self.run.reason
                questions = self._questions()
                if self.run.finished:
                    self._put(questions, session)
        if questions is None:
            questions = self._questions()
        for _ in range(STAND_INS):
            if not questions or self.verdict is Verdict.sandbox_violation:
                break
            with self.exam.party(self._open()) as session:
                self._put(questions, session, replayed=self._replay(session, until=self._end))
        if self.verdict is not Verdict.sandbox_violation:
            self._put(questions, Silence())
        self.answers = questions.answers
        self._remember_claims()

    def hear_second_party(self) -> None:
        """Step 4: score the frozen weights. A party that dies over one model costs that model only."""
        from autograder.measure import Measures

        self.measures = Measures(
            self.desk.rubric,
            self.desk.tier.thresholds,
            self.exam,
            self.frozen,
            self.answers,
            self.desk.trusted,
        )
        while self.measures and self.verdict is not Verdict.sandbox_violation:
            with self.exam.party(self._open()) as session:
                replayed = self._replay(session, until=self.run.last_cell)
                self._put(self.measures, session, replayed=replayed)

    def items(self) -> list[ItemResult]:
        """Step 5: each line of the rubric, with its points and words."""
        if self.verdict is Verdict.sandbox_violation:
            words = [f"The notebook interfered with the sandbox that it ran in. {self.reason}"]
            return [_zero(problem, item, words) for problem, item in self.desk.rubric.items]
        return [self._item(problem, item) for problem, item in self.desk.rubric.items]

    def _item(self, problem: Problem, item: Item) -> ItemResult:
        if item.kind == "written":
            return points.of_written(problem, item)
        if taken := self._taken(problem):
            return points.forfeited(problem, item, taken)
        if item.kind == "probe":
            found = self.answers.probes[item.id]
            return points.of_probe(problem, item, found.passed, found.words)
        model = item.name if item.kind == "model" else item.model
        if model in self.refused:
            return points.nothing(problem, item, [self.refused[model]])
        if model not in self.frozen:
            return points.not_handed_in(problem, item, model, self.run)
        if item.kind == "sampler":
            found = self.measures.samplers[item.id]
            return points.of_sampler(problem, item, found.passed, found.words)
        found = self.measures.models[model]
        threshold = self.desk.tier.thresholds[model]
        return points.of_model(problem, item, found.share, found.measurement, threshold, found.words)

    def _order(self, mode: str, until: int | None = None) -> dict[str, Any]:
        """What a session is told to run."""
        batch = self.desk.batch
        return {
            "notebook": self.task.rebuilt.notebook,
            "assignment": self.desk.rubric.name,
            "parameters": {"seed": batch.seed, "device": batch.device, "tier": batch.tier},
            "mode": mode,
            "checkpoints": {} if mode == "train" else self.run.checkpoints,
            "until": until,
            "seconds": self.desk.tier.seconds * self.task.seconds_factor,
        }

    def _replay(self, session: Any, until: int | None) -> bool:
        """Build and load what was handed in; whether the session lives to answer."""
        outcome = session.run(**self._order("replay", until=until))
        return outcome.verdict in (Verdict.graded, Verdict.student_error)

    @property
    def _end(self) -> int:
        """The first cell that a stand-in does not run: the one that the run died in, else the end."""
        cells = len(self.task.rebuilt.notebook["cells"])
        return cells if self.run.last_cell is None else self.run.last_cell

    def _questions(self) -> Any:
        """Freeze what was handed in; only then is anything drawn."""
        from autograder.interview import Questions
        from autograder.protocols import freeze
        from dulcourse.referee.respondent import Malformed

        for _, item in self.desk.rubric.items:
            if item.kind == "model" and item.name in self.run.checkpoints:
                checkpoint = self.run.checkpoints[item.name]
                try:
                    self.frozen[item.name] = freeze(self.exam, item, checkpoint)
                except Malformed as error:
                    self.refused[item.name] = str(error)
        spared = {item.id for problem, item in self.desk.rubric.items if self._taken(problem)}
        images = {name: threshold.images for name, threshold in self.desk.tier.thresholds.items()}
        return Questions(self.desk.rubric, self.exam, self.frozen, spared, images)

    def _put(self, questions: Any, session: Any, replayed: bool = True) -> None:
        """Ask a party all that it lives to answer. One that never came to life answers all with silence."""
        from autograder.interview import Watched
        from autograder.session import SessionDead

        while questions:
            party = Watched(session, SessionDead)
            questions.put(party)
            if party.death is None:
                return
            self._spoil(party.death.verdict, party.death.reason)
            if replayed:
                return

    def _spoil(self, verdict: Verdict, reason: str) -> None:
        """A party that dies later than its notebook's end makes the verdict worse, never better."""
        worse = self.run.finished and self.verdict is not Verdict.sandbox_violation
        if worse or verdict is Verdict.sandbox_violation:
            self.verdict, self.reason = verdict, reason

    def _taken(self, problem: Problem) -> list[str]:
        """Withheld modules of this problem that the notebook imports."""
        return [module for module in problem.withheld if module in self.run.imported_withheld]

    def _remember_claims(self) -> None:
        """Claims and histories belong to the run: a regrade cannot ask for them again."""
        if self.task.saved is None:
            self.run.claims, self.run.histories = self.answers.claims, self.answers.histories
        else:
            self.answers.claims, self.answers.histories = self.run.claims, self.run.histories


def _recorded(outcome: Any, task: Task) -> Run:
    """What a session saw of a run, as it is kept, with the student's own text between the code."""
    cells = task.rebuilt.notebook["cells"]
    ran = [
        {
            "index": view.index,
            "id": cells[view.index]["id"],
            "problem": view.problem,
            "source": view.source,
            "text": view.text,
            "images": [base64.b64encode(image).decode() for image in view.images],
        }
        for view in outcome.cells
    ]
    return Run(
        verdict=outcome.verdict,
        reason=outcome.reason,
        errors=outcome.errors,
        imported_withheld=sorted({found.module for found in outcome.imported_withheld}),
        last_cell=outcome.last_cell,
        cells=sorted([*ran, *_prose(cells)], key=lambda cell: cell["index"]),
        seconds=outcome.seconds,
        limits=outcome.limits,
        checkpoints=outcome.checkpoints,
    )


def _prose(cells: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the student wrote in words: a person reads it, nobody runs it."""
    for index, cell in enumerate(cells):
        metadata = cell.get("metadata", {})
        if cell["cell_type"] == "markdown" and not metadata.get("nbgrader", {}).get("locked"):
            problem = metadata.get("dulcourse", {}).get("problem")
            source = "".join(cell["source"])[:WORDS]
            told = {"problem": problem, "source": source, "text": [], "images": []}
            yield {"index": index, "id": cell["id"], **told}


def _draw_figures(folder: Path, items: list[ItemResult], examined: _Examined) -> None:
    """Pictures of models and of samples beside the result; those of an earlier run go."""
    from autograder.report.figures import draw

    for item in items:
        name = item.id.partition(":")[2]
        if item.kind == "model" and item.measurement is not None:
            item.figures = draw(
                folder,
                name,
                history=examined.run.histories.get(name),
                references={"reference": item.measurement.reference_bits_per_dim},
                dependency=examined.measures.models[name].matrix,
                order=getattr(examined.frozen[name], "order", None),
                samples=examined.answers.pictures.get(name),
                levels=examined.frozen[name].levels,
            )
        if item.kind == "sampler" and (found := examined.measures.samplers.get(item.id)) is not None:
            item.figures = draw(folder, name, samples=found.samples, levels=examined.frozen[name].levels)
    drawn = {file for item in items for file in item.figures.values()}
    for path in folder.glob("*.png"):
        if path.name not in drawn:
            path.unlink()


def _result(
    desk: Desk, task: Task, examined: _Examined, items: list[ItemResult], seconds: float
) -> SubmissionResult:
    return SubmissionResult(
        assignment=desk.rubric.name,
        student=task.student,
        verdict=examined.verdict,
        reason=examined.reason,
        points=sum(item.points for item in items if item.points is not None and item.kind != "written"),
        out_of=_measured(desk.rubric),
        by_hand=sum(item.out_of for item in items if item.points is None),
        seconds=round(seconds, 3),
        items=items,
        errors=examined.run.errors,
        notes=task.rebuilt.notes,
        receipt=task.receipt.model_copy(update={"limits": examined.run.limits}),
    )


def _zero(problem: Problem, item: Item, words: list[str]) -> ItemResult:
    return points.nothing(problem, item, words).model_copy(update={"points": 0.0})


def _measured(rubric: Rubric) -> float:
    return sum(item.points for _, item in rubric.items if item.kind != "written")
