"""One small MADE, really trained, in an order that is not its own inverse."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

from dulcourse import data, training
from dulcourse.autoregressive import orders
from dulcourse.autoregressive.made import MADE
from dulcourse.referee.autoregressive import freeze

SHAPE = (1, 8, 8)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The model, what it declares, its training images, and images that nobody has seen."""
    train = data.load("glyphs", "train", n=1024)
    validation = data.load("glyphs", "validation", n=128)
    order = orders.spiral(SHAPE)
    generator = torch.Generator().manual_seed(0)
    model = MADE(SHAPE, 4, order, hidden=(48,), generator=generator)
    training.fit(model, train, validation, generator=generator, steps=150, lr=1e-2, progress=False)
    return SimpleNamespace(
        model=model.eval(),
        frozen=freeze(save(model.state_dict()), SHAPE, 4, order.numpy()),
        train=train.x.numpy(),
        images=data.fresh("glyphs", b"the tests' own key", range(512)).x.numpy(),
    )
