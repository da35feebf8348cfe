"""All results of a batch in one table: on the screen, and as `OUT/grades.csv` for a spreadsheet."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from autograder.report.words import why_not_more
from autograder.report.written import Marks
from autograder.results import SubmissionResult, read_result, write_atomically
from autograder.rubric import Rubric

__all__ = ["all_results", "class_table", "result_path", "write_grades"]

COLUMNS = ("student", "verdict", "points", "out_of", "written", "by_hand", "total", "seconds", "why")


def result_path(out: Path, student: str) -> Path:
    return out / student / "result.json"


def all_results(out: Path) -> list[SubmissionResult]:
    """Every result in the folder, by student."""
    found = (read_result(path) for path in sorted(out.glob("*/result.json")))
    return [result for result in found if result is not None]


def write_grades(out: Path, rubric: Rubric, results: Iterable[SubmissionResult], marks: Marks) -> None:
    """`grades.csv`: measured points, points given by hand, and their sum."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        given = _given(result, marks)
        writer.writerow(
            [
                _plain(result.student),
                result.verdict.value,
                f"{result.points:.4g}",
                f"{result.out_of:g}",
                "" if given is None else f"{given:g}",
                f"{result.by_hand:g}",
                f"{result.points + (given or 0):.4g}",
                f"{result.seconds:.1f}",
                _plain(why_not_more(result)),
            ]
        )
    write_atomically(out / "grades.csv", text.getvalue())


def class_table(rubric: Rubric, results: Sequence[SubmissionResult], marks: Marks) -> Any:
    """The table an instructor reads: who, state, points, by hand, how long, why not more."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("student", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("points", "out of", "by hand", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why not more", overflow="fold")
    for result in results:
        given = _given(result, marks)
        row = [result.student, result.verdict.value, f"{result.points:.2f}", f"{result.out_of:g}"]
        row += [f"{'–' if given is None else f'{given:g}'} of {result.by_hand:g}", f"{result.seconds:.1f}"]
        row.append(why_not_more(result))
        table.add_row(*map(Text, row))  # Text: what a student wrote is never markup
    return table


def _given(result: SubmissionResult, marks: Marks) -> float | None:
    """Points given by hand so far; None: nobody has looked at it."""
    given = [mark.points for (student, _), mark in marks.items() if student == result.student]
    known = [points for points in given if points is not None]
    return math.fsum(known) if known else None


def _plain(text: str) -> str:
    """A spreadsheet runs what begins with these as a formula, and a student chooses names and errors."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
