"""What every latent-variable model shares: give it `encode` and `decode`, and it has bounds and samples."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse import images, likelihood
from dulcourse.autoregressive.base import inverse_cdf
from dulcourse.errors import UsageError
from dulcourse.modes import evaluating

__all__ = ["LatentModel", "gaussian_kl", "gaussian_log_prob", "negative_elbo"]


class LatentModel(nn.Module):
    r"""p(x) = ∫ N(z; 0, I) p(x | z) dz, and q(z | x) = N(mean, diag exp(log_std)²) to bound it.

    A subclass supplies `encode` and `decode`.

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

    def terms(
        self, x: Int64[Tensor, "batch C H W"], noise: Float[Tensor, "batch latents"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        r"""log p(x | z) at z = mean + exp(log_std)·noise, and KL(q(z | x) ‖ N(0, I)) in closed form; nats."""
        images.check(x, self.shape, self.levels, type(self).__name__)
        mean, log_std = self.encode(x)
        z = mean + log_std.exp() * noise
        return likelihood.log_prob(self.decode(z), x), gaussian_kl(mean, log_std)

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
        mean, log_std = self.encode(x)
        z = mean + log_std.exp() * noise
        log_q = gaussian_log_prob(noise) - log_std.sum(1)
        return gaussian_log_prob(z) + likelihood.log_prob(self.decode(z), x) - log_q

    def noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n latents"]:
        """ε ~ N(0, I), of the type and on the device of the parameters."""
        like = next((p for p in self.parameters()), torch.empty(0))
        noise = torch.randn(n, self.latents, generator=generator, device=generator.device, dtype=like.dtype)
        return noise.to(like.device)

    def sample(self, n: int, *, generator: torch.Generator) -> Int64[Tensor, "n C H W"]:
        """n images: z ~ N(0, I), then each symbol of x ~ p(x | z)."""
        with torch.no_grad(), evaluating(self):
            logits = self.decode(self.noise(n, generator)).movedim(1, -1)
            u = torch.rand(n * self.dims, generator=generator, device=generator.device, dtype=torch.float64)
            return inverse_cdf(logits.reshape(-1, self.levels), u.to(logits.device)).reshape(n, *self.shape)


def gaussian_log_prob(z: Float[Tensor, "batch latents"]) -> Float[Tensor, " batch"]:
    r"""log N(z; 0, I) = −½ Σ (z² + log 2π), in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def gaussian_kl(
    mean: Float[Tensor, "batch latents"], log_std: Float[Tensor, "batch latents"]
) -> Float[Tensor, " batch"]:
    r"""KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1) − Σ log σ, in nats, with log σ = log_std."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1).sum(1) - log_std.sum(1)


def negative_elbo(
    model: LatentModel, x: Int64[Tensor, "batch C H W"], y: Tensor | None, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """−ELBO in nats with fresh noise, an upper bound of the code length: a loss for `training.fit`."""
    return -model.elbo(x, model.noise(len(x), generator))
