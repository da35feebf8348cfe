"""What every latent-variable model shares: give it `encode` and `decode`, and it has bounds and samples.

Estimators, bounds and gradients are written once, for whatever keeps to one of three protocols:

| protocol | asks for | has it |
|---|---|---|
| `Joint` | `prior`, `log_likelihood(x, z)` | every model here: prior and importance sampling |
| `Enumerable` | a `Joint` and all its `states` of z | `mixture.Mixture`: the exact likelihood |
| `Amortised` | a `Joint` and `proposal(x)`, q(z | x) | every `LatentModel`: bounds |
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse import images, likelihood
from dulcourse.autoregressive.base import inverse_cdf
from dulcourse.errors import UsageError
from dulcourse.latent.distributions import DiagonalGaussian, Distribution, gaussian_kl, gaussian_log_prob
from dulcourse.modes import evaluating

__all__ = [
    "Amortised",
    "Enumerable",
    "Joint",
    "LatentModel",
    "gaussian_kl",
    "gaussian_log_prob",
    "log_joint",
    "log_likelihoods",
    "log_weights",
    "negative_elbo",
]


@runtime_checkable
class Joint(Protocol):
    """p(x, z) = p(z) p(x | z), both factors at hand."""

    @property
    def prior(self) -> Distribution:
        """p(z), one distribution (no batch)."""

    def log_likelihood(self, x: Float[Tensor, "n ..."] | Int64[Tensor, "n ..."], z: Tensor) -> Tensor:
        """log p(x | z) in nats, row by row: x[i] given z[i]."""


@runtime_checkable
class Enumerable(Joint, Protocol):
    """z is one of finitely many states."""

    @property
    def states(self) -> Tensor:
        """Every z there is, along the first axis."""


@runtime_checkable
class Amortised(Joint, Protocol):
    """One function of x proposes where z may be."""

    def proposal(self, x: Tensor) -> Distribution:
        """q(z | x), a batch of len(x)."""


def log_likelihoods(model: Joint, x: Tensor, z: Tensor) -> Float[Tensor, "k batch"]:
    """log p(x | z) in nats for K values of z an image, z [K, batch, *event]."""
    sizes = z.shape[:2]
    repeated = x.expand(len(z), *x.shape).flatten(0, 1)
    return model.log_likelihood(repeated, z.flatten(0, 1)).unflatten(0, sizes)


def log_joint(model: Joint, x: Tensor, z: Tensor) -> Float[Tensor, "k batch"]:
    """log p(z) + log p(x | z) in nats for K values of z an image, z [K, batch, *event]."""
    return model.prior.log_prob(z) + log_likelihoods(model, x, z)


def log_weights(model: Joint, x: Tensor, proposal: Distribution, z: Tensor) -> Float[Tensor, "k batch"]:
    """log w = log p(z) + log p(x | z) − log q(z | x) in nats for K values of z an image."""
    return log_joint(model, x, z) - proposal.log_prob(z)


class LatentModel(nn.Module):
    r"""p(x) = ∫ N(z; 0, I) p(x | z) dz, and q(z | x) = N(mean, diag exp(log_std)²) to bound it.

    A subclass supplies `encode` and `decode`. Both terms of a bound are sums over their elements, the symbols
    of x and the numbers in z: a mean in one of them would weigh them anew.

    Arguments:
        shape: (C, H, W) of one image; D = C·H·W symbols.
        levels: L; every symbol is one of 0 … L − 1.
        latents: the number of elements of z.
    """

    def __init__(self, shape: tuple[int, int, int], levels: int, latents: int):
        super().__init__()
        self.shape, self.levels = images.shape_of(shape), images.levels_of(levels)
        self.dims = math.prod(shape)
        if latents < 1:
            raise UsageError(f"latents is {latents}, expected at least 1 number in z.")
        self.latents = latents

    def encode(
        self, x: Int64[Tensor, "batch C H W"]
    ) -> tuple[Float[Tensor, "batch latents"], Float[Tensor, "batch latents"]]:
        """Mean and log standard deviation of q(z | x)."""
        raise NotImplementedError(f"{type(self).__name__} does not define encode(x).")

    def decode(self, z: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch levels C H W"]:
        """Logits of p(x_i | z), independent over the symbols i given z."""
        raise NotImplementedError(f"{type(self).__name__} does not define decode(z).")

    @property
    def prior(self) -> DiagonalGaussian:
        """p(z) = N(0, I)."""
        zeros = self._like.new_zeros(self.latents)
        return DiagonalGaussian(zeros, zeros)

    def proposal(self, x: Int64[Tensor, "batch C H W"]) -> DiagonalGaussian:
        """q(z | x), as `encode` says."""
        return DiagonalGaussian(*self.encode(x))

    def log_likelihood(
        self, x: Int64[Tensor, "batch C H W"], z: Float[Tensor, "batch latents"]
    ) -> Float[Tensor, " batch"]:
        """log p(x | z) = Σ_i log p(x_i | z) in nats, one number an image."""
        images.check(x, self.shape, self.levels, type(self).__name__)
        return likelihood.log_prob(self.decode(z), x)

    def terms(
        self, x: Int64[Tensor, "batch C H W"], noise: Float[Tensor, "batch latents"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        r"""log p(x | z) at z = mean + exp(log_std)·noise, and KL(q(z | x) ‖ N(0, I)) in closed form; nats."""
        images.check(x, self.shape, self.levels, type(self).__name__)
        q = self.proposal(x)
        return self.log_likelihood(x, q.from_noise(noise)), gaussian_kl(q.mean, q.log_std)

    def elbo(
        self, x: Int64[Tensor, "batch C H W"], noise: Float[Tensor, "batch latents"], beta: float = 1.0
    ) -> Float[Tensor, " batch"]:
        r"""log p(x | z) − β KL(q(z | x) ‖ p(z)) in nats; E over the noise is ≤ log p(x) at β = 1."""
        log_likelihood, kl = self.terms(x, noise)
        return log_likelihood - beta * kl

    def log_weight(
        self, x: Int64[Tensor, "batch C H W"], noise: Float[Tensor, "batch latents"]
    ) -> Float[Tensor, " batch"]:
        r"""log p(z) + log p(x | z) − log q(z | x) at z = mean + exp(log_std)·noise, in nats.

        Both densities at the sample itself: minus this is the length of a message by bits back.
        """
        images.check(x, self.shape, self.levels, type(self).__name__)
        q = self.proposal(x)
        z = q.from_noise(noise)
        log_q = gaussian_log_prob(noise) - q.log_std.sum(1)
        return gaussian_log_prob(z) + self.log_likelihood(x, z) - log_q

    def noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n latents"]:
        """ε ~ N(0, I), of the type and on the device of the parameters."""
        return self.prior.noise(generator, n)

    def sample(self, n: int, *, generator: torch.Generator) -> Int64[Tensor, "n C H W"]:
        """n images: z ~ N(0, I), then each symbol of x ~ p(x | z)."""
        with torch.no_grad(), evaluating(self):
            logits = self.decode(self.noise(n, generator)).movedim(1, -1)
            u = torch.rand(n * self.dims, generator=generator, device=generator.device, dtype=torch.float64)
            return inverse_cdf(logits.reshape(-1, self.levels), u.to(logits.device)).reshape(n, *self.shape)

    @property
    def _like(self) -> Tensor:
        """A tensor of the type and on the device of the parameters."""
        return next(self.parameters(), torch.empty(0))


def negative_elbo(
    model: LatentModel, x: Int64[Tensor, "batch C H W"], y: Tensor | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """−ELBO in nats with fresh noise, an upper bound of the code length: a loss for `training.fit`."""
    return -model.elbo(x, model.noise(len(x), generator))
