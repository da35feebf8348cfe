"""Coupling: one half of the event stays and says what happens to the other. Both directions are one pass."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dulcourse.errors import UsageError
from dulcourse.flows.base import Transform, per_event
from dulcourse.flows.monotone import Monotone

__all__ = ["Coupling", "alternating", "channels", "checkerboard"]

Event = Float[Tensor, "batch *event"]
LogDet = Float[Tensor, " batch"]


class Coupling(Transform):
    r"""z_a = x_a, z_b = f(x_b; θ(x_a)); log|det ∂z/∂x| = Σ_{i in b} log f′_i, over the transformed half only.

    Since the network that gives θ sees nothing but x_a = z_a, the inverse knows the same θ: the network
    itself is never inverted (Dinh et al. 2015, section 3.2; 2017, eqs. 7, 8).

    Arguments:
        mask: bool, the shape of an event; True where x passes unchanged (a). Part of the state.
        network: x with zeros in b, [batch, *event] → θ [batch, numbers·C, *rest] for events (C, *rest).
        monotone: f: `Shift` (additive), `ScaleShift` (affine), or any other with as many numbers.
    """

    mask: Tensor

    def __init__(self, mask: Bool[Tensor, "*event"], network: nn.Module, monotone: Monotone):
        super().__init__()
        if mask.all() or not mask.any():
            raise UsageError(
                f"the mask of shape {list(mask.shape)} leaves one half empty, expected elements that stay "
                "and elements that change."
            )
        self.register_buffer("mask", mask)
        self.network, self.monotone = network, monotone

    def forward(self, x: Event) -> tuple[Event, LogDet]:
        """x_a as it is, f(x_b; θ(x_a))."""
        z, log_slope = self.monotone(x, self._theta(x))
        return torch.where(self.mask, x, z), self._over_b(log_slope)

    def inverse(self, z: Event) -> tuple[Event, LogDet]:
        """z_a as it is, f⁻¹(z_b; θ(z_a))."""
        x, log_slope = self.monotone.inverse(z, self._theta(z))
        return torch.where(self.mask, z, x), -self._over_b(log_slope)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same, if it is the shape of the mask."""
        if tuple(shape) != tuple(self.mask.shape):
            raise UsageError(f"events have shape {tuple(shape)}, expected {tuple(self.mask.shape)}.")
        return shape

    def _theta(self, x: Event) -> Float[Tensor, "batch *event numbers"]:
        theta = self.network(torch.where(self.mask, x, 0.0))
        return theta.unflatten(1, (self.monotone.numbers, len(self.mask))).movedim(1, -1)

    def _over_b(self, log_slope: Event) -> LogDet:
        return per_event(torch.where(self.mask, 0.0, log_slope))


def alternating(shape: tuple[int, ...], first: bool) -> Bool[Tensor, "*event"]:
    """True, False, True, … along the flattened event, or the other way round."""
    indices = torch.arange(torch.Size(shape).numel())
    return ((indices % 2 == 0) == first).reshape(shape)


def checkerboard(shape: tuple[int, int, int], first: bool) -> Bool[Tensor, "C H W"]:
    """True where h + w is even, in every channel, or the other way round."""
    C, H, W = shape
    even = (torch.arange(H)[:, None] + torch.arange(W)) % 2 == 0
    return (even == first).expand(C, H, W).clone()


def channels(shape: tuple[int, int, int], first: bool) -> Bool[Tensor, "C H W"]:
    """True in the first ⌈C/2⌉ channels, or in the others."""
    C, H, W = shape
    early = torch.arange(C) < (C + 1) // 2
    return (early == first)[:, None, None].expand(C, H, W).clone()
