"""Secrets of the referee: nobody who has not read them can tell any draw beforehand."""

import secrets

from dulcourse.randomness import KEY_BYTES, derive, generator

__all__ = ["derive", "generator", "new_secret"]


def new_secret() -> bytes:
    """128 fresh secret bits, from the operating system."""
    # Rule 7. A 32-bit seed (all that torch's CPU generator keeps) is found by trying; 128 bits are not.
    return secrets.token_bytes(KEY_BYTES)
