"""Charges are code lengths: whatever is answered, Σ 2^−bits ≤ 1."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.referee.code import CAP_BITS, LAMBDA, capped, charges, malformed, most

entries = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308])


@given(st.lists(entries, min_size=2, max_size=9))
def test_any_row_is_a_code(row):
    levels = len(row)
    log_p = np.array([row] * levels)
    lengths = charges(log_p, np.arange(levels), levels)
    assert np.isfinite(lengths).all()
    assert (2.0**-lengths).sum() == pytest.approx(1.0, abs=1e-9)


def test_the_formula():
    log_p = np.log([[0.5, 0.25, 0.25]])
    expected = -math.log2((1 - LAMBDA) * 0.25 + LAMBDA / 3)
    assert charges(log_p, np.array([1]), 3)[0] == pytest.approx(expected, abs=1e-12)


def test_an_offset_changes_nothing():
    log_p = np.random.default_rng(0).normal(size=(20, 5))
    symbols = np.arange(20) % 5
    assert np.allclose(charges(log_p, symbols, 5), charges(log_p + 123.0, symbols, 5), atol=1e-9)


def test_certainty_that_is_wrong_costs_no_more_than_the_mixture_allows():
    bits = charges(np.array([[0.0, -1e9]]), np.array([1]), 2)[0]
    assert bits == pytest.approx(20 + 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_entry_makes_its_row_uniform_and_no_other(bad):
    log_p = np.zeros((2, 4))
    log_p[:, 1] = 5.0
    log_p[0, 3] = bad
    assert malformed(log_p).tolist() == [True, False]
    bits = charges(log_p, np.array([1, 1]), 4)
    assert bits[0] == pytest.approx(2.0, abs=1e-6)
    assert bits[1] < 0.1


def test_half_precision_is_read_in_full():
    log_p = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float16)
    assert np.allclose(
        charges(log_p, np.arange(8) % 4, 4), charges(log_p.astype(float), np.arange(8) % 4, 4), atol=0
    )


def test_the_cap_and_failing_cost_the_same():
    cap = most(3, 4)
    assert cap == 3 * 2 + CAP_BITS
    bits = capped(np.array([1.0, 1e6, 0.0]), np.array([False, False, True]), 3, 4)
    assert bits.tolist() == [1.0, cap, cap]


@pytest.mark.parametrize(("symbols", "levels"), [(1, 4), (3, 2), (64, 17)])
def test_what_the_cap_gives_away_is_as_small_as_stated(symbols, levels):
    given_away = math.log2(1 + levels**symbols * 2.0 ** -most(symbols, levels))
    assert 0 < given_away <= 0.0015
