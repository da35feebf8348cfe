"""What the referee itself knows of a rubric's models: the references, and public images of their data."""

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from autograder.rubric import Model, Rubric, load_module
from dulcourse.errors import UsageError

__all__ = ["References", "Trusted", "load_reference", "public_images", "weights_path"]


@dataclass(frozen=True)
class Trusted:
    """One model's reference with its saved weights, and public training images as decoys."""

    reference: Any  # an AutoregressiveModel, a Flow or a LatentModel
    train: np.ndarray  # int64 [n, C, H, W]


class References:
    """Each reference and its images, loaded once a batch by whichever slot asks first."""

    def __init__(self, rubric: Rubric, tier: str):
        self._rubric, self._tier = rubric, tier
        self._lock = threading.Lock()
        self._models: dict[str, Any] = {}

    def __call__(self, model: Model) -> Trusted:
        with self._lock:
            if model.name not in self._models:
                self._models[model.name] = load_reference(self._rubric, model, self._tier)
            return Trusted(self._models[model.name], public_images(model))

    def check(self) -> None:
        """Every model has weights that fit, or a `UsageError` before anything is run."""
        for item in self._items():
            self._models[item.name] = load_reference(self._rubric, item, self._tier)

    def warm_up(self) -> None:
        """Draw the images now: there is time while the first sandbox starts."""
        for item in self._items():
            public_images(item)

    def _items(self) -> list[Model]:
        return [item for _, item in self._rubric.items if item.kind == "model"]


def weights_path(rubric: Rubric, model: str, tier: str) -> Path:
    """Where `autograder calibrate` puts a reference's weights."""
    return rubric.folder / "reference" / f"{model}-{tier}.safetensors"


def load_reference(rubric: Rubric, model: Model, tier: str) -> Any:
    """The reference of one model and tier, with its saved weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = weights_path(rubric, model.name, tier)
    make = f"`autograder calibrate {rubric.name} --tier {tier}`"
    if not path.is_file():
        raise UsageError(f"there are no reference weights {str(path)!r}: make them by {make}.")
    reference = getattr(load_module(rubric.folder / "reference.py"), f"build_{model.reference}")(tier)
    try:
        reference.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(
            f"{str(path)!r} does not fit build_{model.reference}({tier!r}) ({why}): make it anew by {make}."
        ) from None
    return reference.eval().requires_grad_(False)


def public_images(model: Model) -> np.ndarray:
    """The training images that students get when they ask for them, int64 [n, C, H, W]."""
    return _public(model.data, tuple(model.options.items()))


@cache
def _public(name: str, options: tuple[tuple[str, Any], ...]) -> np.ndarray:
    from dulcourse import data

    return data.load(name, "train", **dict(options)).x.numpy()
