"""Integers become real numbers: noise in [0, 1), and the bound that it brings."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dulcourse.flows.base import Flow

__all__ = ["dequantise", "negative_elbo"]


def dequantise(x: Int64[Tensor, "batch *event"], generator: torch.Generator) -> Float[Tensor, "batch *event"]:
    """x + u, u ~ U[0, 1): real numbers in [0, levels) that floor to x."""
    u = torch.rand(x.shape, generator=generator, device=generator.device)
    return x + u.to(x.device)


def negative_elbo(
    model: Flow, x: Int64[Tensor, "batch *event"], y: Tensor | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    r"""−log p(x + u) in nats with fresh u ~ U[0, 1)^D: in expectation at least −log P(x).

    log P(x) = log ∫ p(x + u) du ≥ E_u log p(x + u) (Theis et al. 2016, eq. 4). A loss for `training.fit`.
    """
    return -model.log_prob(dequantise(x, generator))
