"""Probabilistic PCA: the latent-variable model in which everything is known exactly, to try estimators on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dulcourse.errors import UsageError
from dulcourse.latent.distributions import DiagonalGaussian, Gaussian

__all__ = ["LinearGaussian"]


class LinearGaussian(nn.Module):
    r"""p(z) = N(0, I), p(x | z) = N(Wz + b, s²I), x real; so p(x) = N(b, WWᵀ + s²I) (Tipping & Bishop 1999).

    A `Joint`, and `Amortised` with the exact posterior as its proposal. log p(x) here is a density.

    Arguments:
        weight: W [D, latents].
        bias: b [D].
        noise_std: s > 0.
    """

    def __init__(self, weight: Float[Tensor, "dims latents"], bias: Float[Tensor, " dims"], noise_std: float):
        super().__init__()
        if not noise_std > 0:
            raise UsageError(
                f"noise_std is {noise_std}, expected more than 0: without noise x has no density."
            )
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.noise_std = float(noise_std)
        self.dims, self.latents = weight.shape

    @classmethod
    def fit(cls, x: Float[Tensor, "n dims"], latents: int) -> "LinearGaussian":
        r"""The most likely one: W = U_d (Λ_d − s²I)^½, s² = the mean of the other eigenvalues.

        Source: Tipping & Bishop 1999, eqs. 7 and 8; U_d, Λ_d are the d = latents largest eigenvalues of the
        covariance of x (divided by n) and their eigenvectors.
        """
        dims = x.shape[1]
        if not 1 <= latents < dims:
            raise UsageError(f"latents is {latents}, expected 1 to {dims - 1} for {dims} numbers in x.")
        eigenvalues, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))  # ascending
        rest, largest = eigenvalues[:-latents], eigenvalues[-latents:]
        weight = vectors[:, -latents:] * (largest - rest.mean()).clamp(min=0).sqrt()
        return cls(weight, x.mean(0), math.sqrt(float(rest.mean())))

    @property
    def prior(self) -> DiagonalGaussian:
        """p(z) = N(0, I)."""
        zeros = self.weight.new_zeros(self.latents)
        return DiagonalGaussian(zeros, zeros)

    def log_likelihood(
        self, x: Float[Tensor, "batch dims"], z: Float[Tensor, "batch latents"]
    ) -> Float[Tensor, " batch"]:
        """log N(x; Wz + b, s²I) in nats, x[n] given z[n]."""
        return self._log_density((x - self.bias - z @ self.weight.T).square().sum(1))

    def log_prob(self, x: Float[Tensor, "batch dims"]) -> Float[Tensor, " batch"]:
        """log p(x) = log N(x; b, WWᵀ + s²I) in nats, exactly."""
        noise = self.noise_std**2 * torch.eye(self.dims).to(self.weight)
        scale_tril = torch.linalg.cholesky(self.weight @ self.weight.T + noise)
        return Gaussian(self.bias.expand(len(x), -1), scale_tril).log_prob(x)

    def posterior(self, x: Float[Tensor, "batch dims"]) -> Gaussian:
        r"""p(z | x) = N(M⁻¹Wᵀ(x − b)/s², M⁻¹), M = I + WᵀW/s²: its covariance is the same for every x."""
        covariance = torch.linalg.inv(self._precision())
        mean = (x - self.bias) @ self.weight @ covariance / self.noise_std**2
        return Gaussian(mean, torch.linalg.cholesky(covariance))

    def proposal(self, x: Float[Tensor, "batch dims"]) -> Gaussian:
        """The posterior itself."""
        return self.posterior(x)

    def best_diagonal(self, x: Float[Tensor, "batch dims"]) -> DiagonalGaussian:
        r"""The q(z | x) of highest ELBO whose elements are independent: the same mean, σ_j² = 1/M_jj."""
        mean = self.posterior(x).mean
        return DiagonalGaussian(mean, -0.5 * self._precision().diagonal().log().expand_as(mean))

    def elbo(self, x: Float[Tensor, "batch dims"], q: Gaussian | DiagonalGaussian) -> Float[Tensor, " batch"]:
        r"""E_q[log p(x | z)] − KL(q ‖ p(z)) in nats, exactly: E‖x − b − Wz‖² = ‖x − b − Wμ‖² + ‖WA‖².

        log p(x) − elbo(x, best_diagonal(x)) is what the family of q costs; elbo(x, best_diagonal(x)) −
        elbo(x, q) is the amortisation gap of an encoder's q.
        """
        q = q.dense() if isinstance(q, DiagonalGaussian) else q
        residual = (x - self.bias - q.mean @ self.weight.T).square().sum(1)
        spread = (self.weight @ q.scale_tril).square().sum((-2, -1))
        return self._log_density(residual + spread) - q.kl(self.prior.dense())

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n dims"]:
        """n draws: z ~ N(0, I), then x ~ N(Wz + b, s²I)."""
        with torch.no_grad():
            z = self.prior.noise(generator, n)
            means = z @ self.weight.T + self.bias
            pixels = DiagonalGaussian(means, torch.full_like(means, math.log(self.noise_std)))
            return pixels.from_noise(pixels.noise(generator))

    def _precision(self) -> Float[Tensor, "latents latents"]:
        """M = I + WᵀW/s²."""
        return torch.eye(self.latents).to(self.weight) + self.weight.T @ self.weight / self.noise_std**2

    def _log_density(self, squares: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """log of a normal density in D dimensions, from the squared distance to its mean."""
        return -0.5 * (squares / self.noise_std**2 + self.dims * math.log(2 * math.pi * self.noise_std**2))
