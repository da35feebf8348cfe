"""What holds a sandbox to its limits: control groups (pretended), a watchdog, a filter on calls."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder import seccomp
from autograder.limits import (
    CgroupV1,
    CgroupV2,
    Enforcer,
    Limits,
    Watchdog,
    descendants,
    proportional_memory,
    sweep,
)
from dulcourse.errors import InfrastructureError

LIMITS = Limits(memory_gib=0.25, processes=33)


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """A pretended mount of version 2, with this process in a delegated group."""
    (tmp_path / "cgroup.controllers").touch()
    own = tmp_path / "user" / "scope"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("")
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    return tmp_path


def test_version_2_gives_each_sandbox_a_child_and_moves_the_grader_into_a_leaf(unified: Path):
    group = CgroupV2(LIMITS, mount=unified, own="0::/user/scope\n")
    scope = unified / "user" / "scope"
    assert (scope / "dulcourse.grader" / "cgroup.procs").read_text() == str(os.getpid())
    assert (scope / "cgroup.subtree_control").read_text() == "+memory +pids"
    (child,) = scope.glob(f"dulcourse.{os.getpid()}.*")
    assert (child / "memory.max").read_text() == str(1 << 28)
    assert (child / "memory.swap.max").read_text() == "0"
    assert (child / "pids.max").read_text() == "33"
    group.admit(4321, lambda: None)
    assert (child / "cgroup.procs").read_text() == "4321"
    group.admit_too(4322)
    assert (child / "cgroup.procs").read_text() == "4322", "one that enters a sandbox from outside"
    (child / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert not group.out_of_memory()
    (child / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.out_of_memory()


def test_every_enforcer_keeps_its_promise():
    promised = {name for name, value in vars(Enforcer).items() if callable(value) and name[0] != "_"}
    assert {"admit", "admit_too", "close"} <= promised
    for kind in (CgroupV1, CgroupV2, Watchdog):
        assert promised <= set(dir(kind)), kind


def test_version_2_leaves_other_peoples_processes_where_they_are(unified: Path):
    procs = unified / "user" / "scope" / "cgroup.procs"
    procs.write_text(f"{os.getpid()}\n1\n")
    with pytest.raises(OSError, match="not delegated"):
        CgroupV2(LIMITS, mount=unified, own="0::/user/scope\n")
    assert procs.read_text() == f"{os.getpid()}\n1\n"


@pytest.mark.parametrize("own", ["", "0::/user/scope\n", "3:cpu:/\n"])
def test_version_1_needs_a_memory_controller(tmp_path: Path, own: str):
    with pytest.raises(OSError, match="memory controller"):
        CgroupV1(LIMITS, mounts=tmp_path, own=own)


def test_version_1_counts_processes_where_it_can(tmp_path: Path):
    for controller in ("memory", "pids"):
        (tmp_path / controller / "a").mkdir(parents=True)
    group = CgroupV1(LIMITS, mounts=tmp_path, own="4:memory:/a\n8:pids:/a\n0::/\n")
    (memory,) = (tmp_path / "memory" / "a").iterdir()
    (pids,) = (tmp_path / "pids" / "a").iterdir()
    assert (memory / "memory.limit_in_bytes").read_text() == (
        memory / "memory.memsw.limit_in_bytes"
    ).read_text()
    assert (pids / "pids.max").read_text() == "33"
    assert group.counts_processes
    assert not CgroupV1(LIMITS, mounts=tmp_path, own="4:memory:/a\n").counts_processes


def test_groups_of_the_living_are_not_swept(tmp_path: Path):
    (tmp_path / "dulcourse.grader").mkdir()
    mine = tmp_path / f"dulcourse.{os.getpid()}.1.0"  # the number is ours, the start time is not
    mine.mkdir()
    assert sweep(tmp_path) == [mine]
    assert [path.name for path in tmp_path.iterdir()] == ["dulcourse.grader"]


@contextlib.contextmanager
def process(code: str) -> Iterator[subprocess.Popen]:
    """A process that has run `code` and waits."""
    line = [sys.executable, "-c", f"import os, sys\n{code}\nprint('there', flush=True); sys.stdin.read()"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"there\n"
        yield running
        running.stdin.close()


def test_memory_is_counted_proportionally_and_in_descendants():
    fork = """
for _ in range(3):
    ours, theirs = os.pipe()
    if os.fork() == 0:
        own = bytearray(b"x" * (20 << 20))
        os.write(theirs, b"1"); sys.stdin.read(); os._exit(0)
    os.read(ours, 1)
"""
    with process(f"shared = bytearray(b'x' * (100 << 20))\n{fork}") as running:
        family = list(descendants(running.pid))
        assert len(family) == 4
        total = sum(map(proportional_memory, family))
        assert 160 << 20 < total < 240 << 20, "100 MB once and 20 MB three times"
    assert proportional_memory(running.pid) == 0, "nobody is there any more"


@pytest.mark.parametrize(("megabytes", "exceeds"), [(1, False), (400, True)])
def test_the_watchdog_kills_what_needs_too_much_and_nothing_else(megabytes: int, exceeds: bool):
    with process(f"x = bytearray(b'x' * ({megabytes} << 20))") as running:
        watchdog = Watchdog(Limits(memory_gib=0.3))
        watchdog.admit(running.pid, running.kill)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(30 if exceeds else 0.3)
        assert (running.returncode == -signal.SIGKILL) == exceeds
        watchdog.close()
        assert watchdog.out_of_memory() == exceeds


HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_table_of_calls_agrees_with_the_systems_headers(machine: str):
    header = Path(HEADERS[machine])
    if not header.is_file():
        pytest.skip(f"{header} is not installed")
    known = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text()))
    column, _, clone, socket = seccomp.ARCHITECTURES[machine]
    ours = {name: numbers[column] for name, numbers in seccomp.DENIED.items()}
    ours |= {"clone": clone, "socket": socket, "clone3": seccomp._CLONE3}
    assert {
        name: number for name, number in ours.items() if name in known and int(known[name]) != number
    } == {}
    assert len(set(ours) & set(known)) > 40


def decide(program: bytes, number: int, audit: int, argument: int = 0) -> int:
    """What the filter says of one call: the kernel's machine for these five instructions, in a few lines."""
    data = struct.pack("=iIQ6Q", number, audit, 0, argument, 0, 0, 0, 0, 0)
    steps = list(struct.iter_unpack("=HBBI", program))
    position, register = 0, 0
    while True:
        code, yes, no, value = steps[position]
        position += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (register,) = struct.unpack_from("=I", data, value)
        else:
            taken = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[code]
            position += yes if taken else no


ALLOW, EPERM, ENOSYS, NO_FAMILY, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x50061, 0x80000000


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_filter_decides_as_its_table_says(machine: str):
    program = seccomp.program(machine)
    column, audit, clone, socket = seccomp.ARCHITECTURES[machine]
    denied = {numbers[column] for numbers in seccomp.DENIED.values()}
    for number in range(480):
        if number not in (clone, socket, 435):
            assert decide(program, number, audit) == (EPERM if number in denied else ALLOW), number
    assert decide(program, clone, audit, 0x01200011) == ALLOW, "a fork"
    assert decide(program, clone, audit, 0x003D0F00) == ALLOW, "a thread"
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(program, clone, audit, flag | 17) == EPERM
    assert decide(program, 435, audit) == ENOSYS
    assert [decide(program, socket, audit, family) for family in (1, 16, 2, 10, 17, 40)] == [ALLOW] * 2 + [
        NO_FAMILY
    ] * 4
    assert decide(program, 0, audit ^ 1) == KILL
    if machine == "x86_64":
        assert decide(program, 0x40000000 | 101, audit) == ENOSYS, "the same calls under other numbers"


def test_an_unknown_machine_is_named():
    with pytest.raises(InfrastructureError, match="'riscv64'"):
        seccomp.program("riscv64")
