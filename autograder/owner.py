"""Names that say which process made something, so that what a killed grader left can be told and removed."""

import os
import re
from pathlib import Path

__all__ = ["abandoned", "owned_name"]

_PREFIX = "dulcourse"


def owned_name() -> str:
    """`dulcourse.<process id>.<start time>`: the id alone would be used again."""
    return f"{_PREFIX}.{os.getpid()}.{_started(os.getpid())}"


def abandoned(name: str) -> bool:
    """Whether a name that begins so belongs to a process that is gone. Other names are nobody's to remove."""
    match = re.match(rf"{_PREFIX}\.(\d+)\.(\d+)\b", name)
    return match is not None and _started(int(match[1])) != int(match[2])


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; −1 for none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return -1
