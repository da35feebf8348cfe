"""Couplings: one half untouched, the log-det over the other half, whatever the mask."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dulcourse.errors import UsageError
from dulcourse.flows.base import Compose, Flow, Transform
from dulcourse.flows.conditioners import ConvNet, DenseNet
from dulcourse.flows.coupling import Coupling, alternating, channels, checkerboard
from dulcourse.flows.mixture_cdf import MixtureMap
from dulcourse.flows.monotone import Monotone, ScaleShift, Shift, Standardise
from dulcourse.flows.nice import NICE
from dulcourse.flows.realnvp import RealNVP
from dulcourse.flows.reshape import FactorOut, Squeeze
from tests.flows.checks import assert_one_to_one, disturb, integral, jacobian

MAPS = {"shift": Shift, "affine": ScaleShift, "standardise": Standardise, "mixture": lambda: MixtureMap(2)}


def coupling(mask, kind="affine", seed=0, size=0.4) -> Coupling:
    g, map = torch.Generator().manual_seed(seed), MAPS[kind]()
    network = DenseNet(tuple(mask.shape), map.numbers, (9,), generator=g)
    return disturb(Coupling(mask, network, map).double(), g, size)


def normal(shape, n=3, seed=1) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def masks(draw):
    """Any mask of a small event with both halves there."""
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    dims = math.prod(shape)
    if dims == 1:
        shape, dims = (2,), 2
    bits = draw(st.lists(st.booleans(), min_size=dims, max_size=dims).filter(lambda b: 0 < sum(b) < len(b)))
    return torch.tensor(bits).reshape(shape)


@settings(max_examples=8)
@given(mask=masks(), seed=st.integers(0, 99), size=st.sampled_from([0.01, 0.4]))
@pytest.mark.parametrize("kind", MAPS)
def test_it_is_one_to_one_under_any_mask(kind, mask, seed, size):
    assert_one_to_one(coupling(mask, kind, seed, size), normal(mask.shape), atol=1e-7)


@given(mask=masks())
def test_one_half_is_untouched_and_the_other_is_not(mask):
    f, x = coupling(mask), normal(mask.shape)
    for y in (f(x)[0], f.inverse(x)[0]):
        assert torch.equal(y[:, mask], x[:, mask])
        assert (y[:, ~mask] != x[:, ~mask]).all()


@given(mask=masks())
def test_what_changes_depends_on_itself_and_on_what_stays(mask):
    flat, J = mask.flatten(), (jacobian(coupling(mask), normal(mask.shape, 8)) != 0).any(0)
    identity = torch.eye(len(flat), dtype=torch.bool)
    assert torch.equal(J[flat], identity[flat])
    assert torch.equal(J[~flat][:, ~flat], identity[~flat][:, ~flat])
    assert J[~flat][:, flat].all()


def test_the_log_det_is_the_sum_of_s_over_the_transformed_half(float64):
    """With s = log 2 everywhere: |b|·log 2, not D·log 2."""
    f = coupling(torch.tensor([True, False, True, True, False]), size=0.0)
    f.network.last.bias.data[:5] = math.atanh(math.log(2) / 3) * 3
    _, log_det = f(normal((5,)))
    torch.testing.assert_close(log_det.detach(), torch.full((3,), 2 * math.log(2)))


@pytest.mark.parametrize("map", [ScaleShift(3.0), Standardise(3.0)])
def test_a_scale_can_expand_and_contract(map, float64):
    """A peer's scale could never exceed 1.001: nothing could expand. Ours reaches e^±B, nearly."""
    raw, x = torch.tensor([[-50.0, 0.0], [50.0, 0.0], [0.5, 0.0], [-0.5, 0.0]]), torch.ones(4)
    z, s = map(x, raw)
    torch.testing.assert_close(z, s.exp())
    assert s[0].item() == pytest.approx(-3)
    assert s[1].item() == pytest.approx(3)
    assert s[2].item() == pytest.approx(0.5, abs=0.01)  # about raw itself in the middle
    torch.testing.assert_close(map.inverse(z, raw)[0], x)


def test_checkerboards_and_channel_masks():
    assert checkerboard((1, 2, 3), True).int().tolist() == [[[1, 0, 1], [0, 1, 0]]]
    assert checkerboard((2, 1, 3), False).int().tolist() == [[[0, 1, 0]], [[0, 1, 0]]]
    assert channels((4, 1, 1), True).flatten().tolist() == [True, True, False, False]
    assert channels((3, 1, 1), False).flatten().tolist() == [False, False, True]
    assert alternating((2, 2), True).tolist() == [[True, False], [True, False]]


@given(shape=st.tuples(*[st.integers(1, 5)] * 3))
def test_masks_come_in_pairs_that_cover_everything(shape):
    for mask in (checkerboard, channels, alternating):
        assert torch.equal(mask(shape, True), ~mask(shape, False))
        assert mask(shape, True).shape == shape


def test_the_mask_is_part_of_the_state():
    source = coupling(torch.tensor([True, False, True]))
    target = coupling(torch.tensor([False, True, True]))
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(target(normal((3,))), source(normal((3,))))


@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), numbers=st.integers(1, 3))
def test_networks_answer_zero_at_first_in_the_right_shape(shape, numbers):
    g, x = torch.Generator().manual_seed(0), torch.randn(2, *shape)
    for network in (DenseNet(shape, numbers, (5,)), ConvNet(shape[0], numbers, 4, 1, generator=g)):
        theta = network(x)
        assert theta.shape == (2, numbers * shape[0], *shape[1:])
        assert not theta.any()


def test_a_deep_network_does_not_explode(generator):
    """A peer added its residual twice: activations grew 269 times in eight blocks."""
    network = ConvNet(1, 1, 16, blocks=8, generator=generator)
    h = network.first(torch.randn(4, 1, 8, 8, generator=generator))
    grown = h
    for wide, narrow in zip(network.wide, network.narrow, strict=True):
        grown = grown + narrow(torch.relu(wide(torch.relu(grown))))
    assert torch.equal(grown, h)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 6), (2, 8, 2)])
def test_squeezing_moves_blocks_into_channels(shape):
    C, H, W = shape
    x = torch.arange(2.0 * math.prod(shape)).reshape(2, *shape)
    z, log_det = Squeeze()(x)
    assert z.shape == (2, 4 * C, H // 2, W // 2)
    assert not log_det.any()
    for c, h, w in ((c, h, w) for c in range(C) for h in range(H) for w in range(W)):
        assert torch.equal(z[:, 4 * c + 2 * (h % 2) + w % 2, h // 2, w // 2], x[:, c, h, w])
    assert torch.equal(Squeeze().inverse(z)[0], x)


@pytest.mark.parametrize("shape", [(4, 2, 2), (3, 1, 2), (2, 3, 3)])
def test_factoring_out_keeps_half_and_transforms_the_rest(shape, float64, generator):
    C, H, W = shape
    rest = coupling(torch.rand(C - C // 2, H, W, generator=generator) < 0.5, size=0.5)
    f, x = FactorOut(shape, rest), normal(shape)
    z, log_det = f(x)
    done = C // 2 * H * W
    assert torch.equal(z[:, :done], x[:, : C // 2].flatten(1))
    expected, expected_log_det = rest(x[:, C // 2 :])
    torch.testing.assert_close(z[:, done:], expected.flatten(1))
    torch.testing.assert_close(log_det, expected_log_det)
    assert_one_to_one(f, x)


@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        ((1, 8, 8), 0),
        ((1, 8, 8), 1),
        ((1, 8, 8), 2),
        ((1, 8, 8), 3),
        ((3, 4, 8), 2),
        ((1, 5, 7), 0),
        ((2, 1, 1), 0),
    ],
)
def test_realnvp_at_several_scales(shape, scales, float64, generator):
    flow = RealNVP(shape, None, scales, width=4, blocks=1, generator=generator)
    z, _ = flow(torch.randn(2, *shape, generator=generator))
    assert z.shape == (2, math.prod(shape))
    disturb(flow, generator, 0.2)
    x = torch.randn(3, *shape, generator=generator)
    z, log_det = flow(x)
    back, back_log_det = flow.inverse(z)
    torch.testing.assert_close(back, x, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(back_log_det, -log_det, atol=1e-8, rtol=1e-8)


def test_factored_out_numbers_are_not_touched_again(float64, generator):
    """Half of z at the first scale: its Jacobian has no part of what the second scale's networks do."""
    flow = RealNVP((1, 4, 4), None, 1, width=4, blocks=1, generator=generator)
    disturb(flow, generator, 0.2)
    x = torch.randn(2, 1, 4, 4, generator=generator)
    before, _ = flow(x)
    disturb(flow.transform.transforms[1].transforms[-1].rest, generator, 0.5)
    after, _ = flow(x)
    assert torch.equal(before[:, :8], after[:, :8])
    assert (before[:, 8:] != after[:, 8:]).all()


def test_every_other_coupling_moves_the_other_half():
    """No pixel is left out: a colour of the board, or a channel, that never changed."""

    def masks_of(flow):
        return [step.mask for step in flow.modules() if isinstance(step, Coupling)]

    for scales, couplings in ((0, 4), (1, 10), (2, 16)):
        masks = masks_of(RealNVP((1, 8, 8), None, scales, width=2, blocks=1))
        assert len(masks) == couplings
        for first, second in pairwise(masks):
            if first.shape == second.shape:
                assert torch.equal(first, ~second)


def test_nice_keeps_volumes_but_for_one_scaling(float64, generator):
    """log|det| is Σ s of the last layer, the same for every x; without levels the couplings count 0."""
    flow = disturb(NICE((6,), hidden=(8,), generator=generator), generator)
    x = torch.randn(5, 6, generator=generator)
    scaling = flow.transform.transforms[-1]
    torch.testing.assert_close(flow(x)[1], scaling.log_scale.sum().expand(5))
    couplings = Compose(list(flow.transform.transforms)[:-1])
    assert not couplings(x)[1].any()
    assert (couplings(x)[0] != x).all()  # all of them move


def test_nice_in_data_units_counts_the_scaling_of_the_data(float64, generator):
    flow = NICE((1, 2, 2), 17, hidden=(8,), generator=generator)
    torch.testing.assert_close(
        flow(torch.rand(3, 1, 2, 2))[1].detach(), torch.full((3,), 4 * math.log(2 / 17))
    )


@pytest.mark.parametrize("kind", ["nice", "realnvp"])
def test_the_density_integrates_to_one_in_the_plane(kind, float64, generator):
    build = {"nice": lambda: NICE((2,), hidden=(8,), generator=generator)}
    build["realnvp"] = lambda: RealNVP((1, 1, 2), None, 0, width=4, blocks=1, generator=generator)
    flow = disturb(build[kind](), generator, 0.2)
    assert integral(flow, -25, 25, 500) == pytest.approx(1, abs=2e-3)


def test_wrong_inputs_are_refused_in_words():
    g = torch.Generator()
    with pytest.raises(UsageError, match=r"\(1, 4, 5\) cannot be squeezed, expected .* H and W even"):
        RealNVP((1, 4, 5), 4, 1, generator=g)
    with pytest.raises(UsageError, match=r"\(2, 3, 3\) cannot be squeezed"):
        RealNVP((1, 6, 6), 4, 2, generator=g)
    with pytest.raises(UsageError, match="leaves one half empty"):
        RealNVP((1, 1, 1), 4, 0, generator=g)
    with pytest.raises(UsageError, match="scales is -1"):
        RealNVP((1, 4, 4), 4, -1, generator=g)
    with pytest.raises(UsageError, match="1 channel cannot be halved"):
        FactorOut((1, 2, 2), Compose([]))
    with pytest.raises(UsageError, match="couplings is 0"):
        NICE((2,), couplings=0)
    with pytest.raises(UsageError, match="bound is 0"):
        ScaleShift(0.0)
    with pytest.raises(UsageError, match=r"events have shape \(3,\), expected \(2,\)"):
        Flow(coupling(torch.tensor([True, False])), (3,))
    for abstract in (Monotone(), Monotone().inverse):
        with pytest.raises(NotImplementedError, match="Monotone does not define"):
            abstract(torch.zeros(1), torch.zeros(1, 1))
    assert isinstance(Squeeze(), Transform)
