"""Orders are permutations; the spiral is the one that finds an order taken for a rank."""

import math

import pytest
import torch

from dulcourse.autoregressive import orders

SHAPES = [(1, 1, 1), (1, 8, 8), (1, 5, 3), (3, 2, 7), (2, 1, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["raster", "spiral", "random"])
def test_every_order_is_a_permutation(name, shape, generator):
    order = orders.random(shape, generator) if name == "random" else getattr(orders, name)(shape)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(math.prod(shape)))
    rank = orders.inverse(order)
    assert torch.equal(order[rank], torch.arange(len(order)))
    assert torch.equal(rank[order], torch.arange(len(order)))


def test_raster_takes_the_channels_of_a_pixel_together():
    C, H, W = 3, 2, 4
    expected = [c * H * W + h * W + w for h in range(H) for w in range(W) for c in range(C)]
    assert orders.raster((C, H, W)).tolist() == expected


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 4, 4), (1, 5, 5)])
def test_the_spiral_is_not_its_own_inverse(shape):
    order = orders.spiral(shape)
    assert not torch.equal(order, orders.inverse(order))


@pytest.mark.parametrize("size", [3, 4, 8])
def test_the_spiral_walks_from_pixel_to_neighbour_away_from_the_centre(size):
    h, w = orders.spiral((1, size, size)) // size, orders.spiral((1, size, size)) % size
    assert torch.equal(h.diff().abs() + w.diff().abs(), torch.ones(size**2 - 1, dtype=torch.int64))
    ring = torch.maximum((2 * h - size + 1).abs(), (2 * w - size + 1).abs())
    assert ring[0] <= 1
    assert ring[-1] == size - 1
    assert (ring.diff() >= (-2 if size % 2 == 0 else 0)).all()  # an even image has no middle pixel


def test_random_orders_come_from_the_generator():
    first, again = (orders.random((1, 8, 8), torch.Generator().manual_seed(3)) for _ in range(2))
    other = orders.random((1, 8, 8), torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
