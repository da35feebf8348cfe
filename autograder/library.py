"""The library as a submission sees it: a copy of `dulcourse` without the answers to the homework.

The repository is never bound behind the wall. What a rubric withholds is replaced by a file that says so
and raises ImportError; neither its source nor its compiled code is in the copy.
"""

import compileall
import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import dulcourse
from autograder.owner import owned_name
from dulcourse.errors import InfrastructureError, UsageError

__all__ = ["FONTS", "MARKS", "Stage", "StagedLibrary"]

FONTS = ".matplotlib"  # in the copy; the worker puts it where matplotlib looks
MARKS = "withheld"  # folder in the temporary folder where a withheld module notes that it was asked for

_STUB = '''"""Withheld while this homework is graded."""

import os as _os

_words = {words!r}
_marks = _os.path.join(_os.environ.get("TMPDIR", "/tmp"), {marks!r})
try:
    _os.makedirs(_marks, exist_ok=True)
    open(_os.path.join(_marks, {module!r}), "w").close()
except OSError:
    pass
raise ImportError(_words, name={module!r})
'''


@dataclass(frozen=True)
class StagedLibrary:
    """A copy to be bound behind the wall: `folder` holds the package."""

    folder: Path
    withheld: tuple[str, ...]


class Stage:
    """An empty folder for the library, which a sandbox may be shown before `fill` puts it there.

    With `fonts`, the list of fonts that matplotlib would make again behind every wall comes along; looking
    for them begins at once.
    """

    def __init__(self, fonts: bool = True):
        self.folder = Path(tempfile.mkdtemp(prefix=f"{owned_name()}.library-"))
        self.folder.chmod(0o755)  # the submission reads it under another user id
        self._listing = _list_fonts(self.folder / FONTS) if fonts else None

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._listing:
            self._listing.kill()
            self._listing.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fill(
        self,
        withheld: Iterable[str] = (),
        *,
        problems: Mapping[str, str] | None = None,
        source: Path | None = None,
    ) -> StagedLibrary:
        """Copy the library, without the `withheld` modules (dotted names).

        `problems` names the problem that asks for a module, for the sentence a student sees. `source` is the
        package's folder; the default is the `dulcourse` that this process uses.
        """
        source = source or Path(dulcourse.__file__).parent
        withheld = tuple(dict.fromkeys(withheld))
        try:
            shutil.copytree(
                source, self.folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
            )
            stubs = [_withhold(self.folder, module, (problems or {}).get(module)) for module in withheld]
            # The copy is read-only behind the wall, so it is compiled here; unchecked, so that file times do
            # not matter.
            compileall.compile_dir(
                self.folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
            for stub in stubs:
                Path(importlib.util.cache_from_source(str(stub))).unlink(missing_ok=True)
            if self._listing:
                self._listing.wait()
            _open_to_all(self.folder)
        except OSError as error:
            raise InfrastructureError(
                f"cannot copy the library to {str(self.folder)!r}: {error.strerror}; free some space or set "
                "TMPDIR."
            ) from error
        return StagedLibrary(self.folder, withheld)


def _withhold(folder: Path, module: str, problem: str | None) -> Path:
    """Put a file in a module's place that says why it is not there; returns that file."""
    path = folder.joinpath(*module.split("."))
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
        stub = path / "__init__.py"
    elif path.with_suffix(".py").is_file():
        stub = path.with_suffix(".py")
    else:
        raise UsageError(
            f"the rubric withholds {module!r}, and the library has no such module; correct its name."
        )
    asks = f"problem {problem!r} asks" if problem else "this homework asks"
    words = f"{module} is withheld here, because {asks} you to write it; use your own code instead."
    stub.write_text(_STUB.format(words=words, module=module, marks=MARKS))
    return stub


def _list_fonts(folder: Path) -> subprocess.Popen:
    """Let matplotlib look for fonts once for a whole batch, beside the copying."""
    environment = {**os.environ, "MPLCONFIGDIR": str(folder)}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        [sys.executable, "-c", "import matplotlib.font_manager"], env=environment, **silent
    )


def _open_to_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
