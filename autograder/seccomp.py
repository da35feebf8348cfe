"""The system calls that nothing behind the wall may make, as a program for the kernel's filter.

Namespaces already keep a notebook away from files, processes and networks. The filter takes away the calls
that could open a way round them: new namespaces and mounts, other processes' memory, kernel interfaces with
a history. It is forty lines of classic BPF, so it is written here rather than taken from a library.
"""

import errno
import platform
import struct

from dulcourse.errors import InfrastructureError

__all__ = ["ARCHITECTURES", "DENIED", "program"]

# name: (number on x86-64, number on aarch64); None where the call does not exist.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # mounts and roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # namespaces (clone and clone3 are looked at below)
    "unshare": (272, 97),
    "setns": (308, 268),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # kernel interfaces
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    # the machine
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
}

# machine name: (column of the table, AUDIT_ARCH, clone, socket)
ARCHITECTURES = {"x86_64": (0, 0xC000003E, 56, 41), "aarch64": (1, 0xC00000B7, 220, 198)}

_CLONE3 = 435  # its flags lie behind a pointer, where no filter can look; without it the C library uses clone
_NEW_NAMESPACES = 0x02000000 | 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_UNIX, _NETLINK = (
    1,
    16,
)  # a kernel talks over unix sockets and lists its interfaces over netlink; vsock is no namespace's
_X32 = 0x40000000  # the same calls under other numbers

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT0 = 0, 4, 16  # offsets in struct seccomp_data (the low half of the argument)
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def program(machine: str | None = None) -> bytes:
    """The filter for this machine: denied calls fail with EPERM, foreign architectures kill the process."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InfrastructureError(
            f"no system call table for {machine!r}: the sandbox knows {known}; grade there."
        )
    column, audit, clone, socket = ARCHITECTURES[machine]
    denied = sorted(numbers[column] for numbers in DENIED.values() if numbers[column] is not None)
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        *_unless(_EQUAL, audit, _KILL),
        _step(_LOAD, _NUMBER),
        *(_when(_AT_LEAST, _X32, _error(errno.ENOSYS)) if machine == "x86_64" else []),
        *_when(_EQUAL, _CLONE3, _error(errno.ENOSYS)),
        *(step for number in denied for step in _when(_EQUAL, number, _error(errno.EPERM))),
        _step(_EQUAL, clone, 0, 4),
        _step(_LOAD, _ARGUMENT0),
        *_when(_ANY_BIT, _NEW_NAMESPACES, _error(errno.EPERM)),
        _step(_RETURN, _ALLOW),
        _step(_EQUAL, socket, 0, 4),
        _step(_LOAD, _ARGUMENT0),
        _step(_EQUAL, _UNIX, 2, 0),
        _step(_EQUAL, _NETLINK, 1, 0),
        _step(_RETURN, _error(errno.EAFNOSUPPORT)),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(steps)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction: (operation, steps to skip if true, steps to skip if false, constant)."""
    return struct.pack("=HBBI", code, yes, no, value)


def _when(code: int, value: int, result: int) -> list[bytes]:
    return [_step(code, value, 0, 1), _step(_RETURN, result)]


def _unless(code: int, value: int, result: int) -> list[bytes]:
    return [_step(code, value, 1, 0), _step(_RETURN, result)]


def _error(number: int) -> int:
    return _ERRNO | number
