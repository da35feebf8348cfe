"""Causal convolutions, and the one way to sample from any stack of them without computing anything twice.

A network is written once, as layers from here and pointwise operations between them. On whole images it is an
ordinary convolutional network. Inside `caching(network, shape)` each pass is about one pixel: the network is
fed the symbols of the pixel before, every layer here remembers what it has seen of its input and returns only
the part of its output that is new, and pointwise operations work on that part without knowing.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from dulcourse.autoregressive.base import AutoregressiveModel, inverse_cdf
from dulcourse.cosines import basis
from dulcourse.errors import UsageError

__all__ = [
    "CausalModel",
    "Crossing",
    "Cursor",
    "HorizontalConv",
    "Label",
    "MaskedConv",
    "Pointwise",
    "Readout",
    "Remembering",
    "Symbols",
    "VerticalConv",
    "caching",
    "groups",
    "mask",
]


def groups(features: int, channels: int) -> Int64[Tensor, " features"]:
    """g(j) = ⌊j·C/features⌋: the colour channel that feature j works for; sorted and as even as possible.

    What is predicted of channel g at a pixel may depend on the channels before g of that pixel, and features
    of group g know no more of it, from the first layer on (mask A).
    """
    if features < channels:
        raise UsageError(f"{features} features, expected at least {channels}: one for each colour channel.")
    return torch.arange(features) * channels // features


def mask(
    inputs: Int64[Tensor, " inputs"], outputs: Int64[Tensor, " outputs"], kernel: int, strict: bool
) -> Bool[Tensor, "outputs inputs kernel kernel"]:
    """May output feature j see input feature i at an offset in the k×k window?

    Rows above the centre and the centre row left of it: yes, they are earlier. Rows below and the centre row
    right of it: no. At the centre itself the sub-pixels decide: g(j) > g(i) where strict (mask A, once, on
    the image) and g(j) ≥ g(i) otherwise (mask B, on features, which have passed through A).

    Arguments:
        inputs, outputs: g, the colour channel of each feature, as `groups` gives them.
        kernel: k, odd.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise UsageError(f"kernel is {kernel}, expected an odd number of at least 1: a centre and two sides.")
    before = torch.arange(kernel**2).unflatten(0, (kernel, kernel)) < kernel**2 // 2
    compare = torch.gt if strict else torch.ge
    seen = before.expand(len(outputs), len(inputs), kernel, kernel).clone()
    seen[:, :, kernel // 2, kernel // 2] = compare(outputs[:, None], inputs[None, :])
    return seen


class Symbols(nn.Module):
    r"""The features in which a network is given the symbols: φ(x_c) for each channel c, sorted by channel.

    φ is one-hot, L features a symbol, or with `cosines` = K smooth in the level and short: 1, then
    cos(πf(k + ½)/L) for f = 1 … K. Off the image all features are zero, which no symbol has. Where levels are
    ordered and many, a network that is given them one by one memorises more and generalises less.

    Attributes:
        groups: the colour channel of each feature.
    """

    table: Tensor

    def __init__(self, colours: int, levels: int, cosines: int | None = None):
        super().__init__()
        smooth = None if cosines is None else torch.cat([torch.ones(1, levels), basis(levels, cosines)])
        table = torch.eye(levels) if smooth is None else smooth.T
        self.register_buffer("table", table.contiguous(), persistent=False)
        self.groups = groups(colours * table.shape[1], colours)

    def forward(self, x: Int64[Tensor, "batch C H W"]) -> Float[Tensor, "batch features H W"]:
        """Feature c·F + f is φ_f of channel c."""
        return F.embedding(x, self.table).movedim(4, 2).flatten(1, 2)


class Label(nn.Module):
    """A vector for each class, the same at every pixel: W y for the one-hot label y.

    Arguments:
        generator: for the first W, uniform in ±1/√classes; torch's own when not given.
    """

    def __init__(self, classes: int, features: int, *, generator: torch.Generator | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        with torch.no_grad():
            self.weight.uniform_(-1, 1, generator=generator).mul_(classes**-0.5)

    def forward(self, y: Int64[Tensor, " batch"]) -> Float[Tensor, "batch features 1 1"]:
        """W y."""
        return self.weight[y][:, :, None, None]


@dataclass
class Cursor:
    """Where a cached pass is.

    Attributes:
        height, width: of the image.
        pixel: (row, column) whose logits the pass is for.
        fed: the pixel whose symbols it is fed: the one before, or, between the sub-pixels, `pixel` itself.
            None in the first pass, which is fed nothing that counts.
    """

    height: int
    width: int
    pixel: tuple[int, int] | None = None
    fed: tuple[int, int] | None = None

    def move(self, row: int, column: int) -> None:
        """Go on to a pixel; what is fed is the pixel of the pass before."""
        self.pixel, self.fed = (row, column), self.pixel

    @property
    def new_row(self) -> bool:
        """Is this the first pass of a row? The rows above are complete then."""
        return self.pixel[1] == 0 and self.pixel != self.fed


class Remembering(nn.Module):
    """A layer whose output at a pixel needs more of its input than that pixel.

    A subclass supplies `whole(h)`, the layer on whole images, and `step(h)`, the same in a cached pass: h is
    the new part of the input, and the new part of the output is returned. Whatever steps keep is in
    `self.memory`.
    """

    cursor: Cursor | None = None

    def __init__(self):
        super().__init__()
        self.memory: dict[str, Tensor] = {}

    def forward(self, h: Float[Tensor, "batch inputs *old"]) -> Float[Tensor, "batch outputs *new"]:
        """`whole`, or `step` while caching."""
        return self.whole(h) if self.cursor is None else self.step(h)

    def begin(self, cursor: Cursor) -> None:
        """From now on passes are cached ones, about the pixel under the cursor."""
        self.cursor, self.memory = cursor, {}

    def end(self) -> None:
        """Forget, and work on whole images again."""
        self.cursor, self.memory = None, {}


@contextmanager
def caching(model: nn.Module, shape: tuple[int, int, int]) -> Iterator[Cursor]:
    """Cached passes inside the block: one for each symbol in raster order, after `cursor.move(row, column)`.

    Each is called like the network itself, with the symbols at `cursor.fed` `[batch, C, 1, 1]` for the image,
    and returns the logits at `cursor.pixel` `[batch, levels, C, 1, 1]`. The weights must not change
    meanwhile.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Remembering)]
    cursor = Cursor(*shape[1:])
    for layer in layers:
        layer.begin(cursor)
    try:
        yield cursor
    finally:
        for layer in layers:
            layer.end()


class MaskedConv(Remembering):
    """z(r, c) = b + Σ_{u, v} (M ⊙ W)(u, v) h(r + u, c + v), over the rows above and the row itself.

    PixelCNN's convolution. The rows below, which the mask forbids, are left out of W. The mask multiplies the
    weights anew in each pass and never changes them.

    Arguments:
        inputs, outputs: the colour channel of each feature (`groups`).
        kernel: k, odd: the window is k wide and reaches ⌊k/2⌋ rows up.
        strict: mask A (see `mask`); mask B otherwise.
        generator: for the first W, uniform in ±1/√(inputs an output may see); b starts at zero.
    """

    mask: Tensor

    def __init__(
        self,
        inputs: Int64[Tensor, " inputs"],
        outputs: Int64[Tensor, " outputs"],
        kernel: int,
        *,
        strict: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.strict = strict
        seen = self._window(mask(inputs, outputs, kernel, strict))
        self.register_buffer("mask", seen.to(torch.get_default_dtype()), persistent=False)
        self.left, self.right, self.above = self._reach(kernel)
        self.weight = nn.Parameter(torch.empty(seen.shape))
        self.bias = nn.Parameter(torch.zeros(len(outputs)))
        bound = seen.sum((1, 2, 3), keepdim=True).clamp(min=1).rsqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1, generator=generator).mul_(bound)

    def _window(self, seen: Bool[Tensor, "*features k k"]) -> Bool[Tensor, "*features rows columns"]:
        return seen[:, :, : seen.shape[2] // 2 + 1]

    def _reach(self, kernel: int) -> tuple[int, int, int]:
        """How many pixels to the left, to the right and above."""
        return kernel // 2, kernel // 2, kernel // 2

    def whole(self, h: Float[Tensor, "batch inputs H W"]) -> Float[Tensor, "batch outputs H W"]:
        """All pixels at once, zeros around the image."""
        padded = F.pad(h, (self.left, self.right, self.above, 0))
        return F.conv2d(padded, self.weight * self.mask, self.bias)

    def begin(self, cursor: Cursor) -> None:
        """Mask the weights once; those of the row itself as a matrix."""
        super().begin(cursor)
        masked = self.weight * self.mask
        self.memory["weight above"] = masked[:, :, :-1]
        self.memory["weight"] = masked[:, :, -1, : self.left + 1].permute(2, 1, 0).flatten(0, 1)

    def step(self, h: Float[Tensor, "batch inputs 1 1"]) -> Float[Tensor, "batch outputs 1 1"]:
        """What the rows above add is computed for a whole row when it begins, the rest pixel by pixel.

        Strict layers come first in a network: their input is what is fed, the pixel before. The input of the
        others is at the same pixel as their output.
        """
        cursor, memory = self.cursor, self.memory
        if "row" not in memory:
            memory["row"] = h.new_zeros(len(h), self.left + cursor.width + self.right, h.shape[1])
            memory["rows above"] = h.new_zeros(len(h), h.shape[1], self.above, memory["row"].shape[1])
        if self.strict:
            self._keep(h, cursor.fed)
        if cursor.new_row and self.above:
            self._next_row()
        if not self.strict:
            self._keep(h, cursor.pixel)
        column = cursor.pixel[1]
        window = memory["row"][:, column : column + self.left + 1].flatten(1)
        from_above = memory["from above"][column] if self.above else self.bias
        return torch.addmm(from_above, window, memory["weight"])[:, :, None, None]

    def _keep(self, h: Float[Tensor, "batch inputs 1 1"], pixel: tuple[int, int] | None) -> None:
        if pixel is not None:
            self.memory["row"][:, self.left + pixel[1]] = h.flatten(1)

    def _next_row(self) -> None:
        """The row that is full is the lowest of those above from now on.

        It need not be emptied: it is written over from the left, and nothing further right is looked at.
        """
        row = self.memory["row"].transpose(1, 2).unsqueeze(2)
        rows = torch.cat([self.memory["rows above"][:, :, 1:], row], 2)
        added = F.conv2d(rows, self.memory["weight above"], self.bias)
        self.memory["rows above"] = rows
        self.memory["from above"] = added.squeeze(2).permute(2, 0, 1).contiguous()  # [W, batch, outputs]


class HorizontalConv(MaskedConv):
    """z(r, c) = b + Σ_{v ≤ 0} (M ⊙ W)(v) h(r, c + v): the row of `mask` that the pixel is in.

    Gated PixelCNN's horizontal stack; ⌊k/2⌋ pixels to the left, and the pixel itself as `mask` has it.
    """

    def _window(self, seen: Bool[Tensor, "*features k k"]) -> Bool[Tensor, "*features rows columns"]:
        middle = seen.shape[2] // 2
        return seen[:, :, middle : middle + 1, : middle + 1]

    def _reach(self, kernel: int) -> tuple[int, int, int]:
        return kernel // 2, 0, 0


class VerticalConv(Remembering):
    """z(r, c) = b + Σ_{u, v} W(u, v) h(r + u, c + v), over whole rows: −⌊k/2⌋ ≤ v ≤ ⌊k/2⌋ both to the left
    and to the right, −⌊k/2⌋ ≤ u ≤ 0, or u < 0 where strict.

    Gated PixelCNN's vertical stack. One strict layer, on the image; then its features at row r know the rows
    above r only, all channels of them, so the other layers may see row r of these features in its full width.
    (Shifting in each layer is not needed, and it is what leaves a blind spot in some implementations.)

    Arguments:
        inputs, outputs: numbers of features.
        kernel: k, odd; at least 3 where strict.
        generator: for the first W, uniform in ±1/√(inputs an output sees); b starts at zero.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        strict: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if kernel % 2 == 0 or kernel < 1 + 2 * strict:
            raise UsageError(f"kernel is {kernel}, expected an odd number of at least {1 + 2 * strict}.")
        self.strict, self.side, self.rows = strict, kernel // 2, kernel // 2 + (not strict)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, self.rows, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        bound = 1 / math.sqrt(inputs * self.rows * kernel)
        with torch.no_grad():
            self.weight.uniform_(-bound, bound, generator=generator)

    def whole(self, h: Float[Tensor, "batch inputs H W"]) -> Float[Tensor, "batch outputs H W"]:
        """All pixels at once, zeros around the image."""
        below = -1 if self.strict else 0  # nobody sees the last row
        padded = F.pad(h, (self.side, self.side, self.rows - 1 - below, below))
        return F.conv2d(padded, self.weight, self.bias)

    def step(self, h: Float[Tensor, "batch inputs *old"]) -> Float[Tensor, "batch outputs 1 new"]:
        """A whole row in the first pass of it, and nothing (width 0) in the others.

        The memory is the window's rows. A strict layer is fed pixel by pixel and collects the row at the
        bottom; the others are given whole rows.
        """
        cursor, memory = self.cursor, self.memory
        if "rows" not in memory:
            width = self.side + cursor.width + self.side
            memory["rows"] = h.new_zeros(len(h), h.shape[1], self.rows, width)
        if self.strict and cursor.fed is not None:
            memory["rows"][:, :, -1, self.side + cursor.fed[1]] = h.flatten(1)
        if not cursor.new_row:
            return h.new_empty(len(h), len(self.bias), 1, 0)
        if not self.strict:
            self._next_row()
            memory["rows"][:, :, -1, self.side : self.side + cursor.width] = h.squeeze(2)
        z = F.conv2d(memory["rows"], self.weight, self.bias)
        if self.strict:
            self._next_row()
        return z

    def _next_row(self) -> None:
        self.memory["rows"] = F.pad(self.memory["rows"][:, :, 1:], (0, 0, 0, 1))


class Crossing(Remembering):
    """The identity, from the vertical stack to the horizontal one: of a row, the pixel that is wanted."""

    def whole(self, h: Float[Tensor, "batch features H W"]) -> Float[Tensor, "batch features H W"]:
        """h."""
        return h

    def step(self, h: Float[Tensor, "batch features 1 new"]) -> Float[Tensor, "batch features 1 1"]:
        """Keep a row that is new; hand out the column of the pixel."""
        if self.cursor.new_row:
            self.memory["row"] = h
        column = self.cursor.pixel[1]
        return self.memory["row"][:, :, :, column : column + 1]


class Pointwise(Remembering):
    """z = (M ⊙ W) h + b at each pixel by itself, M[j, i] = g(j) ≥ g(i).

    Nothing to remember but the masked weights.

    Arguments:
        inputs, outputs: the colour channel of each feature (`groups`). Zeros where the features of a pixel
            know no symbol of that pixel, as in a vertical stack.
        generator: for the first W, uniform in ±1/√(inputs an output may see); b starts at zero.
    """

    mask: Tensor

    def __init__(
        self,
        inputs: Int64[Tensor, " inputs"],
        outputs: Int64[Tensor, " outputs"],
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        seen = outputs[:, None] >= inputs[None, :]
        self.register_buffer("mask", seen.to(torch.get_default_dtype()), persistent=False)
        self.weight = nn.Parameter(torch.empty(seen.shape))
        self.bias = nn.Parameter(torch.zeros(len(outputs)))
        bound = seen.sum(1, keepdim=True).clamp(min=1).rsqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1, generator=generator).mul_(bound)

    def whole(self, h: Float[Tensor, "batch inputs H W"]) -> Float[Tensor, "batch outputs H W"]:
        """(M ⊙ W) h + b at every pixel."""
        return self._product(h, self.weight * self.mask)

    def begin(self, cursor: Cursor) -> None:
        """Mask the weights once."""
        super().begin(cursor)
        self.memory["weight"] = self.weight * self.mask

    def step(self, h: Float[Tensor, "batch inputs 1 new"]) -> Float[Tensor, "batch outputs 1 new"]:
        """(M ⊙ W) h + b at the pixels that are new."""
        return self._product(h, self.memory["weight"])

    def _product(self, h: Tensor, weight: Tensor) -> Tensor:
        return F.linear(h.permute(0, 2, 3, 1), weight, self.bias).permute(0, 3, 1, 2)


class Readout(nn.Module):
    r"""logits = B P₂ relu(P₁ relu(h)): what the features of a pixel say about its symbols.

    Group g of the features speaks for colour channel g. B is the identity, or with `cosines` = K the basis of
    `dulcourse.cosines`, which makes what is said about neighbouring levels similar.
    """

    def __init__(
        self,
        features: Int64[Tensor, " features"],
        colours: int,
        levels: int,
        *,
        cosines: int | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.colours = colours
        self.register_buffer("basis", None if cosines is None else basis(levels, cosines), persistent=False)
        numbers = groups(colours * (cosines or levels), colours)
        self.hidden = Pointwise(features, features, generator=generator)
        self.output = Pointwise(features, numbers, generator=generator)

    def forward(self, h: Float[Tensor, "batch features H W"]) -> Float[Tensor, "batch levels C H W"]:
        """The logits."""
        z = self.output(F.relu(self.hidden(F.relu(h)))).unflatten(1, (self.colours, -1)).transpose(1, 2)
        return z if self.basis is None else torch.einsum("nkchw,kl->nlchw", z, self.basis)


class CausalModel(AutoregressiveModel):
    """A model in raster order whose `logits` are a network of causal convolutions and pointwise operations.

    Sampling is cached; nothing else has to be written for it.
    """

    @torch.no_grad()
    def from_noise(
        self, noise: Float64[Tensor, "batch dims"], y: Int64[Tensor, " batch"] | None = None
    ) -> Int64[Tensor, "batch C H W"]:
        """The naive loop's samples at the cost of a few passes: each step computes what is new.

        One step a symbol, so C for a pixel: between them its features are computed again, from one sub-pixel
        more.
        """
        C, H, W = self.shape
        x = torch.zeros(len(noise), C, H, W, dtype=torch.int64, device=noise.device)
        with caching(self, self.shape) as cursor:
            for t, i in enumerate(self.order.tolist()):
                c, (h, w) = i // (H * W), divmod(i % (H * W), W)
                cursor.move(h, w)
                r, s = cursor.fed or (0, 0)
                logits = self.logits(x[:, :, r : r + 1, s : s + 1], y)
                x[:, c, h, w] = inverse_cdf(logits[:, :, c, 0, 0], noise[:, t])
        return x
