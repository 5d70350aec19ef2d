"""The model that writes: any engine of the package, or an endpoint, under one budget of tokens for the whole run."""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from reason_engine.answers import Equality
from reason_engine.contracts import Engine
from reason_engine.engines.open import open_engine, profile_of
from reason_engine.errors import (
    CapabilityMissing,
    ContextLengthExceeded,
    EngineDead,
    RequestError,
    SetupError,
    VerifierError,
)
from reason_engine.profile import FILE, Profile, read_profile
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.settings import load_settings
from reason_engine.strategies import Strategy, VerifierChoice, strategies
from reason_engine.types import Answer, Draw, Limits, Path, Problem, Sampling
from reason_engine.verifiers import verifiers


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """Which model writes. With `url`, `model` names one of the endpoint's. `profile`: a folder whose reason.json says
    how it wants to be asked, where that is not known of the model itself."""

    model: str | None = None
    url: str | None = None
    engine: str = "auto"
    threads: int | None = None
    max_tokens: int = 1024
    profile: FilePath | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the teacher wrote. `cut`: the run's budget ended it, so that it must be made again; `failed`: why there is
    no text."""

    content: str = ""
    reasoning: str | None = None
    answer: str | None = None
    tokens: int = 0
    finish: str = "stop"
    cut: bool = False
    failed: str = ""
    path: Path | None = None

    def entry(self) -> dict[str, Any]:
        """What the journal keeps."""
        names = ("content", "reasoning", "answer", "finish", "failed")
        kept = {name: value for name in names if (value := getattr(self, name))}
        return {"tokens": self.tokens, **kept}


@dataclass(frozen=True, slots=True)
class Teacher:
    """A started engine and what is left of the budget."""

    engine: Engine
    profile: Profile
    equality: Equality
    max_tokens: int = 1024
    budget: Budget | None = None

    def within(self, tokens: int | None, spent: int) -> Teacher:
        """This teacher for a run that may generate `tokens` in all and has generated `spent`."""
        left = None if tokens is None else max(0, tokens - spent)
        return replace(self, budget=Budget(Limits(tokens=left)))

    async def write(self, prompt: str, seed: int, temperature: float) -> Reply:
        """One text for an instruction, asked plainly."""
        instruction = Instruction.model_validate({"temperature": temperature})
        return await self.solve(instruction, Problem(prompt), seed)

    async def solve(self, strategy: Strategy, problem: Problem, seed: int) -> Reply:
        """A problem solved by a strategy. Raises EngineError, RequestError, StrategyError."""
        try:
            outcome = await self._run(strategy, problem, seed, Sampling(max_tokens=self.max_tokens))
        except ContextLengthExceeded:
            return Reply(failed="too-long")
        tokens, path = outcome.usage.completion, outcome.answer.path
        if outcome.stopped == "budget-tokens":
            return Reply(tokens=tokens, cut=True)
        if path is None:
            return Reply(tokens=tokens, failed="no-text")
        parsed = self.engine.parse(path.text, prompt=path.prompt)
        reasoning = (parsed.reasoning or "").strip() or None
        value, finish = outcome.answer.value, path.finish_reason
        return Reply(parsed.content.strip(), reasoning, value, tokens, finish, path=path)

    async def judge(
        self, verifier: str, params: Mapping[str, Any], problem: Problem, path: Path, seed: int
    ) -> tuple[float | None, str, int]:
        """A verifier's score of one path (None: it cannot judge it), its comment, and the tokens it took."""
        choice = VerifierChoice(name=verifier, params=params)
        strategy = _Judgement.model_validate({"verifier": choice, "path": replace(path, node=0)})
        try:
            outcome = await self._run(strategy, problem, seed)
        except CapabilityMissing:
            raise
        except (RequestError, VerifierError) as error:
            return None, str(error), 0
        scores = [score for node in outcome.trace.nodes for score in node.scores]
        detail = str(scores[-1].get("detail", "")) if scores else ""
        return outcome.answer.confidence, detail, outcome.usage.completion

    async def _run(self, strategy: Strategy, problem: Problem, seed: int, sampling: Sampling | None = None) -> Outcome:
        limits = self.budget.share() if self.budget else None
        return await solve(
            strategy, problem, self.engine, profile=self.profile, limits=limits, sampling=sampling, seed=seed,
            equality=self.equality, force=False,  # what is learned from is what the model says by itself
        )  # fmt: skip


class Instruction(Strategy):
    """One path, asked plainly. It has the name of `direct`, since all of its text counts as there."""

    name: ClassVar[str] = "direct"

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample once."""
        (path,) = await ctx.sample(draw=Draw(temperature=self.sampling_temperature(ctx), final=True))
        return Answer(path, path.answer)


class _Judgement(Strategy):
    """A verifier asked about a path that another run made."""

    name: ClassVar[str] = "judgement"
    path: Path

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        (score,) = await ctx.score([self.path])
        return Answer(self.path, self.path.answer, score.value if score else None)


@asynccontextmanager
async def open_teacher(target: TeacherOptions) -> AsyncIterator[Teacher]:
    """The engine, started, and closed in the end. Raises SetupError before anything heavy is loaded."""
    flags: dict[str, Any] = {"model": target.model, "engine": target.engine, "threads": target.threads}
    if target.url:
        key = os.environ.get("REASON_API_KEY")
        flags |= {"engine": "openai", "upstream_url": api_address(target.url), "upstream_key": key}
        flags |= {"upstream_prefill": "no"}  # a teacher is asked plainly
    settings = load_settings(flags)
    if target.profile is not None and not (target.profile / FILE).is_file():
        raise SetupError(f"--profile {target.profile}: no {FILE} in this folder")
    profile = read_profile(target.profile) if target.profile else profile_of(settings)
    engine, equality = open_engine(settings, inline=True), Equality()
    try:
        try:
            await engine.start()
        except EngineDead as error:
            raise EngineDead(f"{target.url}: {error}" if target.url else str(error)) from None
        yield Teacher(engine, profile, equality, target.max_tokens)
    finally:
        await equality.close()
        await engine.close()


def build_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """The strategy of that name. Raises UnknownName, or SetupError naming the option at fault."""
    return cast(Strategy, _build(strategies.get(name, param="--strategy"), f"strategy {name!r}", options))


def check_verifier(name: str, params: Mapping[str, Any]) -> None:
    """Raises UnknownName, or SetupError naming the param at fault."""
    _build(verifiers.get(name, param="--verifier"), f"verifier {name!r}", params)


def seed_of(seed: int, key: str) -> int:
    """A seed by place, so that neither order nor concurrency changes it."""
    return zlib.crc32(f"{seed}/{key}".encode()) % 2**31


def _build(kind: Any, what: str, values: Mapping[str, Any]) -> Any:
    try:
        return cast(type[BaseModel], kind).model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "(all)"
        raise SetupError(f"{what}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def api_address(url: str) -> str:
    """The address below which the API stands: `/v1` where no path is named. Raises SetupError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SetupError(f"--url {url!r} is no address; one looks like http://127.0.0.1:8000")
    return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
