"""Small notebooks, benign and hostile, and a library without torch for them to hand in to.

The hostile ones are texts here, and run only behind the wall.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import dulcourse
from autograder.library import Stage, StagedLibrary
from autograder.limits import descendants

# Two user ids, this and the next, that no other grader on this machine uses at the moment: the process beside
# this one may be running tests too.
SLOT = 2000 + 2 * (os.getpid() % 25_000)

PREAMBLE = "import os, sys, signal, socket, subprocess, threading, time\nimport numpy as np\n"


def notebook(*sources: str, problems: tuple[str | None, ...] = ()) -> dict[str, Any]:
    """A notebook with a parameters cell (index 0) and one code cell for each source (index 1, 2, …)."""
    cells = [_cell("parameters", "seed = 0", {"tags": ["parameters"]})]
    for i, source in enumerate(sources):
        problem = problems[i] if i < len(problems) else f"p{i + 1}"
        metadata = {"dulcourse": {"problem": problem}} if problem else {}
        cells.append(_cell(f"cell-{i + 1}", dedent(source), metadata))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _cell(name: str, source: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": name,
        "metadata": metadata,
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


_HANDIN = '''
"""A hand-in that needs no torch: weights are whatever bytes `train` returns."""
import types
from pathlib import Path

registry = {}
session = types.SimpleNamespace(mode="train", folder=Path("handin"), assignment=None)

def begin(assignment, *, mode=None, folder=None):
    session.assignment, session.mode, session.folder = assignment, mode or "train", Path(folder or "handin")

def trained(name, train):
    path = session.folder / f"{name}.safetensors"
    if session.mode == "train":
        path.write_bytes(train())
    elif not path.exists():
        return None
    registry[name] = path.read_bytes()
    return registry[name]
'''

_SERVE = """
import socket
from dulcourse.referee.wire import WireClosed, decode, encode, read_frame, write_frame

def serve(path, functions):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
        while True:
            try:
                header, arrays = decode(read_frame(stream))
            except WireClosed:
                return
            write_frame(stream, _answer(header, arrays, functions))

def _answer(header, arrays, functions):
    try:
        result = functions[header["call"].removeprefix("function.")](**arrays)
    except Exception as error:
        return encode({"ok": False, "error": f"{type(error).__name__}: {error}", "id": header["id"]}, {})
    return encode({"ok": True, "id": header["id"]}, {"result": result})
"""


def small_library(folder: Path) -> Path:
    """A stand-in for `dulcourse` whose kernel is there at once; frames and replay are the real ones."""
    package = folder / "dulcourse"
    (package / "referee").mkdir(parents=True)
    for path, text in {"__init__.py": "", "handin.py": _HANDIN, "referee/serve.py": _SERVE}.items():
        (package / path).write_text(text)
    (package / "referee" / "__init__.py").touch()
    (package / "secret_answer.py").write_text("ANSWER = 42\n")
    for name in ("wire.py", "replay.py"):
        shutil.copy(Path(dulcourse.__file__).parent / "referee" / name, package / "referee")
    return package


@contextmanager
def staged(withheld: Iterable[str] = (), *, fonts: bool = True, **options: Any) -> Iterator[StagedLibrary]:
    """A library on its stage, as `Stage.fill` puts it there."""
    with Stage(fonts=fonts) as stage:
        yield stage.fill(withheld, **options)


def hide_torch(folder: Path) -> None:
    """Let a server of the library in this folder find neither torch nor matplotlib: most of its start."""
    for name in ("torch", "matplotlib"):
        (folder / f"{name}.py").write_text(f"raise ImportError({name!r})")


def processes() -> list[str]:
    """Processes inside a sandbox of ours: of its user id (root), or below this process (others)."""
    if os.geteuid() == 0:
        return [entry for entry in os.listdir("/proc") if entry.isdigit() and _uid(entry) == 64000 + SLOT]
    return [
        _command(pid)
        for pid in descendants(os.getpid())
        if "bwrap" in _command(pid) or "worker.py" in _command(pid)
    ]


def groups(owner: str) -> list[str]:
    """Control groups of a process (`owned_name`). Those of others vanish while we look, so no `rglob`."""
    folders = (folder for folder, _, _ in os.walk("/sys/fs/cgroup"))
    return [folder for folder in folders if os.path.basename(folder).startswith(f"{owner}.")]


def _uid(pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
