"""One batch of grading: what is fixed for all its submissions, and the secret that all its draws come from.

`OUT/batch.json` fixes assignment, tier, seed, device and class folder, so that a folder of results is never
mixed up. The secret lies outside the repository and the results, readable by its owner alone, and is kept for
regrades (rule 7).
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autograder.results import write_atomically
from dulcourse.errors import InfrastructureError, UsageError

__all__ = ["Batch", "alone", "create_batch", "read_batch", "secret_of", "state_folder"]


SECRET_BYTES = 16


class Batch(BaseModel):
    """What a folder of results is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    id: str
    assignment: str
    tier: str
    seed: int
    device: str
    class_folder: str


def create_batch(
    out: Path, *, assignment: str, tier: str, seed: int, device: str, class_folder: Path
) -> Batch:
    """The batch of `out`: the one begun there before, if it is the same work; else a new one."""
    wanted = {
        "assignment": assignment,
        "tier": tier,
        "seed": seed,
        "device": device,
        "class_folder": str(class_folder.resolve()),
    }
    if (out / "batch.json").exists():
        batch = read_batch(out)
        for name, value in wanted.items():
            if getattr(batch, name) != value:
                raise UsageError(
                    f"{str(out)!r} holds results with {name.replace('_', ' ')} {getattr(batch, name)!r}, not "
                    f"{value!r}: pass another --out, or the same {name.replace('_', ' ')}."
                )
        return batch
    _check_empty(out)
    batch = Batch(id=secrets.token_hex(8), **wanted)
    _keep_secret(batch)  # first: a batch without its secret would be of no use
    write_atomically(out / "batch.json", batch.model_dump_json(indent=2))
    return batch


def read_batch(out: Path) -> Batch:
    """The batch that `out` holds the results of."""
    path = out / "batch.json"
    try:
        return Batch.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"{str(out)!r} holds no results: there is no batch.json; pass the --out of `autograder grade`."
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{str(path)!r} cannot be read ({type(error).__name__}): pass another --out."
        ) from None


def secret_of(batch: Batch) -> bytes:
    """The 128 bits that the draws of this batch come from."""
    path = _secret_path(batch)
    try:
        mode, secret = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    except OSError as error:
        raise InfrastructureError(
            f"the secret of batch {batch.id} is not at {str(path)!r} ({error.strerror}): grade on the "
            "machine and "
            "as the user that began it, copy the file from there, or begin anew with another --out."
        ) from None
    # Rule 7: a secret that others can read is none.
    if mode & 0o077 or len(secret) != SECRET_BYTES:
        raise InfrastructureError(
            f"{str(path)!r} has mode {mode:04o} and {len(secret)} bytes, expected 0600 and {SECRET_BYTES}: "
            "others may "
            "have read or changed it; begin anew with another --out."
        )
    return secret


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold `out` for this process: two graders in one folder would run submissions twice."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another autograder is at work in {str(out)!r}: wait for it, or stop it."
            ) from None
        yield


def state_folder() -> Path:
    """Where secrets are kept: `$XDG_STATE_HOME/dulcourse`, else `~/.local/state/dulcourse`."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "dulcourse"


def _secret_path(batch: Batch) -> Path:
    return state_folder() / "batches" / batch.id


def _keep_secret(batch: Batch) -> None:
    """128 fresh bits in a file of their own, mode 0600, outside every repository (rule 7)."""
    path = _secret_path(batch)
    for folder in path.absolute().parents:
        if (folder / ".git").exists():
            raise UsageError(
                f"the batch's secret would lie in the repository {str(folder)!r} and be published with it: "
                "set "
                "XDG_STATE_HOME to a folder outside."
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (path.parent, state_folder()):
            folder.chmod(0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(handle)
    except OSError as error:
        raise InfrastructureError(
            f"cannot keep the batch's secret at {str(path)!r}: {error.strerror}; set XDG_STATE_HOME to a "
            "folder "
            "of your own with space left."
        ) from error


def _check_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{str(out)!r} is a file: --out is a folder for results.")
    there = sorted(path.name for path in out.iterdir() if path.name != ".lock") if out.exists() else []
    if there:
        raise UsageError(
            f"{str(out)!r} holds {there[0]!r} but no batch.json, so it is no folder of results: choose an "
            "empty or "
            "a new one."
        )
