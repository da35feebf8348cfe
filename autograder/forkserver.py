"""The server of warm processes, seen from the trusted side: started once, asked for a process a session.

    with ForkServer(library.folder, limits) as server:
        server.load()
        pid = server.fork(inside, gate, channel, errors, rules, uid=64000, processes=0)

Entering a sandbox from outside takes root's rights over its namespaces. An ordinary user has none, so there
every session imports for itself.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from autograder.bubblewrap import Python, bubblewrap, server_command, server_options
from autograder.launcher import launcher
from autograder.limits import Limits
from dulcourse.errors import InfrastructureError

__all__ = ["ForkServer", "server_for"]

DataSet = tuple[str, dict[str, Any]]

START_SECONDS, FORK_SECONDS, CLOSE_SECONDS = 120.0, 60.0, 5.0  # slower than this is stuck


def server_for(library: Path, limits: Limits, *, threads: int, device: str):
    """A server to enter in a `with` block, where user and kernel allow one; else None is entered."""
    kernel = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    if os.geteuid() != 0 or kernel < (5, 8):  # since when one call enters all namespaces of a process
        return contextlib.nullcontext()
    return ForkServer(library, limits, threads=threads, device=device)


class ForkServer:
    """A process that imports what sessions need, and forks. It is ready when it is first asked.

    It begins while `library`, a folder, may still be empty; `load` says that it is not any more.
    """

    def __init__(
        self,
        library: Path,
        limits: Limits,
        *,
        threads: int = 1,
        device: str = "cpu",
        python: Python | None = None,
    ):
        python = python or Python.current()
        line = [
            bubblewrap(),
            *server_options(python=python, library=library, threads=threads, device=device, limits=limits),
            "--",
        ]
        self._lock, self._ready, self._said = threading.Lock(), False, b""
        with contextlib.ExitStack() as failed:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            failed.callback(self._control.close)
            with theirs:
                self._process = launcher().popen(
                    [*line, *server_command(python, theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env={},
                    start_new_session=True,
                )
            failed.pop_all()
        os.set_blocking(self._process.stderr.fileno(), False)

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def load(self, data: Sequence[DataSet] = ()) -> "ForkServer":
        """Let it import the library and draw `data`: the public sets (name, options) that notebooks load."""
        with contextlib.suppress(OSError):  # it is dead, which the first to ask will be told
            self._control.send(json.dumps(data).encode())
        return self

    def fork(
        self, inside: int, gate: int, channel: int, errors: int, rules: int, *, uid: int, processes: int
    ) -> int:
        """A process that waits for a byte at `gate`, then enters the namespaces of the pidfd `inside`.

        There it becomes the worker, as user `uid`, with `channel` and standard error, under the filter in
        the file `rules`; it takes the place of what `bubblewrap.command` would execute. Returns its number.
        """
        request = json.dumps({"uid": uid, "processes": processes}).encode()
        with self._lock:
            try:
                if not self._ready:
                    self._control.settimeout(START_SECONDS)
                    self._ready = self._control.recv(16) == b"ready"
                self._control.settimeout(FORK_SECONDS)
                socket.send_fds(self._control, [request], [inside, gate, channel, errors, rules])
                return int(self._control.recv(16))
            except (OSError, ValueError) as error:
                raise InfrastructureError(self._trouble(error)) from error
            except BaseException:  # the next to ask would take this one's answer for its own
                self._process.kill()
                raise

    def close(self) -> None:
        """End it. Sessions that were forked go on: they are in their sandboxes."""
        self._control.close()
        if self._ready:  # it ends by itself, and bubblewrap waits for it, as nobody would if that were killed
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()

    def _trouble(self, error: Exception) -> str:
        self._process.kill()
        with contextlib.suppress(OSError, ValueError):  # nothing more is there, or it was closed
            self._said += os.read(self._process.stderr.fileno(), 1 << 16)
        said = self._said.decode(errors="replace").strip()[-2000:]
        return (
            "the process that imports for all sessions does not answer "
            f"({error}): {said or 'it said nothing'}. Run `autograder doctor`."
        )
