"""What a rubric must be, and where thresholds come from."""

import json
from shutil import copytree

import numpy as np
import pytest

from autograder.calibrate import calibrate
from autograder.reference import References, load_reference
from autograder.rubric import Probe, Problem, Rubric, Threshold, Tier, calibrated_full, load_rubric
from dulcourse.errors import UsageError
from tests.autograder.parties import TINY


@pytest.fixture
def solutions(tmp_path):
    copytree(TINY / "solutions", tmp_path / "solutions", ignore=lambda *_: ["__pycache__"])
    return tmp_path / "solutions"


def probe(name="f"):
    return Probe(function=name, draw=lambda generator: {}, reference=lambda: np.zeros(1), points=1)


def make(tmp_path, *items, tiers=None):
    problems = (Problem(name="p", title="P", items=items),)
    return Rubric(name="r", title="R", folder=tmp_path, problems=problems, tiers=tiers or {})


def test_the_tiny_rubric_adds_up(solutions):
    rubric = load_rubric("tiny", solutions)
    assert rubric.points == 12
    assert [item.id for _, item in rubric.items] == [
        "function:double",
        "function:same",
        "model:table",
        "sampler:table",
        "written:why",
    ]
    assert rubric.withheld == ("dulcourse.autoregressive.mixture", "dulcourse.autoregressive.histogram")
    assert rubric.folder == solutions / "tiny"


def test_unknown_names_are_answered_with_the_nearest(solutions):
    rubric = load_rubric("tiny", solutions)
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        load_rubric("tinny", solutions)
    with pytest.raises(UsageError, match=r"unknown problem 'tabel'.*'table'"):
        rubric.problem("tabel")
    with pytest.raises(UsageError, match=r"unknown tier 'smok'.*'smoke'"):
        rubric.tier("smok")
    with pytest.raises(UsageError, match="no assignments"):
        load_rubric("tiny", solutions / "tiny")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rubric = 1", "no Rubric called 'rubric'"),
        ("", "no Rubric called 'rubric'"),
        ("rubric = (", "SyntaxError"),
        ("from autograder.rubric import Threshold\nThreshold(full=1.0, none=0.5)", "fewer bits are better"),
    ],
)
def test_a_rubric_that_cannot_be_used_is_a_sentence(solutions, text, words):
    (solutions / "tiny" / "rubric.py").write_text(text)
    with pytest.raises(UsageError, match=words):
        load_rubric("tiny", solutions)


def test_thresholds_must_be_those_of_the_models_and_ids_differ(tmp_path):
    with pytest.raises(ValueError, match="same id"):
        make(tmp_path, probe(), probe())
    tiers = {"smoke": Tier(seconds=1, thresholds={"nobody": Threshold(full=0, none=1)})}
    with pytest.raises(ValueError, match="nobody"):
        make(tmp_path, probe(), tiers=tiers)


def test_calibration_gives_weights_and_the_threshold_of_the_rubric(solutions, monkeypatch):
    monkeypatch.setattr("autograder.calibrate.DRAWS", 3)
    lines = list(calibrate(solutions, "tiny", "smoke", 5))
    assert lines[0].startswith("table: excess")
    found = json.loads((solutions / "tiny/reference/calibration.json").read_text())["models"]["table"][
        "smoke"
    ]
    excess = np.asarray(found["excess"])
    assert excess.shape == (4, 3)
    assert found["full"] == pytest.approx(excess.mean() + 2 * excess.std(ddof=1), abs=2e-4)
    rubric = load_rubric("tiny", solutions)
    assert rubric.tier("smoke").thresholds["table"].full == found["full"]
    model = next(item for _, item in rubric.items if item.kind == "model")
    reference = load_reference(rubric, model, "smoke")
    assert reference.levels == 4
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_without_a_calibration_a_stated_number_counts(tmp_path):
    assert calibrated_full(tmp_path, "table", "smoke", otherwise=0.25) == 0.25


def test_missing_or_foreign_weights_are_a_sentence_before_anything_runs(solutions, monkeypatch):
    monkeypatch.setattr("autograder.calibrate.DRAWS", 1)
    rubric = load_rubric("tiny", solutions)
    with pytest.raises(UsageError, match="autograder calibrate tiny --tier smoke"):
        References(rubric, "smoke").check()
    list(calibrate(solutions, "tiny", "smoke", 5))
    source = solutions / "tiny" / "reference.py"
    source.write_text(source.read_text().replace("levels=4)\n\n\ndef", "levels=5)\n\n\ndef"))
    with pytest.raises(UsageError, match="does not fit build_table"):
        References(rubric, "smoke").check()
