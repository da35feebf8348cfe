"""The referee on public examples: what a student can run alone, with the grader's own code.

`public.json` (written by `autograder release`) holds calls with their answers, and what the reference
needs for each of some public images. Everything it says can be known beforehand, so nothing measured here
is of record.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import nn

from dulcourse import data
from dulcourse.errors import UsageError, unknown
from dulcourse.randomness import generator
from dulcourse.referee import autoregressive, diagnosis, flow, latent
from dulcourse.referee.edges import share
from dulcourse.referee.frozen import Frozen
from dulcourse.referee.probe import compare
from dulcourse.referee.respondent import Malformed, Respondent
from dulcourse.referee.sampler import sampler_test
from dulcourse.referee.score import Score

__all__ = ["Finding", "examine", "find", "pending", "reference_bits"]

KEY = b"dulcourse: public check"
ROWS = 1 << 14  # symbols that a check asks about: seconds, not minutes
TWO_PARTIES = (
    "Here one process saw the images and then was asked about z; the grader ends it in between and asks a "
    "second one, which loads the saved weights and never sees an image."
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: fine or not, in words, and what depends on what if it is a model."""

    good: bool
    words: list[str]
    frozen: Frozen | None = field(default=None, repr=False)
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


def reference_bits(entry: dict[str, Any], reference: nn.Module) -> Float64[np.ndarray, " n"]:
    """What a reference needs for each of the public images of a model's entry, bits/dim, under the same
    draws as a check makes: `"reference_bits"` in public.json.
    """
    x, labels = _load(entry, "test", entry["seed"], entry["images"])
    name, family, dims = entry["name"], entry["family"], x[0].size
    if family == "flow":
        y = x + flow.dequantisation(x.shape, generator(KEY, "ask", name))
        return flow.reference_charges(reference, y, entry["levels"]) / dims
    if family == "latent":
        draws = generator(KEY, "score", name)
        noise = None
        if reference.latents == entry["latents"]:
            noise = draws.standard_normal((len(x), entry["latents"]))
        return latent.reference_charges(reference, x, draws, noise) / dims
    label = math.log2(entry["classes"]) if entry["classes"] else 0.0
    return (autoregressive.reference_charges(reference, x, labels).sum(axis=1) + label) / dims


def _frozen(entry: dict[str, Any], checkpoints: dict[str, bytes]) -> Frozen:
    name, shape, levels = entry["name"], tuple(entry["shape"]), entry["levels"]
    if name not in checkpoints:
        raise Malformed(f"{name}: not handed in yet; handin.trained({name!r}, …) does it.")
    if entry["family"] == "flow":
        return flow.freeze(checkpoints[name], shape, levels)
    if entry["family"] == "latent":
        return latent.freeze(checkpoints[name], shape, levels, entry["latents"])
    order = None if entry["order"] is None else np.array(entry["order"])
    return autoregressive.freeze(checkpoints[name], shape, levels, order)


def _load(entry: dict[str, Any], split: str, seed: int, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Images, and their labels for a class-conditional model."""
    options = dict(entry["options"])
    if entry["data"] in data.unlimited():
        options["n"] = n
    found = data.load(entry["data"], split, seed=seed, **options)
    return found.x[:n].numpy(), found.y[:n].numpy() if entry["classes"] else None


def _model(
    entry: dict[str, Any], respondent: Respondent, checkpoints: dict[str, bytes], claimed: float | None
) -> Finding:
    """Some public images, blind, against what the reference needs for them."""
    try:
        frozen = _frozen(entry, checkpoints)
    except Malformed as error:
        return Finding(False, [str(error)])
    x, labels = _load(entry, "test", entry["seed"], entry["images"])
    few = max(2, ROWS // frozen.dims)
    x, labels = x[:few], None if labels is None else labels[:few]
    found, asked = _score(entry, frozen, respondent, x, labels)
    earned = share(found, full=entry["full"], none=entry["none"])
    words = [
        f"{entry['name']}: {found.bits_per_dim:.4f} bits/dim on {found.images} public images, the reference "
        f"{found.reference_bits_per_dim:.4f}: {found.difference:+.4f} ± "
        f"{found.difference_standard_error:.4f}. All points up to {entry['full']:+.4f}, none from "
        f"{entry['none']:+.4f}: about {earned:.0%} of them."
    ]
    if asked is not None:
        words.append(TWO_PARTIES)
    why = diagnosis.diagnose(
        respondent,
        entry["name"],
        frozen,
        found,
        x,
        generator=generator(KEY, "diagnosis", entry["name"]),
        asked=asked,
        base=x,
        labels=labels,
        claimed=claimed,
    )
    return Finding(earned == 1.0, words + why.words, frozen, why.matrix)


def _score(
    entry: dict[str, Any], frozen: Frozen, respondent: Respondent, x: np.ndarray, labels: np.ndarray | None
) -> tuple[Score, flow.Asked | latent.Asked | None]:
    """The score under public draws, and what a first party declared where there are two."""
    name, draws = entry["name"], generator(KEY, "score", entry["name"])
    known = np.array(entry["reference_bits"])[: len(x)]
    if entry["family"] == "autoregressive":
        found = autoregressive.score(
            respondent,
            name,
            frozen,
            x,
            decoys=_load(entry, "train", 0, 1024)[0],
            generator=draws,
            reference_bits=known,
            positions="all",
            labels=labels,
            classes=entry["classes"],
        )
        return found, None
    family = {"flow": flow, "latent": latent}[entry["family"]]
    asked = family.ask_first(respondent, name, frozen, x, generator=generator(KEY, "ask", name))
    return family.score(respondent, name, frozen, asked, x, generator=draws, reference_bits=known), asked


def _sampler(entry: dict[str, Any], n: int, respondent: Respondent, checkpoints: dict[str, bytes]) -> Finding:
    try:
        frozen = _frozen(entry, checkpoints)
    except Malformed as error:
        return Finding(False, [str(error)])
    honest, labels = _load(entry, "validation", 0, n)
    found = sampler_test(
        respondent,
        respondent,
        entry["name"],
        frozen,
        len(honest),
        train=_load(entry, "train", 0, 4096)[0],
        honest=honest,
        generator=generator(KEY, "sample", entry["name"]),
        labels=labels,
    )
    return Finding(found.passed, [f"samples of {entry['name']}: {words}" for words in found.words])
