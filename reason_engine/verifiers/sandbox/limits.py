"""Every limit of sandboxed code in the order in which it is put up, and what a machine must have for it.

    once, around everything     name spaces (user, process, network, mount, IPC ...) with a root that holds Python's
                                library only; where they are not to be had, Landlock does that part
    around each process         rlimits, no capabilities, Landlock, seccomp

Seccomp and one of the two ways to confine reading are needed; without them nothing runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import math
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Mapping

from reason_engine.verifiers.sandbox import landlock, namespaces, seccomp

FILES = 32
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
CAPABILITY_VERSION = 0x20080522


def missing() -> str:
    """What this machine lacks in any case, as far as can be told without trying; empty where nothing."""
    if not sys.platform.startswith("linux"):
        return f"it needs Linux, and this is {sys.platform}"
    if seccomp.machine() is None:
        return f"it knows the system calls of 64-bit x86-64 and aarch64, not of {os.uname().machine}"
    try:
        with open("/proc/self/status") as file:
            if not any(line.startswith("Seccomp:") for line in file):
                return "the kernel has no seccomp"
    except OSError:
        return "/proc cannot be read"
    return ""


def system() -> ctypes.CDLL:
    """The C library, with error numbers."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    return libc


def library() -> dict[str, int]:
    """The folders that a running interpreter reads, opened: the standard library and the system's shared ones."""
    wanted = (
        os.path.dirname(os.path.realpath(os.__file__)),
        "/usr/lib",
        "/usr/lib64",
        "/lib",
        "/lib64",
        "/usr/share/zoneinfo",
    )
    found: dict[str, int] = {}
    for folder in wanted:
        inside = any(folder.startswith(f"{other}/") for other in found)
        if os.path.isdir(folder) and not inside:
            found[folder] = above(os.open(folder, os.O_PATH | os.O_DIRECTORY))
    return found


def above(handle: int) -> int:
    """The same handle, out of the way of the first few places."""
    copy = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(handle)
    return copy


def surround(libc: ctypes.CDLL, folders: Mapping[str, int], *, spaces: bool) -> None:
    """The walls around everything. Raises OSError naming the one that cannot be had."""
    os.chdir(next(iter(folders)))
    if os.geteuid() == 0 and (spaces or _reachable()) and _world_readable():
        _become_nobody(libc)
    if spaces:
        namespaces.enter(libc, folders)
    elif not landlock.version(libc):
        raise OSError("landlock: the kernel has none or forbids it")
    follow_parent(libc)


def follow_parent(libc: ctypes.CDLL) -> None:
    """Die when the parent dies."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def lock_in(libc: ctypes.CDLL, folders: Iterable[int], seconds: float, memory_mb: int) -> None:
    """The walls around this process, for ever. Raises OSError."""
    follow_parent(libc)
    memory, cpu = memory_mb << 20, math.ceil(seconds) + 1
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 16),
    ):
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
    header, none = struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24)
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    if landlock.version(libc):
        landlock.restrict(libc, folders)
    here = seccomp.machine()
    if here is None:
        raise OSError(missing())
    seccomp.lock(libc, here)


def _become_nobody(libc: ctypes.CDLL) -> None:
    """Where there is such a user: some containers have root alone, who then goes on without capabilities."""
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(*(namespaces.NOBODY,) * 3)
        os.setresuid(*(namespaces.NOBODY,) * 3)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # otherwise /proc/self belongs to root


def _world_readable() -> bool:
    return bool(os.stat(os.__file__).st_mode & 0o004)


def _reachable() -> bool:
    """Whether another user could come to the standard library."""
    folder = os.path.dirname(os.path.realpath(os.__file__))
    while os.stat(folder).st_mode & 0o001:
        if folder == "/":
            return True
        folder = os.path.dirname(folder)
    return False
