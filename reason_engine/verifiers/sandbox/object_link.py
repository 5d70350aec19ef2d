"""The connection between the judge, which runs the tests, and the code under test: two processes, one conversation.

Plain values are copied; of any other object the other side gets a `Remote`, whose calls, items and attributes are asked
for over a pipe. Both sides may ask while they wait for an answer, so a test may pass a function of its own.

The code cannot reach the verdict: the judge runs in a process of its own and serves nothing but calls of functions that
a test passed; and a `Remote` can neither be compared nor combined with plain data, so an object that says it equals
everything is equal to nothing that a test expects. Two objects of the code's own classes are compared by the code, as
they must be.
"""

from __future__ import annotations

import builtins
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

from reason_engine.verifiers.sandbox.protocol import pack, receive, send, unpack

COMPARISONS = "eq ne lt le gt ge"
BINARY = f"{COMPARISONS} add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift"
UNARY = "getitem setitem delitem neg pos abs invert"
BUILTIN = "len iter next str repr hash bool int float"
OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in f"{BINARY} {UNARY}".split()},
    **{name: getattr(builtins, name) for name in BUILTIN.split()},
    "call": lambda function, *args, **named: function(*args, **named),
    "get": getattr,
    "set": setattr,
    "isinstance": lambda kind, value: isinstance(value, kind),
    "issubclass": lambda kind, value: issubclass(value, kind),
}
MUTABLE = (list, dict, set, bytearray)


class Link:
    """One end. `serves_all`: the code's end, which does whatever it is asked; the judge's only calls functions."""

    def __init__(self, reader: int, writer: int, *, serves_all: bool) -> None:
        self.reader, self._writer, self._serves_all = reader, writer, serves_all
        self._own: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._remotes: dict[int, Remote] = {}
        self.raised: dict[str, type[Exception]] = {}
        """Exceptions of the code's own, by name, as the judge raises them."""

    def ask(self, operation: str, remote: int, *args: Any, **named: Any) -> Any:
        """Have the other side do it. Raises what it raised there, EOFError where it is gone."""
        library = not self._serves_all  # a test may say `apply(len, ...)`; the code may not answer so
        self._send("ask", operation, remote, *(pack(part, self.refer, library) for part in (args, named)))
        while True:
            kind, *rest = receive(self.reader)
            if kind == "ask":
                self._serve(*rest)
            elif kind == "value":
                value, changed = rest
                _copy_back(args, [self._unpack(item) for item in changed])
                return self._unpack(value)
            else:
                raise self._error(*rest)

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            kind, *rest = receive(self.reader)
            if kind != "ask":
                raise ValueError(f"unexpected {kind!r}")
            self._serve(*rest)

    def unpack_names(self, data: Any) -> Any:
        """Values of the code's module; what it imported from the standard library is this process's own."""
        return unpack(data, self._resolve, True)

    def refer(self, value: Any) -> list[Any]:
        """The reference to an object: whose it is, as the reader sees it, and its number there."""
        if isinstance(value, Remote):
            return ["yours", object.__getattribute__(value, "_number")]
        if not self._serves_all and not isinstance(value, types.FunctionType):
            raise TypeError(f"a test can hand over plain data and functions, not {type(value).__name__}")
        if id(value) not in self._numbers:
            number = self._numbers[id(value)] = len(self._own)
            self._own[number] = value
        return ["mine", self._numbers[id(value)]]

    def _resolve(self, reference: Any) -> Any:
        owner, number = reference
        if owner == "yours":
            return self._own[number]
        if number not in self._remotes:
            self._remotes[number] = Remote(self, number)
        return self._remotes[number]

    def _pack(self, value: Any) -> Any:
        return pack(value, self.refer)

    def _unpack(self, data: Any) -> Any:
        return unpack(data, self._resolve, self._serves_all)

    def _serve(self, operation: str, number: int, args: Any, named: Any) -> None:
        try:
            target, args, named = self._own[number], self._unpack(args), self._unpack(named)
            if not self._serves_all and operation != "call":
                raise TypeError("a function of a test can only be called")
            value = OPERATIONS[operation](target, *args, **named)
            changed = [self._pack(item) if isinstance(item, MUTABLE) else None for item in args]
            reply = ("value", self._pack(value), changed)
        except Exception as error:  # whatever it is belongs to the side that asked
            base = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins").__name__
            try:
                args = self._pack(tuple(part for part in error.args if isinstance(part, str | int | float)))
            except (ValueError, TypeError, RecursionError):
                args = self._pack(())
            reply = ("raised", type(error).__name__, base, args)
        self._send(*reply)

    def _send(self, *message: Any) -> None:
        send(self._writer, message)

    def _error(self, name: str, base: str, args: Any) -> Exception:
        kind = self.raised.get(name) or getattr(builtins, base, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = RuntimeError
        try:
            return kind(*self._unpack(args))
        except (TypeError, ValueError):
            return kind() if kind in (KeyError, IndexError) else RuntimeError(f"{name}")


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
        return iter(found) if isinstance(found := _ask(self, "iter"), MUTABLE) else found

    def __enter__(self) -> Any:
        return self.__getattr__("__enter__")()

    def __exit__(self, *why: Any) -> bool:
        return self.__getattr__("__exit__")(None, None, None) is True

    def __instancecheck__(self, value: Any) -> bool:
        return _is_remote(value) and _ask(self, "isinstance", value) is True

    def __subclasscheck__(self, value: Any) -> bool:
        return _is_remote(value) and _ask(self, "issubclass", value) is True


def _is_remote(value: Any) -> bool:
    """Whether it belongs to the other process, whatever its own `__class__` claims."""
    return type(value) is Remote


def _ask(remote: Remote, operation: str, *args: Any, **named: Any) -> Any:
    link: Link = object.__getattribute__(remote, "_link")
    return link.ask(operation, object.__getattribute__(remote, "_number"), *args, **named)


def _unary(name: str) -> Callable[..., Any]:
    return lambda self, *args: _ask(self, name, *args)


def _binary(name: str) -> Callable[[Remote, Any], Any]:
    compares = name in COMPARISONS.split()

    def combined(self: Remote, other: Any) -> Any:
        if not _is_remote(other):
            return NotImplemented
        value = _ask(self, name, other)
        return value is True if compares else value

    return combined


def _copy_back(args: tuple[Any, ...], changed: list[Any]) -> None:
    """What the other side did to lists, dictionaries and sets that it was given."""
    for here, there in zip(args, changed, strict=False):
        if isinstance(here, list | bytearray) and isinstance(there, list | bytearray):
            here[:] = there
        elif isinstance(here, dict | set) and type(here) is type(there):
            here.clear()
            here.update(there)


for _name in BINARY.split():
    setattr(Remote, f"__{_name.rstrip('_')}__", _binary(_name))
for _name in (*UNARY.split(), *(set(BUILTIN.split()) - {"iter", "hash", "bool"})):
    setattr(Remote, f"__{_name}__", _unary(_name))
