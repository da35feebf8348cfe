"""Bounds are below log p(x) by what theory says, and their gradients follow the good draws."""

import pytest
import torch

from dulcourse.errors import UsageError
from dulcourse.latent.base import log_weights
from dulcourse.latent.bounds import (
    elbo_by_jensen,
    elbo_by_kl,
    iwae,
    iwae_surrogate,
    negative_beta_elbo,
    negative_iwae,
)
from dulcourse.latent.distributions import Categorical, DiagonalGaussian
from dulcourse.latent.estimators import importance_sampling


def some_q(model, x):
    """A proposal that is not the posterior."""
    if isinstance(model.prior, Categorical):
        return Categorical(0.5 * model.posterior(x).logits)
    return DiagonalGaussian(0.8 * model.posterior(x).mean, torch.full((len(x), 2), -0.4))


def gap(model, x, q):
    """KL(q ‖ p(z | x)), exactly."""
    return (q.dense() if isinstance(q, DiagonalGaussian) else q).kl(model.posterior(x))


@pytest.mark.parametrize("elbo", [elbo_by_jensen, elbo_by_kl])
def test_both_derivations_are_the_likelihood_minus_a_divergence(known, elbo, generator):
    model, x = known
    q, n = some_q(model, x), 20_000
    draws = [elbo(model, x, q, q.from_noise(q.noise(generator, 1))) for _ in range(100)]
    draws = torch.stack(draws)
    z = q.from_noise(q.noise(generator, n))
    error = 4 * draws.std(0) / n**0.5 + 1e-9
    assert ((elbo(model, x, q, z) - model.log_prob(x) + gap(model, x, q)).abs() < error).all()
    assert (gap(model, x, q) > 0.01).all()


def test_with_the_posterior_the_first_derivation_has_no_variance(known, generator):
    model, x = known
    q = model.posterior(x)
    z = q.from_noise(q.noise(generator, 3))
    torch.testing.assert_close(elbo_by_jensen(model, x, q, z), model.log_prob(x))


def test_the_derivations_differ_by_the_sampled_divergence(known, generator):
    model, x = known
    q = some_q(model, x)
    z = q.from_noise(q.noise(generator, 5))
    sampled = (q.log_prob(z) - model.prior.log_prob(z)).mean(0)
    difference = elbo_by_kl(model, x, q, z) - elbo_by_jensen(model, x, q, z)
    torch.testing.assert_close(difference, sampled - q.kl(model.prior))


def test_iwae_with_one_draw_is_the_sampled_elbo(smooth, generator):
    x = torch.tensor([[0, 1], [2, 2]]).view(2, 1, 1, 2)
    noise = smooth.noise(2, generator)
    torch.testing.assert_close(iwae(smooth, x, noise.unsqueeze(0)), smooth.log_weight(x, noise))
    q = smooth.proposal(x)
    elbo = elbo_by_jensen(smooth, x, q, q.from_noise(noise.unsqueeze(0)))
    torch.testing.assert_close(iwae(smooth, x, noise.unsqueeze(0)), elbo)


def test_iwae_rises_with_k_towards_the_likelihood(smooth, generator):
    """The same noise in groups of K: by Jensen no group's bound is below the mean of its halves'."""
    x = torch.tensor([[0, 1], [2, 2], [1, 0]]).view(3, 1, 1, 2)
    q = smooth.proposal(x)
    noise = q.noise(generator, 256)
    bounds = torch.stack(
        [torch.stack([iwae(smooth, x, e) for e in noise.split(k)]).mean(0) for k in (1, 4, 32, 256)]
    )
    assert (bounds.diff(dim=0) > 0).all()
    estimate = importance_sampling(smooth, x, q, 20_000, generator=generator)
    assert (bounds[0] < estimate.log_prob - 0.01).all()
    assert ((bounds[-1] - estimate.log_prob).abs() < 0.1).all()


def test_the_gradient_is_that_of_the_bound(smooth, generator):
    """Autograd through log (1/K) Σ w_k equals weights held constant, for decoder and encoder alike."""
    x = torch.tensor([[0, 1], [2, 2]]).view(2, 1, 1, 2)
    q = smooth.proposal(x)
    log_w = log_weights(smooth, x, q, q.from_noise(q.noise(generator, 6)))
    surrogate = iwae_surrogate(log_w).sum()
    bound = torch.logsumexp(log_w, 0).sum()
    ours, theirs = (
        torch.autograd.grad(s, smooth.parameters(), retain_graph=True) for s in (surrogate, bound)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
        assert a.any()


def test_good_draws_weigh_more_than_bad_ones(float64):
    """The bug of others: softmax of the loss, which follows the worst draw."""
    log_w = torch.tensor([[-9.0], [-1.0], [-4.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(iwae_surrogate(log_w).sum(), log_w)
    torch.testing.assert_close(gradient, torch.softmax(log_w.detach(), 0))
    assert gradient.argmax() == 1
    wrong = torch.softmax(-log_w.detach(), 0)
    assert wrong.argmax() == 0
    assert gradient.sum().item() == pytest.approx(1)


def test_the_loss_is_minus_the_bound_at_fresh_noise(smooth):
    x = torch.tensor([[0, 1], [2, 2]]).view(2, 1, 1, 2)
    loss = negative_iwae(5)(smooth, x, None, torch.Generator().manual_seed(1))
    noise = smooth.proposal(x).noise(torch.Generator().manual_seed(1), 5)
    torch.testing.assert_close(loss, -iwae(smooth, x, noise))


def test_the_beta_loss_weighs_the_divergence(smooth):
    x = torch.tensor([[0, 1], [2, 2]]).view(2, 1, 1, 2)
    for beta in (0.0, 0.3, 2.0):
        loss = negative_beta_elbo(beta)(smooth, x, None, torch.Generator().manual_seed(1))
        noise = smooth.noise(2, torch.Generator().manual_seed(1))
        log_likelihood, kl = smooth.terms(x, noise)
        torch.testing.assert_close(loss, beta * kl - log_likelihood)


def test_checkpoints_can_tell_the_losses_apart():
    assert negative_iwae(5).__qualname__ != negative_iwae(6).__qualname__
    assert negative_beta_elbo(1.0).__qualname__ != negative_beta_elbo(2.0).__qualname__


def test_no_draw_is_refused_in_words():
    with pytest.raises(UsageError, match="k is 0, expected at least 1 draw"):
        negative_iwae(0)
