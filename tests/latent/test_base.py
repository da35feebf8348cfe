"""The base class, on a model for which every integral over z is a sum of eighty terms."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dulcourse
from dulcourse.errors import UsageError
from dulcourse.latent.base import (
    Amortised,
    Enumerable,
    Joint,
    LatentModel,
    log_joint,
    log_likelihoods,
    log_weights,
    negative_elbo,
)
from tests.latent.conftest import Smooth


def over_noise(model, x, values, nodes):
    """E over the noise of values(x, noise), image by image."""
    noise, weights = nodes
    return torch.stack([weights @ values(one.expand(len(noise), -1, -1, -1), noise) for one in x])


def log_p(model, x, nodes):
    """log ∫ N(z; 0, 1) p(x | z) dz."""
    z, weights = nodes
    log_likelihood = torch.stack([model.log_likelihood(one.expand(len(z), -1, -1, -1), z) for one in x])
    return torch.logsumexp(log_likelihood + weights.log(), 1)


def test_the_probabilities_of_all_images_sum_to_one(smooth, normal_nodes, every):
    total = log_p(smooth, every(smooth.shape, 3), normal_nodes).exp().sum()
    assert total.item() == pytest.approx(1)


def test_the_mean_weight_is_the_likelihood(smooth, normal_nodes, every):
    """E_q exp(log_weight) = p(x): whatever q is."""
    x = every(smooth.shape, 3)
    weight = over_noise(smooth, x, lambda x, e: smooth.log_weight(x, e).exp(), normal_nodes)
    torch.testing.assert_close(weight.log(), log_p(smooth, x, normal_nodes))


def test_elbo_and_log_weight_have_the_same_expectation(smooth, normal_nodes, every):
    x = every(smooth.shape, 3)
    elbo, weight = (over_noise(smooth, x, f, normal_nodes) for f in (smooth.elbo, smooth.log_weight))
    torch.testing.assert_close(elbo, weight)
    assert (elbo < log_p(smooth, x, normal_nodes)).all()


def test_the_two_are_not_the_same_number(smooth, generator):
    x = torch.tensor([[0, 1], [2, 0], [1, 1]]).view(3, 1, 1, 2)
    noise = smooth.noise(3, generator)
    q = smooth.proposal(x)
    z = q.from_noise(noise)
    _, kl = smooth.terms(x, noise)
    difference = kl - (q.log_prob(z) - smooth.prior.log_prob(z))
    torch.testing.assert_close(smooth.log_weight(x, noise) - smooth.elbo(x, noise), difference)
    assert (difference.abs() > 1e-3).all()


def test_both_terms_are_sums_over_their_elements(float64, generator):
    """Means in one of them would weigh it by 1/D or 1/latents."""
    model = Smooth((2, 2, 3), 4, latents=5)
    x, noise = torch.randint(4, (6, 2, 2, 3), generator=generator), model.noise(6, generator)
    mean, log_std = model.encode(x)
    logits = model.decode(mean + log_std.exp() * noise)
    normal = torch.distributions.Normal
    each = torch.log_softmax(logits, 1).gather(1, x.unsqueeze(1))
    kl = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(0.0, 1.0))
    log_likelihood, total = model.terms(x, noise)
    torch.testing.assert_close(log_likelihood, each.flatten(1).sum(1))
    torch.testing.assert_close(total, kl.sum(1))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_beta_weighs_the_divergence_alone(smooth, generator, beta):
    x, noise = torch.ones(2, 1, 1, 2, dtype=torch.int64), smooth.noise(2, generator)
    log_likelihood, kl = smooth.terms(x, noise)
    torch.testing.assert_close(smooth.elbo(x, noise, beta), log_likelihood - beta * kl)


def test_the_loss_is_minus_the_bound_at_fresh_noise(smooth, generator):
    x = torch.ones(2, 1, 1, 2, dtype=torch.int64)
    loss = negative_elbo(smooth, x, None, torch.Generator().manual_seed(5))
    noise = smooth.noise(2, torch.Generator().manual_seed(5))
    assert torch.equal(loss, -smooth.elbo(x, noise))
    assert not torch.equal(loss, negative_elbo(smooth, x, None, generator))


def test_several_draws_an_image_keep_their_image(smooth, generator):
    x = torch.tensor([[0, 1], [2, 0], [1, 1]]).view(3, 1, 1, 2)
    q = smooth.proposal(x)
    noise = q.noise(generator, 4)
    z = q.from_noise(noise)
    for k in range(4):
        torch.testing.assert_close(log_likelihoods(smooth, x, z)[k], smooth.log_likelihood(x, z[k]))
        torch.testing.assert_close(log_weights(smooth, x, q, z)[k], smooth.log_weight(x, noise[k]))
    torch.testing.assert_close(
        log_joint(smooth, x, z) - log_likelihoods(smooth, x, z), smooth.prior.log_prob(z)
    )


def test_samples_have_the_marginals_of_the_decoder(smooth, normal_nodes, every, generator):
    """Pearson's χ² of 20 000 samples over all 9 images: mean 8, standard deviation 4."""
    n = 20_000
    expected = n * log_p(smooth, every(smooth.shape, 3), normal_nodes).exp()
    x = smooth.sample(n, generator=generator)
    assert x.shape == (n, 1, 1, 2)
    observed = torch.bincount(x.flatten(1) @ torch.tensor([3, 1]), minlength=9)
    assert ((observed - expected) ** 2 / expected).sum() < 8 + 4 * 4


def test_every_pixel_of_a_sample_has_its_own_draw(float64, generator):
    model = Smooth((1, 4, 4), 2)
    torch.nn.init.zeros_(model.out)
    x = model.sample(2000, generator=generator).double()
    correlation = torch.corrcoef(x.flatten(1).T) - torch.eye(16)
    assert correlation.abs().max() < 5 / math.sqrt(2000)


def test_sampling_is_in_evaluation_mode_and_leaves_no_trace(smooth):
    smooth.train()
    first, again = (smooth.sample(3, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert smooth.training
    assert smooth.modes == {False}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_and_prior_have_the_type_of_the_weights(dtype, generator):
    model = Smooth().to(dtype)
    assert model.noise(3, generator).dtype == model.prior.mean.dtype == dtype
    assert model.noise(3, generator).shape == (3, 1)


@given(n=st.integers(1, 3), k=st.integers(1, 3), latents=st.integers(1, 3), c=st.integers(1, 2))
def test_shapes(n, k, latents, c):
    model, g = Smooth((c, 2, 1), 3, latents), torch.Generator().manual_seed(0)
    x = model.sample(n, generator=g)
    q = model.proposal(x)
    z = q.from_noise(q.noise(g, k))
    assert z.shape == (k, n, latents)
    assert log_weights(model, x, q, z).shape == (k, n)
    assert model.elbo(x, model.noise(n, g)).shape == model.log_weight(x, model.noise(n, g)).shape == (n,)


def test_models_keep_the_protocols_that_they_should(smooth, linear, mixture):
    for model, protocols in ((smooth, {Joint, Amortised}), (linear, {Joint, Amortised})):
        assert {p for p in (Joint, Amortised, Enumerable) if isinstance(model, p)} == protocols
    assert all(isinstance(mixture, protocol) for protocol in (Joint, Amortised, Enumerable))


def test_what_does_not_fit_is_refused_in_words(smooth, generator):
    with pytest.raises(UsageError, match="latents is 0, expected at least 1"):
        LatentModel((1, 2, 2), 3, 0)
    with pytest.raises(UsageError, match="levels is 1"):
        LatentModel((1, 2, 2), 1, 3)
    noise = smooth.noise(1, generator)
    for call in (smooth.elbo, smooth.log_weight, smooth.log_likelihood):
        with pytest.raises(UsageError, match="expected 0 to 2"):
            call(torch.full((1, 1, 1, 2), 3), noise)


def test_a_model_without_networks_says_so():
    model = LatentModel((1, 1, 1), 2, 1)
    with pytest.raises(NotImplementedError, match=r"does not define encode\(x\)"):
        model.encode(torch.zeros(1, 1, 1, 1, dtype=torch.int64))
    with pytest.raises(NotImplementedError, match=r"does not define decode\(z\)"):
        model.decode(torch.zeros(1, 1))


def test_nothing_that_a_homework_withholds_is_needed():
    """What students write of this lecture is missing behind the wall; all the rest imports without it."""
    code = """if True:
        import sys
        names = ("bounds", "estimators", "gradients", "inference", "vae")
        sys.modules |= dict.fromkeys(f"dulcourse.latent.{name}" for name in names)  # importing one now fails
        from dulcourse.latent import base, distributions, linear_gaussian, mixture
        del sys.modules["dulcourse.latent.vae"]
        from dulcourse.latent import vae
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(dulcourse.__file__).parents[1])
