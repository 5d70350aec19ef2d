"""OUT and the files beside it that account for it; each takes its name only when it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from reason_engine.errors import SetupError


def beside(out: Path, name: str, suffix: str = ".jsonl") -> Path:
    """`rows.jsonl` -> `rows.dropped.jsonl`."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.{name}{suffix}")


class Outputs:
    """Rows to OUT, and to the files `names` beside it; `finish` writes the report and names them all."""

    def __init__(self, out: Path, names: Sequence[str], inputs: Sequence[Path]) -> None:
        """Raises SetupError where a file to be written is one of those that are read."""
        self._files = {"": out, **{name: beside(out, name) for name in names}}
        self._report = beside(out, "report", ".json")
        read = {path.resolve() for path in inputs}
        for path in (*self._files.values(), self._report):
            if path.resolve() in read:
                raise SetupError(f"OUT {out}: {path} is read, so it cannot be written")
        self._open: dict[str, IO[str]] = {}

    def __enter__(self) -> Self:
        try:
            for name, path in self._files.items():
                self._open[name] = _part(path).open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            self.__exit__(None, None, None)
            raise SetupError(f"OUT {error.filename}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, file in self._open.items():
            file.close()
            _part(self._files[name]).unlink(missing_ok=True)
        if isinstance(error, OSError):  # the disk is full, or the folder was taken away
            raise SetupError(f"OUT {self._files['']}: {error.strerror}; nothing was kept") from None

    def keep(self, row: Mapping[str, Any]) -> None:
        """A row of OUT."""
        self.put("", row)

    def put(self, name: str, row: Mapping[str, Any]) -> None:
        self._open[name].write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self, report: Mapping[str, Any]) -> None:
        """The report, and every file under its name."""
        for name, file in self._open.items():
            file.close()
            os.replace(_part(self._files[name]), self._files[name])
        self._open.clear()
        text = json.dumps(report, indent=2, ensure_ascii=False)
        part = _part(self._report)
        part.write_text(text + "\n", "utf-8")
        os.replace(part, self._report)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
