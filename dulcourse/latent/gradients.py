r"""Two ways to differentiate an expectation over draws that depend on the parameters: ∇_φ E_{q_φ(z)}[f(z)].

Every estimator has one interface, `estimator(q, f, noise) -> [*batch]`: its value estimates E_q[f(z)], and
its gradient estimates ∇_φ E_q[f(z)] without bias, also where f itself depends on φ, as log p(x, z) −
log q_φ(z) does. So they can be exchanged, and their variances compared on the same noise.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dulcourse.errors import UsageError
from dulcourse.latent.distributions import Categorical, DiagonalGaussian, Distribution, Gaussian

__all__ = ["Estimator", "enumerated", "gradient_draws", "leave_one_out", "reparameterised", "score_function"]

Function = Callable[[Tensor], Tensor]  # z [k, *batch, *event] -> [k, *batch]
Estimator = Callable[[Distribution, Function, Tensor], Tensor]


def score_function(
    q: Distribution, f: Function, noise: Tensor, baseline: Float[Tensor, "*#batch"] | float = 0.0
) -> Float[Tensor, "*batch"]:
    r"""∇ = (1/K) Σ_k (f(z_k) − b) ∇ log q(z_k), as E[∇ log q] = 0: the likelihood ratio, or REINFORCE.

    f may be anything, discontinuous or unknown, and z may be discrete.

    Arguments:
        noise: [K, …], as `q.noise(generator, K)` makes it.
        baseline: b, a number that does not depend on these draws; it changes the variance only.
    """
    return _score_function(q, f, noise, lambda values: baseline)


def leave_one_out(q: Distribution, f: Function, noise: Tensor) -> Float[Tensor, "*batch"]:
    r"""The score function with b_k = the mean of the other K − 1 values of f (Kool et al. 2019)."""
    if len(noise) < 2:
        raise UsageError(
            f"leave_one_out got {len(noise)} draw, expected at least 2: the baseline is the others."
        )
    return _score_function(q, f, noise, lambda values: (values.sum(0) - values) / (len(values) - 1))


def reparameterised(q: Distribution, f: Function, noise: Tensor) -> Float[Tensor, "*batch"]:
    r"""∇ = (1/K) Σ_k ∇ f(z_φ(ε_k)), z_φ = μ + σε: the derivative follows the draw.

    Source: Kingma & Welling 2014, §2.4. f must be differentiable in z, and z in φ.
    """
    if not isinstance(q, DiagonalGaussian | Gaussian):
        raise UsageError(
            f"reparameterised got a {type(q).__name__}, whose draws have no derivative: "
            "use score_function, or enumerate the states."
        )
    return f(q.from_noise(noise)).mean(0)


def enumerated(q: Categorical, f: Function) -> Float[Tensor, "*batch"]:
    r"""Σ_z q(z) f(z): the expectation itself, and so its gradient, for few states."""
    states = torch.arange(q.logits.shape[-1], device=q.logits.device)
    z = states.view(-1, *[1] * (q.logits.ndim - 1)).expand(-1, *q.logits.shape[:-1])
    return (q.log_prob(z).exp() * f(z)).sum(0)


def gradient_draws(
    estimator: Estimator,
    family: Callable[..., Distribution],
    parameters: tuple[Tensor, ...],
    f: Function,
    n: int,
    k: int,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, ...]:
    """n independent gradients [n, *shape] for each parameter of q = family(*parameters), K draws each.

    Their mean should be the true gradient; their variance is what estimators differ in.
    """
    copies = tuple(p.detach().expand(n, *p.shape).clone().requires_grad_() for p in parameters)
    q = family(*copies)  # n copies of q, so that one backward pass gives n gradients
    return torch.autograd.grad(estimator(q, f, q.noise(generator, k)).sum(), copies)


def _score_function(
    q: Distribution, f: Function, noise: Tensor, baseline: Callable[[Tensor], Tensor | float]
) -> Tensor:
    z = q.from_noise(noise).detach()
    values, log_q = f(z), q.log_prob(z)
    fixed = values.detach()
    # log q − log q is zero as a number; its gradient is that of log q.
    return (values + (fixed - baseline(fixed)) * (log_q - log_q.detach())).mean(0)
