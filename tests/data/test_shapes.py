"""Scenes of shapes: visible, varied, in front of each other, and under noise of exactly the law it claims."""

import math

import numpy as np
import pytest
import torch

from dulcourse import data
from dulcourse.data import shapes

N = 2000
FORMS = [(2, 1), (4, 3), (4, 1), (2, 3)]


@pytest.fixture(scope="module", params=FORMS, ids=str)
def scenes(request) -> tuple[data.Dataset, torch.Tensor]:
    """Scenes as they are drawn, and as they are without noise."""
    levels, channels = request.param
    options = {"n": N, "levels": levels, "channels": channels}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "NOISE", 1e-12)
        clean = data.load("shapes", "train", **options).x
    return data.load("shapes", "train", **options), clean


def test_noise_has_the_law_it_claims(scenes):
    """A symbol keeps its level with probability 1 − ε + ε/L, and each other level is as frequent."""
    found, clean = scenes
    step = ((found.x - clean) % found.levels).flatten().bincount(minlength=found.levels)
    other = shapes.NOISE / found.levels
    expected = torch.tensor([1 - (found.levels - 1) * other] + [other] * (found.levels - 1))
    share = step / found.x.numel()
    assert ((share - expected).abs() < 4 * (expected / found.x.numel()).sqrt()).all()
    p = share.double()
    assert shapes.noise_entropy(found.levels) == pytest.approx(-(p * p.log2()).sum().item(), abs=0.01)


@pytest.mark.parametrize("levels", [2, 4])
def test_the_noise_leaves_a_limit_that_is_not_tiny(levels):
    assert 0.25 * math.log2(levels) < shapes.noise_entropy(levels) < 0.5 * math.log2(levels)


def test_every_level_and_kind_occurs_and_no_pixel_is_always_the_same(scenes):
    found, clean = scenes
    assert len(clean.unique()) == found.levels
    assert found.y.bincount(minlength=4).min() > N / 4 * 0.8
    assert (clean.amax(0) == found.levels - 1).all()
    assert (clean.amin(0) == 0).all()


def test_shapes_differ_from_their_background_in_every_channel(scenes):
    """A corner is background nearly always: what differs from it, differs in all channels."""
    found, clean = scenes
    changed = clean != clean[:, :, :1, :1]
    if found.levels == 2:  # one other colour: channels change together
        assert (changed == changed[:, :1]).all(1).flatten(1).all(1).double().mean() > 0.9
    covered = changed.any(1).flatten(1).double().mean(1)
    assert (covered > 0).double().mean() > 0.99
    assert 0.15 < covered.mean() < 0.6


def test_labels_belong_to_the_shape_in_front():
    """Discs cover what lies behind them; a ring lets it show through."""
    covers = np.zeros(4)
    for kind in range(4):
        place = np.array([[[kind / 4 + 0.01, 0.5, 0.5, 1.0, 0.5]]])
        inside, found = shapes._inside(place, 256)
        assert found == kind
        covers[kind] = inside.mean() * 4 / 0.6**2  # of the square around it, in pixels of [−1, 1]²
    assert covers[0] == pytest.approx(math.pi, rel=0.02)
    assert covers[1] == pytest.approx(4 * 0.8**2, rel=0.05)
    assert covers[2] == pytest.approx(0.5 * 1.7 * 1.7, rel=0.05)  # b from −1.2 to 0.5, as wide as high
    assert covers[3] == pytest.approx(math.pi * 0.7, rel=0.03)


def test_a_turn_keeps_the_area():
    areas = []
    for turn in (0.03, 0.2, 0.5, 0.9):
        place = np.array([[[0.3, 0.5, 0.5, 1.0, turn]]])
        areas.append(shapes._inside(place, 256)[0].sum())
    assert max(areas) < 1.02 * min(areas)


def test_later_shapes_cover_earlier_ones():
    inside = np.ones((1, 2, 2, 2), bool)
    inside[0, 1, 0] = False
    colours = np.array([[[0], [1], [2]]])
    assert shapes._paint(inside, colours).tolist() == [[[[1, 1], [2, 2]]]]


def test_batches_larger_than_a_chunk_change_nothing():
    n = shapes._BATCH + 1
    found = data.fresh("shapes", b"key", range(n), size=8)
    for i in (0, n - 2, n - 1):
        assert torch.equal(found.x[i], data.fresh("shapes", b"key", [i], size=8).x[0])
