"""The copy of the library that a submission sees has no trace of what is withheld, and works without it."""

import importlib.util
import marshal
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.library import StagedLibrary
from autograder.owner import abandoned, owned_name
from dulcourse.errors import UsageError
from tests.autograder.notebooks import small_library, staged

SECRET = "ANSWER = 42"
SENTENCE = "dulcourse.secret_answer is withheld here, because problem 'p2' asks you to write it"


def python(library: StagedLibrary, code: str, scratch: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(library.folder), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_what_is_withheld_says_so_and_leaves_a_mark(library: StagedLibrary, tmp_path: Path):
    outcome = python(library, "import dulcourse.secret_answer", tmp_path)
    assert outcome.returncode == 1
    assert outcome.stderr.strip().splitlines()[-1].startswith(f"ImportError: {SENTENCE}")
    assert (tmp_path / "withheld" / "dulcourse.secret_answer").exists()


def test_the_rest_is_there_and_compiled(library: StagedLibrary, tmp_path: Path):
    code = "import dulcourse.handin as h; print(h.__file__, h.__cached__)"
    where = python(library, code, tmp_path).stdout.split()
    assert where[0] == str(library.folder / "dulcourse" / "handin.py")
    compiled = Path(where[1]).read_bytes()
    assert int.from_bytes(compiled[4:8], "little") == 1, "unchecked hash: file times do not matter"
    assert marshal.loads(compiled[16:]).co_filename == where[0]


def test_no_file_of_the_copy_holds_what_is_withheld(library: StagedLibrary):
    files = [path for path in library.folder.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert [path.suffix for path in files if "secret_answer" in path.name] == [".py"], (
        "no compiled stub either"
    )


def test_a_withheld_package_takes_its_modules_along(tmp_path: Path):
    source = small_library(tmp_path)
    with staged(["dulcourse.referee"], source=source, fonts=False) as library:
        referee = library.folder / "dulcourse" / "referee"
        assert [path.name for path in referee.rglob("*") if path.is_file()] == ["__init__.py"]
        assert "this homework asks you" in (referee / "__init__.py").read_text()
    assert not library.folder.exists()


def test_an_unknown_module_is_named(tmp_path: Path):
    source = small_library(tmp_path)
    with pytest.raises(UsageError, match=r"'dulcourse\.nothing', and the library has no such module"):
        staged(["dulcourse.nothing"], source=source, fonts=False).__enter__()


WITHHELD = [f"dulcourse.autoregressive.{name}" for name in ("histogram", "mixture", "made")]

IMPORT_ALL = """
import importlib, pkgutil, dulcourse
missing = []
for module in pkgutil.walk_packages(dulcourse.__path__, "dulcourse.", onerror=missing.append):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        missing.append(error.name)
print(*sorted(missing))
"""


def test_the_real_library_works_without_the_answers_to_the_first_homework(tmp_path: Path):
    package = Path(importlib.util.find_spec("dulcourse").origin).parent
    lines = {path: set(path.read_text().splitlines()) for path in package.rglob("*.py")}
    answers = [package.parent.joinpath(*name.split(".")).with_suffix(".py") for name in WITHHELD]
    others = set().union(*(text for path, text in lines.items() if path not in answers))
    with staged(WITHHELD) as library:
        assert list((library.folder / ".matplotlib").glob("fontlist*")), "fonts are listed once, here"
        # What is built upon an answer, as a masked autoregressive flow upon MADE, is missing with it.
        assert set(python(library, IMPORT_ALL, tmp_path).stdout.split()) == set(WITHHELD)
        copied = set().union(*(path.read_text().splitlines() for path in library.folder.rglob("*.py")))
        for path in answers:
            assert len(lines[path] - others) > 10
            assert not (lines[path] - others) & copied


def test_a_killed_graders_folders_are_told_from_a_living_ones():
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert not abandoned(owned_name())
    assert not abandoned(f"{owned_name()}.library-abc")
    assert abandoned(f"dulcourse.{ended.pid}.12345.library-abc")
    assert not abandoned("dulcourse-something"), "other names are nobody's"
