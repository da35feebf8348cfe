"""Random numbers by name: every draw is a pure function of a key and of labels that say what it is for.

A counter or a global seed would make image 7 depend on whether image 6 was drawn. Here each thing has its own stream,
so that any of it can be drawn again alone, in any order, on any machine.
"""

import hashlib

import numpy as np

__all__ = ["KEY_BYTES", "derive", "generator"]

Label = str | bytes | int

KEY_BYTES = 16  # 128 bits: as much as a SeedSequence keeps


def generator(key: bytes, *labels: Label) -> np.random.Generator:
    """Philox(SeedSequence(BLAKE2b(key, labels))): independent streams for different labels.

    >>> generator(b"a key", "image", 7).integers(100) == generator(b"a key", "image", 7).integers(100)
    True
    """
    seed = int.from_bytes(_digest(b"generator", key, labels), "little")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def derive(key: bytes, *labels: Label) -> bytes:
    """A key of 16 bytes for one purpose. It tells nothing about `key`, nor about `generator(key, *labels)`."""
    return _digest(b"derive", key, labels)


def _digest(purpose: bytes, key: bytes, labels: tuple[Label, ...]) -> bytes:
    state = hashlib.blake2b(key=key, person=purpose, digest_size=KEY_BYTES)
    for label in labels:
        state.update(_encode(label))
    return state.digest()


def _encode(label: Label) -> bytes:
    """Kind, length and content, so that no two lists of labels are the same bytes: ("ab",) is not ("a", "b")."""
    if isinstance(label, str):
        kind, content = b"s", label.encode()
    elif isinstance(label, bytes):
        kind, content = b"b", label
    elif isinstance(label, int | np.integer):
        kind, content = b"i", str(int(label)).encode()
    else:
        raise TypeError(f"a label must be a str, bytes or an int, got {type(label).__name__}: {label!r}")
    return kind + len(content).to_bytes(8, "little") + content
