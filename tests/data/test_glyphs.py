"""Glyphs: image i is a pure function of key, i and options, wherever and with whatever else it is drawn."""

import hashlib
import subprocess
import sys

import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from matplotlib.path import Path

from dulcourse import data
from dulcourse.data import glyphs

KEY = b"a key of the tests"

options = st.fixed_dictionaries(
    {"size": st.sampled_from([8, 14, 28]), "levels": st.sampled_from([2, 4, 256])}
)


@settings(max_examples=20)
@given(st.sampled_from(data.unlimited()), st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_an_event_is_the_same_in_any_company(name, indices):
    alone, together = data.fresh(name, KEY, indices), data.fresh(name, KEY, range(61))
    assert torch.equal(alone.x, together.x[indices])
    assert alone.y is None or torch.equal(alone.y, together.y[indices])


@pytest.mark.parametrize("size", [8, 14, 28])
def test_batches_larger_than_a_chunk_change_nothing(size):
    n = 1 + glyphs._CHUNK // (size * glyphs.SUPERSAMPLING[size]) ** 2
    found = data.fresh("glyphs", KEY, range(n), size=size)
    for i in (0, n - 2, n - 1):
        assert torch.equal(found.x[i], data.fresh("glyphs", KEY, [i], size=size).x[0])


def test_another_process_draws_the_same_images_in_another_order():
    program = """
import hashlib
from dulcourse import data
for size, levels in ((8, 4), (14, 2), (28, 256)):
    x = data.fresh("glyphs", b"a key of the tests", range(29, -1, -1), size=size, levels=levels).x.flip(0)
    print(hashlib.blake2b(x.numpy().tobytes(), digest_size=8).hexdigest())
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [_hash(size, levels) for size, levels in ((8, 4), (14, 2), (28, 256))]


def _hash(size: int, levels: int) -> str:
    x = data.fresh("glyphs", KEY, range(30), size=size, levels=levels).x
    return hashlib.blake2b(x.numpy().tobytes(), digest_size=8).hexdigest()


@pytest.mark.skipif(matplotlib.__version__ != "3.11.2", reason="another matplotlib may carry other fonts")
def test_the_images_are_those_of_the_calibrated_thresholds():
    """When this fails, the data has changed: recalibrate every homework on glyphs, then write new hashes."""
    assert glyphs.fingerprint() == "9e899c945b9c16b75af06469a36a8371"
    assert [_hash(8, 4), _hash(14, 2), _hash(28, 256)] == [
        "05c93274e616dceb",
        "37791edbd5227dbc",
        "1735c160e7955c51",
    ]


@settings(max_examples=10)
@given(st.binary(min_size=1, max_size=64), st.integers(0, 2**62))
def test_another_key_or_index_draws_another_image(key, index):
    one, two = data.fresh("glyphs", key, [index, index + 1]).x
    other = data.fresh("glyphs", key + b"!" if len(key) < 64 else key[1:], [index]).x[0]
    assert not torch.equal(one, two)
    assert not torch.equal(one, other)


def test_levels_only_quantise():
    """The same index at fewer levels is the same picture, to within half a level of each."""
    fine, coarse, two = (data.fresh("glyphs", KEY, range(50), levels=L).x.double() for L in (256, 4, 2))
    assert (fine / 255 - coarse / 3).abs().max() <= 1 / 6 + 1 / 510 + 1e-9
    assert (fine / 255 - two).abs().max() <= 1 / 2 + 1 / 510 + 1e-9


@pytest.fixture(scope="module")
def many() -> data.Dataset:
    """Enough glyphs for statistics."""
    return data.load("glyphs", "train", n=4000)


@pytest.mark.parametrize("levels", [2, 4, 256])
def test_every_level_occurs_even_where_there_is_only_paper(levels):
    """Noise reaches everywhere, so no pixel's law is degenerate and the entropy is not tiny."""
    x = data.load("glyphs", "train", n=2000, levels=levels).x
    assert len(x.unique()) == levels
    corner = x[:, 0, 0, 0].bincount(minlength=levels) / len(x)
    assert corner.max() < 0.99
    assert (corner.reshape(min(levels, 4), -1).sum(1) > 0).all()  # the darkest quarter too


def test_every_class_is_drawn_equally_often(many):
    share = many.y.bincount(minlength=10) / len(many)
    assert (share - 0.1).abs().max() < 4 * (0.09 / len(many)) ** 0.5


@pytest.mark.parametrize("size", [8, 28])
def test_labels_belong_to_the_pictures(size):
    """Nearest class mean finds the digit far more often than one in ten."""
    train, test = (data.load("glyphs", split, n=1500, size=size) for split in ("train", "test"))
    means = torch.stack([train.x[train.y == digit].double().mean(0) for digit in range(10)])
    guess = torch.cdist(test.x.double().flatten(1), means.flatten(1)).argmin(1)
    assert (guess == test.y).double().mean() > 0.55


def test_there_is_something_to_learn_and_something_that_cannot_be(many):
    """Per-pixel histograms leave 1.3 to 1.6 of 2 bits; the neighbour to the left tells some of that."""
    x = many.x[:, 0]
    alone = _entropy(x[:, :, 1:])
    given_left = _entropy(x[:, :, 1:] * 4 + x[:, :, :-1], 16) - _entropy(x[:, :, :-1])
    assert 1.3 < alone < 1.6
    assert 0.8 < given_left < alone - 0.05


def _entropy(x: torch.Tensor, levels: int = 4) -> float:
    """Mean over pixels of the entropy of the pixel's own histogram, in bits."""
    p = torch.stack([(x == level).double().mean(0) for level in range(levels)])
    return float(-torch.special.xlogy(p, p).sum(0).mean() / np.log(2))


def test_templates_are_whole_digits():
    """Ink inside an empty margin, the full height, and of 2 to 60 % of the canvas; no two are the same."""
    drawn = glyphs.templates()
    assert drawn.shape[0] == 10 * len(glyphs.FONTS)
    ink = drawn > 0
    margin = (drawn.shape[1] - 64) // 2
    assert not ink[:, : margin - 1].any()
    assert not ink[:, :, :1].any()
    assert not ink[:, :, -1:].any()
    assert (ink.any(2).sum(1) >= 63).all()
    share = drawn.mean((1, 2)) / drawn.max()
    assert share.min() > 0.02
    assert share.max() < 0.6
    assert len({template.tobytes() for template in drawn}) == len(drawn)


@given(st.integers(3, 9), st.floats(5, 30), st.floats(0, 1), st.booleans())
def test_ink_is_where_matplotlib_says_the_outline_is(corners, radius, turn, backwards):
    """A polygon with a hole in it, whichever way its outline runs."""
    polygon, hole = _polygon(corners, radius, turn + 0.013), _polygon(4, radius / 3, turn + 0.029)
    centres = (np.indices((72 * 3, 72 * 3))[::-1].reshape(2, -1).T + 0.5) / 3 - 36
    inside = Path(polygon).contains_points(centres) ^ Path(hole).contains_points(centres)
    cells = inside.reshape(72, 3, 72, 3).sum((1, 3))
    ink = glyphs._fill([polygon[::-1] if backwards else polygon, hole])
    assert np.abs(ink.astype(int) - cells).sum() <= 1  # a centre may lie on the very line


def _polygon(corners: int, radius: float, turn: float) -> np.ndarray:
    angle = 2 * np.pi * (np.arange(corners + 1) / corners + turn)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
