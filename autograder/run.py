"""What one run of a notebook left behind, kept beside its result so that it can be scored again without
training.

OUT/<student>/executed.json            verdict, errors and the cells as they ran
OUT/<student>/checkpoints/<model>.safetensors
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat

from autograder.results import CellError, Verdict, write_atomically

__all__ = ["History", "Run", "load_run", "save_run"]


class History(BaseModel):
    """A training's bits/dim, as the notebook tells it."""

    model_config = ConfigDict(extra="forbid")

    step: list[int]
    train: list[float]
    validation: list[float]


class Run(BaseModel):
    """Facts and claims of session A; `checkpoints` lie in files of their own."""

    model_config = ConfigDict(extra="forbid")

    verdict: Verdict
    reason: str = ""
    errors: list[CellError] = []
    imported_withheld: list[str] = []
    last_cell: int | None = None  # in progress when the run died; None: it reached the end
    cells: list[dict[str, Any]] = []  # index, id, problem, source, text, images (base64 PNG)
    seconds: FiniteFloat = 0.0
    limits: str = ""
    claims: dict[str, FiniteFloat] = {}  # bits/dim that the notebook says of its models
    histories: dict[str, History] = {}
    checkpoints: dict[str, bytes] = {}

    @property
    def finished(self) -> bool:
        """The notebook ran to its end, so its kernel may still be there to answer."""
        return self.verdict in (Verdict.graded, Verdict.student_error)


def save_run(folder: Path, run: Run) -> None:
    """Write the run, and remove what an earlier one of this student left."""
    weights = folder / "checkpoints"
    for model, checkpoint in run.checkpoints.items():
        write_atomically(weights / f"{model}.safetensors", checkpoint)
    for path in weights.glob("*"):
        if path.stem not in run.checkpoints:
            path.unlink()
    record = run.model_dump(mode="json", exclude={"checkpoints"})
    write_atomically(folder / "executed.json", json.dumps(record, indent=1))


def load_run(folder: Path) -> Run | None:
    """The run saved in a student's folder, or None where there is none of this kind."""
    try:
        raw = json.loads((folder / "executed.json").read_text())
        weights = {
            path.stem: path.read_bytes() for path in sorted((folder / "checkpoints").glob("*.safetensors"))
        }
        return Run.model_validate(raw | {"checkpoints": weights})
    except (OSError, ValueError):
        return None
