"""What each line of the rubric is worth, and why not more, in words a student understands."""

from collections.abc import Sequence

from autograder.results import CellError, ItemResult, Measurement
from autograder.rubric import Item, Model, Probe, Problem, Sampler, Threshold, Written
from autograder.run import Run

__all__ = ["forfeited", "not_handed_in", "nothing", "of_model", "of_probe", "of_sampler", "of_written"]


def of_probe(problem: Problem, probe: Probe, passed: bool, words: Sequence[str]) -> ItemResult:
    """All or nothing: a function agrees with the reference or it does not."""
    return _item(problem, probe, probe.points if passed else 0.0, list(words))


def of_sampler(problem: Problem, sampler: Sampler, passed: bool, words: Sequence[str]) -> ItemResult:
    """All or nothing: samples come from the model or they do not."""
    return _item(problem, sampler, sampler.points if passed else 0.0, list(words))


def of_written(problem: Problem, written: Written) -> ItemResult:
    """A person's to decide."""
    return _item(problem, written, None, ["Waits for a person to read it."])


def of_model(
    problem: Problem,
    model: Model,
    share: float,
    measurement: Measurement,
    threshold: Threshold,
    words: Sequence[str] = (),
) -> ItemResult:
    """`share` of the points, earned by the paired difference to the reference (rule 6)."""
    said = (
        f"{measurement.bits_per_dim:.4f} bits/dim on {measurement.images} new images; the reference needs "
        f"{measurement.reference_bits_per_dim:.4f} on the same (difference {measurement.difference:+.4f} ± "
        f"{measurement.difference_standard_error:.4f})."
    )
    scale = (
        f"All points up to {threshold.full:+.4f}, none from {threshold.none:+.4f}, a straight line between."
    )
    points = model.points * share
    lines = [said, *([scale] if share < 1 else []), *words]
    return _item(problem, model, points, lines, measurement)


def forfeited(problem: Problem, item: Item, modules: Sequence[str]) -> ItemResult:
    """No points where the answer was imported instead of written."""
    names = " and ".join(modules)
    words = f"The notebook imports {names}, which this problem asks you to write: use your own code instead."
    return nothing(problem, item, [words])


def not_handed_in(problem: Problem, item: Item, model: str, run: Run) -> ItemResult:
    """Why there is no model to score, as far as it is known."""
    errors = [error for error in run.errors if error.problem == problem.name]
    if errors:
        words = [f"No model {model!r} was handed in: {_told(errors[0])}"]
    elif any(f"{model!r} is not solved yet" in text for cell in run.cells for text in cell["text"]):
        words = [f"{model!r} is not solved yet: its cells still raise NotImplementedError."]
    elif run.last_cell is not None:
        words = [f"No model {model!r} was handed in before the run ended. {run.reason}".strip()]
    else:
        words = [
            f"No model {model!r} was handed in: call handin.trained({model!r}, build, train, example=…) in "
            "a cell, "
            "and see that the cell says so."
        ]
    return nothing(problem, item, words)


def nothing(problem: Problem, item: Item, words: Sequence[str]) -> ItemResult:
    """No points, for the reason given; what a person decides stays open."""
    return _item(problem, item, None if item.kind == "written" else 0.0, list(words))


def _told(error: CellError) -> str:
    return f"cell {error.cell!r} raised {error.name}: {error.message}"


def _item(
    problem: Problem,
    item: Item,
    points: float | None,
    words: list[str],
    measurement: Measurement | None = None,
) -> ItemResult:
    return ItemResult(
        id=item.id,
        problem=problem.name,
        kind=item.kind,
        points=points,
        out_of=item.points,
        words=words,
        measurement=measurement,
    )
