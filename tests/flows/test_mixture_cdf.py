"""Mixture-CDF flows are their mixture's density exactly, invertible, and calm far out in both tails."""

import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, TransformedDistribution, Uniform
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from dulcourse.errors import UsageError
from dulcourse.flows.base import Flow
from dulcourse.flows.mixture_cdf import LAWS, NORMAL, MixtureCDF, MixtureMap
from tests.flows.checks import assert_one_to_one, disturb, integral

PAIRS = list(itertools.product(["normal", "logistic"], repeat=2))  # law of the components, target
LOGISTIC_PRIOR = TransformedDistribution(Uniform(0.0, 1.0), [SigmoidTransform().inv])
KINDS = st.sampled_from(PAIRS)


def log_density(map: MixtureMap, law: str, theta, x):
    """The textbook mixture density, by torch.distributions."""
    log_weights, means, log_scales = map.mixture(theta)
    if law == "normal":
        components = Normal(means, log_scales.exp())
    else:
        components = TransformedDistribution(LOGISTIC_PRIOR, [AffineTransform(means, log_scales.exp())])
    return torch.logsumexp(log_weights + components.log_prob(x.unsqueeze(-1)), -1)


def some(components, law, target, seed, size=1.0, dtype=torch.float64):
    """A map of events of two numbers around 0 … 10 and its random parameters."""
    g = torch.Generator().manual_seed(seed)
    theta = size * torch.randn(2, 3 * components, generator=g, dtype=torch.float64)
    return MixtureMap(components, law, target, 0.0, 10.0), theta.to(dtype)


@pytest.mark.parametrize(("law", "target"), PAIRS)
@settings(max_examples=5)
@given(components=st.integers(1, 6), seed=st.integers(0, 99), size=st.sampled_from([0.0, 0.3, 1.0]))
def test_it_is_one_to_one(law, target, components, seed, size):

    map, theta = some(components, law, target, seed, size)
    flow = MixtureCDF((2,), map).double()
    flow.theta.data.copy_(theta)
    x = 10 * torch.rand(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_one_to_one(flow, x, atol=1e-6)


@pytest.mark.parametrize(("law", "target"), PAIRS)
@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_its_density_is_the_mixture_whatever_the_target(law, target, seed):
    """x → u → z → prior: the prior's part and the log-det together are the mixture's own log-density."""
    map, theta = some(4, law, target, seed)
    flow = Flow(MixtureCDF((2,), map).double(), (2,), prior=None if target == "normal" else LOGISTIC_PRIOR)
    flow.transform.theta.data.copy_(theta)
    x = 16 * torch.rand(9, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 3
    expected = log_density(map, law, theta, x).sum(1)
    torch.testing.assert_close(flow.log_prob(x).detach(), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("law", "target"), PAIRS)
def test_the_density_integrates_to_one(law, target, float64, generator):
    prior = None if target == "normal" else LOGISTIC_PRIOR
    flow = Flow(MixtureCDF((1,), MixtureMap(3, law, target, 0.0, 10.0)), (1,), prior=prior)
    assert integral(disturb(flow, generator), -200, 200, 40_000) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("law", "target"), PAIRS)
def test_one_component_of_the_target_law_is_a_straight_line(law, target, float64):
    """G⁻¹(G((x − μ)/s)) = (x − μ)/s, as far out as float64 goes."""
    if law != target:
        return
    map = MixtureMap(1, law, target, 0.0, 4.0)
    x = torch.tensor([[-1e8, -50.0, 1.0, 2.0, 3.0, 70.0, 1e8]])
    z, log_slope = map(x, torch.zeros(7, 3))
    torch.testing.assert_close(z, (x - 2) / 4)
    torch.testing.assert_close(log_slope, torch.full_like(x, -math.log(4)))


@pytest.mark.parametrize(("law", "target"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_out_everything_is_a_number(law, target, dtype):
    """|x| up to 10¹²: values, slopes, gradients and the way back; still strictly increasing."""
    map, theta = some(5, law, target, 3, dtype=dtype)
    theta = theta[:1].requires_grad_()
    far = torch.logspace(1.5, 12, 22)
    x = torch.cat([-far.flip(0), torch.linspace(-20, 30, 50), far]).to(dtype)[:, None].requires_grad_()
    z, log_slope = map(x, theta)
    assert (z.diff(dim=0) > 0).all()
    for value in (z, log_slope, *torch.autograd.grad(z.sum() + log_slope.sum(), (x, theta))):
        assert torch.isfinite(value).all()
    back, back_slope = map.inverse(z.detach(), theta)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(back_slope).all()


@pytest.mark.parametrize(("law", "target"), PAIRS)
@settings(max_examples=15)
@given(seed=st.integers(0, 999), components=st.integers(1, 8))
def test_the_inverse_reaches_the_tolerance_that_float32_has(law, target, seed, components):
    """f(f⁻¹(z)) = z to a few units in the last place of x, times the slope."""
    map, theta = some(components, law, target, seed, 1.5, torch.float32)
    z = torch.linspace(-6, 6, 50)[:, None].expand(50, 2)
    x, log_slope = map.inverse(z, theta)
    again, _ = map(x, theta)
    allowed = 1e-5 * (1 + z.abs()) + 1e-6 * (1 + x.abs()) * log_slope.exp()
    assert ((again - z).abs() <= allowed).all()


@settings(max_examples=10)
@given(gap=st.floats(10, 1e4), law=st.sampled_from(["normal", "logistic"]))
@example(gap=1e4, law="normal")
def test_components_far_apart_leave_a_gap_that_does_no_harm(gap, law):
    """Between them the slope underflows; the inverse, its slope and its gradient are finite nevertheless."""
    map = MixtureMap(2, law, "normal", -gap, gap, bound=40.0)
    theta = torch.tensor([0.0, 0.0, 0.0, 0.0, -math.log(gap), -math.log(gap)]).requires_grad_()
    z = torch.linspace(-3, 3, 13).requires_grad_()
    x, log_slope = map.inverse(z, theta)
    for value in (x, log_slope, *torch.autograd.grad(x.sum(), (z, theta))):
        assert torch.isfinite(value).all()
    assert (x.diff() >= 0).all()


@pytest.mark.parametrize(("law", "target"), PAIRS)
def test_gradients_are_those_of_finite_differences(law, target, float64):
    map, theta = some(2, law, target, 0, 0.5)
    x = torch.tensor([[0.5, 4.0]], requires_grad=True)
    theta.requires_grad_()
    assert torch.autograd.gradcheck(map, (x, theta), fast_mode=True)
    z = map(x, theta)[0].detach().requires_grad_()
    assert torch.autograd.gradcheck(map.inverse, (z, theta), fast_mode=True)


@pytest.mark.parametrize("name", LAWS)
def test_tail_quantiles_invert_the_tail(name, float64):
    law = LAWS[name]
    u = -torch.cat([torch.linspace(0, 40, 400), torch.logspace(1, 8, 50)])
    log_p = law.log_cdf(u).clamp(max=-math.log(2))
    torch.testing.assert_close(law.tail_quantile(log_p), u, atol=1e-12, rtol=1e-12)


@given(u=st.floats(-1e5, 1e5))
@example(u=0.0)
@example(u=30.0)
@example(u=-30.0)
def test_the_normal_law_has_the_right_derivatives(u):
    """(log Φ)′ = h(−u) and (log h)′ = h(u) − u ∈ (0, 1), in both precisions."""
    for dtype, rtol in ((torch.float32, 1e-4), (torch.float64, 1e-8)):
        u_ = torch.tensor(u, dtype=dtype, requires_grad=True)
        log_cdf, log_hazard = NORMAL.log_cdf(u_), NORMAL.log_hazard(u_)
        d_cdf, d_hazard = (torch.autograd.grad(y, u_)[0] for y in (log_cdf, log_hazard))
        torch.testing.assert_close(d_cdf, NORMAL.log_hazard(-u_).exp(), rtol=rtol, atol=0)
        assert (log_hazard.exp() - u_ - d_hazard).abs() <= rtol * (1 + u_.abs())


@given(u=st.floats(-37, 37))
def test_the_normal_law_is_that_of_special_functions(u):
    u = torch.tensor(u, dtype=torch.float64)
    torch.testing.assert_close(NORMAL.log_cdf(u), torch.special.log_ndtr(u), rtol=1e-12, atol=1e-300)
    expected = Normal(0.0, 1.0).log_prob(u) - torch.special.log_ndtr(-u)
    torch.testing.assert_close(NORMAL.log_hazard(u), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("law", LAWS)
def test_the_latent_of_its_own_samples_is_standard_normal(law, float64, generator):
    """Sample the mixture by its definition; z must have the normal's quantiles (Kolmogorov–Smirnov)."""
    map, theta = some(3, law, "normal", 5)
    log_weights, means, log_scales = (part[0] for part in map.mixture(theta))
    which = torch.multinomial(log_weights.exp(), 20_000, replacement=True, generator=generator)
    u = torch.rand(20_000, generator=generator)
    noise = torch.special.ndtri(u) if law == "normal" else torch.logit(u)
    x = means[which] + log_scales.exp()[which] * noise
    z = map(x, theta[0])[0].sort().values
    distance = (torch.special.ndtr(z) - (torch.arange(20_000) + 0.5) / 20_000).abs().max()
    assert distance < 1.95 / math.sqrt(20_000)  # exceeded once in a thousand


def test_conditioned_parameters_have_an_axis_for_the_batch(float64, generator):
    map = MixtureMap(3)
    x, theta = torch.randn(5, 2, generator=generator), torch.randn(5, 2, 9, generator=generator)
    z, log_slope = map(x, theta)
    alone, alone_slope = map(x[3, 1], theta[3, 1])
    torch.testing.assert_close((z[3, 1], log_slope[3, 1]), (alone, alone_slope))


def test_at_first_the_components_cover_the_range_evenly(float64):
    weights, means, log_scales = MixtureMap(4, low=0.0, high=100.0).mixture(torch.zeros(12))
    assert means.tolist() == [12.5, 37.5, 62.5, 87.5]
    torch.testing.assert_close(weights.exp(), torch.full((4,), 0.25))
    torch.testing.assert_close(log_scales.exp(), torch.full((4,), 25.0))


def test_wrong_inputs_are_refused_in_words():
    with pytest.raises(UsageError, match="components is 0, expected at least 1"):
        MixtureMap(0)
    with pytest.raises(UsageError, match="unknown law 'gaussian'"):
        MixtureMap(2, "gaussian")
    with pytest.raises(UsageError, match="unknown target 'uniform'"):
        MixtureMap(2, target="uniform")
    with pytest.raises(UsageError, match=r"low is 3\.0 and high is 3\.0"):
        MixtureMap(2, low=3.0, high=3.0)
    with pytest.raises(UsageError, match=r"events have shape \(2,\), expected \(1,\)"):
        Flow(MixtureCDF((1,), MixtureMap(2)), (2,))
