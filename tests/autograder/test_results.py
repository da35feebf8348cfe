"""Files that outlive a crash: results, journal, batch, table."""

import csv
import errno
import json
import os
import stat

import pytest

from autograder import journal
from autograder.batch import alone, create_batch, read_batch, secret_of, state_folder
from autograder.grades import class_table, write_grades
from autograder.report.written import Mark
from autograder.results import ItemResult, SubmissionResult, Verdict, read_result, write_atomically
from autograder.rubric import load_rubric
from autograder.run import Run, load_run, save_run
from dulcourse.errors import InfrastructureError, UsageError
from tests.autograder.parties import TINY


def result(student="ada", **changes):
    fields = {
        "assignment": "tiny",
        "student": student,
        "verdict": Verdict.graded,
        "points": 7.5,
        "out_of": 9,
        "by_hand": 3,
        "seconds": 1.5,
        "items": [],
    }
    return SubmissionResult(**fields | changes)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- files -----------------------------------------------------------------------------------------------


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "result.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomically(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InfrastructureError, match="No space left on device; free some space"):
        write_atomically(path, "new" * 1000)
    assert path.read_text() == "old"


def test_results_survive_the_round_trip_and_others_are_not_read(tmp_path):
    path = tmp_path / "result.json"
    write_atomically(path, result().model_dump_json())
    assert read_result(path) == result()
    for text in (
        "",
        "{",
        "[]",
        "{}",
        result().model_dump_json().replace('"schema_version":1', '"schema_version":2'),
    ):
        path.write_text(text)
        assert read_result(path) is None
    assert read_result(tmp_path / "missing") is None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_points_are_finite_numbers(number):
    with pytest.raises(ValueError, match="finite"):
        result(points=number)


def test_a_run_is_kept_with_its_weights_and_nothing_older(tmp_path):
    save_run(tmp_path, Run(verdict=Verdict.graded, checkpoints={"a": b"1", "b": b"2"}))
    run = Run(verdict=Verdict.timeout, last_cell=3, claims={"b": 1.0}, checkpoints={"b": b"3"})
    save_run(tmp_path, run)
    assert load_run(tmp_path) == run
    assert load_run(tmp_path / "nobody") is None


# --- the journal -----------------------------------------------------------------------------------------


def test_the_journal_keeps_whole_lines_after_a_torn_one(tmp_path):
    journal.append(tmp_path, "started", student="ada")
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"event": "fini')
    journal.append(tmp_path, "started", student="bob")
    assert [entry["student"] for entry in journal.entries(tmp_path)] == ["ada", "bob"]
    assert journal.entries(tmp_path / "nowhere") == []


# --- the batch -------------------------------------------------------------------------------------------


@pytest.fixture
def begin(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def begin(out="out", **changes):
        fields = {"assignment": "hw", "tier": "cpu", "seed": 0, "device": "cpu", "class_folder": tmp_path}
        return create_batch(tmp_path / out, **fields | changes)

    return begin


def test_the_secret_is_one_a_batch_kept_and_private(begin, tmp_path):
    batch = begin()
    secret = secret_of(batch)
    assert len(secret) == 16
    assert secret_of(begin()) == secret_of(read_batch(tmp_path / "out")) == secret
    assert secret_of(begin("other")) != secret
    files = [path for path in state_folder().rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(state_folder().stat().st_mode) == 0o700
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert secret not in everything
    assert secret.hex().encode() not in everything


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"assignment": "other"}, "assignment 'hw', not 'other'"),
        ({"tier": "smoke"}, "tier 'cpu', not 'smoke'"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"class_folder": None}, "class folder"),
    ],
)
def test_a_folder_of_other_results_is_refused(begin, tmp_path, changes, words):
    begin()
    if "class_folder" in changes:
        changes = {"class_folder": tmp_path / "elsewhere"}
    with pytest.raises(UsageError, match=words):
        begin(**changes)


def test_a_folder_of_something_else_is_refused(begin, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"'thesis\.tex' but no batch\.json"):
        begin()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        begin("file")
    (tmp_path / "out" / "batch.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        begin()


def test_a_secret_that_is_gone_or_seen_is_a_sentence(begin, tmp_path):
    batch = begin()
    path = next(path for path in state_folder().rglob("*") if path.is_file())
    path.chmod(0o644)
    with pytest.raises(InfrastructureError, match="0644"):
        secret_of(batch)
    path.unlink()
    with pytest.raises(InfrastructureError, match="copy the file"):
        secret_of(batch)


def test_a_secret_inside_a_repository_is_refused(begin, tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(UsageError, match="published with it"):
        begin()


def test_two_graders_in_one_folder_are_refused(begin, tmp_path):
    begin()
    with alone(tmp_path / "out"), pytest.raises(UsageError, match="another auto"), alone(tmp_path / "out"):
        pass
    with alone(tmp_path / "out"):
        pass


# --- the table -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rubric():
    return load_rubric("tiny", TINY / "solutions")


def test_the_table_adds_what_a_person_gave(rubric, tmp_path):
    marks = {("ada", "why"): Mark(2.5), ("bob", "why"): Mark(None)}
    write_grades(tmp_path, rubric, [result(), result("bob")], marks)
    ada, bob = rows_of(tmp_path / "grades.csv")
    assert (ada["points"], ada["written"], ada["total"], ada["by_hand"]) == ("7.5", "2.5", "10", "3")
    assert (bob["written"], bob["total"]) == ("", "7.5")


def test_names_and_reasons_are_no_formulas(rubric, tmp_path):
    write_grades(tmp_path, rubric, [result("=cmd()", verdict=Verdict.unreadable, reason="@SUM(A1)")], {})
    row = rows_of(tmp_path / "grades.csv")[0]
    assert (row["student"], row["why"]) == ("'=cmd()", "'@SUM(A1)")


def test_the_screen_shows_no_markup_of_a_student(rubric):
    from rich.console import Console

    item = ItemResult(
        id="function:double",
        problem="double",
        kind="probe",
        points=0,
        out_of=2,
        words=["[red]raised[/nonsense]"],
    )
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(class_table(rubric, [result("[bold]ada", items=[item])], {}))
    text = console.export_text()
    console.file.close()
    assert "[bold]ada" in text
    assert "[red]raised[/nonsense]" in text


def test_schema_of_a_result_is_written_down():
    assert json.loads(result().model_dump_json())["schema_version"] == 1
