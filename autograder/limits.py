"""What a submission may use, and who holds it to that: the kernel's control groups, or a watchdog.

An enforcer admits one sandbox before anything of the student's runs there, knows afterwards whether memory
ran out (a fact, not a claim), and leaves nothing behind.
"""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autograder.owner import abandoned, owned_name

__all__ = [
    "CgroupV1",
    "CgroupV2",
    "Enforcer",
    "Limits",
    "Watchdog",
    "descendants",
    "enforcer",
    "proportional_memory",
    "sweep",
]

_LEAF = "dulcourse.grader"
_serial = itertools.count()


@dataclass(frozen=True)
class Limits:
    """What one submission may use. Sizes are bytes unless they say otherwise."""

    memory_gib: float = 4.0
    processes: int = 256  # processes and threads
    output: int = 64 << 20  # printed and drawn in one run; more is a flood
    answer: int = 64 << 20  # one answer to the referee
    checkpoint: int = 256 << 20  # one model's weights
    scratch: int = 1 << 30  # files in the temporary folder
    shared: int = 256 << 20  # shared memory
    launch_seconds: float = 90.0  # until the kernel is there; slower is the machine's fault
    call_seconds: float = 60.0  # one answer
    answering_seconds: float = 600.0  # all answers of one session

    @property
    def memory(self) -> int:
        return int(self.memory_gib * 2**30)


class Enforcer(Protocol):
    """Holds one sandbox to its limits."""

    name: str
    counts_processes: bool  # False: the worker limits itself with RLIMIT_NPROC

    def admit(self, pid: int, kill: Callable[[], None]) -> None:
        """Put the sandbox's first process, and so all it will start, under the limits. `kill` kills it."""
        ...

    def admit_too(self, pid: int) -> None:
        """Put a process under the same limits that is to enter the sandbox from outside."""
        ...

    def out_of_memory(self) -> bool:
        """Whether something was killed for want of memory."""
        ...

    def close(self) -> None:
        """Leave nothing behind. Called when the sandbox is dead."""
        ...


def enforcer(limits: Limits) -> Enforcer:
    """The best this machine offers."""
    for make in (CgroupV1, CgroupV2):
        with contextlib.suppress(OSError):
            return make(limits)
    return Watchdog(limits)


class CgroupV1:
    """Memory (and, where it is mounted, process) controllers of control groups, version 1."""

    name = "cgroup-v1"

    def __init__(self, limits: Limits, *, mounts: Path = Path("/sys/fs/cgroup"), own: str | None = None):
        paths = _own_groups(own)
        if "memory" not in paths:
            raise OSError("no memory controller of version 1")
        self._memory = _make_group(mounts / "memory" / paths["memory"])
        self._pids: Path | None = None
        try:
            _write(self._memory / "memory.limit_in_bytes", limits.memory)
            with contextlib.suppress(OSError):  # kernels without swap accounting
                _write(self._memory / "memory.memsw.limit_in_bytes", limits.memory)
            with contextlib.suppress(OSError, KeyError):
                self._pids = _make_group(mounts / "pids" / paths["pids"])
                _write(self._pids / "pids.max", limits.processes)
        except OSError:
            self.close()
            raise

    @property
    def counts_processes(self) -> bool:
        return self._pids is not None

    def admit(self, pid: int, kill: Callable[[], None]) -> None:
        self.admit_too(pid)

    def admit_too(self, pid: int) -> None:
        for group in self._groups():
            _write(group / "cgroup.procs", pid)

    def out_of_memory(self) -> bool:
        return _count(self._memory / "memory.oom_control", "oom_kill") > 0

    def close(self) -> None:
        for group in self._groups():
            _remove_group(group)

    def _groups(self) -> list[Path]:
        return [group for group in (self._memory, self._pids) if group is not None]


class CgroupV2:
    """Control groups, version 2, where the grader's own group is delegated to it (tried on files only).

    A group with processes cannot hand controllers to its children, so the grader moves itself into a leaf
    first.
    """

    name = "cgroup-v2"
    counts_processes = True

    def __init__(self, limits: Limits, *, mount: Path = Path("/sys/fs/cgroup"), own: str | None = None):
        paths = _own_groups(own)
        if not (mount / "cgroup.controllers").is_file() or "" not in paths:
            raise OSError("control groups of version 2 are not mounted")
        home = mount / paths[""]
        # After the first session the grader sits in its leaf: the delegated group is the one above it.
        home = home.parent if home.name == _LEAF else home
        try:
            _delegate(home)
        except OSError:
            home = mount  # root may use the top, whose children have the controllers wherever systemd runs
            _delegate(home)
        self._group = _make_group(home)
        try:
            _write(self._group / "memory.max", limits.memory)
            _write(self._group / "memory.oom.group", 1)
            _write(self._group / "pids.max", limits.processes)
            with contextlib.suppress(OSError):  # kernels without swap accounting
                _write(self._group / "memory.swap.max", 0)
        except OSError:
            self.close()
            raise

    def admit(self, pid: int, kill: Callable[[], None]) -> None:
        self.admit_too(pid)

    def admit_too(self, pid: int) -> None:
        _write(self._group / "cgroup.procs", pid)

    def out_of_memory(self) -> bool:
        return _count(self._group / "memory.events", "oom_kill") > 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            _write(self._group / "cgroup.kill", 1)
        _remove_group(self._group)


class Watchdog:
    """Without control groups: looks at memory twenty times a second, and kills when it is too much.

    Memory is counted proportionally (PSS): pages shared by n processes count 1/n in each. Resident size
    counts them n times, and called a harmless fork storm out of memory.
    """

    name = "rlimits"
    counts_processes = False

    def __init__(self, limits: Limits, *, interval: float = 0.05):
        self._limit, self._interval = limits.memory, interval
        self._exceeded, self._stop = False, threading.Event()
        self._thread: threading.Thread | None = None
        self._roots: list[int] = []

    def admit(self, pid: int, kill: Callable[[], None]) -> None:
        self._roots = [pid]
        self._thread = threading.Thread(target=self._watch, args=(kill,), daemon=True)
        self._thread.start()

    def admit_too(self, pid: int) -> None:
        self._roots.append(pid)

    def out_of_memory(self) -> bool:
        return self._exceeded

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, kill: Callable[[], None]) -> None:
        while True:
            began = time.monotonic()
            held = [process for root in self._roots for process in descendants(root)]
            if sum(map(proportional_memory, held)) > self._limit:
                self._exceeded = True
                kill()
                return
            # A thousand processes take long to look at: never more than a fifth of one core.
            if self._stop.wait(max(self._interval, 4 * (time.monotonic() - began))):
                return


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it. Those whose parents died hang on the first process of their namespace."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                    yield from descendants(int(child))


def proportional_memory(pid: int) -> int:
    """Bytes of memory of one process, shared pages divided among their users; 0 for one that is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def user_processes() -> int:
    """Processes and threads of this user: an rlimit counts them all, so an allowance comes on top."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            total += len(os.listdir(entry / "task")) if entry.stat().st_uid == os.getuid() else 0
    return total


def sweep(mounts: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Remove the groups of graders that were killed, and what still runs in them. Returns what was found."""
    paths = _own_groups()
    homes = {mounts / name / path for name, path in paths.items()} | {mounts}
    homes |= {home.parent for home in homes if home.name == _LEAF}
    stale = [group for home in homes for group in home.glob("dulcourse.*") if abandoned(group.name)]
    for group in stale:
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        _remove_group(group)
    return stale


def _own_groups(text: str | None = None) -> dict[str, str]:
    """Controller → path of this process's group, relative to the mount; version 2 has the empty name."""
    if text is None:
        try:
            text = Path("/proc/self/cgroup").read_text()
        except OSError:
            return {}
    lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    return {name: path.lstrip("/") for _, names, path in lines for name in names.split(",")}


def _make_group(home: Path) -> Path:
    group = home / f"{owned_name()}.{next(_serial)}"
    group.mkdir()
    return group


def _delegate(home: Path) -> None:
    """Let the children of our own group have memory and process limits."""
    wanted = {"memory", "pids"}
    if not wanted <= set((home / "cgroup.controllers").read_text().split()):
        raise OSError("the memory and pids controllers are not delegated to this process")
    if wanted <= set((home / "cgroup.subtree_control").read_text().split()):
        return
    ours, there = set(descendants(os.getpid())), [int(p) for p in (home / "cgroup.procs").read_text().split()]
    if not ours.issuperset(there):
        raise OSError("this process shares its control group with others, which are left where they are")
    leaf = home / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in there:
        _write(leaf / "cgroup.procs", pid)
    _write(home / "cgroup.subtree_control", "+memory +pids")


def _remove_group(group: Path) -> None:
    # The last process is dead but may not be accounted for yet.
    for _ in range(100):
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def _write(path: Path, value: int | str) -> None:
    path.write_text(str(value))


def _count(path: Path, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0
