"""MAF: triangular in its order, and inverted at the cost of one pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dulcourse.autoregressive import orders
from dulcourse.autoregressive.made import MaskedLinear
from dulcourse.errors import UsageError
from dulcourse.flows.base import Flow
from dulcourse.flows.masked_autoregressive import MAF, MaskedAutoregressive
from dulcourse.flows.mixture_cdf import MixtureMap
from dulcourse.flows.monotone import Standardise
from tests.flows.checks import assert_one_to_one, disturb, integral, jacobian

HIDDEN = [(), (7,), (3, 40), (33, 33, 5)]
MAPS = {"affine": Standardise, "mixture": lambda: MixtureMap(2)}


def layer(shape, seed=0, hidden=(11,), kind="affine", order=None, size=0.3) -> MaskedAutoregressive:
    """A layer with a random order (unless given) and no parameter at zero."""
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(torch.Size(shape).numel(), generator=g) if order is None else order
    made = MaskedAutoregressive(shape, order, hidden, monotone=MAPS[kind](), generator=g)
    return disturb(made.double(), g, size)


def normal(shape, n=3, seed=1) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_inverse(flow: MaskedAutoregressive, z: torch.Tensor) -> torch.Tensor:
    """D passes: after pass t the first t numbers of the order are right."""
    x = torch.zeros_like(z).flatten(1)
    for i in flow.order.tolist():
        h = numbers = x[:, flow.order]
        for masked in flow.hidden:
            h = torch.relu(masked(h))
        theta = (flow.output(h) + flow.direct(numbers)).unflatten(1, (flow.dims, -1))
        x[:, i], _ = flow.monotone.inverse(z.flatten(1)[:, i], theta[:, flow.rank[i]])
    return x.reshape(z.shape)


@settings(max_examples=15)
@given(
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 99),
    hidden=st.sampled_from(HIDDEN),
    size=st.sampled_from([0.01, 0.3]),
)
def test_it_is_one_to_one(shape, seed, hidden, size):
    assert_one_to_one(layer(shape, seed, hidden, size=size), normal(shape), atol=1e-7)


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)])
def test_it_is_one_to_one_with_mixtures(shape):
    assert_one_to_one(layer(shape, kind="mixture"), normal(shape), atol=1e-7)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("shape", [(4,), (1, 3, 3), (2, 2, 3)])
def test_the_jacobian_is_triangular_in_the_order_and_has_no_hole(shape, hidden):
    """z_{o(t)} depends on x_{o(0)}, …, x_{o(t)}: on all of them and on nothing else."""
    flow = layer(shape, hidden=hidden)
    if len(shape) == 3:
        flow = layer(shape, hidden=hidden, order=orders.spiral(shape))
    depends = (jacobian(flow, normal(shape, 8)) != 0).any(0)
    in_order = depends[flow.order][:, flow.order]
    assert torch.equal(in_order, torch.ones_like(in_order).tril())


@pytest.mark.parametrize(
    ("shape", "hidden", "kind"),
    [(s, h, "affine") for s in [(5,), (1, 3, 3), (3, 2, 2)] for h in HIDDEN]
    + [((1, 2, 2), (5, 9), "mixture")],
)
def test_the_inverse_is_the_naive_one(shape, hidden, kind):
    flow, z = layer(shape, hidden=hidden, kind=kind, size=0.2), normal(shape)
    with torch.no_grad():
        torch.testing.assert_close(flow.inverse(z)[0], naive_inverse(flow, z), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_inverse_computes_each_unit_once(hidden, monkeypatch):
    evaluated, rows = [], MaskedLinear.rows

    def counting(masked, h, units, inputs):
        assert masked.mask[units, :inputs].all()  # nothing is multiplied by a masked weight
        assert not masked.mask[units, inputs:].any()  # and nothing is left out
        evaluated.extend((id(masked), unit) for unit in range(*units.indices(len(masked.mask))))
        return rows(masked, h, units, inputs)

    monkeypatch.setattr(MaskedLinear, "rows", counting)
    flow = layer((1, 4, 4), hidden=hidden)
    flow.inverse(normal((1, 4, 4)))
    every = [
        (id(m), unit) for m in flow.modules() if isinstance(m, MaskedLinear) for unit in range(len(m.mask))
    ]
    assert sorted(evaluated) == sorted(every)


@pytest.mark.parametrize("kind", MAPS)
def test_the_density_integrates_to_one_in_the_plane(kind, float64):
    g, layers = torch.Generator().manual_seed(3), {"affine": 2, "mixture": 1}[kind]
    flow = MAF((2,), layers=layers, hidden=(8,), monotone=MAPS[kind](), generator=g)
    disturb(flow, g, 0.1)
    assert integral(flow, -30, 30, 400) == pytest.approx(1, abs=2e-3)


def test_the_chain_of_conditionals_is_the_flow(float64):
    """log p = Σ_i log p_z(z_i) + log ∂z₁/∂x₁ + log ∂z₂/∂x₂: one dimension after the other."""
    flow, x = layer((2,), order=torch.tensor([1, 0])), normal((2,))
    z, log_det = flow(x)
    diagonal = jacobian(flow, x).diagonal(dim1=1, dim2=2).log().sum(1)
    torch.testing.assert_close(log_det.detach(), diagonal)
    assert torch.equal(z[:, 1], flow(torch.stack([x[:, 0] * 0, x[:, 1]], 1))[0][:, 1])  # x₀ comes second


def test_it_starts_as_the_identity(generator):
    x = torch.randn(4, 1, 3, 3, generator=generator)
    z, log_det = MAF((1, 3, 3), generator=generator).transform(x)
    assert torch.equal(z, x)
    assert not log_det.any()


def test_orders_alternate(generator):
    order = orders.spiral((1, 3, 3))
    flow = MAF((1, 3, 3), layers=3, order=order, hidden=(4,), generator=generator)
    first, second, third = (step.order for step in list(flow.transform.transforms)[1:])
    assert torch.equal(first, order)
    assert torch.equal(second, order.flip(0))
    assert torch.equal(third, order)


def test_weights_carry_the_order_into_a_model_built_with_another(generator):
    """A peer's permutation was no buffer: after loading another function came out."""
    source, target = layer((1, 3, 3), seed=1), layer((1, 3, 3), seed=2)
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(target(normal((1, 3, 3))), source(normal((1, 3, 3))))
    torch.testing.assert_close(target.inverse(normal((1, 3, 3))), source.inverse(normal((1, 3, 3))))


def test_dropout_is_off_in_samples_and_on_in_training(generator):
    flow = MAF((4,), layers=1, hidden=(50,), dropout=0.5, generator=generator)
    disturb(flow, generator)
    x = torch.randn(2, 4, generator=generator)
    with torch.random.fork_rng([]):
        assert not torch.equal(flow(x)[0], flow(x)[0])
    z, _ = flow.eval()(x)
    torch.testing.assert_close(flow.inverse(z)[0], x, atol=1e-4, rtol=1e-4)


def test_the_first_weights_come_from_the_generator():
    state = torch.get_rng_state()
    first, again = (MAF((3,), generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_mixtures_fit_what_one_gaussian_cannot(float64):
    """Two clumps on a diagonal: after training, the affine layer's density is worse by half a nat."""
    g = torch.Generator().manual_seed(0)
    clump = torch.randint(2, (400, 1), generator=g) * 4.0 - 2
    x = clump + 0.4 * torch.randn(400, 2, generator=g)
    scores = {}
    for kind in MAPS:
        flow = Flow(MaskedAutoregressive((2,), hidden=(16,), monotone=MAPS[kind](), generator=g), (2,))
        optimiser = torch.optim.Adam(flow.parameters(), lr=0.1)
        for _ in range(60):
            optimiser.zero_grad()
            loss = -flow.log_prob(x).mean()
            loss.backward()
            optimiser.step()
        scores[kind] = -loss.item()
    assert scores["mixture"] > scores["affine"] + 0.5


def test_wrong_inputs_are_refused_in_words():
    with pytest.raises(UsageError, match="is not a permutation of 0 … 2"):
        MaskedAutoregressive((3,), torch.tensor([0, 1, 1]))
    with pytest.raises(UsageError, match="width 0, expected at least 1"):
        MaskedAutoregressive((3,), hidden=(0,))
    with pytest.raises(UsageError, match="layers is 0"):
        MAF((3,), layers=0)
    with pytest.raises(UsageError, match=r"events have shape \(2,\), expected \(3,\)"):
        Flow(MaskedAutoregressive((3,)), (2,))
