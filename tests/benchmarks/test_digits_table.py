"""The committed table of the digits agrees with its receipts; quick rows are measured again."""

import json
import statistics

import pytest
from torch.nn.functional import one_hot

from benchmarks.digits import RESULTS, ROWS, measure, table
from benchmarks.rows.blind import charged
from benchmarks.rows.row import LEVELS, SHAPE
from dulcourse.autoregressive.histogram import Histogram
from dulcourse.data import load
from dulcourse.training import evaluate


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((RESULTS / "digits.json").read_text())


def test_the_table_is_made_from_the_receipts(results):
    assert (RESULTS / "digits.md").read_text() == table(results)


@pytest.mark.parametrize("name", ["shared histogram", "histogram per pixel"])
def test_rows_without_training_are_measured_again_exactly(name, results):
    committed = results[name]["splits"][0]
    again = measure(ROWS[name], committed["seed"], seconds=0)
    assert again["test"] == pytest.approx(committed["test"], abs=1e-5)
    assert again["validation"] == pytest.approx(committed["validation"], abs=1e-5)
    assert again["charged"] == pytest.approx(committed["charged"], abs=1e-5)


def test_every_row_reaches_its_target_and_none_is_too_good_to_be_true(results):
    assert set(results) == set(ROWS)
    for name, result in results.items():
        bits = [split["test"] for split in result["splits"]]
        assert [split["seed"] for split in result["splits"]] == result["receipt"]["seeds"] == [0, 1, 2, 3, 4]
        assert min(bits) > 1.80, f"{name}: below the limit of this data set, so a leak"
        for split in result["splits"]:
            assert split.get("charged", split["test"]) == pytest.approx(split["test"], abs=1e-3)
        if ROWS[name].target is not None:
            assert statistics.mean(bits) <= ROWS[name].target
        for other, bound in ROWS[name].also.items():
            tighter = [split["also"][other] for split in result["splits"]]
            assert 1.80 < min(tighter) < min(bits)
            assert statistics.mean(tighter) <= bound.target


def test_a_model_that_sees_what_it_predicts_is_charged_for_it():
    """What its own log_prob claims is the leak's; what the referee charges is not."""

    class Leaks(Histogram):
        def logits(self, x, y=None):
            return super().logits(x) + 5 * one_hot(x, LEVELS).movedim(-1, 1)

    train, test = load("digits", "train"), load("digits", "test")
    honest = Histogram.fit(train.x, LEVELS, smoothing=0.5)
    leaking = Leaks(SHAPE, levels=LEVELS)
    leaking.load_state_dict(honest.state_dict())
    assert charged(honest, test, train, 0) == pytest.approx(evaluate(honest, test), abs=1e-5)
    assert evaluate(leaking, test) < 1.0
    assert charged(leaking, test, train, 0) > 2.4
