"""What every autoregressive model shares: give it `logits`, and it has `log_prob` and `sample`."""

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from dulcourse import images, likelihood
from dulcourse.autoregressive import orders
from dulcourse.errors import UsageError
from dulcourse.modes import evaluating

__all__ = ["AutoregressiveModel", "inverse_cdf"]


class AutoregressiveModel(nn.Module):
    r"""log p(x) = Σ_t log p(x_{o(t)} | x_{o(0)}, …, x_{o(t−1)}), with o = `order`.

    A subclass supplies `logits`; everything else is derived. It may override `log_prob` where the logits
    need not be materialised, and `from_noise` where sampling can cost less than D forward passes; both must
    agree with those here.

    Arguments:
        shape: (C, H, W) of one image; D = C·H·W symbols. A single number has shape (1, 1, 1).
        levels: L; every symbol is one of 0 … L − 1.
        order: int64 [D]; order[t] indexes x.flatten(1). Raster when not given.
        classes: number of classes of the labels y that a class-conditional model is given everywhere; None
            for a model of x alone, which takes no labels.

    Buffers: `order` and its inverse `rank`, part of the state, fixed before any data is seen.
    """

    order: Tensor
    rank: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        order: Int64[Tensor, " dims"] | None = None,
        *,
        classes: int | None = None,
    ):
        super().__init__()
        self.classes = images.classes_of(classes)
        self.shape, self.levels, self.dims = (
            images.shape_of(shape),
            images.levels_of(levels),
            math.prod(shape),
        )
        order = orders.raster(self.shape) if order is None else order.clone()
        self.register_buffer("order", _permutation(order, self.dims))
        self.register_buffer("rank", orders.inverse(order))

    def logits(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch levels C H W"]:
        """Unnormalised log p(x_i = level | the symbols before i in the order), for all i at once.

        `cross_entropy(logits, x)` is the loss. The logits at i must not depend on x at i or at any later
        position.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define logits(x, y).")

    def forward(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch levels C H W"]:
        """The same as `logits`."""
        return self.logits(x, y)

    def log_prob(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """log p(x | y) in nats, one number an image."""
        self.check(x)
        return likelihood.log_prob(self.logits(x, y), x)

    def sample(
        self, n: int, y: Int64[Tensor, " batch"] | None = None, *, generator: torch.Generator
    ) -> Int64[Tensor, "batch C H W"]:
        """n images x ~ p(x | y): `from_noise` of `noise`, with dropout off and without gradients."""
        with torch.no_grad(), evaluating(self):
            return self.from_noise(self.noise(n, generator), y)

    def noise(self, n: int, generator: torch.Generator) -> Float64[Tensor, "batch dims"]:
        """u ~ U[0, 1) in float64, one a symbol: noise[:, t] decides the symbol generated t-th.

        The noise is the whole randomness of a sample, so two samplers of one model can be compared draw by
        draw.
        """
        u = torch.rand(n, self.dims, generator=generator, device=generator.device, dtype=torch.float64)
        return u.to(self.order.device)

    def from_noise(
        self, noise: Float64[Tensor, "batch dims"], y: Int64[Tensor, " batch"] | None = None
    ) -> Int64[Tensor, "batch C H W"]:
        """x_{o(t)} = inverse CDF of p(· | x_{o(<t)}) at noise[:, t], by the naive loop: D forward passes."""
        x = torch.zeros(len(noise), self.dims, dtype=torch.int64, device=noise.device)
        for t, i in enumerate(self.order.tolist()):
            logits = self.logits(x.unflatten(1, self.shape), y)
            x[:, i] = inverse_cdf(logits.flatten(2)[:, :, i], noise[:, t])
        return x.unflatten(1, self.shape)

    def check(self, x: Tensor) -> None:
        """Refuse images that are not int64 `[batch, C, H, W]` with values in 0 … levels − 1."""
        images.check(x, self.shape, self.levels, type(self).__name__)

    def check_labels(self, y: Tensor | None, n: int) -> None:
        """Refuse labels that are not int64 `[n]` in 0 … classes − 1; any at all where there are no classes.

        For the `logits` of every model that may be class-conditional.
        """
        if self.classes is None:
            self.refuse_labels(y)
        else:
            images.check_labels(y, n, self.classes, type(self).__name__)

    def refuse_labels(self, y: Tensor | None) -> None:
        """For the `logits` of models that have no use for labels: ignoring them would hide a mistake."""
        if y is not None:
            raise UsageError(f"{type(self).__name__} is not class-conditional: call it without labels y.")


def inverse_cdf(
    logits: Float[Tensor, "batch levels"], u: Float64[Tensor, " batch"]
) -> Int64[Tensor, " batch"]:
    r"""min {k : Σ_{j≤k} p_j > u·Σ_j p_j}, with p = softmax(logits) in float64.

    The total is one up to rounding; multiplying u by it makes sure that a level of probability zero is
    never drawn.
    """
    cdf = torch.softmax(logits.double(), dim=1).cumsum(1)
    return torch.searchsorted(cdf, (u * cdf[:, -1]).unsqueeze(1), right=True).squeeze(1)


def _permutation(order: Tensor, dims: int) -> Tensor:
    if order.shape != (dims,) or not torch.equal(order.sort().values.cpu(), torch.arange(dims)):
        raise UsageError(
            f"order (shape {list(order.shape)}) is not a permutation of 0 … {dims - 1}: "
            "every position of the image must appear in it exactly once."
        )
    return order
