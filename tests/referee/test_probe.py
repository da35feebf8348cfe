"""Functions judged by their values, on inputs that are never shown."""

import math

import numpy as np
import pytest
import torch

from dulcourse.errors import InfrastructureError
from dulcourse.referee.probe import probe
from dulcourse.referee.respondent import LocalRespondent


def draw(generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": generator.normal(size=(generator.integers(2, 5), 3)), "k": np.asarray(2.0)}


def reference(x: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.exp(x) + 1 + k


def probed(function, reference=reference, **settings):
    party = LocalRespondent(functions={"f": function})
    return probe(party, "f", draw, reference, generator=np.random.default_rng(0), **settings)


def test_a_function_that_agrees_passes_in_any_precision():
    result = probed(lambda x, k: x.exp() + 1 + k, draws=7)
    assert result.passed
    assert result.words == ["f: 7 of 7 random inputs agree."]
    assert probed(lambda x, k: x.float().exp() + 1 + k, atol=1e-5).passed


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x, k: (x.exp() + 1 + k) * math.log(2), "ln 2 times what is expected: nats and bits"),
        (lambda x, k: (x.exp() + 1 + k) / math.log(2), "1/ln 2 times"),
        (lambda x, k: -(x.exp() + 1 + k), "with the wrong sign"),
        (lambda x, k: (x.exp() + 1 + k) * 3, "3 times what is expected: a sum for a mean"),
        (lambda x, k: x.exp() + k, "off by the same -1: is a constant missing"),
        (lambda x, k: x * 0, "Every value is zero"),
        (lambda x, k: x, "is wrong at"),
        (lambda x, k: x.exp().flatten(), "has shape"),
        (lambda x, k: x.long(), "has type int64, expected float64"),
        (lambda x, k: x * math.nan, "not finite"),
        (lambda x, k: (x, x), "returned 2 arrays, expected one array"),
        (lambda x, k: "x", "a str was returned"),
        (lambda x: x, "TypeError"),
        (lambda x, k: 1 / 0, "f: raised ZeroDivisionError"),
    ],
)
def test_what_is_wrong_is_said_with_the_hint_and_without_the_input(function, words):
    result = probed(function, hint="look at the mean")
    assert not result.passed
    assert words in result.words[0]
    assert result.words[1:] == ["look at the mean"]
    values = [f"{v:.3}" for v in draw(np.random.default_rng(0))["x"].reshape(-1)]
    assert not any(value in " ".join(result.words) for value in values)


def test_integers_and_truth_values_must_be_equal():
    above = lambda x, k: (x > 0) & (k > 1)  # noqa: E731
    assert probed(lambda x, k: x > 0, above).passed
    assert "expected bool" in probed(lambda x, k: (x > 0).float(), above).words[0]
    assert "places" in probed(lambda x, k: x < 0, above).words[0]


def test_parts_of_a_tuple_are_told_apart():
    pair = lambda x, k: (x, x + k)  # noqa: E731
    assert probed(lambda x, k: (x, x + k), pair).passed
    assert "part 1 is wrong" in probed(lambda x, k: (x, x), pair).words[0]


def test_minus_infinity_is_a_value_like_others():
    minus = lambda x, k: np.where(x > 0, 0.0, -np.inf)  # noqa: E731
    assert probed(lambda x, k: torch.where(x > 0, 0.0, -math.inf).double(), minus).passed
    assert not probed(lambda x, k: torch.zeros_like(x), minus).passed
    assert not probed(lambda x, k: torch.full_like(x, -math.inf), minus).passed
    assert not probed(lambda x, k: torch.full_like(x, 1.7e308), lambda x, k: x * 0 - 1.7e308).passed


def test_a_party_that_is_gone_has_not_answered():
    class Gone:
        def call(self, name, arrays):
            raise InfrastructureError("gone")

    result = probe(Gone(), "f", draw, reference, generator=np.random.default_rng(0))
    assert result.words == ["f: no answer (InfrastructureError)"]


def test_numbers_of_the_student_are_never_compared_by_their_own_rules():
    class Equal(float):
        def __eq__(self, other):
            return True

        __hash__ = float.__hash__

    assert not probed(lambda x, k: Equal(1.0), lambda x, k: np.asarray(2.0)).passed
