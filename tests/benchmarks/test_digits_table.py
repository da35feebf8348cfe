"""The committed table of the digits agrees with its receipts; quick rows are measured again."""

import json
import statistics

import pytest

from benchmarks.digits import RESULTS, ROWS, measure, table


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


def test_every_row_reaches_its_target_and_none_is_too_good_to_be_true(results):
    assert set(results) == set(ROWS)
    for name, result in results.items():
        bits = [split["test"] for split in result["splits"]]
        assert [split["seed"] for split in result["splits"]] == result["receipt"]["seeds"] == [0, 1, 2, 3, 4]
        assert min(bits) > 1.80, f"{name}: below the limit of this data set, so a leak"
        if ROWS[name].target is not None:
            assert statistics.mean(bits) <= ROWS[name].target
        for other, bound in ROWS[name].also.items():
            tighter = [split["also"][other] for split in result["splits"]]
            assert 1.80 < min(tighter) < min(bits)
            assert statistics.mean(tighter) <= bound.target
