"""Test-time reasoning strategies, one file a method. A strategy is a frozen value whose fields are the request schema.

    @strategies.register("my-method")
    class MyMethod(Strategy):
        summary = "one line"
        n: int = Field(8, ge=1, le=256, description="paths")

        async def run(self, problem, ctx): ...

Everything it may do is a method of `ctx` (`reason_engine.runtime.context.Context`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.answers import AnswerKind
from reason_engine.profile import Profile
from reason_engine.registry import Registry
from reason_engine.runtime.context import Context
from reason_engine.types import Answer, DraftBy, Problem


class VerifierChoice(BaseModel, extra="forbid", frozen=True):
    """A verifier by name, with its parameters (such as `reference` or `tests`)."""

    name: str
    params: Mapping[str, Any] = Field(default_factory=dict[str, Any])


class Strategy(BaseModel, ABC):
    """What every strategy has. `usual_temperature` holds where neither request, profile nor body names one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    usual_temperature: ClassVar[float] = 0.7
    votes: ClassVar[bool] = False

    temperature: float | None = Field(None, ge=0, le=2, description="sampling temperature of the paths")
    draft: DraftBy = Field("default", description="speculative drafting")
    verifier: str | VerifierChoice | None = Field(None, description="verifier by name, or {name, params}")
    knowledge: bool = Field(False, description="retrieve from the operator's documents")
    answer_kind: AnswerKind | None = Field(None, description="kind of the answer; unset: what the question says")

    @abstractmethod
    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """The method itself. May be cut at any await; what it proposed by then is the result."""

    @property
    def title(self) -> str:
        """The registered name."""
        return self.name

    @property
    def wants(self) -> frozenset[str]:
        """Engine capabilities without which it cannot run: `choose`, `continuation`, `score`, `logprobs` (of the
        alternatives at each token)."""
        return frozenset()

    @property
    def width(self) -> int:
        """Most paths it runs at once; the operator caps n times this."""
        return 1

    @property
    def judge(self) -> tuple[str, dict[str, object]] | None:
        """The verifier it uses, as name and params."""
        if self.verifier is None:
            return None
        if isinstance(self.verifier, str):
            return self.verifier, {}
        return self.verifier.name, dict(self.verifier.params)

    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None:
        """The verifier it uses on a model of that profile. `checked`: the question is of a task with a checker.

        Raises RequestError where it needs one and none is named.
        """
        return self.judge

    @property
    def judges_steps(self) -> bool:
        """Whether its verifier is to judge single steps."""
        return False

    @property
    def drafter(self) -> DraftBy:
        """How tokens are drafted for its paths."""
        return self.draft

    def sampling_temperature(self, ctx: Context) -> float:
        """The temperature of its paths: the request's, the profile's for this strategy, the body's, the usual one.

        A strategy that votes over equal paths learns nothing: it ignores a body temperature of 0 and notes it.
        """
        if self.temperature is not None:
            return self.temperature
        profiled = ctx.profile.temperature.get(self.name)
        if profiled is not None:
            return profiled
        body = ctx.temperature
        if body == 0 and self.votes and self.width > 1:
            ctx.note(temperature=f"0 would make all paths equal; {self.usual_temperature} is used")
            return self.usual_temperature
        return self.usual_temperature if body is None else body


Kind = TypeVar("Kind", bound=Strategy)


class StrategyRegistry(Registry[Strategy]):
    """Also tells each class the name it is registered under."""

    def register(self, name: str) -> Callable[[type[Kind]], type[Kind]]:
        """Class decorator; raises ValueError if the name is taken."""
        add = super().register(name)

        def named(cls: type[Kind]) -> type[Kind]:
            cls.name = name
            return add(cls)

        return named


strategies = StrategyRegistry("strategy", __name__)
