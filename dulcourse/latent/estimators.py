"""log p(x) by enumeration, by sampling the prior, and by importance sampling; all in log space."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dulcourse.errors import UsageError
from dulcourse.latent.base import Enumerable, Joint, log_joint, log_likelihoods, log_weights
from dulcourse.latent.distributions import Distribution

__all__ = ["Estimate", "exact", "importance_sampling", "log_mean_exp", "prior_sampling", "summarise"]


@dataclass(frozen=True)
class Estimate:
    """An estimate of log p(x) for each image, and what its K weights say about its quality.

    Attributes:
        log_prob: log (1/K) Σ_k w_k in nats. The mean inside the logarithm is unbiased, so this is, in
            expectation, at most log p(x), and rises with K.
        standard_error: of log_prob in nats, to first order: sd(w) / (mean(w) √K); NaN for K = 1. It knows
            only the weights that were seen: where no draw has found the mode it is small and wrong.
        effective: (Σ w)² / Σ w², from 1 (a single draw does all the work) to K (all weights are equal).
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    effective: Float[Tensor, " batch"]


def exact(model: Enumerable, x: Tensor) -> Float[Tensor, " batch"]:
    r"""log p(x) = log Σ_z p(z) p(x | z) in nats, a sum over all states of z."""
    states = model.states
    z = states.unsqueeze(1).expand(len(states), len(x), *states.shape[1:])
    return torch.logsumexp(log_joint(model, x, z), 0)


def prior_sampling(model: Joint, x: Tensor, k: int, *, generator: torch.Generator) -> Estimate:
    r"""log p(x) ≈ log (1/K) Σ_k p(x | z_k), z_k ~ p(z) anew for each image.

    Its variance grows as the modes of p(x | z) become many and narrow: most draws explain another image.
    """
    _check_draws(k)
    z = model.prior.from_noise(model.prior.noise(generator, k, len(x)))
    return summarise(log_likelihoods(model, x, z))


def importance_sampling(
    model: Joint, x: Tensor, proposal: Distribution, k: int, *, generator: torch.Generator
) -> Estimate:
    r"""log p(x) ≈ log (1/K) Σ_k p(z_k) p(x | z_k) / q(z_k | x), z_k ~ q(z | x).

    With q(z | x) = p(z | x) every weight is p(x), and one draw is enough.

    Arguments:
        proposal: q, a batch of len(x) distributions, such as `model.proposal(x)`; positive wherever
            p(z) p(x | z) is.
    """
    _check_draws(k)
    z = proposal.from_noise(proposal.noise(generator, k))
    return summarise(log_weights(model, x, proposal, z))


def log_mean_exp(log_w: Float[Tensor, "k *batch"]) -> Float[Tensor, "*batch"]:
    r"""log (1/K) Σ_k exp(log w_k) over the first axis, without leaving log space.

    Weights of images are e^−1000 and less: as numbers they are zero, as logarithms nothing special.
    """
    return torch.logsumexp(log_w, 0) - math.log(len(log_w))


def summarise(log_w: Float[Tensor, "k batch"]) -> Estimate:
    """The estimate that K log-weights make, with its standard error and effective sample size."""
    k, log_prob = len(log_w), log_mean_exp(log_w)
    relative = torch.exp(log_w - log_prob)  # w_k / mean(w)
    variance = (relative - 1).square().sum(0) / (k - 1) if k > 1 else torch.full_like(log_prob, math.nan)
    return Estimate(log_prob, (variance / k).sqrt(), k / relative.square().mean(0))


def _check_draws(k: int) -> None:
    if k < 1:
        raise UsageError(f"k is {k}, expected at least 1 draw of z for each image.")
