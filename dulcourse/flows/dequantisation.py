"""Integers become real numbers: noise in [0, 1), and the bound that it brings.

A density of integers has no lowest loss: it can put ever narrower spikes on them. With noise the mass of each
unit cube is a probability of its own, P(x) = ∫_{[0,1)^D} p(x + u) du.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dulcourse.errors import UsageError
from dulcourse.flows.base import Flow, Transform

__all__ = ["UniformDequantisation", "dequantise", "mean_negative_elbo", "negative_elbo"]

LogDet = Float[Tensor, " batch"]


class UniformDequantisation(Transform):
    r"""z = x + u, u ~ U[0, 1)^D, and back x = ⌊z⌋, clamped to 0 … L − 1.

    Both log-dets are 0: −log q(u | x) = 0 is what the noise costs, and rounding down gives it back.
    Scaling is no part of it (`elementwise.Scaling`), so that its log-det cannot be forgotten here.

    Arguments:
        levels: L.
        generator: of the noise, which goes on from call to call.
    """

    def __init__(self, levels: int, generator: torch.Generator):
        super().__init__()
        self.levels, self.generator = levels, generator

    def forward(self, x: Int64[Tensor, "batch *event"]) -> tuple[Float[Tensor, "batch *event"], LogDet]:
        """x + u and 0."""
        z = dequantise(x, self.generator)
        return z, z.new_zeros(len(z))

    def inverse(self, z: Float[Tensor, "batch *event"]) -> tuple[Int64[Tensor, "batch *event"], LogDet]:
        """⌊z⌋ in 0 … L − 1 and 0."""
        return z.floor().clamp(0, self.levels - 1).long(), z.new_zeros(len(z))


def dequantise(x: Int64[Tensor, "batch *event"], generator: torch.Generator) -> Float[Tensor, "batch *event"]:
    """x + u, u ~ U[0, 1): real numbers in [0, levels) that floor to x.

    Single precision rounds some sums up to x + 1, where the next level begins: those become the last number
    before it.
    """
    u = torch.rand(x.shape, generator=generator, device=generator.device).to(x.device)
    end = torch.nextafter((x + 1).to(u), torch.zeros_like(u))
    return torch.minimum(x + u, end)


def negative_elbo(
    model: Flow, x: Int64[Tensor, "batch *event"], y: Tensor | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    r"""−log p(x + u) in nats with fresh u ~ U[0, 1)^D: in expectation at least −log P(x).

    log P(x) = log ∫ p(x + u) du ≥ E_u log p(x + u) (Theis et al. 2016, eq. 4). A loss for `training.fit`.
    """
    return -model.log_prob(dequantise(x, generator))


def mean_negative_elbo(draws: int) -> Callable[..., Float[Tensor, " batch"]]:
    """The same bound as the mean of several draws of u: less noisy, not tighter. A loss for evaluation."""
    if draws < 1:
        raise UsageError(f"draws is {draws}, expected at least 1.")

    def loss(model: Flow, x: Tensor, y: Tensor | None, generator: torch.Generator) -> Tensor:
        return torch.stack([negative_elbo(model, x, y, generator) for _ in range(draws)]).mean(0)

    return loss
