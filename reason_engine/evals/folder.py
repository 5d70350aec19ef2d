"""The folder of a run: `run.json` (what was run, and by which commands), `answers.jsonl`, and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.evals.record import Record, RecordFile
from reason_engine.evals.report import Report, summarise, write


class Folder:
    """Opens or continues a run. Without a path nothing is kept.

    `setup` must be the same whenever a run is continued; `command` is added to those that made the answers so far.
    Raises SetupError where the folder is of another set-up or cannot be written.
    """

    def __init__(self, path: Path | None, setup: Mapping[str, Any], command: str) -> None:
        self.path = path
        commands = [command]
        if path is not None:
            commands = [*_earlier(path, setup), command]
            commands = list(dict.fromkeys(commands))
            try:
                path.mkdir(parents=True, exist_ok=True)
                text = json.dumps({**setup, "commands": commands}, indent=1, ensure_ascii=False)
                (path / "run.json").write_text(text + "\n", "utf-8")
            except OSError as error:
                raise SetupError(f"--out {path}: {error.strerror}") from None
        self.about = {"commands": commands, **setup}
        self.answers = RecordFile(path / "answers.jsonl" if path else None)

    def finish(self, records: list[Record]) -> Report:
        """The report, written where there is a path."""
        report = summarise(records, self.about)
        if self.path is not None:
            write(report, self.path)
        return report


def _earlier(path: Path, setup: Mapping[str, Any]) -> list[str]:
    """The commands of the run that is continued."""
    file = path / "run.json"
    if not file.exists():
        return []
    try:
        known = json.loads(file.read_text("utf-8"))
        commands = [str(command) for command in known.pop("commands")]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SetupError(f"{file}: not the record of an evaluation: {error!r}") from None
    for key in setup:
        if known.get(key) != setup[key]:
            raise SetupError(
                f"--out {path} holds a run with {key} {known.get(key)!r}, this one has {setup[key]!r}; choose another"
            )
    return commands
