"""Evaluation mode for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (dropout off) inside the block; afterwards the mode it had."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
