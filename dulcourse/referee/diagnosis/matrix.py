"""What depends on what: every output of an autoregressive model against every input."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int64

from dulcourse.referee.frozen import FrozenOrder
from dulcourse.referee.respondent import Respondent, Spec, ask

__all__ = ["Matrix", "answered", "dependency", "forbidden", "missing", "past"]

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
    label: int | None = None,
) -> Matrix:
    """M[i, j]: does the conditional of symbol i change when symbol j does?

    Each input is set to `flips` other levels, one at a time: in the first base image, and in the next ones
    while some output after it has not been seen to move. One image does not show everything: the effect of a
    far corner in a trained model can be below the rounding of the answers, and counts as none there. The
    base images must not be test images that are still to be scored. A class-conditional model is asked with
    one `label` throughout.
    """
    matrix = np.zeros((frozen.dims, frozen.dims), bool)
    allowed = past(frozen.order, frozen.group)
    for number, image in enumerate(base):
        unseen = np.flatnonzero((allowed & ~matrix).any(axis=0)) if number else np.arange(frozen.dims)
        if not len(unseen):
            break
        for inputs in _pieces(unseen, frozen, flips):
            changed = _perturb(image, inputs, frozen.levels, flips, generator).reshape(-1, *frozen.shape)
            log_p = _log_p(respondent, name, frozen, np.concatenate([image[None], changed]), label)
            # [inputs, flips, levels, D] -> does any level of output i move under any flip of input j?
            moved = _moved(log_p[:1], log_p[1:]).reshape(len(inputs), -1, *log_p.shape[1:]).any(axis=(1, 2))
            matrix[:, inputs] |= moved.T
    return matrix


def answered(
    respondent: Respondent, name: str, frozen: FrozenOrder, x: np.ndarray, label: int | None
) -> np.ndarray:
    """The logits of whole images, `[n, levels, D]`."""
    spec = Spec((len(x), frozen.levels, *frozen.shape))
    question = {"x": x} if label is None else {"x": x, "y": np.full(len(x), label)}
    logits = ask(respondent, f"{name}.logits", question, {"logits": spec})["logits"]
    return logits.reshape(len(x), frozen.levels, -1)


def _log_p(
    respondent: Respondent, name: str, frozen: FrozenOrder, x: np.ndarray, label: int | None
) -> np.ndarray:
    """log softmax of the answered logits, `[n, levels, D]`, in the precision of the answer."""
    logits = answered(respondent, name, frozen, x, label)
    with np.errstate(all="ignore"):  # finite numbers of any size may have been answered
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    # Where a batch is cut in pieces, those of different sizes round differently; 512 units in the last place
    # are far below any trained weight.
    tolerance = 512 * np.finfo(before.dtype).eps
    with np.errstate(all="ignore"):
        return np.abs(after - before) > tolerance * (1 + np.abs(before))


def _pieces(inputs: np.ndarray, frozen: FrozenOrder, flips: int) -> Iterable[Int64[np.ndarray, " n"]]:
    """Inputs in pieces whose logits stay below 64 MiB."""
    size = max(1, PIECE // (frozen.levels * frozen.dims * flips))
    return (inputs[start : start + size] for start in range(0, len(inputs), size))


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
    return _first(matrix & ~past(order, group), order)


def missing(matrix: Matrix, order: Order, group: Order | None = None) -> list[Pair]:
    """The (output, input) pairs of the past that an output does not see, in generation order."""
    unseen = past(order, group) & ~matrix
    return [(int(order[s]), int(order[t])) for s, t in np.argwhere(unseen[np.ix_(order, order)])]


def past(order: Order, group: Order | None = None) -> Matrix:
    """Which (output, input) pairs are allowed: the inputs of earlier steps."""
    step = np.argsort(order) if group is None else group
    return step[None, :] < step[:, None]


def _first(pairs: Matrix, order: Order) -> Pair | None:
    found = np.argwhere(pairs[np.ix_(order, order)])
    return (int(order[found[0][0]]), int(order[found[0][1]])) if len(found) else None
