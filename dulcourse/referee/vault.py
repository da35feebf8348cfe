"""Where a batch's secret lies: a file of its own, readable by its owner alone, outside every repository."""

import os
import stat
from pathlib import Path

from dulcourse.errors import UsageError
from dulcourse.referee.secret import new_secret

__all__ = ["keep", "recall"]


def keep(path: Path) -> bytes:
    """The batch's secret: the one in the file, or a new one that is written there (mode 0600)."""
    if path.exists():
        return recall(path)
    _outside_repositories(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = new_secret()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return secret


def recall(path: Path) -> bytes:
    """The secret in a file, if nobody else could have read it."""
    _outside_repositories(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    # Rule 7: a secret that others can read is none.
    if mode & 0o077:
        raise UsageError(f"{path} has mode {mode:04o}: others may have read the secret. Start a new batch.")
    return path.read_bytes()


def _outside_repositories(path: Path) -> None:
    for folder in path.absolute().resolve().parents:
        if (folder / ".git").exists():
            raise UsageError(f"{path} lies in the repository {folder}; a secret there is published with it.")
