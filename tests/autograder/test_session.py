"""What the trusted side makes of a worker that lies, raves, or says nothing; the worker is a script here."""

import contextlib
import re
import socket
import struct
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autograder import sandbox
from autograder.library import StagedLibrary
from autograder.limits import Limits
from autograder.results import Verdict
from autograder.session import Outcome, Session, SessionDead
from autograder.views import clean_png, clean_text
from dulcourse.errors import InfrastructureError
from dulcourse.referee import wire
from dulcourse.referee.respondent import Malformed
from tests.autograder.notebooks import notebook

LIMITS = Limits(output=1 << 20, checkpoint=1 << 20, answer=1 << 16, launch_seconds=5, call_seconds=0.5)
Script = Callable[["Pretender"], None]


class Pretender:
    """A sandbox whose worker is a function of this test."""

    def __init__(self, script: Script, memory: bool = False):
        self.channel, self.other = socket.socketpair()
        self.enforcer, self.memory = types.SimpleNamespace(name="pretended"), memory
        self.thread = threading.Thread(target=self._play, args=(script,), daemon=True)
        self.thread.start()

    def _play(self, script: Script) -> None:
        try:
            script(self)
        except wire.WireError:
            pass
        finally:
            self.other.close()

    def say(self, header: dict[str, Any], **arrays: np.ndarray) -> None:
        wire.write_frame(self.other, wire.encode(header, arrays))

    def raw(self, data: bytes) -> None:
        self.other.sendall(data)

    def hear(self) -> dict[str, Any]:
        return wire.decode(wire.read_frame(self.other, deadline=None))[0]

    def begin(self) -> None:
        """All that comes before the submission's own."""
        self.say({"event": "hello"})
        self.hear()
        self.say({"event": "ready"})
        self.hear()

    def kill(self) -> None:
        self.channel.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.channel.close()

    def out_of_memory(self) -> bool:
        return self.memory

    def exit_code(self, wait: float) -> int | None:
        return 1

    def said(self) -> str:
        return "some words"


@pytest.fixture
def open_session(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def make(script: Script, memory: bool = False, **limits: Any) -> Session:
        monkeypatch.setattr(sandbox, "launch", lambda *_, **__: Pretender(script, memory))
        library = StagedLibrary(tmp_path, ("dulcourse.secret",))
        return Session(library=library, limits=Limits(**{**LIMITS.__dict__, **limits}))

    return make


def run(session: Session, seconds: float = 5) -> Outcome:
    return session.run(notebook("a", "b"), assignment="hw", parameters={}, mode="train", seconds=seconds)


def finish(worker: Pretender, *events: dict[str, Any]) -> None:
    worker.begin()
    for event in events:
        worker.say(event)
    worker.say({"event": "end", "claim": "finished", "reason": ""})
    worker.hear()


def done(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"event": "done", "index": index, "error": None, "text": [], "withheld": [], **fields}


DEEP = b"[" * 100_000
RAVINGS: dict[str, Script] = {
    "no JSON": lambda w: w.raw(struct.pack(">QI", 14, 10) + b"not JSON..!"[:10]),
    "deep JSON": lambda w: w.raw(struct.pack(">QI", 4 + len(DEEP), len(DEEP)) + DEEP),
    "endless frame": lambda w: w.raw(struct.pack(">Q", 1 << 60)),
    "random bytes": lambda w: w.raw(bytes(range(256)) * 16),
    "no event": lambda w: w.say({}),
    "an unknown event": lambda w: w.say({"event": "graded", "points": 100}),
    "a cell that is not there": lambda w: w.say({"event": "cell", "index": 99}),
    "a cell that is no number": lambda w: w.say({"event": "cell", "index": "0"}),
    "a cell that is a truth value": lambda w: w.say({"event": "cell", "index": True}),
    "a finished cell without fields": lambda w: w.say({"event": "done", "index": 0}),
    "text that is none": lambda w: w.say(done(text=[1])),
    "an error that is a list": lambda w: w.say(done(error=[1])),
    "weights without bytes": lambda w: w.say({"event": "checkpoint", "name": "made"}),
    "weights of numbers": lambda w: w.say({"event": "checkpoint", "name": "made"}, data=np.zeros(3)),
    "too large weights": lambda w: w.say(
        {"event": "checkpoint", "name": "m"}, data=np.zeros(4 << 20, np.uint8)
    ),
    "too many events": lambda w: [w.say({"event": "cell", "index": 0}) for _ in range(10_000)],
    "too many bytes": lambda w: [
        w.say({"event": "checkpoint", "name": "m"}, data=np.zeros(1 << 20, np.uint8)) for _ in range(300)
    ],
    "an ending of its own": lambda w: w.say({"event": "end", "claim": "graded", "reason": ""}),
    "our fault, it says": lambda w: w.say({"event": "end", "claim": "infrastructure_error", "reason": ""}),
    "good-bye": lambda w: None,
}


@pytest.mark.parametrize("raving", RAVINGS.values(), ids=RAVINGS)
def test_whatever_the_worker_says_wrongly_is_a_violation_and_never_our_fault(open_session, raving: Script):
    def script(worker: Pretender) -> None:
        worker.begin()
        raving(worker)

    with open_session(script) as session:
        outcome = run(session)
        assert outcome.verdict is Verdict.sandbox_violation, outcome.reason
        with pytest.raises(SessionDead):
            session.call("made.logits", {})


@pytest.mark.parametrize("claim", ["student_error", "kernel_died", "output_flood"])
def test_claims_are_believed_where_they_hurt(open_session, claim: str):
    def script(worker: Pretender) -> None:
        worker.begin()
        worker.say({"event": "cell", "index": 1})
        worker.say({"event": "end", "claim": claim, "reason": "as it says"})

    with open_session(script) as session:
        outcome = run(session)
    assert outcome.verdict is Verdict(claim)
    assert outcome.last_cell == 1
    assert re.fullmatch(r"The \w.*: as it says, while cell 2 was running\.", outcome.reason)


@pytest.mark.parametrize("raving", [RAVINGS["good-bye"], RAVINGS["random bytes"], lambda w: w.hear()])
def test_memory_is_a_fact_that_explains_any_other_end(open_session, raving: Script):
    with open_session(lambda w: (w.begin(), raving(w)), memory=True) as session:
        assert run(session, seconds=0.3).verdict is Verdict.out_of_memory


def test_a_run_that_ends_well_is_graded_whatever_was_killed_in_it(open_session):
    with open_session(finish, memory=True) as session:
        assert run(session).verdict is Verdict.graded


def test_silence_is_a_timeout(open_session):
    with open_session(lambda w: (w.begin(), w.say({"event": "cell", "index": 2}), w.hear())) as session:
        outcome = run(session, seconds=0.3)
    assert outcome.verdict is Verdict.timeout
    assert outcome.last_cell == 2
    assert "0.3 s" in outcome.reason


@pytest.mark.parametrize(
    "script",
    [
        lambda w: None,
        lambda w: w.say({"event": "something"}),
        lambda w: w.raw(b"\xff" * 100),
        lambda w: w.say({"event": "hello"}),
        lambda w: (w.say({"event": "hello"}), w.hear(), w.say({"event": "cell"})),
        lambda w: w.hear(),
    ],
)
def test_before_delivery_every_failure_is_ours(open_session, script: Script):
    with pytest.raises(InfrastructureError), open_session(script, launch_seconds=0.5) as session:
        run(session)


def test_what_a_run_leaves_is_kept_under_the_notebooks_own_names(open_session):
    def script(worker: Pretender) -> None:
        worker.begin()
        for index, data in ((1, b"first"), (2, b"second")):
            worker.say({"event": "cell", "index": index})
            worker.say({"event": "checkpoint", "name": "made"}, data=np.frombuffer(data, np.uint8))
            worker.say({"event": "checkpoint", "name": "../made"}, data=np.frombuffer(data, np.uint8))
            error = (
                {"name": "ValueError", "message": "\x1b[31mred\x1b[0m", "problem": "other"}
                if index == 2
                else None
            )
            worker.say(done(index, error=error, text=["a\rb"], problem="other", source="other"))
        worker.say({"event": "end", "claim": "finished", "reason": ""})
        worker.hear()

    with open_session(script) as session:
        outcome = run(session)
    assert outcome.verdict is Verdict.student_error
    assert outcome.checkpoints == {"made": b"second"}
    assert [(e.problem, e.cell, e.name, e.message) for e in outcome.errors] == [
        ("p2", "cell-2", "ValueError", "red")
    ]
    assert [(c.problem, c.source, c.text) for c in outcome.cells] == [("p1", "a", ["b"]), ("p2", "b", ["b"])]


def test_a_withheld_module_is_charged_to_the_cells_problem_even_if_the_error_was_caught(open_session):
    events = (done(1, withheld=["dulcourse.secret", "dulcourse.something"]),)
    with open_session(lambda w: finish(w, *events)) as session:
        outcome = run(session)
    assert [(w.module, w.cell, w.problem) for w in outcome.imported_withheld] == [
        ("dulcourse.secret", 1, "p1")
    ]
    assert [(e.problem, e.name) for e in outcome.errors] == [("p1", "ImportError")]


def answering(*answers: Callable[[Pretender, dict], None]) -> Script:
    def script(worker: Pretender) -> None:
        worker.begin()
        worker.say({"event": "end", "claim": "finished", "reason": ""})
        for answer in answers:
            answer(worker, worker.hear())
        worker.hear()

    return script


def right(worker: Pretender, question: dict) -> None:
    worker.say({"ok": True, "id": question["id"]}, x=np.arange(3))


def test_refusals_and_nonsense_in_an_answer_are_malformed_and_the_next_is_heard(open_session):
    script = answering(
        lambda w, q: w.say({"ok": False, "id": q["id"], "error": "\x1b[1mno\x07"}),
        lambda w, q: w.raw(struct.pack(">Q", 100) + b"\xff" * 100),
        lambda w, q: w.say({"id": q["id"]}),
        right,
    )
    with open_session(script) as session:
        run(session)
        for _ in range(3):
            with pytest.raises(Malformed) as caught:
                session.call("function.f", {})
            assert not isinstance(caught.value, SessionDead)
            assert "\x1b" not in str(caught.value)
        np.testing.assert_array_equal(session.call("function.f", {})["x"], [0, 1, 2])


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda w, q: w.hear(), Verdict.timeout),
        (lambda w, q: w.other.close(), Verdict.sandbox_violation),
        (lambda w, q: w.raw(struct.pack(">Q", 1 << 40)), Verdict.sandbox_violation),
        (lambda w, q: w.say({"ok": True, "id": q["id"] - 1}), Verdict.sandbox_violation),
        (lambda w, q: [right(w, q) for _ in range(2)], Verdict.sandbox_violation),
    ],
)
def test_an_answer_that_ends_the_session_ends_it_for_good(open_session, answer, verdict: Verdict):
    with open_session(answering(answer)) as session:
        run(session)
        for _ in range(3):
            with contextlib.suppress(SessionDead):  # the first answer may still be a good one
                session.call("function.f", {})
        with pytest.raises(SessionDead) as caught:
            session.call("function.f", {})
        assert caught.value.verdict is verdict


def test_an_answer_to_another_question_is_not_taken(open_session):
    script = answering(lambda w, q: w.say({"ok": True, "id": q["id"] - 1}, x=np.arange(3)), right)
    with open_session(script) as session:
        run(session)
        with pytest.raises(SessionDead, match="answers something else") as caught:
            session.call("function.f", {})
        assert caught.value.verdict is Verdict.sandbox_violation


def test_answers_share_one_allowance(open_session):
    def slow(worker: Pretender, question: dict) -> None:
        threading.Event().wait(0.2)
        right(worker, question)

    with open_session(answering(*[slow] * 10), answering_seconds=0.5) as session:
        run(session)
        session.call("function.f", {})
        with contextlib.suppress(SessionDead):
            session.call("function.f", {})
        with pytest.raises(SessionDead, match="No answer") as caught:
            session.call("function.f", {})
        assert caught.value.verdict is Verdict.timeout


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    import zlib

    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int = 1, *extra: bytes) -> bytes:
    import zlib

    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(extra)
        + _chunk(b"IDAT", zlib.compress(b"\0\0"))
        + _chunk(b"IEND")
    )


def test_pictures_keep_their_pixels_and_nothing_else():
    plain = _png()
    assert clean_png(plain) == plain
    assert clean_png(_png(1, _chunk(b"tEXt", b"<script>"))) == plain
    assert clean_png(plain + b"<html>") == plain
    for broken in (b"", b"<svg/>", plain[:-1], plain[:40], _png(1 << 20), plain.replace(b"IDAT", b"IDAX")):
        assert clean_png(broken) is None


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07end", "red end"),
        ("10%\r50%\r100%\ndone\r\n", "100%\ndone"),
        ("a\x00b\x08\u202e", "a\ufffdb\ufffd\ufffd"),
        ("x" * 50_000, None),
    ],
)
def test_text_is_what_a_terminal_would_have_left(text: str, clean: str | None):
    cleaned = clean_text(text, 1000)
    assert cleaned == clean if clean is not None else len(cleaned) < 1100 and "left out" in cleaned
