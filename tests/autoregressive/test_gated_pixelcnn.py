"""Gated PixelCNN sees exactly the past; the bugs that cost others a part of it are found."""

import pytest
import torch

from dulcourse.autoregressive.causal import CausalModel, MaskedConv, Readout, Symbols, VerticalConv, groups
from dulcourse.autoregressive.gated_pixelcnn import GatedPixelCNN, gate

SQUARE = (1, 8, 8)


class FromMaskedOutput(CausalModel):
    """A bug: the vertical stack is given mask-A features, which never saw the end of their own row."""

    def __init__(self, generator):
        super().__init__(SQUARE, 3)
        features = groups(6, 1)
        self.symbols = Symbols(1, 3)
        self.first = MaskedConv(self.symbols.groups, features, 3, strict=True, generator=generator)
        self.rows = torch.nn.ModuleList(
            VerticalConv(6, 6, 3, strict=i == 0, generator=generator) for i in range(8)
        )
        self.row = torch.nn.ModuleList(
            MaskedConv(features, features, 3, generator=generator) for _ in range(8)
        )
        self.readout = Readout(features, 1, 3, generator=generator)

    def logits(self, x, y=None):
        v = h = self.first(self.symbols(x))
        for rows, row in zip(self.rows, self.row, strict=True):
            v = torch.tanh(rows(v))
            h = torch.tanh(v + row(h))
        return self.readout(h)


@pytest.mark.parametrize(
    ("shape", "first", "kernel", "blocks"),
    [
        (SQUARE, 7, 3, 4),
        (SQUARE, 3, 3, 6),
        (SQUARE, 5, 5, 3),
        ((3, 4, 5), 3, 3, 3),
        ((3, 4, 5), 7, 3, 1),
        ((2, 2, 7), 3, 7, 2),
        ((1, 7, 2), 7, 3, 3),
        ((3, 1, 4), 3, 3, 2),
        ((3, 5, 1), 5, 3, 2),
        ((2, 1, 1), 3, 3, 0),
    ],
)
def test_it_sees_exactly_the_past(shape, first, kernel, blocks, float64, generator, dependencies, earlier):
    """No leak, no blind spot and no missing sub-pixel, as soon as the reach is enough."""
    model = GatedPixelCNN(shape, 3, 18, blocks, first=first, kernel=kernel, generator=generator)
    assert model.reach >= max(shape[1:]) - 1
    assert torch.equal(dependencies(model, generator), earlier(model.order))


def test_the_default_sees_the_whole_past_of_an_8_by_8_image(float64, generator, dependencies, earlier):
    model = GatedPixelCNN(SQUARE, 17, generator=generator)
    assert torch.equal(dependencies(model, generator), earlier(model.order))


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_in_the_row_above_it_sees_as_far_to_the_right_as_its_reach(
    blocks, float64, generator, dependencies, earlier
):
    """A network too shallow sees less, of every row alike: no more than `reach` columns to the right."""
    model = GatedPixelCNN((1, 4, 9), 3, 9, blocks, first=5, generator=generator)
    depends = dependencies(model, generator)
    assert not (depends & ~earlier(model.order)).any()
    assert model.reach == 2 + blocks
    for i in range(9, 36):
        above = depends[i, i // 9 * 9 - 9 : i // 9 * 9]
        expected = torch.arange(9) <= i % 9 + model.reach
        assert torch.equal(above[i % 9 :], expected[i % 9 :])


def test_shifting_every_vertical_layer_leaves_a_blind_spot(float64, generator, dependencies, earlier):
    model = GatedPixelCNN(SQUARE, 3, 9, 8, generator=generator)
    for layer in model.layers:
        layer.vertical = VerticalConv(9, 18, 3, strict=True, generator=generator)
    depends, past = dependencies(model, generator), earlier(model.order)
    assert (past & ~depends).sum() == 125
    assert not (depends & ~past).any()


def test_a_vertical_stack_on_masked_features_misses_the_end_of_the_row_above(
    float64, generator, dependencies, earlier
):
    model = FromMaskedOutput(generator)
    missing = earlier(model.order) & ~dependencies(model, generator)
    assert missing.sum() == 42
    assert (missing.nonzero()[:, 1] % 8 == 7).all()


def test_residuals_are_added_once(float64, generator):
    """A layer that says nothing changes nothing."""
    model = GatedPixelCNN((1, 5, 5), 3, 6, 1, generator=generator)
    (layer,) = model.layers
    v, h = torch.randn(2, 2, 6, 5, 5, generator=generator)
    said = layer(v, h, None)[1] - h
    torch.nn.init.zeros_(layer.mix.weight)
    assert torch.equal(layer(v, h, None)[1], h)
    assert not torch.allclose(said, torch.zeros_like(said))


def test_activations_do_not_grow_with_depth(float64, generator):
    x = torch.randint(3, (4, 1, 8, 8), generator=generator)
    model = GatedPixelCNN(SQUARE, 3, 16, 12, generator=generator)
    sizes = []
    for layer in (model.first, *model.layers):
        layer.register_forward_hook(lambda *call: sizes.append(call[-1][1].std().item()))
    model.logits(x)
    assert len(sizes) == 13
    assert sizes[-1] < 10 * sizes[0]


def test_a_gate_is_tanh_times_sigmoid(float64, generator):
    a, b = torch.randn(2, 3, 4, 2, 2, generator=generator)
    torch.testing.assert_close(gate(torch.cat([a, b], 1)), a.tanh() / (1 + (-b).exp()))


def test_the_label_goes_through_every_gate(float64, generator):
    model = GatedPixelCNN((1, 4, 4), 3, 6, 3, classes=4, generator=generator)
    x, y = torch.randint(3, (2, 1, 4, 4), generator=generator), torch.tensor([1, 3])
    (-model.log_prob(x, y).sum()).backward()
    for layer in (model.first, *model.layers):
        used = layer.label.weight.grad != 0
        assert used.any(1).tolist() == [False, True, False, True]
        assert used[y].all()  # both halves of both gates
