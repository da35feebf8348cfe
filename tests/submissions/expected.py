"""What the grader must make of a student of an example class.

Points are exact where a number stands, and between two numbers where a model that was really trained is
compared with the reference. `words` must appear in the student's result, whatever the case of their letters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from autograder.results import Verdict

__all__ = ["Expected", "Points"]

Points = float | tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """One row: the verdicts that are right, points by problem (0 where none stand), what must be said."""

    verdict: Verdict | tuple[Verdict, ...]
    points: Mapping[str, Points] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    because: str = ""  # why the points are a range, or not what one would guess

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return self.verdict if isinstance(self.verdict, tuple) else (self.verdict,)

    @property
    def worthless(self) -> bool:
        """No problem may bring a point."""
        return not any(self.limits(problem)[1] for problem in self.points)

    def limits(self, problem: str) -> tuple[float, float]:
        """The least and the most that is right."""
        points = self.points.get(problem, 0.0)
        return points if isinstance(points, tuple) else (points, points)
