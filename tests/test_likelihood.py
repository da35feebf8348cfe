"""Units: a code length is what it says it is."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.errors import UsageError
from dulcourse.likelihood import bits_per_dim, log_prob, nats_to_bits


@given(levels=st.integers(2, 300), dims=st.integers(1, 50))
def test_a_uniform_model_costs_log2_of_the_levels(levels, dims):
    logits, x = torch.zeros(3, levels, dims, dtype=torch.float64), torch.full((3, dims), levels - 1)
    bits = bits_per_dim(log_prob(logits, x), dims)
    torch.testing.assert_close(bits, torch.full((3,), math.log2(levels), dtype=torch.float64))


def test_half_the_probability_costs_one_bit():
    assert nats_to_bits(math.log(2)) == 1
    assert bits_per_dim(10 * math.log(0.5), 10) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 2)])
def test_log_prob_is_the_sum_of_the_selected_log_softmax(shape, generator):
    logits = torch.randn(4, 5, *shape, generator=generator)
    x = torch.randint(5, (4, *shape), generator=generator)
    every = torch.log_softmax(logits, 1).flatten(2) if shape else torch.log_softmax(logits, 1)[..., None]
    expected = torch.stack([sum(every[n, k, i] for i, k in enumerate(x[n].flatten())) for n in range(4)])
    torch.testing.assert_close(log_prob(logits, x), expected)


def test_probabilities_of_all_images_sum_to_one(float64, generator):
    x = torch.tensor(list(product(range(3), repeat=4)))
    logits = torch.randn(1, 3, 4, generator=generator).expand(len(x), -1, -1)
    assert log_prob(logits, x).exp().sum().item() == pytest.approx(1)


def test_the_loss_is_minus_the_mean_log_prob(generator):
    logits = torch.randn(6, 5, 1, 2, 2, generator=generator)
    x = torch.randint(5, (6, 1, 2, 2), generator=generator)
    loss = torch.nn.functional.cross_entropy(logits, x)  # nats a symbol
    torch.testing.assert_close(bits_per_dim(log_prob(logits, x), 4).mean(), nats_to_bits(loss))


def test_no_images_have_no_log_prob():
    assert log_prob(torch.zeros(0, 5, 2), torch.zeros(0, 2, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("value", [-1, -100, 5])
def test_a_symbol_that_does_not_exist_is_named(value):
    with pytest.raises(UsageError, match=rf"{value}.*expected 0 to 4 for levels=5"):
        log_prob(torch.zeros(1, 5, 2), torch.tensor([[value, 2]]))


def test_bits_per_no_dimension():
    with pytest.raises(UsageError, match="dims ≥ 1, got 0"):
        bits_per_dim(-1.0, 0)
