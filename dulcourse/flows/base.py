"""What every flow shares: one-to-one transforms, their composition, and a density by change of variables."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dulcourse.errors import UsageError
from dulcourse.modes import evaluating

__all__ = ["Compose", "Flow", "Transform", "per_event"]

Pair = tuple[Float[Tensor, "batch *out"], Float[Tensor, " batch"]]


class Transform(nn.Module):
    r"""z = f(x), one-to-one, with log|det ∂f/∂x|.

    A subclass supplies `forward` and `inverse`. Each returns its value and the log-determinant of *its own*
    direction, in nats, one number an event: that of `inverse` at z is minus that of `forward` at f⁻¹(z).
    """

    def forward(self, x: Float[Tensor, "batch *event"]) -> Pair:
        """z = f(x) and log|det ∂z/∂x|."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x).")

    def inverse(self, z: Float[Tensor, "batch *event"]) -> Pair:
        """x = f⁻¹(z) and log|det ∂x/∂z|."""
        raise NotImplementedError(f"{type(self).__name__} does not define inverse(z).")

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of z for an x of this shape; the same, unless a subclass says otherwise.

        Raises UsageError when the transform cannot take such events.
        """
        return shape


class Compose(Transform):
    """f = f_k ∘ … ∘ f_1 of transforms given in the order in which they are applied to x; log-dets add up."""

    def __init__(self, transforms: Iterable[Transform]):
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Float[Tensor, "batch *event"]) -> Pair:
        """z = f_k(… f_1(x))."""
        log_det = x.new_zeros(len(x))
        for transform in self.transforms:
            x, change = transform(x)
            log_det = log_det + change
        return x, log_det

    def inverse(self, z: Float[Tensor, "batch *event"]) -> Pair:
        """x = f_1⁻¹(… f_k⁻¹(z))."""
        log_det = z.new_zeros(len(z))
        for transform in reversed(self.transforms):
            z, change = transform.inverse(z)
            log_det = log_det + change
        return z, log_det

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after the last transform."""
        for transform in self.transforms:
            shape = transform.out_shape(shape)
        return shape


def per_event(log_slopes: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
    """Σ over everything but the batch: the log-det of a triangular Jacobian from its diagonal."""
    return log_slopes.unsqueeze(-1).flatten(1).sum(1)


class Flow(nn.Module):
    r"""log p(x) = log p_z(f(x)) + log|det ∂f/∂x|, in nats.

    Arguments:
        transform: f, from events x of `shape` to z of the same number D of elements.
        shape: of one event: (C, H, W) of images, (2,) of points of the plane.
        levels: L when the data are integers 0 … L − 1 that get noise u ~ U[0, 1): x lies in [0, L), and what
            brings it into a convenient range is a layer of f. None: x is continuous.
        prior: p_z over z `[batch, D]`, any of `torch.distributions` that is over events `[D]`, or over
            numbers (then the D are independent). N(0, I) when not given.
    """

    def __init__(
        self,
        transform: Transform,
        shape: tuple[int, ...],
        levels: int | None = None,
        prior: Distribution | None = None,
    ):
        super().__init__()
        self.transform, self.shape, self.levels, self.prior = transform, tuple(shape), levels, prior
        self.dims = math.prod(shape)
        self.z_shape = tuple(transform.out_shape(self.shape))

    def forward(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch dims"], Float[Tensor, " batch"]]:
        """z = f(x), flattened, and log|det ∂z/∂x|."""
        self.check(x)
        z, log_det = self.transform(x)
        return z.flatten(1), log_det

    def inverse(
        self, z: Float[Tensor, "batch dims"]
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " batch"]]:
        """x = f⁻¹(z) and log|det ∂x/∂z|."""
        self.check_z(z)
        return self.transform.inverse(z.unflatten(1, self.z_shape))

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """log p(x) in nats: a density, of continuous x."""
        z, log_det = self(x)
        return self.prior_log_prob(z) + log_det

    def prior_log_prob(self, z: Float[Tensor, "batch dims"]) -> Float[Tensor, " batch"]:
        """log p_z(z) in nats."""
        if self.prior is None:
            return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        log_prob = self.prior.log_prob(z)
        return log_prob if log_prob.ndim == 1 else log_prob.sum(1)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "batch *event"]:
        """x = f⁻¹(z), z ~ p_z: n events in data units, still continuous."""
        with torch.no_grad(), evaluating(self):
            return self.inverse(self.prior_sample(n, generator))[0]

    def prior_sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dims"]:
        """n draws z ~ p_z, of the type and on the device of the flow's parameters."""
        like = next(
            (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point()), torch.empty(0)
        )
        if self.prior is None:
            z = torch.randn(n, self.dims, generator=generator, device=generator.device, dtype=like.dtype)
            return z.to(like.device)
        # Distributions draw from torch's own generator: give them one in a state that ours decides.
        with torch.random.fork_rng(devices=[]):
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
            torch.default_generator.manual_seed(seed)
            z = self.prior.sample((n,) if self.prior.event_shape else (n, self.dims))
        return z.to(like)

    def check(self, x: Tensor) -> None:
        """Refuse events of another shape, and integers that nobody has dequantised."""
        if tuple(x.shape[1:]) != self.shape or x.ndim == 0:
            raise UsageError(
                f"x has shape {list(x.shape)}, expected [batch, {', '.join(map(str, self.shape))}]."
            )
        if not x.is_floating_point():
            raise UsageError(
                f"x has dtype {x.dtype}, expected real numbers: a density of integers is meaningless; add "
                "noise u in [0, 1) first (dulcourse.flows.dequantisation)."
            )

    def check_z(self, z: Tensor) -> None:
        """Refuse anything but [batch, D]."""
        if z.ndim != 2 or z.shape[1] != self.dims:
            raise UsageError(
                f"z has shape {list(z.shape)}, expected [batch, {self.dims}]: "
                "forward and prior_sample give z in that form."
            )
