"""Estimates of log p(x) against the exact one, where it is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.errors import UsageError
from dulcourse.latent.base import log_joint, log_likelihoods, log_weights
from dulcourse.latent.distributions import Categorical, DiagonalGaussian
from dulcourse.latent.estimators import (
    exact,
    importance_sampling,
    log_mean_exp,
    prior_sampling,
    summarise,
)
from dulcourse.latent.mixture import Mixture

LOG_WEIGHTS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6)


def poor(model, x):
    """A proposal that is positive wherever the posterior is, and not much more."""
    if isinstance(model, Mixture):
        return Categorical(torch.zeros(len(x), model.components))
    return DiagonalGaussian(torch.full((len(x), 2), 0.3), torch.full((len(x), 2), 0.2))


def prior_weights(model, x, k, generator):
    z = model.prior.from_noise(model.prior.noise(generator, k, len(x)))
    return log_likelihoods(model, x, z)


def poor_weights(model, x, k, generator):
    q = poor(model, x)
    return log_weights(model, x, q, q.from_noise(q.noise(generator, k)))


def test_enumeration_is_a_sum_over_all_states(mixture, every):
    x = every((1, 2, 2), 3)
    weights, table = mixture.weights_logits.softmax(0), mixture.table.softmax(1)
    expected = torch.zeros(len(x))
    for n, image in enumerate(x):
        for k in range(mixture.components):
            p = weights[k]
            for level, probabilities in zip(image.flatten(), table[k].flatten(1).T, strict=True):
                p = p * probabilities[level]
            expected[n] += p.detach()
    torch.testing.assert_close(exact(mixture, x).exp(), expected)
    assert exact(mixture, x).exp().sum().item() == pytest.approx(1)


def test_estimates_are_within_their_errors_of_the_truth(known, generator):
    model, x = known
    for estimate in (
        prior_sampling(model, x, 40_000, generator=generator),
        importance_sampling(model, x, poor(model, x), 40_000, generator=generator),
    ):
        error = (estimate.log_prob - model.log_prob(x)).abs()
        assert (error < 4 * estimate.standard_error).all()
        assert (estimate.standard_error < 0.2).all()


@pytest.mark.parametrize("weights", [prior_weights, poor_weights])
def test_the_mean_weight_is_unbiased(known, weights, generator):
    """E w = p(x), for samples of the prior and of any proposal."""
    model, x = known
    relative = (weights(model, x, 40_000, generator) - model.log_prob(x)).exp()
    assert ((relative.mean(0) - 1).abs() < 4 * relative.std(0) / 200).all()


@pytest.mark.parametrize("weights", [prior_weights, poor_weights])
def test_the_expectation_rises_with_k_and_stays_below_the_truth(known, weights, generator):
    """The same draws in groups of K: by Jensen no group's estimate is below the mean of its halves'."""
    model, x = known
    log_w = weights(model, x, 2**14, generator)
    groups = [log_mean_exp(log_w.unflatten(0, (2**j, -1))) for j in range(0, 12)]
    means = torch.stack([group.mean(0) for group in groups])
    errors = torch.stack([group.std(0) / math.sqrt(len(group)) for group in groups])
    assert (means.diff(dim=0) > 0).all()
    assert (means < model.log_prob(x) + 4 * errors).all()
    assert (means[0] < model.log_prob(x) - 0.05).all()
    assert (means[-1] > model.log_prob(x) - 0.05).all()


def test_the_posterior_is_the_best_proposal(known, generator):
    """Every weight is p(x): no variance, whatever K is."""
    model, x = known
    q = model.posterior(x)
    log_w = log_weights(model, x, q, q.from_noise(q.noise(generator, 50)))
    torch.testing.assert_close(log_w, model.log_prob(x).expand(50, -1))
    estimate = importance_sampling(model, x, q, 50, generator=generator)
    assert (estimate.standard_error < 1e-12).all()
    torch.testing.assert_close(estimate.effective, torch.full((len(x),), 50.0))


def test_a_proposal_that_knows_x_beats_the_prior(linear, generator):
    x = linear.sample(6, generator=generator)
    ours = importance_sampling(linear, x, linear.best_diagonal(x), 500, generator=generator)
    prior = prior_sampling(linear, x, 500, generator=generator)
    assert (ours.standard_error < prior.standard_error).all()
    assert (ours.effective > prior.effective).all()


def test_prior_sampling_wears_out_as_the_modes_multiply(float64, generator):
    """K modes of equal weight: a draw in K finds the right one, and the effective sample is that fraction."""
    shares = []
    for modes in (2, 8, 32):
        model = Mixture((1, 2, 3), 2, modes, generator=generator)
        with torch.no_grad():  # mode m writes m in binary
            bits = torch.arange(modes).unsqueeze(1) >> torch.arange(6) & 1
            model.table.copy_(40.0 * torch.stack([1 - bits, bits], 1).view(modes, 2, 1, 2, 3))
        x = model.sample(20, generator=generator)
        shares.append(prior_sampling(model, x, 4000, generator=generator).effective.mean() / 4000)
    torch.testing.assert_close(torch.stack(shares), 1 / torch.tensor([2.0, 8.0, 32.0]), rtol=0.1, atol=0)


def test_the_standard_error_is_that_of_repetitions(linear, generator):
    x = linear.sample(3, generator=generator)
    estimates = [prior_sampling(linear, x, 2000, generator=generator) for _ in range(200)]
    spread = torch.stack([e.log_prob for e in estimates]).std(0)
    claimed = torch.stack([e.standard_error for e in estimates]).mean(0)
    assert ((claimed / spread - 1).abs() < 0.25).all()


@given(log_w=LOG_WEIGHTS, shift=st.floats(-1e5, 1e5))
def test_a_summary_stays_in_log_space(log_w, shift):
    """Weights like e^−1000000 are zero as numbers; a shift of all of them moves the estimate, no more."""
    log_w = torch.tensor(log_w, dtype=torch.float64).unsqueeze(1)
    one, other = summarise(log_w), summarise(log_w + shift)
    assert torch.isfinite(one.log_prob).all()
    assert log_w.mean() - 1e-6 <= one.log_prob <= log_w.max() + 1e-6
    assert 1 - 1e-6 <= one.effective <= len(log_w) + 1e-6
    torch.testing.assert_close(one.log_prob + shift, other.log_prob, atol=1e-8, rtol=1e-12)
    torch.testing.assert_close(one.effective, other.effective, atol=1e-6, rtol=1e-6)


def test_a_summary_of_known_weights(float64):
    weights = torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    estimate = summarise(weights.log())
    torch.testing.assert_close(estimate.log_prob.exp(), weights.mean(0))
    torch.testing.assert_close(estimate.standard_error, weights.std(0) / math.sqrt(3) / weights.mean(0))
    torch.testing.assert_close(estimate.effective, weights.sum(0) ** 2 / weights.square().sum(0))


def test_one_draw_says_nothing_of_its_error(float64):
    estimate = summarise(torch.tensor([[-3.0]]))
    assert estimate.log_prob.item() == -3
    assert estimate.standard_error.isnan().all()
    assert estimate.effective.item() == 1


def test_equal_generators_give_equal_estimates(known):
    model, x = known
    first, again = (prior_sampling(model, x, 9, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.log_prob, again.log_prob)


def test_each_image_has_its_own_draws(linear, generator):
    x = linear.sample(1, generator=generator).expand(4, -1)
    assert prior_sampling(linear, x, 3, generator=generator).log_prob.unique().numel() == 4


def test_the_joint_is_prior_times_likelihood(known):
    model, x = known
    q = model.posterior(x)
    z = q.from_noise(q.noise(torch.Generator().manual_seed(1), 3))
    torch.testing.assert_close(log_joint(model, x, z), q.log_prob(z) + model.log_prob(x))


def test_no_draw_is_refused_in_words(linear, generator):
    x = linear.sample(2, generator=generator)
    with pytest.raises(UsageError, match="k is 0, expected at least 1 draw"):
        prior_sampling(linear, x, 0, generator=generator)
    with pytest.raises(UsageError, match="k is -1, expected at least 1 draw"):
        importance_sampling(linear, x, linear.posterior(x), -1, generator=generator)
