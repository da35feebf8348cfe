"""PixelCNN: masked convolutions in raster order, and a blind spot."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse.autoregressive.causal import (
    CausalModel,
    Label,
    MaskedConv,
    Pointwise,
    Readout,
    Symbols,
    groups,
)

__all__ = ["PixelCNN"]


class Block(nn.Module):
    """h + P₂ relu(M relu(P₁ relu(h))): a masked convolution M in a bottleneck of half the width."""

    def __init__(self, channels: int, colours: int, kernel: int, dropout: float, generator):
        super().__init__()
        wide, narrow = groups(channels, colours), groups(channels // 2, colours)
        self.before = Pointwise(wide, narrow, generator=generator)
        self.conv = MaskedConv(narrow, narrow, kernel, generator=generator)
        self.after = Pointwise(narrow, wide, generator=generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Float[Tensor, "batch features H W"]) -> Float[Tensor, "batch features H W"]:
        """The sum."""
        z = self.before(F.relu(h))
        z = self.conv(F.relu(z))
        return h + self.after(self.dropout(F.relu(z)))


class PixelCNN(CausalModel):
    r"""h₀ = M_A x, h_{b+1} = h_b + block_b(h_b), logits = readout(h_B).

    Source: van den Oord et al. 2016, "Pixel Recurrent Neural Networks", section 3. M_A is a strict masked
    convolution (mask A) of the symbols, the blocks have mask B. The sub-pixels of a pixel come in the
    order of its channels.

    A window of side k sees ⌊k/2⌋ columns to the right in each row further up, and no layer sees anything in
    its own row to the right. So a pixel r rows up and c columns to the right is seen only if

        c ≤ ⌊k₀/2⌋ + (r − 1)⌊k/2⌋,

    however many blocks there are: beyond is the blind spot. `GatedPixelCNN` has none.

    Arguments:
        shape, levels, classes: as for every autoregressive model; the order is raster.
        channels: features of a pixel, at least two a colour channel.
        blocks: how many residual blocks.
        first, kernel: k₀, the window of the first layer, and k, that of the blocks, both odd.
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
        channels: int = 64,
        blocks: int = 5,
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
        colours = shape[0]
        features = groups(channels, colours)
        self.symbols = Symbols(colours, levels, inputs)
        self.first = MaskedConv(self.symbols.groups, features, first, strict=True, generator=generator)
        self.label = None if classes is None else Label(classes, channels, generator=generator)
        self.blocks = nn.ModuleList(
            Block(channels, colours, kernel, dropout, generator) for _ in range(blocks)
        )
        self.readout = Readout(features, colours, levels, cosines=cosines, generator=generator)

    def logits(
        self, x: Int64[Tensor, "batch C H W"], y: Int64[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch levels C H W"]:
        """All conditionals in one pass. A label shifts the features that the first layer gives."""
        self.check_labels(y, len(x))
        h = self.first(self.symbols(x))
        if y is not None:
            h = h + self.label(y)
        for block in self.blocks:
            h = block(h)
        return self.readout(h)
