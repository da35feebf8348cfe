"""What every data set is: events, perhaps labels, and the number of levels of one symbol."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from jaxtyping import Float32, Int64
from torch import Tensor

from dulcourse.errors import UsageError

__all__ = ["SPLITS", "Dataset", "indices_of", "one_of", "positive"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Events x of one split of a data set.

    Discrete data is int64 `[n, C, H, W]` with values 0 … levels−1, whatever it shows, so that every discrete
    model has one shape contract; continuous toys are float32 `[n, 2]` with `levels` None.
    """

    name: str
    split: str
    x: Int64[Tensor, "n C H W"] | Float32[Tensor, "n features"]
    y: Int64[Tensor, " n"] | None = None
    levels: int | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event, such as (1, 8, 8)."""
        return tuple(self.x.shape[1:])

    @property
    def dims(self) -> int:
        """D, the number of symbols of one event: what bits/dim divides by."""
        return prod(self.shape)


def one_of(what: str, value: object, allowed: Sequence) -> None:
    """An error that lists what is allowed, if `value` is not."""
    if value not in allowed:
        raise UsageError(f"unknown {what} {value!r}: expected one of {', '.join(map(repr, allowed))}.")


def positive(what: str, value: object) -> int:
    """`value` if it is a whole number of at least 1, else an error."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"{what} is {value!r}: expected how many events to draw, a whole number of at least 1."
        )
    return value


def indices_of(indices: Sequence[int]) -> list[int]:
    """Indices of unlimited data as plain ints, or an error that names the first one that cannot be used."""
    numbers = [int(index) for index in indices]
    for number in numbers:
        if number < 0:
            raise UsageError(f"index {number} is negative: expected indices from 0 on, such as range(100).")
    if not numbers:
        raise UsageError("indices are empty: expected at least one, such as range(100).")
    return numbers
