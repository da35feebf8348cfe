"""Probabilistic PCA: its exact answers against torch's densities, Bayes' rule and each other."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from dulcourse.errors import UsageError
from dulcourse.latent.bounds import elbo_by_kl
from dulcourse.latent.distributions import DiagonalGaussian, Gaussian
from dulcourse.latent.linear_gaussian import LinearGaussian


@pytest.fixture
def x(linear, generator):
    return linear.sample(7, generator=generator)


def marginal(model):
    covariance = model.weight @ model.weight.T + model.noise_std**2 * torch.eye(model.dims)
    return MultivariateNormal(model.bias, covariance)


def test_log_prob_is_the_marginal_density(linear, x):
    torch.testing.assert_close(linear.log_prob(x), marginal(linear).log_prob(x))


def test_bayes_rule_holds_at_every_z(linear, x, generator):
    """log p(z) + log p(x | z) − log p(z | x) = log p(x), wherever z is."""
    for _ in range(5):
        z = torch.randn(7, 2, generator=generator)
        joint = linear.prior.log_prob(z) + linear.log_likelihood(x, z)
        torch.testing.assert_close(joint - linear.posterior(x).log_prob(z), linear.log_prob(x))


@pytest.mark.parametrize("diagonal", [True, False])
def test_the_elbo_is_the_likelihood_minus_the_divergence_from_the_posterior(linear, x, diagonal, generator):
    mean, other = torch.randn(2, 7, 2, generator=generator)
    q = DiagonalGaussian(mean, other) if diagonal else Gaussian(mean, torch.tensor([[0.5, 0], [0.9, 2.0]]))
    gap = (q.dense() if diagonal else q).kl(linear.posterior(x))
    torch.testing.assert_close(linear.elbo(x, q), linear.log_prob(x) - gap)
    assert (gap > 0).all()


def test_the_elbo_is_the_expectation_of_its_samples(linear, x, generator):
    q = DiagonalGaussian(torch.full((7, 2), 0.3), torch.full((7, 2), -0.7))
    draws = torch.stack([elbo_by_kl(linear, x, q, q.from_noise(q.noise(generator, 100))) for _ in range(100)])
    assert ((draws.mean(0) - linear.elbo(x, q)).abs() < 4 * draws.std(0) / 10).all()


def test_the_best_diagonal_is_the_best(linear, x, generator):
    best = linear.best_diagonal(x)
    elbo = linear.elbo(x, best)
    assert (elbo < linear.log_prob(x)).all()  # the posterior is correlated, so something is lost
    mean, log_std = (t.detach().clone().requires_grad_() for t in (best.mean, best.log_std))
    total = linear.elbo(x, DiagonalGaussian(mean, log_std)).sum()
    for gradient in torch.autograd.grad(total, (mean, log_std)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
    for _ in range(10):
        near = DiagonalGaussian(*(t + 0.1 * torch.randn(7, 2, generator=generator) for t in (mean, log_std)))
        assert (linear.elbo(x, near) < elbo).all()


def test_what_the_family_costs_is_the_correlation(linear, x):
    """log p − the best diagonal ELBO = ½ [log Π M_jj − log det M], the same for every x."""
    M = torch.eye(2) + linear.weight.T @ linear.weight / linear.noise_std**2
    expected = 0.5 * (M.diagonal().log().sum() - torch.logdet(M))
    cost = linear.log_prob(x) - linear.elbo(x, linear.best_diagonal(x))
    torch.testing.assert_close(cost, expected.expand(7))


def test_the_amortisation_gap_of_an_encoder_is_its_distance_from_the_best(linear, x):
    """An encoder that is right up to a shift of the mean loses ½ shiftᵀ M shift."""
    best, shift = linear.best_diagonal(x), torch.tensor([0.3, -0.2])
    M = torch.eye(2) + linear.weight.T @ linear.weight / linear.noise_std**2
    gap = linear.elbo(x, best) - linear.elbo(x, DiagonalGaussian(best.mean + shift, best.log_std))
    torch.testing.assert_close(gap, (0.5 * shift @ M @ shift).expand(7))


def test_samples_have_the_marginal_covariance(linear, generator):
    n = 40_000
    x = linear.sample(n, generator=generator)
    expected = marginal(linear)
    error = 4 * (expected.variance / n).sqrt()
    assert ((x.mean(0) - linear.bias).abs() < error).all()
    scale = expected.variance.max() * 4 * (2 / n) ** 0.5
    assert (torch.cov(x.T) - expected.covariance_matrix).abs().max() < scale


def test_the_fit_is_the_maximum_of_the_likelihood(float64, generator):
    x = torch.randn(200, 4, generator=generator) * torch.tensor([3.0, 2.0, 0.5, 0.4]) + 1
    model = LinearGaussian.fit(x, 2)
    for gradient in torch.autograd.grad(model.log_prob(x).mean(), (model.weight, model.bias)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
    best = model.log_prob(x).mean()
    for factor in (0.98, 1.02):
        other = LinearGaussian(model.weight.detach(), model.bias.detach(), factor * model.noise_std)
        assert other.log_prob(x).mean() < best


def test_the_fit_finds_the_model_that_made_the_data(linear, generator):
    x = linear.sample(20_000, generator=generator)
    model = LinearGaussian.fit(x, 2)
    assert model.noise_std == pytest.approx(linear.noise_std, abs=0.02)
    torch.testing.assert_close(
        model.weight @ model.weight.T, linear.weight @ linear.weight.T, atol=0.1, rtol=0
    )


def test_the_arguments_are_copied(float64):
    weight = torch.ones(2, 1)
    model = LinearGaussian(weight, torch.zeros(2), 1.0)
    weight.zero_()
    assert (model.weight == 1).all()


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(UsageError, match=r"noise_std is 0\.0, expected more than 0"):
        LinearGaussian(torch.ones(2, 1), torch.zeros(2), 0.0)
    with pytest.raises(UsageError, match="latents is 2, expected 1 to 1 for 2 numbers in x"):
        LinearGaussian.fit(torch.randn(5, 2, generator=torch.Generator()), 2)
