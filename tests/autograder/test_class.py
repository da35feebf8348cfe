"""The example class through the public command line: every student gets what the table says, nobody more."""

import csv
import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from autograder.grades import all_results
from autograder.receipt import library_hash, rubric_hash
from autograder.results import SubmissionResult, Verdict
from tests.submissions import make
from tests.submissions.expected import EXPECTED

pytestmark = [pytest.mark.wall, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


class Graded:
    """What one run of `autograder grade` left: results by student, the folder, and processes."""

    def __init__(self, out: Path, left_behind: list[str]):
        self.out, self.left_behind = out, left_behind
        self.results: dict[str, SubmissionResult] = {r.student: r for r in all_results(out)}

    def everything_said(self, student: str) -> str:
        """Reason, words of every item, errors and notes, in one text."""
        result = self.results[student]
        words = [word for item in result.items for word in item.words]
        errors = [f"{error.name}: {error.message}" for error in result.errors]
        return "\n".join([result.reason, *words, *errors, *result.notes])

    def points(self, student: str, problem: str) -> float:
        return sum(item.points or 0 for item in self.results[student].items if item.problem == problem)


@pytest.fixture(scope="session")
def graded(tmp_path_factory) -> Graded:
    """The class, graded once. `DULCOURSE_CLASS_OUT` names a folder to keep it in, for the next time.

    Results of another state of the code would prove nothing about this one: those are graded anew.
    """
    kept = os.environ.get("DULCOURSE_CLASS_OUT")
    if kept and _of_other_code(Path(kept)):
        shutil.rmtree(kept)
    out = Path(kept) if kept else tmp_path_factory.mktemp("class") / "graded"
    home = {} if kept else {"XDG_STATE_HOME": str(tmp_path_factory.mktemp("state"))}
    command = [sys.executable, "-m", "autograder.cli", "grade", make.ASSIGNMENT, "--tier", "smoke"]
    with _adopting() as orphans:
        done = subprocess.run(
            [*command, "--class", str(make.CLASS), "--out", str(out)],
            cwd=ROOT,
            env={**os.environ, **home},
            capture_output=True,
            text=True,
        )
        left_behind = orphans()
    assert done.returncode == 0, done.stdout + done.stderr
    return Graded(out, left_behind)


def _of_other_code(out: Path) -> bool:
    release = ROOT / "assignments" / make.ASSIGNMENT / f"{make.ASSIGNMENT}.ipynb"
    now = library_hash(), rubric_hash(ROOT / "solutions" / make.ASSIGNMENT, release)
    receipts = [result.receipt for result in all_results(out) if result.receipt]
    return any((receipt.library, receipt.rubric) != now for receipt in receipts)


@contextmanager
def _adopting() -> Iterator[Callable[[], list[str]]]:
    """What a child of ours leaves behind becomes ours; the dead are buried, the living are named."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = {process.pid for process in psutil.Process().children(recursive=True)}

    def orphans() -> list[str]:
        found = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
        dead = [p for p in found if p.status() == psutil.STATUS_ZOMBIE]
        for process in dead:
            os.waitpid(process.pid, os.WNOHANG)
        return [f"{p.pid} {p.status()} {p.name()}" for p in found if p not in dead]

    prctl(SUBREAPER, 1, 0, 0, 0)
    try:
        yield orphans
    finally:
        prctl(SUBREAPER, 0, 0, 0, 0)


def test_the_class_is_what_its_maker_makes():
    assert make.stale() == []


def test_the_table_names_everybody():
    assert set(EXPECTED) == {*make.STUDENTS, *make.HOSTILE, "unreadable", "missing"}
    assert len(make.HOSTILE) >= 6


def test_every_student_has_one_row_with_finite_points(graded):
    with (graded.out / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["student"] for row in rows] == sorted(EXPECTED)
    assert all(0 <= float(row["points"]) <= float(row["out_of"]) == 90 for row in rows)
    assert set(graded.results) == set(EXPECTED)


@pytest.mark.parametrize("student", sorted(EXPECTED))
def test_what_a_student_gets(graded, student):
    expected, result = EXPECTED[student], graded.results[student]
    said = graded.everything_said(student)
    assert result.verdict in expected.verdicts, said
    for problem in ("histogram", "mixture", "made"):
        least, most = expected.points(problem)
        assert least - 1e-9 <= graded.points(student, problem) <= most + 1e-9, f"{problem}: {said}"
    for word in expected.words:
        assert word.lower() in said.lower(), said


def test_full_marks_are_full(graded):
    assert graded.results["perfect"].points == graded.results["perfect"].out_of == 90
    assert graded.results["perfect"].by_hand == 10


def test_a_leak_costs_the_model_and_the_first_forbidden_pair_is_named(graded):
    item = next(item for item in graded.results["leaks-by-one"].items if item.id == "model:made")
    assert item.points == 0
    assert re.search(r"output \d+ .*sees input \d+", " ".join(item.words))


def test_no_attack_earns_a_point_that_was_not_earned(graded):
    """Who attacks instead of working gets nothing; who attacks with a good model gets less than for it."""
    idle = {name for name in make.HOSTILE if not any(EXPECTED[name].points(problem)[1] for problem in _ALL)}
    assert len(idle) >= 6
    assert {name: graded.results[name].points for name in idle} == dict.fromkeys(idle, 0.0)
    for student in set(make.HOSTILE) - idle:
        assert graded.results[student].points < graded.results["perfect"].points


_ALL = ("histogram", "mixture", "made")


def test_whoever_looked_around_found_nothing(graded):
    shown = (graded.out / "reads-what-is-not-theirs" / "executed.json").read_text()
    # An ordinary user's sandbox begins with a bubblewrap of the same user, whose memory map (nothing of the
    # grader's: its options travel unseen) can be listed. As root not even that.
    processes = ["[]"] if os.geteuid() == 0 else ["[]", "['1/maps']"]
    assert any(f"others' processes: {found}" in shown for found in processes)
    for what in ("others' files: []", "secrets: []"):
        assert what in shown


def test_no_verdict_blames_the_machine(graded):
    assert not [name for name, r in graded.results.items() if r.verdict is Verdict.infrastructure_error]


def test_nothing_is_left_running(graded):
    assert graded.left_behind == []
