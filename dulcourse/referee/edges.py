"""From a measured difference to points."""

from dulcourse.errors import UsageError
from dulcourse.referee.score import Score

__all__ = ["share"]


def share(score: Score, *, full: float, none: float) -> float:
    """How much of the points a model earns: 1 at `full` bits/dim above the reference, 0 at `none`, linear
    between.

    Credit ends at `full`: a number far below the reference is worth no more than the reference's.
    """
    if not full < none:
        raise UsageError(f"full ({full}) must be smaller than none ({none}): fewer bits are better.")
    if score.difference is None:
        raise UsageError(
            "points are given for the difference to a reference; score() was called without one."
        )
    # Rule 6: the paired mean and nothing else. Subtracting a respondent's own standard error would pay it for
    # spoiling one image on purpose.
    excess = score.difference
    return min(1.0, max(0.0, (none - excess) / (none - full)))
