"""Noise turns a density into probabilities of integers: the bound, and what is lost without it."""

import math

import pytest
import torch
from torch.distributions import Normal, Uniform

from dulcourse.errors import UsageError
from dulcourse.flows.base import Compose, Flow
from dulcourse.flows.dequantisation import (
    UniformDequantisation,
    dequantise,
    mean_negative_elbo,
    negative_elbo,
)
from dulcourse.flows.elementwise import Scaling, to_reals
from dulcourse.flows.mixture_cdf import MixtureCDF, MixtureMap
from dulcourse.likelihood import bits_per_dim


def gaussian(mean: float, deviation: float) -> Flow:
    """x ~ N(mean, deviation²)."""
    return Flow(Scaling(1 / deviation, -mean / deviation), (1,), levels=10)


@pytest.mark.parametrize(("mean", "deviation"), [(4.3, 2.0), (4.3, 0.5), (5.0, 0.2)])
def test_the_mean_log_density_is_below_the_log_probability(mean, deviation, float64):
    """By quadrature over u: E_u log p(x + u) ≤ log ∫ p(x + u) du = log P(x), and P is a distribution."""
    flow, normal = gaussian(mean, deviation), Normal(mean, deviation)
    u = (torch.arange(4000) + 0.5) / 4000
    with torch.no_grad():
        log_p = flow.log_prob((torch.arange(-40, 60)[:, None] + u).reshape(-1, 1)).reshape(100, 4000)
    bound, exact = log_p.mean(1), torch.logsumexp(log_p, 1) - math.log(4000)
    assert (bound <= exact + 1e-12).all()
    assert (bound[35:55] < exact[35:55]).all()
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-6)
    edges = normal.cdf(torch.arange(0.0, 11))
    torch.testing.assert_close(exact[40:50].exp(), edges.diff(), atol=1e-6, rtol=0)


def test_the_loss_is_that_mean(float64, generator):
    flow, x = gaussian(4.3, 2.0), torch.full((20_000, 1), 6)
    u = (torch.arange(1000) + 0.5) / 1000
    expected = -flow.log_prob(6 + u[:, None]).mean().item()
    losses = negative_elbo(flow, x, None, generator)
    assert losses.mean().item() == pytest.approx(expected, abs=4 * losses.std().item() / math.sqrt(20_000))


def test_without_noise_the_density_has_no_limit(float64):
    """Ever narrower spikes on the integers: log p(x) → ∞, while the bound with noise gets worse."""
    x, spiky = torch.arange(4)[:, None], MixtureMap(4, low=-0.5, high=3.5)
    flow = Flow(MixtureCDF((1,), spiky), (1,), levels=4)
    naive, honest = [], []
    for log_scale in (-2.0, -4.0, -8.0):
        flow.transform.theta.data[:, 8:] = log_scale
        naive.append(flow.log_prob(x.double()).mean().item())
        honest.append(-mean_negative_elbo(50)(flow, x, None, torch.Generator().manual_seed(0)).mean().item())
    assert naive[0] < naive[1] < naive[2]
    assert naive[2] > 2  # log-densities far above log ¼, of four equally likely numbers
    assert max(honest) <= math.log(1 / 4)
    assert honest[0] > honest[1] > honest[2]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_flow_costs_the_logarithm_of_the_levels(levels, float64, generator):
    flow = Flow(Scaling(1 / levels), (1, 2, 2), levels=levels, prior=Uniform(0.0, 1.0))
    x = torch.randint(levels, (50, 1, 2, 2), generator=generator)
    bits = bits_per_dim(-negative_elbo(flow, x, None, generator), 4)
    torch.testing.assert_close(bits, torch.full((50,), math.log2(levels)))


def test_scaling_the_data_does_not_change_the_figure(float64, generator):
    """The same density of the same image, whether the levels are divided first or not."""
    x = dequantise(torch.randint(17, (5, 1, 2, 2), generator=generator), generator)
    plain = Flow(MixtureCDF((1, 2, 2), MixtureMap(3, low=0.0, high=17.0)), (1, 2, 2))
    scaled = Compose([Scaling(1 / 17), MixtureCDF((1, 2, 2), MixtureMap(3, low=0.0, high=1.0))])
    torch.testing.assert_close(plain.log_prob(x), Flow(scaled, (1, 2, 2)).log_prob(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 256, 2**20])
def test_noise_stays_inside_the_cell(levels, dtype, generator):
    """Also where single precision would round x + u up to the next integer."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    x = torch.randint(levels, (200_000, 1), generator=generator)
    noisy = dequantise(x, generator)
    torch.set_default_dtype(before)
    assert torch.equal(noisy.floor().long(), x)


def test_as_a_transform_it_goes_there_and_back(generator):
    f = UniformDequantisation(5, generator)
    x = torch.randint(5, (100, 1, 2, 2), generator=generator)
    z, log_det = f(x)
    assert z.is_floating_point()
    assert (z != x).any()
    back, back_log_det = f.inverse(z)
    assert torch.equal(back, x)
    assert not log_det.any()
    assert not back_log_det.any()
    assert f.out_shape((1, 2, 2)) == (1, 2, 2)


def test_what_lies_outside_comes_back_to_the_nearest_level(generator):
    back, _ = UniformDequantisation(5, generator).inverse(torch.tensor([[-3.7, -0.1, 0.0, 4.999, 5.0, 81.0]]))
    assert back.tolist() == [[0, 0, 0, 4, 4, 4]]


def test_the_noise_is_uniform_and_fresh(generator):
    f = UniformDequantisation(3, generator)
    x = torch.ones(20_000, 1, dtype=torch.int64)
    (first, _), (second, _) = f(x), f(x)
    assert not torch.equal(first, second)
    u = (first - x).sort(0).values.flatten()
    assert (u - (torch.arange(20_000) + 0.5) / 20_000).abs().max() < 1.95 / math.sqrt(20_000)


def test_several_draws_have_the_same_mean_and_less_noise(generator):
    flow = Flow(to_reals(4), (1, 1, 1), levels=4)
    x = torch.zeros(4000, 1, 1, 1, dtype=torch.int64)
    one, many = negative_elbo(flow, x, None, generator), mean_negative_elbo(16)(flow, x, None, generator)
    assert many.mean().item() == pytest.approx(one.mean().item(), abs=4 * one.std().item() / math.sqrt(4000))
    assert many.std() < one.std() / 3


def test_draws_are_at_least_one():
    with pytest.raises(UsageError, match="draws is 0, expected at least 1"):
        mean_negative_elbo(0)
