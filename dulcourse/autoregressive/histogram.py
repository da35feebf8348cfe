"""The histogram: one free number a level, the maximum-likelihood model of a single symbol."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.errors import UsageError
from dulcourse.likelihood import check_symbols

__all__ = ["Histogram"]


class Histogram(AutoregressiveModel):
    r"""p(x) = Π_i softmax(θ_i)[x_i]: independent symbols, θ_i ∈ R^L (or one θ for all positions).

    KL(p̂‖p_θ) = E_p̂[−log p_θ(x)] − H(p̂), so its minimum, maximum likelihood, is the log of the frequencies.

    Arguments:
        shape, levels: as for every autoregressive model. The order is irrelevant: nothing depends on
            anything.
        shared: one histogram for all positions (L − 1 free numbers) instead of one for each (D·(L − 1)).
    """

    def __init__(self, shape: tuple[int, int, int], levels: int, shared: bool = False):
        super().__init__(shape, levels)
        self.theta = nn.Parameter(torch.zeros(levels, *((1, 1, 1) if shared else shape)))

    @classmethod
    def fit(
        cls, x: Int64[Tensor, "n C H W"], levels: int, *, smoothing: int | float = 1.0, shared: bool = False
    ) -> "Histogram":
        r"""θ = log((counts + α) / (n + α·L)), with α = `smoothing`.

        α = 0 is maximum likelihood, which gives an unseen level the code length ∞; α = 1 is Laplace's rule.
        """
        if smoothing < 0 or len(x) == 0:
            raise UsageError(
                f"a histogram needs at least 1 image and smoothing ≥ 0, got {len(x)} and {smoothing}."
            )
        check_symbols(x, levels)
        model = cls(tuple(x.shape[1:]), levels, shared)
        counts = F.one_hot(x, levels).sum(0).movedim(-1, 0)
        if shared:
            counts = counts.sum((1, 2, 3), keepdim=True)
        frequencies = (counts + smoothing) / (counts.sum(0) + smoothing * levels)
        model.theta.data = frequencies.log().to(model.theta)
        return model

    def logits(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch levels C H W"]:
        """θ, whatever x is."""
        self.refuse_labels(y)
        return self.theta.expand(len(x), self.levels, *self.shape)
