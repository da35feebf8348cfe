"""The command line: an example in every help, a sentence for every mistake, never a traceback."""

import errno
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.main import get_command

from autograder import cli
from tests.autograder.parties import course, hand_in, parties

COMMANDS = ("release", "grade", "regrade", "report", "calibrate", "doctor")


@pytest.fixture
def autograder(tmp_path, monkeypatch, capfd):
    """Run the command in the tiny course; returns (status, standard output, standard error)."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("autograder.sandboxes.Sandboxes", lambda **_: nullcontext(parties([])))
    monkeypatch.setattr("autograder.report.figures.draw", lambda folder, name, **given: {})
    folder = course(tmp_path / "course")
    for student, word in {"ada": "good", "bob": "unsolved"}.items():
        hand_in(tmp_path / "class", student, word, folder)
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli._status([argument.replace("TMP", str(tmp_path)) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run


GRADE = ("grade", "tiny", "--class", "TMP/class", "--out", "TMP/out", "--tier", "smoke", "--slots", "1")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(autograder, command):
    status, out, _ = autograder(command, "--help")
    assert status == 0
    assert f"autograder {command}" in out.partition("Example:")[2]


def test_the_commands_are_those_tested():
    assert set(get_command(cli.app).commands) == set(COMMANDS)


def test_a_class_is_graded_and_nothing_is_run_twice(autograder, tmp_path):
    status, out, err = autograder(*GRADE)
    assert status == 0
    assert all(word in out for word in ("ada", "9.00", "bob", "index.html"))
    assert "ada: graded, 9.0 of 9" in err
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/result.json")}
    assert len(before) == 2
    status, out, err = autograder(*GRADE)
    assert status == 0
    assert "ada: graded" not in err
    assert "under another rubric" not in out
    assert "9.00" in out
    assert before == {path: path.read_bytes() for path in before}
    events = [json.loads(line)["event"] for line in (tmp_path / "out/journal.jsonl").read_text().splitlines()]
    assert events == ["started", "graded"] * 2


def test_points_given_by_hand_are_added_by_the_report(autograder, tmp_path):
    autograder(*GRADE)
    path = tmp_path / "out" / "written.csv"
    path.write_text(path.read_text().replace("ada,why,,", "ada,why,2.5,well said"))
    status, _, _ = autograder("report", "TMP/out")
    assert status == 0
    assert "ada,graded,9,9,2.5,3,11.5" in (tmp_path / "out/grades.csv").read_text()
    assert "ada" not in (tmp_path / "out/index.html").read_text()
    autograder("report", "TMP/out", "--names")
    assert "ada" in (tmp_path / "out/index.html").read_text()
    path.write_text(path.read_text().replace("2.5", "99"))
    status, _, err = autograder("report", "TMP/out")
    assert status == 1
    assert "99" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("grade",), "Missing argument"),
        (("grad", "tiny"), "No such command 'grad'"),
        ((*GRADE, "--slots", "0"), "'--slots'"),
        ((*GRADE, "--colour"), "No such option"),
        (("grade", "tinny", *GRADE[2:]), "did you mean 'tiny'"),
        ((*GRADE[:-3], "huge"), "unknown tier 'huge'"),
        ((*GRADE, "--student", "eve"), "unknown student 'eve'"),
        (("grade", "tiny", "--class", "TMP/nowhere", *GRADE[4:]), "a class folder holds submitted/"),
        ((*GRADE[:5], "TMP/class", *GRADE[6:]), "no folder of results"),
        (("report", "TMP/class"), "there is no batch.json"),
        (("regrade", "TMP/class"), "there is no batch.json"),
        (("release",), "name one assignment"),
        (("release", "tiny", "--all"), "name one assignment"),
        (("release", "tinny"), "did you mean 'tiny'"),
        (("calibrate", "tinny"), "did you mean 'tiny'"),
        (("calibrate", "tiny", "--tier", "smok"), "unknown tier 'smok'"),
        (("calibrate", "tiny", "--tier", "smoke", "--seeds", "2"), "'--seeds'"),
        (("grade", "tiny", *GRADE[2:], "--course", "TMP/class"), "no solutions/"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_status_one(autograder, arguments, words):
    status, out, err = autograder(*arguments)
    assert status == 1
    assert words in " ".join((out + err).replace("│", " ").split())


def test_a_problem_or_data_set_that_does_not_exist_is_named(autograder, tmp_path):
    path = tmp_path / "course/solutions/tiny/rubric.py"
    text = path.read_text()
    path.write_text(text.replace('data="glyphs"', 'data="glyfs"'))
    status, _, err = autograder(*GRADE)
    assert status == 1
    assert "glyfs" in err
    path.write_text(text + '\nrubric.problem("tabel")\n')
    status, _, err = autograder(*GRADE)
    assert status == 1
    assert "unknown problem 'tabel'" in err


def test_an_unreadable_notebook_scores_nothing_and_stops_nobody(autograder, tmp_path):
    (tmp_path / "class/submitted/bob/tiny/tiny.ipynb").write_text("{oops")
    status, out, _ = autograder(*GRADE)
    assert status == 0
    assert "broken at line 1" in " ".join(out.replace("│", " ").split())
    assert "9.00" in out


def test_a_foreign_folder_of_results_is_refused(autograder):
    autograder(*GRADE)
    status, _, err = autograder(*GRADE, "--seed", "5")
    assert status == 1
    assert "seed 0, not 5" in err


def test_foreign_reference_weights_are_a_sentence(autograder, tmp_path):
    (tmp_path / "course/solutions/tiny/reference/table-smoke.safetensors").write_bytes(b"not weights")
    status, _, err = autograder(*GRADE)
    assert status == 1
    assert "autograder calibrate tiny --tier smoke" in err


def test_a_missing_release_says_how_to_make_one(autograder, tmp_path):
    (tmp_path / "course/assignments/tiny/tiny.ipynb").unlink()
    status, _, err = autograder(*GRADE)
    assert status == 1
    assert "`autograder release tiny`" in err


def test_without_a_sandbox_nothing_is_run(autograder, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path / "course")
    status, _, err = autograder(*GRADE)
    assert status == 2
    assert "bubblewrap" in err
    assert not list((tmp_path / "out").glob("*/executed.json"))


def test_a_full_disk_stops_the_batch_and_keeps_what_is_finished(autograder, monkeypatch, tmp_path):
    autograder(*GRADE, "--student", "ada")
    real = os.fsync

    def full(handle):
        if "bob" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = autograder(*GRADE)
    assert status == 2
    assert "No space left on device; free some space" in err
    monkeypatch.setattr(os, "fsync", real)
    assert (tmp_path / "out/ada/result.json").is_file()
    assert not (tmp_path / "out/bob/result.json").exists()
    assert autograder(*GRADE)[0] == 0
    assert not list((tmp_path / "out").rglob(".*unfinished"))


def test_the_machines_failure_is_status_two(autograder, tmp_path):
    hand_in(tmp_path / "class", "eve", "unlucky", tmp_path / "course")
    status, out, _ = autograder(*GRADE)
    assert status == 2
    assert "1 not graded, by no fault of theirs: eve" in out


def test_an_interrupt_says_that_nothing_is_lost(autograder, monkeypatch):
    monkeypatch.setattr(
        "autograder.grading.run_all", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    status, _, err = autograder(*GRADE)
    assert status == 1
    assert "what is finished is kept" in err


def test_help_imports_nothing_heavy():
    heavy = {"torch", "pydantic", "numpy", "rich.markdown"}
    code = f"""
import sys, autograder.cli
autograder.cli._status(["--help"])
sys.exit(bool({heavy} & set(sys.modules)))
"""
    root = Path(cli.__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert found.returncode == 0
    assert b"grade" in found.stdout
