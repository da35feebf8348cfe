"""What a bound becomes by mistakes with its two terms: of a mean over images, or image by image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from dulcourse.referee.bitsback import log_normal
from dulcourse.referee.latent import Asked, Charged

__all__ = ["LogWeights", "divergences", "mistakes"]

Bits = Float64[np.ndarray, " n"]
Figure = TypeVar("Figure", float, np.ndarray)

# bits/dim. On average the terms of any well trained model look alike; image by image each has its own figure.
EXACT = 0.002


@dataclass(frozen=True, eq=False)
class LogWeights:
    """The model's own log-weights of some images, and what these images cost at the same noise."""

    own: Float64[np.ndarray, " n"]  # nats
    noise: Float64[np.ndarray, "n k"]
    asked: Asked
    charged: Charged

    def mistake(self, dims: int) -> str | None:
        """What turns the bits that were charged into the model's own in most images; None if nothing does."""
        told = -self.own / math.log(2)
        wrong = [(float(np.median(np.abs(told - bits))), words) for words, bits in self._candidates(dims)]
        least, words = min(wrong)
        honest = float(np.median(np.abs(told - self.charged.bits)))
        return words if least <= min(EXACT * dims, honest / 4) else None

    def _candidates(self, dims: int) -> list[tuple[str, Bits]]:
        asked, reconstruction, latents = self.asked, self.charged.reconstruction, self.noise.shape[1]
        log_q = log_normal(self.noise) - asked.log_std.sum(axis=1)
        log_p = log_normal(asked.mean + np.exp(asked.log_std) * self.noise)
        constant = 0.5 * latents * math.log(2 * math.pi)
        at_z = {
            "log q(z | x) lacks −log σ of each latent": log_q + asked.log_std.sum(axis=1) - log_p,
            "log q(z | x) lacks −½ log 2π of each latent": log_q + constant - log_p,
            "log p(z) lacks −½ log 2π of each latent": log_q - log_p - constant,
            "log p(z) was left out": log_q,
            "log q(z | x) was left out": -log_p,
        }
        wrong = {words: nats / math.log(2) for words, nats in at_z.items()}
        # Its KL term may be log q − log p at z, or the closed form.
        found = mistakes(reconstruction, self.charged.kl, wrong, dims, latents)
        closed = mistakes(reconstruction, divergence(asked), divergences(asked), dims, latents)
        return [*found.items(), *closed.items()]


def divergence(asked: Asked) -> Bits:
    """KL(q ‖ N(0, I)) of each image, in bits."""
    with np.errstate(over="ignore"):
        each = 0.5 * (asked.mean**2 + np.exp(2 * asked.log_std) - 1) - asked.log_std
    return each.sum(axis=1) / math.log(2)


def divergences(asked: Asked) -> dict[str, Bits]:
    """What each image's KL term becomes by mistakes with its formula, in bits."""
    mean, log_std = asked.mean, asked.log_std
    with np.errstate(over="ignore"):
        std, variance = np.exp(log_std), np.exp(2 * log_std)
    each = {
        "log σ was taken for log σ² in the KL term": 0.5 * (mean**2 + std - 1 - log_std),
        "σ stands for σ² in the KL term": 0.5 * (mean**2 + std - 1) - log_std,
        "½ log σ stands for log σ in the KL term": 0.5 * (mean**2 + variance - 1 - log_std),
        "log σ was left out of the KL term": 0.5 * (mean**2 + variance - 1),
        "log σ was added in the KL term, not subtracted": 0.5 * (mean**2 + variance - 1) + log_std,
    }
    return {words: nats.sum(axis=1) / math.log(2) for words, nats in each.items()}


def mistakes(
    reconstruction: Figure, kl: Figure, wrong: Mapping[str, Figure], dims: int, latents: int
) -> dict[str, Figure]:
    """The bound after mistakes with its two terms, all in one unit: means, or the figures of each image."""
    found = {
        "the KL term was left out": reconstruction,
        "the KL term has the wrong sign": reconstruction - kl,
        "the log-likelihood was left out, this is the KL term alone": kl,
        "the log-likelihood was averaged over the dimensions, the KL term summed": reconstruction / dims + kl,
        f"the KL term was divided by the {dims} dimensions, the log-likelihood summed": reconstruction
        + kl / dims,
    }
    if latents > 1:
        found[f"the KL term was averaged over the {latents} latents"] = reconstruction + kl / latents
    return found | {words: reconstruction + term for words, term in wrong.items()}
