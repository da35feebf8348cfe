"""The flows that are whole models: one-to-one all together, the same in both precisions, and sampled."""

import pytest
import torch

from dulcourse.flows.masked_autoregressive import MAF
from dulcourse.flows.nice import NICE
from dulcourse.flows.realnvp import RealNVP
from tests.flows.checks import assert_one_to_one, disturb

MODELS = {
    "maf": lambda g: MAF((1, 3, 4), 5, layers=3, hidden=(20,), generator=g),
    "maf of points": lambda g: MAF((2,), layers=2, hidden=(8, 8), generator=g),
    "nice": lambda g: NICE((2, 3, 3), 4, hidden=(8, 8), generator=g),
    "nice of points": lambda g: NICE((5,), hidden=(8,), generator=g),
    "realnvp": lambda g: RealNVP((1, 4, 4), 5, scales=2, width=4, blocks=1, generator=g),
    "realnvp of colours": lambda g: RealNVP((3, 4, 2), 256, scales=1, width=4, blocks=1, generator=g),
    "realnvp of an odd size": lambda g: RealNVP((2, 3, 5), 5, scales=0, width=4, blocks=1, generator=g),
}


@pytest.fixture(params=MODELS)
def model(request, float64, generator):
    return disturb(MODELS[request.param](generator), generator, 0.2)


def events(model, n: int, generator: torch.Generator) -> torch.Tensor:
    """Somewhere inside the data's range."""
    x = torch.rand(n, *model.shape, generator=generator)
    return x * (model.levels or 1)


def test_the_whole_is_one_to_one(model, generator):
    assert_one_to_one(model.transform, events(model, 3, generator), atol=1e-7)


def test_single_and_double_precision_are_one_function(model, generator):
    x = events(model, 4, generator).float()
    with torch.no_grad():
        model.float()
        single, double = model(x), model.double()(x.double())
    torch.testing.assert_close(single[0].double(), double[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(single[1].double(), double[1], atol=1e-3, rtol=1e-3)


def test_samples_have_the_shape_and_come_from_the_generator(model):
    first, again = (model.sample(6, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (6, *model.shape)
    assert torch.equal(first, again)


def test_nothing_is_remembered_between_calls(model, generator):
    """A peer's cache gave back the x of an earlier call and hid an inverse that was wrong."""
    x = events(model, 2, generator)
    z, _ = model(x)
    disturb(model, generator, 0.003)
    assert not torch.allclose(model.inverse(z)[0], x, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_the_whole_function(name):
    """Built from other random numbers and loaded: the same z, the same log-det, the same way back."""
    source, target = (MODELS[name](torch.Generator().manual_seed(seed)) for seed in (1, 2))
    disturb(source, torch.Generator().manual_seed(3), 0.1)
    target.load_state_dict(source.state_dict())
    x = events(source, 3, torch.Generator().manual_seed(4))
    torch.testing.assert_close(target(x), source(x), atol=0, rtol=0)
    z = source(x)[0]
    torch.testing.assert_close(target.inverse(z), source.inverse(z), atol=0, rtol=0)
