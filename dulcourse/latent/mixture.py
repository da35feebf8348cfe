"""A mixture model of images: so few values of z that log p(x) is a sum, and EM a few lines."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse import images
from dulcourse.autoregressive.base import inverse_cdf
from dulcourse.errors import UsageError
from dulcourse.latent.distributions import Categorical

__all__ = ["Mixture", "em_step"]


class Mixture(nn.Module):
    r"""p(x) = Σ_z π_z Π_i p(x_i | z), z = 0 … K − 1: each component draws the symbols independently.

    `Enumerable`, and `Amortised` with the exact posterior as its proposal.

    Arguments:
        shape, levels: (C, H, W) of an image, and L; every symbol is one of 0 … L − 1.
        components: K.
        generator: for the first weights, which must differ between components; torch's own when not given.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        components: int,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.shape, self.levels = images.shape_of(shape), images.levels_of(levels)
        if components < 1:
            raise UsageError(f"components is {components}, expected at least 1 value of z.")
        self.components = components
        self.weights_logits = nn.Parameter(torch.zeros(components))
        self.table = nn.Parameter(0.1 * torch.randn(components, levels, *self.shape, generator=generator))

    @property
    def prior(self) -> Categorical:
        """p(z = k) = π_k = softmax(weights_logits)_k."""
        return Categorical(self.weights_logits)

    @property
    def states(self) -> Int64[Tensor, " components"]:
        """0 … K − 1."""
        return torch.arange(self.components, device=self.table.device)

    def log_likelihood(
        self, x: Int64[Tensor, "batch C H W"], z: Int64[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """log p(x | z) in nats, x[n] given z[n]."""
        return self._log_likelihoods(x).gather(1, z.unsqueeze(1)).squeeze(1)

    def posterior(self, x: Int64[Tensor, "batch C H W"]) -> Categorical:
        """p(z | x), by Bayes' rule: its logits are log p(x, z), so their log-sum-exp is log p(x)."""
        return Categorical(self.prior.log_probs + self._log_likelihoods(x))

    def proposal(self, x: Int64[Tensor, "batch C H W"]) -> Categorical:
        """The posterior itself."""
        return self.posterior(x)

    def log_prob(self, x: Int64[Tensor, "batch C H W"]) -> Float[Tensor, " batch"]:
        """log p(x) = log Σ_z p(z) p(x | z) in nats, exactly."""
        return torch.logsumexp(self.posterior(x).logits, 1)

    def sample(self, n: int, *, generator: torch.Generator) -> Int64[Tensor, "n C H W"]:
        """n images: z ~ p(z), then each symbol of x ~ p(x_i | z)."""
        with torch.no_grad():
            z = self.prior.from_noise(self.prior.noise(generator, n))
            logits = self.table[z].movedim(1, -1)
            size = logits[..., 0].numel()
            u = torch.rand(size, generator=generator, device=generator.device, dtype=torch.float64)
            return inverse_cdf(logits.reshape(-1, self.levels), u.to(logits.device)).reshape(n, *self.shape)

    def _log_likelihoods(self, x: Int64[Tensor, "batch C H W"]) -> Float[Tensor, "batch components"]:
        """log p(x | z) for every z: Σ_i of the table's entries at the levels of x."""
        images.check(x, self.shape, self.levels, type(self).__name__)
        log_p = torch.log_softmax(self.table, 1).flatten(1)  # [K, L·D]
        return _one_hot(x, self.levels, log_p.dtype) @ log_p.T


def em_step(model: Mixture, x: Int64[Tensor, "batch C H W"], smoothing: float = 0.0) -> float:
    r"""One step of expectation–maximisation on all of x, in place; the mean of log p(x) before it, in nats.

    E: r_nk = p(z = k | x_n). M: π_k ∝ Σ_n r_nk, and p(x_i = l | k) ∝ Σ_n r_nk [x_ni = l] + smoothing.
    Without smoothing the likelihood of x never falls. With q = the posterior the bound touches log p(x), and
    the M step maximises that bound: the ELBO with the best q there is (Neal & Hinton 1998).
    """
    if smoothing < 0:
        raise UsageError(f"smoothing is {smoothing}, expected 0 or more counts a level.")
    with torch.no_grad():
        posterior = model.posterior(x)
        r = posterior.log_probs.exp()
        counts = r.T @ _one_hot(x, model.levels, r.dtype) + smoothing  # [K, L·D]
        model.weights_logits.copy_(_finite_log(r.sum(0)))
        model.table.copy_(_finite_log(counts).view_as(model.table))
        return float(torch.logsumexp(posterior.logits, 1).mean())


def _finite_log(counts: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log, but −100 in place of −∞, with which a softmax of nothing but zeros would be NaN."""
    return counts.log().clamp(min=-100)


def _one_hot(x: Int64[Tensor, "batch C H W"], levels: int, dtype: torch.dtype) -> Tensor:
    """[batch, levels·D], 1 where x_i is the level."""
    level = torch.arange(levels, device=x.device, dtype=torch.int32).view(1, -1, 1)
    return (x.flatten(1).to(torch.int32).unsqueeze(1) == level).to(dtype).flatten(1)
