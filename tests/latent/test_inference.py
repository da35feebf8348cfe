"""The best q of each x: no worse than the encoder's, and the exact one where that is known."""

import torch

from dulcourse.latent.base import LatentModel
from dulcourse.latent.bounds import elbo_by_kl
from dulcourse.latent.inference import refine
from dulcourse.latent.vae import VAE
from tests.latent.conftest import Smooth


def elbo(model, x, q):
    """On the same fresh noise for every q."""
    noise = q.noise(torch.Generator().manual_seed(9), 2000)
    return elbo_by_kl(model, x, q, q.from_noise(noise)).detach()


def images(model, generator):
    return model.sample(6, generator=generator)


def test_each_q_gains_on_the_encoders(smooth, generator):
    x = images(smooth, generator)
    q = refine(smooth, x, generator=generator, steps=150, lr=0.05)
    gap = elbo(smooth, x, q) - elbo(smooth, x, smooth.proposal(x))
    assert (gap > -0.01).all()
    assert gap.mean() > 0.02


def test_it_stops_at_a_maximum(smooth, generator):
    x = images(smooth, generator)
    q = refine(smooth, x, generator=generator, steps=200, lr=0.05, k=64)
    best = elbo(smooth, x, q)
    for shift, stretch in ((0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)):
        other = type(q)(q.mean + shift, q.log_std + stretch)
        assert (elbo(smooth, x, other) < best).all()


def test_a_model_that_ignores_z_is_answered_with_the_prior(float64, generator):
    model = Smooth()
    torch.nn.init.zeros_(model.out)
    x = images(model, generator)
    q = refine(model, x, generator=generator, steps=300, lr=0.05)
    torch.testing.assert_close(q.mean, torch.zeros(6, 1), atol=0.02, rtol=0)
    torch.testing.assert_close(q.log_std, torch.zeros(6, 1), atol=0.02, rtol=0)


def test_the_model_is_left_alone(generator):
    model = VAE((1, 4, 4), 3, 2, hidden=8, dropout=0.5, generator=generator).train()
    before = [p.detach().clone() for p in model.parameters()]
    q = refine(model, images(model, generator), generator=generator, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert not q.mean.requires_grad
    assert isinstance(model, LatentModel)


def test_dropout_is_off_while_it_searches(generator):
    model = VAE((1, 4, 4), 3, 2, hidden=8, dropout=0.5, generator=generator)
    x, found = images(model, generator), []
    for mode in (True, False):
        g = torch.Generator().manual_seed(1)
        found.append(refine(model.train(mode), x, generator=g, steps=3))
    assert torch.equal(found[0].mean, found[1].mean)
