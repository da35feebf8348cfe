"""Who answers the referee: an untrusted model behind one method, wherever it runs.

A respondent may be a model in this process (book, tests, `handin.check`) or one behind the grader's wall. The referee
cannot tell and need not: every answer is a claim, checked here for keys, shape, dtype and finiteness.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["Malformed", "Respondent", "Spec", "ask"]

Arrays = Mapping[str, np.ndarray]


class Respondent(Protocol):
    """Answers named questions with arrays.

    Questions (`<model>` is the name given to `handin.trained`, x is int64 `[n, C, H, W]`):

    | name | arrays sent | arrays returned |
    |---|---|---|
    | `<model>.conditional` | x, position int64 `[n]` (index into `x.flatten(1)`) | log_p float `[n, levels]` (nats, any offset) |
    | `<model>.logits` | x | logits float `[n, levels, C, H, W]` |
    | `<model>.log_prob` | x | log_prob float `[n]` (nats) |
    | `<model>.sample` | n int64 `[]`, seed int64 `[]` | x int64 `[n, C, H, W]` |
    | `<model>.claim` | nothing | bits_per_dim float64 `[]` (NaN: none made) |
    | `<model>.history` | nothing | train float64 `[k]`, validation float64 `[k]`, step int64 `[k]` (all empty: none kept) |
    | `function.<f>` | the arguments, by name | result (one array), or result0, result1, … for a tuple |
    """

    def call(self, name: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """The answer, or `Malformed` when there is none that can be used."""
        ...


class Malformed(Exception):
    """An answer that cannot be used, with the reason in words. It is charged, never excused (rules 3 to 5)."""


@dataclass(frozen=True)
class Spec:
    """What one answered array must look like: `kind` is 'f' (any float) or 'i' (any integer or bool)."""

    shape: tuple[int, ...]
    kind: str = "f"
    finite: bool = True
