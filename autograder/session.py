"""One run of one notebook behind the wall, seen from the trusted side: run the cells, then ask questions.

    with Session(library=library, limits=limits, slot=0) as session:
        outcome = session.run(notebook, assignment="hw1", parameters={"seed": 0}, mode="train", seconds=60)
        answer = session.call("made.logits", {"x": x})

What ended a run is decided from facts seen here (memory, the clock, the channel). What the worker says
about it is believed only where it hurts the submission.
"""

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import numpy as np

from autograder import sandbox
from autograder.forkserver import ForkServer
from autograder.library import StagedLibrary
from autograder.limits import Limits
from autograder.results import CellError, Verdict
from autograder.views import CellView, clean_png, clean_text
from dulcourse.errors import InfrastructureError
from dulcourse.referee import wire
from dulcourse.referee.respondent import Malformed

__all__ = ["Outcome", "Session", "SessionDead", "Withheld"]

Mode = Literal["train", "replay"]

_HEADROOM = 1 << 20  # of a frame, for its header
_EVENTS_A_CELL = 80  # two, and one for each set of weights
_CLAIMS = {
    verdict.value: verdict for verdict in (Verdict.student_error, Verdict.kernel_died, Verdict.output_flood)
}


class SessionDead(Malformed):
    """The sandbox is gone, so nothing can be asked any more. `verdict` and `reason` say why."""

    def __init__(self, verdict: Verdict, reason: str):
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


@dataclass(frozen=True)
class Withheld:
    """A cell that asked for a module of the library that answers the homework."""

    module: str
    cell: int
    problem: str | None


@dataclass
class Outcome:
    """How a run ended and what it left: all of it sanitised and capped, none of it worth points."""

    verdict: Verdict
    reason: str = ""
    mode: Mode = "train"
    errors: list[CellError] = field(default_factory=list)
    imported_withheld: list[Withheld] = field(default_factory=list)
    checkpoints: dict[str, bytes] = field(
        default_factory=dict
    )  # complete when their cell ended; the last of each name
    last_cell: int | None = None  # the cell in progress when it died
    cells: list[CellView] = field(default_factory=list)
    seconds: float = 0.0  # from delivery to the end of the last cell
    limits: str = ""

    @property
    def where(self) -> str:
        """Where in the notebook it ended, as the rest of a sentence."""
        if self.mode == "replay":
            return ", in a replay of the saved weights"
        return "" if self.last_cell is None else f", while cell {self.last_cell + 1} was running"


class _ViolationError(Exception):
    """What came through the channel is not what the worker sends."""


class Session:
    """A sandbox with one notebook in it, and the respondent it becomes when its cells have run.

    Entering starts the sandbox and its kernel; leaving kills it and waits until its namespace is empty. A
    session belongs to one thread at a time; several may be open at once, each in its own `slot`.
    """

    def __init__(
        self,
        *,
        library: StagedLibrary,
        limits: Limits | None = None,
        slot: int = 0,
        threads: int = 1,
        device: str = "cpu",
        unsafe: bool = False,
        python: sandbox.Python | None = None,
        server: ForkServer | None = None,
    ):
        self._library, self._limits = library, limits or Limits()
        self._options = {
            "slot": slot,
            "threads": threads,
            "device": device,
            "unsafe": unsafe,
            "python": python,
            "server": server,
        }
        self._sandbox: sandbox.Sandbox | None = None
        self._dead: SessionDead | None = None
        self._serving, self._questions, self._answering = False, 0, 0.0

    def __enter__(self) -> "Session":
        self._sandbox = sandbox.launch(self._library, self._limits, **self._options)
        try:
            self._expect("hello", time.monotonic() + self._limits.launch_seconds)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill everything inside and wait until nothing is left. May be called again, by any thread."""
        if self._sandbox is not None:
            self._sandbox.close()

    @property
    def limits(self) -> str:
        """How limits are enforced: cgroup-v1, cgroup-v2, rlimits, or none."""
        enforcer = self._sandbox.enforcer if self._sandbox else None
        return enforcer.name if enforcer else "none"

    def run(
        self,
        notebook: dict[str, Any],
        *,
        assignment: str,
        parameters: dict[str, Any],
        mode: Mode,
        seconds: float,
        checkpoints: Mapping[str, bytes] | None = None,
        until: int | None = None,
    ) -> Outcome:
        """Run a notebook's code cells, going on after errors.

        `until` is the index of the first cell that is *not* run. A replay without it stops as soon as every
        name in `checkpoints` has been handed in; what its cells show and raise is not told again. `seconds`
        is wall clock, from delivery. Raises `InfrastructureError` for whatever goes wrong before the notebook
        is delivered; never after.
        """
        self._set_up(assignment, mode, checkpoints or {})
        outcome = Outcome(Verdict.graded, mode=mode, limits=self.limits)
        task = {"parameters": parameters, "until": until}
        data = {"notebook": np.frombuffer(json.dumps(notebook).encode(), np.uint8)}
        self._send(task, data, time.monotonic() + self._limits.launch_seconds)
        delivered = time.monotonic()
        try:
            reason = self._follow(notebook, outcome, delivered + seconds)
        except wire.WireTimeout:
            self._die(Verdict.timeout, f"the time allowed, {seconds:g} s, was over", outcome)
        except wire.WireClosed:
            self._die(Verdict.sandbox_violation, "the worker behind the wall was gone", outcome)
        except (wire.WireError, _ViolationError) as error:
            self._die(
                Verdict.sandbox_violation,
                f"what came out of the sandbox was not what its worker sends: {error}",
                outcome,
            )
        else:
            if reason:
                self._die(reason[0], reason[1], outcome)
        outcome.seconds = time.monotonic() - delivered
        if outcome.verdict is Verdict.graded:
            self._serving, outcome.last_cell = True, None
            if outcome.errors:
                outcome.verdict, outcome.reason = Verdict.student_error, _count_errors(outcome.errors)
        return outcome

    def call(self, name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The kernel's answer to a question, or `Malformed`; `SessionDead` when there will be no more."""
        if self._dead is not None:
            raise self._dead
        if not self._serving or self._sandbox is None:
            raise RuntimeError("a session answers after its notebook has run; call run() first")
        left = self._limits.answering_seconds - self._answering
        allowed = min(self._limits.call_seconds, left)
        began, self._questions = time.monotonic(), self._questions + 1
        try:
            question = {"call": name, "id": self._questions, "limit": self._limits.answer}
            with contextlib.suppress(wire.WireClosed):  # what it said at its end may still be read
                self._send(question, arrays, began + allowed)
            frame = wire.read_frame(self._sandbox.channel, self._limits.answer + _HEADROOM, began + allowed)
        except wire.WireTimeout:
            self._die(Verdict.timeout, f"no answer to {name!r} in {max(allowed, 0):.3g} s")
        except wire.WireClosed:
            self._die(
                Verdict.sandbox_violation, f"the worker behind the wall died while {name!r} was answered"
            )
        except wire.WireError as error:
            self._die(Verdict.sandbox_violation, f"the answer to {name!r} is too large: {error}")
        finally:
            self._answering += time.monotonic() - began
        if self._dead is not None:
            raise self._dead
        return self._unpack(name, frame)

    def _unpack(self, name: str, frame: bytes) -> dict[str, np.ndarray]:
        try:
            header, answer = wire.decode(frame)
        except wire.WireError as error:
            raise Malformed(f"the answer to {name!r} cannot be read: {error}") from error
        if header.get("event") == "end" and header.get("claim") == "kernel_died":
            self._die(Verdict.kernel_died, f"the kernel died while it answered {name!r}")
            raise self._dead
        if header.get("id") != self._questions:
            self._die(Verdict.sandbox_violation, f"what came after {name!r} was asked answers something else")
            raise self._dead
        if header.get("ok") is not True:
            raise Malformed(clean_text(str(header.get("error", "no reason given")), 2000))
        return answer

    def _set_up(self, assignment: str, mode: Mode, checkpoints: Mapping[str, bytes]) -> None:
        """All that can be said before the notebook is delivered."""
        if self._sandbox is None:
            raise RuntimeError("a session runs inside its with block")
        sizes = {"output": self._limits.output, "checkpoint": self._limits.checkpoint}
        deadline = time.monotonic() + self._limits.launch_seconds
        weights = {name: np.frombuffer(data, np.uint8) for name, data in checkpoints.items()}
        try:
            self._send({"assignment": assignment, "mode": mode, "sizes": sizes}, weights, deadline)
        except wire.WireError as error:
            raise InfrastructureError(self._not_started(error)) from error
        self._expect("ready", deadline)

    def _follow(
        self, notebook: dict[str, Any], outcome: Outcome, deadline: float
    ) -> tuple[Verdict, str] | None:
        """Take down what the worker tells, cell by cell. Returns why the run ended early, or None."""
        problems = [_problem(cell) for cell in notebook["cells"]]
        budget = 2 * self._limits.output + 4 * self._limits.checkpoint + 64 * _HEADROOM
        for _ in range(_EVENTS_A_CELL * (len(problems) + 2)):
            limit = min(max(self._limits.checkpoint, self._limits.output) + _HEADROOM, budget)
            frame = wire.read_frame(self._sandbox.channel, limit, deadline)
            budget -= len(frame)
            header, arrays = wire.decode(frame)
            match header.get("event"):
                case "cell":
                    outcome.last_cell = _index(header, len(problems))
                case "checkpoint":
                    name, data = header.get("name"), arrays.get("data")
                    if not isinstance(name, str) or data is None or data.dtype != np.uint8:
                        raise _ViolationError("weights without a name or bytes")
                    if re.fullmatch(r"\w{1,64}", name, re.ASCII):
                        outcome.checkpoints[name] = data.tobytes()
                case "done":
                    self._note_cell(notebook["cells"], header, arrays, outcome)
                case "end":
                    return self._ending(header)
                case _:
                    raise _ViolationError("an event of no known kind")
        raise _ViolationError("too many events")

    def _note_cell(
        self, cells: list[dict], header: dict, arrays: dict[str, np.ndarray], outcome: Outcome
    ) -> None:
        index = _index(header, len(cells))
        cell = cells[index] if index is not None else {"source": "", "id": "parameters"}
        problem, name = _problem(cell), _cell_name(cell, index)
        error, text, tried = header.get("error"), header.get("text"), header.get("withheld")
        if not _texts(text) or not _texts(tried) or not isinstance(error, dict | None):
            raise _ViolationError("a finished cell without its fields")
        if error is not None:
            kind, message = (
                clean_text(str(error.get(key, "")), size) for key, size in (("name", 100), ("message", 2000))
            )
            outcome.errors.append(
                CellError(problem=problem, cell=name, name=kind or "Error", message=message)
            )
        for module in set(tried) & set(self._library.withheld):
            outcome.imported_withheld.append(Withheld(module, -1 if index is None else index, problem))
            if error is None:
                words = f"{module} is withheld while this homework is graded; the cell asked for it."
                outcome.errors.append(
                    CellError(problem=problem, cell=name, name="ImportError", message=words)
                )
        if index is not None:
            images = [
                png
                for array in arrays.values()
                if array.dtype == np.uint8
                if (png := clean_png(array.tobytes()))
            ]
            texts = [clean for part in text if (clean := clean_text(part))]
            outcome.cells.append(CellView(index, problem, _source(cell), texts, images))
        outcome.last_cell = None

    def _ending(self, header: dict[str, Any]) -> tuple[Verdict, str] | None:
        claim, reason = header.get("claim"), clean_text(str(header.get("reason", "")), 1000)
        if claim == "finished":
            return None
        if claim not in _CLAIMS:
            raise _ViolationError("an end of no known kind")
        verdict = _CLAIMS[claim]
        return verdict, f"{_WORDS[verdict]}: {reason}" if reason else _WORDS[verdict]

    def _die(self, verdict: Verdict, reason: str, outcome: Outcome | None = None) -> None:
        """Kill the sandbox and settle why: memory first, which also explains silence and sudden ends."""
        with contextlib.suppress(OSError):
            self._sandbox.kill()
        if self._sandbox.out_of_memory():
            size = self._limits.memory_gib
            verdict, reason = Verdict.out_of_memory, f"more than {size:g} GiB of memory were needed"
        self.kill()
        sentence = f"{reason[:1].upper()}{reason[1:]}{outcome.where if outcome else ''}."
        self._serving, self._dead = False, SessionDead(verdict, sentence)
        if outcome is not None:
            outcome.verdict, outcome.reason = verdict, sentence

    def _send(self, header: dict[str, Any], arrays: Mapping[str, np.ndarray], deadline: float) -> None:
        wire.write_frame(self._sandbox.channel, wire.encode(header, arrays), deadline)

    def _expect(self, event: str, deadline: float) -> None:
        """The worker's word that it is there. Nothing of a submission has come near it yet."""
        try:
            header, _ = wire.decode(wire.read_frame(self._sandbox.channel, _HEADROOM, deadline))
        except wire.WireError as error:
            raise InfrastructureError(self._not_started(error)) from error
        if header.get("event") != event:
            raise InfrastructureError(
                f"the worker said {header.get('event')!r} instead of {event!r}; is its file intact?"
            )

    def _not_started(self, error: wire.WireError) -> str:
        code = self._sandbox.exit_code(0.5)
        said = self._sandbox.said()
        if self._sandbox.out_of_memory():
            return f"{self._limits.memory_gib:g} GiB of memory are too few to start a kernel; allow more."
        if "bwrap:" in said:
            return sandbox.explain(said)
        state = f"exit code {code}" if code is not None else str(error)
        return (
            f"no kernel could be started behind the wall ({state}): {said or 'it said nothing'}. "
            "Run `autograder doctor`."
        )


_WORDS = {
    Verdict.kernel_died: "the kernel died",
    Verdict.output_flood: "the notebook printed or drew too much",
    Verdict.student_error: "the notebook could not be run",
}


def _problem(cell: Mapping[str, Any]) -> str | None:
    problem = cell.get("metadata", {}).get("dulcourse", {}).get("problem")
    return problem if isinstance(problem, str) else None


def _cell_name(cell: Mapping[str, Any], index: int | None) -> str:
    grade_id = cell.get("metadata", {}).get("nbgrader", {}).get("grade_id")
    return str(grade_id or cell.get("id") or f"cell-{0 if index is None else index + 1}")


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _index(header: Mapping[str, Any], cells: int) -> int | None:
    """A cell's index in the notebook that was sent; None for the injected parameters."""
    index = header.get("index")
    if type(index) is not int or not -1 <= index < cells:
        raise _ViolationError("a cell that the notebook does not have")
    return None if index == -1 else index


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _count_errors(errors: list[CellError]) -> str:
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"Cell {first.cell} raised {first.name}{more}."
