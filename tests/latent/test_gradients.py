"""Estimators of a gradient: each unbiased, and not one as good as another."""

import pytest
import torch

from dulcourse.errors import UsageError
from dulcourse.latent.distributions import Categorical, DiagonalGaussian, Gaussian
from dulcourse.latent.gradients import (
    enumerated,
    gradient_draws,
    leave_one_out,
    reparameterised,
    score_function,
)

MEAN, LOG_STD = torch.tensor([0.4, -1.0], dtype=torch.float64), torch.tensor([0.3, -0.5], dtype=torch.float64)
LOGITS = torch.tensor([0.2, -0.4, 1.0], dtype=torch.float64)
REWARD = torch.tensor([3.0, 4.0, 7.0], dtype=torch.float64)


def with_baseline(q, f, noise):
    return score_function(q, f, noise, baseline=5.0)


def square(z):
    """E = Σ μ² + σ²: its gradients are 2μ and 2σ²."""
    return z.square().sum(-1)


def assert_unbiased(draws, expected):
    for gradient, exact in zip(draws, expected, strict=True):
        error = gradient.std(0) / len(gradient) ** 0.5
        assert ((gradient.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("estimator", [score_function, with_baseline, leave_one_out, reparameterised])
def test_gradients_of_a_gaussian_are_unbiased(estimator, k, generator):
    parameters = (MEAN, LOG_STD)
    draws = gradient_draws(estimator, DiagonalGaussian, parameters, square, 20_000, k, generator=generator)
    assert_unbiased(draws, (2 * MEAN, 2 * torch.exp(2 * LOG_STD)))


@pytest.mark.parametrize("estimator", [score_function, with_baseline, leave_one_out])
def test_gradients_of_a_categorical_are_unbiased(estimator, generator):
    p = LOGITS.softmax(0)
    exact = p * (REWARD - p @ REWARD)
    draws = gradient_draws(
        estimator, Categorical, (LOGITS,), lambda z: REWARD[z], 20_000, 3, generator=generator
    )
    assert_unbiased(draws, (exact,))


@pytest.mark.parametrize("estimator", [score_function, leave_one_out, reparameterised])
def test_what_is_averaged_may_depend_on_the_parameters(estimator, generator):
    """E Σ μz = Σ μ²: half of the gradient 2μ comes from the draws, half from f itself."""
    copies = [t.expand(20_000, 2).clone().requires_grad_() for t in (MEAN, LOG_STD)]
    q = DiagonalGaussian(*copies)
    surrogate = estimator(q, lambda z: (q.mean * z).sum(-1), q.noise(generator, 2))
    assert_unbiased(torch.autograd.grad(surrogate.sum(), copies), (2 * MEAN, torch.zeros(2)))


@pytest.mark.parametrize("estimator", [score_function, leave_one_out, reparameterised])
def test_gradients_of_the_elbo_are_unbiased(estimator, linear, generator):
    """Exactly known for a linear-Gaussian model."""
    x = linear.sample(1, generator=generator)
    mean, log_std = MEAN.clone().requires_grad_(), LOG_STD.clone().requires_grad_()
    exact = torch.autograd.grad(linear.elbo(x, DiagonalGaussian(mean[None], log_std[None])), (mean, log_std))
    copies = [t.expand(20_000, 2).clone().requires_grad_() for t in (MEAN, LOG_STD)]
    q = DiagonalGaussian(*copies)

    def log_ratio(z):
        pixels = x - linear.bias - z @ linear.weight.T
        log_likelihood = -0.5 * (pixels / linear.noise_std).square().sum(-1)
        return log_likelihood + linear.prior.log_prob(z) - q.log_prob(z)

    surrogate = estimator(q, log_ratio, q.noise(generator, 2))
    assert_unbiased(torch.autograd.grad(surrogate.sum(), copies), exact)


@pytest.mark.parametrize("estimator", [score_function, with_baseline, leave_one_out, reparameterised])
def test_the_value_is_the_estimate_of_the_expectation(estimator, generator):
    q = DiagonalGaussian(MEAN, LOG_STD)
    noise = q.noise(generator, 6)
    torch.testing.assert_close(estimator(q, square, noise), square(q.from_noise(noise)).mean(0))


def variances(estimators, f, generator):
    """Total variance of the gradient with respect to the mean, for each estimator on the same noise."""
    seed = int(torch.randint(2**31, (), generator=generator))
    for estimator in estimators:
        g = torch.Generator().manual_seed(seed)
        draws = gradient_draws(estimator, DiagonalGaussian, (MEAN, LOG_STD), f, 5000, 4, generator=g)
        yield sum(gradient.var(0).sum().item() for gradient in draws)


def test_the_order_of_the_variances(generator):
    """Smooth f: reparameterised < score function with a baseline < without."""

    def shifted(z):
        return square(z) + 10

    def at_its_mean(q, f, noise):
        return score_function(q, f, noise, baseline=shifted(MEAN) + (2 * LOG_STD).exp().sum())

    smooth, baseline, others, plain = variances(
        (reparameterised, at_its_mean, leave_one_out, score_function), shifted, generator
    )
    assert 3 * smooth < baseline
    assert baseline < others
    assert 3 * others < plain


def test_the_score_function_wins_where_f_is_rough(generator):
    """sin(50 z) is nearly flat on average, but its derivative is large everywhere."""
    smooth, plain = variances(
        (reparameterised, score_function), lambda z: torch.sin(50 * z).sum(-1), generator
    )
    assert 10 * plain < smooth


def test_a_baseline_changes_no_expectation_but_the_variance(generator):
    def variance(baseline):
        def estimator(q, f, noise):
            return score_function(q, f, noise, baseline=baseline)

        return next(variances([estimator], square, torch.Generator().manual_seed(0)))

    assert variance(1.5) < variance(0.0) < variance(-10.0)


def test_enumeration_is_the_expectation_and_its_gradient():
    logits = LOGITS.expand(2, 3).clone().requires_grad_()
    q = Categorical(logits)
    value = enumerated(q, lambda z: REWARD[z])
    p = LOGITS.softmax(0)
    torch.testing.assert_close(value, (p @ REWARD).expand(2))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(gradient, (p * (REWARD - p @ REWARD)).expand(2, 3))


@pytest.mark.parametrize("estimator", [score_function, reparameterised])
def test_gaussians_with_correlations_have_gradients_too(estimator, generator):
    """E (z₁ z₂) = μ₁μ₂ + (AAᵀ)₁₂."""
    A = torch.tensor([[1.0, 0.0], [0.7, 0.5]], dtype=torch.float64)
    draws = gradient_draws(
        estimator, Gaussian, (MEAN, A), lambda z: z.prod(-1), 20_000, 2, generator=generator
    )
    by_scale = torch.tensor([[0.7, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert_unbiased(draws[:1], (MEAN.flip(0),))
    error = draws[1].std(0) / 20_000**0.5
    lower = torch.ones(2, 2).tril().bool()
    assert ((draws[1].mean(0) - by_scale).abs() < 4 * error + 1e-9)[lower].all()


def test_what_cannot_be_estimated_is_refused_in_words(generator):
    q = Categorical(LOGITS)
    with pytest.raises(UsageError, match="got a Categorical, whose draws have no derivative"):
        reparameterised(q, lambda z: REWARD[z], q.noise(generator, 2))
    with pytest.raises(UsageError, match="got 1 draw, expected at least 2"):
        leave_one_out(q, lambda z: REWARD[z], q.noise(generator, 1))
