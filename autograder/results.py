"""One submission's result: what was run, what was measured, what it is worth. Written whole or not at all."""

import json
import os
import threading
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat

from dulcourse.errors import InfrastructureError

__all__ = [
    "SCHEMA_VERSION",
    "UNFINISHED",
    "CellError",
    "Family",
    "ItemResult",
    "Measurement",
    "Receipt",
    "SubmissionResult",
    "Verdict",
    "read_result",
    "write_atomically",
]

SCHEMA_VERSION = 1
Family = Literal["autoregressive", "flow", "latent"]
UNFINISHED = ".unfinished"  # ends the names of files that a killed grader was writing


class Verdict(StrEnum):
    """How a submission's run ended. Only `infrastructure_error` is not the student's."""

    graded = "graded"
    student_error = "student_error"  # a cell raised; the rest was run and scored
    timeout = "timeout"
    out_of_memory = "out_of_memory"
    kernel_died = "kernel_died"
    output_flood = "output_flood"
    sandbox_violation = "sandbox_violation"
    unreadable = "unreadable"  # the notebook could not be read; the reason is in `reason`
    missing = "missing"  # on the roster, nothing handed in
    infrastructure_error = "infrastructure_error"


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


class CellError(_Schema):
    """An exception in one cell: what the student would have seen."""

    problem: str | None
    cell: str
    name: str
    message: str


class Measurement(_Schema):
    """What the referee measured of one model, in bits/dim; `difference` to the reference, image by image."""

    bits_per_dim: FiniteFloat
    standard_error: FiniteFloat
    reference_bits_per_dim: FiniteFloat
    difference: FiniteFloat
    difference_standard_error: FiniteFloat
    images: int
    failures: int  # answers that were charged log2(levels) because they could not be used
    family: Family = "autoregressive"
    parts: dict[str, FiniteFloat] = {}  # what the bits/dim are made of, where a model's family says so
    label_gap: FiniteFloat | None = None  # what wrong labels cost a conditional model
    claimed_bits_per_dim: FiniteFloat | None = None  # what the notebook says of itself; None: nothing
    own_bits_per_dim: FiniteFloat | None = None  # −log2 of the model's own log_prob on the same images


class ItemResult(_Schema):
    """One line of the rubric: points, and why not more, in words a student understands."""

    id: str
    problem: str
    kind: Literal["probe", "model", "sampler", "written"]
    points: FiniteFloat | None  # None: waits for a person
    out_of: FiniteFloat
    words: list[str]  # verdict first, then what to look at next
    measurement: Measurement | None = None
    figures: dict[str, str] = {}  # name -> file beside the result (PNG)


class Receipt(_Schema):
    """What the score is a function of: equal receipts, equal scores."""

    submitted: str  # sha256 of the file as it was handed in
    notebook: str  # sha256 of the rebuilt notebook
    rubric: str  # sha256 of rubric, release and reference weights
    library: str  # sha256 of dulcourse and autograder
    draws: str  # which secret draws (a hash of the batch secret, never the secret)
    seed: int
    device: str
    tier: str
    torch: str
    unsafe: bool = False  # no sandbox
    limits: str = ""  # how limits were enforced (cgroup-v1, cgroup-v2, rlimits)


class SubmissionResult(_Schema):
    schema_version: Literal[1] = SCHEMA_VERSION
    assignment: str
    student: str
    verdict: Verdict
    reason: str = ""  # one sentence, shown beside the verdict
    points: FiniteFloat  # measured points; written ones are added by hand
    out_of: FiniteFloat  # of the measured items
    by_hand: FiniteFloat  # points that wait for a person
    seconds: FiniteFloat
    items: list[ItemResult]
    errors: list[CellError] = []
    notes: list[str] = []  # what was put right when the notebook was rebuilt upon the release
    receipt: Receipt | None = None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, after a crash too.

    Raises `InfrastructureError` with a sentence when the disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{UNFINISHED}")
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InfrastructureError(
            f"cannot write {str(path)!r}: {error.strerror}; free some space or choose another --out, "
            "then run again (finished submissions are kept)."
        ) from error


def read_result(path: Path) -> SubmissionResult | None:
    """The result in a file, or None where there is none of this schema (then the submission is run again)."""
    try:
        raw = json.loads(path.read_text())
        return SubmissionResult.model_validate(raw)
    except (OSError, ValueError):
        return None
