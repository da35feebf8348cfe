"""The digits of TARGETS' comparison: every figure quoted anywhere rests on exactly these splits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dulcourse import data

EDGES = [("train", 0, 1257), ("validation", 1257, 1437), ("test", 1437, 1797)]


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize(("split", "start", "stop"), EDGES)
def test_splits_are_the_published_ones(split, start, stop, seed):
    scans = load_digits()
    chosen = np.random.default_rng(seed).permutation(1797)[start:stop]
    found = data.load("digits", split, seed=seed)
    assert torch.equal(found.x[:, 0], torch.from_numpy(scans.images[chosen]).long())
    assert torch.equal(found.y, torch.from_numpy(scans.target[chosen]).long())


def test_every_digit_is_in_one_split_only():
    together = torch.cat([data.load("digits", split).x for split in data.SPLITS]).flatten(1)
    everything = torch.from_numpy(load_digits().data).long()
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, everything.tolist()))


def test_two_bits_keep_the_order_of_grey_and_use_every_level_evenly():
    fine, coarse = (data.load("digits", "train", levels=levels).x for levels in (17, 4))
    table = {int(v): set(coarse[fine == v].tolist()) for v in fine.unique()}
    assert all(len(values) == 1 for values in table.values())
    steps = [min(table[v]) for v in range(17)]
    assert steps == sorted(steps)
    assert {steps.count(level) for level in range(4)} == {4, 5}
