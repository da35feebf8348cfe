"""Errors that speak to users: the value that came, what was expected, and the fix, in one sentence."""

from difflib import get_close_matches

__all__ = ["InfrastructureError", "UsageError", "unknown"]


class UsageError(ValueError):
    """What the caller gave cannot be used. The message is a whole sentence; command lines exit with 1."""


class InfrastructureError(RuntimeError):
    """The machine lacks something (a sandbox, disk space, a device). Command lines exit with 2."""


def unknown(kind: str, value: str, known: list[str]) -> UsageError:
    """The error for a name that is not in a list, with the nearest name that is."""
    near = get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UsageError(f"unknown {kind} {value!r}: expected one of {', '.join(sorted(known))}{hint}")
