"""What is declared before any test image is drawn, read from a checkpoint on the trusted side."""

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from dulcourse.referee.respondent import Malformed
from dulcourse.referee.wire import WireError, decode_tensors

__all__ = ["Frozen", "FrozenLatents", "FrozenOrder", "buffers_of", "sha_of"]

Images = Int64[np.ndarray, "n C H W"]


@dataclass(frozen=True, eq=False)
class Frozen:
    """Sizes, and the checkpoint's fingerprint. A flow declares nothing else."""

    shape: tuple[int, int, int]
    levels: int
    checkpoint_sha: str

    @property
    def dims(self) -> int:
        """D, the number of symbols of one image."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class FrozenOrder(Frozen):
    """An autoregressive model's order and groups.

    `order[t]` indexes the symbol generated t-th in `x.flatten(1)`. `group[i]` is the step in which symbol
    i is generated; symbols of one group are answered at once and see only earlier groups.
    """

    order: Int64[np.ndarray, " D"]
    group: Int64[np.ndarray, " D"]

    def blind(
        self, x: Images, decoys: Images, position: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, "n C H W"]:
        """x where a symbol is generated before `position`, the decoy everywhere else, `position` included."""
        known = self.group[None, :] < self.group[position][:, None]
        flat = np.where(known, x.reshape(len(x), -1), decoys.reshape(len(x), -1))
        return np.ascontiguousarray(flat.reshape(x.shape))


@dataclass(frozen=True, eq=False)
class FrozenLatents(Frozen):
    """How many numbers a latent-variable model's z has: the homework's choice, not the model's."""

    latents: int


def buffers_of(checkpoint: bytes, only: Collection[str]) -> dict[str, np.ndarray]:
    """The buffers of these names in a checkpoint's bytes, or `Malformed` with the reason in words."""
    try:
        return decode_tensors(checkpoint, only=only)
    except WireError as error:
        raise Malformed(f"the checkpoint cannot be read: {error}") from error


def sha_of(checkpoint: bytes) -> str:
    """The fingerprint of a checkpoint's bytes."""
    return hashlib.sha256(checkpoint).hexdigest()
