"""Elementwise maps: one-to-one, and densities exactly where they are onto the prior's support."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Beta, Uniform

from dulcourse.errors import UsageError
from dulcourse.flows.base import Compose, Flow
from dulcourse.flows.elementwise import Elementwise, LeakyReLU, Logit, Scaling, Sigmoid, to_reals
from dulcourse.likelihood import bits_per_dim
from tests.flows.checks import assert_one_to_one, integral

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
REAL = {"scaling": Scaling(-3.0, 0.7), "leaky": LeakyReLU(0.2), "sigmoid": Sigmoid()}
UNIT = {"logit": Logit(), "logit with a margin": Logit(0.05), "levels": to_reals(1)}


@given(shape=SHAPES, seed=st.integers(0, 99))
@pytest.mark.parametrize("name", REAL)
def test_maps_of_real_numbers_are_one_to_one(name, shape, seed):

    x = 3 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_one_to_one(REAL[name], x)


@given(shape=SHAPES, seed=st.integers(0, 99))
@pytest.mark.parametrize("name", UNIT)
def test_maps_of_the_unit_interval_are_one_to_one(name, shape, seed):

    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_one_to_one(UNIT[name], 1e-6 + (1 - 2e-6) * x)


@given(
    f=st.sampled_from([*REAL.values(), Logit(0.3)]), x=st.floats(-0.5, 1.2).filter(lambda x: abs(x) > 1e-4)
)
def test_the_slope_is_that_of_finite_differences(f, x):
    x, step = torch.tensor([[x]], dtype=torch.float64), 1e-6
    slope = ((f.value(x + step) - f.value(x - step)) / (2 * step)).abs()
    torch.testing.assert_close(f.log_slope(x), slope.log(), atol=1e-6, rtol=1e-6)


def test_a_sigmoid_before_the_standard_normal_integrates_to_a_third(float64):
    """z = σ(x) covers (0, 1) only: ∫ p(x) dx = Φ(1) − Φ(0) = 0.3413…"""
    mass = integral(Flow(Sigmoid(), (1,)), -40, 40, 8000)
    phi = math.erf(1 / math.sqrt(2)) / 2
    assert mass == pytest.approx(phi, abs=1e-6)
    assert mass == pytest.approx(0.3413, abs=1e-4)


@pytest.mark.parametrize("prior", [Uniform(0.0, 1.0), Beta(2.0, 3.0)])
def test_a_sigmoid_before_a_prior_on_the_unit_interval_integrates_to_one(prior, float64):
    assert integral(Flow(Sigmoid(), (1,), prior=prior), -30, 30, 6000) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("f", [Scaling(0.5), LeakyReLU(), Compose([LeakyReLU(3.0), Scaling(-2.0, 1.0)])])
def test_maps_onto_the_real_numbers_keep_all_the_mass(f, float64):
    assert integral(Flow(f, (1,)), -120, 120, 48_000) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.2])
def test_the_logit_has_a_little_mass_beyond_the_data(margin, float64):
    """Its domain is wider than [0, 1] by m/(1 − 2m) on both sides: all the mass there, some of it outside."""
    beyond, flow = margin / (1 - 2 * margin), Flow(Logit(margin), (1,))
    assert integral(flow, -beyond, 1 + beyond, 20_000) == pytest.approx(1, abs=1e-4)
    edge = torch.logit(torch.tensor(margin)).item()
    inside = math.erf(-edge / math.sqrt(2))
    assert integral(flow, 0, 1, 20_000) == pytest.approx(inside, abs=1e-4)


@pytest.mark.parametrize("f", [LeakyReLU(0.1), Scaling(2.0), Logit(0.01), Sigmoid()])
def test_the_image_is_what_it_says(f):
    x = torch.linspace(1e-9, 1 - 1e-9, 99, dtype=torch.float64) if isinstance(f, Logit) else None
    z = f.value(torch.linspace(-30, 30, 99, dtype=torch.float64) if x is None else x)
    low, high = f.image
    assert (z > low).all()
    assert (z < high).all()


def test_far_away_nothing_is_infinite():
    """Float32, |x| and |z| far outside: values, log-dets and gradients are numbers."""
    far = torch.tensor([[-1e4, -90.0, 0.0, 90.0, 1e4]], requires_grad=True)
    for value, log_det in (LeakyReLU()(far), Sigmoid()(far), Logit(0.01).inverse(far)):
        assert torch.isfinite(value).all()
        assert torch.isfinite(log_det).all()
        (gradient,) = torch.autograd.grad(value.sum() + log_det.sum(), far)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantised_levels_stay_finite_at_both_ends(levels):
    ends = torch.tensor([[0.0, levels - 1 + 0.9999999]])
    z, log_det = to_reals(levels)(ends)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()


@pytest.mark.parametrize("divisor", [2, 16, 17, 255, 256])
def test_dividing_costs_exactly_the_logarithm_of_the_divisor(divisor, float64):
    """A uniform density over [0, L)^D costs log₂ L bits/dim; without the layer's log-det it would cost 0."""
    flow = Flow(Scaling(1 / divisor), (1, 2, 3), levels=divisor, prior=Uniform(0.0, 1.0))
    x = torch.rand(5, 1, 2, 3) * divisor * 0.999
    bits = bits_per_dim(flow.log_prob(x), 6)
    torch.testing.assert_close(bits, torch.full((5,), math.log2(divisor)))
    torch.testing.assert_close(bits_per_dim(flow.prior_log_prob(flow(x)[0]), 6), torch.zeros(5))


def test_wrong_inputs_are_refused_in_words():
    with pytest.raises(UsageError, match=r"slope is 0\.0, expected a number above 0: with 0 \(a ReLU\)"):
        LeakyReLU(0.0)
    with pytest.raises(UsageError, match=r"factor is 0\.0, expected a finite number other than 0"):
        Scaling(0.0)
    with pytest.raises(UsageError, match=r"margin is 0\.5"):
        Logit(0.5)
    with pytest.raises(NotImplementedError, match="does not define value"):
        Elementwise()(torch.zeros(1, 1))
