"""The journal of a long run: one line for every finished attempt, written at once, so that a kill loses none of them.

The first line says what run it is; a run with another input, model or config does not go on with it. What comes out
(`OUT` and the files beside it) is made from the journal at the end, in the order of the plan: the same whatever the
concurrency and however often the run was broken off.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from reason_engine.errors import SetupError, first_error

T = TypeVar("T")


class Journal:
    """Finished attempts by key. `spent` are the tokens of all of them, of those that a budget cut as well."""

    def __init__(self, path: Path, head: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Raises SetupError where the file belongs to another run or is no journal."""
        self.path, self.spent, self._at = path, 0, dict[str, int]()
        try:
            if fresh:
                path.unlink(missing_ok=True)
            if path.exists():
                self._load(json.loads(json.dumps(head)))
            self._file = path.open("a+b")
            if not path.stat().st_size:
                self._write(head)
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def entry(self, key: str) -> dict[str, Any] | None:
        """What an attempt came to; None where it was not made yet."""
        if key not in self._at:
            return None
        self._file.seek(self._at[key])
        return json.loads(self._file.readline())

    def add(self, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a finished attempt; the entry as it will be read again."""
        found = {"key": key, **entry}
        self._at[key] = self._write(found)
        self.spent += entry.get("tokens", 0)
        return json.loads(json.dumps(found))

    def spend(self, tokens: int) -> None:
        """Account for an attempt that was cut and will be made again."""
        self._write({"tokens": tokens})
        self.spent += tokens

    def _write(self, entry: Mapping[str, Any]) -> int:
        self._file.seek(0, 2)
        place = self._file.tell()
        self._file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()
        return place

    def _load(self, head: Mapping[str, Any]) -> None:
        place = 0
        with self.path.open("r+b") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):  # a kill cut it short
                    break
                try:
                    entry = json.loads(line)
                except ValueError:
                    raise SetupError(f"{self.path}:{number + 1}: not a line of a journal") from None
                if number == 0:
                    self._compare(entry, head)
                elif "key" in entry:
                    self._at[entry["key"]] = place
                self.spent += entry.get("tokens", 0) if number else 0
                place += len(line)
            file.truncate(place)

    def _compare(self, found: Any, head: Mapping[str, Any]) -> None:
        if not isinstance(found, dict) or "run" not in found:
            raise SetupError(f"{self.path}: is no journal; choose another OUT")
        if other := sorted(key for key in {*found, *head} if found.get(key) != head.get(key)):
            raise SetupError(
                f"{self.path}: belongs to a run with another {', '.join(other)}; "
                "choose another OUT, or begin anew with --fresh"
            )


async def each(items: Iterable[T], workers: int, work: Callable[[T], Awaitable[bool]]) -> bool:
    """Work on every item, `workers` at once; True where none said to stop. Raises the first error, ungrouped."""
    waiting, going = iter(items), True

    async def worker() -> None:
        nonlocal going
        for item in waiting:
            if not going:
                return
            going = await work(item) and going

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return going


def file_hash(path: Path) -> str:
    """A short hash of a file's bytes. Raises SetupError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from None
