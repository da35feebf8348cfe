"""A running sandbox: how it is started, held to its limits, and killed.

One inherited socket is the only way in or out. What happened inside is read from facts seen out here: how the
channel ended, the clock, and what `limits` knows of memory.
"""

import contextlib
import functools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from autograder import limits as limits_module
from autograder import seccomp
from autograder.bubblewrap import (
    WORKER,
    Python,
    available,
    bubblewrap,
    command,
    environment,
    explain,
    options,
)
from autograder.library import StagedLibrary
from autograder.limits import Enforcer, Limits
from autograder.owner import abandoned, owned_name
from dulcourse.errors import InfrastructureError, UsageError

__all__ = ["Python", "Sandbox", "available", "explain", "launch"]


class Sandbox:
    """A running sandbox. `channel` is the trusted end of its only connection."""

    def __init__(
        self, process: subprocess.Popen, channel: socket.socket, errors: int, enforcer: Enforcer | None
    ):
        self.process, self.channel, self.enforcer = process, channel, enforcer
        self._errors, self._said = errors, b""
        os.set_blocking(errors, False)
        self._pidfd: int | None = None
        self._folder: Path | None = None  # of a sandbox that is none
        self._lock, self._closed = threading.Lock(), False

    def out_of_memory(self) -> bool:
        return self.enforcer is not None and self.enforcer.out_of_memory()

    def exit_code(self, wait: float) -> int | None:
        """How the worker ended; None while it runs, or when it was killed from outside."""
        try:
            return self.process.wait(wait)
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        """What bubblewrap and the worker wrote to their standard error, at most 8 kB."""
        with contextlib.suppress(OSError):
            self._said += os.read(self._errors, 8192 - len(self._said)) if len(self._said) < 8192 else b""
        return self._said.decode(errors="replace").strip()

    def kill(self) -> None:
        """Kill everything inside: the first process of the namespace takes all others with it."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._closed:
                return
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            elif self._folder is not None:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def close(self) -> None:
        """Kill, wait until the namespace is empty, and leave nothing behind."""
        self.kill()
        self.process.wait()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.channel.close()
        for descriptor in (self._errors, self._pidfd):
            if descriptor is not None:
                os.close(descriptor)
        if self.enforcer is not None:
            self.enforcer.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def launch(
    library: StagedLibrary,
    limits: Limits,
    *,
    slot: int = 0,
    threads: int = 1,
    device: str = "cpu",
    unsafe: bool = False,
    python: Python | None = None,
) -> Sandbox:
    """Start a worker behind the wall, waiting for its channel. `InfrastructureError` if it cannot."""
    python = python or Python.current()
    if unsafe:
        return _launch_unsafe(library, limits, threads, python)
    program = seccomp.program()
    _sweep_once()
    enforcer = limits_module.enforcer(limits)
    with contextlib.ExitStack() as failed, contextlib.ExitStack() as given:
        failed.callback(enforcer.close)
        ours, theirs = _closing(given, failed)
        info, info_write = _pipe(failed, given)
        said, said_write = _pipe(failed, given)
        block_read, block = _pipe(given, failed)
        fds = {"info": info_write, "block": block_read, "seccomp": _memory_file(given, program)}
        around = options(
            python=python, library=library.folder, threads=threads, device=device, limits=limits, fds=fds
        )
        arguments = _memory_file(given, b"".join(os.fsencode(part) + b"\0" for part in around))
        inside = command(
            python=python, slot=slot, channel=theirs.fileno(), processes=_own_count(limits, enforcer)
        )
        # The options travel through a file, so that the command line, which is seen inside, shows none of
        # them.
        process = _launcher().popen(
            [bubblewrap(), "--args", str(arguments), "--", *inside],
            pass_fds=[arguments, theirs.fileno(), *fds.values()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said_write,
            env={},
            # Ctrl-C in a terminal, or a signal to the grader's group, must not reach a student's sandbox.
            start_new_session=True,
        )
        given.close()
        failed.pop_all()
    sandbox = Sandbox(process, ours, said, enforcer)
    try:
        _admit(sandbox, info, block)
    except BaseException:
        sandbox.close()
        raise
    return sandbox


def _own_count(limits: Limits, enforcer: Enforcer) -> int:
    """How many processes the worker allows itself by an rlimit, which counts all of its user's."""
    if enforcer.counts_processes:
        return 0
    return limits.processes + (0 if os.geteuid() == 0 else limits_module.user_processes())


def _admit(sandbox: Sandbox, info: int, block: int) -> None:
    """Put the waiting sandbox under its limits, then let it go."""
    with os.fdopen(info, "rb") as stream, os.fdopen(block, "wb") as gate:
        text = stream.read()  # to the end: a partial read leaves bubblewrap's processes blocked
        _hold(sandbox, text)
        gate.write(b"1")


def _hold(sandbox: Sandbox, text: bytes) -> None:
    try:
        pid = json.loads(text)["child-pid"]
        sandbox._pidfd = os.pidfd_open(pid)
    except (ValueError, KeyError, OSError):
        sandbox.process.wait()
        raise InfrastructureError(explain(sandbox.said())) from None
    try:
        sandbox.enforcer.admit(pid, sandbox.kill)
    except OSError as error:
        raise InfrastructureError(
            f"cannot limit the sandbox's memory: {error}; run `autograder doctor`."
        ) from error


def _launch_unsafe(library: StagedLibrary, limits: Limits, threads: int, python: Python) -> Sandbox:
    """The same worker with no wall around it, for one's own notebooks."""
    if os.geteuid() == 0:
        raise UsageError(
            "--unsafe-no-sandbox runs notebooks with all your rights and refuses root; use another user."
        )
    folder = Path(tempfile.mkdtemp(prefix=f"{owned_name()}.unsafe-"))
    with contextlib.ExitStack() as failed, contextlib.ExitStack() as given:
        failed.callback(shutil.rmtree, folder, ignore_errors=True)
        ours, theirs = _closing(given, failed)
        said, said_write = _pipe(failed, given)
        process = _launcher().popen(
            [python.executable, "-I", WORKER, str(theirs.fileno()), folder, library.folder, "0"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said_write,
            env=environment(python, threads, str(folder)),
            cwd=folder,
            start_new_session=True,
        )
        given.close()
        failed.pop_all()
    sandbox = Sandbox(process, ours, said, None)
    sandbox._folder = folder
    return sandbox


def _closing(theirs: contextlib.ExitStack, ours: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """A pair of sockets (ours, theirs), each closed by its stack."""
    one, other = socket.socketpair()
    return ours.enter_context(one), theirs.enter_context(other)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe (read end, write end), each closed by its stack."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _memory_file(stack: contextlib.ExitStack, content: bytes) -> int:
    descriptor = os.memfd_create("dulcourse")
    stack.callback(os.close, descriptor)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class _Launcher:
    """Starts processes from one thread that lives as long as the grader.

    A sandbox dies with the *thread* that started it (PR_SET_PDEATHSIG), and a scheduler's threads come and
    go.
    """

    def __init__(self):
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.pid = os.getpid()
        threading.Thread(target=self._work, name="dulcourse-launcher", daemon=True).start()

    def popen(self, line: list, **options: Any) -> subprocess.Popen:
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self._jobs.put((line, options, answer))
        result = answer.get()
        if isinstance(result, OSError):
            raise InfrastructureError(
                f"cannot start {str(line[0])!r}: {result.strerror}; run `autograder doctor`."
            )
        return result

    def _work(self) -> None:
        while True:
            line, options, answer = self._jobs.get()
            try:
                answer.put(subprocess.Popen(line, **options))
            except OSError as error:
                answer.put(error)


_launcher_lock = threading.Lock()
_the_launcher: _Launcher | None = None


def _launcher() -> _Launcher:
    global _the_launcher
    with _launcher_lock:
        if _the_launcher is None or _the_launcher.pid != os.getpid():  # threads do not survive a fork
            _the_launcher = _Launcher()
        return _the_launcher


@functools.cache
def _sweep_once() -> None:
    """What graders that were killed left behind is removed when the first sandbox starts."""
    limits_module.sweep()
    for folder in Path(tempfile.gettempdir()).glob("dulcourse.*"):
        if abandoned(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
