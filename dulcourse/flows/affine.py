"""Affine flows: a full matrix that stays invertible, and a diagonal one."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dulcourse.errors import UsageError
from dulcourse.flows.base import Transform

__all__ = ["Affine", "Diagonal"]

Event = Float[Tensor, "batch *event"]
LogDet = Float[Tensor, " batch"]


class Affine(Transform):
    r"""z = A⁻¹(x − b), log|det ∂z/∂x| = −log|det A|.

    A = (I + N)·(diag(eᵈ) + M), with N strictly lower and M strictly upper triangular: det A = exp Σ d, so
    A is invertible whatever an optimiser does to the numbers, and each direction costs D². With N(0, I) as
    prior, x ~ N(b, AAᵀ).

    Arguments:
        dims: D, the number of elements of an event, of whatever shape. A starts as I, b as 0.
    """

    def __init__(self, dims: int):
        super().__init__()
        if dims < 1:
            raise UsageError(f"dims is {dims}, expected at least 1.")
        self.dims = dims
        self.lower, self.upper = (nn.Parameter(torch.zeros(dims, dims)) for _ in range(2))
        self.log_diagonal, self.b = (nn.Parameter(torch.zeros(dims)) for _ in range(2))

    @classmethod
    def fit(cls, x: Event) -> "Affine":
        """Maximum likelihood under N(0, I): b the mean of x, A the Cholesky factor of its covariance."""
        flat = x.flatten(1)
        flow, factor = (
            cls(flat.shape[1]).to(flat),
            torch.linalg.cholesky(torch.atleast_2d(flat.T.cov(correction=0))),
        )
        with torch.no_grad():
            flow.b.copy_(flat.mean(0))
            flow.log_diagonal.copy_(factor.diagonal().log())
            flow.lower.copy_(factor / factor.diagonal())
        return flow

    @property
    def matrix(self) -> Float[Tensor, "dims dims"]:
        """A."""
        unit, upper = self._factors()
        return unit @ upper

    def forward(self, x: Event) -> tuple[Event, LogDet]:
        """A⁻¹(x − b), by substitution in the two triangular factors."""
        unit, upper = self._factors()
        columns = (x.flatten(1) - self.b).T
        columns = torch.linalg.solve_triangular(unit, columns, upper=False, unitriangular=True)
        z = torch.linalg.solve_triangular(upper, columns, upper=True).T
        return z.reshape(x.shape), -self.log_diagonal.sum().expand(len(x))

    def inverse(self, z: Event) -> tuple[Event, LogDet]:
        """Az + b."""
        x = z.flatten(1) @ self.matrix.T + self.b
        return x.reshape(z.shape), self.log_diagonal.sum().expand(len(z))

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same, if it has D elements."""
        if math.prod(shape) != self.dims:
            raise UsageError(
                f"events of shape {shape} have {math.prod(shape)} elements, expected {self.dims}."
            )
        return shape

    def _factors(self) -> tuple[Float[Tensor, "dims dims"], Float[Tensor, "dims dims"]]:
        """I + N and diag(eᵈ) + M."""
        unit = self.lower.tril(-1) + torch.eye(self.dims).to(self.lower)
        return unit, self.upper.triu(1) + self.log_diagonal.exp().diag()


class Diagonal(Transform):
    """z = (x − b)·exp(s), log|det ∂z/∂x| = Σ_i s_i, with one learned b and s for each element.

    Arguments:
        shape: of an event; both start at 0. `standardise(x)` sets them from data, once and by your own hand:
            nothing happens behind your back in the first batch or after loading.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.b, self.log_scale = (nn.Parameter(torch.zeros(shape)) for _ in range(2))

    @torch.no_grad()
    def standardise(self, x: Event, least: float = 1e-3) -> None:
        """Choose b and s so that z has mean 0 and standard deviation 1 on x (x's being at least `least`)."""
        self.b.copy_(x.mean(0))
        self.log_scale.copy_(-x.std(0, correction=0).clamp(min=least).log())

    def forward(self, x: Event) -> tuple[Event, LogDet]:
        """(x − b)·exp(s)."""
        return (x - self.b) * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, z: Event) -> tuple[Event, LogDet]:
        """z·exp(−s) + b."""
        return z * (-self.log_scale).exp() + self.b, -self.log_scale.sum().expand(len(z))

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The same, if it is the shape of the parameters."""
        if tuple(shape) != tuple(self.b.shape):
            raise UsageError(f"events have shape {tuple(shape)}, expected {tuple(self.b.shape)}.")
        return shape
