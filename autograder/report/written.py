"""Answers in words, graded by hand: one CSV file that a person fills in and the report reads back."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from autograder.results import write_atomically
from autograder.rubric import Rubric
from dulcourse.errors import UsageError

__all__ = ["FIELDS", "Mark", "Marks", "read_marks", "update_marks"]

FIELDS = ("student", "cell", "points", "comment")


@dataclass(frozen=True)
class Mark:
    """What a person gave for one answer; `points` is None until they did."""

    points: float | None = None
    comment: str = ""


Marks = dict[tuple[str, str], Mark]  # (student, cell) -> mark


def read_marks(path: Path, rubric: Rubric) -> Marks:
    """The marks in `path` (none where there is no file). `UsageError` names the line that cannot be used."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets like to write the mark
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error}); save it as CSV in UTF-8.") from error
    separator = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    if missing := set(FIELDS) - set(reader.fieldnames or ()):
        raise UsageError(
            f"{str(path)!r} has no column {sorted(missing)[0]!r}: the first line must be {','.join(FIELDS)}."
        )
    highest = {
        item.cell: item.points
        for problem in rubric.problems
        for item in problem.items
        if item.kind == "written"
    }
    marks = {}
    for row in reader:
        key = (row["student"] or "").strip(), (row["cell"] or "").strip()
        where = f"{str(path)!r}, line {reader.line_num}"
        if key in marks:
            raise UsageError(
                f"{where}: student {key[0]!r}, cell {key[1]!r} has a line already; remove one of them."
            )
        marks[key] = Mark(_points(row["points"], highest.get(key[1]), where), (row["comment"] or "").strip())
    return marks


def _points(text: str | None, highest: float | None, where: str) -> float | None:
    text = (text or "").strip().replace(",", ".")
    if not text:
        return None
    try:
        points = float(text)
    except ValueError:
        points = float("nan")
    if not isfinite(points):
        raise UsageError(f"{where}: points are {text!r}; write a number, or leave the field empty.")
    if highest is not None and not 0 <= points <= highest:
        raise UsageError(f"{where}: points are {text}; this answer is worth 0 to {highest:g}.")
    return points


def update_marks(path: Path, rubric: Rubric, students: Iterable[str]) -> Marks:
    """`read_marks`, after adding an empty line for every answer of `students` that has none."""
    marks = read_marks(path, rubric)
    cells = [item.cell for problem in rubric.problems for item in problem.items if item.kind == "written"]
    added = {
        (student, cell): Mark() for student in students for cell in cells if (student, cell) not in marks
    }
    if added:
        marks |= added
        write_atomically(path, _csv(marks))
    return marks


def _csv(marks: Marks) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for (student, cell), mark in sorted(marks.items()):
        writer.writerow([student, cell, "" if mark.points is None else f"{mark.points:.10g}", mark.comment])
    return text.getvalue()
