"""The student's copy of a homework, made from its one source: no solutions, locked cells, public examples.

`solutions/<hw>/<hw>.py` is py:percent with nbgrader's metadata. What `nbgrader generate_assignment` would do
without its gradebook is done here by nbgrader's own preprocessors, so that a course that uses nbgrader can
use our releases. The same source gives the same bytes.
"""

import json
import math
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import numpy as np
from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.nbgraderformat import MetadataValidator, ValidationError

from autograder.reference import load_reference
from autograder.results import write_atomically
from autograder.rubric import Model, Probe, Problem, Rubric, Threshold, load_rubric
from dulcourse.errors import UsageError
from dulcourse.randomness import generator
from dulcourse.referee.public import reference_bits as public_reference_bits

__all__ = ["public", "release", "solved", "without_solutions"]

PUBLIC_KEY = b"dulcourse: public examples"
PUBLIC_SEED = 20_000  # of data.load(…, "test"): no split that a homework trains on
PUBLIC_DRAWS = 3
PUBLIC_TIER = "cpu"  # what students run
PUBLIC_IMAGES = 256

# These need a gradebook, a running kernel or files of a course folder, and our sources use none of them.
_NOT_RUN = {"SaveCells", "InstantiateTests", "IncludeHeaderFooter"}
_CELL_METADATA = {"nbgrader", "dulcourse", "tags", "deletable", "editable"}


def release(assignment: str, solutions: Path, assignments: Path, check: bool = False) -> list[Path]:
    """Write `assignments/<assignment>/{<assignment>.ipynb, public.json}`; returns the files that changed.

    With `check` nothing is written, and a file that is not what its source gives is a `UsageError`.
    """
    rubric = load_rubric(assignment, solutions)
    notebook = without_solutions(solved(solutions / assignment / f"{assignment}.py"))
    _must_fit(notebook, rubric)
    folder = assignments / assignment
    wanted = {
        folder / f"{assignment}.ipynb": nbformat.writes(notebook) + "\n",
        folder / "public.json": _as_before(public(rubric), folder / "public.json"),
    }
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if check and stale:
        names = " and ".join(path.name for path in stale)
        raise UsageError(
            f"{names} of {assignment!r} differ from what their source gives: run "
            f"`autograder release {assignment}` and commit the result."
        )
    for path in stale:
        write_atomically(path, wanted[path])
        path.chmod(0o644)  # for everybody, unlike results
    return stale


def solved(source: Path) -> NotebookNode:
    """The source as a notebook, solutions included; each cell's id is its grade_id, else its number."""
    if not source.is_file():
        raise UsageError(f"{str(source)!r} is not there: a homework's source has the name of its folder.")
    notebook = jupytext.read(source, fmt="py:percent")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k in _CELL_METADATA})
        cell.id = cell.metadata.get("nbgrader", {}).get("grade_id", f"cell-{number:03d}")
    _validate(notebook, source)
    return notebook


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """What nbgrader's preprocessors leave of a solved notebook (which is changed in place)."""
    resources: dict[str, Any] = {}
    for preprocessor in GenerateAssignment.preprocessors.default_args[0]:
        if preprocessor.__name__ not in _NOT_RUN:
            notebook, resources = preprocessor().preprocess(notebook, resources)
    return notebook


def _validate(notebook: NotebookNode, source: Path) -> None:
    try:
        nbformat.validate(notebook)
        MetadataValidator().validate_nb(notebook)
    except (nbformat.ValidationError, ValidationError) as error:
        raise UsageError(f"{str(source)!r} is no notebook that nbgrader accepts: {error}.") from error


def _must_fit(notebook: NotebookNode, rubric: Rubric) -> None:
    """The points on the notebook's cells are those of the rubric."""
    said: dict[str | None, float] = {}
    for cell in notebook.cells:
        points = cell.metadata.get("nbgrader", {}).get("points", 0)
        problem = cell.metadata.get("dulcourse", {}).get("problem") or cell.id
        said[problem] = said.get(problem, 0) + points
    for problem in rubric.problems:
        names = {problem.name, *(item.cell for item in problem.items if item.kind == "written")}
        found = sum(said.get(name, 0) for name in names)
        if found != problem.points:
            raise UsageError(
                f"problem {problem.name!r} is worth {problem.points:g} points in rubric.py, but {found:g} on "
                f"the cells of {rubric.name!r}: make the two agree."
            )


def public(rubric: Rubric) -> dict[str, Any]:
    """public.json: what `handin.check` needs, under a public seed. Nothing of it is used for a grade."""
    return {
        "schema_version": 1,
        "assignment": rubric.name,
        "title": rubric.title,
        "problems": {problem.name: _problem(rubric, problem) for problem in rubric.problems},
    }


def _problem(rubric: Rubric, problem: Problem) -> dict[str, Any]:
    kinds = {kind: [item for item in problem.items if item.kind == kind] for kind in _KINDS}
    return {
        "title": problem.title,
        "points": problem.points,
        "probes": [example for probe in kinds["probe"] for example in _examples(probe)],
        "models": [_model(rubric, model) for model in kinds["model"]],
        "samplers": [{"model": item.model, "n": item.n, "points": item.points} for item in kinds["sampler"]],
        "written": [item.cell for item in kinds["written"]],
    }


_KINDS = ("probe", "model", "sampler", "written")


def _examples(probe: Probe) -> list[dict[str, Any]]:
    """A few calls with their answers. Inputs are rounded first, so that the file stays short and portable."""
    draws = generator(PUBLIC_KEY, "probe", probe.function)
    examples = []
    for _ in range(PUBLIC_DRAWS):
        arguments = {name: _short(np.asarray(value), 4) for name, value in probe.draw(draws).items()}
        expected = probe.reference(**arguments)
        expected = expected if isinstance(expected, tuple) else (expected,)
        examples.append(
            {
                "function": probe.function,
                "arguments": {name: _array(value) for name, value in arguments.items()},
                "expected": [_array(_short(np.asarray(value), 9)) for value in expected],
                "atol": probe.atol,
                "rtol": probe.rtol,
                "points": probe.points,
                "hint": probe.hint,
            }
        )
    return examples


def _short(array: np.ndarray, decimals: int) -> np.ndarray:
    return array.round(decimals) if array.dtype.kind == "f" else array


def _array(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": array.reshape(-1).tolist()}


def _model(rubric: Rubric, model: Model) -> dict[str, Any]:
    threshold = rubric.tier(PUBLIC_TIER).thresholds[model.name]
    seed = 0 if model.scarce else PUBLIC_SEED  # another permutation of finite data is what was trained on
    entry = _entry(model, seed, threshold)
    reference = load_reference(rubric, model, PUBLIC_TIER)
    bits = public_reference_bits(entry, reference)
    return entry | {"images": len(bits), "reference_bits": [round(float(b), 4) for b in bits]}


def _entry(model: Model, seed: int, threshold: Threshold) -> dict[str, Any]:
    return {
        "name": model.name,
        "family": model.family,
        "data": model.data,
        "options": model.options,
        "shape": list(model.shape),
        "levels": model.levels,
        "order": None if model.order is None else list(model.order),
        "latents": model.latents,
        "classes": model.classes,
        "points": model.points,
        "seed": seed,
        "images": PUBLIC_IMAGES,
        "reference_bits": [],
        "full": threshold.full,
        "none": threshold.none,
    }


def _as_before(content: dict[str, Any], path: Path) -> str:
    """The file's own text where its numbers are the same but for rounding on another machine."""
    if path.is_file():
        text = path.read_text()
        try:
            if _same(json.loads(text), content):
                return text
        except ValueError:
            pass
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=2e-4)
    return type(a) is type(b) and a == b
