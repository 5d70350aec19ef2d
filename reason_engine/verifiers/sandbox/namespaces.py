"""Name spaces of Linux: no network, no other processes, and a root folder that holds Python's library and nothing else.

user_namespaces(7), mount_namespaces(7), pivot_root(2). Needs no privilege where the kernel lets users make their own
name spaces; containers and hardened distributions often do not, and then `enter` says so and Landlock confines alone.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

NEW_MOUNTS, NEW_CGROUP, NEW_NAMES, NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
BIND, REMOUNT, RECURSIVE, PRIVATE, DETACH = 4096, 32, 16384, 1 << 18, 2
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
NOBODY = 65534


def enter(libc: ctypes.CDLL, folders: Mapping[str, int]) -> None:
    """New name spaces for this process, with `folders` (path: open folder) as all there is to see, read-only.

    The process stands in the first of them: by name it may be out of reach for who the process has become, and an open
    folder belongs to the name space in which it was opened; where one stands is carried over. Processes started from
    here on are in a process name space of their own. Raises OSError; the process may then be half-way inside and is of
    no more use.
    """
    user, group = os.geteuid(), os.getegid()
    spaces = NEW_USER | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK | NEW_IPC | NEW_NAMES | NEW_CGROUP
    _checked(libc.unshare(spaces), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
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


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
