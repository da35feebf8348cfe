"""Gated PixelCNN: a vertical and a horizontal stack, which together see exactly the past."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse.autoregressive.causal import (
    CausalModel,
    Crossing,
    HorizontalConv,
    Label,
    Pointwise,
    Readout,
    Symbols,
    VerticalConv,
    groups,
)

__all__ = ["GatedPixelCNN", "gate"]


def gate(z: Float[Tensor, "batch twice *pixels"]) -> Float[Tensor, "batch features *pixels"]:
    """tanh(a) ⊙ σ(b), a the first half of the features and b the second."""
    a, b = z.chunk(2, dim=1)
    # tanh(a) = 2σ(2a) − 1: on a processor torch takes four times as long for a tanh as for a sigmoid.
    return (2 * torch.sigmoid(2 * a) - 1) * torch.sigmoid(b)


class Layer(nn.Module):
    r"""The two stacks, one layer on:

        s  = V ∗ v + A y                  v' = gate(s)
        t  = U ∗ h + P s + B y            h' = h + Q gate(t)

    V is a convolution over rows above (and the row itself, whose features know the rows above only), U over
    the pixels to the left; P takes the vertical stack to the horizontal one, never back. The first layer
    reads the image in place of v and h, is strict, and has no h to add.
    """

    def __init__(
        self,
        inputs: Int64[Tensor, " inputs"],
        channels: int,
        colours: int,
        kernel: int,
        classes: int | None,
        dropout: float,
        generator: torch.Generator | None,
        *,
        first: bool = False,
    ):
        super().__init__()
        self.first = first
        features = groups(channels, colours)
        halves = features.repeat(2)
        self.vertical = VerticalConv(len(inputs), 2 * channels, kernel, strict=first, generator=generator)
        self.horizontal = HorizontalConv(inputs, halves, kernel, strict=first, generator=generator)
        self.crossing = Crossing()
        self.link = Pointwise(torch.zeros_like(halves), halves, generator=generator)
        self.mix = Pointwise(features, features, generator=generator)
        self.label = None if classes is None else Label(classes, 4 * channels, generator=generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, v: Tensor, h: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """v', h'."""
        s, t = self.vertical(v), self.horizontal(h)
        if y is not None:
            for_s, for_t = self.label(y).chunk(2, dim=1)
            s, t = s + for_s, t + for_t
        t = t + self.crossing(self.link(s))
        z = self.mix(self.dropout(gate(t)))
        return gate(s), z if self.first else h + z


class GatedPixelCNN(CausalModel):
    r"""v₁, h₁ = first(x); v_{b+1}, h_{b+1} = layer_b(v_b, h_b, y); logits = readout(h_B).

    Source: van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", section 2.

    The vertical stack sees the rows above in full width, the horizontal one the row to the left, and what
    comes from both is exactly the past, from a depth on: with

        ⌊k₀/2⌋ + blocks·⌊k/2⌋ ≥ max(H, W) − 1

    every symbol depends on all before it (`reach` is the left-hand side). There is no blind spot within the
    reach.

    Arguments:
        shape, levels, classes: as for every autoregressive model; the order is raster.
        channels: features of a pixel in each stack, at least one a colour channel.
        blocks: how many layers after the first.
        first, kernel: k₀, the window of the first layer, at least 3, and k, that of the others; both odd.
        inputs, cosines: for symbols whose levels are ordered and many: how many cosines of the level the
            network is given in place of a one-hot vector (`Symbols`), and gives in place of a logit for each
            level (`Readout`).
        dropout: probability with which a feature is dropped in training.
        generator: for the first weights; torch's own when not given.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        channels: int = 32,
        blocks: int = 4,
        *,
        first: int = 7,
        kernel: int = 3,
        classes: int | None = None,
        inputs: int | None = None,
        cosines: int | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(shape, levels, classes=classes)
        colours, common = shape[0], (classes, dropout, generator)
        self.reach = first // 2 + blocks * (kernel // 2)
        self.symbols = Symbols(colours, levels, inputs)
        self.first = Layer(self.symbols.groups, channels, colours, first, *common, first=True)
        self.layers = nn.ModuleList(
            Layer(groups(channels, colours), channels, colours, kernel, *common) for _ in range(blocks)
        )
        self.readout = Readout(
            groups(channels, colours), colours, levels, cosines=cosines, generator=generator
        )

    def logits(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch levels C H W"]:
        """All conditionals in one pass; the label goes through every gate."""
        self.check_labels(y, len(x))
        symbols = self.symbols(x)
        v, h = self.first(symbols, symbols, y)
        for layer in self.layers:
            v, h = layer(v, h, y)
        return self.readout(h)
