"""The one definition of the units: nats, bits, bits per dimension."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from dulcourse.errors import UsageError

__all__ = ["bits_per_dim", "check_symbols", "log_prob", "nats_to_bits"]


def nats_to_bits(nats: Float[Tensor, "*shape"] | float) -> Float[Tensor, "*shape"] | float:
    r"""bits = nats / ln 2."""
    return nats / math.log(2)


def bits_per_dim(log_prob: Float[Tensor, "*shape"] | float, dims: int) -> Float[Tensor, "*shape"] | float:
    r"""−log₂ p(x) / D, from log p(x) in nats.

    Arguments:
        log_prob: log p(x) in nats of a whole image, as every model's `log_prob` returns it.
        dims: D, the number of symbols in one image (`dataset.dims`).

    The sign and the logarithm are the two places to go wrong: a likelihood in nats must be divided by ln 2,
    and a code length is minus a log-probability. A uniform model over L levels costs exactly log₂ L bits
    per dimension.
    """
    if dims < 1:
        raise UsageError(
            f"bits per dimension needs dims ≥ 1, got {dims}: pass the number of symbols of one image."
        )
    return nats_to_bits(-log_prob) / dims


def log_prob(
    logits: Float[Tensor, "batch levels *shape"], x: Int64[Tensor, "batch *shape"]
) -> Float[Tensor, " batch"]:
    r"""log p(x) = Σ_i log softmax(logits_i)[x_i], in nats, summed over everything but the batch.

    Arguments:
        logits: unnormalised log-probabilities, the levels on the second axis (as `cross_entropy` wants them).
        x: the symbols, in 0 … levels − 1.
    """
    check_symbols(x, logits.shape[1])
    nats = F.cross_entropy(logits, x, reduction="none")
    return -nats.unsqueeze(-1).flatten(1).sum(1)


def check_symbols(x: Int64[Tensor, "..."], levels: int) -> None:
    """Refuse symbols outside 0 … levels − 1 (`cross_entropy` would silently skip a −100)."""
    if x.numel() == 0:
        return
    low, high = (int(v) for v in torch.aminmax(x))
    if low < 0 or high >= levels:
        raise UsageError(
            f"x holds values from {low} to {high}, expected 0 to {levels - 1} for levels={levels}: "
            "pass the integer levels of the data set, unscaled."
        )
