"""Each layer sees exactly its window, and any stack of them gives the same in cached passes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.autoregressive.causal import (
    CausalModel,
    Crossing,
    HorizontalConv,
    MaskedConv,
    Pointwise,
    Readout,
    Symbols,
    VerticalConv,
    caching,
    groups,
    mask,
)
from dulcourse.errors import UsageError

RGB = torch.tensor([0, 0, 1, 2, 2])  # two features of red, one of green, two of blue
SQUARE, ROW = (MaskedConv, HorizontalConv)


class Stack(CausalModel):
    """Layers in a chain, as a reader might write it: nothing in it is about sampling."""

    def __init__(self, shape, kinds, generator):
        super().__init__(shape, 3)
        features = groups(6, shape[0])
        self.symbols = Symbols(shape[0], 3)
        self.chain = torch.nn.ModuleList(
            kind(features if i else self.symbols.groups, features, kernel, strict=i == 0, generator=generator)
            for i, (kind, kernel) in enumerate(kinds)
        )
        self.readout = Readout(features, shape[0], 3, generator=generator)

    def logits(self, x, y=None):
        first, *rest = self.chain
        h = torch.tanh(first(self.symbols(x)))
        for layer in rest:
            h = h + F.dropout(torch.sin(layer(h)), 0.5, self.training)
        return self.readout(h)


def seen(layer, inputs, pixel, size=(6, 7)):
    """bool [outputs, inputs, H, W]: which inputs the outputs at a pixel depend on, by the Jacobian."""

    def at_pixel(h):
        return layer(h)[0, :, pixel[0], pixel[1]]

    h = torch.randn(1, inputs, *size, generator=torch.Generator().manual_seed(1))
    return torch.autograd.functional.jacobian(at_pixel, h)[:, 0] != 0


@given(inputs=st.lists(st.integers(0, 2), min_size=1, max_size=5).map(torch.tensor), strict=st.booleans())
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_mask_compares_row_column_and_channel_in_this_order(kernel, inputs, strict):
    outputs = torch.tensor([2, 0, 1])
    allowed, k = mask(inputs, outputs, kernel, strict), kernel // 2
    assert allowed.shape == (3, len(inputs), kernel, kernel)
    for j, g_out in enumerate(outputs.tolist()):
        for i, g_in in enumerate(inputs.tolist()):
            for u in range(-k, k + 1):
                for v in range(-k, k + 1):
                    earlier = (u, v, g_in) < (0, 0, g_out) or (not strict and (u, v, g_in) == (0, 0, g_out))
                    assert allowed[j, i, u + k, v + k] == earlier


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("pixel", [(3, 3), (0, 0), (5, 6), (2, 0)])
def test_each_layer_sees_exactly_its_window(pixel, kernel, strict, float64, generator):
    outputs, k = torch.tensor([0, 1, 2]), kernel // 2
    r, c = pixel
    square = MaskedConv(RGB, outputs, kernel, strict=strict, generator=generator)
    row = HorizontalConv(RGB, outputs, kernel, strict=strict, generator=generator)
    every = {(j, i, u, v) for j in range(3) for i in range(5) for u in range(6) for v in range(7)}

    def before(j, i, u, v):
        here = RGB[i] < j or (not strict and RGB[i] == j)
        return u < r or (u == r and v < c) or ((u, v) == pixel and here)

    near = {(j, i, u, v) for j, i, u, v in every if r - k <= u <= r and abs(v - c) <= k}
    past = {entry for entry in near if before(*entry)}
    assert set(map(tuple, seen(square, 5, pixel).nonzero().tolist())) == past
    assert set(map(tuple, seen(row, 5, pixel).nonzero().tolist())) == {e for e in past if e[2] == r}
    if kernel > 1 or not strict:
        rows = VerticalConv(5, 3, kernel, strict=strict, generator=generator)
        above = {entry for entry in near if entry[2] < r + (not strict)}
        assert set(map(tuple, seen(rows, 5, pixel).nonzero().tolist())) == above


def test_a_pointwise_layer_keeps_the_channels_apart(float64, generator):
    layer = Pointwise(RGB, torch.tensor([0, 1, 2]), generator=generator)
    allowed = seen(layer, 5, (2, 3))
    expected = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(allowed[:, :, 2, 3], expected)
    assert allowed.sum() == expected.sum()  # nothing from another pixel


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", [MaskedConv, HorizontalConv, Pointwise])
def test_the_mask_leaves_the_weights_alone(kind, strict, generator):
    options = {} if kind is Pointwise else {"kernel": 3, "strict": strict}
    layer = kind(RGB, RGB, **options, generator=generator)
    before = layer.weight.detach().clone()
    for _ in range(4):
        layer(torch.randn(2, 5, 4, 4, generator=generator)).sum().backward()
        with torch.no_grad(), caching(layer, (3, 4, 4)) as cursor:
            cursor.move(0, 0)
            layer(torch.zeros(2, 5, 1, 1))
    assert torch.equal(layer.weight, before)
    assert (before != 0).all()  # the weights under the mask are there, only not used
    assert not layer.weight.grad[layer.mask == 0].any()


STACKS = st.lists(
    st.tuples(st.sampled_from([SQUARE, ROW]), st.sampled_from([1, 3, 5])), min_size=1, max_size=4
)


@given(kinds=STACKS, shape=st.tuples(*[st.integers(1, 3)] * 3), n=st.integers(1, 3), seed=st.integers(0, 9))
def test_any_stack_is_sampled_as_the_naive_loop_would(kinds, shape, n, seed):
    model = Stack(shape, kinds, torch.Generator().manual_seed(seed)).double().eval()
    noise = model.noise(n, torch.Generator().manual_seed(seed))
    assert torch.equal(model.from_noise(noise), AutoregressiveModel.from_noise(model, noise))


@given(kinds=STACKS, shape=st.tuples(*[st.integers(1, 3)] * 3), seed=st.integers(0, 9))
def test_no_stack_sees_the_future(kinds, shape, seed):
    model = Stack(shape, kinds, torch.Generator().manual_seed(seed)).double().eval()
    x = torch.randint(3, (2, *shape), generator=torch.Generator().manual_seed(seed)).flatten(1)
    before = model.logits(x.unflatten(1, shape)).flatten(2)
    for t in range(model.dims):
        other, late = x.clone(), model.order[t:]
        other[:, late] = (other[:, late] + 1) % 3
        after = model.logits(other.unflatten(1, shape)).flatten(2)
        assert torch.equal(before[:, :, model.order[: t + 1]], after[:, :, model.order[: t + 1]])


def test_the_crossing_is_the_identity_on_images(generator):
    h = torch.randn(2, 3, 4, 5, generator=generator)
    assert torch.equal(Crossing()(h), h)


def test_after_caching_the_network_works_on_images_again(generator):
    model = Stack((1, 3, 3), [(SQUARE, 3), (ROW, 3)], generator).eval()
    x = torch.randint(3, (2, 1, 3, 3), generator=generator)
    before = model.logits(x)

    def interrupted():
        with torch.no_grad(), caching(model, model.shape) as cursor:
            cursor.move(0, 0)
            assert model.logits(x[:, :, :1, :1]).shape == (2, 3, 1, 1, 1)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        interrupted()
    assert torch.equal(model.logits(x), before)
    model.from_noise(model.noise(2, generator))
    assert torch.equal(model.logits(x), before)
    assert all(layer.memory == {} for layer in model.chain)


def test_one_hot_features_are_sorted_by_channel(generator):
    x = torch.randint(4, (2, 3, 2, 5), generator=generator)
    symbols = Symbols(3, 4)
    features = symbols(x)
    assert torch.equal(features.unflatten(1, (3, 4)).argmax(2), x)
    assert torch.equal(features.sum(1), torch.full((2, 2, 5), 3.0))
    assert symbols.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_smooth_features_tell_the_levels_apart_from_each_other_and_from_nothing(generator):
    symbols = Symbols(2, 9, cosines=1)
    table = symbols(torch.arange(9).expand(2, 9)[None, :, None]).squeeze(2)[0]
    assert symbols.groups.tolist() == [0, 0, 1, 1]
    assert torch.equal(table[[0, 2]], torch.ones(2, 9))  # zero off the image
    assert (table[[1, 3]].diff() < 0).all()


def test_smooth_logits_have_few_numbers_and_the_channels_in_place(float64, generator):
    readout = Readout(groups(6, 3), 3, 5, cosines=2, generator=generator)
    assert readout.output.weight.shape == (6, 6)
    h = torch.randn(2, 6, 3, 4, generator=generator, requires_grad=True)
    logits = readout(h)
    assert logits.shape == (2, 5, 3, 3, 4)
    for c in range(3):
        (gradient,) = torch.autograd.grad(logits[:, :, c].square().sum(), h, retain_graph=True)
        assert gradient.abs().sum((0, 2, 3)).bool().tolist() == [g <= c for g in groups(6, 3)]


def test_wrong_sizes_are_refused_in_words():
    with pytest.raises(UsageError, match="kernel is 4, expected an odd number"):
        mask(RGB, RGB, 4, True)
    with pytest.raises(UsageError, match="kernel is 1, expected an odd number of at least 3"):
        VerticalConv(3, 3, 1, strict=True)
    with pytest.raises(UsageError, match="kernel is 2, expected an odd number of at least 1"):
        VerticalConv(3, 3, 2)
    with pytest.raises(UsageError, match="2 features, expected at least 3"):
        groups(2, 3)
