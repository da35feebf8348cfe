"""Adam, by torch's functional form: its class imports torch's compiler, longer than many a training here."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["AdamW"]


class AdamW:
    r"""θ ← (1 − ηλ)θ − η m̂/(√v̂ + ε), m and v the running means of the gradient and of its square.

    m has β₁ = 0.9, v has β₂ = 0.999, a hat divides by 1 − βᵗ, and ε = 10⁻⁸. Number for number
    `torch.optim.AdamW`; with λ = 0, the default, it is Adam.

    Source: Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.

    Arguments:
        parameters: what is moved, each where it has a gradient.
        weight_decay: λ, decoupled from the gradient.
    """

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float = 0.0):
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.states = [
            {
                "step": torch.zeros((), device=p.device, dtype=torch.float32),
                "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }
            for p in self.parameters
        ]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of the parameters that have a gradient, η = rate."""
        moved = [(p, s) for p, s in zip(self.parameters, self.states, strict=True) if p.grad is not None]
        adamw(
            [p for p, _ in moved],
            [p.grad for p, _ in moved],
            [s["exp_avg"] for _, s in moved],
            [s["exp_avg_sq"] for _, s in moved],
            [],
            [s["step"] for _, s in moved],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )
