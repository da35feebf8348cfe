"""Tools to hold a transform against its definition: its Jacobian by autograd, and sums over grids."""

import torch

from dulcourse.flows.base import Flow, Transform


def jacobian(function, x: torch.Tensor) -> torch.Tensor:
    """∂f(x)_i/∂x_j, [batch, D, D]: events do not mix, so those of the sum over the batch will do."""

    def summed(flat):
        return function(flat.unflatten(1, x.shape[1:]))[0].flatten(1).sum(0)

    return torch.autograd.functional.jacobian(summed, x.flatten(1)).movedim(1, 0)


def assert_one_to_one(transform: Transform, x: torch.Tensor, atol: float = 1e-8) -> None:
    """Round trips both ways, and log-dets that are those of autograd's Jacobians, in both directions."""
    z, log_det = transform(x)
    assert tuple(z.shape[1:]) == tuple(transform.out_shape(tuple(x.shape[1:])))
    assert log_det.shape == (len(x),)
    back, back_log_det = transform.inverse(z)
    torch.testing.assert_close(back, x, atol=atol, rtol=atol)
    torch.testing.assert_close(back_log_det, -log_det, atol=atol, rtol=atol)
    torch.testing.assert_close(transform(back)[0], z, atol=atol, rtol=atol)
    for claimed, function, point in ((log_det, transform, x), (back_log_det, transform.inverse, z)):
        true = torch.linalg.slogdet(jacobian(function, point.detach())).logabsdet
        torch.testing.assert_close(claimed, true, atol=atol, rtol=atol)


def integral(flow: Flow, low: float, high: float, points: int) -> float:
    """Σ p(x) Δ over a grid of cell centres on [low, high]^D."""
    axis = low + (torch.arange(points) + 0.5) * (high - low) / points
    grid = torch.cartesian_prod(*[axis] * flow.dims).reshape(-1, *flow.shape)
    with torch.no_grad():
        return (flow.log_prob(grid).exp().sum() * ((high - low) / points) ** flow.dims).item()


def disturb(module: torch.nn.Module, generator: torch.Generator, size: float = 0.3) -> torch.nn.Module:
    """Add noise to every parameter, so that nothing stays at the zeros it starts with."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return module
