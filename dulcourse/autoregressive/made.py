"""MADE: a fully connected network whose masks make output i see exactly the symbols before i."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from dulcourse.autoregressive.base import AutoregressiveModel, inverse_cdf
from dulcourse.errors import UsageError

__all__ = ["MADE", "MaskedLinear", "mask"]


def mask(
    in_degrees: Int64[Tensor, " inputs"], out_degrees: Int64[Tensor, " outputs"], strict: bool
) -> Bool[Tensor, "outputs inputs"]:
    """M[j, i] = d(j) ≥ d(i), or d(j) > d(i) where strict: may unit j see unit i?

    The symbol generated t-th has degree t + 1, and so has its output; a hidden unit of degree m may know
    the symbols of degrees up to m. One strict layer on every path from an input to an output keeps x_i out
    of its own prediction.
    """
    compare = torch.gt if strict else torch.ge
    return compare(out_degrees[:, None], in_degrees[None, :])


class MaskedLinear(nn.Module):
    """z = (M ⊙ W) h + b. The mask multiplies the weights anew in each pass and never changes them.

    Arguments:
        mask: M, bool [outputs, inputs].
        bias: whether there is a b; it starts at zero.
        generator: for the first W, uniform in ±1/√(inputs a unit may see); torch's own when not given.
    """

    mask: Tensor

    def __init__(
        self,
        mask: Bool[Tensor, "outputs inputs"],
        *,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(mask.shape))
        self.bias = nn.Parameter(torch.zeros(len(mask))) if bias else None
        self.register_buffer("mask", mask.to(self.weight), persistent=False)  # multiplies faster than bool
        bound = mask.sum(1, keepdim=True).clamp(min=1).rsqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1, generator=generator).mul_(bound)

    def forward(self, h: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """(M ⊙ W) h + b."""
        return F.linear(h, self.weight * self.mask, self.bias)

    def rows(
        self, h: Float[Tensor, "batch inputs"], units: slice, inputs: int
    ) -> Float[Tensor, "batch units"]:
        """Only these units, which see exactly the first `inputs` inputs: no mask needed."""
        bias = None if self.bias is None else self.bias[units]
        return F.linear(h[:, :inputs], self.weight[units, :inputs], bias)


class MADE(AutoregressiveModel):
    r"""h₁ = relu(W₁x + b₁), h_{l+1} = relu(W_{l+1}h_l + b_{l+1}), z = Vh + Ax; W, V, A masked.

    The logits of symbol t at level k are c_tk + z_tk, or with `cosines` = K expanded over the ordered levels,

        logits_tk = c_tk + Σ_{f=1…K} z_tf cos(πf(k + ½)/L),

    so that what the past says about neighbouring levels is similar (K = L − 1 can express every softmax).

    Everything inside happens in generation order: the symbols are permuted by `order` on the way in and the
    outputs by `rank` on the way out, so the masks do not depend on the order. Degrees: symbol and output t
    have t + 1; hidden units have 1 … D − 1, sorted and spread evenly. W are non-strict, V and the direct
    connections A are strict; because of A each output sees every earlier symbol even where hidden layers
    are narrower than D.

    Each conditional is a softmax, hence proper, and so is their product: Σ_x p(x) = 1 by construction.

    Arguments:
        shape, levels, order: as for every autoregressive model.
        hidden: widths of the hidden layers, as many as you like.
        cosines: K, for symbols whose levels are ordered and many; a free logit for each level when not given.
        dropout: probability with which a hidden unit is dropped in training.
        generator: for the first weights; torch's own when not given.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        order: Int64[Tensor, " dims"] | None = None,
        hidden: Sequence[int] = (512,),
        *,
        cosines: int | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(shape, levels, order)
        _check_sizes(hidden, cosines)
        degrees = [self._spread(width) for width in hidden]
        # How many hidden units have a degree below t, for t = 0 … D: where those of degree t begin and end.
        self._below = [torch.searchsorted(d, torch.arange(self.dims + 1)).tolist() for d in degrees]
        self.outputs = cosines or levels  # numbers z a symbol
        self.register_buffer("basis", cosines and _basis(levels, cosines), persistent=False)
        symbols = torch.arange(1, self.dims + 1)
        outputs = symbols.repeat_interleave(self.outputs)
        chain = [symbols, *degrees]
        self.hidden = nn.ModuleList(
            MaskedLinear(mask(a, b, strict=False), generator=generator) for a, b in pairwise(chain)
        )
        self.output, self.direct = (
            MaskedLinear(mask(seen, outputs, strict=True), bias=False, generator=generator)
            for seen in (chain[-1], symbols)
        )
        self.bias = nn.Parameter(torch.zeros(self.dims, levels))
        self.dropout = nn.Dropout(dropout)

    def logits(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch levels C H W"]:
        """All D conditionals in one pass."""
        self.refuse_labels(y)
        symbols = self._scale(x.flatten(1)[:, self.order])
        h = symbols
        for layer in self.hidden:
            h = self.dropout(F.relu(layer(h)))
        z = (self.output(h) + self.direct(symbols)).unflatten(1, (self.dims, -1))
        logits = (self._over_levels(z) + self.bias)[:, self.rank]
        return logits.movedim(2, 1).unflatten(2, self.shape)

    def from_noise(
        self, noise: Float64[Tensor, "batch dims"], y: Int64[Tensor, " batch"] | None = None
    ) -> Int64[Tensor, "batch C H W"]:
        """The naive loop's samples at the cost of one pass: each unit is computed once.

        Before symbol t is drawn only the hidden units of degree t are new: those of lower degree are kept
        from earlier, those of higher degree would have to see what is not drawn yet.
        """
        self.refuse_labels(y)
        n = len(noise)
        x = torch.zeros(n, self.dims, dtype=torch.int64, device=noise.device)
        widths = (self.dims, *(below[-1] for below in self._below))
        layers = [self.bias.new_zeros(n, width) for width in widths]
        for t in range(self.dims):
            known, units = self._advance(layers, t), slice(t * self.outputs, (t + 1) * self.outputs)
            z = self.output.rows(layers[-1], units, known) + self.direct.rows(layers[0], units, t)
            x[:, t] = inverse_cdf(self._over_levels(z) + self.bias[t], noise[:, t])
            layers[0][:, t] = self._scale(x[:, t])
        return x[:, self.rank].unflatten(1, self.shape)

    def _advance(self, layers: list[Tensor], t: int) -> int:
        """Fill in the hidden units of degree t, layer by layer; how many of the last layer are known now."""
        known = t
        for layer, below, (inputs, outputs) in zip(self.hidden, self._below, pairwise(layers), strict=True):
            first, last = below[t], below[t + 1]
            outputs[:, first:last] = F.relu(layer.rows(inputs, slice(first, last), known))
            known = last
        return known

    def _over_levels(self, z: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch levels"]:
        """Σ_f z_f cos(πf(k + ½)/L) for each level k, or z itself."""
        return z if self.basis is None else z @ self.basis

    def _scale(self, symbols: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Levels 0 … L − 1 onto [−1, 1], in the type of the weights."""
        return symbols.to(self.bias) * (2 / (self.levels - 1)) - 1

    def _spread(self, width: int) -> Int64[Tensor, " width"]:
        """Degrees 1 … D − 1, sorted and as even as the width allows."""
        return 1 + torch.arange(width) * max(self.dims - 1, 1) // width


def _basis(levels: int, cosines: int) -> Float[Tensor, "features levels"]:
    """cos(πf(k + ½)/L) at [f − 1, k]."""
    f, k = torch.arange(1, cosines + 1), torch.arange(levels)
    return torch.cos(math.pi / levels * f[:, None] * (k + 0.5))


def _check_sizes(hidden: Sequence[int], cosines: int | None) -> None:
    if not all(width >= 1 for width in hidden):
        raise UsageError(
            f"hidden is {tuple(hidden)}, expected widths of at least 1; () means no hidden layer."
        )
    if cosines is not None and cosines < 1:
        raise UsageError(
            f"cosines is {cosines}, expected at least 1, or None for a free logit for each level."
        )
