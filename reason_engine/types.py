"""The values that cross module borders. All are frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, Self

from reason_engine.model_info import ModelInfo as ModelInfo

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "abort", "error"]
DraftBy = Literal["default", "none", "sam", "ngram"]  # `default`: as the engine was told at start
Stopped = Literal["done", "decided", "budget-tokens", "budget-seconds", "budget-samples", "cancelled"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call asked for by the model; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log-probability of a sampled token, with the most likely alternatives at its place."""

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Structured:
    """A constraint on the generated text; exactly one field is set."""

    json_schema: str | None = None
    json_object: bool = False
    regex: str | None = None
    choice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `seed`: sample i of a request draws with seed + i. `logprobs`: alternatives to report
    per token (0: the sampled token's only; None: none). `thinking`: most tokens of the thought, on engines that end
    one by themselves (None: no limit of its own)."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    structured: Structured | None = None
    draft: DraftBy = "default"
    thinking: int | None = None


class Prompt(str):
    """A rendered prompt with its tokens: `ids` are what the engine's own tokenizer makes of the text, so an engine that
    takes tokens need not tokenise it again. To everyone else it is its text."""

    __slots__ = ("ids",)
    ids: tuple[int, ...]

    def __new__(cls, text: str, ids: Sequence[int] = ()) -> Self:
        made = super().__new__(cls, text)
        made.ids = tuple(ids)
        return made

    @property
    def text(self) -> str:
        """The text alone."""
        return str(self)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One request to an engine: `n` samples of one prompt. A prompt is text, with its tokens where it is a `Prompt`, or
    token ids where the engine has `caps.continuation` (a partial path continued exactly where it ended)."""

    id: str
    prompt: str | tuple[int, ...]
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str | None = None
    priority: int = 0
    search: str = ""
    """What names the search that it belongs to: requests of one search may draft from one another's tokens."""
    interval: int = 1
    """Tokens of a sample that an engine may hand over together, where nobody reads them one by one; what ends a sample
    comes at once, and an abort brings what was held."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What sample `index` gained since its previous chunk. The last chunk of each sample has a `finish_reason`;
    after an abort too (`abort`). `token_ids` includes the end-of-sequence token where one was drawn (every drawn
    token is counted), `text` never does. `prompt_tokens` and `cached_tokens` stand on the first chunk of sample 0,
    and only there. `token_count` is len(token_ids) except on engines without token ids."""

    index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    token_count: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    draft_accepted: int = 0
    draft_rejected: int = 0


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """Ask for the model's probabilities over a few continuations of one prompt: text, or token ids where the engine
    has `caps.continuation`."""

    id: str
    prompt: str | tuple[int, ...]
    options: tuple[str, ...]
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """`probabilities` over the options, normalised to 1; `mass` is their share of the model's distribution (product
    of token probabilities). `completion_tokens` is 0 on engines that need no decoding for it."""

    probabilities: tuple[float, ...]
    mass: float = 1.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Score texts with a model head: one value a text (`reward`), one at each of its places (`token_reward`), or a
    vector. `turns`: the conversation that every input answers, in the chat format of the model that scores; without
    them inputs are scored as they stand. `prompts[i]`: the text before input i as the served model had it, read in
    place of the turns by a head over that model's own states. `ends[i]`: places of input i, as numbers of characters
    before them, each read at the last token that begins before it; none: every token of the input."""

    id: str
    inputs: tuple[str, ...]
    task: Literal["reward", "token_reward", "embed"] = "reward"
    model: str | None = None
    turns: tuple[Message, ...] = ()
    ends: tuple[tuple[int, ...], ...] = ()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """`values[i]` belongs to input i: one number, one a token, or an embedding."""

    values: tuple[tuple[float, ...], ...]
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by kind. `completion` counts every generated token, also of discarded branches; sums with `+`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    draft_accepted: int = 0
    draft_rejected: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.completion + other.completion,
            self.draft_accepted + other.draft_accepted,
            self.draft_rejected + other.draft_rejected,
        )


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of the operator's knowledge: quoted text, never instructions; `source`: its file and the place in it."""

    text: str
    source: str
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked: the last user turn, with everything before it. `reference` is known to evaluations and to
    verifiers that ask for it, never shown to the model. `meta` carries task data (numbers, target, tests)."""

    question: str
    history: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    structured: Structured | None = None
    reference: str | None = None
    task: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tail: tuple[Message, ...] = ()
    """Turns after the last user turn: the assistant's tool calls and their results, inside a tool loop."""
    sources: tuple[Passage, ...] = ()
    """What was retrieved for the question; the question quotes it already."""
    bare: str | None = None
    """The question without the sources that it quotes; None where nothing was to be retrieved."""

    @property
    def asked(self) -> str:
        """The question in the client's words."""
        return self.question if self.bare is None else self.bare

    def turns(self, text: str | None = None) -> tuple[Message, ...]:
        """The conversation with `text` (default: the question) as the last user turn."""
        return (*self.history, Message("user", self.question if text is None else text), *self.tail)


@dataclass(frozen=True, slots=True)
class Path:
    """One generated continuation. `prompt` is the rendered prompt it continues; `prefill` the part of `text` that was
    given rather than generated. `node` is its place in the trace. `answer` is the normalised answer or None; it was
    read at a place made for it (`strong`), at the end of the text (`weak`), or after it was asked for once more
    (`forced`), and its vote then weighs its probability (`weight`). `cut`: a limit ended it before it had answered.
    `think_end` ends the model's thoughts."""

    node: int
    prompt: str
    text: str
    token_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason = "stop"
    stop_reason: str | int | None = None
    prefill: str = ""
    tokens: int = 0
    answer: str | None = None
    strength: Literal["strong", "weak", "forced"] | None = None
    weight: float = 1.0
    cut: bool = False
    think_end: str = "</think>"

    @property
    def solution(self) -> str:
        """What follows its thought; all of it where it has none."""
        _, ended, rest = self.text.rpartition(self.think_end)
        return rest.lstrip() if ended else self.text

    @property
    def finished(self) -> bool:
        """Whether the model ended it (not a limit, an abort or an error)."""
        return self.finish_reason in ("stop", "tool_calls")

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the generated tokens; minus infinity where none were recorded."""
        return sum(t.logprob for t in self.logprobs) / len(self.logprobs) if self.logprobs else float("-inf")


@dataclass(frozen=True, slots=True)
class Draw:
    """How paths are drawn from one prompt.

    Up to `n` paths, each of at most `max_tokens` tokens (None: the rest of the context) at `temperature` (None: the
    request's); `stop` strings end a step and stay in its text. `prefill` begins the model's turn. `logprobs`:
    alternatives to record at each token. `stage`: the name under which tokens are accounted. `until` sees the finished
    paths and aborts the rest by returning True; `drop` sees the log-probabilities that path i has gained and ends that
    path by returning True. `final`: the path is the answer, so the request's own tools, format and logprobs apply.
    `live`: its text may be shown as it is made. `after`: this goes on with the latest draw, of which there are so many
    paths, and draws what a larger one would have drawn next.
    """

    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    prefill: str = ""
    logprobs: int | None = None
    stage: str = "sample"
    until: Callable[[list[Path]], bool] | None = None
    drop: Callable[[int, Sequence[TokenLogprob]], bool] | None = None
    final: bool = False
    live: bool = False
    after: int = 0


@dataclass(frozen=True, slots=True)
class CodeTest:
    """A test of a program: `check` is Python that raises where it fails; else a run that reads `input` is to print
    `output`, or, where a function is named, to be called with the list `input` and to return `output`."""

    check: str | None = None
    input: Any = ""
    output: Any = ""


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """What a program may use: seconds over all its tests, memory of each of its processes."""

    seconds: float = 5.0
    memory_mb: int = 256


@dataclass(frozen=True, slots=True)
class CodeResult:
    """Whether a test passed, and where not, why. `output`: what a run printed, whole or up to where it was ended."""

    passed: bool
    detail: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A verifier's judgement of one path, in [0, 1] unless the verifier says otherwise."""

    value: float
    verifier: str = ""
    detail: str = ""


Aggregate = Literal["last", "min", "product", "mean"]


def aggregated(scores: Sequence[float], how: Aggregate) -> float:
    """The score of a path by the scores of its steps; 0 for none."""
    if not scores:
        return 0.0
    return {"last": scores[-1], "min": min(scores), "product": prod(scores), "mean": sum(scores) / len(scores)}[how]


@dataclass(frozen=True, slots=True)
class Vote:
    """How many paths gave an answer. `weight` is their summed weight where votes are weighted."""

    answer: str
    count: int
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a strategy decides: the winning path, its normalised value, and how sure the strategy is (0..1 or None)."""

    path: Path | None = None
    value: str | None = None
    confidence: float | None = None
    votes: tuple[Vote, ...] = ()
    decided: bool = False
    """True where the strategy stopped early because the outcome could no longer change."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The budget of one request: generated tokens, wall seconds, generated sequences. None: no limit of its own."""

    tokens: int | None = None
    seconds: float | None = None
    samples: int | None = None
