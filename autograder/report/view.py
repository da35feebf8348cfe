"""What the templates show: a result with the marks given by hand, arranged for reading."""

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from autograder.report.executed import Cell, is_png
from autograder.report.figures import description
from autograder.report.words import KINDS, PARTS, STATES, State, why_not_more
from autograder.report.written import Marks
from autograder.results import ItemResult, Measurement, SubmissionResult, Verdict
from autograder.rubric import Rubric, Threshold

__all__ = ["Figure", "Line", "Row", "Section", "Submission", "picture", "row", "sections"]

FIGURES = {"samples": "Samples", "curves": "Training", "dependency": "What each output depends on"}
NOT_RUN = {Verdict.missing, Verdict.unreadable, Verdict.infrastructure_error}
EXPECTED = {"model": ("curves", "dependency"), "sampler": ("samples",)}


@dataclass
class Submission:
    """A result, its folder, and what people gave for the written answers."""

    folder: Path
    result: SubmissionResult

    @property
    def student(self) -> str:
        return self.folder.name

    @property
    def state(self) -> State:
        return STATES[self.result.verdict]

    @property
    def written(self) -> list[ItemResult]:
        return [item for item in self.result.items if item.kind == "written"]

    @property
    def waiting(self) -> list[ItemResult]:
        return [item for item in self.written if item.points is None]

    @property
    def points(self) -> float:
        return self.result.points + sum(item.points or 0.0 for item in self.written)

    @property
    def out_of(self) -> float:
        return sum(item.out_of for item in self.result.items)

    @property
    def counts(self) -> bool:
        """Whether the class's means include it: a notebook was handed in, and the grader did not fail."""
        return self.result.verdict not in {Verdict.missing, Verdict.infrastructure_error}

    def points_of(self, problem: str) -> float:
        return sum(item.points or 0.0 for item in self.result.items if item.problem == problem)

    def mark(self, marks: Marks) -> None:
        """Enter the points and comments that were given by hand."""
        items = [self._marked(item, marks) for item in self.result.items]
        self.result = self.result.model_copy(update={"items": items})

    def _marked(self, item: ItemResult, marks: Marks) -> ItemResult:
        mark = marks.get((self.student, item.id.partition(":")[2]))
        if item.kind != "written" or item.points is not None or mark is None or mark.points is None:
            return item
        words = [mark.comment] if mark.comment else []
        return item.model_copy(update={"points": mark.points, "words": words})


@dataclass(frozen=True)
class Row:
    """A line of the class table."""

    who: str
    href: str
    points: float | None  # None: not graded
    out_of: float
    waiting: float  # points that wait for a person
    why: str
    seconds: float
    state: State


@dataclass(frozen=True)
class Figure:
    """A picture with its description; without a file, `words` say why there is none."""

    title: str
    file: str | None
    words: str


@dataclass(frozen=True)
class Scale:
    """Where a model is between no points and all, on a line from 0 to 100, and the error bar's ends."""

    full: float  # bits/dim of excess over the reference, and so is `none`
    none: float
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """An item of the rubric, and all there is to see of it."""

    item: ItemResult
    kind: str  # in words
    name: str
    scale: Scale | None
    parts: list[tuple[str, float]]  # of the bits/dim, in words
    figures: list[Figure]
    answer: Cell | None


@dataclass(frozen=True)
class Section:
    """A problem of the rubric."""

    title: str
    lines: list[Line]

    @property
    def points(self) -> float:
        return sum(line.item.points or 0.0 for line in self.lines)

    @property
    def out_of(self) -> float:
        return sum(line.item.out_of for line in self.lines)

    @property
    def waiting(self) -> float:
        return sum(line.item.out_of for line in self.lines if line.item.points is None)


def row(submission: Submission, rubric: Rubric, who: str, href: str) -> Row:
    """The submission's line in the class table."""
    return Row(
        who=who,
        href=href,
        points=None if submission.result.verdict is Verdict.infrastructure_error else submission.points,
        out_of=submission.out_of if submission.result.items else rubric.points,
        waiting=sum(item.out_of for item in submission.waiting),
        why=why_not_more(submission.result),
        seconds=submission.result.seconds,
        state=submission.state,
    )


def sections(submission: Submission, rubric: Rubric, cells: list[Cell]) -> list[Section]:
    """The items by problem, in the rubric's order; problems that the rubric no longer has come last."""
    if submission.result.verdict in NOT_RUN:
        return []
    titles = {problem.name: problem.title for problem in rubric.problems}
    others = {item.problem: item.problem for item in submission.result.items if item.problem not in titles}
    found = []
    for name, title in (titles | others).items():
        items = [item for item in submission.result.items if item.problem == name]
        if items:
            found.append(Section(title, [_line(submission, rubric, item, cells) for item in items]))
    return found


def picture(folder: Path, file: str) -> Path | None:
    """The PNG of that name directly in `folder`: no other folder, no link, no other kind of file."""
    path = folder / file
    if not re.fullmatch(r"\w[\w.-]{0,100}\.png", file, re.ASCII) or path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as stream:
        return path if is_png(stream.read(8)) else None


def _line(submission: Submission, rubric: Rubric, item: ItemResult, cells: list[Cell]) -> Line:
    receipt, name = submission.result.receipt, item.id.partition(":")[2]
    tier = rubric.tiers.get(receipt.tier) if receipt else None
    return Line(
        item=item,
        kind=KINDS[item.kind],
        name=name,
        scale=_scale(item, tier.thresholds.get(name) if tier else None),
        parts=_parts(item.measurement),
        figures=_figures(submission.folder, item, rubric),
        answer=next((cell for cell in cells if cell.id == name), None) if item.kind == "written" else None,
    )


def _scale(item: ItemResult, threshold: Threshold | None) -> Scale | None:
    """More points to the right; the outer tenths lie beyond the thresholds and hold all farther out."""
    if item.kind != "model" or item.measurement is None or threshold is None:
        return None

    def place(excess: float) -> float:
        return min(max(10 + 80 * (threshold.none - excess) / (threshold.none - threshold.full), 0), 100)

    middle, error = item.measurement.difference, item.measurement.difference_standard_error
    return Scale(threshold.full, threshold.none, place(middle), place(middle + error), place(middle - error))


def _parts(measurement: Measurement | None) -> list[tuple[str, float]]:
    """What the bits/dim are made of, and what a label is worth, in words."""
    if measurement is None:
        return []
    gap = {} if measurement.label_gap is None else {"label_gap": measurement.label_gap}
    parts = {**measurement.parts, **gap}
    signs = {"log_det": -1.0}  # the one part that is subtracted
    return [(PARTS[name], signs.get(name, 1.0) * bits) for name, bits in parts.items() if name in PARTS]


def _ordered(rubric: Rubric) -> set[str]:
    """Models of more than one symbol, predicted one after the other: there is something to depend on."""
    models = [item for _, item in rubric.items if item.kind == "model"]
    return {item.id for item in models if item.family == "autoregressive" and prod(item.shape) > 1}


def _figures(folder: Path, item: ItemResult, rubric: Rubric) -> list[Figure]:
    """What there is to see, and in words what there should be and is not."""
    expected = [
        name for name in EXPECTED.get(item.kind, ()) if name != "dependency" or item.id in _ordered(rubric)
    ]
    figures = []
    for name in dict.fromkeys((*expected, *item.figures)):
        title = FIGURES.get(name, name)
        if name not in item.figures and item.kind == "model" and item.measurement is None:
            continue  # nothing was handed in, as its words say
        if name not in item.figures:
            figures.append(Figure(title, None, "there was nothing to draw."))
        elif found := picture(folder, item.figures[name]):
            figures.append(Figure(title, found.name, description(found) or title))
        else:
            figures.append(Figure(title, None, "the picture's file is not there."))
    return figures
