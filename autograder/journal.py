"""What the grader did and when, one JSON object a line, only ever appended: it outlives a killed grader."""

import json
import os
import time
from pathlib import Path
from typing import Any

from dulcourse.errors import InfrastructureError

__all__ = ["append", "entries"]


def append(out: Path, event: str, **fields: Any) -> None:
    """Add one line to `OUT/journal.jsonl` by one write, so that a kill tears the last line at worst."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n"
    try:
        handle = os.open(out / "journal.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (_mend(handle) + line).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write {str(out / 'journal.jsonl')!r}: {error.strerror}; free some space, then run again "
            "(finished submissions are kept)."
        ) from error


def entries(out: Path) -> list[dict[str, Any]]:
    """All whole lines, in order."""
    try:
        lines = (out / "journal.jsonl").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [entry for line in lines if (entry := _parse(line)) is not None]


def _mend(handle: int) -> str:
    """A line break, when the last line is torn."""
    size = os.fstat(handle).st_size
    return "\n" if size and os.pread(handle, 1, size - 1) != b"\n" else ""


def _parse(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
