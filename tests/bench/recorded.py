"""An engine that keeps what another one drew, so that several strategies are measured on the same paths and a run that
was cut goes on where it stopped.

Path i of a prompt, drawn in a given way, is drawn once: every run (`GenerateRequest.search`) reads the paths of a
prompt from the first on, whatever its seeds are, and what is not there yet is drawn by the engine below, which is
started at the first such need. Choices and scores are kept as well. One file a prompt, one line a path.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from reason_engine.contracts import Capabilities, Engine, Health
from reason_engine.engines.chat import ChatFormat, ChatTextMethods
from reason_engine.engines.text import Vocabulary
from reason_engine.errors import CapabilityMissing
from reason_engine.runtime.drawn import PartialPath
from reason_engine.types import (
    Choice,
    ChoiceRequest,
    Chunk,
    GenerateRequest,
    ModelInfo,
    Sampling,
    ScoreRequest,
    Scores,
    TokenLogprob,
)

TOP = 5
"""Alternatives that are kept at each token."""


class Recorded(ChatTextMethods):
    """Serves `model` from `folder`, and from `engine` what is missing there. `context` as the engine is to have it;
    `rewards` names the process reward models that it scores with."""

    def __init__(
        self, model: Path, folder: Path, engine: Callable[[], Engine], context: int, rewards: Sequence[str] = ()
    ) -> None:
        self._format, self._folder, self._make = ChatFormat.load(model), folder, engine
        self._words = Vocabulary(self._format.tokenizer)
        self.info: ModelInfo = self._format.info(model.name, str(model), context, f"recorded-{model.name}")
        self.caps = Capabilities(
            logprobs=TOP, token_ids=True, continuation=True, choose=True, structured=True, exact_budget=True,
            score=bool(rewards), rewards=tuple((name, "process") for name in rewards),
        )  # fmt: skip
        self._below: Engine | None = None
        self._starting = asyncio.Lock()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._read = Counter[tuple[str, str]]()
        folder.mkdir(parents=True, exist_ok=True)

    async def start(self) -> None:
        """Nothing to load yet."""

    async def close(self) -> None:
        if self._below:
            await self._below.close()

    async def health(self) -> Health:
        return Health(True)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        prompt = request.prompt if isinstance(request.prompt, tuple) else str(request.prompt)
        way = {
            key: value
            for key, value in asdict(replace(request.sampling, seed=0, logprobs=None)).items()
            if key != "thinking" or value is not None
        }
        name = sha256(repr((prompt, request.adapter, sorted(way.items()))).encode()).hexdigest()[:32]
        file, first = self._folder / f"{name}.jsonl", self._read[request.search, name]
        self._read[request.search, name] += request.n
        async with self._locks[name]:
            lines = file.read_text("utf-8").splitlines() if file.exists() else []
            if len(lines) < first + request.n:
                lines += await self._draw(request, first + request.n - len(lines), len(lines), file)
        count = len(prompt) if isinstance(prompt, tuple) else len(self.tokenize(prompt))
        for index, line in enumerate(lines[first : first + request.n]):
            row = json.loads(line)
            yield Chunk(
                index, row["text"], tuple(row["ids"]), len(row["ids"]), self._logprobs(row, request.sampling),
                row["finish"], row["stop"], 0 if index else count,
            )  # fmt: skip

    async def abort(self, request_id: str, index: int | None = None) -> None:
        """Whole paths are handed out: there is nothing to abort."""

    async def choose(self, request: ChoiceRequest) -> Choice:
        key = repr((request.prompt if isinstance(request.prompt, tuple) else str(request.prompt), request.options))
        file = self._folder / f"choice-{sha256(key.encode()).hexdigest()[:32]}.json"
        if not file.exists():
            file.write_text(json.dumps(asdict(await (await self._engine()).choose(request))), "utf-8")
        kept = json.loads(file.read_text("utf-8"))
        return Choice(**{**kept, "probabilities": tuple(kept["probabilities"])})

    async def score(self, request: ScoreRequest) -> Scores:
        key = repr((request.inputs, request.task, request.model, request.turns, request.ends, request.prompts))
        file = self._folder / f"score-{sha256(key.encode()).hexdigest()[:32]}.json"
        if not file.exists():
            file.write_text(json.dumps(asdict(await (await self._engine()).score(request))), "utf-8")
        kept = json.loads(file.read_text("utf-8"))
        return Scores(tuple(map(tuple, kept["values"])), kept["prompt_tokens"])

    async def load_adapter(self, name: str, path: str) -> None:
        raise CapabilityMissing("recorded paths are those of the base model")

    async def unload_adapter(self, name: str) -> None:
        raise CapabilityMissing("recorded paths are those of the base model")

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """No drafts."""

    def adapters(self) -> tuple[str, ...]:
        return ()

    async def _engine(self) -> Engine:
        async with self._starting:
            if self._below is None:
                below = self._make()
                await below.start()
                self._below = below
        return self._below

    async def _draw(self, request: GenerateRequest, n: int, first: int, file: Path) -> list[str]:
        """Paths `first` to `first + n`, written to the file together, so that a cut run leaves no half of them."""
        engine = await self._engine()
        seed = int(sha256(file.name.encode()).hexdigest()[:7], 16) + first
        sampling = replace(request.sampling, seed=seed, logprobs=TOP)
        drawn: dict[int, PartialPath] = {}
        async for chunk in engine.generate(replace(request, n=n, sampling=sampling)):
            drawn.setdefault(chunk.index, PartialPath(chunk.index)).add(chunk)
        made = [self._row(drawn[index]) for index in sorted(drawn)]
        with file.open("a", encoding="utf-8") as out:
            out.write("".join(line + "\n" for line in made))
        return made

    @staticmethod
    def _row(path: PartialPath) -> str:
        row: dict[str, Any] = {"text": path.text, "ids": path.ids, "finish": path.finish, "stop": path.stop_reason}
        row["logprobs"] = [round(token.logprob, 5) for token in path.logprobs]
        row["top"] = [[[i, round(lp, 4)] for i, _, lp in token.top[:TOP]] for token in path.logprobs]
        return json.dumps(row, ensure_ascii=False)

    def _logprobs(self, row: dict[str, Any], sampling: Sampling) -> tuple[TokenLogprob, ...]:
        if sampling.logprobs is None:
            return ()
        word, k = self._words.text_of, sampling.logprobs
        return tuple(
            TokenLogprob(i, word(i), lp, tuple((t, "", p) for t, p in top[:k]))
            for i, lp, top in zip(row["ids"], row["logprobs"], row["top"], strict=False)
        )
