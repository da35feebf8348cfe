"""Parties that answer in this process, for what the grader does around the wall. They run no code of a
notebook.

The cell `double` of a hand-in holds one word, which says how its party behaves.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from autograder.results import CellError, Verdict
from autograder.session import Outcome, SessionDead, Withheld
from autograder.views import CellView
from dulcourse.autoregressive.histogram import Histogram
from dulcourse.errors import InfrastructureError
from dulcourse.referee.respondent import LocalRespondent

TINY = Path(__file__).parent / "tiny"
WITHHELD = "dulcourse.autoregressive.histogram"


@dataclass(frozen=True)
class Behaviour:
    """How a party runs and answers. It dies of `deadly` questions, in training and in replay."""

    verdict: Verdict = Verdict.graded
    reason: str = ""
    last_cell: int | None = None
    errors: tuple[CellError, ...] = ()
    withheld: tuple[str, ...] = ()
    hands_in: bool = True
    knows: bool = True  # its table is that of the data, not a uniform one
    models: Callable[[], dict[str, nn.Module]] | None = None  # instead of that table
    factor: float = 2.0
    deadly: Mapping[str, Verdict] = field(default_factory=dict)
    replay: Verdict = Verdict.graded
    fails_to_open: int = 0  # sandboxes that the machine fails to start, first ones first
    checkpoint: bytes | None = None  # instead of an honest one
    faulty: bool = False  # makes the grader itself fail


RAISED = CellError(problem="double", cell="double", name="NameError", message="name 'y' is not defined")
BEHAVIOURS: dict[str, Behaviour] = {
    "good": Behaviour(),
    "unsolved": Behaviour(hands_in=False, factor=1.0),
    "wrong": Behaviour(factor=3.0),
    "uniform": Behaviour(knows=False),
    "raises": Behaviour(verdict=Verdict.student_error, reason="A cell raised.", errors=(RAISED,), factor=1.0),
    "late": Behaviour(verdict=Verdict.timeout, reason="Too slow: 20 s were over.", last_cell=4),
    "early": Behaviour(verdict=Verdict.timeout, reason="Too slow.", last_cell=1, hands_in=False),
    "cheats": Behaviour(withheld=(WITHHELD,)),
    "breaks_out": Behaviour(verdict=Verdict.sandbox_violation, reason="The worker was gone."),
    "dies_of_double": Behaviour(deadly={"function.double": Verdict.kernel_died}),
    "dies_of_scoring": Behaviour(deadly={"table.conditional": Verdict.kernel_died}),
    "attacks_scoring": Behaviour(deadly={"table.conditional": Verdict.sandbox_violation}),
    "no_replay": Behaviour(replay=Verdict.timeout),
    "unlucky": Behaviour(fails_to_open=1),
    "unlucky_later": Behaviour(fails_to_open=-1),  # the second one
    "no_order": Behaviour(checkpoint=save({"theta": torch.zeros(3)})),
    "garbage": Behaviour(checkpoint=b"garbage"),
    "our_fault": Behaviour(faulty=True),
}


@cache
def table(knows: bool) -> Histogram:
    """A model that a student could have trained."""
    if not knows:
        return Histogram((1, 8, 8), levels=4)
    from dulcourse import data

    return Histogram.fit(data.load("glyphs", "train", seed=9, n=400, size=8, levels=4).x, levels=4)


def weights(model: nn.Module) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})


class Party:
    """The session of one student's word."""

    def __init__(
        self, log: list, slot: int, pause: float = 0.0, behaviours: Mapping[str, Behaviour] = BEHAVIOURS
    ):
        self._log, self._slot, self._pause, self._behaviours = log, slot, pause, behaviours
        self._dead: SessionDead | None = None

    def __enter__(self) -> "Party":
        self._log.append(("open", self._slot))
        return self

    def __exit__(self, *_: object) -> None:
        self._log.append(("close", self._slot))

    def run(
        self, notebook, *, assignment, parameters, mode, seconds, checkpoints=None, until=None
    ) -> Outcome:
        word = next(cell["source"] for cell in notebook["cells"] if cell["id"] == "double").strip()
        self._behaviour = does = self._behaviours[word]
        self._log.append(("run", word, mode, until, dict(parameters), seconds))
        opened = sum(entry[:2] == ("run", word) for entry in self._log)
        if opened <= does.fails_to_open or (does.fails_to_open == -1 and opened == 2):
            raise InfrastructureError("no kernel could be started.")
        if does.faulty:
            raise ZeroDivisionError("a fault of the grader")
        time.sleep(self._pause)
        models = does.models() if does.models else {"table": table(does.knows)}
        models = models if does.hands_in else {}
        made = {name: does.checkpoint or weights(model) for name, model in models.items()}
        history = SimpleNamespace(step=[1], train=[2.0], validation=[2.1])
        entries = {
            name: SimpleNamespace(model=model, claim=1.5, history=history) for name, model in models.items()
        }
        functions = {"double": lambda x: does.factor * x, "same": lambda x: x}
        self._respondent = LocalRespondent(entries, functions)
        if mode == "replay":
            self._die_if(does.replay, "The replay died.")
            return Outcome(does.replay)
        self._die_if(does.verdict, does.reason)
        return Outcome(
            verdict=does.verdict,
            reason=does.reason,
            errors=list(does.errors),
            imported_withheld=[Withheld(module, 1, None) for module in does.withheld],
            checkpoints=made,
            last_cell=does.last_cell,
            cells=[CellView(1, "double", word, ["printed"], [])],
            seconds=0.1,
            limits="none",
        )

    def call(self, name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._log.append(("call", name))
        if self._dead is not None:
            raise self._dead
        if name in self._behaviour.deadly:
            verdict = self._behaviour.deadly[name]
            self._dead = SessionDead(verdict, f"It died of {name!r}.")
            raise self._dead
        return self._respondent.call(name, arrays)

    def _die_if(self, verdict: Verdict, reason: str) -> None:
        if verdict not in (Verdict.graded, Verdict.student_error):
            self._dead = SessionDead(verdict, reason)


def parties(log: list, pause: float = 0.0, behaviours: Mapping[str, Behaviour] = BEHAVIOURS) -> Any:
    """What `grade_class` takes in place of real sandboxes."""

    @contextmanager
    def sandboxes(desk: Any) -> Iterator[Any]:
        yield lambda slot: Party(log, slot, pause, behaviours)

    return sandboxes


def course(folder: Path) -> Path:
    """A copy of the tiny course: a source, a release, and reference weights for its tier."""
    copytree(TINY, folder, ignore=lambda *_: ["__pycache__"])
    write_release(folder, "tiny")
    save_reference(folder, "tiny", "table", table(True))
    return folder


def write_release(folder: Path, assignment: str) -> None:
    """What students are given: the cell `double` holds the word."""
    cells = [
        _cell("title", "markdown", "# Tiny", locked=True),
        _cell("double", "code", "raise NotImplementedError", problem="double"),
        _cell("table", "code", "", problem="table"),
        _cell("why", "markdown", "YOUR ANSWER", problem="table"),
        _cell("end", "code", "", locked=True),
    ]
    release = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    path = folder / "assignments" / assignment / f"{assignment}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(release))


def save_reference(folder: Path, assignment: str, name: str, model: nn.Module) -> None:
    """Weights as `autograder calibrate` would have left them."""
    reference = folder / "solutions" / assignment / "reference"
    reference.mkdir(exist_ok=True)
    (reference / f"{name}-smoke.safetensors").write_bytes(weights(model))


def hand_in(
    class_folder: Path, student: str, word: str, course_folder: Path, assignment: str = "tiny"
) -> Path:
    """The release with a word in its cell."""
    release = json.loads((course_folder / f"assignments/{assignment}/{assignment}.ipynb").read_text())
    for cell in release["cells"]:
        if cell["id"] == "double":
            cell["source"] = word
    path = class_folder / "submitted" / student / assignment / f"{assignment}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(release))
    return path


def _cell(name: str, kind: str, source: str, *, locked: bool = False, problem: str | None = None) -> dict:
    nbgrader = {"grade_id": name, "locked": locked, "solution": not locked, "grade": False}
    metadata: dict[str, Any] = {"nbgrader": nbgrader | {"task": False, "schema_version": 3}}
    if problem:
        metadata["dulcourse"] = {"problem": problem}
    return {"cell_type": kind, "id": name, "metadata": metadata, "source": source}
