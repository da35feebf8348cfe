"""Latent-variable models in which everything is known, to hold estimates and bounds against."""

from itertools import product
from math import prod

import numpy as np
import pytest
import torch

from dulcourse.latent.base import LatentModel
from dulcourse.latent.linear_gaussian import LinearGaussian
from dulcourse.latent.mixture import Mixture


class Smooth(LatentModel):
    """Everything linear in its input, and one number in z: integrals over z by quadrature are exact."""

    def __init__(self, shape=(1, 1, 2), levels=3, latents=1):
        super().__init__(shape, levels, latents)
        g = torch.Generator().manual_seed(3)
        self.into = torch.nn.Parameter(0.5 * torch.randn(2 * latents, self.dims, generator=g))
        self.out = torch.nn.Parameter(torch.randn(levels * self.dims, latents, generator=g))
        self.modes = set()

    def encode(self, x):
        mean, log_std = (x.flatten(1).to(self.into) @ self.into.T).chunk(2, 1)
        return mean, 0.3 * log_std

    def decode(self, z):
        self.modes.add(self.training)
        return (z @ self.out.T).unflatten(1, (self.levels, *self.shape))


def every(shape: tuple[int, int, int], levels: int) -> torch.Tensor:
    """Every image there is: levels^D of them."""
    return torch.tensor(list(product(range(levels), repeat=prod(shape)))).unflatten(1, shape)


@pytest.fixture
def smooth(float64) -> Smooth:
    return Smooth()


@pytest.fixture(name="every")
def _every():
    return every


@pytest.fixture
def normal_nodes(float64) -> tuple[torch.Tensor, torch.Tensor]:
    """ε_i [80, 1] and weights with E f(ε) = Σ w_i f(ε_i) for ε ~ N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return torch.tensor(nodes).unsqueeze(1), torch.tensor(weights / weights.sum())


@pytest.fixture
def linear(float64) -> LinearGaussian:
    """Four numbers in x, two in z, whose posterior is correlated."""
    g = torch.Generator().manual_seed(1)
    return LinearGaussian(torch.randn(4, 2, generator=g), torch.randn(4, generator=g), 0.6)


@pytest.fixture
def mixture(float64) -> Mixture:
    """Five components of unequal weight."""
    model = Mixture((1, 2, 2), 3, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model.table *= 15
        model.weights_logits += torch.linspace(-1, 1, 5)
    return model


@pytest.fixture(params=["linear", "mixture"])
def known(request) -> tuple[torch.nn.Module, torch.Tensor]:
    """A model with an exact log p(x) and an exact posterior, and six of its samples."""
    model = request.getfixturevalue(request.param)
    return model, model.sample(6, generator=torch.Generator().manual_seed(4))
