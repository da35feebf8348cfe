"""A grader killed at random moments and started again ends with the results of one that was left alone."""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from autograder import grading
from tests.autograder.kill import check_journal, disturbed, outcomes, same_batch
from tests.autograder.parties import course, hand_in

ROOT = Path(__file__).parents[2]
WORDS = ("good", "wrong", "late", "unsolved", "raises", "good", "dies_of_double", "uniform")

# A grader whose parties answer in its own process, slowly enough to be killed in the middle.
GRADER = """
import sys
from pathlib import Path
import autograder.report.figures as figures
figures.draw = lambda folder, name, **given: {}
import autograder.reference as reference
reference.public_images = lambda model, images=reference.public_images: images(
    model.model_copy(update={"options": model.options | {"n": 300}})
)
import autograder.receipt as receipt
receipt.library_hash = lambda: "as it is now"
from autograder.grading import grade_class
from tests.autograder.parties import parties
course, klass, out = map(Path, sys.argv[1:])
sys.exit(grade_class(course, "tiny", klass, out, tier="smoke", slots=2, sandboxes=parties([], pause=0.15)))
"""


@pytest.fixture
def grader(tmp_path):
    """The command that grades a small class into a folder, and its environment."""
    folder = course(tmp_path / "course")
    for number, word in enumerate(WORDS):
        hand_in(tmp_path / "class", f"student{number}", word, folder)
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    options = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def command(name: str) -> tuple[list[str], dict]:
        return [
            sys.executable,
            "-c",
            GRADER,
            str(folder),
            str(tmp_path / "class"),
            str(tmp_path / name),
        ], options

    return command


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_grader_goes_on_to_the_same_results(grader, tmp_path, kills):
    if kills > 5 and "EVERYTHING" not in os.environ:
        pytest.skip("twenty kills take minutes; set EVERYTHING=1")
    command, options = grader("calm")
    subprocess.run(command, check=True, **options)
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    same_batch(calm, wild)
    command, options = grader("wild")
    hit = disturbed(command, wild, kills, window=1.0, draw=random.Random(kills), **options)
    assert hit >= 2
    assert outcomes(wild) == outcomes(calm)
    assert set(check_journal(wild)) == {f"student{number}" for number in range(len(WORDS))}
    assert not list(wild.rglob(".*unfinished"))


def test_the_journal_would_show_a_second_run(tmp_path):
    lines = ['{"event": "started", "student": "ada"}', '{"event": "graded", "student": "ada"}']
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + "\n")
    assert check_journal(tmp_path) == {"ada": 1}
    (tmp_path / "journal.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")
    with pytest.raises(AssertionError, match="began again"):
        check_journal(tmp_path)


def test_a_stopped_grader_writes_no_more_results(tmp_path, monkeypatch):
    """While the grader ends its sandboxes die, which must not be taken for the student's doing."""
    monkeypatch.setattr(grading, "grade_one", lambda *given: None)
    stopped = threading.Event()
    stopped.set()
    desk, task = SimpleNamespace(out=tmp_path), SimpleNamespace(student="ada")
    with pytest.raises(KeyboardInterrupt):
        grading._one(desk, task, lambda: None, "graded", stopped)
    assert not list(tmp_path.rglob("result.json"))
