"""Elementwise flows: z_i = f(x_i) with one fixed f, log|det| = Σ_i log|f′(x_i)|.

Allowed is what is strictly monotone *and* onto the support of the prior that follows. Then ∫ p(x) dx = 1;
otherwise it is P_z(image of f): a sigmoid before N(0, 1) integrates to Φ(1) − Φ(0) = 0.341…, and a ReLU,
which is not strictly monotone, has no inverse at all.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dulcourse.errors import UsageError
from dulcourse.flows.base import Compose, Transform, per_event

__all__ = ["Elementwise", "LeakyReLU", "Logit", "Scaling", "Sigmoid", "to_reals"]

Event = Float[Tensor, "batch *event"]
LogDet = Float[Tensor, " batch"]


class Elementwise(Transform):
    """z_i = f(x_i), log|det ∂z/∂x| = Σ_i log|f′(x_i)|.

    A subclass supplies `value`, `log_slope` and `inverse_value`, and says in `image` onto which interval f
    maps its domain: the support that the prior must have.
    """

    image: tuple[float, float] = (-math.inf, math.inf)

    def value(self, x: Event) -> Event:
        """f(x)."""
        raise NotImplementedError(f"{type(self).__name__} does not define value(x).")

    def log_slope(self, x: Event) -> Event:
        """log|f′(x)|."""
        raise NotImplementedError(f"{type(self).__name__} does not define log_slope(x).")

    def inverse_value(self, z: Event) -> Event:
        """f⁻¹(z)."""
        raise NotImplementedError(f"{type(self).__name__} does not define inverse_value(z).")

    def forward(self, x: Event) -> tuple[Event, LogDet]:
        """f(x) and Σ_i log|f′(x_i)|."""
        return self.value(x), per_event(self.log_slope(x))

    def inverse(self, z: Event) -> tuple[Event, LogDet]:
        """f⁻¹(z) and −Σ_i log|f′(f⁻¹(z_i))|."""
        x = self.inverse_value(z)
        return x, -per_event(self.log_slope(x))


class Scaling(Elementwise):
    """z = a·x + b, log f′ = log|a|, for constants a ≠ 0 and b.

    Dividing dequantised images by L is `Scaling(1 / L)`: its log-det −D·log L costs log₂ L bits/dim, which
    the higher density on [0, 1) pays back. Who drops it reports figures that are log₂ L too low.
    """

    def __init__(self, factor: float, shift: float = 0.0):
        super().__init__()
        if factor == 0 or not math.isfinite(factor):
            raise UsageError(f"factor is {factor}, expected a finite number other than 0.")
        self.factor, self.shift = factor, shift

    def value(self, x: Event) -> Event:
        """a·x + b."""
        return x * self.factor + self.shift

    def log_slope(self, x: Event) -> Event:
        """log|a|, everywhere."""
        return torch.full_like(x, math.log(abs(self.factor)))

    def inverse_value(self, z: Event) -> Event:
        """(z − b)/a."""
        return (z - self.shift) / self.factor


class LeakyReLU(Elementwise):
    """z = x for x ≥ 0 and a·x below, with a slope a > 0 (a = 0 would be the ReLU)."""

    def __init__(self, slope: float = 0.1):
        super().__init__()
        if not 0 < slope < math.inf:
            raise UsageError(
                f"slope is {slope}, expected a number above 0: with 0 (a ReLU) all x ≤ 0 share one z."
            )
        self.slope = slope

    def value(self, x: Event) -> Event:
        """max(x, 0) + a·min(x, 0)."""
        return torch.where(x < 0, self.slope * x, x)

    def log_slope(self, x: Event) -> Event:
        """log a for x < 0, else 0."""
        return torch.where(x < 0, math.log(self.slope), torch.zeros_like(x))

    def inverse_value(self, z: Event) -> Event:
        """max(z, 0) + min(z, 0)/a."""
        return torch.where(z < 0, z / self.slope, z)


class Sigmoid(Elementwise):
    """z = σ(x) = 1/(1 + e⁻ˣ), log f′ = log σ(x) + log σ(−x); onto (0, 1), so the prior must live there."""

    image = (0.0, 1.0)

    def value(self, x: Event) -> Event:
        """σ(x)."""
        return torch.sigmoid(x)

    def log_slope(self, x: Event) -> Event:
        """log σ(x) + log σ(−x)."""
        return F.logsigmoid(x) + F.logsigmoid(-x)

    def inverse_value(self, z: Event) -> Event:
        """log z − log(1 − z)."""
        return torch.logit(z)


class Logit(Elementwise):
    """z = logit(m + (1 − 2m)x), from an interval that holds [0, 1] onto the real numbers.

    With margin m = 0 it is the inverse of the sigmoid, and infinite at 0 and 1. With m > 0 (RealNVP,
    Dinh et al. 2017, section 4.1, takes 0.05) the domain reaches m/(1 − 2m) beyond both ends, where the
    flow's mass is lost to the data, so m is small.
    """

    def __init__(self, margin: float = 0.0):
        super().__init__()
        if not 0 <= margin < 0.5:
            raise UsageError(f"margin is {margin}, expected a number from 0 to below 0.5.")
        self.margin = margin

    def value(self, x: Event) -> Event:
        """logit(m + (1 − 2m)x)."""
        return torch.logit(self._inner(x))

    def log_slope(self, x: Event) -> Event:
        """log(1 − 2m) − log p − log(1 − p) at p = m + (1 − 2m)x."""
        p = self._inner(x)
        return math.log1p(-2 * self.margin) - torch.log(p) - torch.log1p(-p)

    def inverse_value(self, z: Event) -> Event:
        """(σ(z) − m)/(1 − 2m)."""
        return (torch.sigmoid(z) - self.margin) / (1 - 2 * self.margin)

    def inverse(self, z: Event) -> tuple[Event, LogDet]:
        """The log-det from z itself: σ(z) rounds to 1 long before its slope is 0."""
        log_slope = math.log1p(-2 * self.margin) - F.logsigmoid(z) - F.logsigmoid(-z)
        return self.inverse_value(z), -per_event(log_slope)

    def _inner(self, x: Event) -> Event:
        return self.margin + (1 - 2 * self.margin) * x


def to_reals(levels: int, margin: float = 0.01) -> Compose:
    """Dequantised levels in [0, L) onto the real numbers: x/L, then logit with a margin."""
    return Compose([Scaling(1 / levels), Logit(margin)])
