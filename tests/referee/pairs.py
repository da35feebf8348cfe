"""Two parties: a source whose entropy is known, models that reach it, and pairs that try to do better."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from safetensors.numpy import save

from dulcourse.flows.base import Flow, Transform
from dulcourse.latent.base import LatentModel
from dulcourse.referee import flow, latent
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.respondent import LocalRespondent
from dulcourse.referee.score import Score

SHAPE, LEVELS, LATENTS = (1, 2, 3), 4, 6
D = math.prod(SHAPE)
TABLE = np.random.default_rng(7).dirichlet(np.full(LEVELS, 0.7), size=D) * 0.96 + 0.01  # [D, L]
SECRET = bytes(range(100, 116))


def draw(n: int, seed: int = 0) -> np.ndarray:
    """n images with independent symbols, symbol i distributed like TABLE[i]."""
    u = np.random.default_rng(seed).random((n, D, 1))
    return (u > TABLE.cumsum(axis=1)[None, :, :-1]).sum(axis=2).reshape(n, *SHAPE)


def entropy() -> float:
    """Bits/dim of the source."""
    return float(-(TABLE * np.log2(TABLE)).sum() / D)


class Histogram(Transform):
    """z = Φ⁻¹(F(y)) with F the piecewise linear CDF of image + u: the density of y is exactly P(x)."""

    def __init__(self):
        super().__init__()
        p = torch.from_numpy(TABLE)
        self.register_buffer("p", p)
        self.register_buffer("below", p.cumsum(1) - p)

    def forward(self, x):
        y = x.flatten(1)
        k = y.detach().floor().clamp(0, LEVELS - 1).long()
        i = torch.arange(D)
        z = torch.special.ndtri(self.below[i, k] + self.p[i, k] * (y - k))
        log_det = self.p[i, k].log() + 0.5 * (z**2 + math.log(2 * math.pi))
        return z.view_as(x), log_det.sum(1)

    def inverse(self, z):
        F = torch.special.ndtr(z.flatten(1))
        k = (F[:, :, None] >= self.below).sum(2) - 1
        i = torch.arange(D)
        y = k + (F - self.below[i, k]) / self.p[i, k]
        return y.view_as(z), -self.forward(y.view_as(z))[1]


class Pixels(LatentModel):
    """Ignores its latents and knows the source: q is the prior, and an image costs its entropy."""

    def __init__(self):
        super().__init__(SHAPE, LEVELS, LATENTS)
        self.register_buffer("bias", torch.from_numpy(TABLE).log().T.reshape(LEVELS, *SHAPE))

    def encode(self, x):
        zeros = self.bias.new_zeros(len(x), LATENTS)
        return zeros, zeros

    def decode(self, z):
        return self.bias.expand(len(z), *self.bias.shape)


@dataclass(frozen=True)
class Family:
    """One protocol with what its tests need: the module, a model that reaches the entropy, the questions."""

    name: str
    protocol: ModuleType
    reference: Callable[[], torch.nn.Module]
    first: str  # what A is asked
    second: str  # what B is asked
    back: str  # the key of B's answer

    @property
    def frozen(self) -> Frozen:
        more = (LATENTS,) if self.name == "latent" else ()
        return self.protocol.freeze(save({"weight": np.zeros(1)}), SHAPE, LEVELS, *more)

    def declared(self, n: int, **changes: np.ndarray) -> dict[str, np.ndarray]:
        """An answer of A that says nothing, but for the changes."""
        if self.name == "latent":
            return {"mean": np.zeros((n, LATENTS)), "log_std": np.zeros((n, LATENTS))} | changes
        eye = np.tile(np.eye(D), (n, 1, 1))
        return {"z": np.zeros((n, D)), "jacobian": eye, "log_det": np.zeros(n)} | changes

    def returned(self, n: int) -> np.ndarray:
        """An answer of B that says nothing."""
        return np.zeros((n, LEVELS, *SHAPE)) if self.name == "latent" else np.full((n, *SHAPE), LEVELS / 2)


FAMILIES = {
    "flow": Family("flow", flow, lambda: Flow(Histogram(), SHAPE, LEVELS), "forward", "inverse", "x"),
    "latent": Family("latent", latent, Pixels, "encode", "decode", "logits"),
}


class Party:
    """Answers questions by functions of their arrays; every question is kept."""

    def __init__(self, **answers: Callable[..., dict[str, np.ndarray]]):
        self.answers = answers
        self.questions: list[tuple[str, dict[str, np.ndarray]]] = []

    def call(self, name, arrays):
        self.questions.append((name, {key: array.copy() for key, array in arrays.items()}))
        return self.answers[name.rpartition(".")[2]](**arrays)


def honest(family: Family, model: torch.nn.Module | None = None) -> LocalRespondent:
    """A model of this process (the reference when none is given), as a respondent called "m"."""
    entry = SimpleNamespace(model=model or family.reference(), claim=None, history=None)
    return LocalRespondent({"m": entry})


def blind(
    family: Family,
    first,
    second,
    images: np.ndarray,
    *,
    seed: int = 0,
    reference: torch.nn.Module | None = None,
    generator: np.random.Generator | None = None,
) -> Score:
    """Both phases, against the model that reaches the entropy unless another reference is given."""
    frozen, protocol = family.frozen, family.protocol
    rng = np.random.default_rng([seed, 1])
    asked = protocol.ask_first(first, "m", frozen, images, generator=rng)
    draws = generator or np.random.default_rng([seed, 2])
    return protocol.score(
        second,
        "m",
        frozen,
        asked,
        images,
        generator=draws,
        reference=reference or family.reference(),
    )


def gains_nothing(score: Score) -> bool:
    """No better than the entropy, by more than two standard errors."""
    return score.difference >= -2 * score.difference_standard_error
