"""The front door: shapes, ranges and seeds of every data set, and what it says when it is asked wrongly."""

import functools
import math

import pytest
import torch

from dulcourse import data
from dulcourse.data.dataset import Dataset
from dulcourse.data.toy2d import KINDS
from dulcourse.errors import UsageError

# name, options, event shape, levels
SETS = [
    ("digits", {}, (1, 8, 8), 17),
    ("digits", {"levels": 4}, (1, 8, 8), 4),
    ("glyphs", {"n": 64}, (1, 8, 8), 4),
    ("glyphs", {"n": 64, "size": 14, "levels": 2}, (1, 14, 14), 2),
    ("glyphs", {"n": 64, "size": 28, "levels": 256}, (1, 28, 28), 256),
    ("toy1d", {"n": 500}, (1, 1, 1), 100),
    *(("toy2d", {"kind": kind, "n": 64}, (2,), None) for kind in sorted(KINDS)),
    *(("toy2d", {"kind": kind, "n": 64, "levels": 64}, (2, 1, 1), 64) for kind in sorted(KINDS)),
    ("shapes", {"n": 64}, (1, 16, 16), 2),
    ("shapes", {"n": 64, "size": 8, "levels": 4, "channels": 3}, (3, 8, 8), 4),
    ("ising", {"n": 64}, (1, 8, 8), 2),
    ("ising", {"n": 64, "size": 4, "coupling": 0.2}, (1, 4, 4), 2),
    ("photos", {"n": 64}, (3, 8, 8), 256),
    ("photos", {"n": 64, "size": 16, "levels": 4}, (3, 16, 16), 4),
]


@pytest.mark.parametrize(("name", "options", "shape", "levels"), SETS)
@pytest.mark.parametrize("split", data.SPLITS)
def test_shapes_and_ranges(name, options, shape, levels, split):
    found = data.load(name, split, **options)
    assert (found.name, found.split, found.shape, found.levels) == (name, split, shape, levels)
    assert found.dims == math.prod(shape)
    assert len(found) == len(found.x) == options.get("n", len(found.x))
    assert found.y is None or found.y.shape == (len(found),)
    if levels is None:
        assert found.x.dtype == torch.float32
        assert found.x.isfinite().all()
    else:
        assert found.x.dtype == torch.int64
        assert 0 <= found.x.min() < found.x.max() <= levels - 1


@pytest.mark.parametrize(("name", "options", "shape", "levels"), SETS)
def test_the_seed_and_the_split_decide_the_data(name, options, shape, levels):
    one = data.load(name, "train", seed=3, **options).x
    assert torch.equal(one, data.load(name, "train", seed=3, **options).x)
    for split, seed in (("train", 4), ("validation", 3), ("test", 3)):
        other = data.load(name, split, seed=seed, **options).x
        assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize(("name", "options", "shape", "levels"), SETS)
def test_loading_leaves_the_global_generators_alone(name, options, shape, levels):
    before = torch.random.get_rng_state()
    data.load(name, "train", **options)
    assert torch.equal(before, torch.random.get_rng_state())


def test_fewer_events_are_the_first_of_more():
    for name in data.unlimited():
        assert torch.equal(data.load(name, "test", n=5).x, data.load(name, "test", n=9).x[:5])


# the call, and what its message must name: the value, what was expected, the fix
WRONG = [
    (
        lambda: data.load("glyph", "train"),
        ["'glyph'", "glyphs, ising, mnist, photos, shapes, toy1d", "did you mean 'glyphs'"],
    ),
    (lambda: data.fresh("minst", b"key", [0]), ["'minst'", "did you mean 'mnist'"]),
    (lambda: data.fresh("mnist", b"key", [0]), ["'mnist'", "afresh", "glyphs"]),
    (lambda: data.load("glyphs", "valid"), ["'valid'", "'train', 'validation', 'test'"]),
    (lambda: data.load("digits", "fresh"), ["'fresh'", "'train', 'validation', 'test'"]),
    (lambda: data.load("glyphs", "train", sise=8), ["'sise'", "levels, n, size", "did you mean 'size'"]),
    (lambda: data.load("digits", "train", n=8), ["'n'", "levels"]),
    (lambda: data.load("toy1d", "train", levels=8), ["'levels'", "one of n"]),
    (lambda: data.load("glyphs", "train", key=b"mine"), ["'key'", "levels, n, size"]),
    (lambda: data.fresh("toy1d", b"key", [0], n=3), ["'n'", "leave it out"]),
    (lambda: data.load("glyphs", "train", size=9), ["size", "9", "8, 14, 28"]),
    (lambda: data.load("glyphs", "train", levels=3), ["levels", "3", "2", "256"]),
    (lambda: data.load("digits", "train", levels=16), ["levels", "16", "17, 4"]),
    (lambda: data.load("toy2d", "train", kind="moon"), ["kind", "'moon'", "'moons'"]),
    (lambda: data.load("toy2d", "train", n=0), ["n is 0", "at least 1"]),
    (lambda: data.load("glyphs", "train", n=-3), ["n is -3", "at least 1"]),
    (lambda: data.load("toy1d", "train", n=2.5), ["n is 2.5", "whole number"]),
    (lambda: data.load("toy1d", "train", n=True), ["n is True", "whole number"]),
    (lambda: data.load("toy2d", "train", levels=3), ["levels of toy2d", "3", "None, 16, 64, 256"]),
    (lambda: data.load("shapes", "train", size=9), ["size of shapes", "9", "16, 8, 32"]),
    (lambda: data.load("shapes", "train", levels=256), ["levels of shapes", "256", "2, 4"]),
    (lambda: data.load("shapes", "train", channels=2), ["channels of shapes", "2", "1, 3"]),
    (lambda: data.load("ising", "train", size=16), ["size of ising", "16", "8, 4, 6"]),
    (lambda: data.load("ising", "train", coupling=9.0), ["coupling", "9", "0.4407"]),
    (lambda: data.load("ising", "train", coupling=math.nan), ["coupling", "nan", "0.4407"]),
    (lambda: data.load("photos", "train", size=28), ["size of photos", "28", "8, 16, 32"]),
    (lambda: data.load("photos", "train", levels=7), ["levels of photos", "7", "256, 32, 4"]),
    (lambda: data.load("photos", "train", n=0), ["n is 0", "at least 1"]),
    (lambda: data.load("mnist", "train", levels=3), ["levels of mnist", "3", "256, 16, 4, 2"]),
    (lambda: data.load("cifar10", "train", levels=3), ["levels of cifar10", "3", "256, 32, 4"]),
    (lambda: data.fresh("digits", b"key", [0]), ["'digits'", "glyphs, ising, shapes, toy1d, toy2d"]),
    (lambda: data.fresh("photos", b"key", [0]), ["'photos'", "glyphs, ising, shapes, toy1d, toy2d"]),
    (lambda: data.fresh("glyphs", b"key", [3, -1]), ["-1", "from 0"]),
    (lambda: data.fresh("glyphs", b"key", []), ["empty", "range(100)"]),
    (lambda: data.fresh("glyphs", b"", [0]), ["1 to 64 bytes, got 0", "new_secret"]),
]


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_errors_name_the_value_and_the_fix(call, words):
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(3, 1, 8, 8), None),  # images are whole numbers
        (torch.zeros(3, 8, 8, dtype=torch.int64), None),  # with a channel
        (torch.zeros(3, 2, dtype=torch.float64), None),  # points are float32
        (torch.zeros(3, 1, 1, 1, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)),  # a label each
    ],
)
def test_a_data_set_of_another_shape_is_refused_while_shapes_are_checked(x, y):
    with pytest.raises(Exception, match="Type-check"):
        Dataset("made up", "train", x, y)


@pytest.mark.parametrize(
    ("name", "options"),
    [("glyphs", {"size": 14, "levels": 2}), ("toy2d", {"kind": "moons", "levels": 64}), ("toy1d", {})],
)
def test_what_is_kept_is_what_would_be_drawn_and_everybodys_copy_is_their_own(monkeypatch, name, options):
    monkeypatch.setattr(data, "_kept", {})
    drawn = {n: data.load(name, "train", n=n, **options) for n in (3, 5, 7)}
    data.keep(name, "train", n=5, **options)
    refuse = functools.wraps(data._module(name).draw)(lambda *_, **__: pytest.fail("drawn again"))
    monkeypatch.setattr(data._module(name), "draw", refuse)
    for n in (3, 5):
        first, second = (data.load(name, "train", n=n, **options) for _ in range(2))
        assert torch.equal(first.x, drawn[n].x)
        assert (first.y is None) == (drawn[n].y is None)
        assert first.y is None or torch.equal(first.y, drawn[n].y)
        first.x.zero_()
        assert torch.equal(second.x, drawn[n].x)
    monkeypatch.setattr(data._module(name), "draw", refuse.__wrapped__)
    assert torch.equal(data.load(name, "train", n=7, **options).x, drawn[7].x), "more than is kept"
    other = data.load(name, "train", n=5, seed=1, **options)
    assert not torch.equal(other.x, drawn[5].x), "another seed is other data"
