"""Starting processes from one thread that lives as long as the grader.

A sandbox dies with the *thread* that started it (PR_SET_PDEATHSIG), and a scheduler's threads come and go.
"""

import os
import queue
import subprocess
import threading
from typing import Any

from dulcourse.errors import InfrastructureError

__all__ = ["Launcher", "launcher"]


class Launcher:
    """Starts processes in a thread of its own, and raises `InfrastructureError` where it cannot."""

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
_the_launcher: Launcher | None = None


def launcher() -> Launcher:
    """The one of this process."""
    global _the_launcher
    with _launcher_lock:
        if _the_launcher is None or _the_launcher.pid != os.getpid():  # threads do not survive a fork
            _the_launcher = Launcher()
        return _the_launcher
