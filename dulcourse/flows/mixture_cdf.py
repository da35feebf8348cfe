"""Mixture-CDF flows: x → u = F(x) → z = G⁻¹(u), exact in both tails.

Any density on the line is reached by some F, so this one idea is universal in one dimension. Everything is
computed from logarithms of the *smaller* tail, so that neither F nor 1 − F ever rounds to 0 or 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dulcourse.errors import UsageError, unknown
from dulcourse.flows.base import Transform, per_event
from dulcourse.flows.monotone import Monotone, positive_bound

__all__ = ["LOGISTIC", "NORMAL", "Law", "MixtureCDF", "MixtureMap"]

Event = Float[Tensor, "batch *event"]
LogDet = Float[Tensor, " batch"]
Numbers = Float[Tensor, "*event"]
Parameters = Float[Tensor, "*any numbers"]
Components = Float[Tensor, "*any components"]


@dataclass(frozen=True)
class Law:
    """A symmetric distribution on the line, in the form in which its tails can be computed.

    log_cdf: log F(u), accurate for u far below 0; by symmetry log(1 − F(u)) = log F(−u).
    log_hazard: log of density/(1 − F), accurate for u far above 0.
    tail_quantile: the u ≤ 0 with log F(u) = log_p, for log_p ≤ log ½.
    """

    log_cdf: Callable[[Tensor], Tensor]
    log_hazard: Callable[[Tensor], Tensor]
    tail_quantile: Callable[[Tensor], Tensor]


def _normal_log_cdf(u: Tensor) -> Tensor:
    """log Φ(u): log φ(u) − log h(−u) below 0, log(1 − ½ erfc(u/√2)) above. (torch.special.log_ndtr has the
    value right but not the derivative: in float32 it is 6 times too large at u = −10⁴.)
    """
    left, right = u.clamp(max=0), u.clamp(min=0)
    return torch.where(u < 0, _log_phi(left) - _log_hazard_above(-left), _log_cdf_above(right))


def _normal_log_hazard(u: Tensor) -> Tensor:
    """log h(u) = log φ(u) − log Φ(−u)."""
    left, right = u.clamp(max=0), u.clamp(min=0)
    return torch.where(u < 0, _log_phi(left) - _log_cdf_above(-left), _log_hazard_above(right))


def _log_phi(u: Tensor) -> Tensor:
    return -0.5 * u.square() - 0.5 * math.log(2 * math.pi)


def _log_cdf_above(u: Tensor) -> Tensor:
    """log Φ(u) for u ≥ 0."""
    return torch.log1p(-0.5 * torch.special.erfc(u / math.sqrt(2)))


def _log_hazard_above(u: Tensor) -> Tensor:
    """log h(u) for u ≥ 0, in which nothing grows like u²: √(2/π)/erfcx(u/√2), from 30 on Laplace's continued
    fraction h = u + 1/(u + 2/(u + 3/(…))), whose derivative does not cancel.
    """
    near, far = u.clamp(max=30), u.clamp(min=30)
    fraction = far
    for k in range(7, 0, -1):
        fraction = far + k / fraction
    near = 0.5 * math.log(2 / math.pi) - torch.special.erfcx(near / math.sqrt(2)).log()
    return torch.where(u < 30, near, fraction.log())


def _normal_tail_quantile(log_p: Tensor) -> Tensor:
    """Newton's method on log Φ(u) = log_p from the left, u₀ = −√(−2 log 2p).

    log Φ is concave and Φ(u) ≤ ½ exp(−u²/2) for u ≤ 0, so the steps never pass the solution. Only the last
    one is differentiated: that gives the derivative of the solution.
    """
    with torch.no_grad():
        u = -(-2 * (log_p + math.log(2))).clamp(min=0).sqrt()
        for _ in range(5):
            u = u + (log_p - _normal_log_cdf(u)) * (-_normal_log_hazard(-u)).exp()
        slope = (-_normal_log_hazard(-u)).exp()
    return u + (log_p - _normal_log_cdf(u)) * slope


def _logistic_tail_quantile(log_p: Tensor) -> Tensor:
    """log p − log(1 − p)."""
    return log_p - torch.log1p(-log_p.exp())


NORMAL = Law(_normal_log_cdf, _normal_log_hazard, _normal_tail_quantile)
LOGISTIC = Law(F.logsigmoid, F.logsigmoid, _logistic_tail_quantile)
LAWS = {"normal": NORMAL, "logistic": LOGISTIC}


class MixtureMap(Monotone):
    r"""z = G⁻¹(Σ_k π_k F((x − μ_k)/s_k)), log ∂z/∂x = log Σ_k π_k f_k(x) − log g(z).

    Strictly increasing and onto the real numbers. In the tail on x's side, with 1 − F_k = tail_k and hazards
    h = density/tail, the slope is (Σ_k r_k h_k/s_k)/h_G(z), r = softmax(log π_k + log tail_k): no two large
    numbers are subtracted, however far out x lies.

    Arguments:
        components: K; θ holds K logits of π, K means and K log-scales: 3K numbers for each x.
        law: "normal" or "logistic", the distribution F of each component.
        target: "normal" or "logistic", the distribution G that z has if x follows the mixture.
        low, high: where x lives. θ = 0 puts K equal components of the size of their distance in there.
        bound: a component's scale stays within e^±bound of that size, so that no parameter can overflow.
    """

    def __init__(
        self,
        components: int,
        law: str = "normal",
        target: str = "normal",
        low: float = -3.0,
        high: float = 3.0,
        bound: float = 6.0,
    ):
        super().__init__()
        _check(components, law, target, low, high)
        self.numbers, self.law, self.target = 3 * components, LAWS[law], LAWS[target]
        self.width, self.bound = (high - low) / components, positive_bound(bound)
        self.centres = [low + (k + 0.5) * self.width for k in range(components)]

    def mixture(self, parameters: Parameters) -> tuple[Components, Components, Components]:
        """log π, μ and log s, from the numbers θ: the centres and their distance are the units."""
        logits, means, log_scales = parameters.chunk(3, -1)
        means = means * self.width + means.new_tensor(self.centres)
        log_scales = self.bound * torch.tanh(log_scales / self.bound) + math.log(self.width)
        return F.log_softmax(logits, -1), means, log_scales

    def log_cdf(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """log u and log(1 − u) of u = Σ_k π_k F((x − μ_k)/s_k), each accurate where it is far below 0."""
        log_weights, means, log_scales = self.mixture(parameters)
        u = (x.unsqueeze(-1) - means) * (-log_scales).exp()
        below, above = (torch.logsumexp(log_weights + self.law.log_cdf(v), -1) for v in (u, -u))
        return below, above

    def forward(self, x: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """z and log ∂z/∂x."""
        below, above = self.log_cdf(x, parameters)
        side = torch.where(above < below, 1.0, -1.0).to(x)  # of the median, on which x lies
        outward = -self.target.tail_quantile(torch.minimum(below, above).clamp(max=-math.log(2)))  # |z|
        log_slope = self._log_hazard(x, side, parameters) - self.target.log_hazard(outward)
        return side * outward, log_slope

    def inverse(self, z: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """x to the last bits that its type can tell apart, and log ∂z/∂x there; differentiable in z and θ."""
        with torch.no_grad():
            root = self._search(z, parameters)
            log_slope = self.forward(root, parameters)[1]
        # The value is the root; its derivative that of a Newton step. e⁸⁰ is near the largest float32.
        gap = z - self.forward(root, parameters)[0]
        x = root + (gap - gap.detach()) * (-log_slope).clamp(max=80).exp()
        return x, self.forward(x, parameters)[1]

    def _log_hazard(self, x: Numbers, side: Numbers, parameters: Parameters) -> Numbers:
        """log of the mixture's density over its tail on this side of the median."""
        log_weights, means, log_scales = self.mixture(parameters)
        outward = side.unsqueeze(-1) * (x.unsqueeze(-1) - means) * (-log_scales).exp()
        log_share = F.log_softmax(log_weights + self.law.log_cdf(-outward), -1)
        return torch.logsumexp(log_share + self.law.log_hazard(outward) - log_scales, -1)

    def _search(self, z: Numbers, parameters: Parameters) -> Numbers:
        """Newton's method inside a bracket that shrinks; every third step halves it.

        It compares log u − log(1 − u), which grows with x too and takes no quantile of the target.
        """
        wanted = self.target.log_cdf(z) - self.target.log_cdf(-z)
        low, high = self._bracket(z, parameters)
        x, tolerance = (low + high) / 2, 4 * torch.finfo(z.dtype).eps
        for step in range(200):
            below, above = self.log_cdf(x, parameters)
            value, side = below - above, torch.where(above < below, 1.0, -1.0).to(x)
            # The density over u (1 − u): the hazard of the smaller of the two over the greater.
            log_slope = self._log_hazard(x, side, parameters) - torch.maximum(below, above)
            low, high = torch.where(value < wanted, x, low), torch.where(value < wanted, high, x)
            newton = x + (wanted - value) * (-log_slope).exp()
            done = (value - wanted).abs() <= tolerance * (1 + wanted.abs())
            for distance in (high - low, (newton - x).abs()):
                done |= distance <= tolerance * (1 + x.abs())
            if done.all():
                break
            good = (newton >= low) & (newton <= high) & (done | (step % 3 < 2))
            x = torch.where(good, newton, torch.where(done, x, (low + high) / 2))
        return x

    def _bracket(self, z: Numbers, parameters: Parameters) -> tuple[Numbers, Numbers]:
        """A mixture's quantile lies between the least and the greatest of its components' quantiles."""
        _, means, log_scales = self.mixture(parameters)
        u = -z.sign() * self.law.tail_quantile(self.target.log_cdf(-z.abs()).clamp(max=-math.log(2)))
        quantiles = means + log_scales.exp() * u.unsqueeze(-1)
        low, high = quantiles.amin(-1), quantiles.amax(-1)
        slack = 1e-3 * (1 + torch.maximum(low.abs(), high.abs()))  # for rounding
        return low - slack, high + slack


class MixtureCDF(Transform):
    """`MixtureMap` with parameters of its own for each element of the event: the elements are independent.

    Arguments:
        shape: of an event.
        monotone: the mixture, which says how many components it has and where they start.
    """

    def __init__(self, shape: tuple[int, ...], monotone: MixtureMap):
        super().__init__()
        self.monotone, self.theta = monotone, nn.Parameter(torch.zeros(*shape, monotone.numbers))

    def forward(self, x: Event) -> tuple[Event, LogDet]:
        """z_i = f(x_i; θ_i)."""
        z, log_slope = self.monotone(x, self.theta)
        return z, per_event(log_slope)

    def inverse(self, z: Event) -> tuple[Event, LogDet]:
        """x_i = f⁻¹(z_i; θ_i)."""
        x, log_slope = self.monotone.inverse(z, self.theta)
        return x, -per_event(log_slope)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same, if it is the shape of the parameters."""
        if tuple(shape) != tuple(self.theta.shape[:-1]):
            raise UsageError(f"events have shape {tuple(shape)}, expected {tuple(self.theta.shape[:-1])}.")
        return shape


def _check(components: int, law: str, target: str, low: float, high: float) -> None:
    if components < 1:
        raise UsageError(f"components is {components}, expected at least 1.")
    for kind, name in (("law", law), ("target", target)):
        if name not in LAWS:
            raise unknown(kind, name, list(LAWS))
    if not low < high:
        raise UsageError(f"low is {low} and high is {high}, expected low below high.")
