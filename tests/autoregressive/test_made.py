"""MADE sees exactly the past, is a distribution, and samples each unit once."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.autoregressive import orders
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.autoregressive.made import MADE, MaskedLinear, mask
from dulcourse.errors import UsageError

HIDDEN = [(), (7,), (3, 40), (33, 33, 5)]
DEGREES = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(torch.tensor)


def networks(shape, levels, order, hidden, generator):
    """With a free logit for each level, and with smooth ones."""
    for cosines in (None, 2):
        yield MADE(shape, levels, order, hidden, cosines=cosines, generator=generator)


def some_order(name, shape, generator):
    return orders.random(shape, generator) if name == "random" else getattr(orders, name)(shape)


@given(inputs=DEGREES, outputs=DEGREES)
def test_a_mask_is_a_comparison_of_degrees(inputs, outputs):
    loose, strict = mask(inputs, outputs, strict=False), mask(inputs, outputs, strict=True)
    assert loose.shape == strict.shape == (len(outputs), len(inputs))
    for j, d_out in enumerate(outputs.tolist()):
        for i, d_in in enumerate(inputs.tolist()):
            assert loose[j, i] == (d_out >= d_in)
            assert strict[j, i] == (d_out > d_in)


@given(inputs=DEGREES, hidden=DEGREES, outputs=DEGREES)
def test_one_strict_layer_makes_the_whole_path_strict(inputs, hidden, outputs):
    paths = mask(hidden, outputs, strict=True).int() @ mask(inputs, hidden, strict=False).int()
    assert not (paths.bool() & ~mask(inputs, outputs, strict=True)).any()


@given(inputs=DEGREES, outputs=DEGREES)
def test_strict_and_reversed_loose_masks_are_complements(inputs, outputs):
    assert torch.equal(mask(inputs, outputs, strict=True), ~mask(outputs, inputs, strict=False).T)


def test_the_mask_leaves_the_weights_alone(generator):
    layer = MaskedLinear(mask(torch.arange(5), torch.arange(4), strict=True), generator=generator)
    before = layer.weight.detach().clone()
    for _ in range(4):
        layer(torch.randn(2, 5, generator=generator)).sum().backward()
    assert torch.equal(layer.weight, before)
    assert (before != 0).all()  # the weights under the mask are there, only not used
    assert not layer.weight.grad[layer.mask == 0].any()


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("name", ["raster", "spiral", "random"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 3, 2), (1, 1, 1)])
def test_each_output_sees_exactly_the_past(shape, name, hidden, float64, generator, dependencies, earlier):
    """No leak and no missing pair, however narrow the hidden layers are."""
    order = some_order(name, shape, generator)
    for model in networks(shape, 3, order, hidden, generator):
        assert torch.equal(dependencies(model, generator), earlier(order))


def test_hidden_layers_as_wide_as_the_image_see_the_past_without_direct_connections(
    float64, generator, dependencies, earlier
):
    model = MADE((1, 4, 4), 3, orders.spiral((1, 4, 4)), (64, 64), generator=generator)
    torch.nn.init.zeros_(model.direct.weight)
    assert torch.equal(dependencies(model, generator, images=64), earlier(model.order))


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 3), 2), ((2, 2, 1), 3), ((1, 1, 1), 5)])
def test_the_probabilities_of_all_images_sum_to_one(shape, levels, hidden, float64, generator, all_images):
    for model in networks(shape, levels, orders.random(shape, generator), hidden, generator):
        assert model.log_prob(all_images(shape, levels)).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("name", ["raster", "spiral", "random"])
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 2, 3), (1, 1, 1)])
def test_sampling_equals_the_naive_loop_given_the_noise(shape, name, hidden, float64, generator):
    for model in networks(shape, 4, some_order(name, shape, generator), hidden, generator):
        noise = model.noise(50, generator)
        assert torch.equal(model.from_noise(noise), AutoregressiveModel.from_noise(model, noise))


@pytest.mark.parametrize("hidden", HIDDEN)
def test_sampling_computes_each_unit_once(hidden, generator, monkeypatch):
    evaluated = []
    rows = MaskedLinear.rows

    def counting(layer, h, units, inputs):
        assert layer.mask[units, :inputs].all()  # nothing is multiplied by a masked weight
        assert not layer.mask[units, inputs:].any()  # and nothing is left out
        evaluated.extend((id(layer), unit) for unit in range(*units.indices(len(layer.mask))))
        return rows(layer, h, units, inputs)

    monkeypatch.setattr(MaskedLinear, "rows", counting)
    model = MADE((1, 4, 4), 3, orders.spiral((1, 4, 4)), hidden, generator=generator)
    model.sample(2, generator=generator)
    layers = [m for m in model.modules() if isinstance(m, MaskedLinear)]
    assert sorted(evaluated) == sorted((id(m), unit) for m in layers for unit in range(len(m.mask)))


def test_samples_follow_the_distribution(float64, generator, all_images):
    """Pearson's χ² of 20 000 samples over all 64 images: mean 63, standard deviation √126."""
    shape, n = (1, 2, 3), 20_000
    model = MADE(shape, 2, orders.spiral(shape), (20,), generator=generator)
    expected = model.log_prob(all_images(shape, 2)).exp() * n
    code = model.sample(n, generator=generator).flatten(1) @ (2 ** torch.arange(5, -1, -1))
    observed = torch.bincount(code, minlength=64)
    assert ((observed - expected) ** 2 / expected).sum() < 63 + 4 * math.sqrt(126)


def test_dropout_is_off_in_samples_and_on_in_training(generator):
    model = MADE((1, 4, 4), 3, hidden=(50,), dropout=0.5, generator=generator)
    x = torch.randint(3, (4, 1, 4, 4), generator=generator)
    with torch.random.fork_rng([]):
        assert not torch.equal(model.logits(x), model.logits(x))
    first, again = (model.sample(20, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert model.training


def test_the_first_weights_come_from_the_generator():
    state = torch.get_rng_state()
    first, again = (MADE((1, 2, 2), 3, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_carry_the_order_into_a_model_built_with_another(generator):
    source = MADE((1, 3, 3), 4, orders.spiral((1, 3, 3)), (9,), generator=generator)
    target = MADE((1, 3, 3), 4, orders.raster((1, 3, 3)), (9,), generator=generator)
    target.load_state_dict(source.state_dict())
    x = torch.randint(4, (5, 1, 3, 3), generator=generator)
    noise = source.noise(5, generator)
    assert torch.equal(source.logits(x), target.logits(x))
    assert torch.equal(source.from_noise(noise), target.from_noise(noise))


def test_all_cosines_together_can_say_everything():
    """With the constant that a softmax ignores, L − 1 cosines span all vectors of L logits."""
    basis = MADE((1, 1, 1), 7, cosines=6).basis
    assert torch.linalg.matrix_rank(torch.cat([basis, torch.ones(1, 7)])) == 7
    products = basis @ basis.T
    torch.testing.assert_close(products, torch.diag(products.diag()), atol=1e-5, rtol=0)


def test_wrong_inputs_are_refused_in_words():
    with pytest.raises(UsageError, match=r"hidden is \(4, 0\), expected widths of at least 1"):
        MADE((1, 2, 2), 3, hidden=(4, 0))
    with pytest.raises(UsageError, match="cosines is 0, expected at least 1"):
        MADE((1, 2, 2), 3, cosines=0)
    with pytest.raises(UsageError, match="not class-conditional"):
        MADE((1, 1, 1), 3).sample(1, torch.zeros(1, dtype=torch.int64), generator=torch.Generator())
