"""The wall: one bubblewrap sandbox around everything a submission runs.

Inside: its own processes, network (none), mounts (a read-only system, the Python environment, one temporary folder),
host name, an empty environment, an unused user id, no capabilities, a filter on system calls. One inherited socket is
the only way in or out. What happened to it is read from facts seen outside; see `limits` for memory and processes.
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
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder import limits as limits_module
from autograder import seccomp
from autograder.library import StagedLibrary
from autograder.limits import Enforcer, Limits
from dulcourse.errors import InfrastructureError, UsageError

__all__ = ["Python", "Sandbox", "available", "command", "launch"]

COURSE = "/course"  # where the library and the worker are, behind the wall
FIRST_UID = 64000  # one user id a slot, used by nothing else
_WORKER = Path(__file__).with_name("worker.py")
_OURS = (
    "dulcourse",
    "autograder",
    "solutions",
    "book",
    "assignments",
)  # never seen in an environment's own packages
_NVIDIA = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


@dataclass(frozen=True)
class Python:
    """The interpreter that runs behind the wall, and the folders it needs."""

    executable: Path
    folders: tuple[Path, ...]

    @classmethod
    def current(cls) -> "Python":
        """This process's own interpreter and packages."""
        homes = [
            Path(sys.prefix),
            Path(sys.base_prefix),
            Path(os.path.realpath(sys.executable)).parent.parent,
        ]
        packages = [
            Path(p)
            for p in sys.path
            if Path(p).name in ("site-packages", "dist-packages") and Path(p).is_dir()
        ]
        return cls(Path(sys.executable), tuple(dict.fromkeys([*homes, *packages])))

    def binds(self) -> list[Path]:
        """Folders to be bound: those that are not inside /usr or inside another of them."""
        outside = [f for f in self.folders if not f.is_relative_to("/usr")]
        return [f for f in outside if not any(f != other and f.is_relative_to(other) for other in outside)]

    def masks(self) -> list[Path]:
        """Folders that would show the grader's side: the course installed among the packages, or lying in a bound one."""
        installed = [folder / name for folder in self._packages() for name in _OURS]
        repository = _WORKER.parent.parent
        bound = [Path("/usr"), *self.folders]
        lying = [repository / name for name in _OURS if any(repository.is_relative_to(b) for b in bound)]
        return [folder for folder in dict.fromkeys([*installed, *lying]) if folder.is_dir()]

    def _packages(self) -> list[Path]:
        found = [p for folder in self.folders for p in folder.glob("lib*/python3*/*-packages")]
        return [*found, *(f for f in self.folders if f.name.endswith("-packages"))]


def command(
    *,
    python: Python,
    library: Path,
    slot: int,
    threads: int,
    device: str,
    limits: Limits,
    processes: int,
    fds: Mapping[str, int],
    root: bool,
) -> list[str]:
    """The whole command line of one sandbox.

    `fds`: channel, info, block and seccomp, inherited by bubblewrap. `processes`: how many the worker allows itself (0:
    somebody else counts).
    """
    binds = [*python.binds(), library, _WORKER]
    places = [*python.binds(), Path(f"{COURSE}/library"), Path(f"{COURSE}/worker.py")]
    return [
        _bubblewrap(),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "wall"),
        *("--info-fd", str(fds["info"]), "--block-fd", str(fds["block"]), "--seccomp", str(fds["seccomp"])),
        *_system(limits),
        *(_gpu() if device == "cuda" else []),
        *_parents(places),
        *(
            part
            for source, place in zip(binds, places, strict=True)
            for part in ("--ro-bind", str(source), str(place))
        ),
        *(
            part
            for folder in python.masks()
            for part in ("--perms", "0555", "--size", "65536", "--tmpfs", str(folder))
        ),
        *(
            part
            for name, value in _environment(python, threads).items()
            for part in ("--setenv", name, value)
        ),
        *("--remount-ro", "/", "--chdir", "/tmp"),
        *(_drop_root(slot) if root else _user_namespace()),
        *(str(python.executable), "-I", f"{COURSE}/worker.py"),
        *(str(fds["channel"]), "/tmp", f"{COURSE}/library", str(processes)),
    ]


def _system(limits: Limits) -> list[str]:
    merged = [name for name in ("bin", "sbin", "lib", "lib32", "lib64") if (Path("/usr") / name).is_dir()]
    links = [part for name in merged for part in ("--symlink", f"usr/{name}", f"/{name}")]
    return [
        *("--ro-bind", "/usr", "/usr", *links, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(limits.scratch), "--tmpfs", "/tmp"),
        *("--perms", "1777", "--size", str(limits.shared), "--tmpfs", "/dev/shm"),
    ]


def _parents(places: Iterable[Path]) -> list[str]:
    """bubblewrap makes missing parents for its own user only, so each is made by name, for all."""
    parents = {parent for place in places for parent in place.parents if parent != Path("/")}
    ours = sorted(
        parent for parent in parents if not parent.is_relative_to("/usr") and parent != Path("/tmp")
    )
    return [part for parent in ours for part in ("--perms", "0755", "--dir", str(parent))]


def _gpu() -> list[str]:
    """Devices and driver of an NVIDIA GPU. Written from the driver's documentation; not tried on a machine that has one."""
    devices = [*sorted(Path("/dev").glob("nvidia[0-9]*")), *(Path(name) for name in _NVIDIA)]
    return [
        *(part for device in devices for part in ("--dev-bind-try", str(device), str(device))),
        *("--ro-bind-try", "/sys", "/sys"),
    ]


def _drop_root(slot: int) -> list[str]:
    """Root sets the sandbox up without a user namespace, then becomes nobody inside, for good."""
    uid = str(FIRST_UID + slot)
    keep = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
    return [
        *("--cap-drop", "ALL", *(part for capability in keep for part in ("--cap-add", capability)), "--"),
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all", "--"),
    ]


def _user_namespace() -> list[str]:
    disable = (
        ["--disable-userns"] if "--disable-userns" in _bubblewrap_help() else []
    )  # the filter forbids them anyway
    return ["--unshare-user", *disable, "--cap-drop", "ALL", "--"]


def _environment(python: Python, threads: int) -> dict[str, str]:
    """All a submission sees of the environment."""
    pinned = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        "PATH": f"{python.executable.parent}:/usr/bin:/bin",
        "HOME": "/tmp",
        "USER": "student",
        "LOGNAME": "student",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "MPLCONFIGDIR": "/tmp/.matplotlib",
        "IPYTHONDIR": "/tmp/.ipython",
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        **dict.fromkeys(pinned, str(threads)),
    }


class Sandbox:
    """A running sandbox. `channel` is the trusted end of its only connection."""

    def __init__(
        self, process: subprocess.Popen, channel: socket.socket, errors: int, enforcer: Enforcer | None
    ):
        self.process, self.channel, self.enforcer = process, channel, enforcer
        self._errors, self._said = errors, b""
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
    """Start a worker behind the wall; it waits for what the channel brings. `InfrastructureError` if it cannot start."""
    python = python or Python.current()
    if unsafe:
        return _launch_unsafe(library, limits, threads, python)
    root = os.geteuid() == 0
    filter_program = seccomp.program()
    sweep_once()
    enforcer = limits_module.enforcer(limits)
    processes = (
        0 if enforcer.counts_processes else limits.processes + (0 if root else limits_module.user_processes())
    )
    ours, theirs = socket.socketpair()
    info_read, info_write = os.pipe()
    block_read, block_write = os.pipe()
    errors_read, errors_write = os.pipe()
    os.set_blocking(errors_read, False)
    seccomp_read = _memory_file(filter_program)
    fds = {"channel": theirs.fileno(), "info": info_write, "block": block_read, "seccomp": seccomp_read}
    try:
        line = command(
            python=python,
            library=library.folder,
            slot=slot,
            threads=threads,
            device=device,
            limits=limits,
            processes=processes,
            fds=fds,
            root=root,
        )
        process = _launcher().popen(
            line,
            pass_fds=list(fds.values()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors_write,
            env={},
        )
    except BaseException:
        for descriptor in (info_read, block_write, errors_read):
            os.close(descriptor)
        ours.close()
        enforcer.close()
        raise
    finally:
        theirs.close()
        for descriptor in (info_write, block_read, seccomp_read, errors_write):
            os.close(descriptor)
    sandbox = Sandbox(process, ours, errors_read, enforcer)
    try:
        _admit(sandbox, info_read, block_write)
    except BaseException:
        sandbox.close()
        raise
    finally:
        os.close(block_write)
    return sandbox


def _admit(sandbox: Sandbox, info: int, block: int) -> None:
    """Put the waiting sandbox under its limits, then let it go."""
    with os.fdopen(info, "rb") as stream:
        text = stream.read()  # to the end: a partial read leaves bubblewrap's processes blocked
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
    os.write(block, b"1")


def _launch_unsafe(library: StagedLibrary, limits: Limits, threads: int, python: Python) -> Sandbox:
    """The same worker with no wall around it, for one's own notebooks."""
    if os.geteuid() == 0:
        raise UsageError(
            "--unsafe-no-sandbox runs notebooks with all your rights and refuses to do so as root; use another user."
        )
    folder = Path(tempfile.mkdtemp(prefix="dulcourse-unsafe-"))
    ours, theirs = socket.socketpair()
    errors_read, errors_write = os.pipe()
    os.set_blocking(errors_read, False)
    environment = {
        name: value.replace("/tmp", str(folder)) for name, value in _environment(python, threads).items()
    }
    try:
        process = _launcher().popen(
            [python.executable, "-I", _WORKER, str(theirs.fileno()), folder, library.folder, "0"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors_write,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    finally:
        theirs.close()
        os.close(errors_write)
    sandbox = Sandbox(process, ours, errors_read, None)
    sandbox._folder = folder
    return sandbox


class _Launcher:
    """Starts processes from one thread that lives as long as the grader.

    A sandbox dies with the *thread* that started it (PR_SET_PDEATHSIG), and a scheduler's threads come and go.
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
def sweep_once() -> None:
    """What graders that were killed left behind is removed when the first sandbox starts."""
    limits_module.sweep()


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@functools.cache
def _bubblewrap_help() -> str:
    return subprocess.run([_bubblewrap(), "--help"], capture_output=True, text=True, check=False).stdout


def _bubblewrap() -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise InfrastructureError(_NO_BUBBLEWRAP)
    return found


_NO_BUBBLEWRAP = (
    "bubblewrap is not installed, and notebooks run only behind it; install it with `sudo apt install bubblewrap` "
    "(Debian, Ubuntu) or `sudo dnf install bubblewrap` (Fedora)."
)

# What bubblewrap says when it is not allowed to work → what to do about it.
_CURES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda said: "No space left on device" in said or "ENOSPC" in said,
        "user namespaces are switched off here; `sudo sysctl user.max_user_namespaces=15000` allows them, or run the grader as root.",
    ),
    (
        lambda said: (
            "setting up uid map: Permission denied" in said or "loopback: Failed RTM_NEWADDR" in said
        ),
        "AppArmor keeps ordinary users from user namespaces here; `sudo sysctl "
        "kernel.apparmor_restrict_unprivileged_userns=0` allows them, or run the grader with sudo.",
    ),
    (
        lambda said: "No permissions to create" in said or "Operation not permitted" in said,
        "namespaces are forbidden here, as in a container with Docker's default profile; start the container with "
        "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN`, or, outside one, `sudo sysctl "
        "kernel.unprivileged_userns_clone=1`.",
    ),
)


def explain(said: str) -> str:
    """bubblewrap's complaint as a sentence with a remedy."""
    cure = next(
        (cure for matches, cure in _CURES if matches(said)), "run `autograder doctor` for what is missing."
    )
    return f"the sandbox could not be started ({said or 'bubblewrap said nothing'}): {cure}"


def available() -> str | None:
    """None when notebooks can be shut in on this machine, else a sentence that says what is missing and what to do."""
    if not sys.platform.startswith("linux"):
        return f"the sandbox needs Linux, and this is {sys.platform}; grade on a Linux machine or in a virtual one."
    try:
        line = [
            _bubblewrap(),
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--ro-bind",
            "/",
            "/",
        ]
        seccomp.program()
    except InfrastructureError as error:
        return str(error)
    root = os.geteuid() == 0
    if root and shutil.which("setpriv") is None:
        return "setpriv is not installed, and the grader needs it to give up root's rights; `sudo apt install util-linux`."
    line += ["--proc", "/proc", "--dev", "/dev", *(_drop_root(0) if root else _user_namespace()), "true"]
    try:
        trial = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here ({error}); install the distribution's own package."
    return None if trial.returncode == 0 else explain(trial.stderr.strip())
