"""Monotone maps of single numbers, whose parameters come from a network that saw other numbers.

Autoregressive flows and couplings differ in who may condition on whom; what is done to each number is here
and in `mixture_cdf`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dulcourse.errors import UsageError

__all__ = ["Monotone", "ScaleShift", "Shift", "Standardise", "positive_bound"]

Numbers = Float[Tensor, "*event"]
Parameters = Float[Tensor, "*any numbers"]


class Monotone(nn.Module):
    """z = f(x; θ), strictly increasing in x and onto the real numbers for every θ.

    `numbers` is how many parameters each x has; they lie on the last axis of θ, whose other axes broadcast
    against x. Both directions return their value and log ∂z/∂x, that of the *forward* map, at that place.
    θ = 0 is the identity or, where there is none, a sensible start.
    """

    numbers: int

    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """z = f(x; θ) and log ∂z/∂x."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x, parameters).")

    def inverse(self, z: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """x = f⁻¹(z; θ) and log ∂z/∂x at that x."""
        raise NotImplementedError(f"{type(self).__name__} does not define inverse(z, parameters).")


class Shift(Monotone):
    """z = x + t: additive, log ∂z/∂x = 0 (NICE, Dinh et al. 2015)."""

    numbers = 1

    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """x + t."""
        return x + parameters[..., 0], torch.zeros_like(x)

    def inverse(self, z: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """z − t."""
        return z - parameters[..., 0], torch.zeros_like(z)


class ScaleShift(Monotone):
    """z = x·exp(s) + t, log ∂z/∂x = s, with s = B tanh(raw/B) (RealNVP, Dinh et al. 2017, eq. 7).

    The bound B keeps one bad step of the optimiser from exploding; s has both signs, so each layer can expand
    up to e^B times and contract as much.
    """

    numbers = 2

    def __init__(self, bound: float = 3.0):
        super().__init__()
        self.bound = positive_bound(bound)

    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """x·exp(s) + t."""
        s, t = self._read(parameters, x)
        return x * s.exp() + t, s

    def inverse(self, z: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """(z − t)·exp(−s)."""
        s, t = self._read(parameters, z)
        return (z - t) * (-s).exp(), s

    def _read(self, parameters: Parameters, like: Numbers) -> tuple[Numbers, Numbers]:
        s, t = parameters.unbind(-1)
        return (self.bound * torch.tanh(s / self.bound)).expand_as(like), t


class Standardise(ScaleShift):
    """z = (x − μ)·exp(s), log ∂z/∂x = s: what is left of x when mean and scale are predicted.

    The autoregressive flow's form (MAF, Papamakarios et al. 2017, eqs. 3–5, with α = −s); bounded as above.
    """

    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """(x − μ)·exp(s)."""
        s, mean = self._read(parameters, x)
        return (x - mean) * s.exp(), s

    def inverse(self, z: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """z·exp(−s) + μ."""
        s, mean = self._read(parameters, z)
        return z * (-s).exp() + mean, s


def positive_bound(bound: float) -> float:
    """The bound of log-scales if it is above 0, else an error."""
    if not bound > 0:
        raise UsageError(f"bound is {bound}, expected a number above 0: s moves between −bound and bound.")
    return bound
