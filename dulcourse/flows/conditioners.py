"""Networks that turn the untouched half of an event into parameters for the other half: any will do."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

__all__ = ["ConvNet", "DenseNet"]


class DenseNet(nn.Module):
    """h₁ = relu(W₁x + b₁), …, θ = Vh + c, over events of any shape; V and c are zero at first.

    Arguments:
        shape: of an event, (C, …); the answer is [batch, numbers·C, …].
        numbers: parameters of each element.
        hidden: widths of the hidden layers.
        dropout: probability with which a hidden unit is dropped in training.
        generator: for the first weights; torch's own when not given.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        numbers: int,
        hidden: tuple[int, ...] = (256, 256),
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.out, dims = (numbers * shape[0], *shape[1:]), math.prod(shape)
        widths = (dims, *hidden)
        self.hidden = nn.ModuleList(
            _drawn(skip_init(nn.Linear, a, b), generator) for a, b in zip(widths, hidden, strict=False)
        )
        self.last = _zero(skip_init(nn.Linear, widths[-1], numbers * dims))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *parameters"]:
        """θ, zero before training."""
        h = x.flatten(1)
        for layer in self.hidden:
            h = self.dropout(F.relu(layer(h)))
        return self.last(h).unflatten(1, self.out)


class ConvNet(nn.Module):
    """Convolution 3×3, then blocks h ← h + V relu(W relu(h)) (W 3×3, V 1×1), then θ by a convolution 1×1.

    The last convolution of each block and of the network is zero at first, so that depth costs nothing at the
    start.

    Arguments:
        channels: C of the images; the answer has numbers·C channels.
        numbers: parameters of each element.
        width: channels inside.
        blocks: how many; each widens the view by one pixel.
        dropout: probability with which a channel of a pixel is dropped in training.
        generator: for the first weights; torch's own when not given.
    """

    def __init__(
        self,
        channels: int,
        numbers: int,
        width: int = 64,
        blocks: int = 2,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.first = _drawn(skip_init(nn.Conv2d, channels, width, 3, padding=1), generator)
        self.wide = nn.ModuleList(
            _drawn(skip_init(nn.Conv2d, width, width, 3, padding=1), generator) for _ in range(blocks)
        )
        self.narrow = nn.ModuleList(_zero(skip_init(nn.Conv2d, width, width, 1)) for _ in range(blocks))
        self.last = _zero(skip_init(nn.Conv2d, width, numbers * channels, 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch C H W"]) -> Float[Tensor, "batch numbers_C H W"]:
        """θ, zero before training."""
        h = self.first(x)
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            h = h + narrow(self.dropout(F.relu(wide(F.relu(h)))))
        return self.last(F.relu(h))


def _drawn(layer: nn.Module, generator: torch.Generator | None) -> nn.Module:
    """Weights uniform in ±√(3/inputs), of variance 1/inputs; bias 0."""
    bound = math.sqrt(3 / layer.weight[0].numel())
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer


def _zero(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
