"""A grader killed at random moments and started again ends with the results of one that was left alone."""

import multiprocessing
import os
import random
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from autograder import grading, receipt, reference
from autograder.report import figures
from tests.autograder.kill import check_journal, disturbed, outcomes, same_batch, window
from tests.autograder.parties import course, hand_in, parties

WORDS = ("good", "wrong", "late", "unsolved", "raises", "good", "dies_of_double", "uniform")

# Forks graders from a process that has imported everything once.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [__name__, "autograder.interview", "autograder.measure", "rich.progress", "rich.table"]
)


def grade(folder: Path, out: Path) -> None:
    """A grader whose parties answer in its own process, slowly enough to be killed in the middle."""
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    images = reference.public_images
    reference.public_images = lambda model: images(
        model.model_copy(update={"options": model.options | {"n": 300}})
    )
    figures.draw = lambda folder, name, **given: {}
    receipt.library_hash = lambda: "as it is now"
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    options = {"tier": "smoke", "slots": 2, "sandboxes": parties([], pause=0.15)}
    sys.exit(grading.grade_class(folder / "course", "tiny", folder / "class", out, **options))


class Grader:
    """Such a process, with the methods of `subprocess.Popen`."""

    def __init__(self, *arguments: Path):
        self._process = SERVER.Process(target=grade, args=arguments)
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("grade", timeout)
        return self.poll()

    def kill(self) -> None:
        self._process.kill()


@pytest.fixture
def start(tmp_path):
    """Starts a grader of a small class, which writes into a folder."""
    folder = course(tmp_path / "course")
    for number, word in enumerate(WORDS):
        hand_in(tmp_path / "class", f"student{number}", word, folder)
    return partial(Grader, tmp_path)


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_grader_goes_on_to_the_same_results(start, tmp_path, kills):
    if kills > 5 and "EVERYTHING" not in os.environ:
        pytest.skip("twenty kills take minutes; set EVERYTHING=1")
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    assert start(calm).wait() == 0
    same_batch(calm, wild)
    hit = disturbed(partial(start, wild), wild, kills, window(calm), draw=random.Random(kills))
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
