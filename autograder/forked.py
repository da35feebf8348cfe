"""A server of warm processes: what every session would import is imported once, and each session forks it.

    python forked.py CONTROL FOLDER LIBRARY

It runs in a sandbox with the same view of the machine as a submission's, but as root, and never runs a line
of a submission. CONTROL is the number of an inherited socket. What is not the library's is imported at once;
the first thing that is heard is that LIBRARY is complete, and which public data sets notebooks will load. For
each request after that (`autograder.forkserver`) the process forks, twice: the child enters the namespaces
that bubblewrap made for the session and waits; *its* child, the first that is really inside, gives up root as
`setpriv` does, loads the filter, and becomes the worker. Nothing of one session is in the next: all of them
are copies of a process that has only imported, and drawn what is public.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import NoReturn

# What the worker and the kernel import, at once or late, and what notebooks do.
ELSEWHERE = (
    "torch",
    "numpy.random",
    "papermill.execute",
    "jupyter_client.asynchronous.client",
    "ipykernel.kernelapp",
    "ipykernel.debugger",
    "psutil",
    "sqlite3",
    "tornado.platform.asyncio",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.extensions.storemagic",
)
# The library, and matplotlib, which looks for the list of fonts that comes with it.
LIBRARY = (
    "dulcourse.handin",
    "dulcourse.referee.replay",
    "dulcourse.referee.serve",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "dulcourse.data",
    "dulcourse.plotting",
    "dulcourse.training",
)

# CLONE_NEW… of mounts, control groups, host name, IPC, process ids, network
NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000)
PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 22, 23, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
SECCOMP_MODE_FILTER, CAPABILITIES_V3 = 2, 0x20080522
CHANNEL = 3  # the one descriptor that a session has, besides its standard three

_libc = ctypes.CDLL(None, use_errno=True)


def main(control: int, folder: Path, library: Path) -> NoReturn:
    """Import, draw, say so, and fork until the grader is gone."""
    gc.disable()  # nothing that is imported is garbage, and to look for some takes an eighth of the time
    # Children need no waiting for, nor do theirs: a namespace lives until the last of its dead is gone.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _checked(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    stream = socket.socket(fileno=control)
    worker = _imported(library)
    data = stream.recv(1 << 16)
    if not data:
        os._exit(0)  # all that was imported need not be taken down
    with contextlib.suppress(OSError):
        shutil.copytree(library / ".matplotlib", folder / ".matplotlib")
    importlib.invalidate_caches()  # the library's folder was empty when it was looked into first
    _import(LIBRARY)
    for name, options in json.loads(data):
        with contextlib.suppress(Exception):  # then each session draws, or is told why it cannot
            _keep(name, options)
    gc.freeze()  # the collector would touch, and so copy, every page in every child
    gc.enable()
    stream.send(b"ready")
    while True:
        request, descriptors, *_ = socket.recv_fds(stream, 4096, 5)
        if not request:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            stream.close()  # who waits at the other end is to see when the server is gone
            _session(worker, json.loads(request), descriptors, folder, library)
        stream.send(str(pid).encode())
        for descriptor in descriptors:
            os.close(descriptor)


def _imported(library: Path) -> ModuleType:
    """Import what sessions need and is not in the library; returns the worker's module."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as the kernel sets it
    import worker

    sys.path[0] = str(library)  # the folder of this file until now
    worker.leave_out()
    _import(ELSEWHERE)
    with contextlib.suppress(Exception):  # the same
        worker.warm_up()
    return worker


def _import(names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):  # a session tells what it misses; this process serves others
            importlib.import_module(name)


def _keep(name: str, options: dict) -> None:
    """Draw what every notebook would draw again."""
    from dulcourse.data import SPLITS, keep

    for split in SPLITS:
        keep(name, split, **options)


def _session(worker, request: dict, descriptors: list[int], folder: Path, library: Path) -> NoReturn:
    """The child, which goes into the sandbox and has a child of its own there: the worker."""
    inside, gate, channel, errors, rules = descriptors
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(errors, 2)
        if os.read(gate, 1):  # the grader has put this process under the session's limits
            program = os.pread(rules, 1 << 16, 0)
            _checked(_libc.setns(inside, sum(NAMESPACES)), "setns")
            # A process is born into its namespace of process ids: this one stays outside, to wait.
            child = os.fork()
            if child:
                os.closerange(0, os.sysconf("SC_OPEN_MAX"))
                os.waitpid(child, 0)
                os._exit(0)
            else:
                _keep_only(channel)
                give_up_root(request["uid"], program)
                worker.main(CHANNEL, folder, library, request["processes"], forked=True)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _keep_only(channel: int) -> None:
    """The channel and standard error stay open; nothing else that this process ever held does."""
    os.setsid()
    os.chdir("/tmp")
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(channel, CHANNEL)
    os.closerange(CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))


def give_up_root(uid: int, program: bytes) -> None:
    """Become an unused user without any capability, for good, and load the filter on system calls.

    Then look whether it is so: what was forgotten here would be a hole in the wall.
    """
    os.setgroups([])
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            _checked(_libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "bounding set")
    _checked(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set")
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    none = struct.pack("6I", *[0] * 6)  # effective, permitted and inheritable, twice 32 bits of each
    _checked(_libc.capset(struct.pack("Ii", CAPABILITIES_V3, 0), none), "capset")
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    length = len(program) // 8  # instructions
    rules = ctypes.create_string_buffer(program)
    described = struct.pack("HxxxxxxP", length, ctypes.addressof(rules))
    _checked(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0), "filter")
    _look(uid)


def _look(uid: int) -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    expected = {"Uid": [str(uid)] * 4, "Gid": [str(uid)] * 4, "Groups": [], "NoNewPrivs": ["1"]}
    expected |= {"Seccomp": ["2"], "Threads": ["1"]}  # the filter and most of the rest are a thread's own
    expected |= {"NSpid": status["Pid"]}  # as /proc of the innermost namespace has it
    expected |= {f"Cap{name}": ["0" * 16] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    wrong = {key: status.get(key) for key, value in expected.items() if status.get(key) != value}
    if wrong or os.uname().nodename != "wall" or not os.statvfs("/").f_flag & os.ST_RDONLY:
        raise RuntimeError(f"this is not the inside of a sandbox: {wrong}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
