"""What a homework is worth: its problems, their points, and how each is judged."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autograder.results import Family
from dulcourse import data
from dulcourse.errors import UsageError, unknown

__all__ = [
    "Item",
    "Model",
    "Probe",
    "Problem",
    "Rubric",
    "Sampler",
    "Threshold",
    "Tier",
    "Written",
    "calibrated_full",
    "load_module",
    "load_rubric",
]

Arrays = dict[str, np.ndarray]
PUBLIC_SHARE = 0.2


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Probe(_Frozen):
    """A student's function: called behind the wall, on inputs drawn outside, compared outside with the
    reference.

    `draw(generator)` returns the arguments by name; `reference(**arguments)` the expected array, or a tuple
    of arrays. All `draws` must agree within `atol + rtol * abs(expected)`; integer and boolean answers must
    be equal.
    """

    kind: Literal["probe"] = "probe"
    function: str
    draw: Callable[[np.random.Generator], Arrays]
    reference: Callable[..., Any]
    points: float
    atol: float = 1e-6
    rtol: float = 1e-5
    draws: int = 5
    hint: str = ""  # the one thing to look at next, shown when the values differ

    @property
    def id(self) -> str:
        return f"function:{self.function}"


class Model(_Frozen):
    """A model handed in by `handin.trained(name, …)`, scored in bits/dim on images nobody has seen.

    Points fall linearly from all at `full` to none at `none`; both are bits/dim of *excess over the
    reference* on the same images (rule 6). `full`, `none` and how many fresh `images` are asked about are per
    tier. The reference is built and trained by two functions of `reference.py` beside the rubric; `autograder
    calibrate` saves its weights as `reference/<name>-<tier>.safetensors`, its spread in `calibration.json`.
    """

    kind: Literal["model"] = "model"
    name: str
    family: Family = "autoregressive"
    data: str  # a name for dulcourse.data.load
    options: dict[str, Any] = {}  # its options, such as size and levels
    shape: tuple[int, ...]  # (C, H, W)
    levels: int
    order: tuple[int, ...] | None = None  # the ordering the homework asks for; None: any
    latents: int | None = None  # numbers in z, of latent-variable models
    classes: int | None = None  # of the labels that a conditional model is told; None: it is told none
    reference: str  # `<reference>(seed, tier)` and `build_<reference>(tier)` in the rubric's reference.py
    points: float

    @property
    def id(self) -> str:
        return f"model:{self.name}"

    @property
    def scarce(self) -> bool:
        """Its data are finite, so all positions of all test images are asked about, once."""
        return self.data not in data.unlimited()

    @model_validator(mode="after")
    def _fits_its_family(self):
        if (self.order or self.classes) and self.family != "autoregressive":
            raise ValueError(f"{self.name!r} is a {self.family} model: it has neither an order nor classes")
        if (self.latents is not None) != (self.family == "latent"):
            raise ValueError(
                f"{self.name!r} has family {self.family!r} and latents {self.latents}: "
                "latent models, and no others, say how many numbers z has"
            )
        if (self.latents is not None and self.latents < 1) or (self.classes is not None and self.classes < 2):
            raise ValueError(f"{self.name!r} needs at least 1 latent, or 2 classes")
        return self


class Sampler(_Frozen):
    """Samples of a handed-in model, judged by its own conditionals, by the reference, and for copies."""

    kind: Literal["sampler"] = "sampler"
    model: str
    points: float
    n: int = 256

    @property
    def id(self) -> str:
        return f"sampler:{self.model}"


class Written(_Frozen):
    """A question answered in words and graded by hand; `cell` is its grade_id."""

    kind: Literal["written"] = "written"
    cell: str
    points: float

    @property
    def id(self) -> str:
        return f"written:{self.cell}"


Item = Annotated[Probe | Model | Sampler | Written, Field(discriminator="kind")]


class Problem(_Frozen):
    name: str
    title: str
    items: tuple[Item, ...]
    withheld: tuple[str, ...] = ()  # modules of dulcourse that answer this problem; importing one forfeits it

    @property
    def points(self) -> float:
        return sum(item.points for item in self.items)


class Threshold(_Frozen):
    """Excess bits/dim over the reference: all points at `full` or below, none at `none` or above."""

    full: float
    none: float
    images: int = 2048

    @model_validator(mode="after")
    def _ordered(self):
        if not self.full < self.none:
            raise ValueError(
                f"full ({self.full}) must be smaller than none ({self.none}): fewer bits are better"
            )
        return self


class Tier(_Frozen):
    """How big a run is: `seconds` of wall clock for a whole submission, and each model's thresholds."""

    seconds: float
    memory_gib: float = 4.0
    thresholds: dict[str, Threshold]


class Rubric(_Frozen):
    """One homework. `folder` holds its source, its reference weights and this rubric."""

    name: str
    title: str
    problems: tuple[Problem, ...]
    tiers: dict[str, Tier]
    folder: Path

    @property
    def withheld(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(module for problem in self.problems for module in problem.withheld))

    @property
    def points(self) -> float:
        return sum(problem.points for problem in self.problems)

    @property
    def items(self) -> tuple[tuple[Problem, Item], ...]:
        """Every line of the rubric with its problem, in order."""
        return tuple((problem, item) for problem in self.problems for item in problem.items)

    def problem(self, name: str) -> Problem:
        for problem in self.problems:
            if problem.name == name:
                return problem
        raise unknown("problem", name, [problem.name for problem in self.problems])

    def tier(self, name: str) -> Tier:
        if name not in self.tiers:
            raise unknown("tier", name, list(self.tiers))
        return self.tiers[name]

    @model_validator(mode="after")
    def _whole(self):
        models = {item.name for problem in self.problems for item in problem.items if item.kind == "model"}
        for name, tier in self.tiers.items():
            if set(tier.thresholds) != models:
                asked = f"tier {name!r} has thresholds for {sorted(tier.thresholds)}"
                raise ValueError(f"{asked}, models are {sorted(models)}")
        ids = [item.id for problem in self.problems for item in problem.items]
        if len(ids) != len(set(ids)):
            raise ValueError(f"two items have the same id among {ids}")
        return self

    @model_validator(mode="after")
    def _samples_of_models(self):
        known = {
            item.name for _, item in self.items if item.kind == "model" and item.family == "autoregressive"
        }
        for _, item in self.items:
            if item.kind == "sampler" and item.model not in known:
                raise ValueError(
                    f"samples of {item.model!r} cannot be judged: there is no autoregressive model of "
                    f"this name among {sorted(known)}"
                )
        return self

    @model_validator(mode="after")
    def _mostly_private(self):
        models = [item for _, item in self.items if item.kind == "model"]
        for item in models:
            if item.data not in data.names():
                raise unknown("data set", item.data, data.names())
        scarce = [item.data for item in models if item.scarce]
        # Rule 2: an image is used once, so what there is of a finite set goes to one model.
        if len(scarce) != len(set(scarce)):
            raise ValueError(
                f"two models are scored on the same finite data, {max(scarce, key=scarce.count)!r}"
            )
        public = sum(item.points for item in models if item.scarce)
        # Rule 10: data that everybody has can be known by heart; it carries a small share of the points.
        if public > PUBLIC_SHARE * self.points:
            raise ValueError(
                f"models on public data carry {public:g} of {self.points:g} points, {PUBLIC_SHARE:.0%} at "
                f"most: score them on fresh images of {' or '.join(data.unlimited())}"
            )
        return self


def load_rubric(assignment: str, solutions: Path) -> Rubric:
    """The rubric of one assignment: the name `rubric` in `solutions/<assignment>/rubric.py`."""
    path = solutions / assignment / "rubric.py"
    if not path.is_file():
        known = sorted(p.parent.name for p in solutions.glob("*/rubric.py"))
        if not known:
            raise UsageError(
                f"no assignments in {str(solutions)!r}: expected <assignment>/rubric.py there; "
                "run the command in the course's folder, or pass --course."
            )
        raise unknown("assignment", assignment, known)
    try:
        rubric = getattr(load_module(path), "rubric", None)
    except Exception as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"{str(path)!r} cannot be used ({type(error).__name__}: {said}): mend it."
        ) from error
    if not isinstance(rubric, Rubric):
        raise UsageError(f"{str(path)!r} has no Rubric called 'rubric': define one.")
    return rubric


def load_module(path: Path) -> ModuleType:
    """A Python file that lies beside the rubric, run under a name of its own (solutions are no package)."""
    name = f"{path.stem}_of_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def calibrated_full(folder: Path, model: str, tier: str, *, otherwise: float) -> float:
    """The threshold `full` that `autograder calibrate` measured: mean + 2 standard deviations over seeds."""
    path = folder / "reference" / "calibration.json"
    if not path.is_file():
        return otherwise
    return json.loads(path.read_text())["models"].get(model, {}).get(tier, {}).get("full", otherwise)
