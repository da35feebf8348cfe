"""The class in numbers: how the points are distributed, and how each problem went."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from statistics import mean, median

from autograder.report.view import Submission
from autograder.report.words import NEARLY
from autograder.rubric import Rubric

__all__ = ["Bar", "Distribution", "ProblemMean", "distribution", "problem_means"]


@dataclass(frozen=True)
class Bar:
    low: float
    high: float
    n: int
    x: float  # in the figure's units, as are the others
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Distribution:
    """A histogram of points, laid out for an SVG of `width` by `height`."""

    bars: list[Bar]
    n: int
    mean: float
    median: float
    out_of: float
    median_x: float
    left: float
    base: float
    width: float
    height: float

    @property
    def words(self) -> str:
        """The figure for those who cannot see it."""
        filled = ", ".join(f"{bar.n} from {bar.low:g} to {bar.high:g}" for bar in self.bars if bar.n)
        return f"Points of {self.n} submissions, of {self.out_of:g}: {filled}; median {self.median:.3g}."


@dataclass(frozen=True)
class ProblemMean:
    title: str
    mean: float
    out_of: float
    full: int  # submissions with all points
    n: int


def distribution(values: Sequence[float], out_of: float, bins: int = 10) -> Distribution | None:
    """The histogram of `values` between 0 and `out_of`; None where there is nothing to draw."""
    if not values or out_of <= 0:
        return None
    left, right, top, base, width, height = 14, 624, 30, 128, 640, 176
    shares = [min(max(value / out_of, 0.0), 1.0) for value in values]
    counts = [0] * bins
    for share in shares:
        counts[min(floor(share * bins + 1e-9), bins - 1)] += 1  # the last one includes all points
    step, tallest = (right - left) / bins, max(counts)
    bars = []
    for i, n in enumerate(counts):
        tall = (base - top) * n / tallest
        bars.append(
            Bar(
                i * out_of / bins,
                (i + 1) * out_of / bins,
                n,
                left + i * step + 2,
                base - tall,
                step - 4,
                tall,
            )
        )
    middle = left + (right - left) * median(shares)
    return Distribution(
        bars, len(values), mean(values), median(values), out_of, middle, left, base, width, height
    )


def problem_means(rubric: Rubric, submissions: Sequence[Submission]) -> list[ProblemMean]:
    """Each problem's mean points over the submissions, and how many have all of them."""
    means = []
    for problem in rubric.problems:
        totals = [each.points_of(problem.name) for each in submissions]
        full = sum(total >= problem.points - NEARLY for total in totals)
        average = mean(totals) if totals else 0.0
        means.append(ProblemMean(problem.title, average, problem.points, full, len(totals)))
    return means
