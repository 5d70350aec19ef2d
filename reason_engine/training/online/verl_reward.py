"""The reward of a run that verl makes: the recipe's verifiers on one finished text. Needs no extra of this package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reason_engine.profile import read_profile
from reason_engine.training.online.curriculum import Task
from reason_engine.training.online.reward_scorer import Bench, Reward, answer_of
from reason_engine.types import Path as Sample
from reason_engine.types import Problem


class Scorer:
    """Called with the fields of verl's row; the weighted sum of the rewards."""

    def __init__(self, file: Path) -> None:
        stated = json.loads(file.read_text("utf-8"))
        self._profile = read_profile(Path(stated["model"]))
        self._thread = ThreadPoolExecutor(1)
        self._rewards = [Reward.model_validate(reward) for reward in stated["rewards"]]

    def __call__(self, source: str, text: str, reference: str | None, extra: Mapping[str, Any]) -> float:
        meta = json.loads(extra.get("meta") or "{}")
        problem = Problem(str(extra.get("question", "")), reference=reference, meta=meta)
        task = Task(problem, "" if source == "file" else source, bool(extra.get("bare")))
        answer = answer_of(self._profile, task, text.rpartition("</think>")[2])
        path = Sample(0, "", text, answer=answer)
        # verl may call from within a loop of its own.
        return self._thread.submit(asyncio.run, self._score(task, path)).result()

    async def _score(self, task: Task, path: Sample) -> float:
        bench = Bench(self._rewards, self._profile, None)
        try:
            return (await bench.score([(task, [path])], 0.0)).outcome[0][0]
        finally:
            await bench.equality.close()
