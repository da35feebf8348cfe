"""Our grader, behind its wall, against `nbgrader autograde`, which has none: `python -m benchmarks.grading`.

Both grade the same ten notebooks, once with nothing in them but a function, once with torch and matplotlib
imported. They take turns, so that a busy machine slows both; what is compared is the ratio of wall clocks.
Both must give every student all points. Results go to benchmarks/results: grading.json with a receipt,
grading.md to read.
"""

import argparse
import csv
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autograder.receipt import library_hash
from autograder.scheduler import cores

__all__ = ["KINDS", "RESULTS", "ROOT", "TARGETS", "autograder", "publish", "receipt", "table"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
NAME = "bench"
KINDS = {"trivial": "import math", "torch": "import matplotlib.pyplot as plt\nimport torch"}
TARGETS = {"trivial": 1.0, "torch": 3.0}  # how many times as fast as nbgrader

RUBRIC = """
from pathlib import Path

import numpy as np

from autograder.rubric import Probe, Problem, Rubric, Tier

probe = Probe(
    function="double",
    draw=lambda generator: {"x": np.asarray(generator.integers(100))},
    reference=lambda x: 2 * x,
    points=2,
)
rubric = Rubric(
    name="bench",
    title="Doubling",
    folder=Path(__file__).parent,
    problems=(Problem(name="double", title="Doubling", items=(probe,)),),
    tiers={"smoke": Tier(seconds=60, thresholds={})},
)
"""


def notebook(kind: str, solved: bool) -> dict[str, Any]:
    """Imports, a function to write, and nbgrader's test of it."""
    answer = "return 2 * x" if solved else "# YOUR CODE HERE\n    raise NotImplementedError()"
    cells = [
        _cell("setup", KINDS[kind], locked=True),
        _cell("double", f"def double(x):\n    {answer}", solution=True, problem="double"),
        _cell("double-test", "assert double(21) == 42", locked=True, grade=True, points=2, problem="double"),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


def _cell(name: str, source: str, problem: str | None = None, **about: Any) -> dict[str, Any]:
    flags = {"grade": False, "locked": False, "solution": False, "task": False}
    metadata: dict[str, Any] = {"nbgrader": flags | {"grade_id": name, "schema_version": 3} | about}
    if problem:
        metadata["dulcourse"] = {"problem": problem}
    empty = {"cell_type": "code", "execution_count": None, "outputs": []}
    return empty | {"id": name, "metadata": metadata, "source": source}


def make_course(folder: Path, kind: str, students: int) -> None:
    """One folder that is a course, and a class, for both graders."""
    files = {f"source/{NAME}/{NAME}.ipynb": json.dumps(notebook(kind, solved=False))}
    files[f"assignments/{NAME}/{NAME}.ipynb"] = files[f"source/{NAME}/{NAME}.ipynb"]
    files[f"solutions/{NAME}/rubric.py"] = RUBRIC
    for number in range(students):
        handed_in = f"submitted/student-{number}/{NAME}/{NAME}.ipynb"
        files[handed_in] = json.dumps(notebook(kind, solved=True))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    _run(_nbgrader("generate_assignment", folder), folder)


def _nbgrader(command: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "nbgrader", command, NAME, f"--course-dir={folder}"]


def theirs(folder: Path) -> float:
    """`nbgrader autograde`, which grades what it has no result of, or of everybody by force."""
    spent = _run([*_nbgrader("autograde", folder), "--force"], folder)
    with sqlite3.connect(folder / "gradebook.db") as gradebook:
        earned = [points for (points,) in gradebook.execute("SELECT auto_score FROM grade")]
    _all_points(earned)
    return spent


def ours(folder: Path, out: Path) -> float:
    """`autograder grade` into a new folder, with all that belongs to it: secret, table, report."""
    options = ["--class", str(folder), "--out", str(out), "--tier", "smoke", "--course", str(folder)]
    spent = autograder(["grade", NAME, *options], folder)
    with (out / "grades.csv").open(newline="") as file:
        _all_points([float(row["points"]) for row in csv.DictReader(file)])
    return spent


def autograder(arguments: list[str], folder: Path) -> float:
    """Run our grader, with its secrets below `folder`; returns the seconds it took."""
    return _run([sys.executable, "-m", "autograder.cli", *arguments], folder)


def _run(command: list[str], folder: Path) -> float:
    """Run, and the seconds it took."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # nbgrader calls alembic
    ours = {"PATH": programs, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder / "state")}
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=os.environ | ours, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return round(seconds, 2)


def _all_points(earned: list[float]) -> None:
    if not earned or any(points != 2 for points in earned):
        sys.exit(f"not everybody has 2 points: {earned}")


def measure(kind: str, students: int, rounds: int) -> dict[str, list[float]]:
    """Both graders in turn, `rounds` times."""
    found: dict[str, list[float]] = {"nbgrader": [], "dulcourse": []}
    with tempfile.TemporaryDirectory() as name:
        make_course(Path(name), kind, students)
        for number in range(rounds):
            found["nbgrader"].append(theirs(Path(name)))
            found["dulcourse"].append(ours(Path(name), Path(name) / f"graded-{number}"))
            print(f"{kind}: {found['nbgrader'][-1]} {found['dulcourse'][-1]}", flush=True)
    return found


def receipt(students: int) -> dict[str, Any]:
    """What a reader needs to know to believe the ratios, or to measure them again."""
    packages = {name: version(name) for name in ("nbgrader", "torch", "papermill", "ipykernel")}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": cores(),
        "students": students,
        "library": library_hash(),
        **packages,
    }


def publish(path: Path, results: dict[str, Any], words: str) -> None:
    """Write the results as `path`.json, in words as `path`.md, and show the words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    path.with_suffix(".md").write_text(words)
    print(words)


def ratio(found: dict[str, list[float]]) -> float:
    """How many times as fast as nbgrader: the median over rounds of the ratio of wall clocks."""
    rounds = zip(found["nbgrader"], found["dulcourse"], strict=True)
    return statistics.median(theirs / ours for theirs, ours in rounds)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| ten notebooks | nbgrader, no wall | ours, behind the wall | times as fast | target |",
        "|---|---|---|---|---|",
    ]
    for kind, found in results["kinds"].items():
        wall = {grader: statistics.median(rounds) for grader, rounds in found.items()}
        lines.append(
            f"| {kind} | {wall['nbgrader']:.1f} s | {wall['dulcourse']:.1f} s | {ratio(found):.2f} | "
            f"≥ {TARGETS[kind]:g} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, write, and show."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python -m benchmarks.grading")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--students", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of grading.json and grading.md")
    arguments = parser.parse_args()
    kinds = {kind: measure(kind, arguments.students, arguments.rounds) for kind in arguments.only}
    results = {"receipt": receipt(arguments.students), "kinds": kinds}
    publish(arguments.out / "grading", results, table(results))


if __name__ == "__main__":
    main()
