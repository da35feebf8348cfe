"""RealNVP: affine couplings under checkerboard and channel masks, at several scales."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dulcourse import images
from dulcourse.errors import UsageError
from dulcourse.flows.base import Compose, Flow, Transform
from dulcourse.flows.conditioners import ConvNet
from dulcourse.flows.coupling import Coupling, channels, checkerboard
from dulcourse.flows.elementwise import to_reals
from dulcourse.flows.monotone import Monotone, ScaleShift
from dulcourse.flows.reshape import FactorOut, Squeeze

__all__ = ["RealNVP", "multiscale"]

Shape = tuple[int, int, int]


class RealNVP(Flow):
    r"""z_a = x_a, z_b = x_b ⊙ exp(s(x_a)) + t(x_a), again and again; log|det ∂z/∂x| = Σ over all s.

    A scale is three couplings with checkerboards, a squeeze, three couplings with channel masks; then half of
    the channels are factored out and the others go on. The last scale has four checkerboards (Dinh et al.
    2017, section 3.6). There is no batch normalisation: it would make the density of an image depend on the
    other images of its batch, and zero-initialised last layers make deep stacks trainable without it.

    Arguments:
        shape, levels, prior: as for every flow; with levels, x/L passes through a logit first.
        scales: how often to squeeze; H and W must be divisible by 2^scales. 0 works for every size.
        before: what turns x into real numbers, in place of the logit.
        width, blocks, dropout: of the convolutional networks that give s and t.
        generator: for the first weights; torch's own when not given.
    """

    def __init__(
        self,
        shape: Shape,
        levels: int | None = None,
        scales: int = 1,
        *,
        before: Transform | None = None,
        prior: torch.distributions.Distribution | None = None,
        width: int = 64,
        blocks: int = 2,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        shape = images.shape_of(shape)
        if scales < 0:
            raise UsageError(f"scales is {scales}, expected at least 0.")

        def network(channels: int, numbers: int) -> nn.Module:
            return ConvNet(channels, numbers, width, blocks, dropout=dropout, generator=generator)

        if before is None:
            before = Compose([]) if levels is None else to_reals(levels)
        super().__init__(Compose([before, multiscale(shape, scales, network)]), shape, levels, prior)


def multiscale(
    shape: Shape,
    scales: int,
    network: Callable[[int, int], nn.Module],
    monotone: Callable[[], Monotone] = ScaleShift,
) -> Compose:
    """Couplings and squeezes at this scale, and everything that follows it.

    Arguments:
        network: (channels, numbers) → the network of one coupling.
        monotone: () → the map of one coupling.
    """

    def coupling(mask: Tensor) -> Coupling:
        f = monotone()
        return Coupling(mask, network(len(mask), f.numbers), f)

    halves = checkerboard if shape[1] * shape[2] > 1 else channels  # one pixel has no checkerboard
    fine = [coupling(halves(shape, i % 2 == 0)) for i in range(3 if scales else 4)]
    if not scales:
        return Compose(fine)
    squeezed = Squeeze().out_shape(shape)
    coarse = [coupling(channels(squeezed, i % 2 == 0)) for i in range(3)]
    going_on = (squeezed[0] - squeezed[0] // 2, *squeezed[1:])
    rest = multiscale(going_on, scales - 1, network, monotone)
    return Compose([*fine, Squeeze(), *coarse, FactorOut(squeezed, rest)])
