"""The comparison of graders: its figures add up, and both graders can take what it hands in."""

import pytest
from nbformat import from_dict, validate
from nbgrader.nbgraderformat import MetadataValidator

from autograder.rubric import load_rubric
from benchmarks.grading import KINDS, NAME, RUBRIC, notebook, ratio, table


def test_the_ratio_is_the_median_over_rounds_that_took_turns():
    found = {"nbgrader": [10.0, 30.0, 12.0], "dulcourse": [5.0, 5.0, 3.0]}
    assert ratio(found) == 4
    lines = table({"kinds": {"torch": found}}).splitlines()
    assert lines[-1] == "| torch | 12.0 s | 5.0 s | 4.00 | ≥ 3 |"


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("solved", [False, True])
def test_nbgrader_takes_the_notebooks(kind, solved):
    cells = from_dict(notebook(kind, solved))
    validate(cells)
    MetadataValidator().validate_nb(cells)


def test_our_grader_takes_the_rubric(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "rubric.py").write_text(RUBRIC)
    assert load_rubric(NAME, tmp_path).points == 2
