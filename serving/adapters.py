"""The adapters that clients may name, loaded and unloaded while the server runs.

A request holds the version that it began with: one that is unloaded or replaced takes no new requests, and the engine
lets go of it when the last request that runs with it has ended. So no answer mixes two versions. In the engine every
version has a name of its own, which keys its prefixes.

Of what `POST /v1/adapters` names, nothing outside the folders of the setting `adapters_dir` is opened, symbolic links
followed. What lies outside is refused in the same words whether it is there or not.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from reason_engine.contracts import Engine
from reason_engine.engines.checkpoint.adapter_files import CONFIG, WEIGHTS
from reason_engine.errors import ModelLoadError, UnknownModel
from reason_engine.profile import FILE, Profile, read_profile
from reason_engine.serving.api.errors import FINAL, Refused, invalid
from reason_engine.strategies import strategies

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
LONGEST = 128


@dataclass(eq=False, slots=True)
class AdapterVersion:
    """One version. `name` is the engine's for it, None the base model; `profile` None: that of the base."""

    name: str | None = None
    profile: Profile | None = None
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


BASE = AdapterVersion()
"""The base model: always there, so nobody counts its users."""


class Adapters:
    """Those of one engine, by the names that clients use."""

    def __init__(self, engine: Engine) -> None:
        """Those that the engine has already are taken over."""
        self._engine = engine
        self.loaded = {name: AdapterVersion(name) for name in engine.adapters()}
        """The version that each name stands for now, in the order in which they were loaded."""
        self._pending: set[str] = set()
        self._versions = count(2)

    @contextmanager
    def use(self, name: str) -> Generator[AdapterVersion]:
        """The version that this name stands for now, kept until the block ends. Raises UnknownModel."""
        one = self._found(name, "model")
        one.users += 1
        one.idle.clear()
        try:
            yield one
        finally:
            one.users -= 1
            if not one.users:
                one.idle.set()

    async def load(self, name: str, folder: Path, base: str, *, replace: bool = False) -> None:
        """Load a folder; `base` is the served model's own name. With `replace` a loaded one of that name makes way, and
        this returns when it has. Raises RequestError kinds that name the field."""
        check_name(name, base)
        if name in self._pending:
            raise _conflict(f"name: {name!r} is being loaded right now", "adapter_loading")
        if name in self.loaded and not replace:
            why = f"name: an adapter {name!r} is loaded; unload it first, or send replace: true"
            raise _conflict(why, "adapter_already_loaded")
        self._pending.add(name)
        try:
            profile = await asyncio.to_thread(read_profile, folder) if (folder / FILE).is_file() else None
            fresh = AdapterVersion(self._engine_name(name), profile)
            assert fresh.name is not None
            await self._engine.load_adapter(fresh.name, str(folder))
        except ModelLoadError as error:
            raise invalid("path", str(error), "invalid_adapter") from None
        finally:
            self._pending.discard(name)
        before, self.loaded[name] = self.loaded.get(name), fresh
        if before is not None:
            await self._retire(before)

    async def unload(self, name: str) -> None:
        """Take no new requests for it; returns when the running ones have ended and it is gone. Raises UnknownModel."""
        one = self._found(name, "name")
        del self.loaded[name]
        await self._retire(one)

    async def _retire(self, one: AdapterVersion) -> None:
        assert one.name is not None
        if one.users:
            await one.idle.wait()
        await self._engine.unload_adapter(one.name)

    def _found(self, name: str, param: str) -> AdapterVersion:
        if name not in self.loaded:
            raise UnknownModel(f"no adapter named {name[:LONGEST]!r} is loaded", param=param, code="model_not_found")
        return self.loaded[name]

    def _engine_name(self, name: str) -> str:
        """The name itself; while a version of before still runs, one with a number."""
        taken = self._engine.adapters()
        if name not in taken:
            return name
        return next(f"{name}@{n}" for n in self._versions if f"{name}@{n}" not in taken)


def check_name(name: str, base: str) -> None:
    """Raises RequestError for a name that could not be asked for, or that means something else already."""
    if len(name) > LONGEST or not NAME.fullmatch(name):
        rule = f"letters, digits and . _ - (one / between them), {LONGEST} at most; `:` is kept for model:strategy"
        raise invalid("name", f"{name[:LONGEST]!r}: {rule}")
    if name == base or name in strategies:
        kind = "the served model" if name == base else "a strategy"
        raise invalid("name", f"{name!r} is {kind}")


def _conflict(message: str, code: str) -> Refused:
    """409, which clients would try again by themselves."""
    return Refused(409, message, code, param="name", headers=FINAL)


def allowed_folder(path: str, roots: Sequence[Path]) -> Path:
    """The folder, links resolved. Raises RequestError kinds (403 outside `roots`, 404 where there is none)."""
    if not roots:
        why = "path: this server loads no adapters while it runs; start it with --adapters-dir DIR"
        raise Refused(403, why, "adapters_disabled", param="path")
    try:
        homes = [root.resolve() for root in roots]
        found = [target for home in homes if (target := (home / path).resolve()).is_relative_to(home)]
        folder = next((target for target in found if target.is_dir()), None)
    except (OSError, RuntimeError, ValueError):  # too long, a circle of links, a zero byte
        raise invalid("path", "not a path") from None
    if not found:
        raise Refused(403, "path: not below an allowed folder (adapters_dir)", "path_not_allowed", param="path")
    if folder is None:
        raise Refused(404, f"path: no folder {path[:200]!r} there", "adapter_not_found", param="path")
    for name in (CONFIG, WEIGHTS, FILE):
        _check_file(folder / name, homes)
    return folder


def _check_file(file: Path, homes: Sequence[Path]) -> None:
    """A plain file inside, or none at all: a link out is not followed, and a pipe would never end."""
    if not os.path.lexists(file):
        return
    try:
        real = file.resolve()
    except (OSError, RuntimeError):
        real = file
    if not any(real.is_relative_to(home) for home in homes):
        raise Refused(403, f"path: {file.name} is a link out of the allowed folders", "path_not_allowed", param="path")
    if not real.is_file():
        raise invalid("path", f"{file.name} is not a plain file", "invalid_adapter")
