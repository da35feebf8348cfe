"""Benign and hostile notebooks behind the wall: every verdict from facts, nothing left running."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autograder.library import StagedLibrary
from autograder.limits import Limits
from autograder.results import Verdict
from autograder.sandbox import Python
from autograder.session import Outcome, Session, SessionDead
from dulcourse.errors import InfrastructureError
from dulcourse.referee.respondent import Malformed
from tests.autograder.notebooks import SLOT
from tests.autograder.notebooks import PREAMBLE, notebook

pytestmark = [pytest.mark.wall, pytest.mark.usefixtures("nothing_left")]

LIMITS = Limits(
    memory_gib=0.5, processes=64, output=16 << 20, message=8 << 20, answer=1 << 20, scratch=64 << 20
)


def run(library: StagedLibrary, *sources: str, limits: Limits = LIMITS, seconds: float = 60) -> Outcome:
    with Session(library=library, limits=limits, slot=SLOT) as session:
        return session.run(
            notebook(PREAMBLE, *sources),
            assignment="hw",
            parameters={"seed": 7},
            mode="train",
            seconds=seconds,
        )


# name: (code of the second cell, verdict, a word of the reason, limits, seconds)
ENDINGS = {
    "exits": ("os._exit(0)", Verdict.kernel_died),
    "kills itself": ("os.kill(os.getpid(), signal.SIGKILL)", Verdict.kernel_died),
    "kills its process group": ("os.killpg(0, signal.SIGKILL)", Verdict.kernel_died),
    "loops": ("while True: pass", Verdict.timeout),
    "loops and ignores signals": (
        "for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        Verdict.timeout,
    ),
    "stops the worker": ("os.kill(os.getppid(), signal.SIGSTOP); time.sleep(60)", Verdict.timeout),
    "forks for ever": ("while True:\n    try: os.fork()\n    except OSError: pass", Verdict.timeout),
    "prints 100 MB": ("print('x' * (100 << 20))", Verdict.output_flood),
    "prints for ever": ("while True: print('x' * 10_000)", Verdict.output_flood),
    "floods file descriptor 1": ("while True: os.write(1, b'x' * 65536)", Verdict.output_flood),
    "needs much memory": ("x = bytearray(2 << 30)", Verdict.out_of_memory),
    "needs much memory in children": (
        "for _ in range(6):\n    if os.fork() == 0: x = bytearray(b'x' * (200 << 20)); time.sleep(60)\ntime.sleep(60)",
        Verdict.out_of_memory,
    ),
    "kills the worker": ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", Verdict.sandbox_violation),
    "kills all it can": ("os.kill(-1, signal.SIGKILL); time.sleep(60)", Verdict.sandbox_violation),
}


@pytest.mark.parametrize(("code", "verdict"), ENDINGS.values(), ids=ENDINGS)
def test_verdict_of_a_run_that_ends_early(library: StagedLibrary, code: str, verdict: Verdict):
    limits = replace(LIMITS, memory_gib=2) if verdict is Verdict.output_flood else LIMITS
    seconds = 4 if verdict in (Verdict.timeout, Verdict.out_of_memory) else 60
    outcome = run(library, "saved = 1", code, "never = 1", limits=limits, seconds=seconds)
    assert outcome.verdict is verdict, outcome.reason
    assert outcome.last_cell == 3, "the cell in progress is the one that ended the run"
    assert [cell.index for cell in outcome.cells] == [0, 1, 2], "what was finished before is kept"
    assert "cell 4" in outcome.reason
