"""A student's function judged by its values: called over there, compared here."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dulcourse.referee.respondent import Malformed, Respondent, to_arrays

__all__ = ["ProbeResult", "compare", "probe"]

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ProbeResult:
    """Passed or not, and what to look at next. The words never show a hidden input."""

    passed: bool
    words: list[str]


def probe(
    respondent: Respondent,
    function: str,
    draw: Callable[[np.random.Generator], Arrays],
    reference: Callable[..., Any],
    *,
    generator: np.random.Generator,
    draws: int = 5,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    hint: str = "",
) -> ProbeResult:
    """Call `function` on `draws` random arguments; every answer must agree with `reference` on the same ones.

    The reference gets the arrays as they were drawn, the respondent's function tensors and plain numbers.
    """
    for _ in range(draws):
        arguments = {name: np.asarray(value) for name, value in draw(generator).items()}
        words = compare(respondent, function, arguments, to_arrays(reference(**arguments)), atol, rtol)
        if words:
            return ProbeResult(False, [f"{function}: {words}", *([hint] if hint else [])])
    return ProbeResult(True, [f"{function}: {draws} of {draws} random inputs agree."])


def compare(
    respondent: Respondent, function: str, arguments: Arrays, expected: Arrays, atol: float, rtol: float
) -> str:
    """What is wrong with the respondent's answer to these arguments, in words; empty when nothing is."""
    try:
        answer = respondent.call(f"function.{function}", arguments)
    except Malformed as error:
        return str(error).removeprefix(f"'function.{function}' ")
    except Exception as error:  # as in `ask`: whatever goes wrong is the answer's fault
        return f"no answer ({type(error).__name__})"
    if set(answer) != set(expected):
        return f"returned {_count(answer)}, expected {_count(expected)}."
    for key, right in expected.items():
        words = _difference(answer[key], right, atol, rtol)
        if words:
            return words if len(expected) == 1 else f"part {key.removeprefix('result')} {words}"
    return ""


def _count(arrays: Arrays) -> str:
    return "one array" if len(arrays) == 1 else f"{len(arrays)} arrays"


def _difference(got: np.ndarray, expected: np.ndarray, atol: float, rtol: float) -> str:
    if got.shape != expected.shape:
        return f"has shape {list(got.shape)}, expected {list(expected.shape)}."
    if _kind(got) != _kind(expected):
        return f"has type {got.dtype}, expected {expected.dtype}."
    if expected.dtype.kind != "f":
        wrong = int((got != expected).sum())
        return f"differs from the expected values at {wrong} of {expected.size} places." if wrong else ""
    with np.errstate(all="ignore"):  # numbers of any size may have been answered
        return _distance(got.astype(np.float64), expected.astype(np.float64), atol, rtol)


def _distance(got: np.ndarray, expected: np.ndarray, atol: float, rtol: float) -> str:
    close = np.isclose(got, expected, atol=atol, rtol=rtol)
    if close.all():
        return ""
    if np.isfinite(expected).all() and not np.isfinite(got).all():
        return f"has {int((~np.isfinite(got)).sum())} of {got.size} values that are not finite."
    worst = np.max(np.abs(got - expected)[~close])
    pattern = _pattern(got, expected)
    return f"is wrong at {int((~close).sum())} of {got.size} places, by up to {worst:.3g}.{pattern}"


def _kind(array: np.ndarray) -> str:
    return {"b": "bool", "f": "float"}.get(array.dtype.kind, "int")


# Factors that mistakes of units leave behind.
_FACTORS = {
    math.log(2): "ln 2 times what is expected: nats and bits",
    1 / math.log(2): "1/ln 2 times what is expected: bits and nats",
    -1.0: "the expected values with the wrong sign",
    -math.log(2): "−ln 2 times what is expected: the sign, and nats for bits",
    -1 / math.log(2): "−1/ln 2 times what is expected: the sign, and bits for nats",
}


def _pattern(got: np.ndarray, expected: np.ndarray) -> str:
    """A constant factor or offset between answer and expectation says more than a size."""
    nonzero = np.abs(expected) > 1e-12
    if not got.any():
        return " Every value is zero."
    if not nonzero.any() or not np.isfinite(got).all() or not np.isfinite(expected).all():
        return ""
    ratio = got[nonzero] / expected[nonzero]
    if np.allclose(ratio, ratio[0], rtol=1e-4):
        for factor, words in _FACTORS.items():
            if math.isclose(ratio[0], factor, rel_tol=1e-3):
                return f" Every value is {words}."
        if ratio.size > 1:
            return f" Every value is {ratio[0]:.4g} times what is expected: a sum for a mean, or the reverse?"
    offset = got - expected
    if offset.size > 1 and np.allclose(offset, offset.flat[0], rtol=1e-4):
        return f" Every value is off by the same {offset.flat[0]:.4g}: is a constant missing?"
    return ""
