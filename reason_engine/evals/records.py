"""What a run keeps of every answer, and the file `answers.jsonl` that holds it, so that a run that was cut goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines

Key = tuple[str, str, int, int, int]


@dataclass(frozen=True, slots=True)
class Record:
    """`completion_tokens`: every generated token of the problem. `internal_prompt_tokens`: prompt tokens of its calls
    to the engine that no prefix cache held. `error`: why there is no answer, where the problem was refused. `part`: of
    a mixed task; `text`: the whole text, where a run keeps it. `repeat`: which answer to the problem it is, where each
    is answered several times. `paths`: how many were drawn to be answers; of these `unread` hold no readable one, `cut`
    were ended by a limit, `paths_right` are right. None where nobody counted."""

    task: str
    strategy: str
    index: int
    seed: int
    question: str
    answer: str | None
    correct: bool
    completion_tokens: int
    internal_prompt_tokens: int
    seconds: float
    stopped: str
    samples: int = 0
    error: str | None = None
    part: str | None = None
    text: str | None = None
    unread: int | None = None
    cut: int | None = None
    repeat: int = 0
    paths: int | None = None
    paths_right: int | None = None

    @property
    def key(self) -> Key:
        """What a run does not do twice."""
        return self.task, self.strategy, self.index, self.seed, self.repeat


LATER = frozenset({"part", "text", "unread", "cut", "repeat", "paths", "paths_right"})
"""Fields that older files lack."""
NAMES = tuple(field.name for field in fields(Record))


class RecordFile:
    """Appends records as they come. None as path keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def load(self) -> dict[Key, Record]:
        """The records so far; a last line that a kill cut short is dropped. Raises SetupError on any other bad line."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            lines = list(JsonLines(self.path).lines("cut"))
        except OSError as error:
            raise SetupError(f"{self.path}: {error}") from None
        found: dict[Key, Record] = {}
        for line in lines:
            try:
                row = line.value()
                wanted = [name for name in NAMES if name in row or name not in LATER]
                record = Record(**{name: row[name] for name in wanted})
            except UnicodeDecodeError as error:
                raise SetupError(f"{self.path}: {error}") from None
            except (ValueError, KeyError, TypeError) as error:
                raise SetupError(f"{self.path}:{line.number}: not a record of an evaluation: {error!r}") from None
            found[record.key] = record
        return found

    def append(self, record: Record) -> None:
        """Write one line, at once."""
        if self.path is not None:
            row = {key: value for key, value in asdict(record).items() if key != "text" or value is not None}
            JsonLines(self.path).append(row)
