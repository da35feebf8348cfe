"""What a model costs on images nobody has seen: one result for every family."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from dulcourse.errors import UsageError

__all__ = ["Score", "check_images", "given_reference", "summary"]


@dataclass(frozen=True, eq=False)
class Score:
    """What a model costs on images nobody has seen. All figures are bits/dim but `bits`, which is bits an
    image.
    """

    bits_per_dim: float
    standard_error: float
    reference_bits_per_dim: float | None  # None where there is no reference
    reference_standard_error: float | None
    difference: float | None  # to the reference on the same images: what points are given for
    difference_standard_error: float | None
    images: int
    failures: int  # answers that could not be used
    positions: Literal["one", "all"]
    bits: Float64[np.ndarray, " n"]  # charged to each image, for the positions that were sent
    label_gap: float | None = None  # what wrong labels cost; None where none were sent
    label_gap_standard_error: float | None = None
    reason: str = ""  # the first answer that could not be used, in words
    # What the bits/dim are made of: kl + reconstruction + cap, or prior − log_det + cap. What the cap took
    # off stands alone, where it took anything: the diagnosis asks for the others as they were.
    parts: Mapping[str, float] = field(default_factory=dict)


def summary(
    estimate: Float64[np.ndarray, " n"],
    reference: Float64[np.ndarray, " n"] | None,
    bits: Float64[np.ndarray, " n"],
    *,
    failures: int,
    reason: str,
    positions: Literal["one", "all"] = "all",
    control: Bool[np.ndarray, " n"] | None = None,
    parts: Mapping[str, float] | None = None,
) -> Score:
    """The score of `estimate`, bits/dim of each image, beside the reference's on the same images.

    Images in `control` were sent with a wrong label: they say what labels are worth, and count for nothing
    else.
    """
    control = np.zeros(len(estimate), bool) if control is None else control
    mean, error = _mean(estimate[~control])
    theirs = difference = (None, None)
    if reference is not None:
        theirs, difference = _mean(reference[~control]), _mean((estimate - reference)[~control])
    gap = (None, None)
    if control.any():
        excess = estimate if reference is None else estimate - reference
        (wrong, wrong_error), (right, right_error) = _mean(excess[control]), _mean(excess[~control])
        gap = wrong - right, math.hypot(wrong_error, right_error)
    return Score(
        bits_per_dim=mean,
        standard_error=error,
        reference_bits_per_dim=theirs[0],
        reference_standard_error=theirs[1],
        difference=difference[0],
        difference_standard_error=difference[1],
        images=int((~control).sum()),
        failures=failures,
        positions=positions,
        bits=bits,
        label_gap=gap[0],
        label_gap_standard_error=gap[1],
        reason=reason,
        parts=dict(parts or {}),
    )


def _mean(values: np.ndarray) -> tuple[float, float]:
    """The plain mean over all images (rule 4: no median, no trimming) and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def check_images(what: str, x: np.ndarray, shape: tuple[int, int, int], levels: int) -> None:
    """Refuse arrays that are not at least two images int64 `[n, C, H, W]` with values in 0 … L − 1."""
    if x.shape[1:] != shape or x.dtype != np.int64 or len(x) < 2:
        raise UsageError(f"{what} are {x.dtype} {x.shape}; expected int64 (at least 2, *{shape}).")
    if x.min() < 0 or x.max() >= levels:
        raise UsageError(f"{what} have values outside 0 … {levels - 1}.")


def given_reference(reference_bits: np.ndarray | None, n: int) -> np.ndarray | None:
    """What a reference is known to need, bits/dim of each image, where it is not there to be asked."""
    if reference_bits is not None and len(reference_bits) != n:
        raise UsageError(f"{len(reference_bits)} reference_bits for {n} images.")
    return reference_bits
