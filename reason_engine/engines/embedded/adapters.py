"""Adapters by name: which are loaded, in which slot, and since when."""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from reason_engine.errors import UnknownModel

if TYPE_CHECKING:
    from reason_engine.engines.embedded.decoder import Decoder
    from reason_engine.engines.embedded.patch import Parts, Patch


@dataclass(frozen=True, slots=True)
class _Loaded:
    space: Hashable
    parts: Parts


class Adapters:
    """What is loaded, each in a slot; slot 0 is the base model. `patch` is None while nothing is.

    An adapter that is unloaded or replaced keeps its slot while rows still use it.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.patch: Patch | None = None
        self._slots: dict[int, _Loaded] = {}
        self._names: dict[str, int] = {}
        self._versions = count(1)

    def find(self, name: str | None) -> tuple[int, Hashable]:
        """Its slot, and what keys its prefixes (another after every load). Raises UnknownModel."""
        if name is None:
            return 0, 0
        if name not in self._names:
            raise UnknownModel(f"no adapter named {name!r} is loaded", param="model", code="model_not_found")
        slot = self._names[name]
        return slot, self._slots[slot].space

    def learned(self, slot: int) -> tuple[int, ...]:
        """The tokens that stand before every prompt of this slot."""
        table = self._slots[slot].parts.learned if slot else None
        first = self.decoder.shape.vocab
        return () if table is None else tuple(range(first, first + table.shape[0]))

    def load(self, name: str, path: Path, used: Set[int]) -> None:
        """Read a folder. Raises ModelLoadError naming the file. `used`: slots that rows depend on."""
        from reason_engine.engines.embedded.adapter_parts import read_parts

        parts = read_parts(self.decoder, path)
        slot = next(i for i in count(1) if i not in self._slots)
        self._slots[slot] = _Loaded((name, next(self._versions)), parts)
        self._names[name] = slot
        self._settle(used)

    def unload(self, name: str, used: Set[int]) -> None:
        """Forget a name. Raises UnknownModel."""
        self.find(name)
        del self._names[name]
        self._settle(used)

    def _settle(self, used: Set[int]) -> None:
        """Let go of slots that nobody needs."""
        from reason_engine.engines.embedded.patch import Patch

        kept = used | set(self._names.values())
        self._slots = {slot: one for slot, one in self._slots.items() if slot in kept}
        parts = {slot: one.parts for slot, one in self._slots.items()}
        self.patch = Patch(parts, self.decoder.device) if parts else None
