"""The example classes: each student is a release, solved, with one named change.

    python -m tests.submissions.make            write tests/submissions/hw1/, hw2/, …
    python -m tests.submissions.make --check    fail if what is there is not what this file makes

A student's folder has the name of what the student does. Who they are, and what the grader must make of
each, is in `students/<assignment>.py`.
"""

import csv
import importlib
import io
import json
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from autograder.release import solved
from tests.submissions.edits import Edit, Notebook, find
from tests.submissions.expected import Expected

__all__ = ["HOMEWORKS", "Homework", "main"]

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
_MARKS = {"### BEGIN SOLUTION", "### END SOLUTION"}


@dataclass(frozen=True)
class Homework:
    """One homework's class: honest and hostile students, and what is right for each in the smoke tier."""

    assignment: str
    students: Mapping[str, tuple[Edit, ...]]
    hostile: Mapping[str, tuple[Edit, ...]]
    factors: Mapping[str, float]  # on the time limit; 4 where nothing else is said
    expected: Mapping[str, Expected]

    @classmethod
    def of(cls, assignment: str) -> "Homework":
        """The class that `students/<assignment>.py` describes."""
        module = importlib.import_module(f"tests.submissions.students.{assignment}")
        return cls(assignment, module.STUDENTS, module.HOSTILE, module.FACTORS, module.EXPECTED)

    @property
    def folder(self) -> Path:
        """The class folder, `hw1` for `hw1_autoregressive`."""
        return HERE / self.assignment.partition("_")[0]

    def released(self) -> Notebook:
        """What students were given."""
        return json.loads(_release(self.assignment).read_text())

    def solution(self) -> Notebook:
        """The release with every solution filled in, without the marks around it."""
        notebook = self.released()
        for cell in solved(ROOT / "solutions" / self.assignment / f"{self.assignment}.py").cells:
            lines = [line for line in cell.source.split("\n") if line.strip() not in _MARKS]
            find(notebook, cell.id)["source"] = "\n".join(lines)
        return notebook

    def files(self) -> dict[str, str]:
        """The class folder: path → content."""
        given, good, texts = self.released(), self.solution(), {}
        for student, edits in {**self.students, **self.hostile}.items():
            notebook = deepcopy(good)
            for edit in edits:
                edit(notebook, given)
            texts[student] = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        texts["unreadable"] = texts["perfect"][: len(texts["perfect"]) // 2]
        name = self.assignment
        content = {f"submitted/{student}/{name}/{name}.ipynb": text for student, text in texts.items()}
        return {"roster.csv": self._roster([*texts, "missing"]), **content}

    def _roster(self, students: list[str]) -> str:
        """Generous limits for all but those who exceed them: a busy machine must not change a verdict."""
        factors = {student: self.factors.get(student, 4) for student in sorted(students)}
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("student", "time_factor"), *factors.items()])
        return text.getvalue()

    def stale(self) -> list[str]:
        """Files that are not what they should be, or should not be there."""
        wanted, folder = self.files(), self.folder
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        changed = [
            name for name, text in wanted.items() if name in there and (folder / name).read_text() != text
        ]
        return sorted(changed + list(there ^ set(wanted)))

    def write(self) -> None:
        """Make the class folder what it should be."""
        wanted = self.files()
        for name in self.stale():
            path = self.folder / name
            if name not in wanted:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name])


def _release(assignment: str) -> Path:
    return ROOT / "assignments" / assignment / f"{assignment}.ipynb"


HOMEWORKS = sorted(path.stem for path in (HERE / "students").glob("hw*.py") if _release(path.stem).is_file())


def main(arguments: list[str]) -> int:
    """Write the classes, or check them."""
    different = []
    for homework in map(Homework.of, HOMEWORKS):
        stale = homework.stale()
        different += [f"{homework.folder.name}/{name}" for name in stale]
        if stale and "--check" not in arguments:
            homework.write()
    if "--check" in arguments:
        print("\n".join(different) or "the classes are up to date")
        return bool(different)
    print(f"{len(different)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
