"""The Ising model on a small square lattice: images whose entropy is known, so that the limit is a number.

    P(x) = exp(J Σ_{i~j} s_i s_j) / Z,   s = 2x − 1,

over pairs of neighbours in a row or a column, with free edges. A row has 2^size states, and the rows are a
Markov chain: the transfer matrix gives Z, every marginal, exact and independent draws, and the entropy. The
default coupling is the infinite lattice's critical one (Onsager 1944), where clusters of all sizes occur.
"""

from collections.abc import Sequence
from functools import cache
from math import asinh, log

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from dulcourse import images
from dulcourse.data.dataset import Dataset, one_of
from dulcourse.errors import UsageError
from dulcourse.randomness import uniforms

__all__ = ["CRITICAL", "SIDES", "SIZES", "draw", "exact_entropy", "log_prob"]

SIZES = {"train": 8192, "validation": 1024, "test": 2048}
SIDES = (8, 4, 6)
CRITICAL = asinh(1) / 2  # sinh(2J) = 1
_MOST = 2.0  # couplings beyond it leave two images


def draw(
    indices: Sequence[int],
    *,
    key: bytes,
    split: str = "fresh",
    size: int = 8,
    coupling: float = CRITICAL,
) -> Dataset:
    """Lattices `indices` under `key`: each row is drawn from its exact conditional given the row above."""
    rows = _rows(*_checked(size, coupling))
    u = uniforms(key, indices, size)
    states = [np.zeros(len(u), np.int64)]
    for r, conditional in enumerate(rows):
        states.append(_inverse(np.cumsum(conditional, axis=1)[states[-1]], u[:, r]))
    spins = _spins(size)[np.stack(states[1:], axis=1)]
    return Dataset("ising", split, torch.from_numpy((spins + 1) // 2).unsqueeze(1), levels=2)


def exact_entropy(*, size: int = 8, coupling: float = CRITICAL) -> float:
    """H(x) / size² in bits per dimension: no model can be charged less on average.

    H(x) = H(first row) + Σ_r H(row r+1 | row r), exactly, by the transfer matrix.
    """
    marginal, nats = np.ones(1), 0.0
    for conditional in _rows(*_checked(size, coupling)):
        nats -= marginal @ (conditional * np.log(conditional)).sum(1)
        marginal = marginal @ conditional
    return float(nats / (log(2) * size**2))


def log_prob(x: Int64[Tensor, "batch 1 H W"], *, coupling: float = CRITICAL) -> Float64[Tensor, " batch"]:
    """log P(x) in nats, exactly."""
    size, coupling = _checked(x.shape[-1], coupling)
    images.check(x, (1, size, size), 2, "law")
    states = (x[:, 0] * 2 ** torch.arange(size)).sum(2).numpy()
    above = np.pad(states, ((0, 0), (1, 0)))  # the first row has nothing above it: state 0 of one
    p = [row[above[:, r], states[:, r]] for r, row in enumerate(_rows(size, coupling))]
    return torch.from_numpy(np.log(p).sum(0))


def _checked(size: int, coupling: float) -> tuple[int, float]:
    one_of("size of ising", size, SIDES)
    if not abs(coupling) <= _MOST:
        raise UsageError(
            f"coupling of ising is {coupling!r}: expected a number from −{_MOST:g} to {_MOST:g}; "
            f"the critical one is {CRITICAL:.4f}."
        )
    return size, float(coupling)


@cache
def _spins(size: int) -> np.ndarray:
    """int64 `[2^size, size]`: the spins ±1 of every state of a row; bit j of the state is column j."""
    states = np.arange(2**size)[:, None] >> np.arange(size) & 1
    return 2 * states - 1


@cache
def _rows(size: int, coupling: float) -> list[np.ndarray]:
    """P(row | the row above) for each row: `[1, 2^size]` for the first, then `[2^size, 2^size]`.

    From below: m_size = 1, m_r(s) = Σ_t exp(J s·t + J Σ_j t_j t_{j+1}) m_{r+1}(t), each up to a constant.
    """
    s = _spins(size)
    alone = np.exp(coupling * (s[:, 1:] * s[:, :-1]).sum(1))
    transfer = np.exp(coupling * (s @ s.T)) * alone
    below, rows = np.ones(len(s)), []
    for _ in range(size - 1):
        total = transfer @ below
        rows.insert(0, transfer * below / total[:, None])
        below = total / total.sum()
    first = alone * below / (alone @ below)
    return [first[None], *rows]


def _inverse(cumulative: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The state at which each distribution function passes its u; rounding never leads past the last one."""
    return np.minimum((cumulative <= u[:, None]).sum(1), cumulative.shape[1] - 1)
