"""Smooth functions of an ordered level: few numbers in place of a free logit for each of many levels."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dulcourse.errors import UsageError

__all__ = ["basis"]


def basis(levels: int, cosines: int) -> Float[Tensor, "cosines levels"]:
    """cos(πf(k + ½)/L) at [f − 1, k], f = 1 … cosines, k = 0 … L − 1.

    logits = z @ basis: what is learnt of one level is learnt of its neighbours. The rows are orthogonal, and
    L − 1 of them can express every softmax.
    """
    if not 1 <= cosines < levels:
        raise UsageError(f"cosines is {cosines}, expected 1 to {levels - 1} for levels={levels}.")
    f, k = torch.arange(1, cosines + 1), torch.arange(levels)
    return torch.cos(math.pi / levels * f[:, None] * (k + 0.5))
