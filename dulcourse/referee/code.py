"""What an answer costs: the bits of a message that could really have been sent.

The referee does this arithmetic itself, in float64, from the answer and the symbol that came true.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

__all__ = ["CAP_BITS", "LAMBDA", "capped", "charges", "malformed", "most", "spared"]

LAMBDA = 2.0**-20
CAP_BITS = 10.0


def charges(
    log_p: Float[np.ndarray, "n levels"], symbols: Int64[np.ndarray, " n"], levels: int
) -> Float64[np.ndarray, " n"]:
    """−log₂((1−λ)p + λ/L) for each symbol, with p = softmax(log_p) and λ = 2⁻²⁰.

    The mixture with λ/L keeps one zero from costing infinity. A row that is not finite costs log₂ L.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = np.asarray(log_p, np.float64) - np.max(log_p, axis=1, keepdims=True).astype(np.float64)
        weights = np.exp(shifted)
        p = weights[np.arange(len(symbols)), symbols] / weights.sum(axis=1)
    # Rule 3: an unusable row is charged as the uniform distribution, decided from the row alone. Were the
    # symbol looked at first, a row with one usable entry would bet everything on it and lose no more than
    # log₂ L.
    p = np.where(malformed(log_p), 1 / levels, p)
    return -np.log2((1 - LAMBDA) * p + LAMBDA / levels)


def malformed(log_p: Float[np.ndarray, "n levels"]) -> Bool[np.ndarray, " n"]:
    """Which rows cannot be used: any entry that is not finite spoils its row."""
    return ~np.isfinite(log_p).all(axis=1)


def most(symbols: int, levels: int) -> float:
    """What one image can cost when `symbols` of its symbols are sent: R·log₂ L + 10 bits."""
    return symbols * math.log2(levels) + CAP_BITS


def capped(
    bits: Float64[np.ndarray, " n"], failed: Bool[np.ndarray, " n"], symbols: int, levels: int
) -> Float64[np.ndarray, " n"]:
    """Each image's bits, at most `most(symbols, levels)`; an image that got no answer costs exactly that.

    Σ_x 2^−min(S, cap) ≤ Σ_x 2^−S + L^R·2^−cap ≤ 1 + 2⁻¹⁰: a cap, and failing on purpose, gain 0.0014 bits
    at most.
    """
    # Rule 4: one image that goes wrong costs so much and no more, and failing is no way out: it costs the
    # same.
    cap = most(symbols, levels)
    return np.where(failed, cap, np.minimum(bits, cap))


def spared(charged: Float64[np.ndarray, " n"], uncapped: Float64[np.ndarray, " n"]) -> dict[str, float]:
    """What the cap took off an image's bits on average, as one of the parts that they are made of: negative,
    or not there.
    """
    cut = float((charged - uncapped).mean())
    return {"cap": cut} if cut else {}
