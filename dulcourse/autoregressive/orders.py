"""Generation orders: order[t] is the index into x.flatten(1) of the symbol generated t-th.

An order is a sequence of positions; its inverse, the rank, says when each position is generated. The two
are equal only for special orders (raster over one channel), which is how a mix-up stays hidden: test with
`spiral`.
"""

import math

import torch
from jaxtyping import Int64
from torch import Tensor

__all__ = ["inverse", "random", "raster", "spiral"]

Shape = tuple[int, int, int]


def raster(shape: Shape) -> Int64[Tensor, " dims"]:
    """c·HW + h·W + w for h, w, c: row by row, left to right, the channels of a pixel one after the other."""
    _, H, W = shape
    return _with_channels(torch.arange(H * W), shape)


def spiral(shape: Shape) -> Int64[Tensor, " dims"]:
    """From the centre outwards: right 1, down 1, left 2, up 2, right 3, …, skipping what is off the image.

    It is not its own inverse, so a model that takes the order for the rank is found out.
    """
    _, H, W = shape
    h, w = (H - 1) // 2, (W - 1) // 2
    pixels, run, side = [h * W + w], 0, ((0, 1), (1, 0), (0, -1), (-1, 0))
    while len(pixels) < H * W:
        down, right = side[run % 4]
        for _ in range(run // 2 + 1):
            h, w = h + down, w + right
            if 0 <= h < H and 0 <= w < W:
                pixels.append(h * W + w)
        run += 1
    return _with_channels(torch.tensor(pixels), shape)


def random(shape: Shape, generator: torch.Generator) -> Int64[Tensor, " dims"]:
    """A uniformly random permutation of the D = C·H·W positions."""
    return torch.randperm(math.prod(shape), generator=generator, device=generator.device).cpu()


def inverse(order: Int64[Tensor, " dims"]) -> Int64[Tensor, " dims"]:
    """rank[order[t]] = t."""
    return torch.argsort(order)


def _with_channels(pixels: Int64[Tensor, " pixels"], shape: Shape) -> Int64[Tensor, " dims"]:
    """Visit every channel of a pixel before the next pixel."""
    C, H, W = shape
    return (pixels[:, None] + torch.arange(C) * (H * W)).flatten()
