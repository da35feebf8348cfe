"""Counting is maximum likelihood."""

import math

import pytest
import torch

from dulcourse.autoregressive.histogram import Histogram
from dulcourse.errors import UsageError
from dulcourse.likelihood import log_prob


@pytest.fixture
def x(generator):
    return torch.randint(5, (200, 1, 2, 3), generator=generator).clamp(min=1) - 1  # 4 levels, unevenly


def empirical(x, levels):
    """p̂ [levels, *shape]."""
    return torch.stack([(x == k).double().mean(0) for k in range(levels)])


def test_the_loss_is_kl_plus_entropy(float64, x, generator):
    """E_p̂[−log p_θ] = KL(p̂‖p_θ) + H(p̂) for any θ, the KL is above zero, and zero for the fitted θ."""
    p = empirical(x, 4)
    entropy = -torch.special.xlogy(p, p).sum()
    model = Histogram((1, 2, 3), 4)
    model.theta.data = torch.randn(4, 1, 2, 3, generator=generator)
    kl = (p * (p.log() - torch.log_softmax(model.theta, 0))).sum()
    assert kl > 0.1
    assert -model.log_prob(x).mean().item() == pytest.approx((kl + entropy).item())
    best = Histogram.fit(x, 4, smoothing=0.0)
    assert -best.log_prob(x).mean().item() == pytest.approx(entropy.item())


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_vanishes_at_the_fit(float64, x, shared):
    model = Histogram.fit(x, 4, smoothing=0.0, shared=shared)
    assert model.theta.numel() == (4 if shared else 24)
    (-model.log_prob(x).mean()).backward()
    torch.testing.assert_close(model.theta.grad, torch.zeros_like(model.theta))


def test_a_shared_histogram_never_fits_the_data_better(x):
    own, shared = (Histogram.fit(x, 4, shared=s, smoothing=0.0).log_prob(x).mean() for s in (False, True))
    assert shared < own


def test_smoothing_adds_to_the_counts(float64):
    x = torch.tensor([0, 0, 0, 2]).view(4, 1, 1, 1)
    probabilities = Histogram.fit(x, 3, smoothing=0.5).logits(x[:1]).exp().flatten()
    torch.testing.assert_close(probabilities, torch.tensor([3.5, 0.5, 1.5]) / 5.5)


def test_an_unseen_level_costs_infinitely_much_without_smoothing():
    x = torch.tensor([0, 1]).view(2, 1, 1, 1)
    unseen = torch.full((1, 1, 1, 1), 2)
    assert Histogram.fit(x, 3, smoothing=0.0).log_prob(unseen).item() == -math.inf
    assert Histogram.fit(x, 3).log_prob(unseen).item() == pytest.approx(math.log(1 / 5))


def test_it_is_uniform_before_it_is_fitted(x):
    torch.testing.assert_close(Histogram((1, 2, 3), 4).log_prob(x), torch.full((200,), -6 * math.log(4)))


def test_samples_have_the_frequencies_of_the_data(x, generator):
    model = Histogram.fit(x, 4, smoothing=0.0)
    sampled = empirical(model.sample(10_000, generator=generator), 4)
    assert (sampled - empirical(x, 4)).abs().max() < 4 * math.sqrt(0.25 / 10_000)


def test_log_prob_is_that_of_the_logits(x):
    model = Histogram.fit(x, 4)
    torch.testing.assert_close(model.log_prob(x), log_prob(model.logits(x), x))


@pytest.mark.parametrize(
    ("count", "smoothing", "words"),
    [(0, 1.0, "at least 1 image and smoothing ≥ 0, got 0 and 1.0"), (9, -1.0, "got 9 and -1.0")],
)
def test_what_cannot_be_counted_is_refused(x, count, smoothing, words):
    with pytest.raises(UsageError, match=words):
        Histogram.fit(x[:count], 4, smoothing=smoothing)


def test_levels_that_are_too_few_are_refused(x):
    with pytest.raises(UsageError, match="values from 0 to 3, expected 0 to 2"):
        Histogram.fit(x, 3)


def test_labels_are_refused(x):
    with pytest.raises(UsageError, match="Histogram is not class-conditional"):
        Histogram((1, 2, 3), 4).log_prob(x, torch.zeros(200, dtype=torch.int64))
