"""Values of Python as JSON, for two processes that do not trust each other: plain data is copied, and nothing is
ever executed in order to read it.

Containers and what JSON lacks are one-key objects: `{"l": [...]}` a list, `{"i": "-ff"}` a large integer. Subclasses
of plain types arrive as the plain type, read by that type's own methods, so that no method of theirs decides what they
are equal to. What is no data is left to `other`, and arrives through `others`. Functions of the standard library go
by name only where `library` is set: a judge who called one that the code chose would do the code's will.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

SMALL = 1 << 53
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


def pack(value: Any, other: Callable[[Any], Any], library: bool = False) -> Any:
    """`value` as JSON data. Raises RecursionError for what contains itself."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        plain = int.__index__(value)
        return plain if -SMALL < plain < SMALL else {"i": hex(plain)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return {"s": str.encode(value, "utf-8", "surrogatepass").hex()} if _odd(value) else str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return {"y" if isinstance(value, bytes) else "a": bytes(value).hex()}
    for tag, kind in CONTAINERS.items():
        if isinstance(value, kind):
            return {tag: [pack(item, other, library) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {
            "d": [[pack(key, other, library), pack(item, other, library)] for key, item in dict.items(value)]
        }
    home = (type(value).__module__, type(value).__qualname__)
    if home in BUILT and getattr(value, "tzinfo", None) is None:
        parts: list[Any] = [getattr(value, name) for name in BUILT[home].split()]
        made: list[Any] = [part() if callable(part) else part for part in parts]
        if home[1] == "deque":
            made[0] = list(made[0])
        return {"b": [home, [pack(part, other, library) for part in made]]}
    if (name := library_name(value)) is not None and (library or _plain_class(value)):
        return {"n": name}
    return {"o": other(value)}


def unpack(data: Any, others: Callable[[Any], Any], library: bool = False) -> Any:
    """The value. Raises ValueError, TypeError or LookupError for what `pack` would not have made."""
    if not isinstance(data, dict):
        if isinstance(data, list):
            raise ValueError("a bare list")
        return data
    ((tag, body),) = data.items()
    if tag in CONTAINERS:
        return CONTAINERS[tag](unpack(item, others, library) for item in body)
    if tag == "d":
        return {unpack(key, others, library): unpack(item, others, library) for key, item in body}
    if tag == "i":
        return int(body, 16)
    if tag in "sya":
        raw = bytes.fromhex(body)
        return raw.decode("utf-8", "surrogatepass") if tag == "s" else raw if tag == "y" else bytearray(raw)
    if tag == "b":
        (module, name), parts = body
        if (module, name) not in BUILT:
            raise LookupError(f"{name} is not rebuilt")
        return from_library(module, name)(*(unpack(part, others, library) for part in parts))
    if tag == "n":
        found = from_library(*body)
        if not (library or _plain_class(found)):
            raise LookupError(f"{body} is not taken from the other side")
        return found
    if tag == "o":
        return others(body)
    raise ValueError(f"unknown tag {tag!r}")


def library_name(value: Any) -> list[str] | None:
    """Module and name of a function or class of the standard library, or of a module of it (name empty)."""
    if type(value) is type(sys):
        name = value.__name__
        return [name, ""] if _known(name) and sys.modules.get(name) is value else None
    if not (isinstance(value, type) or type(value) in FUNCTIONS):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not (isinstance(module, str) and isinstance(name, str) and _known(module)) or "." in name:
        return None
    return [module, name] if getattr(sys.modules.get(module), name, None) is value else None


def from_library(module: str, name: str) -> Any:
    """This process's own copy. Raises LookupError for what is no part of the standard library."""
    if not _known(module):
        raise LookupError(f"{module} is not in the standard library")
    found = __import__(module, fromlist=["*"])
    return getattr(found, name) if name else found


def _plain_class(value: Any) -> bool:
    return isinstance(value, type) and value.__module__ == "builtins" and value is not type


def _known(module: str) -> bool:
    head = module.partition(".")[0]
    return head in sys.stdlib_module_names and head not in ("__main__", "antigravity", "this", "idlelib")


def _odd(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


FUNCTIONS = (type(len), type(_odd))
