"""What flows and latent-variable models have in common: a message in which some bits are got back.

Party A sees the images x and declares a density q(z | x) for each of them. The referee draws z from it. Party
B, which never sees an image, gets z alone and says what x looks like. A sender who had the model would
choose z with log₂ 1/q(z | x) bits of another message, and whoever receives z and x gets these bits back. So x
costs

    S = log q(z | x) − log p(z) − log p(x | z),    p(z) = N(0, I),

a length that could really have been achieved: Σ_x E 2^−S = Σ_x ∫ p(z) p(x | z) dz ≤ 1, whatever A and B
answer and whatever they know of other images, as long as B's answer depends on nothing but z.

Three things keep the arithmetic as good as that sum. log q is computed from the noise that was drawn, never
from z, so that no rounding of z is charged as certainty. What A declares is clamped before the noise is
drawn. And z is rounded to multiples of 2⁻³⁰, a grid coarser than anything that the random numbers, or the sum
of a mean and noise in float64, resolve where p(z) is not nil: E 2^−S becomes a sum over the points of the
grid, with the same total, and low bits of a mean do not reach B.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float64, Int64

from dulcourse.referee.respondent import Respondent, Spec, ask

__all__ = ["LOG_SCALES", "MEANS", "ask_in_pieces", "clamped", "log_normal", "on_grid", "unusable"]

MEANS = 1e6  # the largest mean of z that is taken at its word
LOG_SCALES = 15.0  # the largest logarithm of a standard deviation, either way
GRID = 2.0**-30
NUMBERS = 1 << 22  # in one frame, of 8 bytes each: 32 MiB


def clamped(
    values: Float64[np.ndarray, "n ..."], bad: Bool[np.ndarray, " n"], most: float
) -> Float64[np.ndarray, "n ..."]:
    """The values within ±most; rows in `bad` are 0 throughout. Decided before any noise is drawn."""
    safe = values.copy()
    # Rule 3: a row that cannot be used is replaced whole, whatever its image is, and costs what it costs.
    safe[bad] = 0.0
    return np.clip(safe, -most, most)


def unusable(*arrays: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Rows in which any number is not finite."""
    return ~np.all([np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in arrays], axis=0)


def on_grid(z: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
    """z rounded to multiples of 2⁻³⁰: what B gets, and what the prior is charged for."""
    return np.round(z / GRID) * GRID


def log_normal(z: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """log N(z; 0, I) = −½ Σ (z² + log 2π), in nats."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(axis=1)


def ask_in_pieces(
    respondent: Respondent,
    question: str,
    arrays: Mapping[str, np.ndarray],
    specs: Callable[[int], Mapping[str, Spec]],
    numbers: int,
    order: Int64[np.ndarray, " n"],
) -> dict[str, np.ndarray]:
    """Put a question about n images in calls of bounded size, each image in one of them; join the answers.

    `specs(k)` is what an answer about k images looks like, `numbers` how many numbers it has an image. They
    are sent in this order, and the answers come back in the order of `arrays`.
    """
    answers: list[dict[str, np.ndarray]] = []
    for part in _parts(len(order), numbers):
        # Rule 9: the order is the referee's, drawn anew for each party, so that where something stands in a
        # question says nothing of its image.
        asked = {name: np.ascontiguousarray(array[order[part]]) for name, array in arrays.items()}
        answers.append(ask(respondent, question, asked, specs(part.stop - part.start)))
    joined = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    back = np.argsort(order)
    return {name: array[back].astype(np.float64) for name, array in joined.items()}


def _parts(n: int, numbers: int) -> Iterator[slice]:
    size = max(1, NUMBERS // numbers)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
