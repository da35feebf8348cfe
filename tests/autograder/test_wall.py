"""Benign and hostile notebooks behind the wall: every verdict from facts, nothing left running."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from autograder.forkserver import ForkServer
from autograder.library import StagedLibrary
from autograder.limits import Limits, sweep
from autograder.results import CellError, Verdict
from autograder.sandbox import Python
from autograder.session import Outcome, Session, SessionDead
from dulcourse.errors import InfrastructureError, UsageError
from dulcourse.referee.respondent import Malformed
from tests.autograder.notebooks import PREAMBLE, SLOT, groups, notebook, processes, staged

pytestmark = [pytest.mark.wall, pytest.mark.usefixtures("nothing_left")]

LIMITS = Limits(memory_gib=0.5, processes=64, output=4 << 20, answer=1 << 20, scratch=64 << 20)


Open = Callable[..., Session]

ROOT = os.geteuid() == 0
WAYS = ("executed", "forked")
forked = pytest.mark.skipif(not ROOT, reason="to enter a sandbox from outside takes root")
# For what is done by the same code, whichever way it came in: the quick one.
once = pytest.mark.parametrize("walled", ["forked" if ROOT else "executed"], indirect=True)


def cases(table: dict[str, tuple], alike: set[str]) -> list:
    """Each case on both ways in, but once where they are `alike`."""
    ways = {name: once.args[1] if name in alike else WAYS for name in table}
    return [pytest.param(way, *table[name], id=f"{way}-{name}") for name in table for way in ways[name]]


@pytest.fixture(scope="module")
def opens(request: pytest.FixtureRequest, library: StagedLibrary) -> Callable[[str], Open]:
    """Sessions of the small library, by the way in: a fresh interpreter each, or a fork of a warm one."""

    def by(way: str) -> Open:
        if way == "forked" and not ROOT:
            pytest.skip("to enter a sandbox from outside takes root")
        server = request.getfixturevalue("server") if way == "forked" else None
        return partial(Session, library=library, limits=LIMITS, slot=SLOT, server=server)

    return by


@pytest.fixture(params=WAYS)
def walled(request: pytest.FixtureRequest, opens: Callable[[str], Open]) -> Open:
    return opens(request.param)


def run(walled: Open, *sources: str, limits: Limits = LIMITS, seconds: float = 60) -> Outcome:
    with walled(limits=limits) as session:
        return session.run(
            notebook(*sources), assignment="hw", parameters={"seed": 7}, mode="train", seconds=seconds
        )


# name: (code of the cell that ends the run, verdict)
ENDINGS = {
    "exits": ("os._exit(0)", Verdict.kernel_died),
    "kills itself": ("os.kill(os.getpid(), signal.SIGKILL)", Verdict.kernel_died),
    "kills its process group": ("os.killpg(0, signal.SIGKILL)", Verdict.kernel_died),
    "loops": ("while True: pass", Verdict.timeout),
    "loops and ignores signals": (
        "for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(s, signal.SIG_IGN)\n"
        "while True: pass",
        Verdict.timeout,
    ),
    "stops the worker": ("os.kill(os.getppid(), signal.SIGSTOP); time.sleep(60)", Verdict.timeout),
    "forks for ever": ("while True:\n    try: os.fork()\n    except OSError: pass", Verdict.timeout),
    "prints 40 MB and on": (
        "print('x' * (40 << 20))\nwhile True: print('x' * 10_000)",
        Verdict.output_flood,
    ),
    "prints for ever": ("while True: print('x' * 10_000, flush=True)", Verdict.output_flood),
    "floods file descriptor 1": ("while True: os.write(1, b'x' * 65536)", Verdict.output_flood),
    "needs much memory": ("x = bytearray(2 << 30)", Verdict.out_of_memory),
    "needs much memory in children": (
        "for _ in range(6):\n    if os.fork() == 0: x = bytearray(b'x' * (200 << 20)); time.sleep(60)\n"
        "time.sleep(60)",
        Verdict.out_of_memory,
    ),
    "kills the worker": ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", Verdict.sandbox_violation),
    "kills all it can": ("os.kill(-1, signal.SIGKILL); time.sleep(60)", Verdict.sandbox_violation),
}


WORDS = {
    Verdict.kernel_died: "The kernel died",
    Verdict.timeout: "The time allowed, 3 s, was over",
    Verdict.output_flood: "printed or drew too much",
    Verdict.out_of_memory: "More than 0.5 GiB of memory were needed",
    Verdict.sandbox_violation: "The worker behind the wall was gone",
}


@pytest.mark.parametrize(
    ("walled", "code", "verdict"),
    cases(ENDINGS, alike={"exits", "loops", "prints 40 MB and on", "prints for ever"}),
    indirect=["walled"],
)
def test_verdict_of_a_run_that_ends_early(walled: Open, code: str, verdict: Verdict):
    limits = replace(LIMITS, memory_gib=2) if verdict is Verdict.output_flood else LIMITS
    # Time for the cells before, which import nothing that the kernel has not, and for memory to be filled.
    seconds = {Verdict.timeout: 3, Verdict.out_of_memory: 4}.get(verdict, 60)
    imports = "import os, signal, time"
    outcome = run(walled, imports, "saved = 1", code, "never = 1", limits=limits, seconds=seconds)
    assert outcome.verdict is verdict, outcome.reason
    assert outcome.last_cell == 3, "the cell in progress is the one that ended the run"
    assert [cell.index for cell in outcome.cells] == [0, 1, 2], "what was finished before is kept"
    assert WORDS[verdict] in outcome.reason
    assert outcome.reason.endswith(", while cell 4 was running.")
    if verdict is Verdict.output_flood:
        # A message that is too large is stopped before it is in memory here.
        words = "one message was too large" if "<<" in code else "(too much|endless) output"
        assert re.search(words, outcome.reason)


def ask(walled: Open, source: str, name: str = "answer", limits: Limits = LIMITS, **arrays: np.ndarray):
    """The answer of a function that a notebook defines."""
    with walled(limits=limits) as session:
        outcome = session.run(
            notebook(PREAMBLE, source), assignment="hw", parameters={}, mode="train", seconds=60
        )
        assert outcome.verdict is Verdict.graded, outcome.reason
        return session.call(f"function.{name}", arrays)


DEATHS = {
    "dies": ("os._exit(3)", Verdict.kernel_died, "died"),
    "kills the worker": ("os.kill(os.getppid(), 9); time.sleep(60)", Verdict.sandbox_violation, "died"),
    "never answers": ("while True: pass", Verdict.timeout, "No answer"),
    "closes its socket": (
        "[os.close(f) for f in range(3, 64) if is_socket(f)]; time.sleep(60)",
        Verdict.kernel_died,
        "died",
    ),
    "answers with garbage": (
        "[os.write(f, b'\\xff' * 4096) for f in range(3, 64) if is_socket(f)]",
        Verdict.sandbox_violation,
        "died",
    ),
    "answers with 10 MB": ("return np.zeros(10 << 20, np.uint8)", Verdict.sandbox_violation, "too large"),
    "needs much memory": ("return np.ones(1 << 30, np.uint8)[:1]", Verdict.out_of_memory, "memory"),
}

FIND_SOCKET = """
def is_socket(f):
    try: return socket.socket(fileno=os.dup(f)).getpeername().endswith("referee")
    except (OSError, AttributeError): return False
"""


@pytest.mark.parametrize(
    ("walled", "code", "verdict", "word"),
    cases(DEATHS, alike=set(DEATHS) - {"kills the worker", "needs much memory"}),
    indirect=["walled"],
)
def test_verdict_of_a_death_in_an_answer(walled: Open, code: str, verdict: Verdict, word: str):
    limits = replace(LIMITS, call_seconds=1 if verdict is Verdict.timeout else 60)
    with pytest.raises(SessionDead, match=word) as caught:
        ask(walled, FIND_SOCKET + f"def answer():\n    {code}", limits=limits)
    assert caught.value.verdict is verdict


@once
def test_malformed_answers_leave_the_session_alive(walled: Open):
    source = "def fails(): raise ValueError('no')\ndef answer(x): return 2 * x\ndef words(): return 'many'"
    with walled() as session:
        session.run(notebook(PREAMBLE, source), assignment="hw", parameters={}, mode="train", seconds=60)
        for name in ("fails", "missing"):
            with pytest.raises(Malformed, match="Error") as caught:
                session.call(f"function.{name}", {})
            assert not isinstance(caught.value, SessionDead)
        answer = session.call("function.answer", {"x": np.arange(6).reshape(2, 3)})
        np.testing.assert_array_equal(answer["result"], [[0, 2, 4], [6, 8, 10]])


DENIED = """
import ctypes, errno, json
libc = ctypes.CDLL(None, use_errno=True)
tried = {}

def attempt(name, action):
    try:
        result = action()
        tried[name] = "done" if result is None else repr(result)[:200]
    except BaseException as error:
        tried[name] = type(error).__name__ + ": " + str(error)[:100]

def call(name, *arguments):
    ctypes.set_errno(0)
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), errno.errorcode[ctypes.get_errno()])
    return result

def raw(number, *arguments):
    return call("syscall", number, *arguments)

worker = os.getppid()
attempt("ptrace the worker", lambda: call("ptrace", 16, worker, 0, 0))
attempt("worker's memory", lambda: open(f"/proc/{worker}/mem", "rb").read(1))
attempt("worker's environment", lambda: open(f"/proc/{worker}/environ", "rb").read(1))
attempt("worker's files", lambda: os.listdir(f"/proc/{worker}/fd"))
attempt("read another's memory", lambda: raw(310, worker, 0, 0, 0, 0, 0))
attempt("take a descriptor", lambda: raw(438, os.pidfd_open(worker), 3, 0))
attempt("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
attempt("unmount", lambda: call("umount2", b"/tmp", 2))
attempt("remount the system writable", lambda: call("mount", None, b"/usr", None, 32 | 4096, None))
attempt("user namespace", lambda: call("unshare", 0x10000000))
attempt("mount namespace", lambda: call("unshare", 0x00020000))
attempt("clone into a user namespace", lambda: raw(56, 0x10000000 | 17, 0, 0, 0, 0))
attempt("enter a namespace", lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0))
attempt("internet socket", lambda: socket.socket(socket.AF_INET).close())
attempt("virtual machine socket", lambda: socket.socket(40, socket.SOCK_STREAM).close())
attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
attempt("become root", lambda: os.setuid(0))
attempt("gain rights from a program", lambda: subprocess.run(["su", "-c", "true"], stdin=subprocess.DEVNULL,
        capture_output=True, check=True).stdout)
attempt("write to the system", lambda: open("/usr/x", "w").close())
attempt("write to the root", lambda: open("/x", "w").close())
attempt("write to the library", lambda: open("/course/library/dulcourse/x", "w").close())
attempt("write to the packages", lambda: open(os.path.join(sys.prefix, "x"), "w").close())
attempt("change the host name", lambda: socket.sethostname("x"))
attempt("change the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, 0))
attempt("raise a limit", lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_CORE, (1, 1)))
attempt("kernel ring buffer", lambda: call("klogctl", 3, ctypes.create_string_buffer(100), 100))
attempt("load a filter program", lambda: raw(321, 0, 0, 0))
attempt("io_uring", lambda: raw(425, 1, ctypes.create_string_buffer(200)))
attempt("make a device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)))
attempt("change the kernel", lambda: open("/proc/sys/kernel/core_pattern", "w").close())
attempt("control groups", lambda: os.listdir("/sys/fs/cgroup"))
print(json.dumps(tried))
"""

SEEN = """
import json, glob
seen = {
    "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "roots": sorted(os.listdir("/")),
    "environment": sorted(os.environ),
    "uid": [os.getuid(), os.geteuid(), os.getgid()], "groups": os.getgroups(),
    "status": [l for l in open("/proc/self/status").read().splitlines() if l[:3] in ("Cap", "NoN", "Sec")],
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "host": socket.gethostname(),
    "repository": [p for root in ROOTS for p in glob.glob(root + "/*") if not sys.prefix.startswith(p)],
    "sources": [p for p in sys.path for n in ("autograder", "solutions") if os.path.exists(p + "/" + n)],
    "library": os.listdir("/course/library"), "course": sorted(os.listdir("/course")),
    "secret": [p for p in glob.glob("/course/library/**", recursive=True) if "secret" in p],
    "homes": [p for p in glob.glob("/home/*") + glob.glob("/root/*") if not sys.prefix.startswith(p)],
    "first": open("/proc/1/cmdline").read(),
}
print(json.dumps(seen))
"""

ALIKE = """
import ctypes, json, re, resource
CHILD = "import os, sys, dulcourse; print(sys.path, sorted(os.environ.items()))"
lines = open("/proc/self/status").read().splitlines()
kept = ("Umask", "Groups", "Sig", "Shd", "Cap", "NoNew", "Seccomp", "Cpus_allowed:", "THP")
print(json.dumps({
    "status": [line for line in lines if line.startswith(kept) and not line.startswith("SigQ")],
    "limits": [resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")],
    "mounts": [" ".join(line.split()[3:6]) for line in open("/proc/self/mountinfo")],
    "environment": dict(os.environ),
    "child": subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True).stdout,
    "path": sys.path, "flags": list(sys.flags), "arguments": len(sys.argv), "directory": os.getcwd(),
    "descriptors": [os.readlink(f"/proc/self/fd/{f}").split(":")[0] for f in (0, 1, 2)],
    "control group": re.sub(r"\\.\\d+$", "", open("/proc/self/cgroup").read(), flags=re.M),
    "group": os.getpgid(0) == os.getpid(),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "oom": open("/proc/self/oom_score_adj").read(),
    "main": sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("_")),
}))
"""

NOISE = """
import warnings; warnings.warn("beware")
print("to stderr", file=sys.stderr); os.write(1, b"raw\\n"); os.write(2, b"raw\\n"); print("\\ud800")
subprocess.run(["echo", "from a child"])
"""

STORM = """
refused, children = 0, []
for _ in range(120):
    try:
        child = os.fork()
    except OSError:
        refused += 1
        continue
    if child == 0:
        time.sleep(30); os._exit(0)
    children.append(child)
for child in children: os.kill(child, 9); os.waitpid(child, 0)
print(refused > 60)
"""

DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)
    os._exit(0)
os.wait()
"""

# One notebook that gets to its end: each test looks at what was told of its own cells.
CELLS = {
    "imports": PREAMBLE,
    "alike": ALIKE,
    "seen": f"ROOTS = [{str(Path(__file__).parents[2])!r}]\n" + SEEN,
    "denied": DENIED,
    "noise": NOISE,
    "progress": "for i in range(3000): print(f'\\rstep {i}', end='', flush=i % 100 == 0)",
    "raises": "1 / 0",
    "exits": "sys.exit(0)",
    "goes on": "print('still here', seed)",
    "asks": "input()",
    "fills the disk": "with open('/tmp/big', 'wb') as f:\n    while True: f.write(bytes(1 << 20))",
    "empties it": "os.remove('/tmp/big')",
    "withheld": "import dulcourse.secret_answer",
    "caught": "try: import dulcourse.secret_answer\nexcept ImportError: pass",
    "draws": "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show(); print('drawn')",
    "storm": STORM,
    "daemon": DAEMON,
}
NUMBER = {name: number for number, name in enumerate(CELLS, 1)}  # of the cell in the notebook


@dataclass(frozen=True)
class Told:
    """What was told of a notebook, by the names of its cells."""

    outcome: Outcome

    def text(self, name: str) -> list[str]:
        return self.outcome.cells[NUMBER[name]].text

    def images(self, name: str) -> list[bytes]:
        return self.outcome.cells[NUMBER[name]].images

    def error(self, name: str) -> CellError | None:
        """The one error of a cell."""
        errors = [error for error in self.outcome.errors if error.cell == f"cell-{NUMBER[name]}"]
        assert len(errors) < 2
        return errors[0] if errors else None


@pytest.fixture(scope="module")
def tells(opens: Callable[[str], Open]) -> Callable[[str], Told]:
    """Runs the notebook of `CELLS`, once each way in."""

    @cache
    def by(way: str) -> Told:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DULCOURSE_SECRET", "0123456789")
            return Told(run(opens(way), *CELLS.values(), seconds=240))

    return by


@pytest.fixture(params=WAYS)
def told(request: pytest.FixtureRequest, tells: Callable[[str], Told]) -> Told:
    return tells(request.param)


def test_a_notebook_gets_to_its_end_whatever_its_cells_do(told: Told):
    outcome = told.outcome
    assert outcome.verdict is Verdict.student_error, outcome.reason
    assert [cell.index for cell in outcome.cells] == list(range(len(CELLS) + 1))
    assert outcome.last_cell is None
    failed = {name: error.name for name in CELLS if (error := told.error(name))}
    assert failed == {
        "raises": "ZeroDivisionError",
        "exits": "SystemExit",
        "asks": "StdinNotImplementedError",
        "fills the disk": "OSError",
        "withheld": "ImportError",
    }
    assert len(outcome.errors) == len(failed)
    assert told.error("raises").problem == f"p{NUMBER['raises']}"
    assert told.text("goes on") == ["still here 7"]


def test_noise_is_no_fault(told: Told):
    assert "beware" in told.text("noise")[0]
    assert told.text("progress") == ["step 2999"], "a progress bar is shown as it stood at the end"


def test_a_full_disk_is_the_notebooks_error(told: Told):
    assert "No space left" in told.error("fills the disk").message


def test_a_bounded_fork_storm_and_a_daemon_are_survived(told: Told):
    assert told.text("storm") == ["True"], "most forks were refused"
    assert told.error("daemon") is None


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attempts' call numbers are those of x86-64")
def test_every_way_out_is_closed(told: Told):
    tried = json.loads(told.text("denied")[0])
    open_ways = {name: result for name, result in tried.items() if not result.split(":")[0].endswith("Error")}
    assert open_ways == {}
    assert len(tried) == DENIED.count("\nattempt(")


@pytest.mark.parametrize(("told", "processes"), [("executed", 3), ("forked", 4)], indirect=["told"])
def test_what_a_notebook_sees(told: Told, processes: int):
    seen = json.loads(told.text("seen")[0])
    # What came in from outside leaves the process that held the door.
    assert seen["processes"] == [1, 2, 3, 4][:processes]
    assert "DULCOURSE_SECRET" not in seen["environment"]
    assert seen["repository"] == []
    assert seen["sources"] == []
    assert seen["library"] == ["dulcourse"]
    assert seen["course"] == ["library", "worker.py"]
    assert [Path(path).name for path in seen["secret"]] == ["secret_answer.py"], (
        "the stub, and nothing compiled"
    )
    assert seen["homes"] == []
    assert seen["interfaces"] == ["lo"]
    assert seen["host"] == "wall"
    assert "ro-bind" not in seen["first"]
    assert {line.split()[1] for line in seen["status"] if line.startswith("Cap")} == {"0" * 16}
    assert {"NoNewPrivs:\t1", "Seccomp:\t2"} <= set(seen["status"])
    if ROOT:
        assert seen["uid"] == [64000 + SLOT] * 3
        assert seen["groups"] == []


def test_a_forked_session_is_like_one_that_was_executed(tells: Callable[[str], Told]):
    """Rights, limits, mounts, environment, paths, signals: nothing of the way in is left on either."""
    executed, forked = (json.loads("".join(tells(way).text("alike"))) for way in WAYS)
    for what in executed:
        assert forked[what] == executed[what], what


def test_asking_for_a_withheld_module_is_noted(told: Told):
    assert "problem 'p2' asks you to write it" in told.error("withheld").message
    number = NUMBER["withheld"]
    assert [(w.module, w.cell, w.problem) for w in told.outcome.imported_withheld] == [
        ("dulcourse.secret_answer", number, f"p{number}")
    ]


def test_pictures_are_shown(told: Told):
    assert [image[:4] for image in told.images("draws")] == [b"\x89PNG"]
    assert told.text("draws")[0].endswith("drawn")


INSIDE = """
import json
names = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
def reached(path):
    try: os.stat(path); return True
    except OSError: return False
def readable(path):
    try: open(path, "rb").read(1); return True
    except OSError: return False
print(json.dumps({
    "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in names},
    "writable program": not os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY,
    "files": [name for name in os.listdir("/proc/self/map_files") if reached("/proc/self/map_files/" + name)],
    "open": [f"{p}/{f}" for p in (1, 2, os.getppid()) for f in ("environ", "maps", "exe")
             if readable(f"/proc/{p}/{f}")],
    "others": [p for p in os.listdir("/proc") if p.isdigit() and int(p) > 4],
    "temporary": sorted(os.listdir("/tmp")), "shared": os.listdir("/dev/shm"),
}))
open("/tmp/left", "w").close()
open("/dev/shm/left", "w").close()
sys.left = True
"""


@forked
def test_forked_sessions_share_nothing_and_hold_no_door_open(library: StagedLibrary, server: ForkServer):
    walled = partial(Session, library=library, slot=SLOT, server=server)
    with walled(limits=LIMITS) as one, walled(limits=LIMITS, slot=SLOT + 1) as other:
        seen = []
        for session in (one, other):
            cells = notebook(PREAMBLE, "print(hasattr(sys, 'left'))", INSIDE)
            outcome = session.run(cells, assignment="hw", parameters={}, mode="train", seconds=60)
            assert outcome.cells[2].text == ["False"]
            seen.append(json.loads("".join(outcome.cells[3].text)))
        servers = {name: os.readlink(f"/proc/{server.pid}/ns/{name}") for name in seen[0]["namespaces"]}
    for name in servers:
        assert len({servers[name], *(one["namespaces"][name] for one in seen)}) == 3, f"{name} is shared"
    for found in seen:
        assert not found["writable program"], "the server's own program must be as read-only as the rest"
        assert found["open"] == found["files"] == found["others"] == found["shared"] == []
        assert "left" not in found["temporary"]


@forked
def test_a_server_that_dies_is_our_fault_and_its_sessions_live_on(
    library: StagedLibrary, bare: StagedLibrary
):
    with ForkServer(bare.folder, LIMITS) as server:
        server.load()
        walled = partial(Session, library=library, limits=LIMITS, slot=SLOT, server=server)
        with walled() as session:
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(InfrastructureError, match="does not answer"):
                walled(slot=SLOT + 1).__enter__()
            cells = notebook("def answer(): return 1")
            outcome = session.run(cells, assignment="hw", parameters={}, mode="train", seconds=60)
            assert outcome.verdict is Verdict.graded
            assert session.call("function.answer", {})["result"] == 1


@pytest.mark.parametrize("broken", ["no such interpreter", "no library", "no kernel"])
def test_a_broken_environment_is_ours_before_delivery(library: StagedLibrary, tmp_path: Path, broken: str):
    python = Python.current()
    if broken == "no such interpreter":
        python = replace(python, executable=tmp_path / "python")
    if broken == "no library":
        library = StagedLibrary(tmp_path, ())
    if broken == "no kernel":
        (tmp_path / "dulcourse" / "referee").mkdir(parents=True)
        wire = library.folder / "dulcourse" / "referee" / "wire.py"
        (tmp_path / "dulcourse" / "referee" / "wire.py").write_text(wire.read_text())
        library = StagedLibrary(tmp_path, ())
    tmp_path.chmod(0o755)
    words = {"no such interpreter": "python", "no library": "wire.py", "no kernel": "dulcourse.handin"}
    with pytest.raises(InfrastructureError, match=words[broken]):
        Session(library=library, limits=LIMITS, slot=SLOT, python=python).__enter__()


GRADER = """
import os, signal, sys, time
from pathlib import Path
from autograder.forkserver import ForkServer
from autograder.library import StagedLibrary
from autograder.limits import Limits
from autograder.session import Session
library, bare = (StagedLibrary(Path(folder), ()) for folder in sys.argv[1:3])
server = ForkServer(bare.folder, Limits()).load() if os.geteuid() == 0 else None
signal.signal(signal.SIGINT, lambda *_: None)
sessions = [
    Session(library=library, limits=Limits(memory_gib=0.5), slot=int(sys.argv[3]), server=way).__enter__()
    for way in ([None, server] if server else [None])
]
os.killpg(0, signal.SIGINT)
cells = {"cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [],
                    "execution_count": None, "source": "x = 1"}],
         "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
for session in sessions:
    print(session.run(cells, assignment="hw", parameters={}, mode="train", seconds=60).verdict)
print(server.pid if server else 0, flush=True)
time.sleep(60)
"""


def test_sandboxes_outlive_an_interrupt_of_the_grader_but_not_the_grader(
    library: StagedLibrary, bare: StagedLibrary
):
    """Ctrl-C goes to the whole group; were a sandbox of it, its student would be charged a violation.

    When the grader is killed its sandboxes go along, and the next one tidies up.
    """
    grader = subprocess.Popen(
        [sys.executable, "-c", GRADER, library.folder, bare.folder, str(SLOT)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    )
    with grader:
        ways = WAYS if ROOT else WAYS[:1]
        assert [grader.stdout.readline().strip() for _ in ways] == ["graded"] * len(ways)
        server = int(grader.stdout.readline())
        assert len(processes()) > 0
        grader.kill()
    deadline = time.monotonic() + 10
    while (left := processes() + [server] * Path(f"/proc/{server}").exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    sweep()
    assert groups(f"dulcourse.{grader.pid}") == []


def test_sessions_in_two_threads_outlive_the_threads_that_opened_them(opens: Callable[[str], Open]):
    sessions, answers = [], []
    ways = WAYS if ROOT else WAYS[:1] * 2

    def open_one(slot: int) -> None:
        session = opens(ways[slot - SLOT])(slot=slot)
        sessions.append(session.__enter__())
        source = f"def answer(x): return x + {slot}"
        session.run(notebook(PREAMBLE, source), assignment="hw", parameters={}, mode="train", seconds=60)

    threads = [threading.Thread(target=open_one, args=(SLOT + i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.2)
    for session in sessions:
        answers.append(int(session.call("function.answer", {"x": np.array(0)})["result"]))
        session.kill()
    assert sorted(answers) == [SLOT, SLOT + 1]


TRAIN = "import dulcourse.handin as h\nprint(h.session.mode)\nm = h.trained({name!r}, lambda: {weights!r})"


@once
def test_weights_are_handed_in_after_their_cell_and_loaded_in_a_replay(walled: Open):
    first, second = (TRAIN.format(name=name, weights=name.encode() * 3) for name in ("a", "b"))
    cells = notebook(
        PREAMBLE + "ran, seen = [], lambda: np.array(ran)",
        first + "\nran.append(2)",
        second + "\nran.append(3)\n1 / 0",
        "ran.append(4)",
        "os._exit(0)",
    )
    with walled() as session:
        trained = session.run(cells, assignment="hw", parameters={}, mode="train", seconds=60)
    assert trained.verdict is Verdict.kernel_died
    assert trained.checkpoints == {"a": b"aaa", "b": b"bbb"}
    assert trained.last_cell == 5

    def replay(**options) -> list[int]:
        with walled() as session:
            outcome = session.run(cells, assignment="hw", parameters={}, mode="replay", seconds=60, **options)
            assert outcome.verdict is Verdict.graded, outcome.reason
            assert outcome.checkpoints == {}, "nothing new is handed in"
            assert outcome.cells == [], "what cells show was told by the first run"
            return session.call("function.seen", {})["result"].tolist()

    assert replay(checkpoints=trained.checkpoints) == [2, 3], "a replay ends when all weights are loaded"
    assert replay(checkpoints=trained.checkpoints, until=5) == [2, 3, 4], (
        "`until` is the first cell that is not run"
    )
    assert replay(checkpoints={"a": b"other"}) == [2]


STATEFUL = (
    PREAMBLE + "import asyncio\nfrom IPython.display import display\nfacts = [seed]",
    "facts.append(await asyncio.sleep(0.01, 2))",
    "1 / 0",
    "this is no Python",
    "7 * 6",
    "facts.append(_)\ndisplay(facts)",
    "%%capture caught\nprint('x' * 10)",
    "facts.append(len(caught.stdout))",
    "raise SystemExit(3)",
    "facts += [len(In), get_ipython().execution_count, In[-1].count('facts'), 0 in Out]",
    "later = asyncio.get_running_loop().create_task(asyncio.sleep(0, 5))",
    "pass",
    "facts.append(later.done() and later.result())",
    "facts.append(int(__name__ == '__main__') + int(threading.current_thread() is threading.main_thread()))",
    "def seen(): return np.array(facts)",
)


@once
def test_a_replay_leaves_the_kernel_as_the_run_left_it(walled: Open):
    """In, Out and _, awaited cells, magics, errors of every kind, background tasks: as if sent one by one."""
    found = {}
    for mode in ("train", "replay"):
        with walled() as session:
            outcome = session.run(
                notebook(*STATEFUL), assignment="hw", parameters={"seed": 3}, mode=mode, seconds=60
            )
            assert outcome.verdict is (Verdict.student_error if mode == "train" else Verdict.graded)
            found[mode] = session.call("function.seen", {})["result"].tolist()
    assert found["replay"] == found["train"]
    assert found["train"][:4] == [3, 2, 42, 11]


@once
@pytest.mark.parametrize(
    "name",
    [
        "exits",
        "loops",
        "prints for ever",
        "floods file descriptor 1",
        "needs much memory",
        "kills the worker",
    ],
)
def test_a_replay_that_ends_early_is_told_apart_like_a_run(walled: Open, name: str):
    code, verdict = ENDINGS[name]
    limits = replace(LIMITS, memory_gib=2) if verdict is Verdict.output_flood else LIMITS
    with walled(limits=limits) as session:
        outcome = session.run(
            notebook(PREAMBLE + code),
            assignment="hw",
            parameters={},
            mode="replay",
            seconds=2 if verdict is Verdict.timeout else 30,
        )
    assert outcome.verdict is verdict, outcome.reason
    assert "in a replay" in outcome.reason


def test_root_never_runs_a_notebook_without_the_sandbox(library: StagedLibrary):
    if not ROOT:
        pytest.skip("this test is about root")
    with pytest.raises(UsageError, match="refuses root"):
        Session(library=library, limits=LIMITS, unsafe=True).__enter__()


HANDS_IN = """
    import torch
    from dulcourse import handin
    from dulcourse.autoregressive.base import AutoregressiveModel

    class Table(AutoregressiveModel):
        def __init__(self):
            super().__init__((1, 2, 2), 3)
            self.table = torch.nn.Parameter(torch.zeros(3, 4))
        def logits(self, x, y=None):
            return self.table.reshape(1, 3, 1, 2, 2).expand(len(x), 3, 1, 2, 2) + 0 * x[:, None]

    def train(model):
        with torch.no_grad():
            model.table.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)))

    example = torch.zeros(2, 1, 2, 2, dtype=torch.int64)
    model = handin.trained("table", Table, train, example=example)

    def complex_number(x): return torch.complex(x, x)
    def interrupt(x): raise KeyboardInterrupt
    def huge(x): return torch.zeros(1 << 20)
"""


@pytest.mark.slow
def test_the_real_library_hands_in_and_answers_alike_from_frozen_weights():
    with staged(["dulcourse.autoregressive.made"], fonts=False) as library:

        def answers(mode: str, checkpoints: dict[str, bytes], seed: int) -> tuple[Outcome, np.ndarray]:
            with Session(library=library, limits=replace(LIMITS, memory_gib=2), slot=SLOT) as session:
                parameters = {"seed": seed}
                outcome = session.run(
                    notebook(HANDS_IN),
                    assignment="hw",
                    parameters=parameters,
                    mode=mode,
                    checkpoints=checkpoints,
                    seconds=120,
                )
                assert outcome.verdict is Verdict.graded, (outcome.reason, outcome.cells)
                for name in ("complex_number", "interrupt", "huge"):
                    with pytest.raises(Malformed) as caught:
                        session.call(f"function.{name}", {"x": np.ones(3)})
                    assert not isinstance(caught.value, SessionDead)
                x = np.zeros((5, 1, 2, 2), np.int64)
                return outcome, session.call("table.logits", {"x": x})["logits"]

        trained, before = answers("train", {}, seed=3)
        assert set(trained.checkpoints) == {"table"}
        _, after = answers("replay", trained.checkpoints, seed=4)
        np.testing.assert_array_equal(before, after)
        assert before.shape == (5, 3, 1, 2, 2)


def test_ones_own_notebook_runs_without_the_sandbox_as_an_ordinary_user(library: StagedLibrary):
    if ROOT:
        pytest.skip("root is refused")
    with Session(library=library, limits=LIMITS, unsafe=True) as session:
        outcome = session.run(
            notebook("def answer(x): return x + 1"), assignment="hw", parameters={}, mode="train", seconds=60
        )
        assert outcome.verdict is Verdict.graded
        assert outcome.limits == "none"
        assert session.call("function.answer", {"x": np.arange(2)})["result"].tolist() == [1, 2]
