"""Random numbers by name: every draw is a pure function of a key and of labels that say what it is for.

A counter or a global seed would make image 7 depend on whether image 6 was drawn. Here each thing has its own
stream, so that any of it can be drawn again alone, in any order, on any machine.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations

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
    """float64 `[n, count]` in [0, 1): row i is how `generator(key, indices[i])` begins.

    The same numbers in a seventh of the time: the seeds are mixed together, and one bit generator is put to
    the beginning of each stream in turn.
    """
    seeds = _philox_keys(_digests(b"generator", key, indices))
    bits = np.random.Philox(0)
    stream, beginning = np.random.Generator(bits), bits.state
    draws = np.empty((len(seeds), count))
    for row, seed in zip(draws, seeds, strict=True):
        beginning["state"]["key"] = seed
        bits.state = beginning
        stream.random(out=row)
    return draws


def _philox_keys(digests: Sequence[bytes]) -> np.ndarray:
    """uint64 `[n, 2]`: SeedSequence(digest).generate_state(2, uint64) of digests of 16 bytes, as NEP 19 fixes
    it for all time (numpy/random/bit_generator.pyx).
    """
    pool = list(np.frombuffer(b"".join(digests), "<u4").reshape(-1, 4).T.astype(np.uint32))
    take_in = _hash_mix(0x43B0D7E5, 0x931E8875)
    pool = [take_in(word) for word in pool]
    for source, target in permutations(range(4), 2):
        mixed = np.uint32(0xCA01F9DD) * pool[target] - np.uint32(0x4973F715) * take_in(pool[source])
        pool[target] = mixed ^ (mixed >> np.uint32(16))
    give_out = _hash_mix(0x8B51F9DD, 0x58F38DED)
    words = [give_out(word).astype("<u4") for word in pool]
    return np.stack(words, axis=1).view("<u8").astype(np.uint64)


def _hash_mix(constant: int, factor: int) -> Callable[[np.ndarray], np.ndarray]:
    """A hash of 32-bit words whose constant is another one at each call."""

    def mix(words: np.ndarray) -> np.ndarray:
        nonlocal constant
        words = words ^ np.uint32(constant)
        constant = constant * factor & 0xFFFFFFFF
        words = words * np.uint32(constant)
        return words ^ (words >> np.uint32(16))

    return mix


def _digests(purpose: bytes, key: bytes, labels: Iterable[Label]) -> list[bytes]:
    """`_digest` of each label alone; the key is taken in once."""
    state, digests = _keyed(purpose, key), []
    for label in labels:
        one = state.copy()
        one.update(_encode(label))
        digests.append(one.digest())
    return digests


def _digest(purpose: bytes, key: bytes, labels: tuple[Label, ...]) -> bytes:
    state = _keyed(purpose, key)
    for label in labels:
        state.update(_encode(label))
    return state.digest()


def _keyed(purpose: bytes, key: bytes) -> "hashlib.blake2b":
    if not 1 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise UsageError(
            f"a key has 1 to 64 bytes, got {len(key)}: make one with referee.secret.new_secret()."
        )
    return hashlib.blake2b(key=key, person=purpose, digest_size=KEY_BYTES)


def _encode(label: Label) -> bytes:
    """Kind, length and content, so that ("ab",) and ("a", "b") are not the same bytes."""
    if isinstance(label, int | np.integer):
        kind, content = b"i", b"%d" % label
    elif isinstance(label, str):
        kind, content = b"s", label.encode()
    elif isinstance(label, bytes):
        kind, content = b"b", label
    else:
        raise TypeError(f"a label must be a str, bytes or an int, got {type(label).__name__}: {label!r}")
    return kind + len(content).to_bytes(8, "little") + content
