"""The class on one page and each submission on its own: static pages, readable from the disk, by anyone.

Everything comes from files that the trusted side wrote (`result.json`, `executed.json`, PNG pictures), yet
every string in them may have been chosen by a student: see `autograder.report.text`.
"""

import shutil
from pathlib import Path
from urllib.parse import quote

from autograder.report.executed import read_cells
from autograder.report.pseudonyms import pseudonyms
from autograder.report.summary import distribution, problem_means
from autograder.report.text import pages
from autograder.report.view import Row, Submission, picture, row, sections
from autograder.report.words import STATES, State
from autograder.report.written import update_marks
from autograder.results import Verdict, read_result, write_atomically
from autograder.rubric import Rubric

__all__ = ["write_report"]


def write_report(out: Path, rubric: Rubric, *, pseudonymous: bool = True) -> None:
    """Write `out`/index.html and a page for each submission, from `out`/*/result.json and `out`/written.csv.

    Each submission's own page is `out`/<student>/index.html. The class table shows pseudonyms, listed in
    `out`/pseudonyms.csv, and links to copies of the pages in `out`/pages/<pseudonym>/, so that index.html and
    pages/ can be shown without the names; with `pseudonymous=False` it shows the names.
    """
    submissions, unreadable = _read(out)
    marks = update_marks(out / "written.csv", rubric, [s.student for s in submissions if s.waiting])
    for submission in submissions:
        submission.mark(marks)
        _write_page(submission, rubric, submission.folder, submission.student)
    if pseudonymous:
        rows = _pseudonymous(out, rubric, submissions)
    else:
        rows = [
            row(each, rubric, each.student, f"./{quote(each.student)}/index.html") for each in submissions
        ]
    _write_table(out, rubric, submissions, rows, pseudonymous, unreadable)


def _read(out: Path) -> tuple[list[Submission], list[str]]:
    """All results, and the folders whose result cannot be read."""
    submissions, unreadable = [], []
    for path in sorted(out.glob("*/result.json")):
        result = read_result(path)
        if result is None:
            unreadable.append(path.parent.name)
        else:
            submissions.append(Submission(path.parent, result))
    return submissions, unreadable


def _pseudonymous(out: Path, rubric: Rubric, submissions: list[Submission]) -> list[Row]:
    """Copies of the pages and their pictures under other names."""
    names = pseudonyms(out / "pseudonyms.csv", [submission.student for submission in submissions])
    rows = []
    for submission in submissions:
        name = names[submission.student]
        folder = out / "pages" / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for item in submission.result.items:
            for file in item.figures.values():
                if (source := picture(submission.folder, file)) is not None:
                    shutil.copyfile(source, folder / file)
        _write_page(submission, rubric, folder, name, up="../../index.html")
        rows.append(row(submission, rubric, name, f"./pages/{quote(folder.name)}/index.html"))
    return rows


def _write_page(
    submission: Submission, rubric: Rubric, folder: Path, who: str, up: str = "../index.html"
) -> None:
    cells = read_cells(submission.folder / "executed.json")
    html = pages().get_template("submission.html")
    values = {
        "rubric": rubric,
        "who": who,
        "up": up,
        "submission": submission,
        "row": row(submission, rubric, who, href=""),
        "result": submission.result,
        "sections": sections(submission, rubric, cells or []),
        "cells": cells,
    }
    write_atomically(folder / "index.html", html.render(values))


def _write_table(
    out: Path,
    rubric: Rubric,
    submissions: list[Submission],
    rows: list[Row],
    pseudonymous: bool,
    unreadable: list[str],
) -> None:
    counted = [submission for submission in submissions if submission.counts]
    receipts = [submission.result.receipt for submission in submissions if submission.result.receipt]
    values = {
        "rubric": rubric,
        "rows": sorted(rows, key=lambda row: row.who.casefold()),
        "states": _states(submissions),
        "distribution": distribution([submission.points for submission in counted], rubric.points),
        "problems": problem_means(rubric, counted),
        "waiting": sum(len(submission.waiting) for submission in submissions),
        "pseudonymous": pseudonymous,
        "unreadable": unreadable,
        "tiers": sorted({receipt.tier for receipt in receipts}),
        "unsafe": any(receipt.unsafe for receipt in receipts),
    }
    write_atomically(out / "index.html", pages().get_template("class.html").render(values))


def _states(submissions: list[Submission]) -> list[tuple[State, int]]:
    """How many ended how, in the verdicts' order."""
    verdicts = [submission.result.verdict for submission in submissions]
    return [(STATES[verdict], verdicts.count(verdict)) for verdict in Verdict if verdict in verdicts]
