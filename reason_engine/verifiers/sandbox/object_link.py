"""Two processes hold one conversation about Python objects: the judge, who runs the tests, and the code under test.

Plain data is copied; of anything else the other side gets a `Remote`, whose calls, items and attributes are asked for
over a pipe. Both sides may ask while they wait for an answer, so a test may hand in a function of its own.

What keeps the verdict out of the code's reach: the judge runs in a process of its own and serves nothing but calls
of functions that a test handed over; and a `Remote` can neither be compared nor combined with plain data, so an
object that says it equals everything is equal to nothing that a test expects. Two objects of the code's own classes
are compared by the code, as they must be.
"""

from __future__ import annotations

import builtins
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

from reason_engine.verifiers.sandbox.frames import receive, send
from reason_engine.verifiers.sandbox.values import pack, unpack

COMPARING = "eq ne lt le gt ge"
PAIRWISE = f"{COMPARING} add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift"
SINGLE = "getitem setitem delitem neg pos abs invert"
BUILTIN = "len iter next str repr hash bool int float"
OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in PAIRWISE.split()},
    **{name: getattr(operator, name) for name in SINGLE.split()},
    **{name: getattr(builtins, name) for name in BUILTIN.split()},
    "call": lambda function, *args, **named: function(*args, **named),
    "get": getattr,
    "set": setattr,
    "isinstance": lambda kind, value: isinstance(value, kind),
    "issubclass": lambda kind, value: issubclass(value, kind),
}


class Link:
    """One end. `serves_all`: the code's end, which does whatever it is asked; the judge's only calls functions."""

    def __init__(self, reader: int, writer: int, *, serves_all: bool) -> None:
        self._reader, self._writer, self._serves_all = reader, writer, serves_all
        self._mine: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, Remote] = {}
        self.raised: dict[str, type[Exception]] = {}
        """Exceptions of the code's own, by name, as the judge knows them."""

    def ask(self, operation: str, remote: int, *args: Any, **named: Any) -> Any:
        """Have the other side do it. Raises what it raised there, EOFError where it is gone."""
        library = not self._serves_all  # a test may say `apply(len, ...)`; the code may not answer so
        sent = [pack(part, self._number, library) for part in (args, named)]
        self._send("ask", operation, remote, *sent)
        while True:
            kind, *rest = receive(self._reader)
            if kind == "ask":
                self._serve(*rest)
            elif kind == "value":
                value, changed = rest
                _put_back(args, [self.unpack(item) for item in changed])
                return self.unpack(value)
            else:
                raise self._error(*rest)

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            kind, *rest = receive(self._reader)
            if kind != "ask":
                raise ValueError(f"unexpected {kind!r}")
            self._serve(*rest)

    def pack(self, value: Any) -> Any:
        return pack(value, self._number)

    def unpack(self, data: Any) -> Any:
        return unpack(data, self._object, self._serves_all)

    def names(self, data: Any) -> Any:
        """The names of the code's module, those it imported from the standard library as this process's own."""
        return unpack(data, self._object, True)

    def _serve(self, operation: str, number: int, args: Any, named: Any) -> None:
        try:
            target, args, named = self._mine[number], self.unpack(args), self.unpack(named)
            if not self._serves_all and operation != "call":
                raise TypeError("a function of a test can only be called")
            value = OPERATIONS[operation](target, *args, **named)
            changed = [self.pack(item) if isinstance(item, CHANGING) else None for item in args]
            reply = ("value", self.pack(value), changed)
        except Exception as error:  # whatever it is belongs to the side that asked
            name = type(error).__name__
            base = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins").__name__
            try:
                args = self.pack(tuple(part for part in error.args if isinstance(part, str | int | float)))
            except (ValueError, TypeError, RecursionError):
                args = self.pack(())
            reply = ("raised", name, base, args)
        self._send(*reply)

    def _send(self, *message: Any) -> None:
        send(self._writer, message)

    def _error(self, name: str, base: str, args: Any) -> Exception:
        kind = self.raised.get(name) or getattr(builtins, base, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = RuntimeError
        try:
            return kind(*self.unpack(args))
        except (TypeError, ValueError):
            return kind() if kind in (KeyError, IndexError) else RuntimeError(f"{name}")

    def _number(self, value: Any) -> list[Any]:
        if isinstance(value, Remote):
            return ["yours", object.__getattribute__(value, "_number")]
        if not self._serves_all and not isinstance(value, types.FunctionType):
            raise TypeError(f"a test can hand over plain data and functions, not {type(value).__name__}")
        if id(value) not in self._numbers:
            number = self._numbers[id(value)] = len(self._mine)
            self._mine[number] = value
        return ["mine", self._numbers[id(value)]]

    def _object(self, data: Any) -> Any:
        whose, number = data
        if whose == "yours":
            return self._mine[number]
        if number not in self._theirs:
            self._theirs[number] = Remote(self, number)
        return self._theirs[number]


class Remote:
    """An object of the other process."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: Link, number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set", name, value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return _ask(self, "call", *args, **named)

    def __bool__(self) -> bool:
        return _ask(self, "bool") is True

    def __hash__(self) -> int:
        return hash(_ask(self, "hash"))

    def __contains__(self, wanted: Any) -> bool:
        return any(item is wanted or item == wanted for item in self)

    def __iter__(self) -> Iterator[Any]:
        return iter(found) if isinstance(found := _ask(self, "iter"), CHANGING) else found

    def __enter__(self) -> Any:
        return self.__getattr__("__enter__")()

    def __exit__(self, *why: Any) -> bool:
        return self.__getattr__("__exit__")(None, None, None) is True

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance_remote(value) and _ask(self, "isinstance", value) is True

    def __subclasscheck__(self, value: Any) -> bool:
        return isinstance_remote(value) and _ask(self, "issubclass", value) is True


def isinstance_remote(value: Any) -> bool:
    """Whether it belongs to the other process, whatever it says of itself."""
    return type(value) is Remote


def _ask(remote: Remote, operation: str, *args: Any, **named: Any) -> Any:
    link: Link = object.__getattribute__(remote, "_link")
    return link.ask(operation, object.__getattribute__(remote, "_number"), *args, **named)


def _add_operators() -> None:
    def single(name: str) -> Callable[..., Any]:
        return lambda self, *args: _ask(self, name, *args)

    def pair(name: str) -> Callable[[Remote, Any], Any]:
        def combined(self: Remote, other: Any) -> Any:
            return _ask(self, name, other) if isinstance_remote(other) else NotImplemented

        def compared(self: Remote, other: Any) -> Any:
            return _ask(self, name, other) is True if isinstance_remote(other) else NotImplemented

        return compared if name in COMPARING.split() else combined

    for name in PAIRWISE.split():
        setattr(Remote, f"__{name.rstrip('_')}__", pair(name))
    for name in [*SINGLE.split(), *set(BUILTIN.split()) - {"iter", "hash", "bool"}]:
        setattr(Remote, f"__{name}__", single(name))


def _put_back(args: tuple[Any, ...], changed: list[Any]) -> None:
    """What the other side did to lists, dictionaries and sets that it was given."""
    for mine, theirs in zip(args, changed, strict=False):
        if isinstance(mine, list | bytearray) and isinstance(theirs, list | bytearray):
            mine[:] = theirs
        elif isinstance(mine, dict | set) and type(mine) is type(theirs):
            mine.clear()
            mine.update(theirs)


CHANGING = (list, dict, set, bytearray)
_add_operators()
