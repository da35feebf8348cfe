"""How long it takes to score a submission again from its saved weights: `python -m benchmarks.regrading`.

A class whose every student hands in the solution of a homework, which is what costs most, is graded once and
then graded again as `autograder regrade` does it: two replays of the notebook behind the wall, new answers to
the same questions, figures, report. What is said is the wall clock of the whole command, by submission.
Results go to benchmarks/results: regrading.json with a receipt, regrading.md to read.
"""

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from autograder.release import solved
from autograder.rubric import load_rubric
from benchmarks.grading import RESULTS, ROOT, autograder, publish, receipt

__all__ = ["HOMEWORKS", "TARGET", "table"]

HOMEWORKS = tuple(sorted(path.parent.name for path in (ROOT / "solutions").glob("*/rubric.py")))
TARGET = 2.5  # seconds a submission


def make_class(folder: Path, homework: str, students: int) -> None:
    """A class folder in which everybody hands in the solution."""
    source = ROOT / "solutions" / homework / f"{homework}.py"
    text = nbformat.writes(solved(source))
    for number in range(students):
        path = folder / "submitted" / f"student-{number}" / homework / f"{homework}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(text)


def measure(homework: str, students: int, rounds: int) -> dict[str, Any]:
    """Seconds a submission: of the grading, which trains, and of each of the re-scores after it."""
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "graded"
        make_class(folder, homework, students)
        tier = ["--tier", "smoke"]
        first = autograder(["grade", homework, "--class", str(folder), "--out", str(out), *tier], folder)
        points = _points(out, homework)
        again = []
        for _ in range(rounds):
            again.append(round(autograder(["regrade", str(out)], folder) / students, 2))
            if _points(out, homework) != points:
                raise SystemExit(f"{homework}: {_points(out, homework)} points, and {points} before.")
            print(f"{homework}: {first / students:.2f} s with training, {again[-1]} s again", flush=True)
    return {"grade": round(first / students, 2), "regrade": again, "points": points}


def _points(out: Path, homework: str) -> list[float]:
    """Points of each student; a solution that misses many would not be what costs most."""
    with (out / "grades.csv").open(newline="") as file:
        earned = [float(row["points"]) for row in csv.DictReader(file)]
    rubric = load_rubric(homework, ROOT / "solutions")
    most = sum(item.points for _, item in rubric.items if item.kind != "written")
    if not earned or min(earned) < 0.9 * most:
        raise SystemExit(f"{homework}: the solution has {earned} of {most} points.")
    return earned


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| homework | graded, with training | scored again | target |",
        "|---|---|---|---|",
    ]
    for homework, found in results["homeworks"].items():
        again = statistics.median(found["regrade"])
        lines.append(f"| {homework} | {found['grade']:.1f} s | {again:.2f} s | ≤ {TARGET:g} s |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, write, and show."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python -m benchmarks.regrading")
    parser.add_argument("--only", nargs="+", choices=list(HOMEWORKS), default=list(HOMEWORKS))
    parser.add_argument("--students", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of regrading.json and regrading.md")
    arguments = parser.parse_args()
    found = {name: measure(name, arguments.students, arguments.rounds) for name in arguments.only}
    results = {"receipt": receipt(arguments.students), "homeworks": found}
    publish(arguments.out / "regrading", results, table(results))


if __name__ == "__main__":
    main()
