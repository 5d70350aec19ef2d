"""Names to classes: folders of modules that register themselves, and entry points in the first folder's group.

A folder's own packages count as one module each. Adding an entry touches one file. Nothing is imported before the
first lookup, so that `reason --help` stays quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Container, Iterator
from types import ModuleType
from typing import Generic, TypeVar, cast

from reason_engine.errors import UnknownName

T = TypeVar("T")
C = TypeVar("C")


def import_folder(package: str, besides: Container[str] = ()) -> list[ModuleType]:
    """Every public module right inside a package, imported; a package inside it counts as one module."""
    found = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    names = [name for name in found if not name.startswith("_") and name not in besides]
    return [importlib.import_module(f"{package}.{name}") for name in names]


class Registry(Generic[T]):
    """Registered classes by name. `kind` is the word used in messages (`strategy`), `packages` the folders searched;
    the first one names the entry-point group."""

    def __init__(self, kind: str, *packages: str) -> None:
        self.kind, self.packages = kind, packages
        self._found: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Class decorator. Raises ValueError if the name is taken."""

        def add(cls: type[C]) -> type[C]:
            if name in self._found:
                raise ValueError(f"{self.kind} {name!r} is defined twice: {self._found[name]} and {cls}")
            self._found[name] = cast(type[T], cls)  # the class keeps its own type for those who import it
            return cls

        return add

    def get(self, name: str, *, param: str | None = None) -> type[T]:
        """The class of that name. Raises UnknownName with the nearest valid name; `param` names the request field."""
        self._load()
        if name in self._found:
            return self._found[name]
        from difflib import get_close_matches

        near = get_close_matches(name, self._found, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(self)}"
        raise UnknownName(f"no {self.kind} named {name!r}; {hint}", param=param, code=f"unknown_{self.kind}")

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._found))

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        from importlib.metadata import entry_points  # slow to load, and no command needs it to show its help

        for package in self.packages:
            import_folder(package)
        for point in entry_points(group=self.packages[0]):
            point.load()
