"""Blind scoring of latent-variable models: bits back.

Party A gets the images and returns q(z | x) = N(μ, diag s²). The referee draws ε and z = μ + sε. Party B gets
z alone and returns the logits of every symbol. An image costs

    S = log q − log N(z; 0, I) − Σ_i log p(x_i | z),    log q = Σ(−ε²/2 − ½ log 2π − log s),

in bits: minus the model's log-weight at that noise, an unbiased estimate of its negative ELBO. One z an
image: with several, B could add up what each of them tells.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from dulcourse.errors import UsageError
from dulcourse.latent.base import LatentModel
from dulcourse.referee import bitsback
from dulcourse.referee.code import capped, charges, malformed, spared
from dulcourse.referee.frozen import FrozenLatents, buffers_of, sha_of
from dulcourse.referee.respondent import LocalRespondent, Malformed, Respondent, Spec
from dulcourse.referee.score import Score, check_images, given_reference, summary

__all__ = ["Asked", "ask_first", "charge", "freeze", "reference_charges", "score"]

Images = Int64[np.ndarray, "n C H W"]
Latents = Float64[np.ndarray, "n latents"]


@dataclass(frozen=True, eq=False)
class Asked:
    """What A declared of each image, made safe before any noise is drawn."""

    mean: Latents
    log_std: Latents
    failures: int = 0
    reason: str = ""
    lost: bool = False  # nothing came that could be used: every image has failed


def freeze(checkpoint: bytes, shape: tuple[int, int, int], levels: int, latents: int | None) -> FrozenLatents:
    """The homework's sizes and the checkpoint's fingerprint. Raises `Malformed` for unreadable bytes."""
    if latents is None or latents < 1:
        raise UsageError(f"latents is {latents}; a latent-variable model is frozen with how many it has.")
    buffers_of(checkpoint, only=())
    return FrozenLatents(tuple(shape), levels, sha_of(checkpoint), latents)


def ask_first(
    respondent: Respondent,
    name: str,
    frozen: FrozenLatents,
    images: Images,
    *,
    generator: np.random.Generator,
) -> Asked:
    """Phase 1: send the images to A, and keep what it declares of them.

    A must be gone before `score` is called with what comes back.
    """
    check_images("images", images, frozen.shape, frozen.levels)
    n, k = len(images), frozen.latents
    order = generator.permutation(n)
    try:
        answer = bitsback.ask_in_pieces(
            respondent,
            f"{name}.encode",
            {"x": images},
            lambda m: {key: Spec((m, k), finite=False) for key in ("mean", "log_std")},
            frozen.dims + 2 * k,
            order,
        )
    except Malformed as error:
        return Asked(np.zeros((n, k)), np.zeros((n, k)), n, str(error), lost=True)
    return _made_safe(answer["mean"], answer["log_std"])


def _made_safe(mean: np.ndarray, log_std: np.ndarray) -> Asked:
    bad = bitsback.unusable(mean, log_std)
    reason = f"{bad.sum()} answers of encode held numbers that are not finite" if bad.any() else ""
    return Asked(
        bitsback.clamped(mean, bad, bitsback.MEANS),
        bitsback.clamped(log_std, bad, bitsback.LOG_SCALES),
        int(bad.sum()),
        reason,
    )


@dataclass(frozen=True, eq=False)
class Charged:
    """What each image costs, in bits, and of what it is made."""

    kl: Float64[np.ndarray, " n"]
    reconstruction: Float64[np.ndarray, " n"]
    malformed: int  # symbols of which nothing usable was said

    @property
    def reason(self) -> str:
        """What could not be used, in words."""
        return f"{self.malformed} answers of decode held numbers that are not finite" * (self.malformed > 0)

    @property
    def bits(self) -> Float64[np.ndarray, " n"]:
        """Before any cap."""
        return self.kl + self.reconstruction

    def parts(self, dims: int, capped: Float64[np.ndarray, " n"]) -> dict[str, float]:
        """In bits/dim: both terms before any cap, and what the cap took off."""
        terms = {"kl": float(self.kl.mean()), "reconstruction": float(self.reconstruction.mean())}
        return {key: bits / dims for key, bits in (terms | spared(capped, self.bits)).items()}


def score(
    respondent: Respondent,
    name: str,
    frozen: FrozenLatents,
    asked: Asked,
    images: Images,
    *,
    generator: np.random.Generator,
    reference: LatentModel | None = None,
    reference_bits: Float64[np.ndarray, " r"] | None = None,
) -> Score:
    """Phase 2: draw ε, send z alone to B, and charge −log_weight/(D ln 2) for each image.

    The reference encodes and decodes the same images with the same ε (with its own where it has another
    number of latents) and is charged alike; where it is not there to be asked, `reference_bits` (bits/dim of
    each image) stands in for it.
    """
    check_images("images", images, frozen.shape, frozen.levels)
    n, dims = len(images), frozen.dims
    noise, order = generator.standard_normal((n, frozen.latents)), generator.permutation(n)
    try:
        charged, lost = charge(respondent, name, frozen, asked, images, noise, order), False
        failures, reason = asked.failures + charged.malformed, asked.reason or charged.reason
    except Malformed as error:
        charged, lost, failures, reason = Charged(np.zeros(n), np.zeros(n), 0), True, n, str(error)
    bits = capped(charged.bits, np.full(n, lost), dims, frozen.levels)
    theirs = given_reference(reference_bits, n)
    if reference is not None:
        other = noise if reference.latents == frozen.latents else None
        theirs = reference_charges(reference, images, generator, other) / dims
    return summary(
        bits / dims,
        theirs,
        bits,
        failures=failures,
        reason=reason,
        parts={} if lost else charged.parts(dims, bits),
    )


def charge(respondent, name, frozen: FrozenLatents, asked: Asked, images, noise, order) -> Charged:
    """Draw z, ask B, and add up; raises `Malformed`."""
    if asked.lost:
        raise Malformed(asked.reason)
    z = bitsback.on_grid(asked.mean + np.exp(asked.log_std) * noise)
    # From the noise that was drawn, never from z.
    log_q = bitsback.log_normal(noise) - asked.log_std.sum(axis=1)
    log_p = _decoded(respondent, name, frozen, z, order)
    reconstruction = charges(log_p, images.reshape(-1), frozen.levels).reshape(len(images), -1).sum(axis=1)
    return Charged(
        (log_q - bitsback.log_normal(z)) / math.log(2), reconstruction, int(malformed(log_p).sum())
    )


def _decoded(respondent, name, frozen: FrozenLatents, z: np.ndarray, order: np.ndarray) -> np.ndarray:
    """B's log p(x_i = level | z), `[n · D, levels]` in the order of the images."""
    answer = bitsback.ask_in_pieces(
        respondent,
        f"{name}.decode",
        {"z": z},
        lambda m: {"logits": Spec((m, frozen.levels, *frozen.shape), finite=False)},
        frozen.levels * frozen.dims,
        order,
    )
    logits = answer["logits"].reshape(len(z), frozen.levels, -1)
    return logits.swapaxes(1, 2).reshape(-1, frozen.levels)


def reference_charges(
    reference: LatentModel,
    images: Images,
    generator: np.random.Generator,
    noise: Float64[np.ndarray, "n k"] | None = None,
) -> Float64[np.ndarray, " n"]:
    """What each image costs under a trusted model, in bits, charged as a respondent's would be.

    `noise` is ε; drawn from the generator when not given.
    """
    if noise is None:
        noise = generator.standard_normal((len(images), reference.latents))
    party = LocalRespondent({"reference": _Entry(reference)})
    frozen = FrozenLatents(tuple(images.shape[1:]), reference.levels, "", reference.latents)
    asked = ask_first(party, "reference", frozen, images, generator=generator)
    charged = charge(party, "reference", frozen, asked, images, noise, np.arange(len(images)))
    return capped(charged.bits, np.zeros(len(images), bool), frozen.dims, frozen.levels)


@dataclass(frozen=True)
class _Entry:
    model: LatentModel
