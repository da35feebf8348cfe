"""What went wrong, in words and a matrix: computed after scoring, and worth no points."""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int64

from dulcourse.referee.frozen import FrozenOrder
from dulcourse.referee.respondent import Respondent, Spec, ask
from dulcourse.referee.score import Score

__all__ = ["dependency", "explain", "forbidden", "missing", "own_bits_per_dim", "said", "units"]

Matrix = Bool[np.ndarray, "D D"]
Order = Int64[np.ndarray, " D"]
Pair = tuple[int, int]

PIECE = 1 << 24  # logits asked for at once: 64 MiB


def dependency(
    respondent: Respondent,
    name: str,
    frozen: FrozenOrder,
    base: Int64[np.ndarray, "n C H W"],
    generator: np.random.Generator,
    *,
    flips: int = 3,
) -> Matrix:
    """M[i, j]: does the conditional of symbol i change when symbol j does?

    Each input of each base image is set to `flips` other levels, one at a time. The base images must not
    be test images that are still to be scored. An effect below the rounding of the answers counts as
    none.
    """
    matrix = np.zeros((frozen.dims, frozen.dims), bool)
    for image in base:
        before = _log_p(respondent, name, frozen, image[None])
        for inputs in _pieces(frozen, flips):
            changed = _perturb(image, inputs, frozen.levels, flips, generator)
            after = _log_p(respondent, name, frozen, changed.reshape(-1, *frozen.shape))
            # [inputs, flips, levels, D] -> does any level of output i move under any flip of input j?
            moved = _moved(before, after).reshape(len(inputs), -1, *before.shape[1:]).any(axis=(1, 2))
            matrix[:, inputs] |= moved.T
    return matrix


def _log_p(respondent: Respondent, name: str, frozen: FrozenOrder, x: np.ndarray) -> np.ndarray:
    """log softmax of the answered logits, `[n, levels, D]`, in the precision of the answer."""
    spec = Spec((len(x), frozen.levels, *frozen.shape))
    logits = ask(respondent, f"{name}.logits", {"x": x}, {"logits": spec})["logits"]
    logits = logits.reshape(len(x), frozen.levels, -1)
    with np.errstate(all="ignore"):  # finite numbers of any size may have been answered
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    # Batches of different sizes round differently; 512 units in the last place are far below any trained
    # weight.
    tolerance = 512 * np.finfo(before.dtype).eps
    with np.errstate(all="ignore"):
        return np.abs(after - before) > tolerance * (1 + np.abs(before))


def _pieces(frozen: FrozenOrder, flips: int) -> Iterable[Int64[np.ndarray, " n"]]:
    """Inputs in pieces whose logits stay below 64 MiB."""
    size = max(1, PIECE // (frozen.levels * frozen.dims * flips))
    return (np.arange(start, min(start + size, frozen.dims)) for start in range(0, frozen.dims, size))


def _perturb(image: np.ndarray, inputs: np.ndarray, levels: int, flips: int, generator) -> np.ndarray:
    """`[inputs, flips, D]`: the image with one symbol moved to another level."""
    flips = min(flips, levels - 1)
    steps = np.stack([generator.permutation(levels - 1)[:flips] + 1 for _ in inputs])
    changed = np.tile(image.reshape(-1), (len(inputs), flips, 1))
    rows = np.arange(len(inputs))
    changed[rows, :, inputs] = (changed[rows, :, inputs] + steps) % levels
    return changed


def forbidden(matrix: Matrix, order: Order, group: Order | None = None) -> Pair | None:
    """The first (output, input), in generation order, where an output sees what it must not; None if none
    does.
    """
    return _first(matrix & ~_past(order, group), order)


def missing(matrix: Matrix, order: Order, group: Order | None = None) -> list[Pair]:
    """The (output, input) pairs of the past that an output does not see, in generation order."""
    unseen = _past(order, group) & ~matrix
    return [(int(order[s]), int(order[t])) for s, t in np.argwhere(unseen[np.ix_(order, order)])]


def _past(order: Order, group: Order | None) -> Matrix:
    step = np.argsort(order) if group is None else group
    return step[None, :] < step[:, None]


def _first(pairs: Matrix, order: Order) -> Pair | None:
    found = np.argwhere(pairs[np.ix_(order, order)])
    return (int(order[found[0][0]]), int(order[found[0][1]])) if len(found) else None


def own_bits_per_dim(
    respondent: Respondent, name: str, images: Int64[np.ndarray, "n C H W"], labels: np.ndarray | None = None
) -> float:
    """What the model's own `log_prob` makes of whole images, in bits/dim. Ask only after they are scored."""
    question = {"x": images} if labels is None else {"x": images, "y": labels}
    nats = ask(respondent, f"{name}.log_prob", question, {"log_prob": Spec((len(images),))})["log_prob"]
    return float(-nats.astype(np.float64).mean() / (math.log(2) * images[0].size))


def said(respondent: Respondent, name: str) -> float | None:
    """The bits/dim that the notebook claimed for a model; None if it made no claim."""
    answer = ask(respondent, f"{name}.claim", {}, {"bits_per_dim": Spec((), finite=False)})
    value = float(answer["bits_per_dim"])
    return value if math.isfinite(value) else None


def explain(
    score: Score,
    *,
    frozen: FrozenOrder,
    claimed: float | None = None,
    own: float | None = None,
    matrix: Matrix | None = None,
) -> list[str]:
    """What the figures say, most useful first: unusable answers, a leak, other units, a blind spot."""
    words = []
    if score.failures:
        words.append(
            f"{score.failures} answers could not be used and were charged in full ({score.reason}); "
            "make logits(x) finite and of shape [batch, levels, C, H, W]."
        )
    leak = None if matrix is None else _leak(matrix, frozen)
    words += [leak] if leak else []
    tolerance = 0.02 + 4 * score.standard_error
    if own is not None and not leak and abs(own - score.bits_per_dim) > tolerance:
        words.append(
            f"the model's own log_prob says {own:.3f} bits/dim of images that cost {score.bits_per_dim:.3f} "
            "blind: log_prob and logits disagree; check that log_prob sums log softmax(logits) at the pixels."
        )
    if claimed is not None and not leak:
        honest = score.bits_per_dim if own is None else own
        words.append(
            units(claimed, honest, frozen.dims, frozen.levels, tolerance)
            or _agreement(claimed, score, tolerance)
        )
    if matrix is not None and not leak:
        words += _blind_spot(matrix, frozen)
    if score.label_gap is not None:
        words.append(
            f"wrong labels cost {score.label_gap:+.3f} bits/dim; near zero means that labels are ignored."
        )
    return words


def _leak(matrix: Matrix, frozen: FrozenOrder) -> str | None:
    pair = forbidden(matrix, frozen.order, frozen.group)
    if pair is None:
        return None
    output, source = pair
    words = f"output {_where(output, frozen)} sees input {_where(source, frozen)}, which it must predict"
    words += " itself" if output == source else ", or what comes after it"
    return f"a leak: {words}; {_leak_hint(matrix, frozen)}"


def _leak_hint(matrix: Matrix, frozen: FrozenOrder) -> str:
    D = frozen.dims
    if not np.array_equal(frozen.order, np.arange(D)):
        if forbidden(matrix, np.argsort(frozen.order)) is None:
            return "the masks follow `rank` (the inverse) where `order` is meant, or the reverse."
        if forbidden(matrix, np.arange(D)) is None:
            return "the masks follow the raster order, not the model's `order`."
    if not (matrix & ~_past(frozen.order, frozen.group) & ~np.eye(D, dtype=bool)).any():
        return (
            "every output sees its own input and nothing later: one layer must be strict, compare > with >=."
        )
    if matrix.all():
        return "every output sees every input: is any mask applied?"
    return "look at the mask of the layer that first lets it through, in the model's own order."


def _where(index: int, frozen: FrozenOrder) -> str:
    channels, height, width = frozen.shape
    if height * width == 1:
        return str(index)
    channel, row, column = np.unravel_index(index, frozen.shape)
    at = f"row {row}, column {column}" if channels == 1 else f"channel {channel}, row {row}, column {column}"
    return f"{index} ({at})"


def _blind_spot(matrix: Matrix, frozen: FrozenOrder) -> list[str]:
    unseen = missing(matrix, frozen.order, frozen.group)
    total = int(_past(frozen.order, frozen.group).sum())
    if not unseen:
        return []
    if len(unseen) == total:
        return ["no output sees any input: every symbol is modelled as independent of the others."]
    output, source = unseen[0]
    return [
        f"{len(unseen)} of {total} earlier inputs are not used; first, output {_where(output, frozen)} does "
        f"not see input {_where(source, frozen)}. A regular pattern is a blind spot."
    ]


def units(claimed: float, measured: float, dims: int, levels: int, tolerance: float = 0.02) -> str | None:
    """The mistake of units that turns `measured` bits/dim into `claimed`; None if they agree or none does."""
    if abs(claimed - measured) <= tolerance:
        return None
    candidates = _mistakes(measured, dims, levels)
    words, value = min(candidates.items(), key=lambda item: abs(item[1] - claimed) / abs(item[1] or 1))
    if abs(value - claimed) > max(tolerance, 0.02) * max(1e-9, abs(value)):
        return None
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


def _agreement(claimed: float, score: Score, tolerance: float) -> str:
    if abs(claimed - score.bits_per_dim) <= tolerance:
        return f"the claim of {claimed:.3f} bits/dim agrees with the {score.bits_per_dim:.3f} measured."
    words = (
        f"{claimed:.3f} bits/dim were claimed, the referee measured {score.bits_per_dim:.3f} on new images"
    )
    if claimed < score.bits_per_dim:
        return f"{words}: was the claim computed on training images, or the model overfitted?"
    return f"{words}: was the claim computed before training ended, or in training mode?"
