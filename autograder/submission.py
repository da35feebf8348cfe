"""A class folder and the notebooks in it: found, and read within limits.

    submitted/<student>/<assignment>/<assignment>.ipynb
    roster.csv                                             optional: student[, time_factor]

Whatever a student did to the file, reading it ends in a notebook or in one sentence the student understands.
"""

import csv
import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dulcourse.errors import UsageError

__all__ = ["MAX_BYTES", "MAX_CELLS", "HandedIn", "Submission", "Unreadable", "collect", "parse", "read"]

MAX_BYTES = 16 * 2**20
MAX_CELLS = 1000
CELL_TYPES = ("code", "markdown", "raw")
# Names of our own files in the folder of results: a student's folder there must be none of them.
RESERVED = {"batch.json", "journal.jsonl", "grades.csv", "written.csv", "index.html", "static"}


class Unreadable(Exception):  # noqa: N818, it says what the file is
    """The file cannot be read as a notebook; the message is for its author."""


@dataclass(frozen=True)
class Submission:
    """One student's place in the class; `path` is None when nothing was handed in."""

    student: str
    path: Path | None
    time_factor: float = 1.0  # more than 1: longer time limits, as agreed with the student


@dataclass(frozen=True)
class HandedIn:
    """A notebook as read: `cells` hold type, source, id and nbgrader's metadata, and nothing else."""

    sha256: str  # of the bytes of the file
    cells: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def collect(class_folder: Path, assignment: str) -> list[Submission]:
    """Everybody on the roster and everybody who handed something in, by name."""
    submitted = class_folder / "submitted"
    if not submitted.is_dir():
        raise UsageError(
            f"no folder {str(submitted)!r}: a class folder holds "
            f"submitted/<student>/{assignment}/{assignment}.ipynb "
            "and, if you like, roster.csv."
        )
    factors = _roster(class_folder / "roster.csv")
    handed_in = {path.name for path in submitted.iterdir() if path.is_dir() and not path.name.startswith(".")}
    students = sorted({*factors, *handed_in})
    for student in students:
        _check_name(student)
    return [
        Submission(student, _find(submitted / student / assignment, assignment), factors.get(student, 1.0))
        for student in students
    ]


def read(path: Path) -> HandedIn:
    """The notebook in a file, or `Unreadable`."""
    data = _bytes(path)
    found = parse(data)
    notes = [*found.notes]
    if path.stem != path.parent.name:
        notes.append(f"The file {path.name!r} was graded: it was the only notebook in the folder.")
    return HandedIn(found.sha256, found.cells, notes)


def parse(data: bytes) -> HandedIn:
    """The notebook in these bytes, or `Unreadable`: size, text, JSON, then what the cells must hold."""
    if len(data) > MAX_BYTES:
        raise Unreadable(
            f"The file has {len(data) / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} can be read. "
            "Clear the outputs of all cells, save, and hand it in again."
        )
    raw = _json(data)
    if not isinstance(raw, dict) or not isinstance(raw.get("cells"), list):
        raise Unreadable(
            "The file is JSON but no notebook: it has no list of cells. Save it from Jupyter as .ipynb "
            "(format 4)."
        )
    if not (isinstance(raw.get("nbformat"), int) and raw["nbformat"] == 4):
        raise Unreadable(
            f"The notebook says nbformat {_short(raw.get('nbformat'))}; 4 is expected. Open it in Jupyter, "
            "save it."
        )
    if len(raw["cells"]) > MAX_CELLS:
        raise Unreadable(f"The notebook has {len(raw['cells'])} cells; at most {MAX_CELLS} can be graded.")
    cells = [_cell(cell, number) for number, cell in enumerate(raw["cells"], start=1)]
    return HandedIn(hashlib.sha256(data).hexdigest(), cells)


def _bytes(path: Path) -> bytes:
    """A regular file's bytes: a link could name another student's work, a pipe would never end."""
    if path.parent.is_symlink():
        raise Unreadable("The folder is a link to another place; hand in a folder of your own.")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        what = "is a link to another place" if path.is_symlink() else f"cannot be opened ({error.strerror})"
        raise Unreadable(f"The file {path.name!r} {what}; hand in the notebook itself.") from None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Unreadable(f"{path.name!r} is not an ordinary file; hand in the notebook itself.")
        return file.read(MAX_BYTES + 1)


def _json(data: bytes) -> Any:
    if not data.strip():
        raise Unreadable("The file is empty. Save the notebook and hand it in again.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"The file is not a notebook: byte {error.start} is not UTF-8 text.") from None
    if text.startswith("PK"):
        raise Unreadable("The file is a zip archive with another name; hand in the .ipynb inside it.")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        conflict = "<<<<<<<" in text and ">>>>>>>" in text
        hint = "it holds the marks of an unfinished git merge" if conflict else error.msg
        raise Unreadable(
            f"The notebook is broken at line {error.lineno}: {hint}. Open it in Jupyter; if Jupyter cannot, "
            "take "
            "the last copy that it can open."
        ) from None
    except RecursionError:
        raise Unreadable("The notebook's JSON is nested too deeply to be a notebook.") from None
    except ValueError:  # an integer of thousands of digits
        raise Unreadable(
            "The notebook holds a number that no notebook holds; save it again from Jupyter."
        ) from None


def _cell(cell: Any, number: int) -> dict[str, Any]:
    """The parts of one cell that count. Outputs are dropped: ours are computed anew."""
    if not isinstance(cell, dict) or cell.get("cell_type") not in CELL_TYPES:
        raise Unreadable(
            f"Cell {number} is neither code nor text. Open the notebook in Jupyter and save it again."
        )
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise Unreadable(f"Cell {number} has no source. Open the notebook in Jupyter and save it again.")
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return {
        "cell_type": cell["cell_type"],
        "source": source.encode("utf-8", "replace").decode("utf-8"),  # a lone surrogate is no character
        "id": _text(cell.get("id")),
        "grade_id": _text(grade_id),
    }


def _find(folder: Path, assignment: str) -> Path | None:
    """The notebook by its name, or the only one there (a second download is called 'hw (1).ipynb')."""
    path = folder / f"{assignment}.ipynb"
    if path.exists() or path.is_symlink():
        return path
    others = sorted(folder.glob("*.ipynb"))
    return others[0] if len(others) == 1 else None


def _roster(path: Path) -> dict[str, float]:
    """Students on the roster with their factors on time limits; nobody where there is no roster."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "student" not in (rows.fieldnames or []):
            raise UsageError(
                f"{path.name} has the columns {rows.fieldnames}: expected one called 'student', with the "
                "names of "
                "the folders in submitted/."
            )
        return {row["student"].strip(): _factor(row, path) for row in rows if (row["student"] or "").strip()}


def _factor(row: dict[str, str], path: Path) -> float:
    text = (row.get("time_factor") or "1").strip() or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= 10:
        raise UsageError(
            f"{path.name}: time_factor of {row['student']!r} is {text!r}; expected a number from 1 to 10."
        )
    return factor


def _check_name(student: str) -> None:
    if student in RESERVED or student.startswith(".") or "/" in student or not student.isprintable():
        raise UsageError(
            f"a student is called {student!r}: the name becomes a folder of results, so it must not begin "
            "with a "
            f"dot, hold a slash, or be one of {', '.join(sorted(RESERVED))}."
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _short(value: Any) -> str:
    return repr(value)[:40]
