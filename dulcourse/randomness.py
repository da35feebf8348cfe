"""Random numbers by name: every draw is a pure function of a key and of labels that say what it is for.

A counter or a global seed would make image 7 depend on whether image 6 was drawn. Here each thing has its own
stream, so that any of it can be drawn again alone, in any order, on any machine.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from dulcourse.errors import UsageError

__all__ = ["KEY_BYTES", "derive", "generator", "uniforms"]

Label = str | bytes | int | np.integer

KEY_BYTES = 16  # 128 bits: as much as a SeedSequence keeps


def generator(key: bytes, *labels: Label) -> np.random.Generator:
    """Philox(SeedSequence(BLAKE2b(key, labels))): independent streams for different labels.

    >>> bool(generator(b"a key", "image", 7).random() == generator(b"a key", "image", 7).random())
    True
    """
    seed = int.from_bytes(_digest(b"generator", key, labels), "little")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def derive(key: bytes, *labels: Label) -> bytes:
    """A key of 16 bytes for one purpose; it tells nothing about `key` or `generator(key, *labels)`."""
    return _digest(b"derive", key, labels)


def uniforms(key: bytes, indices: Iterable[int], count: int) -> np.ndarray:
    """float64 `[n, count]` in [0, 1): row i is how `generator(key, indices[i])` begins."""
    return np.stack([generator(key, index).random(count) for index in indices])


def _digest(purpose: bytes, key: bytes, labels: tuple[Label, ...]) -> bytes:
    if not 1 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise UsageError(
            f"a key has 1 to 64 bytes, got {len(key)}: make one with referee.secret.new_secret()."
        )
    state = hashlib.blake2b(key=key, person=purpose, digest_size=KEY_BYTES)
    for label in labels:
        state.update(_encode(label))
    return state.digest()


def _encode(label: Label) -> bytes:
    """Kind, length and content, so that ("ab",) and ("a", "b") are not the same bytes."""
    if isinstance(label, str):
        kind, content = b"s", label.encode()
    elif isinstance(label, bytes):
        kind, content = b"b", label
    elif isinstance(label, int | np.integer):
        kind, content = b"i", str(int(label)).encode()
    else:
        raise TypeError(f"a label must be a str, bytes or an int, got {type(label).__name__}: {label!r}")
    return kind + len(content).to_bytes(8, "little") + content
