"""A student's notebook, rebuilt upon the release.

The release is the skeleton: its given cells are always used as they were given, the student's solutions are
put in their places, and the student's own cells stay where they were, after the cell they followed. What had
to be put right is said in words.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.submission import HandedIn
from dulcourse.errors import UsageError

__all__ = ["Rebuilt", "load_release", "rebuild"]

Cell = dict[str, Any]


@dataclass(frozen=True)
class Rebuilt:
    """The notebook to run, as nbformat 4.5 JSON; `notes` say what was put right."""

    notebook: dict[str, Any]
    notes: list[str]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.notebook, sort_keys=True).encode()).hexdigest()


@dataclass
class _Placed:
    """The student's cells: one for each place of the release, and the rest by what they followed."""

    chosen: dict[str, Cell] = field(default_factory=dict)
    extras: dict[str | None, list[Cell]] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)  # of given cells, left out


def load_release(course: Path, assignment: str) -> dict[str, Any]:
    """The notebook that students were given, `assignments/<assignment>/<assignment>.ipynb`."""
    path = course / "assignments" / assignment / f"{assignment}.ipynb"
    if not path.is_file():
        raise UsageError(
            f"no release of {assignment!r} at {str(path)!r}: make it by `autograder release {assignment}`."
        )
    return json.loads(path.read_text())


def rebuild(release: dict[str, Any], handed_in: HandedIn) -> Rebuilt:
    """The release with the student's solutions and own cells in place."""
    given = {cell["id"]: cell for cell in release["cells"]}
    placed = _place(given, handed_in.cells)
    cells: list[Cell] = []
    waiting = list(placed.extras.get(None, []))
    for key, cell in given.items():
        # After a deleted solution its stub comes first: what the student wrote instead must win over it.
        if not (key not in placed.chosen and _editable(cell)):
            _append(cells, waiting)
            waiting = []
        cells.append(_in_place(cell, placed.chosen.get(key)))
        waiting += placed.extras.get(key, [])
    _append(cells, waiting)
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": release["metadata"], "cells": cells}
    return Rebuilt(notebook, [*handed_in.notes, *_notes(given, placed)])


def _editable(given: Cell) -> bool:
    """Solutions and plain cells are the student's to change; nbgrader's locked cells and tests are not."""
    nbgrader = given["metadata"].get("nbgrader")
    return nbgrader is None or bool(nbgrader.get("solution")) or not nbgrader.get("locked", False)


def _place(given: dict[str, Cell], cells: list[Cell]) -> _Placed:
    placed = _Placed()
    where = _choose(given, cells)
    last = None
    for index, cell in enumerate(cells):
        if index in where:
            last = where[index]
            placed.chosen[last] = cell
            continue
        key = _key(given, cell)
        if key is not None and not _editable(given[key]):
            placed.copies.append(key)
        else:
            placed.extras.setdefault(last, []).append(cell)
    return placed


def _choose(given: dict[str, Cell], cells: list[Cell]) -> dict[int, str]:
    """Which of the student's cells stands for which of the release: by id, else by grade_id, else by its
    text.

    A copied cell keeps its grade_id but gets a new id, so the id tells the original; some hosted notebooks
    drop both from plain cells, so an unchanged text is recognised too.
    """
    where: dict[int, str] = {}
    free = dict.fromkeys(given)

    def claim(index: int, key: str | None) -> None:
        if index not in where and key in free:
            where[index] = key
            del free[key]

    for index, cell in enumerate(cells):
        if cell["grade_id"] in (None, cell["id"]):
            claim(index, cell["id"])
    for index, cell in enumerate(cells):
        claim(index, cell["grade_id"])
    by_text = {_text_of(cell): key for key, cell in reversed(given.items()) if _text_of(cell)[1]}
    for index, cell in enumerate(cells):
        if _key(given, cell) is None:
            claim(index, by_text.get(_text_of(cell)))
    return where


def _key(given: dict[str, Cell], cell: Cell) -> str | None:
    """The cell of the release that this one is, or is a copy of."""
    return next((key for key in (cell["grade_id"], cell["id"]) if key in given), None)


def _text_of(cell: Cell) -> tuple[str, str]:
    source = cell["source"]
    return cell["cell_type"], ("".join(source) if isinstance(source, list) else source).strip()


def _in_place(given: Cell, student: Cell | None) -> Cell:
    """A cell of the release; with the student's source where it is theirs to write."""
    source = given["source"] if student is None or not _editable(given) else student["source"]
    return _fresh(given["cell_type"], given["id"], source, given["metadata"])


def _append(cells: list[Cell], extras: list[Cell]) -> None:
    """The student's own cells; each belongs to the problem of the cell before it."""
    for extra in extras:
        problem = cells[-1]["metadata"].get("dulcourse", {}).get("problem") if cells else None
        metadata = {"dulcourse": {"problem": problem}} if problem else {}
        cells.append(_fresh(extra["cell_type"], f"own-{len(cells) + 1:03d}", extra["source"], metadata))


def _fresh(cell_type: str, name: str, source: str | list[str], metadata: dict[str, Any]) -> Cell:
    cell = {"cell_type": cell_type, "id": name, "metadata": metadata, "source": "".join(source)}
    return cell | {"outputs": [], "execution_count": None} if cell_type == "code" else cell


def _notes(given: dict[str, Cell], placed: _Placed) -> list[str]:
    notes = []
    for key, cell in given.items():
        student = placed.chosen.get(key)
        if student is None and _editable(cell):
            notes.append(f"Cell {key!r} was missing: the unsolved one was put in its place.")
        elif student is None:
            notes.append(f"The given cell {key!r} was missing: it was put back.")
        elif not _editable(cell) and _text_of(student) != _text_of(cell):
            notes.append(f"The given cell {key!r} was changed: the course's own was used.")
        elif student["cell_type"] != cell["cell_type"]:
            notes.append(
                f"Cell {key!r} was turned into {student['cell_type']}: it is {cell['cell_type']} again."
            )
    for key in dict.fromkeys(placed.copies):
        times = placed.copies.count(key)
        notes.append(f"{times} {'copy' if times == 1 else 'copies'} of the given cell {key!r} left out.")
    return notes
