"""The filter of system calls, read by a small machine of our own: what each architecture's program says."""

from __future__ import annotations

import errno
import struct

import pytest

from reason_engine.verifiers.sandbox.seccomp import ALLOW, ARM, ERRNO, KILL, MACHINES, X86, Machine, program

REFUSED, NOT_SO = ERRNO | errno.EPERM, ERRNO | errno.EACCES
FOLDER = (0, 0, 0o200000)  # O_DIRECTORY


def verdict(here: Machine, number: int, args: tuple[int, ...] = (), audit: int | None = None) -> int:
    """What the filter says to a call: the five instructions that it uses, as seccomp(2) and bpf define them."""
    text = program(here)
    code = [struct.unpack_from("HBBI", text, at) for at in range(0, len(text), 8)]
    data = struct.pack("II8x6Q", number, audit or here.audit, *args, *(0,) * (6 - len(args)))
    held, at = 0, 0
    while True:
        kind, yes, no, value = code[at]
        at += 1
        if kind == 0x20:
            (held,) = struct.unpack_from("I", data, value)
        elif kind == 0x06:
            return value
        else:
            true = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[kind]
            at += yes if true else no


@pytest.mark.parametrize("name", MACHINES)
def test_what_may_be_called(name: str) -> None:
    here = MACHINES[name]
    call = here.calls
    for allowed in ("read", "write", "brk", "exit_group", "clock_gettime", "futex", "munmap"):
        assert verdict(here, call[allowed]) == ALLOW
    assert verdict(here, call["openat"], (0, 0, 0)) == verdict(here, call["openat"], FOLDER) == ALLOW
    for flags in (1, 2, 0o100, 0o1000, 0o20200002):
        assert verdict(here, call["openat"], (0, 0, flags)) == NOT_SO
    assert verdict(here, call["mmap"], (0, 4096, 3, 0x22)) == ALLOW
    assert verdict(here, call["mmap"], (0, 4096, 5, 0x02)) == ALLOW
    assert verdict(here, call["mmap"], (0, 4096, 7, 0x22)) == NOT_SO
    assert verdict(here, call["mprotect"], (0, 4096, 3)) == ALLOW
    assert verdict(here, call["mprotect"], (0, 4096, 5)) == NOT_SO
    assert [verdict(here, call["fcntl"], (0, command)) for command in (0, 1, 2, 3, 1030)] == [ALLOW] * 5
    assert [verdict(here, call["fcntl"], (0, command)) for command in (4, 8, 10, 1031)] == [REFUSED] * 4
    assert verdict(here, call["clone3"]) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("name", MACHINES)
def test_everything_else_is_refused(name: str) -> None:
    here = MACHINES[name]
    known = set(here.calls.values())
    assert {verdict(here, number) for number in range(600) if number not in known} == {REFUSED}
    dangerous = {"x86_64": (41, 56, 57, 59, 62, 101, 165, 272), "aarch64": (198, 220, 221, 129, 117, 40, 97)}
    assert not known & set(dangerous[name])


def test_another_architecture_ends_the_process() -> None:
    x86, arm = MACHINES["x86_64"], MACHINES["aarch64"]
    assert verdict(x86, 0, audit=ARM) == verdict(arm, 0, audit=X86) == verdict(x86, 0, audit=0x40000003) == KILL
    assert verdict(x86, 0x40000000) == KILL
