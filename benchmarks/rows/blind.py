"""Test bits/dim once more, as the length of a message: the model is never shown what it predicts."""

from types import SimpleNamespace

import numpy as np
from safetensors.torch import save

from benchmarks.rows.row import LEVELS, SHAPE
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.data.dataset import Dataset
from dulcourse.referee.autoregressive import freeze, score
from dulcourse.referee.respondent import LocalRespondent

__all__ = ["charged"]


def charged(model: AutoregressiveModel, test: Dataset, decoys: Dataset, seed: int) -> float:
    """Bits/dim of the test images, every position of each sent on its own, followed by a decoy's symbols.

    A model whose outputs leak what they predict claims less than this: log_prob is given the whole image.
    """
    frozen = freeze(save({name: t.contiguous() for name, t in model.state_dict().items()}), SHAPE, LEVELS)
    found = score(
        LocalRespondent({"model": SimpleNamespace(model=model.eval())}),
        "model",
        frozen,
        test.x.numpy(),
        decoys=decoys.x.numpy(),
        generator=np.random.default_rng(seed),
        positions="all",
    )
    return found.bits_per_dim
