"""What amortisation costs: the encoder's q(z | x) against the best q for each x alone."""

import torch
from jaxtyping import Int64
from torch import Tensor

from dulcourse.latent.base import LatentModel
from dulcourse.latent.bounds import elbo_by_kl
from dulcourse.latent.distributions import DiagonalGaussian
from dulcourse.modes import evaluating

__all__ = ["refine"]


def refine(
    model: LatentModel,
    x: Int64[Tensor, "batch C H W"],
    *,
    generator: torch.Generator,
    steps: int = 200,
    lr: float = 0.02,
    k: int = 8,
) -> DiagonalGaussian:
    r"""argmax_q E_q[log p(x | z)] − KL(q ‖ p(z)) over the diagonal Gaussians q of each x, by Adam.

    Starts at the encoder's q(z | x) and leaves the model alone. The amortisation gap is the ELBO of what
    comes back minus that of `model.proposal(x)` (Cremer et al. 2018); measure both on fresh noise.

    Arguments:
        steps, lr: of Adam, on the mean and log_std of each x.
        k: draws of z for each x and step.
    """
    with evaluating(model):
        start = model.proposal(x)
        free = [t.detach().clone().requires_grad_() for t in (start.mean, start.log_std)]
        optimiser = torch.optim.Adam(free, lr=lr)
        for _ in range(steps):
            q = DiagonalGaussian(*free)
            z = q.from_noise(q.noise(generator, k))
            loss = -elbo_by_kl(model, x, q, z).sum()
            for parameter, gradient in zip(free, torch.autograd.grad(loss, free), strict=True):
                parameter.grad = gradient
            optimiser.step()
    return DiagonalGaussian(*(t.detach() for t in free))
