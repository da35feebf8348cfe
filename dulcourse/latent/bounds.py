"""Lower bounds of log p(x): the variational bound, derived twice, and the importance-weighted one."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dulcourse.errors import UsageError
from dulcourse.latent.base import Amortised, Joint, LatentModel, log_likelihoods, log_weights
from dulcourse.latent.distributions import Distribution
from dulcourse.latent.estimators import log_mean_exp
from dulcourse.training import Loss

__all__ = ["elbo_by_jensen", "elbo_by_kl", "iwae", "iwae_surrogate", "negative_beta_elbo", "negative_iwae"]


def elbo_by_jensen(model: Joint, x: Tensor, q: Distribution, z: Tensor) -> Float[Tensor, " batch"]:
    r"""(1/K) Σ_k [log p(z_k) + log p(x | z_k) − log q(z_k | x)] in nats, z [K, batch, *event] drawn from q.

    First derivation: log p(x) = log E_q[p(x, z)/q(z | x)] ≥ E_q[log p(x, z)/q(z | x)], as log is concave.
    """
    return log_weights(model, x, q, z).mean(0)


def elbo_by_kl(model: Joint, x: Tensor, q: Distribution, z: Tensor) -> Float[Tensor, " batch"]:
    r"""(1/K) Σ_k log p(x | z_k) − KL(q(z | x) ‖ p(z)) in nats, the KL in closed form.

    Second derivation: log p(x) − KL(q(z | x) ‖ p(z | x)) with Bayes' rule put in for p(z | x). The same
    expectation as `elbo_by_jensen`, another variance: that of log p(z) − log q(z | x) is gone.
    """
    return log_likelihoods(model, x, z).mean(0) - q.kl(model.prior)


def iwae(model: Amortised, x: Tensor, noise: Float[Tensor, "k batch *event"]) -> Float[Tensor, " batch"]:
    r"""log (1/K) Σ_k w_k in nats, w_k = p(x, z_k)/q(z_k | x) (Burda et al. 2016, §3).

    In expectation over the noise: the ELBO at K = 1, never falling with K, at most log p(x). There is no KL
    term beside it: log q(z_k | x) is inside each weight. To be maximised over the decoder and the encoder.

    Arguments:
        noise: what makes z_1 … z_K out of q(z | x): `model.proposal(x).noise(generator, K)`.
    """
    q = model.proposal(x)
    return log_mean_exp(log_weights(model, x, q, q.from_noise(noise)))


def iwae_surrogate(log_w: Float[Tensor, "k batch"]) -> Float[Tensor, " batch"]:
    r"""Σ_k w̃_k log w_k with w̃ = softmax(log w) held constant: its gradient is that of log (1/K) Σ_k w_k.

    The good draws count, the bad ones hardly (Burda et al. 2016, §3). With softmax(−log w), as when a
    *loss* is put into the softmax, the worst draws would be followed instead.
    """
    return (torch.softmax(log_w.detach(), 0) * log_w).sum(0)


def negative_iwae(k: int) -> Loss:
    """−log (1/K) Σ_k w_k in nats with fresh noise: a loss for `training.fit` and `training.evaluate`."""
    if k < 1:
        raise UsageError(f"k is {k}, expected at least 1 draw of z for each image.")

    def loss(
        model: LatentModel, x: Int64[Tensor, "batch C H W"], y: Tensor | None, generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        return -iwae(model, x, model.prior.noise(generator, k, len(x)))

    loss.__qualname__ = f"negative_iwae({k})"  # checkpoints compare losses by name
    return loss


def negative_beta_elbo(beta: float) -> Loss:
    """−log p(x | z) + β KL(q(z | x) ‖ p(z)) in nats: the β-VAE's loss; a code length at β = 1 only."""

    def loss(
        model: LatentModel, x: Int64[Tensor, "batch C H W"], y: Tensor | None, generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        return -model.elbo(x, model.noise(len(x), generator), beta)

    loss.__qualname__ = f"negative_beta_elbo({beta})"
    return loss
