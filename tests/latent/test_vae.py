"""Variational autoencoders: shapes, first weights, what is bounded, and that they learn."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dulcourse.cosines import basis
from dulcourse.data.dataset import Dataset
from dulcourse.errors import UsageError
from dulcourse.latent.base import LatentModel, negative_elbo
from dulcourse.latent.bounds import negative_beta_elbo, negative_iwae
from dulcourse.latent.vae import HIGHEST, LOWEST, VAE, ConvVAE, active_units, bounded
from dulcourse.training import evaluate, fit

SIZES = {VAE: {"hidden": 20}, ConvVAE: {"channels": 4}}


def models(shape, levels, latents, generator, **options):
    for cls, size in SIZES.items():
        yield cls(shape, levels, latents, generator=generator, **size, **options)


def bars(n, generator):
    """4×4 images of three levels that one number explains: which row is lit, and how brightly."""
    row, level = (torch.randint(k, (n,), generator=generator) for k in (4, 2))
    x = torch.zeros(n, 1, 4, 4, dtype=torch.int64)
    x[torch.arange(n), 0, row] = (level + 1).unsqueeze(1)
    return Dataset("bars", "train", x, None, 3)


@settings(max_examples=20)
@given(
    c=st.integers(1, 3),
    h=st.integers(1, 2),
    w=st.integers(1, 2),
    levels=st.integers(3, 5),
    latents=st.integers(1, 4),
    n=st.integers(1, 3),
    cosines=st.sampled_from([None, 2]),
)
def test_shapes(c, h, w, levels, latents, n, cosines):
    g, shape = torch.Generator().manual_seed(0), (c, 4 * h, 4 * w)
    for model in models(shape, levels, latents, g, cosines=cosines):
        x = torch.randint(levels, (n, *shape), generator=g)
        mean, log_std = model.encode(x)
        assert mean.shape == log_std.shape == (n, latents)
        assert model.decode(mean).shape == (n, levels, *shape)
        assert model.sample(n, generator=g).shape == x.shape
        assert model.elbo(x, model.noise(n, g)).shape == (n,)


def test_the_dense_model_takes_any_shape(generator):
    model = VAE((2, 3, 5), 4, 2, hidden=8, generator=generator)
    assert model.sample(3, generator=generator).shape == (3, 2, 3, 5)


@pytest.mark.parametrize("cosines", [None, 2])
def test_images_do_not_touch_each_other(cosines, float64, generator):
    """No batch statistics: a row of the batch is encoded and decoded as if it were alone."""
    for model in models((1, 4, 4), 3, 2, generator, cosines=cosines):
        x = torch.randint(3, (5, 1, 4, 4), generator=generator)
        mean, log_std = model.encode(x)
        torch.testing.assert_close(model.encode(x[2:3]), (mean[2:3], log_std[2:3]))
        torch.testing.assert_close(model.decode(mean[2:3]), model.decode(mean)[2:3])


def test_every_symbol_is_encoded_and_every_latent_decoded(float64, generator):
    for model in models((2, 4, 4), 3, 3, generator):
        x = torch.randint(3, (8, 2, 4, 4), generator=generator)
        for i in range(model.dims):
            other = x.flatten(1).clone()
            other[:, i] = (other[:, i] + 1) % 3
            assert not torch.equal(model.encode(other.view_as(x))[0], model.encode(x)[0])
        z = torch.randn(8, 3, generator=generator)
        for j in range(3):
            other = z.clone()
            other[:, j] += 1
            assert (model.decode(other) != model.decode(z)).any(0).all()


def test_cosines_are_those_of_the_level(float64, generator):
    """Output f of a symbol is the weight of the f-th cosine of its levels, channel by channel."""
    model = VAE((2, 3, 3), 6, 2, hidden=8, cosines=3, generator=generator)
    z = torch.randn(4, 2, generator=generator)
    outputs = model.decoder(z).view(4, 3, 2, 3, 3)
    expected = sum(outputs[:, f].unsqueeze(1) * basis(6, 3)[f].view(1, 6, 1, 1, 1) for f in range(3))
    torch.testing.assert_close(model.decode(z), expected)


def test_the_second_half_of_the_encoder_is_the_log_std(float64, generator):
    for model in models((1, 4, 4), 3, 2, generator):
        x = torch.randint(3, (5, 1, 4, 4), generator=generator)
        mean, log_std = model.encode(x)
        outputs = model.encoder(x.double() - 1)  # levels 0, 1, 2 are -1, 0, 1 inside
        torch.testing.assert_close(mean, outputs[:, :2])
        torch.testing.assert_close(log_std, bounded(outputs[:, 2:]))


def test_smooth_levels_leave_every_softmax_within_reach(float64, generator):
    """The bias says what the cosines cannot: a spike on one level of one symbol."""
    model = VAE((1, 4, 4), 17, 2, hidden=8, cosines=3, generator=generator)
    with torch.no_grad():
        model.bias[7, 0, 1, 2] = 50.0
    p = model.decode(torch.zeros(1, 2)).softmax(1)
    assert p[0, 7, 0, 1, 2] > 0.999
    assert p[0, 7, 0, 2, 1] < 0.2


def test_a_small_log_std_passes_unchanged(float64):
    raw = torch.linspace(-7.0, -2.0, 50, requires_grad=True)
    out = bounded(raw)
    assert (out - raw).abs().max() < 0.13
    inner = (raw >= -6) & (raw <= -3)
    assert (out - raw)[inner].abs().max() < 0.05
    (slope,) = torch.autograd.grad(out.sum(), raw)
    assert ((slope > 0.85) & (slope <= 1)).all()


def test_no_log_std_is_extreme_and_none_is_stuck():
    raw = torch.tensor([-1e4, -40.0, 0.0, 40.0, 1e4], requires_grad=True)
    out = bounded(raw)
    assert ((out > LOWEST - 1e-4) & (out < HIGHEST + 1e-4)).all()
    near = torch.tensor([-20.0, 12.0], requires_grad=True)
    (slope,) = torch.autograd.grad(bounded(near).sum(), near)
    assert (slope > 0).all()
    (slope,) = torch.autograd.grad(out.sum(), raw)
    assert torch.isfinite(slope).all()


def test_the_first_weights_come_from_the_generator():
    state = torch.get_rng_state()
    for cls, size in SIZES.items():
        first, again = (
            cls((1, 4, 4), 3, 2, generator=torch.Generator().manual_seed(2), **size) for _ in range(2)
        )
        other = cls((1, 4, 4), 3, 2, generator=torch.Generator().manual_seed(3), **size)
        x = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
        assert not torch.equal(first.encode(x)[0], other.encode(x)[0])
    # Building layers draws from torch's own generator, but never lets it decide a weight.
    torch.set_rng_state(state)


def test_the_first_layers_keep_the_scale(float64, generator):
    """Neither exploding nor dying: the first logits are of the order of one."""
    for model in models((1, 8, 8), 5, 6, generator):
        z = torch.randn(200, 6, generator=generator)
        assert 0.02 < model.decode(z).std() < 3


def test_dropout_is_off_in_samples_and_on_in_training(generator):
    for model in models((1, 4, 4), 3, 2, generator, dropout=0.5):
        z = torch.randn(4, 2, generator=generator)
        with torch.random.fork_rng([]):
            assert not torch.equal(model.decode(z), model.decode(z))
        first, again = (model.sample(9, generator=torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again)


@pytest.mark.parametrize("loss", [negative_elbo, negative_iwae(3)])
@pytest.mark.parametrize("cls", [VAE, ConvVAE])
def test_it_learns(cls, loss, generator):
    """Eight images, three bits: far below the 1.06 bits per dimension of independent pixels."""
    data, fresh = bars(400, generator), bars(100, generator)
    model = cls((1, 4, 4), 3, 2, generator=generator, **({"hidden": 32} if cls is VAE else {"channels": 16}))
    options = {"steps": 200, "batch_size": 32, "lr": 4e-3, "evaluate_every": 100, "progress": False}
    fit(model, data, fresh, generator=generator, loss=loss, **options)
    bits = evaluate(model, fresh, loss=negative_iwae(50))
    assert 3 / 16 - 0.01 < bits < 0.5


def test_iwae_is_the_tighter_bound_of_a_trained_model(generator):
    data = bars(200, generator)
    model = VAE((1, 4, 4), 3, 2, hidden=16, generator=generator)
    options = {"steps": 60, "batch_size": 32, "lr": 1e-2, "evaluate_every": 60, "progress": False}
    fit(model, data, data, generator=generator, loss=negative_elbo, **options)
    losses = [negative_elbo, *(negative_iwae(k) for k in (10, 100))]
    bits = [evaluate(model, data, loss=loss) for loss in losses]
    assert bits[0] > bits[1] > bits[2]


def test_a_high_beta_collapses_the_posterior(generator):
    """Nothing is worth a nat if each costs a hundred; at β = 0.1 the code is used."""
    data, counts = bars(300, generator), []
    for beta in (0.1, 100.0):
        model = VAE((1, 4, 4), 3, 3, hidden=32, generator=torch.Generator().manual_seed(1))
        options = {"steps": 200, "batch_size": 32, "lr": 5e-3, "evaluate_every": 200, "progress": False}
        fit(model, data, data, generator=generator, loss=negative_beta_elbo(beta), **options)
        counts.append(active_units(model, data.x)[1])
    assert counts[0] >= 1
    assert counts[1] == 0


def test_active_units_are_those_whose_mean_moves(generator):
    class Half(LatentModel):
        def encode(self, x):
            total = x.flatten(1).sum(1, keepdim=True).float()
            return torch.cat([total, torch.full_like(total, 9.0)], 1), torch.zeros(len(x), 2)

    x = torch.randint(3, (50, 1, 2, 2), generator=generator)
    activity, count = active_units(Half((1, 2, 2), 3, 2), x)
    assert count == 1
    torch.testing.assert_close(activity[0], x.flatten(1).sum(1).float().var(correction=0))
    assert activity[1] == 0
    assert active_units(Half((1, 2, 2), 3, 2), x, threshold=math.inf)[1] == 0


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(UsageError, match="images are 6 by 8, expected multiples of 4"):
        ConvVAE((1, 6, 8), 3, 2)
    with pytest.raises(UsageError, match="channels is 0"):
        ConvVAE((1, 4, 4), 3, 2, channels=0)
    with pytest.raises(UsageError, match="hidden is 0"):
        VAE((1, 4, 4), 3, 2, hidden=0)
    for cosines in (0, 3):
        with pytest.raises(UsageError, match=f"cosines is {cosines}, expected 1 to 2"):
            VAE((1, 4, 4), 3, 2, cosines=cosines)
