"""Samples against the model's own conditionals, which another party answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.errors import UsageError
from dulcourse.referee.respondent import Malformed
from dulcourse.referee.sampler import _nearest, draw, judge, sampler_test, spread_statistic, z_statistic
from tests.referee.parties import Answering, local, noise, raster


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sampled(model, order, n, generator, temperature=1.0):
    """The naive loop, in an order that may be the wrong one."""
    x = torch.zeros(n, *model.shape, dtype=torch.int64)
    for i in order.tolist():
        with torch.no_grad():
            p = (model.logits(x).flatten(2)[:, :, i] / temperature).softmax(1)
        x.view(n, -1)[:, i] = torch.multinomial(p, 1, generator=generator)[:, 0]
    return x


class Sampling(torch.nn.Module):
    """A model with another sampler."""

    def __init__(self, model, sample):
        super().__init__()
        self.model, self._sample = model, sample
        self.shape, self.levels = model.shape, model.levels

    def logits(self, x, y=None):
        return self.model.logits(x)

    def sample(self, n, *, generator):
        return self._sample(n, generator)


def examined(made, sample=None, n=128):
    party = local(made.model if sample is None else Sampling(made.model, sample))
    return sampler_test(
        party, party, "made", made.frozen, n, train=made.train, generator=rng(), reference=made.model
    )


def test_a_sampler_that_follows_its_conditionals_passes(made):
    result = examined(made)
    assert result.passed, result.words
    assert abs(result.z) < 4
    assert result.spread < 4
    assert result.samples.shape == (128, 1, 8, 8)


def test_the_wrong_order_is_named(made):
    """`rank` for `order`: the classic. The sum may hide it, the single positions do not."""
    result = examined(made, lambda n, g: sampled(made.model, made.model.rank, n, g))
    assert not result.passed
    assert "the samples do not follow the conditionals" in result.words[0]
    assert "`order`" in result.words[0]
    assert "`rank`" in result.words[0]


def test_a_cold_sampler_is_told_from_a_wrong_order(made):
    result = examined(made, lambda n, g: sampled(made.model, made.model.order, n, g, temperature=0.7))
    assert not result.passed
    assert result.z < -5
    assert "temperature 1" in result.words[0]


def test_copies_of_training_images_are_recognised_even_with_noise(made):
    def copies(n, g):
        x = torch.from_numpy(made.train)[torch.randint(len(made.train), (n,), generator=g)].clone()
        x.view(n, -1)[torch.arange(n), torch.randint(64, (n,), generator=g)] = 0
        return x

    result = examined(made, copies)
    assert not result.passed
    assert any("copies" in words for words in result.words)


def test_one_image_over_and_over_is_recognised(made):
    single = sampled(made.model, made.model.order, 1, torch.Generator().manual_seed(0))
    result = examined(made, lambda n, g: single.repeat(n, 1, 1, 1))
    assert not result.passed
    assert any("differ from each other" in words for words in result.words)


def test_the_largest_entry_is_not_a_draw(made):
    def largest(n, g):
        x = torch.zeros(n, *made.model.shape, dtype=torch.int64)
        for pixel in made.model.order.tolist():
            x.flatten(1)[:, pixel] = made.model.logits(x).flatten(2)[:, :, pixel].argmax(1)
        return x

    result = examined(made, largest)
    assert not result.passed
    assert "not its largest entry" in result.words[0]


def test_faked_conditionals_for_meaningless_samples_do_not_pass(made):
    """Noise, and a uniform conditional for it: z is perfect, the reference is not convinced."""

    class Noise(torch.nn.Module):
        shape, levels = (1, 8, 8), 4

        def logits(self, x, y=None):
            return torch.zeros(len(x), 4, *self.shape)

        def sample(self, n, *, generator):
            return torch.randint(4, (n, *self.shape), generator=generator)

    party = local(Noise())
    result = sampler_test(
        party, party, "made", made.frozen, 64, train=made.train, generator=rng(), reference=made.model
    )
    assert result.z == 0.0
    assert not result.passed
    assert "too improbable for this data" in result.words[0]


def test_blank_images_are_too_simple(made):
    class Blank(torch.nn.Module):
        shape, levels = (1, 8, 8), 4

        def logits(self, x, y=None):
            return 40.0 * torch.eye(4)[0].view(1, 4, 1, 1, 1).expand(len(x), 4, *self.shape)

        def sample(self, n, *, generator):
            return torch.zeros(n, *self.shape, dtype=torch.int64)

    party = local(Blank())
    result = sampler_test(
        party, party, "made", made.frozen, 64, train=made.train, generator=rng(), reference=made.model
    )
    assert not result.passed
    assert any("too simple" in words for words in result.words)


def test_held_out_images_stand_in_for_a_reference(made):
    party = local(made.model)
    settings = {"train": made.train, "generator": rng(), "honest": made.images[:128]}
    assert sampler_test(party, party, "made", made.frozen, 128, **settings).passed
    with pytest.raises(UsageError, match="pass one of them"):
        judge(party, "made", made.frozen, made.images[:9], train=made.train, generator=rng())


def test_the_two_parties_need_not_know_each_other(made):
    """A samples, and is gone; B, who replays the weights, is asked blind."""
    samples = draw(local(made.model), "made", made.frozen, 64, generator=rng())
    answering = Answering(
        lambda x, position: local(made.model).call("made.conditional", {"x": x, "position": position})[
            "log_p"
        ]
    )
    settings = {"train": made.train, "generator": rng(1), "reference": made.model}
    assert judge(answering, "made", made.frozen, samples, **settings).passed
    ((_, sent),) = answering.questions
    seen = sent["x"].reshape(-1, 64)[np.arange(len(sent["x"])), sent["position"]]
    assert not np.array_equal(seen, np.repeat(samples.reshape(64, -1), 64, axis=0)[:, 0])
    assert len(sent["x"]) == 64 * 64


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (lambda n, g: torch.zeros(n, 1, 8, 7, dtype=torch.int64), "shape"),
        (lambda n, g: torch.zeros(n - 1, 1, 8, 8, dtype=torch.int64), "shape"),
        (lambda n, g: torch.full((n, 1, 8, 8), 4), "outside 0 … 3"),
        (lambda n, g: torch.full((n, 1, 8, 8), -1), "outside 0 … 3"),
        (lambda n, g: torch.zeros(n, 1, 8, 8), "expected integers"),
        (lambda n, g: [] / 0, "TypeError"),
    ],
)
def test_what_are_no_samples_is_said_in_words(made, sample, words):
    result = examined(made, sample)
    assert (result.passed, result.z, result.samples) == (False, None, None)
    assert words in result.words[0]


def test_a_party_that_does_not_answer_for_its_samples_fails(made):
    def fail(x, position):
        raise Malformed("no")

    settings = {"train": made.train, "generator": rng(), "reference": made.model}
    result = judge(Answering(fail), "made", made.frozen, made.images[:16], **settings)
    assert (result.passed, result.z) == (False, None)
    spoiled = Answering(lambda x, position: np.full((len(x), 4), np.nan))
    result = judge(spoiled, "made", made.frozen, made.images[:16], **settings)
    assert "not finite" in result.words[0]


def test_z_and_spread_are_standard_for_draws_from_the_conditionals():
    generator = rng(5)
    zs, spreads = [], []
    for _ in range(200):
        log_p = np.log(generator.dirichlet(np.ones(5), size=400))
        u = generator.random((400, 1))
        symbols = (np.exp(log_p).cumsum(axis=1) < u).sum(axis=1).clip(max=4)
        zs.append(z_statistic(log_p, symbols))
        spreads.append(spread_statistic(log_p, symbols, np.arange(400) % 8))
    assert abs(np.mean(zs)) < 0.25
    assert 0.8 < np.std(zs) < 1.2
    assert abs(np.mean(spreads)) < 0.5
    assert 0.7 < np.std(spreads) < 1.4


def test_no_variance_leaves_one_admissible_value():
    certain = np.tile([0.0, -2000.0], (10, 1))
    assert z_statistic(certain, np.zeros(10, np.int64)) == 0
    assert z_statistic(certain, np.ones(10, np.int64)) == math.inf
    assert z_statistic(np.zeros((10, 4)), np.arange(10) % 4) == 0


def test_numbers_of_any_size_leave_no_warning():
    log_p = np.tile([1.7e308, -1.7e308, 0.0], (30, 1))
    assert z_statistic(log_p, np.zeros(30, np.int64)) == 0
    assert spread_statistic(log_p, np.zeros(30, np.int64), np.arange(30) % 2) == 0


def test_too_few_draws_have_no_spread():
    assert spread_statistic(np.zeros((4, 4)), np.zeros(4, np.int64), np.arange(4)) == 0


def test_a_conditional_sampler_is_held_against_the_conditionals_of_its_labels():
    """The model knows nothing but its label; who swaps two labels while sampling is found out."""

    class ByLabel(AutoregressiveModel):
        def __init__(self, swap=False):
            super().__init__((1, 4, 4), 4)
            self.swap = swap
            self.table = 2 * torch.randn(3, 4, 1, 4, 4, generator=torch.Generator().manual_seed(0))

        def logits(self, x, y=None):
            return self.table[y]

        def sample(self, n, y=None, *, generator):
            p = self.table[(y + 1) % 3 if self.swap else y].softmax(1).flatten(2).transpose(1, 2)
            return torch.multinomial(p.reshape(-1, 4), 1, generator=generator).view(n, 1, 4, 4)

    labels = np.arange(90) % 3
    frozen = raster((1, 4, 4), 4)
    settings = {"train": noise((1, 4, 4), 4, 200), "reference": ByLabel(), "labels": labels}
    for swap in (False, True):
        party = local(ByLabel(swap), "m")
        result = sampler_test(party, party, "m", frozen, 90, generator=rng(), **settings)
        assert result.passed is not swap, result.words


@given(st.integers(0, 2**31), st.sampled_from([2, 4, 256, 300]), st.integers(1, 300))
def test_the_nearest_training_image_is_found(seed, levels, pixels):
    generator = np.random.default_rng(seed)
    x, train = (generator.integers(levels, size=(n, 1, 1, pixels)) for n in (3, 5))
    train[0, 0, 0, : pixels // 2] = x[1, 0, 0, : pixels // 2]
    naive = [min(int((image != other).sum()) for other in train) for image in x]
    assert _nearest(x, train).tolist() == naive
