"""What a model and its notebook say of themselves, held against what was measured."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from dulcourse.referee.bitsback import ask_in_pieces
from dulcourse.referee.respondent import Respondent, Spec, ask
from dulcourse.referee.score import Score

__all__ = [
    "BOUNDED",
    "SOFTMAX",
    "are_bounded",
    "are_probabilities",
    "figure",
    "hopeless",
    "judged",
    "own_bits_per_dim",
    "own_log_prob",
    "said",
    "tolerance",
    "unexplained",
    "units",
    "unusable",
    "worse",
]


LARGEST = 1e12  # nats; sums of larger numbers would overflow
IN_NATS = "; and it is in nats, divide by ln 2"
SOFTMAX = (
    "probabilities where logits are expected: they are put through a softmax once more; take yours away."
)
BOUNDED = (
    "logits that never leave [−1, 1], so that no level can be e² times as likely as another: take away "
    "the tanh at its end."
)
EDGE = 0.98  # as near to 1 as a tanh comes that wants to be further
DEARER = 0.03  # bits/dim by which a model must be worse than the reference to be worth a word
WORSE = 0.1  # bits/dim above a uniform guess that training would not leave
SAME = 0.005  # of a figure: by so much two mistakes at once must be nearer to a claim than one is


def own_log_prob(
    respondent: Respondent,
    name: str,
    x: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    noise: np.ndarray | None = None,
) -> Float64[np.ndarray, " n"]:
    """What the model's own `log_prob` makes of whole images, in nats. Ask only after they are scored.

    x are images, with noise u in [0, 1) added for a flow; for a latent-variable model `noise` is ε, and the
    answer its log-weight.
    """
    question = {"x": x} | {key: a for key, a in (("y", labels), ("noise", noise)) if a is not None}
    specs, order = (lambda n: {"log_prob": Spec((n,))}), np.arange(len(x))
    answer = ask_in_pieces(respondent, f"{name}.log_prob", question, specs, x[0].size, order)
    return np.clip(answer["log_prob"], -LARGEST, LARGEST)


def own_bits_per_dim(
    respondent: Respondent,
    name: str,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    noise: np.ndarray | None = None,
) -> float:
    """`own_log_prob` in bits/dim."""
    nats = own_log_prob(respondent, name, images, labels=labels, noise=noise)
    return float(-nats.mean() / (math.log(2) * images[0].size))


def said(respondent: Respondent, name: str) -> float | None:
    """The bits/dim that the notebook claimed for a model; None if it made no claim."""
    answer = ask(respondent, f"{name}.claim", {}, {"bits_per_dim": Spec((), finite=False)})
    value = float(answer["bits_per_dim"])
    return value if math.isfinite(value) else None


def figure(value: float) -> str:
    """A number that a stranger may have made as large as he likes, in a few characters."""
    return f"{value:.3f}" if abs(value) < 1e5 else f"{value:.3g}"


def are_probabilities(logits: np.ndarray) -> bool:
    """Whether all of what was answered, `[n, levels, ...]`, is between 0 and 1 and sums to one."""
    if not ((logits >= 0) & (logits <= 1)).all():
        return False
    return bool((np.abs(logits.sum(axis=1, dtype=np.float64) - 1) < 1e-4).all())


def are_bounded(logits: np.ndarray) -> bool:
    """Whether all of what was answered is between −1 and 1, and some of it at either end."""
    return bool(-1 <= logits.min() < -EDGE and EDGE < logits.max() <= 1)


def tolerance(score: Score) -> float:
    """Bits/dim by which a figure for other images may differ from the score and still agree with it."""
    return 0.02 + 4 * score.standard_error


def hopeless(bits: float, levels: int) -> list[str]:
    """What to say of a model that knows less than nothing, where no other mistake explains it."""
    if bits <= math.log2(levels) + WORSE:
        return []
    return [
        f"{figure(bits)} bits/dim are more than the {math.log2(levels):.4g} of a uniform guess: is −log p(x) "
        "what training makes small (and not log p(x)), and do its parameters start where the data are?"
    ]


def worse(score: Score) -> bool:
    """Whether a model costs clearly more than the reference on the same images."""
    if score.difference is None:
        return False
    return score.difference > DEARER + 3 * score.difference_standard_error


def unexplained(score: Score) -> list[str]:
    """What to say of a model that is worse than the reference though all its figures agree."""
    if not worse(score):
        return []
    return [
        "its figures agree with each other, so it is the model or its training that is worse: look at how "
        "inputs are scaled and what a layer is given of them, at where parameters start, and at the loss, "
        "the learning rate and the number of steps."
    ]


def unusable(score: Score, fix: str) -> list[str]:
    """What to say of answers that could not be used."""
    if not score.failures:
        return []
    return [f"{score.failures} answers could not be used and were charged in full ({score.reason}); {fix}."]


def judged(
    claimed: float, score: Score, dims: int, levels: int, honest: float, more: Mapping[str, float] = {}
) -> str:
    """A claim beside the score: the mistake that turns `honest` into it, or that they agree, or not."""
    found = units(claimed, honest, dims, levels, tolerance(score), more)
    return found or _agreement(claimed, score, levels)


def units(
    claimed: float,
    measured: float,
    dims: int,
    levels: int,
    tolerance: float = 0.02,
    more: Mapping[str, float] = {},
) -> str | None:
    """The mistake that turns `measured` bits/dim into `claimed`; None if they agree or none does.

    `more` are the family's own mistakes: in words, and the figure that each leads to.
    """
    if abs(claimed - measured) <= tolerance:
        return None

    def fits(value: float) -> bool:
        # An explanation must be much nearer to the claim than the honest figure is: there are many of them.
        near = max(tolerance, 0.02) * max(1e-9, abs(value))
        return abs(value - claimed) <= min(near, abs(measured - claimed) / 4)

    in_nats = {words + IN_NATS: bits * math.log(2) for words, bits in more.items()}
    candidates = {**_mistakes(measured, dims, levels), **more, **in_nats}

    def distance(words: str) -> float:
        # Two mistakes at once only where one does not do.
        value, twice = candidates[words], SAME * (words in in_nats)
        return abs(value - claimed) / abs(value or 1) + twice

    words = min(candidates, key=distance)
    if not fits(candidates[words]):
        return None
    # Where mistakes lead to one figure, as some do in any model that is well trained, each may be it: the
    # claim is of other images, and tells them apart no better than that.
    alike = next((group for group in (more, in_nats) if words in group), {})
    same = [other for other, bits in alike.items() if abs(bits - candidates[words]) <= tolerance / 2]
    each = [words, *(other for other in same if other != words)]
    words = "; or: ".join(other.removesuffix(IN_NATS) for other in each) + IN_NATS * (words in in_nats)
    return f"{claimed:.4g} bits/dim were claimed where the referee finds {measured:.4g}: {words}."


def _mistakes(bits: float, dims: int, levels: int) -> dict[str, float]:
    ln2 = math.log(2)
    mistakes = {
        "that is the figure in nats; divide by ln 2": bits * ln2,
        "that is divided by ln 2 twice": bits / ln2,
        "the sign is wrong: bits/dim is −log₂ p(x)/D": -bits,
        "the sign is wrong, and it is in nats: bits/dim is −log₂ p(x)/D": -bits * ln2,
        f"log₂ {levels} is missing: the density was scaled to [0, 1) and the levels forgotten": bits
        - math.log2(levels),
        f"log₂ {levels} was added twice": bits + math.log2(levels),
    }
    if dims > 1:
        mistakes |= {
            f"that is the sum over the {dims} dimensions, not their mean; divide by {dims}": bits * dims,
            f"that is the sum over the {dims} dimensions, in nats; divide by {dims} · ln 2": bits
            * dims
            * ln2,
            f"that is divided by the {dims} dimensions twice": bits / dims,
            f"that is divided by the {dims} dimensions twice, and in nats": bits / dims * ln2,
        }
    return mistakes


def _agreement(claimed: float, score: Score, levels: int) -> str:
    if abs(claimed - score.bits_per_dim) <= tolerance(score):
        return f"the claim of {figure(claimed)} bits/dim agrees with the {score.bits_per_dim:.3f} measured."
    words = f"{figure(claimed)} bits/dim were claimed, the referee measured {figure(score.bits_per_dim)}"
    words += " on new images"
    if claimed > max(score.bits_per_dim, 2 * math.log2(levels)):
        return (
            f"{words}, and a uniform guess costs {math.log2(levels):.4g}: is it a sum where a mean is meant?"
        )
    if claimed < score.bits_per_dim:
        return f"{words}: was the claim computed on training images, or the model overfitted?"
    return (
        f"{words}: was the claim computed by a function that fails its check, before training ended, or in "
        "training mode?"
    )
