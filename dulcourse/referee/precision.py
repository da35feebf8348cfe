"""Models in double precision: what a flow or a decoder loses to rounding would be charged to it."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

__all__ = ["home", "precisely"]

Answer = TypeVar("Answer")


def precisely(model: nn.Module, answer: Callable[[nn.Module, torch.dtype], Answer]) -> Answer:
    """`answer(a copy of the model in float64, float64)`; in its own precision where that cannot be had.

    Code that says `x.float()` cannot multiply by weights in float64, and some devices have no float64. The
    copy is as cheap as one forward pass, and keeps evaluation mode and hooks away from the model itself.
    """
    try:
        return answer(copy.deepcopy(model).double().eval(), torch.float64)
    except NotImplementedError:
        raise
    except (RuntimeError, TypeError):
        tensors = (*model.parameters(), *model.buffers())
        own = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
        return answer(copy.deepcopy(model).eval(), own)


def home(model: nn.Module) -> torch.device:
    """The device that a model is on."""
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
