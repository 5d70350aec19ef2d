"""A tiny policy and configs for the tests of online methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHEAP: dict[str, Any] = {
    "steps": 3,
    "prompts": 2,
    "samples": 4,
    "max_tokens": 8,
    "threads": 1,
    "seed": 3,
    "rate": 1e-3,
    "save_every": 1,
    "mixture": [{"family": "value", "share": 1}],
    "rewards": [{"verifier": "length", "params": {"target": 8, "prefer": "long"}}],
}
WORDS = [{"family": "words", "share": 1, "params": {"steps": [1, 2]}}]


def config(kind: Any, model: Path, out: Path, **changes: Any) -> Any:
    return kind.model_validate({**CHEAP, "model": model, "out": out, **changes})


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]


class Killed(Exception):
    pass


def kill_at(step: int) -> Any:
    def tell(row: Mapping[str, Any]) -> None:
        if row.get("step") == step:
            raise Killed

    return tell


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def scripted_batch(
    lengths: list[list[int]], rewards: Any, cut: frozenset[tuple[int, int]] | set[Any] = frozenset()
) -> Any:
    """Samples of these many tokens by prompt; those in `cut` ended at the limit."""
    from reason_engine.training.online.environment import TrainingProblem
    from reason_engine.training.online.loop import Batch, Group
    from reason_engine.types import Path as SampledPath
    from reason_engine.types import Problem

    groups: list[Group] = []
    for p, row in enumerate(lengths):
        paths = tuple(
            SampledPath(
                0,
                "",
                "x" * n,
                tuple(range(10 * g + 1, 10 * g + 1 + n)),
                (5 + p, 6, 7),
                finish_reason="length" if (p, g) in cut else "stop",
                tokens=n,
            )
            for g, n in enumerate(row)
        )
        groups.append(Group(TrainingProblem(Problem(f"{p}?")), paths))
    return Batch(groups, rewards)
