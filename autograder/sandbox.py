"""A running sandbox: how it is started, held to its limits, and killed.

One inherited socket is the only way in or out. What happened inside is read from facts seen out here: how the
channel ended, the clock, and what `limits` knows of memory.
"""

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from autograder import limits as limits_module
from autograder import seccomp
from autograder.bubblewrap import (
    WORKER,
    Python,
    anchor,
    available,
    bubblewrap,
    command,
    environment,
    explain,
    options,
    user_id,
)
from autograder.forkserver import ForkServer
from autograder.launcher import launcher
from autograder.library import StagedLibrary
from autograder.limits import Enforcer, Limits
from autograder.owner import abandoned, owned_name
from dulcourse.errors import InfrastructureError, UsageError

__all__ = ["Python", "Sandbox", "available", "explain", "launch"]

COMPLETE_SECONDS = 60.0  # in which bubblewrap builds a sandbox; slower is stuck


class Sandbox:
    """A running sandbox. `channel` is the trusted end of its only connection."""

    def __init__(
        self, process: subprocess.Popen, channel: socket.socket, errors: int, enforcer: Enforcer | None
    ):
        self.process, self.channel, self.enforcer = process, channel, enforcer
        self._errors, self._said = errors, b""
        os.set_blocking(errors, False)
        self.pidfd: int | None = None  # of the first process of its namespace
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
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
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
        for descriptor in (self._errors, self.pidfd):
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
    server: ForkServer | None = None,
) -> Sandbox:
    """Start a worker behind the wall, waiting for its channel. `InfrastructureError` if it cannot.

    With a `server` the worker is forked from it, and enters; without one a fresh interpreter is executed.
    """
    python = python or Python.current()
    if unsafe:
        return _launch_unsafe(library, limits, threads, python)
    program = seccomp.program()
    _sweep_once()
    enforcer = limits_module.enforcer(limits)
    processes = _own_count(limits, enforcer)
    with contextlib.ExitStack() as failed, contextlib.ExitStack() as lent:
        failed.callback(enforcer.close)
        ours, theirs = _closing(lent, failed)
        said, said_write = _pipe(failed, lent)
        rules = _memory_file(lent, program)
        with contextlib.ExitStack() as given:
            complete, output = _pipe(lent, given)
            info, info_write = _pipe(failed, given)
            block_read, block = _pipe(given, failed)
            fds = {"info": info_write, "block": block_read, "seccomp": rules}
            around = options(
                python=python, library=library.folder, threads=threads, device=device, limits=limits, fds=fds
            )
            arguments = _memory_file(given, b"".join(os.fsencode(part) + b"\0" for part in around))
            if server is None:
                inside = command(python=python, slot=slot, channel=theirs.fileno(), processes=processes)
            else:
                inside = anchor()
            # The options travel through a file, so that the command line, which is seen inside, shows none
            # of them.
            process = launcher().popen(
                [bubblewrap(), "--args", str(arguments), "--", *inside],
                pass_fds=[arguments, *fds.values(), *([] if server else [theirs.fileno()])],
                stdin=subprocess.DEVNULL,
                stdout=output if server else subprocess.DEVNULL,
                stderr=said_write,
                env={},
                # Ctrl-C in a terminal, or a signal to the grader's group, must not reach a student's sandbox.
                start_new_session=True,
            )
        failed.pop_all()
        sandbox = Sandbox(process, ours, said, enforcer)
        try:
            _admit(sandbox, info, block)
            if server is not None:
                _enter(
                    sandbox,
                    server,
                    complete,
                    (theirs.fileno(), said_write, rules),
                    uid=user_id(slot),
                    processes=processes,
                )
        except OSError as error:  # it was dead before it was let go
            said = sandbox.said()
            sandbox.close()
            raise InfrastructureError(explain(said or str(error))) from error
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
        sandbox.pidfd = os.pidfd_open(pid)
    except (ValueError, KeyError, OSError):
        sandbox.process.wait()
        raise InfrastructureError(explain(sandbox.said())) from None
    with _limiting():
        sandbox.enforcer.admit(pid, sandbox.kill)


def _enter(
    sandbox: Sandbox,
    server: ForkServer,
    complete: int,
    lent: tuple[int, int, int],
    *,
    uid: int,
    processes: int,
) -> None:
    """Let a warm process in: only when the sandbox is complete, and only under its limits."""
    # Before bubblewrap has moved to the new root, whoever enters would stand in the machine's own.
    if not select.select([complete], [], [], COMPLETE_SECONDS)[0] or not os.read(complete, 1):
        raise InfrastructureError(explain(sandbox.said()))
    with contextlib.ExitStack() as gate:
        closed, opened = _pipe(gate, gate)
        pid = server.fork(sandbox.pidfd, closed, *lent, uid=uid, processes=processes)
        with _limiting():
            sandbox.enforcer.admit_too(pid)
        os.write(opened, b"1")


@contextlib.contextmanager
def _limiting() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        raise  # not the limits failed: there was nobody to put under them
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
        process = launcher().popen(
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


@functools.cache
def _sweep_once() -> None:
    """What graders that were killed left behind is removed when the first sandbox starts."""
    limits_module.sweep()
    for folder in Path(tempfile.gettempdir()).glob("dulcourse.*"):
        if abandoned(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
