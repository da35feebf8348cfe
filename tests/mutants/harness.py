"""One bug in a copy of the course, and the tests that should notice it.

Each mutant is tried in a fork of a process that has imported torch and the like already, so that trying one
costs little more than its tests.
"""

import importlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import pytest

__all__ = ["ROOT", "Mutant", "copied", "failing", "patched", "tables", "warm_up"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("dulcourse", "autograder", "benchmarks", "book", "solutions", "tests")
SECONDS = 300  # a mutant may never end; being stopped is being noticed


@dataclass(frozen=True)
class Mutant:
    """`old`, which is in `file` exactly once, becomes `new`, and one of `tests` (nodes or files) fails."""

    what: str
    file: str
    old: str
    new: str
    tests: str | tuple[str, ...]
    only: str = ""  # pytest's -k, where the nodes are too many to name

    @property
    def nodes(self) -> tuple[str, ...]:
        """The tests that are run, as pytest's arguments."""
        return (self.tests,) if isinstance(self.tests, str) else self.tests

    def apply(self, source: str) -> str:
        """The source with the bug in it."""
        if source.count(self.old) != 1:
            raise LookupError(
                f"{self.file} has {self.old!r} {source.count(self.old)} times, expected exactly once: "
                f"mend the mutant {self.what!r}."
            )
        return source.replace(self.old, self.new)


def tables() -> dict[str, tuple[Mutant, ...]]:
    """Every table of mutants, by the name of its file in this folder."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    own = ("__init__", "__main__", Path(__file__).stem)
    names = [name for name in names if name not in own and not name.startswith("test_")]
    return {name: importlib.import_module(f"tests.mutants.{name}").MUTANTS for name in names}


def warm_up() -> None:
    """Import what every copy needs and none changes: never the course itself."""
    named = ("beartype", "hypothesis", "jaxtyping", "matplotlib.ft2font", "pydantic")
    for name in (*named, "safetensors.torch", "sklearn.datasets"):
        importlib.import_module(name)
    with redirect_stdout(io.StringIO()):
        pytest.main(["--version", "--assert=plain", "--noconftest"])  # imports its own plugins
    assert "dulcourse" not in sys.modules, "the copies must import their own dulcourse"


def copied(folder: Path) -> Path:
    """The course's packages and their tests in `folder`."""
    ignored = shutil.ignore_patterns("__pycache__", "*.ipynb", "mathjax")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@contextmanager
def patched(copy: Path, mutant: Mutant) -> Iterator[None]:
    """The copy with the bug in it, and without it afterwards."""
    path = copy / mutant.file
    source, times = path.read_text(), path.stat()
    path.write_text(mutant.apply(source))
    os.utime(path, (0, 0))  # no other version of it: bytecode goes by the time
    try:
        yield
    finally:
        path.write_text(source)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def failing(
    copy: Path, nodes: Iterable[str], only: str = "", *, all_of_them: bool = False, typed: bool = True
) -> list[str]:
    """The first test of a copy that fails (or all of them), run in a fork of this process.

    Shapes are not checked unless `typed`: to check them makes importing the course take three times as long.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.close(reader)
            signal.alarm(SECONDS)
            if not typed:
                jaxtyping.install_import_hook = lambda *_: None
            names, status = _pytest_in(copy, list(nodes), only, all_of_them)
            os.write(writer, json.dumps(names).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as told:
        names = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGALRM:
        return [f"stopped after {SECONDS} seconds"]
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with status {status} in the copy: the tests did not run")
    return json.loads(names)


class _Failures:
    """A pytest plugin that remembers which tests failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.names.append(report.nodeid.split("::")[-1])


def _pytest_in(copy: Path, nodes: list[str], only: str, all_of_them: bool) -> tuple[list[str], int]:
    os.chdir(copy)
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # Only names are wanted: nobody reads tracebacks, or what an assertion compared.
    options = [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:unraisableexception",
        "--assert=plain",
        "--tb=no",
        "-k",
        only,
    ]
    options += [] if all_of_them else ["-x"]
    failures = _Failures()
    status = pytest.main([*options, *nodes], plugins=[failures])
    return failures.names, int(status)
