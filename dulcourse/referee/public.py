"""The referee on public examples: what a student can run alone, with the grader's own code.

`public.json` (written by `autograder release`) holds calls with their answers, and what the reference
needs for each of some public images. Everything it says can be known beforehand, so nothing measured here
is of record.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dulcourse import data
from dulcourse.errors import UsageError, unknown
from dulcourse.randomness import generator
from dulcourse.referee import diagnosis
from dulcourse.referee.autoregressive import freeze, score
from dulcourse.referee.edges import share
from dulcourse.referee.frozen import FrozenOrder
from dulcourse.referee.probe import compare
from dulcourse.referee.respondent import Malformed, Respondent
from dulcourse.referee.sampler import sampler_test

__all__ = ["Finding", "examine", "find", "pending"]

KEY = b"dulcourse: public check"
ROWS = 1 << 14  # conditionals that a check asks about: seconds, not minutes


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: fine or not, in words, and what depends on what if it is a model."""

    good: bool
    words: list[str]
    frozen: FrozenOrder | None = field(default=None, repr=False)
    matrix: np.ndarray | None = field(default=None, repr=False)


def find(assignment: str | None, start: Path) -> dict[str, Any]:
    """The public examples of an assignment: `public.json` in `start`, or the course's, looked for upwards."""
    places = [start / "public.json"]
    if assignment is not None:
        places += [folder / "assignments" / assignment / "public.json" for folder in (start, *start.parents)]
    for path in places:
        if path.is_file():
            return _read(path)
    raise UsageError(
        f"there is no public.json in {str(start)!r}, nor assignments/{assignment}/public.json above it; "
        "put the file that came with the notebook beside it."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error}); copy it anew from the course.") from error
    if not isinstance(content, dict) or content.get("schema_version") != 1:
        raise UsageError(f"{str(path)!r} is for another version of dulcourse; update both.")
    return content


def examine(
    content: dict[str, Any],
    problem: str,
    respondent: Respondent,
    checkpoints: dict[str, bytes],
    claims: dict[str, float | None],
) -> list[Finding]:
    """Put all public questions of one problem. What is wrong is found, never raised."""
    if problem not in content["problems"]:
        raise unknown("problem", problem, list(content["problems"]))
    task = content["problems"][problem]
    findings = _probes(task["probes"], respondent)
    models = {entry["name"]: entry for known in content["problems"].values() for entry in known["models"]}
    for entry in task["models"]:
        findings.append(_model(entry, respondent, checkpoints, claims.get(entry["name"])))
    for entry in task["samplers"]:
        findings.append(_sampler(models[entry["model"]], entry["n"], respondent, checkpoints))
    return findings


def pending(content: dict[str, Any], problem: str) -> list[str]:
    """What only the grader looks at, on draws that nobody knows."""
    task = content["problems"][problem]
    functions = sorted({probe["function"] for probe in task["probes"]})
    lines = [f"{name} on new random inputs" for name in functions]
    lines += [f"{entry['name']} on images nobody has seen" for entry in task["models"]]
    lines += [f"new samples of {entry['model']}" for entry in task["samplers"]]
    lines += [f"your answer in cell {cell!r}, read by a person" for cell in task["written"]]
    return lines


def _probes(probes: list[dict[str, Any]], respondent: Respondent) -> list[Finding]:
    """One finding a function: its first wrong answer, or that all agree."""
    findings = []
    for name in dict.fromkeys(probe["function"] for probe in probes):
        calls = [probe for probe in probes if probe["function"] == name]
        wrong = next((found for call in calls if (found := _call(call, respondent))), None)
        good = [f"{name}: {len(calls)} of {len(calls)} public examples agree."]
        findings.append(Finding(wrong is None, wrong or good))
    return findings


def _call(call: dict[str, Any], respondent: Respondent) -> list[str]:
    arguments = {name: _array(value) for name, value in call["arguments"].items()}
    parts = [_array(value) for value in call["expected"]]
    expected = (
        {f"result{i}": part for i, part in enumerate(parts)} if len(parts) > 1 else {"result": parts[0]}
    )
    words = compare(respondent, call["function"], arguments, expected, call["atol"], call["rtol"])
    return [f"{call['function']}: {words}", *([call["hint"]] if call["hint"] else [])] if words else []


def _array(value: dict[str, Any]) -> np.ndarray:
    return np.array(value["data"], value["dtype"]).reshape(value["shape"])


def _frozen(entry: dict[str, Any], checkpoints: dict[str, bytes]) -> FrozenOrder:
    name = entry["name"]
    if name not in checkpoints:
        raise Malformed(f"{name}: not handed in yet; handin.trained({name!r}, …) does it.")
    order = None if entry["order"] is None else np.array(entry["order"])
    return freeze(checkpoints[name], tuple(entry["shape"]), entry["levels"], order)


def _load(entry: dict[str, Any], split: str, seed: int, n: int) -> np.ndarray:
    options = dict(entry["options"])
    if entry["data"] in data.unlimited():
        options["n"] = n
    return data.load(entry["data"], split, seed=seed, **options).x.numpy()


def _model(
    entry: dict[str, Any], respondent: Respondent, checkpoints: dict[str, bytes], claimed: float | None
) -> Finding:
    """All positions of some public images, blind, against what the reference needs for them."""
    try:
        frozen = _frozen(entry, checkpoints)
    except Malformed as error:
        return Finding(False, [str(error)])
    name, draws = entry["name"], generator(KEY, "score", entry["name"])
    images = _load(entry, "test", entry["seed"], entry["images"])[: max(2, ROWS // frozen.dims)]
    found = score(
        respondent,
        name,
        frozen,
        images,
        decoys=_load(entry, "train", 0, 1024),
        generator=draws,
        reference_bits=np.array(entry["reference_bits"])[: len(images)],
        positions="all",
    )
    earned = share(found, full=entry["full"], none=entry["none"])
    words = [
        f"{name}: {found.bits_per_dim:.4f} bits/dim on {found.images} public images, the reference "
        f"{found.reference_bits_per_dim:.4f}: {found.difference:+.4f} ± "
        f"{found.difference_standard_error:.4f}. All points up to {entry['full']:+.4f}, none from "
        f"{entry['none']:+.4f}: about {earned:.0%} of them."
    ]
    matrix, own = None, None
    try:
        if frozen.dims > 1:
            matrix = diagnosis.dependency(respondent, name, frozen, images[:2], draws)
        own = diagnosis.own_bits_per_dim(respondent, name, images)
    except Malformed as error:
        words.append(str(error))
    words += diagnosis.explain(found, frozen=frozen, claimed=claimed, own=own, matrix=matrix)
    return Finding(earned == 1.0, words, frozen, matrix)


def _sampler(entry: dict[str, Any], n: int, respondent: Respondent, checkpoints: dict[str, bytes]) -> Finding:
    try:
        frozen = _frozen(entry, checkpoints)
    except Malformed as error:
        return Finding(False, [str(error)])
    found = sampler_test(
        respondent,
        respondent,
        entry["name"],
        frozen,
        n,
        train=_load(entry, "train", 0, 4096),
        honest=_load(entry, "validation", 0, n),
        generator=generator(KEY, "sample", entry["name"]),
    )
    return Finding(found.passed, [f"samples of {entry['name']}: {words}" for words in found.words])
