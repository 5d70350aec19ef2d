"""What processes that do not trust each other exchange: messages on a pipe, and Python values as JSON in them.

A message is four bytes of length, then JSON. Nothing is ever executed in order to read one.

Plain values are copied. Containers and what JSON lacks are one-key objects: `{"l": [...]}` a list, `{"i": "-ff"}` a
large integer. Subclasses of plain types arrive as the plain type, read by that type's own methods, so that no method
of theirs decides what they are equal to. Any other object is sent as a reference, made by `refer` and read by
`resolve`. Functions of the standard library go by name only where `library` is set: a judge that called one chosen by
the code under test would act for that code.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

LARGEST = 1 << 24
"""Bytes of one message."""
SMALL = 1 << 53
"""Integers below are the same in every reader of JSON."""
BUILT = {
    ("builtins", "complex"): "real imag",
    ("builtins", "range"): "start stop step",
    ("fractions", "Fraction"): "numerator denominator",
    ("decimal", "Decimal"): "__str__",
    ("collections", "deque"): "__iter__ maxlen",
    ("datetime", "date"): "year month day",
    ("datetime", "time"): "hour minute second microsecond",
    ("datetime", "timedelta"): "days seconds microseconds",
    ("datetime", "datetime"): "year month day hour minute second microsecond",
}
"""Values of the library, by exact type, and the attributes that rebuild them (times without a zone)."""
CONTAINERS: dict[str, Any] = {"l": list, "t": tuple, "e": set, "f": frozenset}


def encode(message: Any) -> bytes:
    """A message as bytes. Raises ValueError, TypeError or RecursionError for what is no data, or too much of it."""
    text = json.dumps(message).encode()
    if len(text) > LARGEST:
        raise ValueError("a value of more than 16 MB")
    return struct.pack(">I", len(text)) + text


def send(handle: int, message: Any) -> None:
    """Write one whole message."""
    left = memoryview(encode(message))
    while left:
        left = left[os.write(handle, left) :]


def receive(handle: int) -> Any:
    """The next message. Raises EOFError at the end, ValueError for what is no message."""
    head = _read_exactly(handle, 4)
    size = int.from_bytes(head)
    return decode(head + _read_exactly(handle, size) if size <= LARGEST else head)


def decode(data: bytes) -> Any:
    """The message that these bytes begin with. Raises what `receive` raises."""
    size = int.from_bytes(data[:4])
    if size > LARGEST:
        raise ValueError("a message of more than 16 MB")
    if len(data) < 4 + size:
        raise EOFError("the other end is closed")
    return json.loads(data[4 : 4 + size])


def pack(value: Any, refer: Callable[[Any], Any], library: bool = False) -> Any:
    """`value` as JSON data. Raises RecursionError for what contains itself."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        plain = int.__index__(value)
        return plain if -SMALL < plain < SMALL else {"i": hex(plain)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        lone = any("\ud800" <= letter <= "\udfff" for letter in value)  # surrogates, which UTF-8 lacks
        return {"s": str.encode(value, "utf-8", "surrogatepass").hex()} if lone else str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return {"y" if isinstance(value, bytes) else "a": bytes(value).hex()}
    for tag, kind in CONTAINERS.items():
        if isinstance(value, kind):
            return {tag: [pack(item, refer, library) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[pack(part, refer, library) for part in pair] for pair in dict.items(value)]}
    home = (type(value).__module__, type(value).__qualname__)
    if home in BUILT and getattr(value, "tzinfo", None) is None:
        parts: list[Any] = [getattr(value, name) for name in BUILT[home].split()]
        made: list[Any] = [part() if callable(part) else part for part in parts]
        if home[1] == "deque":
            made[0] = list(made[0])
        return {"b": [home, [pack(part, refer, library) for part in made]]}
    if (name := _library_name(value)) is not None and (library or _is_builtin_class(value)):
        return {"n": name}
    return {"o": refer(value)}


def unpack(data: Any, resolve: Callable[[Any], Any], library: bool = False) -> Any:
    """The value. Raises ValueError, TypeError or LookupError for what `pack` would not have made."""
    if not isinstance(data, dict):
        if isinstance(data, list):
            raise ValueError("a bare list")
        return data
    ((tag, body),) = data.items()
    if tag in CONTAINERS:
        return CONTAINERS[tag](unpack(item, resolve, library) for item in body)
    if tag == "d":
        return {unpack(key, resolve, library): unpack(item, resolve, library) for key, item in body}
    if tag == "i":
        return int(body, 16)
    if tag in "sya":
        raw = bytes.fromhex(body)
        return raw.decode("utf-8", "surrogatepass") if tag == "s" else raw if tag == "y" else bytearray(raw)
    if tag == "b":
        (module, name), parts = body
        if (module, name) not in BUILT:
            raise LookupError(f"{name} is not rebuilt")
        return _from_library(module, name)(*(unpack(part, resolve, library) for part in parts))
    if tag == "n":
        found = _from_library(*body)
        if not (library or _is_builtin_class(found)):
            raise LookupError(f"{body} is not taken from the other side")
        return found
    if tag == "o":
        return resolve(body)
    raise ValueError(f"unknown tag {tag!r}")


def _read_exactly(handle: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(handle, min(size, 1 << 16))
        if not part:
            raise EOFError("the other end is closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _library_name(value: Any) -> list[str] | None:
    """Module and name of a function or class of the standard library, or of a module of it (name empty)."""
    if type(value) is type(sys):
        name = value.__name__
        return [name, ""] if _in_library(name) and sys.modules.get(name) is value else None
    if not (isinstance(value, type) or type(value) in FUNCTIONS):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not (isinstance(module, str) and isinstance(name, str) and _in_library(module)) or "." in name:
        return None
    return [module, name] if getattr(sys.modules.get(module), name, None) is value else None


def _from_library(module: str, name: str) -> Any:
    """This process's own copy. Raises LookupError for what is no part of the standard library."""
    if not _in_library(module):
        raise LookupError(f"{module} is not in the standard library")
    found = __import__(module, fromlist=["*"])
    return getattr(found, name) if name else found


def _is_builtin_class(value: Any) -> bool:
    return isinstance(value, type) and value.__module__ == "builtins" and value is not type


def _in_library(module: str) -> bool:
    head = module.partition(".")[0]
    return head in sys.stdlib_module_names and head not in ("__main__", "antigravity", "this", "idlelib")


FUNCTIONS = (type(len), type(_in_library))
