"""Layers that only move numbers, log-det 0: space squeezed into channels, and half of these factored out."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from dulcourse.errors import UsageError
from dulcourse.flows.base import Transform

__all__ = ["FactorOut", "Squeeze"]

Images = Float[Tensor, "batch C H W"]
LogDet = Float[Tensor, " batch"]


class Squeeze(Transform):
    """[C, H, W] → [4C, H/2, W/2]: a block of 2×2 pixels becomes the channels 4c + 2(h mod 2) + (w mod 2)."""

    def forward(self, x: Images) -> tuple[Float[Tensor, "batch 4*C H//2 W//2"], LogDet]:
        """Space into channels."""
        self.out_shape(tuple(x.shape[1:]))
        return rearrange(x, "b c (h i) (w j) -> b (c i j) h w", i=2, j=2), x.new_zeros(len(x))

    def inverse(self, z: Images) -> tuple[Float[Tensor, "batch C//4 2*H 2*W"], LogDet]:
        """Channels back into space."""
        return rearrange(z, "b (c i j) h w -> b c (h i) (w j)", i=2, j=2), z.new_zeros(len(z))

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(4C, H/2, W/2)."""
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
            raise UsageError(
                f"events of shape {tuple(shape)} cannot be squeezed, expected (C, H, W) with H and W even: "
                "use fewer scales, or pad the images."
            )
        C, H, W = shape
        return 4 * C, H // 2, W // 2


class FactorOut(Transform):
    """The first ⌊C/2⌋ channels are finished, the others go on: z = (x₁, rest(x₂)), flattened.

    log|det ∂z/∂x| is that of `rest` (Dinh et al. 2017, section 3.6).

    Arguments:
        shape: (C, H, W) of the events, C at least 2.
        rest: what happens to the other channels, [C − ⌊C/2⌋, H, W].
    """

    def __init__(self, shape: tuple[int, int, int], rest: Transform):
        super().__init__()
        C, H, W = shape
        if C < 2:
            raise UsageError(f"{C} channel cannot be halved, expected at least 2: squeeze first.")
        self.shape, self.done, self.rest = tuple(shape), C // 2, rest
        self.rest_shape = tuple(rest.out_shape((C - self.done, H, W)))

    def forward(self, x: Images) -> tuple[Float[Tensor, "batch dims"], LogDet]:
        """(x₁, rest(x₂))."""
        z, log_det = self.rest(x[:, self.done :])
        return torch.cat([x[:, : self.done].flatten(1), z.flatten(1)], 1), log_det

    def inverse(self, z: Float[Tensor, "batch dims"]) -> tuple[Images, LogDet]:
        """(z₁, rest⁻¹(z₂))."""
        first = (self.done, *self.shape[1:])
        done, rest = z.split([math.prod(first), z.shape[1] - math.prod(first)], 1)
        x, log_det = self.rest.inverse(rest.unflatten(1, self.rest_shape))
        return torch.cat([done.unflatten(1, first), x], 1), log_det

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C·H·W,)."""
        if tuple(shape) != self.shape:
            raise UsageError(f"events have shape {tuple(shape)}, expected {self.shape}.")
        return (math.prod(shape),)
