"""Samples judged by the model's own conditionals, which another party answers blind.

If the sampler draws from the conditionals then Σ (−log p(x_i | x_<i) − H_i) has mean zero whatever the
model is, and

    z = Σ (−log p(x_i | x_<i) − H_i) / √(Σ Var_i)

is standard normal. It finds a temperature, an argmax, most wrong orders. Errors that cancel in the sum
(samples too likely here and too unlikely there) show in how often each level occurs at each position,
against Σ p.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64

from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.errors import UsageError
from dulcourse.referee.autoregressive import conditionals, reference_charges
from dulcourse.referee.frozen import FrozenOrder
from dulcourse.referee.respondent import Malformed, Respondent, Spec, ask

__all__ = ["SamplerResult", "draw", "judge", "sampler_test", "spread_statistic", "z_statistic"]

ROWS = 1 << 14  # conditionals asked about: all 64 positions of 256 small images, some of larger ones
FAR = 5.0  # statistics beyond this are no accident: 6e-7 for a normal

Images = Int64[np.ndarray, "n C H W"]
Known = Int64[np.ndarray, "m C H W"]  # training images: any number of them
Honest = Int64[np.ndarray, "k C H W"]
Labels = Int64[np.ndarray, " n"]  # of the samples, in their order


@dataclass(frozen=True)
class SamplerResult:
    """Passed or not, both statistics, what to look at next, and the samples for the report.

    The statistics are None when the conditionals were not answered, the samples when there are none.
    """

    passed: bool
    z: float | None
    words: list[str]
    samples: np.ndarray | None = field(default=None, repr=False)
    spread: float | None = None


def sampler_test(
    sampling: Respondent,
    answering: Respondent,
    name: str,
    frozen: FrozenOrder,
    n: int,
    *,
    train: Known,
    generator: np.random.Generator,
    reference: AutoregressiveModel | None = None,
    honest: Honest | None = None,
    labels: Labels | None = None,
) -> SamplerResult:
    """`draw` and `judge` in one. A grader calls them apart, closing the sampling party in between (rule
    8).
    """
    try:
        samples = draw(sampling, name, frozen, n, generator=generator, labels=labels)
    except Malformed as error:
        return SamplerResult(False, None, [str(error)])
    return judge(
        answering,
        name,
        frozen,
        samples,
        train=train,
        generator=generator,
        reference=reference,
        honest=honest,
        labels=labels,
    )


def draw(
    sampling: Respondent,
    name: str,
    frozen: FrozenOrder,
    n: int,
    *,
    generator: np.random.Generator,
    labels: Labels | None = None,
) -> Images:
    """n samples of the model, one of each label if it is class-conditional.

    Raises `Malformed` when they are not n images with values in 0 … L − 1.
    """
    question = {"n": np.int64(n), "seed": generator.integers(2**62)}
    if labels is not None:
        question["y"] = labels
    spec = Spec((n, *frozen.shape), kind="i")
    x = ask(sampling, f"{name}.sample", {k: np.asarray(v) for k, v in question.items()}, {"x": spec})["x"]
    if (x < 0).any() or (x >= frozen.levels).any():
        raise Malformed(f"{name}.sample gave values outside 0 … {frozen.levels - 1}")
    return x.astype(np.int64)


def judge(
    answering: Respondent,
    name: str,
    frozen: FrozenOrder,
    samples: Images,
    *,
    train: Known,
    generator: np.random.Generator,
    reference: AutoregressiveModel | None = None,
    honest: Honest | None = None,
    labels: Labels | None = None,
) -> SamplerResult:
    """Do the samples follow the conditionals, and are they new and different images of the right kind?

    The conditionals could be faked for samples that are recognised, so samples are also compared with
    `honest` ones: the reference's samples (of the same labels), or held-out images where there is no
    reference.
    """
    if reference is None and honest is None:
        raise UsageError("samples are compared with a reference's or with held-out images: pass one of them.")
    if honest is None:
        honest = _reference_samples(reference, len(samples), generator, labels)
    try:
        z, spread = _agreement(answering, name, frozen, samples, train, generator, labels)
    except Malformed as error:
        return SamplerResult(False, None, [str(error)], samples)
    words = _disagreement(z, spread, same=bool((samples == samples[:1]).all()))
    words += _alike(samples, honest)
    words += _copies(samples, honest, train)
    if reference is not None:
        words += _cost(samples, honest, reference, generator, labels)
    good = [f"z = {z:.1f}: the samples follow the model's own conditionals."]
    return SamplerResult(not words, z, words or good, samples, spread)


def _agreement(
    answering, name, frozen: FrozenOrder, samples, train, generator, labels
) -> tuple[float, float]:
    """z and spread over a bounded number of (sample, position) pairs, asked blind like test images."""
    n, dims = len(samples), frozen.dims
    count = min(dims, max(1, ROWS // n))
    position = np.argsort(generator.random((n, dims)), axis=1)[:, :count].reshape(-1)
    row = np.repeat(np.arange(n), count)
    decoys = train[generator.integers(len(train), size=len(row))]
    x = frozen.blind(samples[row], decoys, position)
    log_p = conditionals(answering, name, frozen, x, position, None if labels is None else labels[row])
    if not np.isfinite(log_p).all():
        raise Malformed("conditionals of the model's own samples are not finite")
    symbols = samples.reshape(n, -1)[row, position]
    return z_statistic(log_p, symbols), spread_statistic(log_p, symbols, position)


def z_statistic(log_p: Float[np.ndarray, "n levels"], symbols: Int64[np.ndarray, " n"]) -> float:
    """Σ(−log p(x) − H) / √ΣVar, with H and Var the mean and the variance of −log p under p.

    Conditionals without any variance (one level certain, or all alike) admit one value only: z is 0 or
    infinite.
    """
    p = _softmax(log_p)
    surprise = -np.log(np.maximum(p, np.finfo(np.float64).tiny))
    H = (p * surprise).sum(axis=1)
    variance = (p * (surprise - H[:, None]) ** 2).sum()
    excess = (surprise[np.arange(len(symbols)), symbols] - H).sum()
    if variance < 1e-12 * len(symbols):
        return 0.0 if abs(excess) < 1e-6 * len(symbols) else math.copysign(math.inf, excess)
    return float(excess / math.sqrt(variance))


def spread_statistic(
    log_p: Float[np.ndarray, "n levels"], symbols: Int64[np.ndarray, " n"], position: Int64[np.ndarray, " n"]
) -> float:
    """Σ over (position, level) of (count − Σp)² / Σp(1−p), against the χ² it should be; about standard
    normal.

    Cells in which fewer than 5 are expected are left out (their squares are not like χ²), and the sum of K
    squares is put on a normal scale by its cube root (Wilson and Hilferty).
    """
    p = _softmax(log_p)
    residual = -p
    residual[np.arange(len(symbols)), symbols] += 1
    sums = np.zeros((2, position.max() + 1, p.shape[1]))
    np.add.at(sums[0], position, residual)
    np.add.at(sums[1], position, p * (1 - p))
    cells = sums[1] >= 5
    K = int(cells.sum())
    if K == 0:
        return 0.0
    square = (sums[0][cells] ** 2 / sums[1][cells]).sum()
    return float(((square / K) ** (1 / 3) - (1 - 2 / (9 * K))) / math.sqrt(2 / (9 * K)))


def _softmax(log_p: Float[np.ndarray, "n levels"]) -> Float64[np.ndarray, "n levels"]:
    with np.errstate(over="ignore"):  # finite numbers of any size may have been answered
        weights = np.exp(log_p.astype(np.float64) - log_p.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _disagreement(z: float, spread: float, same: bool) -> list[str]:
    if max(abs(z), spread) <= FAR:
        return []
    if same:
        hint = "all of them are the same: draw from softmax(logits), not its largest entry."
    elif z < -spread:
        hint = "they are too probable: draw from softmax(logits), not its largest entry, at temperature 1."
    else:
        hint = (
            "unless the model itself leaks, look at the order used while sampling: `order` (which symbol is "
            "t-th) vs `rank` (its inverse), whether every draw is written down before the next, and whether "
            "softmax is taken over the levels."
        )
    return [f"z = {z:.0f}, spread {spread:.0f}: the samples do not follow the conditionals; {hint}"]


def _reference_samples(reference: AutoregressiveModel, n: int, generator, labels) -> Images:
    # These never meet a respondent, so the few bits of a torch seed are no secret to keep.
    device = reference.order.device
    seeded = torch.Generator(device).manual_seed(int(generator.integers(2**62)))
    y = None if labels is None else torch.from_numpy(labels).to(device)
    return reference.sample(n, y, generator=seeded).cpu().numpy()


def _alike(samples: Images, honest: Honest) -> list[str]:
    different, usual = (len(np.unique(x.reshape(len(x), -1), axis=0)) / len(x) for x in (samples, honest))
    if different >= usual / 2:
        return []
    return [f"only {different:.0%} of the samples differ from each other (honest ones: {usual:.0%})."]


def _copies(samples: Images, honest: Honest, train: Known) -> list[str]:
    """Nearest training images: samples must not be much nearer to them than honest ones are."""
    near, usual = (_nearest(x, train) for x in (samples, honest))
    if near.mean() >= usual.mean() / 2:
        return []
    return [
        f"the samples are copies: on average {near.mean():.1f} symbols from the nearest training image, "
        f"honest ones are {usual.mean():.1f} away."
    ]


def _nearest(x: Images, train: Known) -> Int64[np.ndarray, " n"]:
    """How many symbols differ between each image and the training image nearest to it."""
    # In the smallest integers that hold them, and symbol by symbol along the training images: that is quick.
    symbols, counts = (np.min_scalar_type(n) for n in (max(x.max(), train.max()), x[0].size))
    known = np.ascontiguousarray(train.reshape(len(train), -1).T.astype(symbols))
    each = x.reshape(len(x), -1, 1).astype(symbols)
    return np.array([(known != image).sum(axis=0, dtype=counts).min() for image in each], np.int64)


def _cost(samples: Images, honest: Images, reference: AutoregressiveModel, generator, labels) -> list[str]:
    """Samples must cost the reference about what honest ones do.

    The band is wide, from 0.65 of that to half-way to noise: it is for faked samples, not for weak models.
    """
    noise = generator.integers(reference.levels, size=honest.shape)
    costs = [reference_charges(reference, x, labels).mean(axis=1) for x in (samples, honest, noise)]
    bits, usual, chaos = (float(cost.mean()) for cost in costs)
    error = math.hypot(*(cost.std() / math.sqrt(len(cost)) for cost in costs[:2]))
    if 0.65 * usual - 4 * error <= bits <= (usual + chaos) / 2 + 4 * error:
        return []
    kind = "improbable" if bits > usual else "simple"
    return [
        f"the samples are too {kind} for this data: the reference needs {bits:.2f} bits/dim for them and "
        f"{usual:.2f} for honest ones."
    ]
