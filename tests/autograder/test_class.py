"""The example classes through the public command line: students get what the table says, nobody more."""

import csv
import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path

import psutil
import pytest

from autograder.grades import all_results
from autograder.receipt import library_hash, rubric_hash
from autograder.results import SubmissionResult, Verdict
from autograder.rubric import Rubric, load_rubric
from tests.submissions.make import HOMEWORKS, Homework
from tests.submissions.table import got, said

pytestmark = [pytest.mark.wall, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
CLASSES = {assignment: Homework.of(assignment) for assignment in HOMEWORKS}
HW1 = "hw1_autoregressive"


class Graded:
    """What one run of `autograder grade` left: results by student, the folder, and processes."""

    def __init__(self, homework: Homework, out: Path, left_behind: list[str]):
        self.homework, self.out, self.left_behind = homework, out, left_behind
        self.results: dict[str, SubmissionResult] = {r.student: r for r in all_results(out)}

    @cached_property
    def rubric(self) -> Rubric:
        return load_rubric(self.homework.assignment, ROOT / "solutions")

    def everything_said(self, student: str) -> str:
        return said(self.results[student])

    def points(self, student: str, problem: str) -> float:
        return got(self.results[student], problem)


@pytest.fixture(scope="session")
def grade(tmp_path_factory) -> Callable[[str], Graded]:
    """Grades the class of an assignment, once.

    `DULCOURSE_CLASS_OUT` names a folder to keep the classes in, for the next time. Results of another state
    of the code would prove nothing about this one: those are graded anew.
    """
    state = tmp_path_factory.mktemp("state")

    @cache
    def tried(assignment: str) -> Graded | AssertionError:
        kept = os.environ.get("DULCOURSE_CLASS_OUT")
        out = Path(kept or tmp_path_factory.mktemp("class")) / assignment
        if kept and _of_other_code(assignment, out):
            shutil.rmtree(out)
        try:
            return _graded(CLASSES[assignment], out, {} if kept else {"XDG_STATE_HOME": str(state)})
        except AssertionError as error:  # to be remembered: a second try takes minutes as well
            return error

    def graded(assignment: str) -> Graded:
        found = tried(assignment)
        if isinstance(found, AssertionError):
            raise found
        return found

    return graded


def _graded(homework: Homework, out: Path, home: dict[str, str]) -> Graded:
    command = [sys.executable, "-m", "autograder.cli", "grade", homework.assignment, "--tier", "smoke"]
    cores = _free_cores()
    slots = len(cores) + 1  # some students sleep until their time is over
    with _adopting() as orphans:
        done = subprocess.run(
            [*command, "--class", str(homework.folder), "--out", str(out), "--slots", str(slots)],
            cwd=ROOT,
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
        )
        left_behind = orphans()
    assert done.returncode == 0, done.stdout + done.stderr
    return Graded(homework, out, left_behind)


def _free_cores() -> set[int]:
    """The cores that the workers beside this one leave."""
    others = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) - 1
    every = sorted(os.sched_getaffinity(0))
    return set(every[min(others, len(every) - 1) :])


def _of_other_code(assignment: str, out: Path) -> bool:
    release = ROOT / "assignments" / assignment / f"{assignment}.ipynb"
    now = library_hash(), rubric_hash(ROOT / "solutions" / assignment, release)
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


@pytest.fixture(params=HOMEWORKS)
def graded(request, grade) -> Graded:
    """Each class in turn."""
    return grade(request.param)


@pytest.mark.parametrize("assignment", HOMEWORKS)
def test_the_class_is_what_its_maker_makes(assignment):
    assert CLASSES[assignment].stale() == []


@pytest.mark.parametrize("assignment", HOMEWORKS)
def test_the_table_names_everybody(assignment):
    homework = CLASSES[assignment]
    assert set(homework.expected) == {*homework.students, *homework.hostile, "unreadable", "missing"}
    problems = {problem.name for problem in load_rubric(assignment, ROOT / "solutions").problems}
    assert all(set(row.points) <= problems for row in homework.expected.values())
    assert any(homework.expected[student].worthless for student in homework.hostile)


def test_every_student_has_one_row_with_finite_points(graded):
    measured = graded.results["perfect"].out_of
    with (graded.out / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["student"] for row in rows] == sorted(graded.homework.expected)
    assert all(0 <= float(row["points"]) <= float(row["out_of"]) == measured for row in rows)
    assert set(graded.results) == set(graded.homework.expected)


@pytest.mark.parametrize(
    ("assignment", "student"),
    [(name, student) for name, homework in CLASSES.items() for student in sorted(homework.expected)],
)
def test_what_a_student_gets(grade, assignment, student):
    graded = grade(assignment)
    expected, result = graded.homework.expected[student], graded.results[student]
    said = graded.everything_said(student)
    assert result.verdict in expected.verdicts, said
    for problem in graded.rubric.problems:
        least, most = expected.limits(problem.name)
        points = graded.points(student, problem.name)
        assert least - 1e-9 <= points <= most + 1e-9, f"{problem.name}: {said}"
    for word in expected.words:
        assert word.lower() in said.lower(), said


def test_full_marks_are_full(graded):
    perfect, items = graded.results["perfect"], [item for _, item in graded.rubric.items]
    written = sum(item.points for item in items if item.kind == "written")
    assert perfect.points == perfect.out_of == graded.rubric.points - written
    assert perfect.by_hand == written


def test_a_leak_costs_the_model_and_the_first_forbidden_pair_is_named(grade):
    result = grade(HW1).results["leaks-by-one"]
    item = next(item for item in result.items if item.id == "model:made")
    assert item.points == 0
    assert re.search(r"output \d+ .*sees input \d+", " ".join(item.words))


def test_no_attack_earns_a_point_that_was_not_earned(graded):
    """Who attacks instead of working gets nothing; who attacks with a good model gets less than for it."""
    homework = graded.homework
    idle = {name for name in homework.hostile if homework.expected[name].worthless}
    assert {name: graded.results[name].points for name in idle} == dict.fromkeys(idle, 0.0)
    for student in set(homework.hostile) - idle:
        assert graded.results[student].points < graded.results["perfect"].points


def test_whoever_looked_around_found_nothing(grade):
    shown = (grade(HW1).out / "reads-what-is-not-theirs" / "executed.json").read_text()
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
