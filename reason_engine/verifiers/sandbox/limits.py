"""Every limit of sandboxed code in the order in which it is set, and what a machine must have for it.

    confine, once around all     name spaces (user, process, network, mount, IPC ...) with a root that holds Python's
                                 library only; where they are not to be had, Landlock does that part
    lock_in, in each process     rlimits, no capabilities, Landlock, seccomp

Seccomp and one of the two ways to confine reading are needed; without them nothing runs. user_namespaces(7),
mount_namespaces(7) and pivot_root(2) need no privilege where the kernel lets users make name spaces of their own;
containers and hardened distributions often do not. Landlock (Documentation/userspace-api/landlock.rst of the Linux
sources) needs none at all: kernels since 5.13, where built in.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Mapping

from reason_engine.verifiers.sandbox import seccomp

OPEN_FILES = 32
NOBODY = 65534
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
CAPABILITY_VERSION = 0x20080522

NEW_MOUNTS, NEW_CGROUP, NEW_NAMES, NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
BIND, REMOUNT, RECURSIVE, PRIVATE, DETACH = 4096, 32, 16384, 1 << 18, 2
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of Landlock's file rights by version; 16 since the fifth. All are handled, so all but the allowed ones are
refused."""


def missing() -> str:
    """What this machine lacks in any case, as far as is known without trying; empty where nothing."""
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


def c_library() -> ctypes.CDLL:
    """The C library, with error numbers."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    return libc


def readable_folders() -> dict[str, int]:
    """The folders that a running interpreter reads, opened: the standard library and the system's shared ones."""
    standard = os.path.dirname(os.path.realpath(os.__file__))
    found: dict[str, int] = {}
    for folder in (standard, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo"):
        inside = any(folder.startswith(f"{other}/") for other in found)
        if os.path.isdir(folder) and not inside:
            found[folder] = moved_up(os.open(folder, os.O_PATH | os.O_DIRECTORY))
    return found


def moved_up(handle: int) -> int:
    """The same file under a handle of at least 100, so that the first places are free."""
    copy = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(handle)
    return copy


def confine(libc: ctypes.CDLL, folders: Mapping[str, int], *, spaces: bool) -> None:
    """The limits around everything. Raises OSError naming the one that cannot be had."""
    os.chdir(next(iter(folders)))
    if os.geteuid() == 0 and (spaces or _reachable()) and os.stat(os.__file__).st_mode & 0o004:
        _become_nobody(libc)
    if spaces:
        _enter_namespaces(libc, folders)
    elif not _landlock_version(libc):
        raise OSError("landlock: the kernel has none or forbids it")
    end_with_parent(libc)


def end_with_parent(libc: ctypes.CDLL) -> None:
    """Have this process killed when its parent ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def lock_in(libc: ctypes.CDLL, folders: Iterable[int], seconds: float, memory_mb: int) -> None:
    """The limits of this process, for ever. Raises OSError."""
    end_with_parent(libc)
    for what, most in (
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_CPU, math.ceil(seconds) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 16),
    ):
        hard = resource.getrlimit(what)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))
    header, none = struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24)
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    if version := _landlock_version(libc):
        _allow_reading_only(libc, version, folders)
    here = seccomp.machine()
    if here is None:
        raise OSError(missing())
    seccomp.lock(libc, here)


def _enter_namespaces(libc: ctypes.CDLL, folders: Mapping[str, int]) -> None:
    """New name spaces for this process, with `folders` (path: open folder) as all there is to see, read-only.

    The process stands in the first of them: by name it may be out of reach for who the process has become, and an open
    folder belongs to the name space in which it was opened; where one stands is carried over. Processes started from
    here on are in a process name space of their own. Raises OSError; the process may then be half-way inside and is of
    no more use.
    """
    user, group = os.geteuid(), os.getegid()
    spaces = NEW_USER | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_NAMES | NEW_CGROUP
    _checked(libc.unshare(spaces), "unshare")
    maps = (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1"))
    for name, text in maps:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _mount(libc, "none", "/", "", RECURSIVE | PRIVATE)
    _mount(libc, "none", "/tmp", "tmpfs", NO_SETUID | NO_DEVICES, "size=64k,nr_inodes=256,mode=755")
    for number, (path, handle) in enumerate(folders.items()):
        place, source = f"/tmp{path}", path if number else "."
        os.makedirs(place, exist_ok=True)
        kept = os.statvfs(handle).f_flag & NO_EXEC  # a flag of the original mount may not be taken off
        _mount(libc, source, place, "", BIND | RECURSIVE)
        _mount(libc, "none", place, "", BIND | REMOUNT | READ_ONLY | NO_SETUID | NO_DEVICES | kept)
    os.chdir("/tmp")
    _checked(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _checked(libc.umount2(b".", DETACH), "umount")
    os.chdir("/")
    _mount(libc, "none", "/", "", BIND | REMOUNT | READ_ONLY | NO_SETUID | NO_DEVICES)


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    texts = (source.encode(), target.encode(), kind.encode() or None)
    _checked(libc.mount(*texts, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def _landlock_version(libc: ctypes.CDLL) -> int:
    """The kernel's version of Landlock; 0 where it has none or forbids its use."""
    return max(0, libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def _allow_reading_only(libc: ctypes.CDLL, version: int, folders: Iterable[int]) -> None:
    """Allow reading below these open folders, for ever; nothing else, no TCP, no signals to outside. Raises OSError."""
    rights = (1 << FILE_RIGHTS.get(version, 16)) - 1
    attribute = struct.pack("QQQ", rights, 0b11, 0b11)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _checked(libc.syscall(LANDLOCK_CREATE, attribute, ctypes.c_size_t(len(attribute)), 0), "landlock")
    try:
        for folder in folders:
            beneath = struct.pack("=Qi", READ_FILE | READ_FOLDER, folder)
            _checked(libc.syscall(LANDLOCK_ADD, rules, 1, beneath, 0), "landlock")
        _checked(libc.prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "landlock")
        _checked(libc.syscall(LANDLOCK_RESTRICT, rules, 0), "landlock")
    finally:
        os.close(rules)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _become_nobody(libc: ctypes.CDLL) -> None:
    """Where there is such a user: some containers have root alone, who then goes on without capabilities."""
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(*(NOBODY,) * 3)
        os.setresuid(*(NOBODY,) * 3)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # otherwise /proc/self belongs to root


def _reachable() -> bool:
    """Whether another user may open the standard library."""
    folder = os.path.dirname(os.path.realpath(os.__file__))
    while os.stat(folder).st_mode & 0o001:
        if folder == "/":
            return True
        folder = os.path.dirname(folder)
    return False
