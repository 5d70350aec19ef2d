"""The system calls that sandboxed code may make, as a classic BPF program for seccomp. Everything else is refused.

What is allowed is computing: memory, reading files that are open or may be opened, clocks, its own exit. There is no
call that starts a process or thread, opens a socket, changes a file, an identity, a name space or another process.
Refused calls fail with EPERM, so that Python reports them as PermissionError; a call of another architecture
(i386 or x32 on x86-64, where numbers mean other calls) ends the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import NamedTuple

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER_MODE = 38, 22, 2
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PROT_EXEC, MAP_ANONYMOUS = 4, 0x20
DUPLICATING = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC


class Machine(NamedTuple):
    """One architecture: its audit name and the numbers of the calls by name."""

    audit: int
    calls: dict[str, int]

    def numbers(self, names: str) -> list[int]:
        """Numbers of those calls that it has."""
        return [self.calls[name] for name in names.split() if name in self.calls]


def machine() -> Machine | None:
    """This machine's; None where its calls are not known here."""
    if not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return None
    return MACHINES.get(os.uname().machine)


def program(here: Machine) -> bytes:
    """The filter: architecture, then calls with conditions, then the plain ones, then EPERM."""
    code = [_load(4), _jump(here.audit, 1, 0), _end(KILL), _load(0)]
    if here.audit == X86:
        code += [_test(0x35, 0x40000000, 0, 1), _end(KILL)]  # x32 numbers
    for name, offset, bits in (("openat", 32, WRITING), ("open", 24, WRITING), ("mprotect", 32, PROT_EXEC)):
        for number in here.numbers(name):
            code += [_jump(number, 0, 4), _load(offset), _test(0x45, bits, 0, 1), _end(ERRNO | errno.EACCES)]
            code += [_end(ALLOW)]
    for number in here.numbers("mmap"):  # executable memory only from files, and none of those can be written
        code += [_jump(number, 0, 6), _load(32), _test(0x45, PROT_EXEC, 0, 3), _load(40)]
        code += [_test(0x45, MAP_ANONYMOUS, 0, 1), _end(ERRNO | errno.EACCES), _end(ALLOW)]
    for number in here.numbers("fcntl"):  # F_SETOWN and F_SETSIG would send signals to other processes
        code += [_jump(number, 0, 3 + len(DUPLICATING)), _load(24)]
        code += [_jump(command, len(DUPLICATING) - place, 0) for place, command in enumerate(DUPLICATING)]
        code += [_end(ERRNO | errno.EPERM), _end(ALLOW)]
    for number in here.numbers("clone3"):
        code += [_jump(number, 0, 1), _end(ERRNO | errno.ENOSYS)]
    for number in here.numbers(ALLOWED):
        code += [_jump(number, 0, 1), _end(ALLOW)]
    return b"".join([*code, _end(ERRNO | errno.EPERM)])


def lock(libc: ctypes.CDLL, here: Machine) -> None:
    """Put this process under the filter, for ever. Raises OSError."""
    text = program(here)
    buffer = ctypes.create_string_buffer(text, len(text))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(text) // 8, ctypes.addressof(buffer)))
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER_MODE, ctypes.byref(head), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", 0x20, 0, 0, offset)


def _test(kind: int, value: int, yes: int, no: int) -> bytes:
    return struct.pack("HBBI", kind, yes, no, value)


def _jump(value: int, yes: int, no: int) -> bytes:
    return _test(0x15, value, yes, no)


def _end(verdict: int) -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, verdict)


ALLOWED = (
    "read write readv writev pread64 pwrite64 close fstat stat lstat newfstatat statx lseek access faccessat "
    "faccessat2 readlink readlinkat getdents64 getcwd poll ppoll select pselect6 dup pipe2 "
    "munmap mremap madvise brk futex sched_yield sched_getaffinity "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall "
    "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage "
    "getpid getppid gettid getuid geteuid getgid getegid getpgrp uname sysinfo getrandom exit exit_group"
)


def _numbered(calls: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (call.partition("=") for call in calls.split())}


X86, ARM = 0xC000003E, 0xC00000B7
MACHINES = {
    "x86_64": Machine(
        X86,
        _numbered(
            "read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10 "
            "munmap=11 brk=12 rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 pread64=17 pwrite64=18 "
            "readv=19 writev=20 access=21 select=23 sched_yield=24 mremap=25 madvise=28 dup=32 nanosleep=35 "
            "getpid=39 exit=60 uname=63 fcntl=72 getcwd=79 readlink=89 gettimeofday=96 getrusage=98 "
            "sysinfo=99 times=100 getuid=102 getgid=104 geteuid=107 getegid=108 getppid=110 getpgrp=111 "
            "sigaltstack=131 gettid=186 time=201 futex=202 sched_getaffinity=204 getdents64=217 "
            "restart_syscall=219 clock_gettime=228 clock_getres=229 clock_nanosleep=230 exit_group=231 "
            "openat=257 newfstatat=262 readlinkat=267 faccessat=269 pselect6=270 ppoll=271 pipe2=293 "
            "getrandom=318 statx=332 clone3=435 faccessat2=439"
        ),
    ),
    "aarch64": Machine(
        ARM,
        _numbered(
            "getcwd=17 dup=23 fcntl=25 faccessat=48 openat=56 close=57 pipe2=59 getdents64=61 lseek=62 "
            "read=63 write=64 readv=65 writev=66 pread64=67 pwrite64=68 pselect6=72 ppoll=73 readlinkat=78 "
            "newfstatat=79 fstat=80 exit=93 exit_group=94 futex=98 nanosleep=101 clock_gettime=113 "
            "clock_getres=114 clock_nanosleep=115 sched_getaffinity=123 sched_yield=124 restart_syscall=128 "
            "sigaltstack=132 rt_sigaction=134 rt_sigprocmask=135 rt_sigreturn=139 times=153 uname=160 "
            "getrusage=165 gettimeofday=169 getpid=172 getppid=173 getuid=174 geteuid=175 getgid=176 "
            "getegid=177 gettid=178 sysinfo=179 brk=214 munmap=215 mremap=216 mmap=222 mprotect=226 "
            "madvise=233 getrandom=278 statx=291 clone3=435 faccessat2=439"
        ),
    ),
}
