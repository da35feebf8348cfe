"""Patches of photographs: where they come from, and that no pixel is in two splits."""

import numpy as np
import pytest
import torch

from dulcourse import data
from dulcourse.data import photos


def test_splits_share_no_column_and_use_them_all():
    columns = [
        column for strips in photos.STRIPS.values() for low, high in strips for column in range(low, high)
    ]
    assert sorted(columns) == list(range(640))


@pytest.mark.parametrize("split", data.SPLITS)
@pytest.mark.parametrize("size", photos.SIDES)
def test_a_patch_lies_in_a_strip_of_its_split(split, size, monkeypatch):
    """Photographs whose pixels say where they are: red the row, green the column, blue the photograph."""
    rows, columns = np.indices((427, 640))
    where = np.stack([np.stack([rows, columns, np.full_like(rows, k)], axis=2) for k in (0, 1)])
    monkeypatch.setattr(photos, "_photographs", lambda: where)
    monkeypatch.setattr(photos, "LEVELS", (256,))
    found = data.load("photos", split, size=size, n=300)
    assert torch.equal(found.x[:, 2, 0, 0], found.y)
    assert (found.x[:, 0].diff(dim=1) == 1).all()
    assert (found.x[:, 1].diff(dim=2) == 1).all()
    first, last = found.x[:, 1, 0, 0], found.x[:, 1, 0, -1]
    inside = [(first >= low) & (last < high) for low, high in photos.STRIPS[split]]
    assert torch.stack(inside).any(0).all()
    assert all(strip.any() for strip in inside)


def test_colours_are_those_of_the_photographs():
    from sklearn.datasets import load_sample_images

    found = data.load("photos", "train", n=4000)
    for k, picture in enumerate(load_sample_images().images):
        strips = [picture[:, low:high].reshape(-1, 3) for low, high in photos.STRIPS["train"]]
        mean = found.x[found.y == k].double().mean((0, 2, 3)).numpy()
        assert mean == pytest.approx(np.concatenate(strips).mean(0), rel=0.1)


def test_fewer_levels_are_the_same_patch():
    fine, coarse = (data.load("photos", "test", n=50, levels=levels).x for levels in (256, 4))
    assert torch.equal(coarse, fine // 64)
