"""The benchmark of re-scores: its class is one that the grader takes, its table says what was measured."""

from autograder.rebuild import load_release, rebuild
from autograder.submission import collect, read
from benchmarks.grading import ROOT, publish
from benchmarks.regrading import HOMEWORKS, make_class, table


def test_every_homework_is_measured():
    assert set(HOMEWORKS) == {path.name for path in (ROOT / "assignments").iterdir() if path.is_dir()}


def test_its_students_hand_in_what_fits_the_release(tmp_path):
    make_class(tmp_path, HOMEWORKS[0], 2)
    submissions = collect(tmp_path, HOMEWORKS[0])
    assert [submission.student for submission in submissions] == ["student-0", "student-1"]
    rebuilt = rebuild(load_release(ROOT, HOMEWORKS[0]), read(submissions[0].path))
    assert not rebuilt.notes
    assert "NotImplementedError" not in "".join("".join(c["source"]) for c in rebuilt.notebook["cells"][:5])


def test_the_table_has_the_median_round():
    found = {"grade": 9.04, "regrade": [2.0, 4.0, 2.5], "points": [90.0]}
    assert table({"homeworks": {"hw": found}}).splitlines()[-1] == "| hw | 9.0 s | 2.50 s | ≤ 2.5 s |"


def test_results_are_published_for_machines_and_for_people(tmp_path, capsys):
    publish(tmp_path / "new" / "grading", {"kinds": {}}, "a table\n")
    assert (tmp_path / "new" / "grading.json").read_text() == '{\n "kinds": {}\n}\n'
    assert (tmp_path / "new" / "grading.md").read_text() == "a table\n"
    assert capsys.readouterr().out.startswith("a table")
