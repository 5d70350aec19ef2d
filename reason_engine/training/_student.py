"""A student that writes answers itself: the embedded engine in this process, given the weights of the moment.

What is drawn depends on weights, prompts and seed alone, so a run that goes on from a checkpoint draws the same again.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from reason_engine.engines.embedded import Embedded
from reason_engine.types import GenerateRequest, Sampling

if TYPE_CHECKING:
    from torch import Tensor

NEVER = -100.0
"""Added to the logits of rows that only pad a matrix: no token stands for them, and a teacher may not have them."""


class Student:
    """Opened and closed with `with`; its engine starts with the first answers."""

    def __init__(self, folder: Path | None, max_tokens: int, threads: int | None) -> None:
        """`folder`: a checkpoint of the student's shape; none where the student is new."""
        self._folder, self._most, self._threads = folder, max_tokens, threads or 0
        self._runner, self._engine = asyncio.Runner(), None
        self._padding: tuple[tuple[int, float], ...] = ()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Student:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._runner.run(self._engine.close())
        self._runner.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def answers(
        self, model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], seed: int
    ) -> list[list[int]]:
        """One answer to each prompt, in tokens, at temperature 1; its end mark is a part of it. A prompt that leaves no
        room gets none."""
        if self._engine is None:
            self._engine = self._start(model, tokenizer)
            self._padding = tuple((token, NEVER) for token in range(len(tokenizer), model.config.vocab_size))
        return self._runner.run(self._all(self._engine, model.state_dict(), prompts, seed))

    def _start(self, model: Any, tokenizer: Any) -> Embedded:
        from reason_engine.training._models import save_model

        if self._folder is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="reason-student-")
            save_model(model, tokenizer, Path(self._scratch.name))
        folder = self._folder or Path(self._scratch.name)  # type: ignore[union-attr]
        engine = Embedded(folder, inline=True, dtype="float32", threads=self._threads)
        self._runner.run(engine.start())
        return engine

    async def _all(
        self, engine: Embedded, weights: Mapping[str, Tensor], prompts: Sequence[Sequence[int]], seed: int
    ) -> list[list[int]]:
        await engine.take_weights(weights)

        async def one(number: int) -> list[int]:
            prompt = tuple(prompts[number])
            room = min(self._most, engine.info.context - len(prompt))
            if room < 1:
                return []
            place = (seed + number) % 2**31
            sampling = Sampling(max_tokens=room, temperature=1.0, seed=place, logit_bias=self._padding)
            drawn: list[int] = []
            async for chunk in engine.generate(GenerateRequest(f"own-{number}", prompt, 1, sampling)):
                drawn += chunk.token_ids
            return drawn

        async with asyncio.TaskGroup() as together:
            running = [together.create_task(one(number)) for number in range(len(prompts))]
        return [task.result() for task in running]
