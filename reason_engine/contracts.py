"""Every Protocol of the package: what an engine, verifier, task, trainer or compressor must offer.

The strategy contract is the pydantic class in `reason_engine.strategies`, since its fields are the request schema.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Literal, Protocol, runtime_checkable

from reason_engine.answers import Equality
from reason_engine.profile import Profile
from reason_engine.types import (
    Aggregate,
    Choice,
    ChoiceRequest,
    Chunk,
    CodeLimits,
    CodeResult,
    CodeTest,
    Draw,
    GenerateRequest,
    Message,
    ModelInfo,
    Passage,
    Path,
    Problem,
    Score,
    ScoreRequest,
    Scores,
    ToolCall,
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do. A strategy that needs more gets CapabilityMissing before a token is spent."""

    logprobs: int = 0
    """Most alternatives per token that can be reported; -1 where not even the sampled token's is."""
    token_ids: bool = False
    continuation: bool = False
    choose: bool = False
    score: bool = False
    rewards: tuple[tuple[str, Literal["outcome", "process"]], ...] = ()
    """Reward models that `score` takes by name, and whether each judges whole answers or single steps."""
    aggregates: tuple[tuple[str, Aggregate], ...] = ()
    """How the scores of a step model of that name usually make a path's."""
    embeds: tuple[str, ...] = ()
    """Models that `score` takes by name for the task `embed`; none named: the first."""
    adapters: bool = False
    structured: bool = False
    drafting: tuple[str, ...] = ()
    prefill: bool = False
    """Without `continuation`: a prompt that ends in a begun turn of the model is continued from there."""
    exact_budget: bool = False
    """Token counts are the engine's own and max_tokens is kept exactly."""
    sample_abort: bool = False
    """One sample of a request can be aborted while the others go on."""
    seeds: bool = True
    """The same seed draws the same text; as far as is known, for a remote endpoint."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One of several endpoints behind an engine. `running`: samples under way there; `detail`: why it is left out."""

    name: str
    up: bool
    running: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """`ready`: takes requests. `live`: still worth waiting for. Counters are of the engine itself."""

    ready: bool
    live: bool = True
    running: int = 0
    waiting: int = 0
    generated_tokens: int = 0
    detail: str = ""
    draft_failures: int = 0
    """Requests that went on without drafts since their drafter failed."""
    replicas: tuple[Replica, ...] = ()
    """The endpoints behind an engine that has several."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A finished text as its template means it."""

    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class Engine(Protocol):
    """A model that generates. Owns the chat template and the reasoning and tool parsers.

    `generate` streams chunks of all n samples interleaved; closing the iterator aborts what still runs, and after
    `abort(id)` each open sample still gets a final chunk with `finish_reason="abort"`. `abort(id, index)` ends that
    one sample in the same way; CapabilityMissing without `caps.sample_abort`. Errors are EngineError.
    """

    @property
    def caps(self) -> Capabilities: ...
    @property
    def info(self) -> ModelInfo: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def health(self) -> Health: ...
    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]: ...
    async def abort(self, request_id: str, index: int | None = None) -> None: ...
    async def choose(self, request: ChoiceRequest) -> Choice: ...
    async def score(self, request: ScoreRequest) -> Scores: ...
    async def load_adapter(self, name: str, path: str) -> None: ...
    async def unload_adapter(self, name: str) -> None: ...
    def adapters(self) -> tuple[str, ...]: ...
    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """Texts that `sam` drafts from too, in place of those before. No effect where it is not in caps.drafting."""
        ...

    def tokenize(self, text: str) -> list[int]: ...
    def detokenize(self, token_ids: Sequence[int]) -> str: ...
    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        """The prompt text, generation mark included, then `prefill`. `think`: None leaves the template's default."""
        ...

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        """Split a finished text into reasoning, content and tool calls. `prompt` tells whether thinking was opened."""
        ...


class CodeSandbox(Protocol):
    """Runs programs that nobody trusts, each in processes of its own that can reach nothing."""

    @property
    def refusal(self) -> str:
        """Why nothing may run on this machine, as far as is known; empty where it may."""
        ...

    async def run(
        self, source: str, tests: Sequence[CodeTest], limits: CodeLimits, entry_point: str | None = None
    ) -> list[CodeResult]:
        """One result a test, in order. Raises VerifierError where the sandbox itself failed."""
        ...


@dataclass(frozen=True, slots=True)
class Powers:
    """What the operator lets requests do on the server's machine besides generating. As shipped: nothing."""

    code: CodeSandbox | None = None
    satisfaction: Mapping[str, FilePath] = field(default_factory=dict[str, FilePath])
    """Fitted files by the name under which requests ask for them."""


class Call(Protocol):
    """A verifier's only way to generate, choose, score with a model or retrieve: budgeted, traced and aborted like
    everything else. The strategies' context implements it."""

    async def sample(self, prompt: str | None = None, draw: Draw = Draw()) -> list[Path]: ...

    async def choice(
        self,
        prompt: str,
        options: tuple[str, ...],
        *,
        prefill: str = "",
        stage: str = "choice",
        after: Path | None = None,
    ) -> Choice:
        """`after`: a path of `sample` that the options continue, `prefill` between, in place of the prompt's answer."""
        ...

    async def rate(self, request: ScoreRequest, stage: str = "rate") -> Scores:
        """Values of texts by a model head that the engine serves. The request's id is given by the call."""
        ...

    async def retrieve(self, query: str, k: int = 4) -> list[Passage]:
        """The operator's passages nearest to the query; none where there is no knowledge."""
        ...

    def staged(self, stage: str) -> Call:
        """The same call, with every token accounted under this name."""
        ...


class Retriever(Protocol):
    """An index of the operator's documents."""

    async def retrieve(self, query: str, k: int) -> list[Passage]: ...


class Verifier(Protocol):
    """Judges finished paths. Constructed from the params of the request: `{"name": …, "params": {…}}`."""

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]: ...


@runtime_checkable
class ProcessVerifier(Verifier, Protocol):
    """Judges each step of a path as well, finished or not: one score a step, in order."""

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[Score]: ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where a verifier is to work. `build(name, params, param)` makes another verifier for the same place; `param` is
    the request's field that an error names. `field` is that of this verifier."""

    profile: Profile
    caps: Capabilities
    problem: Problem
    build: Callable[[str, Mapping[str, object], str], Verifier]
    field: str = "reasoning.verifier"
    powers: Powers = Powers()


@runtime_checkable
class Bindable(Verifier, Protocol):
    """A verifier that needs something of its place."""

    def bind(self, site: Site) -> Verifier:
        """Itself, ready to work there. Raises RequestError kinds for whatever is missing, before a token is spent."""
        ...


@runtime_checkable
class ReadsAlternatives(Verifier, Protocol):
    """A verifier that reads the likeliest alternatives of each token of a path."""

    @property
    def alternatives(self) -> int:
        """How many of them are to be recorded; 0: the drawn token's own probability is enough."""
        ...


class Checker(Protocol):
    """Exact knowledge of one task's form: whether a line is legal and a finished answer right.

    It never proposes, values or looks ahead. Built from a question by `match`; named by the model's profile.
    """

    def step_ok(self, steps: Sequence[str]) -> bool:
        """Whether the last of these lines is legal after the ones before it."""
        ...

    def state(self, steps: Sequence[str]) -> str:
        """Canonical text of where these lines have led; equal states may be merged."""
        ...

    def outcome(self, steps: Sequence[str]) -> bool | None:
        """None while these steps are open; once they have ended, whether they ended at the goal."""
        ...

    def solved(self, answer: str) -> bool:
        """Whether a finished answer is right."""
        ...


@runtime_checkable
class TaskVerifier(Verifier, Checker, Protocol):
    """A checker that is a verifier by name as well, built from the groups of the profile's pattern."""

    @classmethod
    def from_groups(cls, groups: Mapping[str, str]) -> Checker: ...


class Task(Protocol):
    """An evaluation: problems and how an answer is graded."""

    def problems(self, limit: int | None, seed: int, data: FilePath | None) -> list[Problem]: ...
    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool: ...


@runtime_checkable
class CodeTask(Task, Protocol):
    """A task that grades a program by running it, which the operator must have allowed."""

    def graded_in(self, sandbox: CodeSandbox) -> Task:
        """The same task, with what it takes to grade."""
        ...


class Trainer(Protocol):
    """A training method. `config` is a frozen pydantic model; the result is a Hugging Face checkpoint folder."""

    def train(self, config: Any, out: FilePath) -> Mapping[str, Any]: ...


class Compressor(Protocol):
    """A compression method from one checkpoint folder to another."""

    def compress(self, config: Any, model: FilePath, out: FilePath) -> Mapping[str, Any]: ...
