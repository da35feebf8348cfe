"""The mixture is a distribution with an exact posterior, and EM climbs its likelihood."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.errors import UsageError
from dulcourse.latent.bounds import elbo_by_kl
from dulcourse.latent.distributions import Categorical
from dulcourse.latent.estimators import exact
from dulcourse.latent.mixture import Mixture, em_step


def test_the_probabilities_of_all_images_sum_to_one(mixture, every):
    assert mixture.log_prob(every((1, 2, 2), 3)).exp().sum().item() == pytest.approx(1)


def test_log_prob_is_the_sum_over_the_states(mixture, every):
    x = every((1, 2, 2), 3)
    torch.testing.assert_close(mixture.log_prob(x), exact(mixture, x))


def test_the_likelihood_is_a_product_over_the_symbols(mixture, generator):
    x = torch.randint(3, (4, 1, 2, 2), generator=generator)
    z = torch.tensor([4, 0, 0, 2])
    logits = mixture.table[z]  # [batch, levels, C, H, W]
    expected = -torch.nn.functional.cross_entropy(logits, x, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(mixture.log_likelihood(x, z), expected)


def test_the_posterior_is_bayes_rule(mixture, every):
    x = every((1, 2, 2), 3)
    for k in range(mixture.components):
        z = torch.full((len(x),), k)
        joint = mixture.prior.log_prob(z) + mixture.log_likelihood(x, z)
        torch.testing.assert_close(mixture.posterior(x).log_prob(z), joint - mixture.log_prob(x))


def test_samples_follow_the_distribution(mixture, every, generator):
    """Pearson's χ² of 20 000 samples over the images that are expected at least five times."""
    n, x = 20_000, every((1, 2, 2), 3)
    expected = n * mixture.log_prob(x).exp()
    drawn = mixture.sample(n, generator=generator).flatten(1)
    observed = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81)
    often = expected >= 5
    degrees = int(often.sum())
    assert ((observed - expected) ** 2 / expected)[often].sum() < degrees + 4 * math.sqrt(2 * degrees)
    assert observed[~often].sum() < 4 * expected[~often].sum() + 10


@given(components=st.integers(1, 6), seed=st.integers(0, 100))
def test_expectation_maximisation_never_falls(components, seed):
    g = torch.Generator().manual_seed(seed)
    model = Mixture((1, 2, 3), 3, components, generator=g).double()
    x = torch.randint(3, (30, 1, 2, 3), generator=g)
    values = [em_step(model, x) for _ in range(8)]
    assert all(after >= before - 1e-9 for before, after in pairwise(values))


def test_expectation_maximisation_reports_the_likelihood_before_the_step(mixture, generator):
    x = mixture.sample(50, generator=generator)
    before = float(mixture.log_prob(x).detach().mean())
    assert em_step(mixture, x) == pytest.approx(before)
    assert float(mixture.log_prob(x).detach().mean()) > before


def test_one_component_learns_the_frequencies_in_one_step(float64, generator):
    model = Mixture((1, 1, 2), 2, 1, generator=generator)
    x = torch.tensor([[0, 1], [0, 1], [1, 1], [0, 0]]).view(4, 1, 1, 2)
    em_step(model, x)
    torch.testing.assert_close(model.table.softmax(1)[0, :, 0, 0], torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    em_step(model, x, smoothing=1.0)
    torch.testing.assert_close(model.table.softmax(1)[0, 1, 0, 0], torch.tensor([2 / 6, 4 / 6]))


def test_the_maximisation_step_maximises_the_bound(mixture, generator):
    """With q fixed to the old posterior, no gradient of the ELBO is left after the step."""
    x = mixture.sample(40, generator=generator)
    q = Categorical(mixture.posterior(x).logits.detach())
    em_step(mixture, x, smoothing=0.0)
    z = mixture.states.unsqueeze(1).expand(-1, len(x))
    log_likelihood = torch.stack([mixture.log_likelihood(x, state) for state in z])
    bound = (q.log_probs.exp().T * log_likelihood).sum(0) - q.kl(mixture.prior)
    for gradient in torch.autograd.grad(bound.sum(), mixture.parameters()):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_it_finds_the_components_that_made_the_data(float64, generator):
    truth = Mixture((1, 3, 3), 2, 3, generator=generator)
    with torch.no_grad():
        truth.table *= 30
    x, fresh = truth.sample(600, generator=generator), truth.sample(300, generator=generator)
    candidates = [Mixture((1, 3, 3), 2, 3, generator=generator) for _ in range(3)]
    for model in candidates:
        for _ in range(40):
            em_step(model, x, smoothing=0.1)
    best = max(candidates, key=lambda model: float(model.log_prob(x).detach().mean()))
    assert best.log_prob(fresh).mean() > truth.log_prob(fresh).mean() - 0.1


def test_the_bound_with_the_posterior_is_the_likelihood(mixture, generator):
    x = mixture.sample(5, generator=generator)
    q = mixture.posterior(x)
    z = q.from_noise(q.noise(generator, 20_000))
    difference = elbo_by_kl(mixture, x, q, z) - mixture.log_prob(x)
    assert difference.abs().max() < 0.1


def test_what_does_not_fit_is_refused_in_words(mixture):
    with pytest.raises(UsageError, match="components is 0, expected at least 1"):
        Mixture((1, 2, 2), 3, 0)
    with pytest.raises(UsageError, match=r"smoothing is -1\.0, expected 0 or more"):
        em_step(mixture, torch.zeros(1, 1, 2, 2, dtype=torch.int64), smoothing=-1.0)
    with pytest.raises(UsageError, match="expected 0 to 2"):
        mixture.log_prob(torch.full((1, 1, 2, 2), 3))
