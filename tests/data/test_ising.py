"""The Ising model against plain enumeration: the law, the entropy and the draws."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dulcourse import data
from dulcourse.data import ising
from dulcourse.errors import UsageError


def enumerated(size: int, coupling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Every image `[2^(size²), 1, size, size]` and its probability, from the energy alone."""
    x = torch.tensor(list(itertools.product((0, 1), repeat=size * size))).view(-1, 1, size, size)
    s = 2.0 * x.double()[:, 0] - 1
    aligned = (s[:, 1:] * s[:, :-1]).sum((1, 2)) + (s[:, :, 1:] * s[:, :, :-1]).sum((1, 2))
    return x, torch.softmax(coupling * aligned, 0)


@pytest.mark.parametrize("coupling", [0.0, 0.2, ising.CRITICAL, 1.0, -0.3, 2.0])
def test_the_transfer_matrix_agrees_with_enumeration(coupling):
    x, p = enumerated(4, coupling)
    assert torch.allclose(ising.log_prob(x, coupling=coupling), p.log(), atol=1e-9)
    entropy = -(p * p.log2()).sum().item() / 16
    assert ising.exact_entropy(size=4, coupling=coupling) == pytest.approx(entropy, abs=1e-10)


def test_the_default_is_the_critical_coupling():
    assert math.sinh(2 * ising.CRITICAL) == pytest.approx(1)
    by_hand = ising.exact_entropy(size=8, coupling=0.5 * math.log(1 + math.sqrt(2)))
    assert ising.exact_entropy() == pytest.approx(by_hand, abs=1e-12)


def test_independent_spins_cost_a_bit_and_frozen_ones_nothing():
    assert ising.exact_entropy(coupling=0.0) == pytest.approx(1)
    assert ising.exact_entropy(coupling=2.0) == pytest.approx(1 / 64, abs=0.01)


@settings(max_examples=10)
@given(st.floats(0, 1.5), st.floats(0.01, 0.4))
def test_stronger_coupling_leaves_less_entropy(coupling, more):
    assert ising.exact_entropy(size=4, coupling=coupling + more) < ising.exact_entropy(
        size=4, coupling=coupling
    )


def test_draws_follow_the_law():
    """At size 4 the 65 536 images fall into bands, each of which comes up as often as it should."""
    x, p = enumerated(4, 0.3)
    drawn = data.load("ising", "train", size=4, coupling=0.3, n=6000).x
    code = 2 ** torch.arange(15, -1, -1)
    bands = p.argsort().argsort() * 20 // len(p)
    expected = torch.zeros(20).double().index_add(0, bands, p) * len(drawn)
    counts = bands[(drawn.flatten(1) * code).sum(1)].bincount(minlength=20)
    assert torch.equal(x[(drawn[0].flatten() * code).sum()], drawn[0])
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi2 - 19) < 4 * math.sqrt(2 * 19)


@pytest.mark.parametrize("size", ising.SIDES)
def test_the_mean_code_length_of_draws_is_the_entropy(size):
    """Unlike a sampler that has not mixed: both magnetisations come up, and log P averages to −H."""
    x = data.load("ising", "test", size=size, n=3000).x
    bits = -ising.log_prob(x) / (math.log(2) * size**2)
    assert abs(bits.mean() - ising.exact_entropy(size=size)) < 4 * bits.std() / math.sqrt(len(x))
    magnetisation = 2 * x.double().mean((1, 2, 3)) - 1
    assert abs(magnetisation.mean()) < 4 * magnetisation.std() / math.sqrt(len(x))


def test_neighbours_correlate_the_same_way_in_rows_and_columns():
    s = 2 * data.load("ising", "train", n=4000).x.double()[:, 0] - 1
    along, down = (s[:, :, 1:] * s[:, :, :-1]).mean(), (s[:, 1:] * s[:, :-1]).mean()
    assert along == pytest.approx(down.item(), abs=0.03)
    assert along > 0.5


def test_a_draw_is_the_inverse_of_the_distribution_function():
    assert ising._inverse(np.array([[0.25, 0.5, 1.0]]), np.array([0.0, 0.25, 0.6, 1.0])).tolist() == [
        0,
        1,
        2,
        2,
    ]


def test_images_of_another_shape_are_refused():
    with pytest.raises(UsageError, match="size of ising"):
        ising.log_prob(torch.zeros(1, 1, 5, 5, dtype=torch.int64))
    with pytest.raises(UsageError, match="expected 0 to 1"):
        ising.log_prob(torch.full((1, 1, 4, 4), 2))
