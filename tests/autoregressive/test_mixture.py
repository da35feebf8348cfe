"""The discretised logistic is a distribution at every scale, with gradients to match."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dulcourse.autoregressive.mixture import (
    DiscretisedMixture,
    discretised_logistic_log_prob,
    mixture_log_prob,
)
from dulcourse.errors import UsageError
from dulcourse.likelihood import log_prob

LOG_SCALES = st.floats(-15, 15)
MEANS = st.floats(-100, 400)
LEVELS = st.sampled_from([2, 3, 4, 17, 100, 256])


def every(levels: int, mean: float, log_scale: float, dtype=torch.float64) -> torch.Tensor:
    """log P of all levels."""
    mean, log_scale = (torch.tensor([v], dtype=dtype) for v in (mean, log_scale))
    return discretised_logistic_log_prob(torch.arange(levels), mean, log_scale, levels)


@given(levels=LEVELS, mean=MEANS, log_scale=LOG_SCALES)
@example(levels=2, mean=0.5, log_scale=-15.0)  # between two levels
@example(levels=256, mean=127.0, log_scale=15.0)  # next to flat
def test_probabilities_sum_to_one_at_every_scale(levels, mean, log_scale):
    log_p = every(levels, mean, log_scale)
    assert torch.isfinite(log_p).all()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-10)


@given(levels=LEVELS, mean=MEANS, log_scale=LOG_SCALES)
def test_float32_agrees_with_float64(levels, mean, log_scale):
    mean, log_scale = (torch.tensor(v, dtype=torch.float32).item() for v in (mean, log_scale))
    single, double = (every(levels, mean, log_scale, d).double() for d in (torch.float32, torch.float64))
    torch.testing.assert_close(single, double, atol=1e-5, rtol=1e-5)
    assert single.exp().sum().item() == pytest.approx(1, abs=1e-4)


@given(levels=LEVELS, mean=st.floats(-5, 260), log_scale=st.floats(-1, 5))
def test_it_is_the_logistic_distribution_between_half_levels(levels, mean, log_scale):
    """Where nothing cancels, the textbook difference of two sigmoids; the outer edges are at infinity."""
    edges = torch.arange(-0.5, levels, dtype=torch.float64)
    edges[0], edges[-1] = -math.inf, math.inf
    expected = torch.sigmoid((edges - mean) / math.exp(log_scale)).diff()
    torch.testing.assert_close(every(levels, mean, log_scale).exp(), expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("levels", [4, 17, 256])
def test_the_width_of_a_bin_does_not_depend_on_the_levels(levels):
    """Half a bin is ½ level: with s → 0 all the mass of μ = 1.4 is at 1, that of μ = 1.6 at 2."""
    assert every(levels, 1.4, -8.0)[1].item() == pytest.approx(0, abs=1e-9)
    assert every(levels, 1.6, -8.0)[2].item() == pytest.approx(0, abs=1e-9)


def test_the_tails_are_open():
    assert every(10, -50.0, 0.0)[0].item() == pytest.approx(0, abs=1e-9)
    assert every(10, 60.0, 0.0)[9].item() == pytest.approx(0, abs=1e-9)


@given(levels=LEVELS, mean=MEANS, log_scale=LOG_SCALES)
def test_gradients_are_finite(levels, mean, log_scale):
    parameters = torch.tensor([mean, log_scale], requires_grad=True)
    discretised_logistic_log_prob(
        torch.arange(levels), parameters[:1], parameters[1:], levels
    ).sum().backward()
    assert torch.isfinite(parameters.grad).all()


def test_gradients_are_those_of_finite_differences(float64):
    x = torch.tensor([[0], [1], [5], [9]])
    mean, log_scale = (torch.tensor(v, requires_grad=True) for v in ([[4.2, -1.0]], [[0.3, 2.0]]))
    torch.autograd.gradcheck(lambda m, s: discretised_logistic_log_prob(x, m, s, 10), (mean, log_scale))


def test_shapes_broadcast():
    x = torch.zeros(5, 1, 3, dtype=torch.int64)
    assert discretised_logistic_log_prob(x, torch.zeros(4, 1), torch.zeros(5, 1, 1), 7).shape == (5, 4, 3)


def test_one_component_is_the_logistic_itself(float64):
    x, mean, log_scale = torch.arange(10), torch.tensor([3.3]), torch.tensor([0.4])
    alone = discretised_logistic_log_prob(x, mean, log_scale, 10)
    torch.testing.assert_close(mixture_log_prob(x, torch.tensor([7.0]), mean, log_scale, 10), alone)


def test_a_mixture_is_the_weighted_mean_of_its_components(float64, generator):
    x, (w, m, s) = torch.arange(10), torch.randn(3, 4, generator=generator)
    parts = discretised_logistic_log_prob(x[:, None], m + 5, s, 10).exp()
    expected = (torch.softmax(w, 0) * parts).sum(1)
    torch.testing.assert_close(mixture_log_prob(x, w, m + 5, s, 10).exp(), expected)


def test_each_symbol_may_have_parameters_of_its_own(float64, generator):
    x, parameters = (
        torch.randint(10, (6, 2), generator=generator),
        torch.randn(3, 6, 2, 4, generator=generator),
    )
    together = mixture_log_prob(x, *parameters, 10)
    alone = mixture_log_prob(x[3:4, 1], *parameters[:, 3, 1], 10)
    torch.testing.assert_close(together[3, 1:], alone)


@pytest.fixture
def model(float64, generator) -> DiscretisedMixture:
    model = DiscretisedMixture(levels=20, components=3)
    for parameter in model.parameters():
        parameter.data += torch.randn(3, generator=generator)
    return model


def test_log_prob_is_that_of_the_logits(model):
    x = torch.arange(20).view(20, 1, 1, 1)
    torch.testing.assert_close(model.log_prob(x), log_prob(model.logits(x), x))
    assert model.log_prob(x).exp().sum().item() == pytest.approx(1)


def test_samples_follow_the_distribution(model, generator):
    """Pearson's χ² over 20 levels: mean 19, standard deviation √38."""
    n, x = 20_000, torch.arange(20).view(20, 1, 1, 1)
    observed = torch.bincount(model.sample(n, generator=generator).flatten(), minlength=20)
    expected = model.log_prob(x).exp() * n
    assert ((observed - expected) ** 2 / expected).sum() < 19 + 4 * math.sqrt(38)


@pytest.mark.parametrize("components", [1, 2, 7])
def test_the_components_start_spread_over_the_levels(components):
    model = DiscretisedMixture(100, components)
    assert model.means.mean().item() == pytest.approx(49.5)
    assert (model.means > 0).all()
    x = torch.arange(100).view(100, 1, 1, 1)
    assert (model.log_prob(x) > math.log(1 / 1000)).all()  # no level starts out of reach


def test_wrong_inputs_are_refused_in_words(model):
    with pytest.raises(UsageError, match="components is 0, expected at least 1"):
        DiscretisedMixture(10, 0)
    with pytest.raises(UsageError, match="levels is 1"):
        every(1, 0.0, 0.0)
    with pytest.raises(UsageError, match="values from 3 to 3, expected 0 to 2"):
        discretised_logistic_log_prob(torch.tensor([3]), torch.zeros(1), torch.zeros(1), 3)
    with pytest.raises(UsageError, match=r"\[2, 1, 1, 2\], expected \[batch, 1, 1, 1\]"):
        model.log_prob(torch.zeros(2, 1, 1, 2, dtype=torch.int64))
    with pytest.raises(UsageError, match="not class-conditional"):
        model.log_prob(torch.zeros(1, 1, 1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
