"""Toys against the laws they claim."""

import numpy as np
import pytest
import torch

from dulcourse import data
from dulcourse.data import toy1d
from dulcourse.data.toy2d import KINDS
from dulcourse.randomness import uniforms


def test_toy1d_has_a_law():
    p = toy1d.probabilities()
    assert p.shape == (100,)
    assert (p > 0).all()  # so that every value has a finite code
    assert p.sum() == pytest.approx(1, abs=1e-12)


def test_toy1d_has_the_law_of_its_formula():
    """Half a step to either side of x, everything below ½ in 0 and everything above 98½ in 99."""
    weight, mean, std = torch.tensor(toy1d._CLUMPS, dtype=torch.float64).T[:, :, None]
    edges = torch.arange(100, dtype=torch.float64) - 0.5
    edges = torch.cat([torch.tensor([-torch.inf]), edges[1:], torch.tensor([torch.inf])])
    expected = (weight * torch.special.ndtr((edges - mean) / std)).sum(0).diff()
    assert toy1d.probabilities() == pytest.approx(expected.numpy(), abs=1e-12)


def test_toy1d_follows_its_law():
    n = 8000
    counts = torch.bincount(data.load("toy1d", "train", n=n).x.flatten(), minlength=100).numpy()
    expected = toy1d.probabilities() * n
    often = expected >= 5  # where the counts are near enough to normal
    chi2 = ((counts - expected)[often] ** 2 / expected[often]).sum()
    degrees = often.sum() - 1
    assert abs(chi2 - degrees) < 4 * np.sqrt(2 * degrees)
    assert counts[~often].sum() <= 4 * max(1, expected[~often].sum())


def test_toy1d_draws_what_its_own_uniform_says():
    at = data.fresh("toy1d", b"key", range(200)).x.flatten().numpy()
    u = uniforms(b"key", range(200), 1)[:, 0]
    below = np.concatenate([[0], np.cumsum(toy1d.probabilities())])
    assert (below[at] <= u + 1e-12).all()
    assert (u <= below[at + 1] + 1e-12).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_toy2d_is_centred_and_of_unit_size(kind):
    x = data.load("toy2d", "train", kind=kind, n=6_000).x
    assert x.mean(0).abs().max() < 0.05
    assert (x.std(0) - 1).abs().max() < 0.08


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_toy2d_is_not_gaussian(kind):
    """No law of the same covariance has more entropy than a Gaussian; these have much less."""
    found = data.load("toy2d", "train", kind=kind, n=6_000)
    cells = torch.histogramdd(found.x, bins=[40, 40], range=[-3.0, 3.0] * 2).hist / len(found)
    entropy = -(cells[cells > 0] * cells[cells > 0].log()).sum() + np.log(6 / 40) * 2
    gaussian = 0.5 * torch.logdet(2 * torch.pi * torch.e * torch.cov(found.x.T))
    assert entropy < gaussian - 0.3


def test_toy2d_parts_are_parts():
    """The checkerboard's labels are its squares, and only black squares are filled."""
    found = data.load("toy2d", "train", kind="checkerboard", n=4000)
    square = (found.x / 0.75**0.5 + 2).floor().long()
    assert (square.sum(1) % 2 == 0).all()
    assert len(set(zip(found.y.tolist(), map(tuple, square.tolist()), strict=True))) == 8


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_toy2d_on_a_grid_is_the_same_point_in_a_cell(kind):
    """Each coordinate lies in the cell whose number it becomes, unless it is outside the grid."""
    points = data.load("toy2d", "train", kind=kind, n=2000).x.double()
    cells = data.load("toy2d", "train", kind=kind, n=2000, levels=64).x.flatten(1)
    left = 7 * cells / 64 - 3.5
    inside = points.abs() < 3.5
    assert inside.float().mean() > 0.99
    assert (((points - left) > -1e-6) & (points - left < 7 / 64 + 1e-6))[inside].all()
    assert (cells[points >= 3.5] == 63).all()
    assert (cells[points < -3.5] == 0).all()


def test_toy2d_beyond_the_grid_goes_to_its_edge(monkeypatch):
    def far(part, along, off):
        return np.array([[4.0, -9.0], [3.5, -3.5], [0.0, 3.49]]), np.zeros(3)

    monkeypatch.setitem(KINDS, "moons", far)
    assert data.load("toy2d", "train", n=3, levels=64).x.flatten(1).tolist() == [[63, 0], [63, 0], [32, 63]]


def test_toy2d_noise_is_normal():
    """A clump of the eight Gaussians has their spread, in every direction, and no more far points."""
    found = data.load("toy2d", "train", kind="eight_gaussians", n=6_000)
    off = (found.x - 1.4 * torch.tensor([1.0, 0.0]))[found.y == 0] / 0.12
    assert (torch.cov(off.T) - torch.eye(2)).abs().max() < 0.1
    assert (off.norm(dim=1) < 1).float().mean() == pytest.approx(1 - np.exp(-0.5), abs=0.04)
