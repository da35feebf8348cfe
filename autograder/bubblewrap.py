"""bubblewrap's command line: what a submission sees of the machine, and what is done when it is refused.

Inside: its own processes, network (none), mounts (a read-only system, the Python environment, one temporary
folder), host name, an almost empty environment, an unused user id, no capabilities, a filter on system calls.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autograder import seccomp
from autograder.limits import Limits
from dulcourse.errors import InfrastructureError

__all__ = [
    "WORKER",
    "Python",
    "anchor",
    "available",
    "bubblewrap",
    "command",
    "environment",
    "explain",
    "options",
    "server_command",
    "server_options",
    "user_id",
]

COURSE = "/course"  # where the library and the worker are, behind the wall
FIRST_UID = 64000  # one user id a slot, used by nothing else
ANCHOR_UID = FIRST_UID - 1
WORKER = Path(__file__).with_name("worker.py")
FORKED = Path(__file__).with_name("forked.py")
_OURS = ("dulcourse", "autograder", "solutions", "book", "assignments")  # never seen among installed packages
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
        """Folders that would show the grader's side: the course among packages or in a bound folder."""
        installed = [folder / name for folder in self._packages() for name in _OURS]
        repository = WORKER.parent.parent
        bound = [Path("/usr"), *self.folders]
        lying = [repository / name for name in _OURS if any(repository.is_relative_to(b) for b in bound)]
        return [folder for folder in dict.fromkeys([*installed, *lying]) if folder.is_dir()]

    def _packages(self) -> list[Path]:
        found = [p for folder in self.folders for p in folder.glob("lib*/python3*/*-packages")]
        return [*found, *(f for f in self.folders if f.name.endswith("-packages"))]


def options(
    *, python: Python, library: Path, threads: int, device: str, limits: Limits, fds: Mapping[str, int]
) -> list[str]:
    """What is around the command. `fds`: info, block and seccomp, inherited by bubblewrap."""
    return [
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "wall"),
        *("--info-fd", str(fds["info"]), "--block-fd", str(fds["block"]), "--seccomp", str(fds["seccomp"])),
        *_view(python, library, threads, device, limits, (WORKER,)),
        *(_root_options() if os.geteuid() == 0 else _user_options()),
    ]


def command(*, python: Python, slot: int, channel: int, processes: int) -> list[str]:
    """What runs inside. `processes`: how many the worker allows itself (0: somebody else counts)."""
    worker = (f"{COURSE}/worker.py", str(channel), "/tmp", f"{COURSE}/library", str(processes))
    return [*(_become(user_id(slot)) if os.geteuid() == 0 else []), str(python.executable), "-I", *worker]


def anchor() -> list[str]:
    """What holds a sandbox open for a process that will come in. It says when the sandbox is complete.

    It is a user of its own, whom no submission can signal or look into.
    """
    return [*_become(ANCHOR_UID), "sh", "-c", "echo; exec sleep infinity >/dev/null 2>&1"]


def server_options(*, python: Python, library: Path, threads: int, device: str, limits: Limits) -> list[str]:
    """Around the server of warm processes: it sees what a submission sees, and may go where those are."""
    view = _view(python, library, threads, device, limits, (WORKER, FORKED))
    return ["--die-with-parent", "--clearenv", *view, "--cap-add", "ALL"]


def server_command(python: Python, control: int) -> list[str]:
    """What runs there."""
    return [str(python.executable), f"{COURSE}/{FORKED.name}", str(control), "/tmp", f"{COURSE}/library"]


def _view(
    python: Python, library: Path, threads: int, device: str, limits: Limits, programs: tuple[Path, ...]
) -> list[str]:
    """The machine as it is seen inside: all of it read-only but the temporary folder."""
    sources = [*python.binds(), library, *programs]
    course = [Path(COURSE) / name for name in ("library", *(program.name for program in programs))]
    places = [*python.binds(), *course]
    return [
        *_system(limits),
        *(_gpu() if device == "cuda" else []),
        *_parents(places),
        *_each(("--ro-bind", str(source), str(place)) for source, place in zip(sources, places, strict=True)),
        *_each(("--perms", "0555", "--size", "65536", "--tmpfs", str(folder)) for folder in python.masks()),
        *_each(("--setenv", name, value) for name, value in environment(python, threads).items()),
        *("--remount-ro", "/", "--chdir", "/tmp"),
    ]


def _each(groups: Iterable[tuple[str, ...]]) -> list[str]:
    return [part for group in groups for part in group]


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
    """Devices and driver of an NVIDIA GPU: as its driver documents them; not tried on a machine with one."""
    devices = [*sorted(Path("/dev").glob("nvidia[0-9]*")), *(Path(name) for name in _NVIDIA)]
    return [
        *(part for device in devices for part in ("--dev-bind-try", str(device), str(device))),
        *("--ro-bind-try", "/sys", "/sys"),
    ]


def _root_options() -> list[str]:
    """Root sets the sandbox up without a user namespace, and keeps what it needs to become nobody inside."""
    keep = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
    return ["--cap-drop", "ALL", *_each(("--cap-add", capability) for capability in keep)]


def user_id(slot: int) -> int:
    """Who a submission is, where the grader is root."""
    return FIRST_UID + slot


def _become(uid: int) -> list[str]:
    """From root to an unused user, for good."""
    return [
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all", "--"),
    ]


def _user_options() -> list[str]:
    disable = ["--disable-userns"] if "--disable-userns" in _help() else []  # the filter forbids them anyway
    return ["--unshare-user", *disable, "--cap-drop", "ALL"]


def environment(python: Python, threads: int, home: str = "/tmp") -> dict[str, str]:
    """All a submission sees of the environment."""
    pinned = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        "PATH": f"{python.executable.parent}:/usr/bin:/bin",
        "HOME": home,
        "USER": "student",
        "LOGNAME": "student",
        "LANG": "C.UTF-8",
        "TMPDIR": home,
        "MPLCONFIGDIR": f"{home}/.matplotlib",
        "IPYTHONDIR": f"{home}/.ipython",
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        **dict.fromkeys(pinned, str(threads)),
        # A thread that waits by looking again and again takes the core from the one that it waits for, where
        # another process has the other core: a training of 5 s took 50.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


@functools.cache
def _help() -> str:
    return subprocess.run([bubblewrap(), "--help"], capture_output=True, text=True, check=False).stdout


def bubblewrap() -> str:
    """The program, or what to do about its absence."""
    found = shutil.which("bwrap")
    if found is None:
        raise InfrastructureError(_NO_BUBBLEWRAP)
    return found


_NO_BUBBLEWRAP = (
    "bubblewrap is not installed, and notebooks run only behind it; install it with `sudo apt install "
    "bubblewrap` (Debian, Ubuntu) or `sudo dnf install bubblewrap` (Fedora)."
)

# What bubblewrap says when it is not allowed to work → what to do about it.
_CURES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda said: "No space left on device" in said or "ENOSPC" in said,
        "user namespaces are switched off here; `sudo sysctl user.max_user_namespaces=15000` allows them, or "
        "run the grader as root.",
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
        "namespaces are forbidden here, as in a container with Docker's default profile; start it with "
        "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN "
        "--cap-add NET_ADMIN`, or, "
        "outside one, `sudo sysctl kernel.unprivileged_userns_clone=1`.",
    ),
)


def explain(said: str) -> str:
    """bubblewrap's complaint as a sentence with a remedy."""
    cure = next(
        (cure for matches, cure in _CURES if matches(said)), "run `autograder doctor` for what is missing."
    )
    return f"the sandbox could not be started ({said or 'bubblewrap said nothing'}): {cure}"


def available() -> str | None:
    """None when notebooks can be shut in here, else a sentence: what is missing and what to do about it."""
    if not sys.platform.startswith("linux"):
        return f"the sandbox needs Linux, and this is {sys.platform}; grade on Linux or in a virtual machine."
    try:
        namespaces = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts")
        line = [bubblewrap(), *namespaces, "--ro-bind", "/", "/"]
        seccomp.program()
    except InfrastructureError as error:
        return str(error)
    root = os.geteuid() == 0
    if root and shutil.which("setpriv") is None:
        return (
            "setpriv is not installed, and root's rights are given up with it; `sudo apt install util-linux`."
        )
    line += ["--proc", "/proc", "--dev", "/dev", *(_root_options() if root else _user_options()), "--"]
    try:
        trial = [*line, *(_become(user_id(0)) if root else []), "true"]
        tried = subprocess.run(trial, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here ({error}); install the distribution's own package."
    return None if tried.returncode == 0 else explain(tried.stderr.strip())
