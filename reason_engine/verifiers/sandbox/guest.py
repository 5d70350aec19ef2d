"""What the locked-in processes do: run a program on an input, offer a module to a judge, or be that judge.

The judge and the code under test are two processes. The code never sees a test, what it expects, or the verdict.
"""

from __future__ import annotations

import builtins
import sys
import types
from typing import Any

from reason_engine.verifiers.sandbox.object_link import Link
from reason_engine.verifiers.sandbox.protocol import pack, receive, send

FILE = "<text>"
"""The file name of programs and tests in their tracebacks."""
LONGEST_ERROR = 300


def run_program(source: str) -> int:
    """Run it as a script; returns its exit status."""
    try:
        _execute(source, "__main__")
    except SystemExit as leaving:
        code = leaving.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
        return code if isinstance(code, int) else int(code is not None)
    except BaseException as error:
        print(explain(error), file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()
    return 0


def offer_module(source: str, reader: int, writer: int) -> None:
    """Run it as a module, send the judge its public names, do what the judge asks until the judge is gone."""
    link = Link(reader, writer, serves_all=True)
    try:
        public = {name: value for name, value in _execute(source, "answer").items() if not name.startswith("__")}
        exceptions = {name: _builtin_base(kind) for name, kind in public.items() if _own_exception(kind)}
        packed: dict[str, Any] = {}
        for name, value in public.items():
            if name not in exceptions:
                packed[name] = pack(value, link.refer, True)
        send(writer, ["module", packed, exceptions])
    except BaseException as error:
        send(writer, ["failed", explain(error)])
        return
    link.serve()


def judge(test: dict[str, Any], entry_point: str | None, reader: int, writer: int) -> dict[str, Any]:
    """Run one test against the module at the other end: {"passed", "detail"}."""
    try:
        names = _names(Link(reader, writer, serves_all=False), entry_point)
        if "check" in test:
            _check(test["check"], entry_point, names)
        else:
            got = names[str(entry_point)](*test["input"])
            if not _same(got, test["output"]):
                return {"passed": False, "detail": f"returned {got!r:.80}, not {test['output']!r:.80}"}
    except BaseException as error:  # the verdict on whatever happened is that the test failed
        gone = isinstance(error, EOFError | BrokenPipeError)
        return {"passed": False, "detail": "the program ended" if gone else explain(error)}
    return {"passed": True, "detail": ""}


def explain(error: BaseException) -> str:
    """An error in one line, with the line of the program or test that raised it."""
    line, frame = 0, error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == FILE:
            line = frame.tb_lineno
        frame = frame.tb_next
    where = f" (line {line})" if line else ""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:LONGEST_ERROR] + where


def _names(link: Link, entry_point: str | None) -> dict[str, Any]:
    """What a test finds defined: the module's names, unless they would hide a builtin."""
    kind, *rest = receive(link.reader)
    if kind != "module":
        raise RuntimeError(str(rest[0]))
    packed, exceptions = rest
    for name, base in exceptions.items():
        parent = getattr(builtins, base, Exception)
        if isinstance(parent, type) and issubclass(parent, Exception):
            link.raised[name] = type(name, (parent,), {})
    found = {
        name: link.unpack_names(data)
        for name, data in packed.items()
        if name == entry_point or not hasattr(builtins, name)
    }
    found.update({name: kind for name, kind in link.raised.items() if not hasattr(builtins, name)})
    if entry_point is not None:
        if entry_point not in found:
            raise NameError(f"the program defines no {entry_point!r}")
        found["candidate"] = found[entry_point]
    return found


def _check(text: str, entry_point: str | None, names: dict[str, Any]) -> None:
    space = {"__name__": "__test__", "__builtins__": builtins, **names}
    exec(compile(text, FILE, "exec"), space)
    check = space.get("check")  # tests in the style of HumanEval define a function of the candidate
    called = any(line.startswith("check(") for line in text.splitlines())
    if entry_point is not None and isinstance(check, types.FunctionType) and not called:
        check(names["candidate"])


def _same(got: Any, wanted: Any) -> bool:
    """Equality of JSON's values, where a tuple is a list."""
    if isinstance(got, list | tuple) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(_same(a, b) for a, b in zip(got, wanted, strict=True))
    if isinstance(got, dict) and isinstance(wanted, dict):
        keyed = {key if isinstance(key, str) else str(key): value for key, value in got.items()}
        return keyed.keys() == wanted.keys() and all(_same(keyed[key], wanted[key]) for key in wanted)
    return isinstance(got, bool) == isinstance(wanted, bool) and bool(got == wanted)


def _execute(source: str, name: str) -> dict[str, Any]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, FILE, "exec"), module.__dict__)
    return module.__dict__


def _own_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception) and value.__module__ != "builtins"


def _builtin_base(kind: type) -> str:
    return next(parent.__name__ for parent in kind.__mro__ if parent.__module__ == "builtins")
