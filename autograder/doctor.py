"""What this machine lacks for grading, and the command that mends it."""

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Finding", "examine"]

NEEDED_GIB = 5.0
MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """One thing looked at. What is optional may be missing; `fix` is a command or a sentence."""

    name: str
    ok: bool
    said: str
    fix: str = ""
    optional: bool = False


def examine(course: Path, out: Path) -> list[Finding]:
    """Everything the grader relies on, in the order in which to mend it."""
    looked: tuple[Callable[[], Finding], ...] = (
        python,
        lambda: packages(course),
        sandbox,
        limits,
        lambda: disk(out),
        state,
        browser,
        gpu,
    )
    return [look() for look in looked]


def python() -> Finding:
    said = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), said, "install Python 3.11 or later")


def packages(course: Path) -> Finding:
    """Installed versions against the lock file, or only the grader's own packages where there is none."""
    lock = course / "requirements.lock"
    if not lock.is_file():
        missing = [
            name for name in ("torch", "papermill", "nbformat", "ipykernel") if _installed(name) is None
        ]
        said = (
            f"no lock file; missing: {', '.join(missing)}"
            if missing
            else "no lock file; what is needed is there"
        )
        return Finding("packages", not missing, said, 'pip install -e ".[grader]"')
    wanted = dict(_pins(lock))
    wrong = [
        f"{name} {_installed(name) or 'missing'} (lock: {pin})"
        for name, pin in wanted.items()
        if _differs(name, pin)
    ]
    said = "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    return Finding("packages", not wrong, said or f"{len(wanted)} as locked", f"pip install -r {lock.name}")


def sandbox() -> Finding:
    """bubblewrap is there and a sandbox starts."""
    if shutil.which("bwrap") is None:
        return Finding(
            "sandbox", False, "bwrap is not on PATH", "apt-get install bubblewrap (or your system's way)"
        )
    from autograder.sandbox import available

    trouble = available()
    return Finding("sandbox", trouble is None, trouble or "bubblewrap starts", trouble or "")


def limits() -> Finding:
    """How memory and processes will be limited; without control groups a watchdog does it."""
    from autograder.limits import Limits, enforcer

    trial = enforcer(Limits())
    trial.close()
    fix = "run as root, or under `systemd-run --user --scope -p Delegate=yes`, for limits kept by the kernel"
    return Finding("limits", trial.name.startswith("cgroup"), trial.name, fix, optional=True)


def disk(out: Path) -> Finding:
    folder = next(path for path in (out, *out.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    return Finding(
        "disk", free >= NEEDED_GIB, f"{free:.0f} GiB free", f"free {NEEDED_GIB:.0f} GiB, or another --out"
    )


def state() -> Finding:
    """The folder of the batch secrets belongs to its user alone."""
    from autograder.batch import state_folder

    folder = state_folder()
    if not folder.exists():
        home = next(path for path in folder.parents if path.exists())
        return Finding(
            "secrets", os.access(home, os.W_OK), "no batch yet", "set XDG_STATE_HOME to a folder of your own"
        )
    mode = stat.S_IMODE(folder.stat().st_mode)
    return Finding("secrets", mode & 0o077 == 0, f"folder mode {mode:04o}", f"chmod 700 {folder}")


def browser() -> Finding:
    found = next(
        (name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None
    )
    fix = "apt-get install chromium (only the tests of the book's pages need it)"
    return Finding("browser", found is not None, found or "no Chromium", fix, optional=True)


def gpu() -> Finding:
    import torch

    found = torch.cuda.is_available()
    said = torch.cuda.get_device_name(0) if found else "none that torch can use"
    return Finding("gpu", found, said, "needed for --tier gpu only", optional=True)


def _pins(lock: Path) -> Iterator[tuple[str, str]]:
    for line in lock.read_text().splitlines():
        name, equals, pin = line.split(";")[0].split("#")[0].strip().partition("==")
        if equals:
            yield name.split("[")[0].strip(), pin.split()[0]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _differs(name: str, pin: str) -> bool:
    """A local label (torch 2.13.0+cpu) is the same version."""
    return (_installed(name) or "").split("+")[0] != pin.split("+")[0]
