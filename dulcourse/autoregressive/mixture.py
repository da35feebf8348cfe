"""Discretised mixtures of logistics: few parameters for many ordered levels."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.errors import UsageError
from dulcourse.likelihood import check_symbols

__all__ = ["DiscretisedMixture", "discretised_logistic_log_prob", "mixture_log_prob"]


def discretised_logistic_log_prob(
    x: Int64[Tensor, "*#shape"],
    means: Float[Tensor, "*#shape"],
    log_scales: Float[Tensor, "*#shape"],
    levels: int,
) -> Float[Tensor, "*shape"]:
    r"""log P(x) = log[σ(a) − σ(b)], a = (x + ½ − μ)/s, b = (x − ½ − μ)/s; a = ∞ at L − 1, b = −∞ at 0.

    A logistic with mean μ and scale s, rounded to the nearest level; the two outermost bins take all that
    lies beyond them (open tails), so the levels 0 … L − 1 share the whole mass at every scale.

    The difference of two sigmoids cancels when s is small or large. It never needs to be formed:

        σ(a) − σ(b) = σ(a)·σ(−b)·(1 − e^{−(a−b)}),    a − b = 1/s,

    so log P is a sum of three terms, each of them accurate and with finite gradients.

    Arguments (any shapes that broadcast):
        x: levels 0 … L − 1, as integers.
        means, log_scales: μ and log s, in units of one level: half a bin is ½ (on data rescaled to [−1, 1]
            it would be 1/(L − 1)).
        levels: L, which says where the upper tail opens.
    """
    if levels < 2:
        raise UsageError(f"levels is {levels}, expected at least 2: one level has probability one.")
    check_symbols(x, levels)
    inverse_scale = torch.exp(-log_scales)
    below_upper = F.logsigmoid((x + 0.5 - means) * inverse_scale)  # log σ(a)
    above_lower = F.logsigmoid((means - x + 0.5) * inverse_scale)  # log σ(−b)
    both = below_upper + above_lower + torch.log(-torch.expm1(-inverse_scale))
    return torch.where(x == 0, below_upper, torch.where(x == levels - 1, above_lower, both))


def mixture_log_prob(
    x: Int64[Tensor, "*shape"],
    weights_logits: Float[Tensor, "*#shape components"],
    means: Float[Tensor, "*#shape components"],
    log_scales: Float[Tensor, "*#shape components"],
    levels: int,
) -> Float[Tensor, "*shape"]:
    r"""log P(x) = log Σ_k π_k P_k(x), with π = softmax(weights_logits) and P_k a discretised logistic.

    Arguments:
        x: levels 0 … L − 1, one symbol an entry.
        weights_logits, means, log_scales: parameters of the components, along the last axis.
    """
    log_p = discretised_logistic_log_prob(x.unsqueeze(-1), means, log_scales, levels)
    return torch.logsumexp(torch.log_softmax(weights_logits, -1) + log_p, -1)


class DiscretisedMixture(AutoregressiveModel):
    r"""p(x) = Σ_k π_k P(x; μ_k, s_k) for a single symbol x (D = 1), P the discretised logistic.

    Arguments:
        levels: L.
        components: K logistics, at first equally heavy and spread evenly over the levels.
    """

    def __init__(self, levels: int, components: int):
        super().__init__((1, 1, 1), levels)
        if components < 1:
            raise UsageError(f"components is {components}, expected at least 1 logistic in the mixture.")
        width = levels / components
        self.weights_logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter((torch.arange(components) + 0.5) * width - 0.5)
        self.log_scales = nn.Parameter(torch.full((components,), math.log(width / 2)))

    def logits(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch levels C H W"]:
        """log P of every level: already normalised."""
        self.refuse_labels(y)
        log_p = self._log_prob(torch.arange(self.levels, device=x.device))
        return log_p.view(1, -1, 1, 1, 1).expand(len(x), -1, -1, -1, -1)

    def log_prob(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """log P(x) in nats, from the one level that is asked for."""
        self.check(x)
        self.refuse_labels(y)
        return self._log_prob(x.flatten())

    def _log_prob(self, x: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return mixture_log_prob(x, self.weights_logits, self.means, self.log_scales, self.levels)
