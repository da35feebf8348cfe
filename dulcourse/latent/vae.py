"""Variational autoencoders: networks for q(z | x) and p(x | z), trained together by one bound."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dulcourse import cosines as smooth
from dulcourse.errors import UsageError
from dulcourse.latent.base import LatentModel
from dulcourse.modes import evaluating

__all__ = ["VAE", "ConvVAE", "active_units", "bounded"]

LOWEST, HIGHEST = -9.0, 2.0  # of log σ; the prior has log σ = 0


def bounded(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""log σ between LOWEST and HIGHEST (to 2e-5), raw itself but near the ends: exp cannot overflow.

    A tanh or a sigmoid would pull every small σ upwards; this one changes a σ between e^−6 and e^−3 by less
    than 5 %, and its derivative does not stop at the ends, as that of a clamp does.
    """
    below = HIGHEST - F.softplus(HIGHEST - raw)
    return LOWEST + F.softplus(below - LOWEST)


class _NetworkVAE(LatentModel):
    """What the dense and the convolutional model share: scaled input, (mean, log σ), levels from outputs."""

    def __init__(self, shape: tuple[int, int, int], levels: int, latents: int, cosines: int | None):
        super().__init__(shape, levels, latents)
        basis = None if cosines is None else smooth.basis(levels, cosines)
        self.register_buffer("basis", basis, persistent=False)
        self.outputs = cosines or levels  # numbers a symbol
        self.bias = nn.Parameter(torch.zeros(levels, *self.shape))

    def encode(
        self, x: Int64[Tensor, "batch C H W"]
    ) -> tuple[Float[Tensor, "batch latents"], Float[Tensor, "batch latents"]]:
        """Mean and log standard deviation of q(z | x)."""
        scaled = x.to(self.bias) * (2 / (self.levels - 1)) - 1
        mean, raw = self.encoder(scaled).chunk(2, 1)
        return mean, bounded(raw)

    def decode(self, z: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch levels C H W"]:
        """Logits of p(x_i | z): a bias for each level of each symbol, and what z says."""
        outputs = self.decoder(z).unflatten(1, (self.outputs, self.shape[0]))
        if self.basis is not None:
            outputs = torch.einsum("bfchw,fl->blchw", outputs, self.basis)
        return outputs + self.bias


class VAE(_NetworkVAE):
    r"""q(z | x) and p(x | z) by fully connected networks: h = relu(Ax + a) and its like, twice a side.

    Arguments:
        shape, levels: (C, H, W) of an image, and L.
        latents: the number of elements of z.
        hidden: width of the hidden layers.
        cosines: K smooth functions of the level in place of a free logit for each (see `dulcourse.cosines`).
        dropout: probability with which a hidden unit is dropped in training.
        generator: for the first weights; torch's own when not given.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        latents: int,
        hidden: int = 256,
        *,
        cosines: int | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(shape, levels, latents, cosines)
        if hidden < 1:
            raise UsageError(f"hidden is {hidden}, expected a width of at least 1.")
        C, H, W = self.shape

        def dense(inputs: int, outputs: int) -> nn.Sequential:
            layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout)]
            layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)]
            return nn.Sequential(*layers, nn.Linear(hidden, outputs))

        self.encoder = nn.Sequential(nn.Flatten(), dense(self.dims, 2 * latents))
        self.decoder = nn.Sequential(
            dense(latents, self.outputs * self.dims), nn.Unflatten(1, (self.outputs * C, H, W))
        )
        initialise(self, generator)


class ConvVAE(_NetworkVAE):
    r"""q(z | x) by strided convolutions, p(x | z) by their transposes: for images of 4·m × 4·n symbols.

    Arguments: as those of `VAE`, with `channels` feature maps at full size, twice as many at half of it.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        latents: int,
        channels: int = 32,
        *,
        cosines: int | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(shape, levels, latents, cosines)
        _, H, W = self.shape
        if H % 4 or W % 4:
            raise UsageError(f"images are {H} by {W}, expected multiples of 4: they are halved twice.")
        if channels < 1:
            raise UsageError(f"channels is {channels}, expected at least 1.")
        self.encoder = self._halving(channels, dropout)
        self.decoder = self._doubling(channels, dropout)
        initialise(self, generator)

    def _halving(self, channels: int, dropout: float) -> nn.Sequential:
        """[batch, C, H, W] to `channels` maps, to 2·channels of H/2 × W/2, of H/4 × W/4, to 2·latents."""
        (C, H, W), wide = self.shape, 2 * channels
        return nn.Sequential(
            nn.Conv2d(C, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, wide, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(wide * H * W // 16, 2 * self.latents),
        )

    def _doubling(self, channels: int, dropout: float) -> nn.Sequential:
        """[batch, latents] to 2·channels maps of H/4 × W/4, and back to [batch, outputs·C, H, W]."""
        (C, H, W), wide = self.shape, 2 * channels
        return nn.Sequential(
            nn.Linear(self.latents, wide * H * W // 16),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Unflatten(1, (wide, H // 4, W // 4)),
            nn.ConvTranspose2d(wide, wide, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(wide, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, self.outputs * C, 3, padding=1),
        )


def active_units(
    model: LatentModel, x: Int64[Tensor, "batch C H W"], threshold: float = 0.01
) -> tuple[Float[Tensor, " latents"], int]:
    r"""Var_x E_q[z_j | x] of each latent, and how many exceed the threshold (Burda et al. 2016).

    A collapsed latent has q(z_j | x) = p(z_j) for every x: its mean does not move.
    """
    with torch.no_grad(), evaluating(model):
        activity = model.encode(x)[0].var(0, correction=0)
    return activity, int((activity > threshold).sum())


def initialise(model: nn.Module, generator: torch.Generator | None) -> None:
    """Weights uniform in ±√(3/inputs), hence of variance one over inputs; the layers' biases zero."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.uniform_(-1, 1, generator=generator).mul_((3 / _inputs(layer)) ** 0.5)
                layer.bias.zero_()


def _inputs(layer: nn.Module) -> int:
    """How many numbers each output is a sum of (those of a transposed convolution share the kernel out)."""
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.weight[:, 0].numel() // math.prod(layer.stride)
    return layer.weight[0].numel()
