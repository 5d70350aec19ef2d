"""Ways out of the sandbox that must all be shut, as programs. One prints ESCAPED if it got what it tried for; one whose
aim is to use up time or memory, or to end something else, has won if its run is not over in time or something is left.

`MARK` stands for a name that occurs nowhere else, `SECRET` for one in the server's environment. Forgeries are programs
whose `f(2)` is not the 4 that the test asks for.
"""

from __future__ import annotations

import os

_TRY = "import os, sys, ctypes, time\n"

READING = {
    "passwd": "if open('/etc/passwd').read(): print('ESCAPED')",
    "shadow": "if open('/etc/shadow').read(): print('ESCAPED')",
    "own environment": "if open('/proc/self/environ', 'rb').read() is not None: print('ESCAPED')",
    "first process's environment": "if open('/proc/1/environ', 'rb').read(): print('ESCAPED')",
    "parent's command": "if open(f'/proc/{os.getppid()}/cmdline').read(): print('ESCAPED')",
    "own memory map": "if open('/proc/self/maps').read(): print('ESCAPED')",
    "own descriptors": "if os.listdir('/proc/self/fd'): print('ESCAPED')",
    "list of processes": "if any(name.isdigit() for name in os.listdir('/proc')): print('ESCAPED')",
    "up and down again": "if open('../../../../../../etc/passwd').read(): print('ESCAPED')",
    "below an open folder": (
        "import sysconfig\nhandle = os.open(sysconfig.get_paths()['stdlib'], os.O_RDONLY)\n"
        "if os.open('../../../../../../../../etc/passwd', os.O_RDONLY, dir_fd=handle): print('ESCAPED')"
    ),
    "through the root of a descriptor": "if open('/proc/self/root/etc/passwd').read(): print('ESCAPED')",
    "bytes path": "if os.read(os.open(b'/etc/hosts', os.O_RDONLY), 9): print('ESCAPED')",
    "mapped": (
        "import mmap\nif mmap.mmap(os.open('/etc/passwd', os.O_RDONLY), 0, prot=mmap.PROT_READ): print('ESCAPED')"
    ),
    "list of /etc": "if os.listdir('/etc'): print('ESCAPED')",
    "list of the root": "if 'etc' in os.listdir('/'): print('ESCAPED')",
    "home": "if os.listdir(os.path.expanduser('~root')): print('ESCAPED')",
    "own program": "if open(sys.argv[0]).read(): print('ESCAPED')",
    "folder of the own program": "if os.listdir(os.path.dirname(sys.argv[0])): print('ESCAPED')",
    "the server's code": "import reason_engine.settings\nprint('ESCAPED')",
    "disk": "if os.open('/dev/vda', os.O_RDONLY) or os.open('/dev/sda', os.O_RDONLY): print('ESCAPED')",
    "terminal": "if os.open('/dev/tty', os.O_RDWR): print('ESCAPED')",
    "kernel's log": "if open('/dev/kmsg').read(1): print('ESCAPED')",
    "kernel's settings": "if os.listdir('/sys/kernel'): print('ESCAPED')",
    "by the C library": (
        "libc = ctypes.CDLL(None)\nlibc.fopen.restype = ctypes.c_void_p\n"
        "if libc.fopen(b'/etc/passwd', b'r'): print('ESCAPED')"
    ),
    "keys in the environment": (
        "if any('SECRET' in part for pair in os.environ.items() for part in pair): print('ESCAPED')"
    ),
    "keys on the stack": (
        "libc = ctypes.CDLL(None)\nenviron = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')\n"
        "if environ and b'SECRET' in (environ[0] or b''): print('ESCAPED')"
    ),
}

WRITING = {
    "a file in /tmp": "open('/tmp/MARK', 'w').write('x'); print('ESCAPED')",
    "a file in shared memory": "open('/dev/shm/MARK', 'w').write('x'); print('ESCAPED')",
    "a file here": "open('MARK', 'w').write('x'); print('ESCAPED')",
    "a module of the library": (
        "import sysconfig\nopen(sysconfig.get_paths()['stdlib'] + '/MARK.py', 'w').write('x'); print('ESCAPED')"
    ),
    "append to the library": "open(os.__file__, 'a'); print('ESCAPED')",
    "a temporary file": "import tempfile\ntempfile.TemporaryFile().write(b'x'); print('ESCAPED')",
    "a file without a name": "os.open('/tmp', os.O_TMPFILE | os.O_RDWR); print('ESCAPED')",
    "a folder": "os.mkdir('/tmp/MARK'); print('ESCAPED')",
    "a pipe with a name": "os.mkfifo('/tmp/MARK'); print('ESCAPED')",
    "a device": "os.mknod('/tmp/MARK', 0o20666, os.makedev(1, 1)); print('ESCAPED')",
    "a link and what it points to": (
        "os.symlink('/etc/passwd', '/tmp/MARK'); open('/tmp/MARK').read(); print('ESCAPED')"
    ),
    "a hard link": "os.link(os.__file__, '/tmp/MARK'); print('ESCAPED')",
    "rename": "os.rename(os.__file__, os.__file__ + 'MARK'); print('ESCAPED')",
    "delete": "import colorsys\nos.unlink(colorsys.__file__); print('ESCAPED')",
    "cut": "import colorsys\nos.truncate(colorsys.__file__, 0); print('ESCAPED')",
    "rights": "import colorsys\nos.chmod(colorsys.__file__, 0o777); print('ESCAPED')",
    "owner": "import colorsys\nos.chown(colorsys.__file__, 0, 0); print('ESCAPED')",
    "times": "import colorsys\nos.utime(colorsys.__file__); print('ESCAPED')",
    "attributes": "import colorsys\nos.setxattr(colorsys.__file__, 'user.MARK', b'x'); print('ESCAPED')",
    "own memory as a file": "open('/proc/self/mem', 'r+b'); print('ESCAPED')",
    "a data base": ("import sqlite3\nsqlite3.connect('/tmp/MARK').execute('create table t(x)'); print('ESCAPED')"),
    "shared memory": (
        "from multiprocessing import shared_memory\nshared_memory.SharedMemory('MARK', True, 64); print('ESCAPED')"
    ),
    "a semaphore with a name": "import multiprocessing\nmultiprocessing.Semaphore(); print('ESCAPED')",
    "a full disk": (
        "for place in range(10**6):\n"
        "    for folder in ('/tmp', '/dev/shm', '/var/tmp', '.'):\n"
        "        try:\n            open(f'{folder}/MARK{place}', 'wb').write(bytes(1 << 20)); print('ESCAPED')\n"
        "        except OSError: pass"
    ),
    "working folder elsewhere": "os.chdir('/tmp'); open('MARK', 'w'); print('ESCAPED')",
}

NETWORK = {
    "tcp": "import socket\nsocket.socket(); print('ESCAPED')",
    "tcp over IPv6": "import socket\nsocket.socket(socket.AF_INET6); print('ESCAPED')",
    "udp": "import socket\nsocket.socket(type=socket.SOCK_DGRAM); print('ESCAPED')",
    "unix": "import socket\nsocket.socket(socket.AF_UNIX); print('ESCAPED')",
    "pair": "import socket\nsocket.socketpair(); print('ESCAPED')",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); print('ESCAPED')",
    "raw": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('ESCAPED')",
    "packet": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3); print('ESCAPED')",
    "host and guest": "import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); print('ESCAPED')",
    "kernel cryptography": ("import socket\nsocket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET); print('ESCAPED')"),
    "page of the server": ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:8000/'); print('ESCAPED')"),
    "listening": "import socketserver\nsocketserver.TCPServer(('127.0.0.1', 0), None); print('ESCAPED')",
    "an event loop": ("import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', 80)); print('ESCAPED')"),
    "a descriptor as a socket": (
        "import socket\nfor n in range(40):\n"
        "    try: socket.socket(fileno=n).getsockname(); print('ESCAPED')\n    except OSError: pass"
    ),
}

PROCESSES = {
    "fork": "if os.fork() >= 0: print('ESCAPED', flush=True)",
    "fork bomb": ("while True:\n    try:\n        os.fork(); print('ESCAPED', flush=True)\n    except Exception: pass"),
    "fork with a terminal": "os.forkpty(); print('ESCAPED')",
    "child that stays": (
        "if not os.fork():\n    os.setsid()\n    if not os.fork(): time.sleep(60)\n    os._exit(0)\nprint('ESCAPED')"
    ),
    "run": "import subprocess\nsubprocess.run(['true'], check=True); print('ESCAPED')",
    "run by another way": (
        "import subprocess\nsubprocess._USE_VFORK = False\nsubprocess.run(['true']); print('ESCAPED')"
    ),
    "shell": "if os.system('true') == 0: print('ESCAPED')",
    "pipe from a shell": "if os.popen('echo ESCAPED').read(): print('ESCAPED')",
    "become another program": "os.execv(sys.executable, [sys.executable, '-c', 'print(\"ESCAPED\")'])",
    "become by descriptor": "os.execve(os.open('/usr/lib', os.O_RDONLY), ['x'], {}); print('ESCAPED')",
    "spawn": "os.posix_spawn(sys.executable, ['x'], {}); print('ESCAPED')",
    "terminal session": "import pty\npty.spawn(['true']); print('ESCAPED')",
    "worker": ("import multiprocessing as m\nm.get_context('fork').Process(target=print).start(); print('ESCAPED')"),
    "thread": "import threading\nthreading.Thread(target=print, args=('ESCAPED',)).start()",
    "thread bomb": (
        "import _thread\nwhile True:\n"
        "    try: _thread.start_new_thread(print, ('ESCAPED',))\n    except RuntimeError: pass"
    ),
    "executor": (
        "from concurrent.futures import ThreadPoolExecutor as T\n"
        "T().submit(print, 'ESCAPED').result(); print('ESCAPED')"
    ),
    "fork by the C library": "if ctypes.CDLL(None).fork() >= 0: print('ESCAPED', flush=True)",
    "a debugger's start": "if ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0: print('ESCAPED')",
    "attach to the parent": "if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0: print('ESCAPED')",
    "kill the parent": "os.kill(os.getppid(), 9); print('ESCAPED')",
    "kill the first process": "os.kill(1, 9); print('ESCAPED')",
    "kill everything": "os.kill(-1, 9); print('ESCAPED')",
    "kill the group": "os.killpg(0, 15); print('ESCAPED')",
    "stop the group": "os.killpg(0, 19); print('ESCAPED')",
    "kill by process handle": (
        "import signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9); print('ESCAPED')"
    ),
    "kill by a pipe that reports": (
        "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, 10, 9); fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())\n"
        "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC); os.write(w, b'x'); print('ESCAPED')"
    ),
    "another session": "os.setsid(); print('ESCAPED')",
    "another group": "os.setpgid(0, 0); print('ESCAPED')",
    "a timer that signals": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01); print('ESCAPED')",
    "other processors": "os.sched_setaffinity(0, {0}); print('ESCAPED')",
    "first in line": "os.nice(-5); print('ESCAPED')",
    "real time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); print('ESCAPED')",
}

RIGHTS = {
    "be root": "os.setuid(0); print('ESCAPED')",
    "be root for real": "os.setresuid(0, 0, 0); print('ESCAPED')",
    "be in root's group": "os.setgid(0); print('ESCAPED')",
    "be in every group": "os.setgroups([0, 1, 2]); print('ESCAPED')",
    "another root folder": "os.chroot('/usr'); print('ESCAPED')",
    "higher limits": (
        "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY)); print('ESCAPED')"
    ),
    "higher limits for the parent": (
        "import resource as r\nr.prlimit(os.getppid(), r.RLIMIT_CPU, (0, 0)); print('ESCAPED')"
    ),
    "writable code": (
        "import mmap\nmmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC); print('ESCAPED')"
    ),
    "code out of data": (
        "libc = ctypes.CDLL(None)\nlibc.memalign.restype = ctypes.c_void_p\n"
        "page = libc.memalign(4096, 4096)\nif libc.mprotect(ctypes.c_void_p(page), 4096, 7) == 0: print('ESCAPED')"
    ),
}

CALLS_X86 = {
    "mount": (165, "b'none', b'/tmp', b'tmpfs', 0, 0"),
    "unmount": (166, "b'/', 2"),
    "move the root": (155, "b'.', b'.'"),
    "new name spaces": (272, "0x10000000"),
    "enter name spaces": (308, "0, 0"),
    "thread by number": (56, "0x50f00, 0, 0, 0, 0"),
    "fork by number": (57, ""),
    "fork by an old number": (58, ""),
    "run by number": (59, "b'/bin/true', 0, 0"),
    "run by handle": (322, "0, b'', 0, 0, 0x1000"),
    "read another's memory": (310, "os.getppid(), 0, 0, 0, 0, 0"),
    "write another's memory": (311, "os.getppid(), 0, 0, 0, 0, 0"),
    "take another's handle": (438, "3, 0, 0"),
    "compare processes": (312, "1, os.getpid(), 0, 0, 0"),
    "io_uring": (425, "1, ctypes.create_string_buffer(120)"),
    "bpf": (321, "0, ctypes.create_string_buffer(128), 128"),
    "performance counters": (298, "ctypes.create_string_buffer(128), 0, -1, -1, 0"),
    "page faults": (323, "1"),
    "a new key": (248, "b'user', b'MARK', b'x', 1, -2"),
    "keys of the session": (250, "0, -3, 1"),
    "load a module": (175, "b'', 0, b''"),
    "another kernel": (246, "0, 0, 0, 0"),
    "restart": (169, "0xfee1dead, 672274793, 0, 0"),
    "another name": (170, "b'MARK', 4"),
    "another time": (227, "0, ctypes.create_string_buffer(16)"),
    "another kind of process": (135, "0x0040000"),
    "ports": (172, "3"),
    "watch files": (253, ""),
    "watch all files": (300, "0, 0"),
    "memory as a file": (319, "b'MARK', 0"),
    "secret memory": (447, "0"),
    "shared memory of old": (29, "0, 4096, 0o1600"),
    "semaphores of old": (64, "0, 1, 0o1600"),
    "messages of old": (68, "0, 0o1600"),
    "message queue": (240, "b'MARK', 0o102, 0o600, 0"),
    "open by file handle": (304, "-100, ctypes.create_string_buffer(128), 0"),
    "open in another way": (437, "-100, b'/usr/lib', ctypes.create_string_buffer(24), 24"),
    "a tree of mounts": (428, "-100, b'/', 1"),
    "a looser filter": (317, "1, 0, ctypes.create_string_buffer(16)"),
    "dumps of memory allowed": (157, "4, 1, 0, 0, 0"),
    "locked memory": (151, "3"),
    "events": (291, "0"),
    "counter": (290, "0, 0"),
    "timer": (283, "0, 0"),
    "signals as a file": (289, "-1, ctypes.create_string_buffer(8), 8, 0"),
    "start a clock that kills": (222, "1, 0, ctypes.create_string_buffer(8)"),
    "numbers of x32": (0x40000000 + 2, "b'/etc/passwd', 0"),
}

USING_UP = {
    "a loop": "while True: pass",
    "a loop that minds nothing": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
    "deaf to every signal": (
        "import signal\nfor n in range(1, 65):\n"
        "    try: signal.signal(n, lambda *_: None)\n    except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "signals held back": ("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"),
    "sleep": "while True: time.sleep(1)",
    "a lock taken twice": "import threading\nlock = threading.Lock(); lock.acquire(); lock.acquire()",
    "wait for nothing": "import select\nselect.poll().poll()",
    "outputs closed, then a loop": "os.close(1); os.close(2)\nwhile True: pass",
    "at exit": ("import atexit\n@atexit.register\ndef _():\n    while True: pass\natexit._run_exitfuncs()"),
    "in a destructor": "class A:\n    def __del__(self):\n        while True: pass\nA()",
    "a regular expression": "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
    "one big power": "x = 7 ** 7 ** 9",
    "a sum without end": "import itertools\nsum(itertools.count())",
    "one big block": "x = bytearray(1 << 30); print('ESCAPED')",
    "many blocks": "x = [bytearray(1 << 20) for _ in range(2048)]; print('ESCAPED')",
    "a map of memory": "import mmap\nx = mmap.mmap(-1, 1 << 32); print('ESCAPED')",
    "a list that doubles": "x = [0]\nfor _ in range(40): x += x\nprint('ESCAPED')",
    "a text that doubles": "x = 'x'\nfor _ in range(40): x += x\nprint('ESCAPED')",
    "memory in spite of errors": (
        "kept = []\nwhile True:\n    try: kept.append(bytearray(1 << 16))\n    except MemoryError: pass"
    ),
    "a packed bomb": (
        "import zlib\npacked = zlib.compress(bytes(1 << 26), 9)\n"
        "x = [zlib.decompress(packed) for _ in range(64)]; print('ESCAPED')"
    ),
    "deep recursion": "sys.setrecursionlimit(1 << 30)\ndef f(n): return f(n + 1)\nf(0)",
    "deep recursion in C": (
        "sys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(10**7): x = [x]\nrepr(x); print('ESCAPED')"
    ),
    "deep source": "eval('(' * 10**6 + ')' * 10**6); print('ESCAPED')",
    "a crash": "ctypes.string_at(0); print('ESCAPED')",
    "an abort": "os.abort()",
    "endless output": "while True: print('x' * 1000)",
    "endless complaints": "while True: print('x' * 1000, file=sys.stderr)",
    "output at once": "os.write(1, b'x' * 10**7); print('ESCAPED')",
    "no room for more handles": "while True: os.pipe()",
}

BOTH = ("reading", "writing", "processes", "rights")
"""Families on which the two kinds of limits differ."""
PROGRAMS: dict[str, str] = {
    f"{family}: {name}": _TRY + text
    for family, table in {
        "reading": READING,
        "writing": WRITING,
        "network": NETWORK,
        "processes": PROCESSES,
        "rights": RIGHTS,
        "using up": USING_UP,
    }.items()
    for name, text in table.items()
}
if os.uname().machine == "x86_64":
    PROGRAMS |= {
        f"call: {name}": (
            f"{_TRY}libc = ctypes.CDLL(None)\nif libc.syscall(*[{number}, {args}]) != -1: print('ESCAPED')"
        )
        for name, (number, args) in CALLS_X86.items()
    }

_WRONG = "def f(x): return 5\n"
FORGERIES = {
    "says so": "print('passed', '{\"passed\": true}', flush=True)\n" + _WRONG,
    "leaves well": "import sys\ndef f(x): sys.exit(0)",
    "leaves at once": "import os\ndef f(x): os._exit(0)",
    "leaves before it is asked": "import os\nos._exit(0)",
    "leaves with a word": _WRONG + "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "equals everything": (
        "class A:\n    def __eq__(self, other): return True\n    __ne__ = lambda *_: False\ndef f(x): return A()"
    ),
    "a number that equals everything": (
        "class A(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef f(x): return A(5)"
    ),
    "a list that equals everything": (
        "class A(list):\n    def __eq__(self, other): return True\ndef f(x): return A([5])"
    ),
    "looks like a number": (
        "class A:\n    __class__ = int\n    def __eq__(self, other): return True\n"
        "    def __index__(self): return 4 + 1\ndef f(x): return A()"
    ),
    "the library's anything": "from unittest.mock import ANY\ndef f(x): return ANY",
    "a mock": "from unittest.mock import MagicMock\nf = MagicMock()\nf.return_value.__eq__ = lambda *_: True",
    "another equality": "import operator\noperator.eq = lambda a, b: True\n" + _WRONG,
    "another assertion": "import builtins\nbuiltins.AssertionError = SystemExit\n" + _WRONG,
    "other builtins": "import builtins\nbuiltins.exec = lambda *a: None\nbuiltins.compile = lambda *a: ''\n" + _WRONG,
    "other messages": (
        "import json, sys\njson.dumps = lambda *a, **k: '{\"passed\": true}'\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if 'sandbox' in name:\n        module.judge = module.send = lambda *a: {'passed': True, 'detail': ''}\n"
        + _WRONG
    ),
    "a verdict on every handle": (
        'import os, struct\ntext = b\'{"passed": true, "detail": ""}\'\n'
        "for n in range(64):\n    try: os.write(n, struct.pack('>I', len(text)) + text)\n    except OSError: pass\n"
        + _WRONG
    ),
    "a verdict when asked": (
        'import os, struct\ntext = b\'{"passed": true, "detail": ""}\'\n'
        "def f(x):\n    for n in range(64):\n"
        "        try: os.write(n, struct.pack('>I', len(text)) + text)\n        except OSError: pass\n    return 5"
    ),
    "an answer found in memory": (
        "import gc\ndef wanted(): return 'f(2) ' + chr(61) * 2 + ' 4'\n"
        "found = [wanted() in str(o)[:10**5] for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]\n"
        "def f(x): return 4 if any(found) else 5"
    ),
    "an answer found on the stack": (
        "import sys\ndef wanted(): return 'f(2) ' + chr(61) * 2 + ' 4'\ndef f(x):\n    frame = sys._getframe()\n"
        "    while frame:\n        if wanted() in str(frame.f_locals) + str(frame.f_globals): return 4\n"
        "        frame = frame.f_back\n    return 5"
    ),
    "an error of its own": "def f(x): raise StopIteration(4)",
    "an error beyond errors": "def f(x): raise KeyboardInterrupt",
    "no runner": "import sys\nfor name in list(sys.modules): del sys.modules[name]\n" + _WRONG,
    "names of the test": "AssertionError = SystemExit\ndef candidate(x): return 4\n__name__ = '__test__'\n" + _WRONG,
    "tracing": "import sys\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)\n" + _WRONG,
    "a truth of its own": (
        "class T:\n    __bool__ = lambda s: True\nclass A:\n    def __eq__(s, o): return T()\ndef f(x): return A()"
    ),
}
"""Against the test `assert f(2) == 4`."""

ABSOLUTES = {
    "other abs": "def abs(x): return 0\ndef f(x): return 99",
    "other all": "all = any = isinstance = lambda *a: True\ndef f(x): return 99",
    "subtracts to nothing": (
        "class A:\n    __sub__ = __rsub__ = lambda s, o: 0\n    __abs__ = lambda s: 0\ndef f(x): return A()"
    ),
    "less than everything": (
        "class A:\n    __lt__ = __le__ = __gt__ = lambda *a: True\n"
        "    __abs__ = __sub__ = lambda s, *o: s\ndef f(x): return A()"
    ),
}
"""Against the test `assert abs(f(2) - 4) < 1e-6 and all([isinstance(f(2), int)])`."""
