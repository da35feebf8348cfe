"""What the grader must make of each student of the example class, in the smoke tier.

Points are exact where a number stands, and between two numbers where a model that was really trained is
compared with the reference. `words` must appear in the student's result, whatever the case of their letters.
"""

from dataclasses import dataclass

from autograder.results import Verdict

__all__ = ["EXPECTED", "Expected"]

Points = float | tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """One row: the verdicts that are right, points by problem, and what must be said."""

    verdict: Verdict | tuple[Verdict, ...]
    histogram: Points = 0.0
    mixture: Points = 0.0
    made: Points = 0.0
    words: tuple[str, ...] = ()
    because: str = ""  # why the points are a range, or not what one would guess

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return self.verdict if isinstance(self.verdict, tuple) else (self.verdict,)

    def points(self, problem: str) -> tuple[float, float]:
        """The least and the most that is right."""
        points = getattr(self, problem)
        return points if isinstance(points, tuple) else (points, points)


V = Verdict
UNHURT = {"histogram": 20, "mixture": 25}
PERFECT = {**UNHURT, "made": 45}

EXPECTED: dict[str, Expected] = {
    # Good work, and work that is not finished.
    "perfect": Expected(V.graded, **PERFECT),
    "perfect-but-over-time": Expected(
        V.timeout, **PERFECT, words=("80 s",), because="all of it was handed in before"
    ),
    "half-done": Expected(V.graded, histogram=20, mixture=8, words=("not solved yet",)),
    "untouched": Expected(V.graded, words=("not solved yet",)),
    "deleted-and-duplicated": Expected(V.graded, **PERFECT, words=("put back", "copy of")),
    # Mistakes.
    "leaks-by-one": Expected(
        V.graded, **UNHURT, made=10, words=("output", "sees input"), because="the mask itself is right"
    ),
    "claims-nats": Expected(V.graded, histogram=15, mixture=25, made=45, words=("ln 2",)),
    "samples-in-wrong-order": Expected(V.graded, **UNHURT, made=35, words=("order",)),
    "closed-tails": Expected(
        V.graded,
        histogram=20,
        mixture=(14, 17),
        made=45,
        words=("tails",),
        because="the mixture of logistics that are not quite normalised is normalised by the referee",
    ),
    "raises-in-problem-1": Expected(
        V.student_error, histogram=5, mixture=25, made=45, words=("TypeError", "bincount")
    ),
    "uses-the-library": Expected(
        (V.graded, V.student_error), **UNHURT, words=("dulcourse.autoregressive.made",)
    ),
    # Runs that do not end well: what was handed in before is scored.
    "loops-for-ever": Expected(V.timeout, **UNHURT, made=10),
    "exits": Expected(V.kernel_died, **UNHURT, made=10),
    "hoards-memory": Expected(V.out_of_memory, **UNHURT, made=10),
    "floods-output": Expected(V.output_flood, **UNHURT, made=10),
    "unreadable": Expected(V.unreadable, words=("broken",)),
    "missing": Expected(V.missing, words=("nothing was handed in",)),
    # Attacks: nothing that was not earned.
    "patches-everything": Expected((V.graded, V.student_error)),
    "reads-what-is-not-theirs": Expected((V.graded, V.student_error)),
    "remembers-questions": Expected(V.graded, words=("sees input",)),
    "writes-into-the-channel": Expected((V.sandbox_violation, V.kernel_died, V.graded, V.student_error)),
    "kills-everybody": Expected((V.sandbox_violation, V.kernel_died)),
    "forges-results": Expected((V.graded, V.student_error)),
    "answers-nan-when-unsure": Expected(
        V.graded, **UNHURT, made=(10, 44), because="every answer that is no number costs more than a guess"
    ),
    "orders-late": Expected((V.graded, V.student_error), **UNHURT, made=10, because="the mask is right"),
    "replays-training-images": Expected(V.graded, **UNHURT, made=35, words=("copies",)),
    "forks": Expected(
        (V.graded, V.student_error, V.sandbox_violation, V.timeout),
        because="with no process left to start, even the worker may fall",
    ),
    "answers-too-much": Expected(V.graded, histogram=15, mixture=25, made=35, words=("80000113 bytes",)),
}
