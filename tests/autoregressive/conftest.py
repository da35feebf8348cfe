"""Exhaustive tools for tiny domains: all images, and what depends on what."""

from itertools import product
from math import prod

import pytest
import torch


def all_images(shape: tuple[int, int, int], levels: int) -> torch.Tensor:
    """Every image there is: levels^D of them."""
    return torch.tensor(list(product(range(levels), repeat=prod(shape)))).unflatten(1, shape)


def dependencies(model: torch.nn.Module, generator: torch.Generator, images: int = 8) -> torch.Tensor:
    """bool [D, D]: entry (i, j) says whether changing symbol j alone ever changes the logits at i."""
    x = torch.randint(model.levels, (images, *model.shape), generator=generator)
    before = model.logits(x).flatten(2)
    depends = torch.zeros(model.dims, model.dims, dtype=torch.bool)
    for j in range(model.dims):
        other = x.flatten(1).clone()
        other[:, j] = (other[:, j] + 1) % model.levels
        after = model.logits(other.unflatten(1, model.shape)).flatten(2)
        depends[:, j] = (before != after).any(1).any(0)
    return depends


def earlier(order: torch.Tensor) -> torch.Tensor:
    """bool [D, D]: entry (i, j) says whether j is generated before i, by a loop over the order."""
    allowed = torch.zeros(len(order), len(order), dtype=torch.bool)
    for t, i in enumerate(order.tolist()):
        for j in order[:t].tolist():
            allowed[i, j] = True
    return allowed


@pytest.fixture(name="all_images")
def _all_images():
    return all_images


@pytest.fixture(name="dependencies")
def _dependencies():
    return dependencies


@pytest.fixture(name="earlier")
def _earlier():
    return earlier
