"""The few distributions over z that lecture 4 needs.

torch's own draw from the global generator; these take their noise as an argument, so that two estimators
can be compared on the same draws.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["Categorical", "DiagonalGaussian", "Distribution", "Gaussian", "gaussian_kl", "gaussian_log_prob"]


@runtime_checkable
class Distribution(Protocol):
    """A batch of independent distributions over z: [*batch], the shape that `log_prob` returns."""

    def noise(self, generator: torch.Generator, *sizes: int) -> Tensor:
        """Noise for [*sizes, *batch] independent draws."""

    def from_noise(self, noise: Tensor) -> Tensor:
        """The draws z [*sizes, *batch, *event] that this noise makes."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z) in nats, [*sizes, *batch]."""


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag exp(log_std)²); z = mean + exp(log_std)·ε."""

    mean: Float[Tensor, "*batch latents"]
    log_std: Float[Tensor, "*batch latents"]

    def noise(self, generator: torch.Generator, *sizes: int) -> Float[Tensor, "..."]:
        """ε ~ N(0, I)."""
        return _normal(generator, (*sizes, *self.mean.shape), self.mean)

    def from_noise(self, noise: Float[Tensor, "*sizes latents"]) -> Float[Tensor, "*sizes latents"]:
        """z = mean + exp(log_std)·ε."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, z: Float[Tensor, "*sizes latents"]) -> Float[Tensor, "*sizes"]:
        """log N(z; mean, diag exp(log_std)²), summed over the elements of z."""
        return gaussian_log_prob((z - self.mean) * torch.exp(-self.log_std)) - self.log_std.sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Float[Tensor, "*batch"]:
        r"""KL(self ‖ other) = Σ ½[σ²/s² + (μ − m)²/s² − 1] − log(σ/s): z ↦ (z − m)/s makes other N(0, I)."""
        scaled = (self.mean - other.mean) * torch.exp(-other.log_std)
        return gaussian_kl(scaled, self.log_std - other.log_std)

    def dense(self) -> "Gaussian":
        """The same distribution with its covariance written out."""
        return Gaussian(self.mean, torch.diag_embed(self.log_std.exp()))


@dataclass(frozen=True)
class Gaussian:
    """N(mean, A Aᵀ), A = scale_tril lower triangular with a positive diagonal; z = mean + A ε."""

    mean: Float[Tensor, "*batch latents"]
    scale_tril: Float[Tensor, "*#batch latents latents"]

    def noise(self, generator: torch.Generator, *sizes: int) -> Float[Tensor, "..."]:
        """ε ~ N(0, I)."""
        return _normal(generator, (*sizes, *self.mean.shape), self.mean)

    def from_noise(self, noise: Float[Tensor, "*sizes latents"]) -> Float[Tensor, "*sizes latents"]:
        """z = mean + A ε."""
        return self.mean + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, z: Float[Tensor, "*sizes latents"]) -> Float[Tensor, "*sizes"]:
        """log N(A⁻¹(z − mean); 0, I) − log det A."""
        return gaussian_log_prob(_solve(self.scale_tril, z - self.mean)) - self._log_det()

    def kl(self, other: "Gaussian") -> Float[Tensor, "*batch"]:
        r"""KL(self ‖ other) = ½[‖B⁻¹A‖² + ‖B⁻¹(μ − m)‖² − d] + log det B − log det A, B the other's A."""
        ratio = torch.linalg.solve_triangular(other.scale_tril, self.scale_tril, upper=False)
        shift = _solve(other.scale_tril, self.mean - other.mean)
        norms = ratio.square().sum((-2, -1)) + shift.square().sum(-1)
        return 0.5 * (norms - self.mean.shape[-1]) + other._log_det() - self._log_det()

    def _log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@dataclass(frozen=True)
class Categorical:
    """P(z = k) = softmax(logits)_k, k = 0 … states − 1; z = min {k : Σ_{j≤k} P(j) > u}."""

    logits: Float[Tensor, "*batch states"]

    @property
    def log_probs(self) -> Float[Tensor, "*batch states"]:
        """log P of every state."""
        return torch.log_softmax(self.logits, -1)

    def noise(self, generator: torch.Generator, *sizes: int) -> Float[Tensor, "..."]:
        """u ~ U[0, 1)."""
        shape = (*sizes, *self.logits.shape[:-1])
        u = torch.rand(shape, generator=generator, device=generator.device, dtype=self.logits.dtype)
        return u.to(self.logits.device)

    def from_noise(self, noise: Float[Tensor, "*sizes"]) -> Int64[Tensor, "*sizes"]:
        """Inverse CDF at u. A state's number is no smooth function of the logits: z has no gradient."""
        cdf = torch.softmax(self.logits.detach(), -1).cumsum(-1)
        return (noise.unsqueeze(-1) * cdf[..., -1:] >= cdf[..., :-1]).sum(-1)

    def log_prob(self, z: Int64[Tensor, "*sizes"]) -> Float[Tensor, "*sizes"]:
        """log P(z)."""
        log_probs = self.log_probs.expand(*z.shape, -1)
        return log_probs.gather(-1, z.unsqueeze(-1)).squeeze(-1)

    def kl(self, other: "Categorical") -> Float[Tensor, "*batch"]:
        """KL(self ‖ other) = Σ_k P(k) [log P(k) − log P'(k)], by enumeration."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)


def gaussian_log_prob(z: Float[Tensor, "*batch latents"]) -> Float[Tensor, "*batch"]:
    r"""log N(z; 0, I) = −½ Σ (z² + log 2π), in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def gaussian_kl(
    mean: Float[Tensor, "*batch latents"], log_std: Float[Tensor, "*batch latents"]
) -> Float[Tensor, "*batch"]:
    r"""KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1) − Σ log σ, in nats, with log σ = log_std."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1).sum(-1) - log_std.sum(-1)


def _normal(generator: torch.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)


def _solve(lower: Tensor, z: Tensor) -> Tensor:
    """lower⁻¹ z for vectors z along the last axis."""
    return torch.linalg.solve_triangular(lower, z.unsqueeze(-1), upper=False).squeeze(-1)
