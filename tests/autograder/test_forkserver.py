"""Sessions that are forked: what could be left of the way in, and what goes wrong on it."""

import contextlib
import errno
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from autograder import forkserver, limits, sandbox, sandboxes
from autograder.forkserver import ForkServer
from autograder.library import Stage, StagedLibrary
from autograder.limits import Limits, Watchdog
from autograder.results import Verdict
from autograder.sandboxes import Sandboxes
from autograder.session import Outcome, Session
from dulcourse import data
from dulcourse.errors import InfrastructureError
from tests.autograder.notebooks import PREAMBLE, SLOT, hide_torch, notebook, processes, staged

pytestmark = [
    pytest.mark.wall,
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(os.geteuid() != 0, reason="to enter a sandbox from outside takes root"),
]

LIMITS = Limits(memory_gib=0.5, processes=64, scratch=64 << 20)
# A batch whose rubric asks for nothing.
DESK = SimpleNamespace(
    rubric=SimpleNamespace(problems=(), withheld=(), items=()), tier=SimpleNamespace(memory_gib=2)
)

Open = Callable[..., Session]


@pytest.fixture
def forked(library: StagedLibrary, server: ForkServer) -> Open:
    return partial(Session, library=library, limits=LIMITS, slot=SLOT, server=server)


@pytest.fixture
def mortal(library: StagedLibrary, bare: StagedLibrary) -> Iterator[ForkServer]:
    """A server of one's own, to be ill-treated; it has forked once."""
    with ForkServer(bare.folder, LIMITS) as warm:
        warm.load()
        with Session(library=library, limits=LIMITS, slot=SLOT, server=warm):
            pass
        yield warm


def run(session: Session, *sources: str, seconds: float = 60) -> Outcome:
    cells = notebook(PREAMBLE, *sources)
    return session.run(cells, assignment="hw", parameters={}, mode="train", seconds=seconds)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def python_of(server: ForkServer) -> int:
    """The process that forks: below bubblewrap's."""
    (pid,) = children(server.pid)
    return pid


OTHERS = """
import json
def attempt(action):
    try: return repr(action())[:100]
    except OSError: return None
def write(path):
    with open(path, "r+b", 0) as file: file.seek(int(open(path[:-3] + "maps").read(12), 16)); file.write(b"")
done = {}
for pid in (int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()):
    done |= {
        f"{pid} is written to": attempt(lambda: write(f"/proc/{pid}/mem")),
        f"{pid} lists its files": attempt(lambda: os.listdir(f"/proc/{pid}/fd")),
        f"{pid} shows its environment": attempt(lambda: open(f"/proc/{pid}/environ").read()),
    }
    if attempt(lambda: os.kill(pid, 0)): done[pid] = "is signalled"
print(os.getppid(), json.dumps([what for what, how in done.items() if how is not None]))
"""


def test_a_notebook_owns_no_process_that_it_did_not_start(forked: Open):
    """What could be written to runs the writer's code, and not every process is under the worker's limits."""
    with forked() as session:
        worker, done = "".join(run(session, OTHERS).cells[2].text).split(maxsplit=1)
    assert json.loads(done) == [int(worker)], "the worker may be signalled, as it shares the user; no more"


STORM = """
children = []
try:
    for _ in range(200): children.append(os.posix_spawn("/usr/bin/sleep", ["sleep", "30"], {}))
except OSError:
    pass
for child in children: os.kill(child, 9); os.waitpid(child, 0)
print(len(children))
"""


def test_without_control_groups_processes_are_counted_and_memory_is_watched(
    forked: Open, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "enforcer", Watchdog)
    with forked() as session:
        assert session.limits == "rlimits"
        assert int(run(session, STORM).cells[2].text[0]) < LIMITS.processes
    with forked() as session:
        assert run(session, "x = bytearray(b'x' * (1 << 30))").verdict is Verdict.out_of_memory


MARK = "what-an-earlier-session-was-given"
SEARCH = """
import re
needle, found = re.compile(rb"[w]hat-an-[e]arlier-[s]ession"), 0
with open("/proc/self/mem", "rb", 0) as memory:
    for line in open("/proc/self/maps"):
        place, rights, *_, name = (line + " ").split(" ", 5)
        begin, end = (int(part, 16) for part in place.split("-"))
        # What is of a file and cannot be written is as it is in the file.
        if rights[0] == "r" and (rights[1] == "w" or not name.strip()) and "[v" not in name:
            memory.seek(begin)
            found += len(needle.findall(memory.read(end - begin)))
print(found)
"""


def test_memory_holds_nothing_of_an_earlier_session(forked: Open):
    with forked() as session:
        assert int(run(session, f"mark = {MARK!r}", SEARCH).cells[3].text[0]) > 0, "so it is found"
    with forked() as session:
        assert run(session, SEARCH).cells[2].text == ["0"]


DRAWS = """
import json, random, secrets, tempfile, uuid, zlib
import torch
print(json.dumps([
    uuid.uuid1().hex, uuid.uuid4().hex, secrets.token_hex(), tempfile.mktemp(), random.Random().random(),
    random.SystemRandom().random(), int(np.random.default_rng().integers(1 << 60)), torch.Generator().seed(),
]))
print(random.random(), np.random.rand(), torch.rand(1).item(), hash("word"))
"""


def test_chance_is_each_sessions_own_and_what_is_seeded_is_the_same(forked: Open):
    def drawn() -> tuple[list, str]:
        with forked() as session:
            shown = "".join(run(session, DRAWS).cells[2].text)
            fresh, seeded = shown.splitlines()
            return json.loads(fresh), seeded

    (one, seeded), (other, again) = drawn(), drawn()
    assert [a for a, b in zip(one, other, strict=True) if a == b] == []
    assert seeded == again


CHILDREN = """
import concurrent.futures, multiprocessing, torch
with open("/tmp/square.py", "w") as file: file.write("def of(x): return x * x\\n")
sys.path.insert(0, "/tmp")
import square
for how in ("fork", "spawn", "forkserver"):
    with multiprocessing.get_context(how).Pool(2) as pool: print(how, pool.map(square.of, [1, 2, 3]))
numbers = torch.utils.data.TensorDataset(torch.arange(100.0))
print(sum(batch[0].sum().item() for batch in torch.utils.data.DataLoader(numbers, 10, num_workers=2)))
x = torch.randn(600, 600); print((x @ x).shape, (x.numpy() @ x.numpy()).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_processes_and_threads_start_in_a_forked_kernel(
    library: StagedLibrary, server: ForkServer, threads: int
):
    allowed = replace(LIMITS, memory_gib=2)
    with (
        contextlib.nullcontext(server)
        if threads == 1
        else ForkServer(library.folder, allowed, threads=2).load() as given
    ):
        settings = {"slot": SLOT, "threads": threads, "server": given}
        with Session(library=library, limits=allowed, **settings) as session:
            outcome = run(session, CHILDREN)
    assert outcome.verdict is Verdict.graded, outcome.errors
    assert "".join(outcome.cells[2].text).splitlines() == [
        "fork [1, 4, 9]",
        "spawn [1, 4, 9]",
        "forkserver [1, 4, 9]",
        "4950.0",
        "torch.Size([600, 600]) (600, 600)",
    ]


def test_modules_that_the_worker_leaves_out_are_there_for_notebooks(forked: Open):
    with forked() as session:
        assert run(session, "import isoduration, rfc3987_syntax").errors == []


def test_many_sessions_leave_no_descriptor_and_no_process(forked: Open, server: ForkServer):
    def held() -> list:
        pid = python_of(server)
        return [len(os.listdir(f"/proc/{p}/fd")) for p in (os.getpid(), server.pid, pid)] + children(pid)

    with forked():
        pass
    before = held()
    for _ in range(5):
        with forked():
            pass
    deadline = time.monotonic() + 5
    while held() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert held() == before


def test_the_process_at_the_door_may_die(forked: Open, server: ForkServer):
    """As the one that the system takes first when memory runs out."""
    with forked() as session:
        (door,) = children(python_of(server))
        assert os.listdir(f"/proc/{door}/fd") == [], "it holds nothing"
        os.kill(door, signal.SIGKILL)
        assert run(session, "print(1)").cells[2].text == ["1"]


def at_admission(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[int], None]) -> None:
    """Do something when a sandbox's first process (1), or the one that comes in (2), is put under limits."""
    calls = []

    class Watched(Watchdog):
        def admit(self, pid: int, kill: Callable[[], None]) -> None:
            super().admit(pid, kill)
            self._note(pid)

        def admit_too(self, pid: int) -> None:
            super().admit_too(pid)
            self._note(pid)

        def _note(self, pid: int) -> None:
            calls.append(pid)
            if len(calls) == number:
                do(pid)

    monkeypatch.setattr(limits, "enforcer", Watched)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)


@pytest.mark.parametrize("number", [1, 2])
def test_a_death_before_the_door_opens_is_our_fault_in_a_sentence(
    forked: Open, monkeypatch: pytest.MonkeyPatch, number: int
):
    at_admission(monkeypatch, number, kill)
    with pytest.raises(InfrastructureError, match="autograder doctor"):
        forked().__enter__()
    monkeypatch.undo()
    with forked() as session:
        assert run(session, "print(1)").cells[2].text == ["1"]


def test_there_is_no_limit_for_the_dead(forked: Open, monkeypatch: pytest.MonkeyPatch):
    def fail(pid: int) -> None:
        raise ProcessLookupError(3, "No such process")

    at_admission(monkeypatch, 1, fail)
    with pytest.raises(InfrastructureError, match="the sandbox could not be started"):
        forked().__enter__()


def test_the_machine_itself_is_not_entered(server: ForkServer):
    """Where a request named a process that is in no sandbox, the newcomer looks round and ends."""
    with contextlib.ExitStack() as stack:

        def kept(*descriptors: int) -> tuple[int, ...]:
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            return descriptors

        inside, rules, channel = kept(
            os.pidfd_open(os.getpid()), os.memfd_create("rules"), os.open(os.devnull, 0)
        )
        os.write(rules, sandbox.seccomp.program())
        closed, opened = kept(*os.pipe())
        errors, errors_write = os.pipe()
        with os.fdopen(errors_write, "wb") as given:
            server.fork(inside, closed, channel, given.fileno(), rules, uid=64000 + SLOT, processes=0)
        os.write(opened, b"1")
        with os.fdopen(errors, "rb") as heard:
            said = heard.read()
    deadline = time.monotonic() + 5
    while processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert b"this is not the inside of a sandbox" in said


def test_a_server_that_hangs_is_given_up_for_all_who_wait(
    library: StagedLibrary, mortal: ForkServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forkserver, "FORK_SECONDS", 1.0)
    os.kill(python_of(mortal), signal.SIGSTOP)
    errors = []

    def open_one(slot: int) -> None:
        try:
            Session(library=library, limits=LIMITS, slot=slot, server=mortal).__enter__()
        except InfrastructureError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=open_one, args=(SLOT + i,)) for i in range(2)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 5
    assert len(errors) == 2
    assert all("does not answer" in error for error in errors)


def test_a_server_that_dies_while_one_waits_at_the_door_is_missed_at_once(
    library: StagedLibrary, mortal: ForkServer, monkeypatch: pytest.MonkeyPatch
):
    """The one at the door came from the server, and might hold its end of the line."""
    waited = []

    def ask_again(pid: int) -> None:
        kill(python_of(mortal))
        began = time.monotonic()
        with pytest.raises(InfrastructureError, match="does not answer"):
            Session(library=library, limits=LIMITS, slot=SLOT + 1, server=mortal).__enter__()
        waited.append(time.monotonic() - began)

    at_admission(monkeypatch, 2, ask_again)
    with Session(library=library, limits=LIMITS, slot=SLOT, server=mortal) as session:
        assert run(session, "print(1)").cells[2].text == ["1"]
    assert waited[0] < 10


def test_an_answer_that_nobody_waited_for_is_not_the_next_ones(library: StagedLibrary, mortal: ForkServer):
    """Else one session's process would be put under another's limits, and its own under none."""
    walled = partial(Session, library=library, limits=LIMITS, slot=SLOT, server=mortal)
    pid = python_of(mortal)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    os.kill(pid, signal.SIGSTOP)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            walled().__enter__()
    finally:
        signal.signal(signal.SIGALRM, before)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    with pytest.raises(InfrastructureError, match="does not answer"):
        walled().__enter__()


def test_what_a_dead_server_said_is_told_to_all_and_after_its_end(library: StagedLibrary, tmp_path: Path):
    broken = StagedLibrary(tmp_path, ())
    (tmp_path / "torch.py").write_text("raise OSError('libtorch is torn')")
    tmp_path.chmod(0o755)
    with ForkServer(broken.folder, LIMITS).load() as server:
        walled = partial(Session, library=library, limits=LIMITS, slot=SLOT, server=server)
        for _ in range(2):
            with pytest.raises(InfrastructureError, match="libtorch is torn"):
                walled().__enter__()
    with pytest.raises(InfrastructureError, match="does not answer"):
        walled().__enter__()


@pytest.mark.parametrize("missing", ["wire.py", "dulcourse.handin"])
def test_what_a_forked_session_misses_is_told_before_delivery(
    library: StagedLibrary, tmp_path: Path, missing: str
):
    if missing == "dulcourse.handin":
        (tmp_path / "dulcourse" / "referee").mkdir(parents=True)
        wire = library.folder / "dulcourse" / "referee" / "wire.py"
        (tmp_path / "dulcourse" / "referee" / "wire.py").write_text(wire.read_text())
    hide_torch(tmp_path)
    tmp_path.chmod(0o755)
    broken = StagedLibrary(tmp_path, ())
    with (
        ForkServer(broken.folder, LIMITS).load() as server,
        pytest.raises(InfrastructureError, match=missing),
    ):
        Session(library=broken, limits=LIMITS, slot=SLOT, server=server).__enter__()


def test_a_server_ends_by_itself_and_leaves_no_dead_process(library: StagedLibrary, mortal: ForkServer):
    """Killed, it would be a zombie wherever the first process of the machine waits for nobody."""
    pid = python_of(mortal)
    mortal.close()
    assert not Path(f"/proc/{pid}").exists()
    mortal.close()


def test_when_the_server_is_dead_a_batch_goes_on_without_it(
    mortal: ForkServer, library: StagedLibrary, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sandboxes, "server_for", lambda *_, **__: contextlib.nullcontext(mortal))
    monkeypatch.setattr(mortal, "load", lambda data: mortal)
    monkeypatch.setattr(Stage, "fill", lambda *_, **__: library)
    with Sandboxes(slots=1) as batch, batch(DESK) as open_session:
        with open_session(SLOT) as session:
            assert run(session, "1").verdict is Verdict.graded
        os.kill(python_of(mortal), signal.SIGKILL)
        mortal._process.wait()
        with open_session(SLOT) as session:
            assert run(session, "1").verdict is Verdict.graded


def test_what_needs_no_rubric_is_begun_before_there_is_one(library: StagedLibrary):
    """The server imports while its library's folder is empty; it forks when that is filled."""
    with Sandboxes(slots=1) as batch:
        server, folder = batch._server, batch._stage.folder
        assert not (folder / "dulcourse").exists()
        deadline = time.monotonic() + 60
        while not any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in children(server.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with batch(DESK) as open_session, open_session(SLOT) as session:
            assert run(session, "1").verdict is Verdict.graded
            assert (folder / "dulcourse").exists()
    assert not server.alive
    assert not folder.exists()


def test_trouble_before_there_is_a_rubric_is_told_with_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with (
        Sandboxes() as batch,
        pytest.raises(InfrastructureError, match="bubblewrap is not installed"),
        batch(DESK),
    ):
        pass
    monkeypatch.undo()

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with Sandboxes() as batch, pytest.raises(InfrastructureError, match="set TMPDIR"), batch(DESK):
        pass


def test_an_older_kernel_executes_every_session(library: StagedLibrary, monkeypatch: pytest.MonkeyPatch):
    about = os.uname()
    old = os.uname_result((about[0], about[1], "5.4.0-150-generic", about[3], about[4]))
    monkeypatch.setattr(os, "uname", lambda: old)
    with forkserver.server_for(library.folder, LIMITS, threads=1, device="cpu") as server:
        assert server is None


def test_public_data_is_drawn_once_for_all_sessions():
    """What no machine here has is no reason to fail; the session that asks for it is told."""
    wanted = [("toy1d", {}), ("glyphs", {"size": 8, "levels": 2}), ("mnist", {})]
    kept = "from dulcourse import data\nprint(sorted({key[0] for key in data._kept}), len(data._kept))"
    same = "print(data.load('toy1d', 'train', n=5).x.flatten().tolist())"
    with staged(fonts=False) as library, ForkServer(library.folder, LIMITS).load(wanted) as server:
        limits = replace(LIMITS, memory_gib=2)
        with Session(library=library, limits=limits, slot=SLOT, server=server) as session:
            outcome = run(session, kept, same)
    assert outcome.verdict is Verdict.graded, outcome.errors
    assert outcome.cells[2].text == ["['glyphs', 'toy1d'] 6"]
    assert outcome.cells[3].text == [str(data.load("toy1d", "train", n=5).x.flatten().tolist())]
