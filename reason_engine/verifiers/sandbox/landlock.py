"""Landlock: this process and its children may read below a few folders, and touch no other file.

Documentation/userspace-api/landlock.rst of the Linux sources. Needs no privilege; kernels since 5.13, where built in.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

CREATE, ADD, RESTRICT = 444, 445, 446
READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of file rights by version; 16 since the fifth. All are handled, so all but the allowed ones are refused."""


def version(libc: ctypes.CDLL) -> int:
    """The kernel's version of Landlock; 0 where it has none or forbids its use."""
    return max(0, libc.syscall(CREATE, None, ctypes.c_size_t(0), 1))


def restrict(libc: ctypes.CDLL, readable: Iterable[int]) -> None:
    """Allow reading below these open folders, for ever; nothing else, no TCP, no signals to outside. Raises OSError."""
    known = version(libc)
    rights = (1 << FILE_RIGHTS.get(known, 16)) - 1
    attribute = struct.pack("QQQ", rights, 0b11, 0b11)[: 24 if known >= 6 else 16 if known >= 4 else 8]
    rules = _checked(libc.syscall(CREATE, attribute, ctypes.c_size_t(len(attribute)), 0))
    try:
        for folder in readable:
            beneath = struct.pack("=Qi", READ_FILE | READ_DIR, folder)
            _checked(libc.syscall(ADD, rules, 1, beneath, 0))
        _checked(libc.prctl(38, 1, 0, 0, 0))
        _checked(libc.syscall(RESTRICT, rules, 0))
    finally:
        os.close(rules)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result
