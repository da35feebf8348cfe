"""NICE: additive couplings, which keep every volume, and one scaling at the end, which changes it."""

import torch

from dulcourse.errors import UsageError
from dulcourse.flows.affine import Diagonal
from dulcourse.flows.base import Compose, Flow, Transform
from dulcourse.flows.conditioners import DenseNet
from dulcourse.flows.coupling import Coupling, alternating
from dulcourse.flows.elementwise import Scaling
from dulcourse.flows.monotone import Shift

__all__ = ["NICE"]


class NICE(Flow):
    r"""z = exp(s) ⊙ (c_k ∘ … ∘ c_1(x) − b) with couplings z_a = x_a, z_b = x_b + t(x_a).

    log|det ∂z/∂x| = Σ_i s_i, the same for every x: couplings count 0 (Dinh et al. 2015, section 3.3).

    Arguments:
        shape, levels, prior: as for every flow; with levels, x is brought into [−1, 1) first.
        couplings: how many; even and odd elements take turns. At least 3 let every element move every other.
        hidden, dropout, generator: of the networks t.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        couplings: int = 4,
        hidden: tuple[int, ...] = (256, 256),
        *,
        prior: torch.distributions.Distribution | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        if couplings < 1:
            raise UsageError(f"couplings is {couplings}, expected at least 1.")
        steps: list[Transform] = [] if levels is None else [Scaling(2 / levels, -1.0)]
        for i in range(couplings):
            network = DenseNet(shape, Shift.numbers, hidden, dropout=dropout, generator=generator)
            steps.append(Coupling(alternating(shape, i % 2 == 0), network, Shift()))
        super().__init__(Compose([*steps, Diagonal(shape)]), shape, levels, prior)
