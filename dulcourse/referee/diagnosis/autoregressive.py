"""Autoregressive models: leaks, blind spots, the order of sub-pixels, labels that are ignored."""

import math
from dataclasses import replace

import numpy as np

from dulcourse.referee.diagnosis.claims import (
    BOUNDED,
    SOFTMAX,
    figure,
    hopeless,
    judged,
    tolerance,
    unexplained,
    unusable,
)
from dulcourse.referee.diagnosis.matrix import Matrix, forbidden, missing, past
from dulcourse.referee.frozen import FrozenOrder
from dulcourse.referee.score import Score

__all__ = ["explain"]

MOST = 0.97  # of pairs: what two explanations of a leak do not have in common is more
IGNORED = 1e-6  # bits/dim that wrong labels cost who does not look at them: rounding
FEW = 0.01  # of the past: what masks leave out is more, but for the channels of a pixel


def explain(
    score: Score,
    *,
    frozen: FrozenOrder,
    claimed: float | None = None,
    own: float | None = None,
    labels_worth: float | None = None,
    matrix: Matrix | None = None,
    softmax: bool = False,
    bounded: bool = False,
) -> list[str]:
    """What the figures say, most useful first: unusable answers, a leak, other units, a blind spot.

    `claimed` holds the price of the label, as the score does. `own` is what the model's own log_prob says of
    the images; `labels_worth`, how much more it says that some of them cost with wrong labels; `softmax`,
    whether logits are probabilities already, and `bounded`, whether they end at −1 and 1.
    """
    label = score.parts.get("label", 0.0)
    blind = replace(score, bits_per_dim=score.bits_per_dim - label)  # as log p(x | y) has it
    words = unusable(score, "make logits(x) finite and of shape [batch, levels, C, H, W]")
    leak = None if matrix is None else _leak(matrix, frozen)
    words += [leak] if leak else []
    words += [f"logits returns {SOFTMAX}"] * softmax + [f"logits returns {BOUNDED}"] * bounded
    sound = not leak and not score.failures  # else what is wrong is in every figure
    lost = hopeless(min(blind.bits_per_dim, own or math.inf), frozen.levels) if sound and not softmax else []
    words += lost
    disagrees = own is not None and abs(own - blind.bits_per_dim) > tolerance(score)
    if disagrees and sound and not lost:
        words.append(
            f"the model's own log_prob says {figure(own)} bits/dim of images that cost "
            f"{blind.bits_per_dim:.3f} blind: log_prob and logits disagree; check that log_prob sums "
            "log softmax(logits) at the pixels."
        )
    consistent = not words
    if claimed is not None and sound:
        honest = own if disagrees else blind.bits_per_dim
        consistent &= abs(claimed - label - honest) <= tolerance(score)
        without = f"without the {label:.3f} bits/dim of the label, " if label else ""
        words.append(without + judged(claimed - label, blind, frozen.dims, frozen.levels, honest))
    spot = []
    if matrix is not None and not leak and not softmax:  # which leaves faint effects only
        spot = _blind_spot(matrix, frozen)
    words += spot if spot or not consistent else unexplained(score)
    # Who sees the answer needs no label.
    return words if leak else words + _labels(score, label, labels_worth)


def _labels(score: Score, price: float, worth: float | None) -> list[str]:
    if score.label_gap is None:
        return []
    # Its own figures are of whole images, and of the same ones; the gap that was measured is far noisier.
    gap, noise = worth, 0.0
    if worth is None:
        gap, noise = score.label_gap, 3 * score.label_gap_standard_error
    words = f"wrong labels cost {gap:+.3f} bits/dim"
    if abs(gap) <= max(0.002, noise):
        certain = worth is None or abs(gap) <= IGNORED
        ignored = "the labels are ignored" if certain else "the labels hardly change anything"
        return [f"{words}: {ignored}; look at where y enters logits(x, y)."]
    return [f"{words}, so the labels are used; the score holds {price:.3f} bits/dim for the label itself."]


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
    later = matrix & ~past(frozen.order, frozen.group)
    if not (later & ~np.eye(D, dtype=bool)).any():
        return (
            "every output sees its own input and nothing later: one layer must be strict, compare > with >= "
            "(or shift its input by one, where there is no mask)."
        )
    if not (later & ~_same_pixel(frozen)).any():
        return (
            "no output sees a later pixel, but channels of its own: the channel order is not kept; within a "
            "pixel, R sees none, G sees R, B sees R and G, in the first layer strictly."
        )
    if np.array_equal(frozen.order, np.arange(D)) and not (later & ~_same_row(frozen)).any():
        return (
            "nothing of a row below is seen, but what comes later in the output's own row: look at the shift "
            "of the vertical stack, or at the mask of the centre's row."
        )
    if not np.array_equal(frozen.order, np.arange(D)):
        if forbidden(matrix, np.argsort(frozen.order)) is None:
            return "the masks follow `rank` (the inverse) where `order` is meant, or the reverse."
        if forbidden(matrix, np.arange(D)) is None:
            return "the masks follow the raster order, not the model's `order`."
    if _mixed(matrix, frozen):
        return (
            "levels and pixels of the outputs are mixed up: number i·L + l is level l of pixel i, in "
            "degrees (repeat_interleave) and logits (unflatten, then transpose)."
        )
    if matrix.all():
        return "every output sees every input: is any mask applied?"
    if _transposed(matrix, frozen):
        return (
            "rows and columns are exchanged: every output sees what comes before it in the transposed image; "
            "bring the levels to axis 1 by movedim, which keeps the others in their order."
        )
    return (
        "look at the mask, or at padding and shifts, of the layer that first lets it through, in the model's "
        "own order (or is what goes in brought into shape by reshape, where movedim is meant?)."
    )


def _transposed(matrix: Matrix, frozen: FrozenOrder) -> bool:
    """Whether nothing is forbidden any more when the images that went in, or all images, are transposed."""
    channels, height, width = frozen.shape
    if height != width or height == 1:
        return False
    turned = np.arange(frozen.dims).reshape(channels, height, width).swapaxes(1, 2).reshape(-1)
    readings = matrix[:, turned], matrix[turned][:, turned]
    return any(forbidden(reading, frozen.order, frozen.group) is None for reading in readings)


def _mixed(matrix: Matrix, frozen: FrozenOrder) -> bool:
    """Whether outputs see what they would if pixels lay beside each other for one level after the other."""
    D, levels = frozen.dims, np.arange(frozen.levels)
    allowed, outputs = past(frozen.order, frozen.group), np.arange(D)[:, None]
    for meant in ((levels * D + outputs) // frozen.levels, (outputs * frozen.levels + levels) % D):
        expected = allowed[meant].any(axis=1)
        if not (matrix & ~expected).any() and (matrix == expected).mean() > MOST:
            return True
    return False


def _same_pixel(frozen: FrozenOrder) -> Matrix:
    """Pairs of symbols that are channels of one pixel."""
    pixel = np.arange(frozen.dims) % (frozen.shape[1] * frozen.shape[2])
    return pixel[:, None] == pixel[None, :]


def _same_row(frozen: FrozenOrder) -> Matrix:
    """Pairs of symbols in one row, where there are several."""
    row = np.unravel_index(np.arange(frozen.dims), frozen.shape)[1]
    return (row[:, None] == row[None, :]) & (frozen.shape[1] > 1)


def _where(index: int, frozen: FrozenOrder) -> str:
    channels, height, width = frozen.shape
    if height * width == 1:
        return str(index)
    channel, row, column = np.unravel_index(index, frozen.shape)
    at = f"row {row}, column {column}" if channels == 1 else f"channel {channel}, row {row}, column {column}"
    return f"{index} ({at})"


def _blind_spot(matrix: Matrix, frozen: FrozenOrder) -> list[str]:
    unseen = missing(matrix, frozen.order, frozen.group)
    total = int(past(frozen.order, frozen.group).sum())
    if not unseen:
        return []
    if len(unseen) == total:
        return ["no output sees any input: every symbol is modelled as independent of the others."]
    output, source = unseen[0]
    hint = _blind_hint(unseen, frozen, few=len(unseen) < FEW * total)
    if hint is None:
        return []
    return [
        f"{len(unseen)} of {total} earlier inputs are not used; first, output {_where(output, frozen)} does "
        f"not see input {_where(source, frozen)}. {hint}"
    ]


def _blind_hint(unseen: list[tuple[int, int]], frozen: FrozenOrder, few: bool) -> str | None:
    """What is unseen, in words; None for so few that their effect may just be too faint to be told from
    rounding.
    """
    outputs, inputs = (np.unravel_index(index, frozen.shape) for index in np.array(unseen).T)
    if ((inputs[1] == outputs[1]) & (inputs[2] == outputs[2])).all():
        return (
            "All of them are earlier channels of the output's own pixel: the channel order; G may see R, and "
            "B may see R and G, in every layer."
        )
    if (inputs[1] == outputs[1]).mean() > MOST:
        return (
            "They lie in the output's own row: look at what the horizontal stack is given, and whether the "
            "output reads it."
        )
    if _all_above(unseen, frozen):
        return (
            "Nothing of any row above is seen: of two stacks, the vertical one must feed the horizontal one."
        )
    if few:
        return None
    if ((inputs[1] < outputs[1]) & (inputs[2] > outputs[2])).all():
        return (
            "All of them lie above and to the right: the blind spot of stacked masked convolutions; a "
            "vertical stack that feeds the horizontal one has none."
        )
    return "A regular pattern is a blind spot."


def _all_above(unseen: list[tuple[int, int]], frozen: FrozenOrder) -> bool:
    """Whether every earlier input of a row above is among those that are not seen."""
    row = np.unravel_index(np.arange(frozen.dims), frozen.shape)[1]
    above = past(frozen.order, frozen.group) & (row[None, :] < row[:, None])
    outputs, inputs = np.array(unseen).T
    return bool(above.any()) and int(above[outputs, inputs].sum()) == int(above.sum())
