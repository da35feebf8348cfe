"""The distributions over z against torch's own, and against their own draws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.latent.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    Gaussian,
    gaussian_kl,
    gaussian_log_prob,
)

SIZES = st.lists(st.integers(1, 4), max_size=2)


def pairs(generator):
    """q, p, and both again as torch has them, two in a batch."""
    m, r = torch.randn(2, 2, 3, generator=generator)
    s, t = 0.5 * torch.randn(2, 2, 3, generator=generator)
    A, B = (torch.linalg.cholesky(a @ a.mT + torch.eye(3)) for a in torch.randn(2, 3, 3, generator=generator))
    a, b = torch.randn(2, 2, 4, generator=generator)
    d = torch.distributions
    diagonal = (d.Independent(d.Normal(mean, std.exp()), 1) for mean, std in ((m, s), (r, t)))
    dense = (d.MultivariateNormal(mean, scale_tril=scale) for mean, scale in ((m, A), (r, B)))
    yield DiagonalGaussian(m, s), DiagonalGaussian(r, t), *diagonal
    yield Gaussian(m, A), Gaussian(r, B), *dense
    yield Categorical(a), Categorical(b), d.Categorical(logits=a), d.Categorical(logits=b)


def test_densities_are_those_of_torch(float64, generator):
    for q, _, theirs, _ in pairs(generator):
        z = q.from_noise(q.noise(generator, 7))
        torch.testing.assert_close(q.log_prob(z), theirs.log_prob(z))


def test_divergences_are_those_of_torch(float64, generator):
    for q, p, *theirs in pairs(generator):
        torch.testing.assert_close(q.kl(p), torch.distributions.kl_divergence(*theirs))
        assert (q.kl(p) > 0).all()
        torch.testing.assert_close(q.kl(q), torch.zeros(2))


def test_the_closed_form_is_the_mean_of_log_q_minus_log_p(float64, generator):
    for q, p, *_ in pairs(generator):
        z = q.from_noise(q.noise(generator, 40_000))
        ratios = q.log_prob(z) - p.log_prob(z)
        assert ((ratios.mean(0) - q.kl(p)).abs() < 4 * ratios.std(0) / 200).all()


def test_draws_have_the_moments_of_the_distribution(float64, generator):
    n = 40_000
    for q, _, theirs, _ in list(pairs(generator))[:2]:
        z = q.from_noise(q.noise(generator, n))
        variance = theirs.variance
        assert ((z.mean(0) - q.mean).abs() < 4 * (variance / n).sqrt()).all()
        assert ((z.var(0) / variance - 1).abs() < 4 * math.sqrt(2 / n)).all()
    A = q.scale_tril
    torch.testing.assert_close(torch.cov(z[:, 0].T), A @ A.T, atol=0.1, rtol=0)


def test_a_categorical_draws_each_state_as_often_as_it_should(float64, generator):
    q, n = Categorical(torch.tensor([0.1, 0.2, 0.7]).log()), 20_000
    counts = torch.bincount(q.from_noise(q.noise(generator, n)), minlength=3)
    expected = n * q.log_probs.exp()
    assert ((counts - expected) ** 2 / expected).sum() < 2 + 4 * 2


def test_a_categorical_cuts_the_unit_interval(float64):
    q = Categorical(torch.tensor([0.2, 0.5, 0.3]).log())
    assert q.from_noise(torch.tensor([0.0, 0.199, 0.201, 0.699, 0.701, 1 - 2**-53])).tolist() == [
        *[0, 0, 1, 1, 2, 2]
    ]


def test_a_dense_gaussian_is_the_same_distribution(float64, generator):
    q = next(pairs(generator))[0]
    z = q.from_noise(q.noise(generator, 5))
    torch.testing.assert_close(q.dense().log_prob(z), q.log_prob(z))
    noise = q.noise(generator, 5)
    torch.testing.assert_close(q.dense().from_noise(noise), q.from_noise(noise))


def test_the_standard_normal_has_its_own_two_formulas(float64, generator):
    m, s = torch.randn(2, 4, 3, generator=generator)
    prior = DiagonalGaussian(torch.zeros(3), torch.zeros(3))
    torch.testing.assert_close(gaussian_log_prob(m), prior.log_prob(m))
    torch.testing.assert_close(gaussian_kl(m, s), DiagonalGaussian(m, s).kl(prior))


@given(sizes=SIZES, batch=SIZES, latents=st.integers(1, 3))
def test_shapes_are_sizes_then_batch_then_event(sizes, batch, latents):
    zeros, g = torch.zeros(*batch, latents), torch.Generator()
    everyone = [
        (DiagonalGaussian(zeros, zeros), (latents,)),
        (Gaussian(zeros, torch.eye(latents)), (latents,)),
        (Categorical(zeros), ()),
    ]
    for q, event in everyone:
        z = q.from_noise(q.noise(g, *sizes))
        assert isinstance(q, Distribution)
        assert z.shape == (*sizes, *batch, *event)
        assert q.log_prob(z).shape == (*sizes, *batch)
        assert q.kl(q).shape == tuple(batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_type_of_the_parameters(dtype, generator):
    zeros = torch.zeros(3, dtype=dtype)
    for q in (DiagonalGaussian(zeros, zeros), Gaussian(zeros, torch.eye(3, dtype=dtype)), Categorical(zeros)):
        assert q.noise(generator, 2).dtype == dtype
