"""Masked autoregressive flow: z_i = f(x_i; θ_i(x_<i)), all at once from x to z, one by one from z to x."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse.autoregressive import orders
from dulcourse.autoregressive.made import MaskedLinear, mask
from dulcourse.errors import UsageError
from dulcourse.flows.base import Compose, Flow, Transform
from dulcourse.flows.elementwise import to_reals
from dulcourse.flows.monotone import Monotone, Standardise

__all__ = ["MAF", "MaskedAutoregressive"]

Event = Float[Tensor, "batch *event"]
LogDet = Float[Tensor, " batch"]


class MaskedAutoregressive(Transform):
    r"""z_{o(t)} = f(x_{o(t)}; θ_t(x_{o(0)}, …, x_{o(t−1)})), log|det ∂z/∂x| = Σ_t log f′ (the diagonal).

    The Jacobian is triangular in the order o. θ comes from a masked network like MADE's,

        h₁ = relu(W₁x + b₁), h_{l+1} = relu(W_{l+1}h_l + b_{l+1}), θ = c + Vh + Ax; W, V, A masked,

    with V, A and c zero at first, so that the layer starts as f at θ = 0. `forward` is one pass. `inverse`
    goes through the D numbers one after the other but computes each hidden unit once, which is again about
    one pass in place of D (Papamakarios et al. 2017; Germain et al. 2015 for the masks).

    Arguments:
        shape: of an event, D elements.
        order: int64 [D]; order[t] indexes x.flatten(1). Raster when not given.
        hidden: widths of the hidden layers.
        monotone: f; affine (`Standardise`) when not given.
        dropout: probability with which a hidden unit is dropped in training.
        generator: for the first weights; torch's own when not given.
    """

    order: Tensor
    rank: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        order: Int64[Tensor, " dims"] | None = None,
        hidden: Sequence[int] = (512,),
        *,
        monotone: Monotone | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.shape, self.dims = tuple(shape), math.prod(shape)
        self.monotone = monotone or Standardise()
        order = natural_order(shape) if order is None else _permutation(order.clone(), self.dims)
        self.register_buffer("order", order)
        self.register_buffer("rank", orders.inverse(order))
        symbols, degrees = torch.arange(1, self.dims + 1), [_spread(width, self.dims) for width in hidden]
        # How many hidden units have a degree below t, for t = 0 … D: where those of degree t begin and end.
        self._below = [torch.searchsorted(d, torch.arange(self.dims + 1)).tolist() for d in degrees]
        chain, outputs = [symbols, *degrees], symbols.repeat_interleave(self.monotone.numbers)
        self.hidden = nn.ModuleList(
            MaskedLinear(mask(a, b, strict=False), generator=generator) for a, b in pairwise(chain)
        )
        self.output, self.direct = (
            MaskedLinear(mask(seen, outputs, strict=True), bias=bias, generator=generator)
            for seen, bias in ((chain[-1], True), (symbols, False))
        )
        for layer in (self.output, self.direct):
            nn.init.zeros_(layer.weight)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Event) -> tuple[Event, LogDet]:
        """z in one pass."""
        numbers = h = x.flatten(1)[:, self.order]
        for layer in self.hidden:
            h = self.dropout(F.relu(layer(h)))
        theta = (self.output(h) + self.direct(numbers)).unflatten(1, (self.dims, -1))
        z, log_slope = self.monotone(numbers, theta)
        return z[:, self.rank].reshape(x.shape), log_slope.sum(1)

    def inverse(self, z: Event) -> tuple[Event, LogDet]:
        """x_{o(0)}, x_{o(1)}, …: before number t only the hidden units of degree t are new.

        What is known grows by concatenation, so that gradients pass through; dropout has no place here.
        """
        numbers, log_det = z.flatten(1)[:, self.order], z.new_zeros(len(z))
        known = [z.new_zeros(len(z), 0) for _ in range(len(self.hidden) + 1)]
        for t in range(self.dims):
            self._advance(known, t)
            units = slice(t * self.monotone.numbers, (t + 1) * self.monotone.numbers)
            theta = self.output.rows(known[-1], units, known[-1].shape[1])
            theta = theta + self.direct.rows(known[0], units, t)
            x, log_slope = self.monotone.inverse(numbers[:, t], theta)
            known[0] = torch.cat([known[0], x[:, None]], 1)
            log_det = log_det - log_slope
        return known[0][:, self.rank].reshape(z.shape), log_det

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same, if it is the one that the layer was built for."""
        if tuple(shape) != self.shape:
            raise UsageError(f"events have shape {tuple(shape)}, expected {self.shape}.")
        return shape

    def _advance(self, known: list[Tensor], t: int) -> None:
        """Append the hidden units of degree t, layer by layer."""
        for i, (layer, below) in enumerate(zip(self.hidden, self._below, strict=True)):
            seen = known[i]
            new = F.relu(layer.rows(seen, slice(below[t], below[t + 1]), seen.shape[1]))
            known[i + 1] = torch.cat([known[i + 1], new], 1)


class MAF(Flow):
    """Masked autoregressive layers in alternating orders: each layer's z is the next layer's x.

    Arguments:
        shape, levels, prior: as for every flow; with levels, x/L passes through a logit first.
        layers: how many; the second, fourth, … run through the order backwards.
        order: int64 [D] of the first layer; raster when not given.
        before: what turns x into real numbers, in place of the logit.
        hidden, monotone, dropout, generator: of each layer.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        layers: int = 5,
        order: Int64[Tensor, " dims"] | None = None,
        *,
        before: Transform | None = None,
        prior: torch.distributions.Distribution | None = None,
        **options,
    ):
        if layers < 1:
            raise UsageError(f"layers is {layers}, expected at least 1.")
        order = natural_order(shape) if order is None else order
        if before is None:
            before = Compose([]) if levels is None else to_reals(levels)
        passes = (
            MaskedAutoregressive(shape, order.flip(0) if layer % 2 else order, **options)
            for layer in range(layers)
        )
        super().__init__(Compose([before, *passes]), shape, levels, prior)


def natural_order(shape: tuple[int, ...]) -> Int64[Tensor, " dims"]:
    """Raster for images (C, H, W), and 0 … D − 1 for anything else."""
    return orders.raster(tuple(shape)) if len(shape) == 3 else torch.arange(math.prod(shape))


def _spread(width: int, dims: int) -> Int64[Tensor, " width"]:
    """Degrees 1 … D − 1, sorted and as even as the width allows."""
    if width < 1:
        raise UsageError(f"a hidden layer has width {width}, expected at least 1; () means no hidden layer.")
    return 1 + torch.arange(width) * max(dims - 1, 1) // width


def _permutation(order: Tensor, dims: int) -> Tensor:
    if order.shape != (dims,) or not torch.equal(order.sort().values.cpu(), torch.arange(dims)):
        raise UsageError(
            f"order (shape {list(order.shape)}) is not a permutation of 0 … {dims - 1}: "
            "every element of the event must appear in it exactly once."
        )
    return order
