"""Blind scoring of autoregressive models: the respondent never sees the symbol it predicts.

For an image x and a position i of the frozen order the respondent gets the symbols before i, *followed by
a decoy's*, and answers p(· | what came before). Only then is x_i looked up and charged.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.errors import UsageError
from dulcourse.referee.code import capped, charges, malformed
from dulcourse.referee.frozen import FrozenOrder, buffers_of, sha_of
from dulcourse.referee.respondent import Malformed, Respondent, Spec, ask, at_once
from dulcourse.referee.score import Score, check_images, given_reference, summary

__all__ = ["conditionals", "freeze", "reference_charges", "score"]

Images = Int64[np.ndarray, "n C H W"]


def freeze(
    checkpoint: bytes,
    shape: tuple[int, int, int],
    levels: int,
    required_order: Int64[np.ndarray, " D"] | None = None,
) -> FrozenOrder:
    """The declarations in a checkpoint's bytes (safetensors with the buffer `order`, and `group` if there
    is one).

    `shape` and `levels` are the homework's, not the model's. Raises `Malformed` with the reason in words.
    """
    dims = math.prod(shape)
    buffers = buffers_of(checkpoint, only=("order", "group"))
    if "order" not in buffers:
        raise Malformed("the checkpoint has no buffer 'order'; handin.trained saves it for every model.")
    order = _integers("order", buffers["order"], dims)
    if not np.array_equal(np.sort(order), np.arange(dims)):
        raise Malformed(
            f"the buffer 'order' is not a permutation: each of 0 … {dims - 1} must be there once."
        )
    if required_order is not None:
        _check_required(order, np.asarray(required_order))
    group = _integers("group", buffers["group"], dims) if "group" in buffers else np.argsort(order)
    if (np.diff(group[order]) < 0).any():
        raise Malformed(
            "the buffer 'group' must not decrease along 'order': groups are generated one by one."
        )
    order.flags.writeable = group.flags.writeable = False
    return FrozenOrder(tuple(shape), levels, sha_of(checkpoint), order, group)


def _integers(name: str, array: np.ndarray, dims: int) -> Int64[np.ndarray, " D"]:
    if array.dtype.kind not in "iu" or array.shape != (dims,):
        raise Malformed(
            f"the buffer {name!r} is {array.dtype} {list(array.shape)}; expected integers of shape [{dims}]."
        )
    return array.astype(np.int64)


def _check_required(order: Int64[np.ndarray, " D"], required: Int64[np.ndarray, " D"]) -> None:
    if np.array_equal(order, required):
        return
    if np.array_equal(np.argsort(order), required):
        raise Malformed(
            "the buffer 'order' holds the inverse of the ordering asked for: order[t] is the symbol "
            "generated t-th, rank[i] says when symbol i is generated."
        )
    t = int(np.flatnonzero(order != required)[0])
    raise Malformed(
        f"the model's order is not the one asked for: the symbol generated at t = {t} is {order[t]}, "
        f"expected {required[t]}."
    )


@dataclass
class _Sent:
    """One image's way through the protocol, for all images at once."""

    bits: Float64[np.ndarray, " n"]
    failed: Bool[np.ndarray, " n"]
    failures: int = 0
    reason: str = ""
    position: Int64[np.ndarray, " n"] | None = None  # in mode "one"


def score(
    respondent: Respondent,
    name: str,
    frozen: FrozenOrder,
    images: Images,
    *,
    decoys: Int64[np.ndarray, "m C H W"],
    generator: np.random.Generator,
    reference: AutoregressiveModel | None = None,
    reference_bits: Float64[np.ndarray, " r"] | None = None,
    positions: Literal["one", "all"] = "one",
    labels: Int64[np.ndarray, " n"] | None = None,
    classes: int | None = None,
) -> Score:
    """−log₂ p(x)/D of a respondent's model, measured blind.

    "one" sends a single position t of each image and charges m; with r the reference's charges on the
    same image

        Σ_n [ (1/D) Σ_i r_ni + (m − r)_n,t ] / N

    is unbiased for any r, and most of the noise of drawing t cancels. "all" sends every position, in
    rounds of rising rank, so that an image's rounds never share a call. Where only the reference's total
    is known (bits/dim an image), `reference_bits` stands in for `reference` in mode "all".

    A class-conditional model is sent `labels` in 0 … `classes` − 1, and pays log₂ `classes` bits an image
    for them.

    Arguments:
        images: test images that nobody has seen, each used here and never again.
        decoys: what follows the symbols that are sent: training images or noise, never test images.
    """
    _check_arguments(frozen, images, decoys, positions, reference, reference_bits)
    n, dims = len(images), frozen.dims
    side, sent_labels, control = _side_information(labels, classes, n, generator)
    # Rule 9: whatever order the images came in (sorted by label, say) is side information too, and is
    # shuffled away.
    shuffled = generator.permutation(n)
    ask_all = _ask_one if positions == "one" else _ask_every
    sent = ask_all(
        respondent, name, frozen, images[shuffled], _take(sent_labels, shuffled), decoys, generator
    )
    back = np.argsort(shuffled)
    bits = capped(sent.bits, sent.failed, 1 if positions == "one" else dims, frozen.levels)[back]
    measured = bits / (1 if positions == "one" else dims) + side / dims
    if reference is None:
        r, estimate = given_reference(reference_bits, n), measured
    else:
        symbols = reference_charges(reference, images, labels)
        r, estimate = (symbols.sum(axis=1) + side) / dims, measured
        if positions == "one":
            # With the labels that were sent: a wrong one surprises both models at the same symbols.
            if control.any():
                symbols[control] = reference_charges(reference, images[control], sent_labels[control])
            estimate = symbols.mean(axis=1) + measured - symbols[np.arange(n), sent.position[back]]
    return summary(
        estimate,
        r,
        bits,
        failures=sent.failures,
        reason=sent.reason,
        positions=positions,
        control=control,
        parts={} if labels is None else {"label": side / dims},
    )


def _check_arguments(frozen, images, decoys, positions, reference, reference_bits) -> None:
    if positions not in ("one", "all"):
        raise UsageError(f"positions {positions!r} is neither 'one' nor 'all'.")
    for what, x in (("images", images), ("decoys", decoys)):
        check_images(what, x, frozen.shape, frozen.levels)
    if reference_bits is not None and (reference is not None or positions == "one"):
        raise UsageError("reference_bits stands in for a reference, and with positions='all' only.")


def _side_information(labels, classes, n: int, generator) -> tuple[float, np.ndarray | None, np.ndarray]:
    """Bits an image for its label, the labels that are sent, and which images get a wrong one (and no
    score).
    """
    control = np.zeros(n, bool)
    if labels is None:
        return 0.0, None, control
    if classes is None or labels.shape != (n,) or labels.min() < 0 or labels.max() >= classes:
        raise UsageError(f"labels must be {n} integers from 0 to classes − 1 (classes is {classes}).")
    control[generator.permutation(n)[: n // 4]] = True
    sent = labels.copy()
    sent[control] = generator.permutation(labels[control])
    # Rule 9: a label is part of the message. Without its price a model could be told the image in its label.
    return math.log2(classes), sent, control


def _take(values: np.ndarray | None, index: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[index]


def _ask_one(respondent, name, frozen, images, labels, decoys, generator) -> _Sent:
    """One position an image, all in one call: nothing to remember, no rounds."""
    n = len(images)
    position = generator.integers(frozen.dims, size=n)
    sent = _Sent(np.zeros(n), np.zeros(n, bool), position=position)
    _round(sent, respondent, name, frozen, images, labels, _pick(decoys, n, generator), position[:, None])
    return sent


def _ask_every(respondent, name, frozen, images, labels, decoys, generator) -> _Sent:
    """Every position, group by group: a round reveals symbols that were charged in the rounds before."""
    n = len(images)
    sent = _Sent(np.zeros(n), np.zeros(n, bool))
    for step in np.unique(frozen.group):
        members = np.flatnonzero(frozen.group == step)
        position = np.broadcast_to(members, (n, len(members)))
        _round(sent, respondent, name, frozen, images, labels, _pick(decoys, n, generator), position)
        if sent.failed.all():
            break  # nothing that is still asked could change a charge
    return sent


def _pick(decoys: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    return decoys[generator.integers(len(decoys), size=n)]


def _round(sent: _Sent, respondent, name, frozen, images, labels, decoys, position) -> None:
    """Put one call, `position [n, k]` symbols of each image at once, and add what the answers cost."""
    n, k = position.shape
    row = np.repeat(np.arange(n), k)
    at = position.reshape(-1)
    try:
        log_p = conditionals(
            respondent, name, frozen, frozen.blind(images[row], decoys[row], at), at, _take(labels, row)
        )
    except Malformed as error:
        sent.failed[:] = True
        sent.failures += n * k
        sent.reason = sent.reason or str(error)
        return
    symbols = images.reshape(n, -1)[row, at]
    sent.bits += charges(log_p, symbols, frozen.levels).reshape(n, k).sum(axis=1)
    unusable = int(malformed(log_p).sum())
    sent.failures += unusable
    if unusable and not sent.reason:
        sent.reason = f"{unusable} answers held numbers that are not finite"


def conditionals(
    respondent: Respondent,
    name: str,
    frozen: FrozenOrder,
    x: Images,
    position: Int64[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"] | None = None,
) -> Float64[np.ndarray, "n levels"]:
    """The respondent's log p(x_position = level | what x shows), as answered. Raises `Malformed`."""
    question = {"x": x, "position": np.ascontiguousarray(position)}
    if labels is not None:
        question["y"] = np.ascontiguousarray(labels)
    spec = Spec((len(x), frozen.levels), finite=False)  # a bad row spoils itself, not the whole answer
    return ask(respondent, f"{name}.conditional", question, {"log_p": spec})["log_p"].astype(np.float64)


def reference_charges(
    reference: AutoregressiveModel, images: Images, labels: Int64[np.ndarray, " n"] | None = None
) -> Float64[np.ndarray, "n D"]:
    """What each symbol costs under a trusted model, charged as a respondent would be."""
    rows = [
        charges(logits.reshape(-1, reference.levels), x.reshape(-1), reference.levels).reshape(len(x), -1)
        for x, logits in _reference_logits(reference, images, labels)
    ]
    return np.concatenate(rows)


def _reference_logits(reference, images, labels) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images and of their logits `[batch, D, levels]`, a bounded number at a time."""
    device = reference.order.device
    size = at_once(reference.levels * images[0].size)
    reference.eval()
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        y = None if labels is None else torch.from_numpy(labels[part]).to(device)
        with torch.no_grad():
            logits = reference.logits(torch.from_numpy(images[part]).to(device), y)
        yield images[part], logits.detach().flatten(2).transpose(1, 2).double().cpu().numpy()
