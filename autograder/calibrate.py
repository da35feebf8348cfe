"""Thresholds that are measured: each reference trained from several seeds, and scored as a submission would
be.

The first seed's weights become the reference. The others are scored against it, blind, one position an image,
on as many images as the tier asks for, several times: their excess spreads because trainings differ and
because images do. `full`, where all points begin, is the mean excess plus two standard deviations.
"""

import json
import math
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from autograder.receipt import library_hash
from autograder.reference import public_images, weights_path
from autograder.results import write_atomically
from autograder.rubric import Model, Rubric, load_module, load_rubric
from dulcourse.errors import UsageError, unknown

__all__ = ["calibrate"]

KEY = b"dulcourse calibr"  # no batch has it
DRAWS = 8  # sets of images that each seed is scored on


def calibrate(
    solutions: Path, assignment: str, tier: str, seeds: int, only: list[str] | None = None
) -> Iterator[str]:
    """Train, measure and write; yields a line for each model, or for those in `only`.

    Writes `reference/<model>-<tier>.safetensors` and the tier's part of `reference/calibration.json`.
    """
    rubric = load_rubric(assignment, solutions)
    thresholds = rubric.tier(tier).thresholds
    if not (rubric.folder / "reference.py").is_file():
        raise UsageError(
            f"{str(rubric.folder)!r} has no reference.py: the functions that train the references."
        )
    module = load_module(rubric.folder / "reference.py")
    models = {item.name: item for _, item in rubric.items if item.kind == "model"}
    for name in only or models:
        if name not in models:
            raise unknown("model", name, list(models))
    for model in models.values():
        if not only or model.name in only:
            began = time.monotonic()
            train = getattr(module, model.reference)
            trained = [train(seed, tier).eval().requires_grad_(False) for seed in range(seeds)]
            write_atomically(weights_path(rubric, model.name, tier), _weights(trained[0]))
            found = _threshold(_excesses(model, trained, thresholds[model.name].images))
            found |= {"seeds": seeds, "images": thresholds[model.name].images, "draws": DRAWS}
            found["receipt"] = {"library": library_hash(), "torch": version("torch")}
            _keep(rubric, model.name, tier, found)
            seconds = time.monotonic() - began
            yield (
                f"{model.name}: excess {found['mean']:+.4f}, spread {found['sd']:.4f} over {seeds - 1} "
                "seeds and "
                f"{DRAWS} sets of images; full {found['full']:+.4f} ({seconds:.0f} s)"
            )


def _excesses(model: Model, trained: list[Any], images: int) -> np.ndarray:
    """Bits/dim above the first, `[seeds − 1, draws]`, by the referee's own protocol, in this process.

    Each trained model is both parties of its own examination. Finite data have one set of images, and all of
    it is used; what differs between draws is the referee's noise.
    """
    from autograder import protocols
    from autograder.reference import Trusted
    from dulcourse.referee.exam import Exam
    from dulcourse.referee.respondent import LocalRespondent

    excess = np.empty((len(trained) - 1, DRAWS))
    trusted = Trusted(trained[0], public_images(model))
    for draw in range(DRAWS):
        for seed, other in enumerate(trained[1:], start=1):
            exam = Exam(KEY, f"{model.name}/{draw}")  # the same images for every seed
            frozen = protocols.freeze(exam, model, _weights(other))
            party = LocalRespondent({model.name: SimpleNamespace(model=other, claim=None, history=None)})
            shown, asked = protocols.images(exam, model, images), None
            if protocols.in_two_phases(model):
                asked = protocols.ask_first(party, model, frozen, shown, exam.generator("show", seed))
            found = protocols.score(
                party,
                model,
                frozen,
                shown,
                trusted=trusted,
                generator=exam.generator("score", seed),
                asked=asked,
            )
            excess[seed - 1, draw] = found.difference
    return excess


def _threshold(excess: np.ndarray) -> dict[str, Any]:
    mean, sd = float(excess.mean()), float(excess.std(ddof=1))
    return {
        "excess": excess.round(5).tolist(),
        "mean": round(mean, 6),
        "sd": round(sd, 6),
        # Rounded up: where all seeds give the same model, that model is not below its own threshold.
        "full": math.ceil((mean + 2 * sd) * 1e4 + 1) / 1e4,
    }


def _weights(model: Any) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


def _keep(rubric: Rubric, model: str, tier: str, found: dict[str, Any]) -> None:
    """Add one model's measurements to calibration.json; those of other tiers stay."""
    path = rubric.folder / "reference" / "calibration.json"
    known = (
        json.loads(path.read_text()) if path.is_file() else {"schema_version": 1, "assignment": rubric.name}
    )
    known.setdefault("models", {}).setdefault(model, {})[tier] = found
    write_atomically(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
