"""JSON Lines files that grow while a run goes on: one object a line, written at once, so that a kill loses none.

A line that a kill cut short has no newline at its end; whoever reads says what becomes of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Line:
    """`number` counts from 1; `start` is the place of its first byte."""

    number: int
    start: int
    data: bytes

    def value(self) -> Any:
        """Raises ValueError where it is not JSON."""
        return json.loads(self.data)


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Every method opens the file anew and raises OSError as the system does. `escape`: characters beyond ASCII are
    written as JSON escapes."""

    path: Path
    escape: bool = False

    def append(self, *rows: Mapping[str, Any]) -> int:
        """Add the rows in one write, so that runs at the same time do not mix their lines. The place of the first."""
        with self.path.open("ab") as file:
            start = file.tell()
            file.write(self._encoded(rows))
        return start

    def rewrite(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put these rows in place of all, whole or not at all."""
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            fresh.write_bytes(self._encoded(rows))
            os.replace(fresh, self.path)
        finally:
            fresh.unlink(missing_ok=True)

    def lines(self, unfinished: Literal["skip", "cut", "read"] = "skip") -> Iterator[Line]:
        """All lines in order. A last one without a newline is skipped, cut off the file, or read like the rest, as in a
        file written by hand."""
        start = 0
        with self.path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if data.endswith(b"\n") or unfinished == "read":
                    yield Line(number, start, data)
                elif unfinished == "cut":
                    os.truncate(self.path, start)
                start += len(data)

    def value_at(self, start: int) -> Any:
        """What the line says that begins at this place."""
        with self.path.open("rb") as file:
            file.seek(start)
            return json.loads(file.readline())

    def _encoded(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        text = "".join(json.dumps(row, ensure_ascii=self.escape) + "\n" for row in rows)
        return text.encode("utf-8", "surrogatepass")
