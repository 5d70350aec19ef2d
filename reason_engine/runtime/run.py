"""What one call of `solve` owns: its hard budget, its prompts with their tokens, its account and its trace.

The budget is of tokens by lease, seconds by deadline, samples by admission. A path decodes only tokens that were leased
to it before decoding. With `free = cap - spent - held`, a draw of n paths of at most m tokens each gets n * m when that
is free, else leases of the expected length (a running mean of finished paths, half as much again), else an even share
of what is free. A path that used its lease up asks for another one and waits while others still hold theirs; unused
parts come back when a path ends. So `spent + held <= cap` always, under any concurrency, and `spent` equals what the
engine generated.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from reason_engine.answers import Equality, find, normalise
from reason_engine.contracts import Checker, Engine, Powers, Retriever
from reason_engine.errors import BudgetExhausted
from reason_engine.profile import Profile
from reason_engine.runtime.stream_text import Borders
from reason_engine.runtime.trace import Event, Opened
from reason_engine.types import Answer, Limits, Message, Path, Problem, Prompt, Sampling, Stopped, Structured, Usage

FIRST_LEASE = 256
SMALLEST_LEASE = 16


@dataclass(frozen=True, slots=True)
class Lease:
    """`paths` may each decode up to `tokens` tokens."""

    paths: int
    tokens: int


@dataclass
class Pool:
    """What budgets that share one cap have in common."""

    spent: int = 0
    held: int = 0
    samples: int = 0
    finished_paths: int = 0
    finished_tokens: int = 0
    waiters: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])


class Budget:
    """Accounts for one run. All methods run on one event loop; `settle` never blocks.

    `share()` gives another run a budget over the same pool: `n` choices of one request never pass its cap together.
    """

    def __init__(self, limits: Limits, pool: Pool | None = None, started: float | None = None) -> None:
        self.limits = limits
        self.started = time.monotonic() if started is None else started
        self.deadline = self.started + limits.seconds if limits.seconds is not None else None
        self.cut: Stopped | None = None
        """Why something of this run was refused or cut, once it was; the first reason stays."""
        self._pool = pool or Pool()
        self._bound: int | None = None
        self._spent = self._held = 0

    def share(self) -> Budget:
        """A budget for another run under the same cap and clock."""
        return Budget(self.limits, self._pool, self.started)

    @property
    def spent(self) -> int:
        """Tokens generated so far."""
        return self._pool.spent

    @property
    def own(self) -> int:
        """Tokens that this run generated, whatever shares its cap."""
        return self._spent

    @property
    def samples(self) -> int:
        """Sequences begun so far."""
        return self._pool.samples

    @property
    def free(self) -> int | None:
        """Tokens neither spent nor leased; None where there is no cap."""
        left = None if self.limits.tokens is None else self.limits.tokens - self._pool.spent - self._pool.held
        if self._bound is None:
            return left
        own = max(0, self._bound - self._spent - self._held)
        return own if left is None else min(left, own)

    def bound(self, tokens: int) -> None:
        """From now on this run by itself may not pass `tokens` in all, what it has spent included."""
        self._bound = tokens

    @property
    def seconds(self) -> float:
        """Seconds since the request began."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, negative after it; None where there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    @property
    def overdue(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def admit(self, n: int) -> int:
        """Count up to n new samples; fewer when the cap is near. Raises BudgetExhausted when none is left."""
        if self.overdue:
            raise self.exhausted("budget-seconds")
        cap = self.limits.samples
        granted = n if cap is None else min(n, cap - self._pool.samples)
        if granted < n:
            self.note("budget-samples")
        if granted <= 0:
            raise BudgetExhausted("budget-samples")
        self._pool.samples += granted
        return granted

    async def lease(self, paths: int, tokens: int) -> Lease:
        """Set tokens aside for up to `paths` paths of at most `tokens` each; waits while others hold what is left.

        Raises BudgetExhausted when nothing is left and nothing will come back.
        """
        while True:
            if self.overdue:
                raise self.exhausted("budget-seconds")
            free = self.free
            if free is None or free > 0:
                lease = self._share(paths, tokens, free)
                self._pool.held += lease.paths * lease.tokens
                self._held += lease.paths * lease.tokens
                return lease
            used_up = self._bound is not None and self._spent >= self._bound
            if used_up or self._pool.held == 0:
                raise self.exhausted("budget-tokens")
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pool.waiters.append(change)
            await change

    def settle(self, leased: int, used: int, *, finished: bool = False) -> None:
        """Give back a lease of `leased` tokens of which `used` were generated."""
        self._pool.held -= leased
        self._pool.spent += used
        self._held -= leased
        self._spent += used
        if finished:
            self._pool.finished_paths += 1
            self._pool.finished_tokens += used
        waiters, self._pool.waiters = self._pool.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def note(self, reason: Stopped) -> None:
        """Remember why something was cut; the first reason wins."""
        self.cut = self.cut or reason

    def exhausted(self, reason: Stopped) -> BudgetExhausted:
        """The error to raise for this reason, which is noted as well."""
        self.note(reason)
        return BudgetExhausted(reason)

    def expected(self) -> int:
        """Expected length of a path in tokens, half as much again as the mean of those that finished."""
        if not self._pool.finished_paths:
            return FIRST_LEASE
        return max(SMALLEST_LEASE, -(-3 * self._pool.finished_tokens // (2 * self._pool.finished_paths)))

    def _share(self, paths: int, tokens: int, free: int | None) -> Lease:
        if free is None or paths * tokens <= free:
            return Lease(paths, tokens)
        size = min(tokens, self.expected())
        if paths * size <= free:
            return Lease(paths, size)
        least = min(tokens, SMALLEST_LEASE)
        fewer = max(1, min(paths, free // least))
        return Lease(fewer, max(1, min(tokens, free // fewer)))


PLAIN = frozenset({"direct"})
"""Strategies whose text is all content: no answer marker is looked for."""


@dataclass
class Run:
    """State of one run. `sampling.max_tokens` 0 means the rest of the context; `temperature` is the request's own."""

    id: str
    engine: Engine
    problem: Problem
    profile: Profile
    budget: Budget
    sampling: Sampling
    strategy: str
    seed: int
    publish: Callable[[Event], None]
    equality: Equality
    prompts: PromptCache
    checker: Checker | None = None
    knowledge: Retriever | None = None
    halted: Callable[[], bool] = lambda: False
    """Whether the client is to get nothing more of it."""
    powers: Powers = field(default_factory=Powers)
    temperature: float | None = None
    adapter: str | None = None
    think: bool | None = None
    usage: dict[str, Usage] = field(default_factory=dict[str, Usage])
    candidates: list[Path] = field(default_factory=list[Path])
    log: list[Event] = field(default_factory=list[Event])
    best: tuple[float, Answer] | None = None
    nodes: int = 0
    requests: int = 0
    samples: int = 0

    @property
    def plain(self) -> bool:
        """Whether the whole text of a path is its content."""
        return self.strategy in PLAIN

    def emit(self, event: Event) -> None:
        """Publish an event. Deltas are not kept: every path's `sampled` event has its whole text."""
        if event.kind != "delta":
            self.log.append(event)
        self.publish(event)

    def open(self, opened: Opened) -> int:
        """A new node of the trace, opened now; returns the number that it is given."""
        node, self.nodes = self.nodes, self.nodes + 1
        self.emit(replace(opened, node=node, at=self.budget.seconds))
        return node

    def request_id(self) -> str:
        """A name for the next engine request, unique in the server since the run's id is."""
        self.requests += 1
        return f"{self.id}-{self.requests}"

    def charge(self, stage: str, usage: Usage) -> None:
        """Account for tokens under a stage."""
        self.usage[stage] = self.usage.get(stage, Usage()) + usage

    def read_answer(self, text: str, *, tools: bool = False) -> str | None:
        """The answer that a vote counts; None where the text gives none.

        A tool call counts as its name and arguments, a JSON answer as its canonical text, an answer of a task with a
        checker as its text, any other as `answers.find` and `answers.normalise` read it.
        """
        parsed = self.engine.parse(text)
        if tools and parsed.tool_calls:
            calls = [[call.name, _canonical(call.arguments)] for call in parsed.tool_calls]
            return json.dumps(calls, sort_keys=True)
        if self.problem.structured is not None:
            return _canonical(parsed.content.strip()) or None
        return read_value(parsed.content, self.profile.answer_marker, exact=self.checker is not None)

    def borders(self, prompt: str) -> Borders:
        """Where reasoning ends in the paths of this rendered prompt."""
        info = self.engine.info
        marker = None if self.plain or self.problem.structured else self.profile.answer_marker
        calls = info.tool_start if self.problem.tools else None
        if not info.thinks:
            return Borders(marker=marker, stop=self.sampling.stop, calls=calls)
        thinking = prompt.rstrip().endswith(info.think_start)
        return Borders(info.think_start, info.think_end, None, thinking, self.sampling.stop, calls)


def read_value(content: str, marker: str | None, *, exact: bool, whole: bool = False) -> str | None:
    """The answer in a content, normalised unless it is `exact` text; None where there is none. `whole`: a content
    without a marked answer is one itself."""
    value = find(content, marker=marker)
    if value is None and whole:
        value = content.strip() or None
    if value is None:
        return None
    return " ".join(value.split()) if exact else normalise(value)


def _canonical(text: str) -> str:
    """JSON in one spelling; any other text as it is."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return text


LONGEST_END = 8
"""Tokens of the longest mark that may be cut off the end of a path."""


class PromptCache:
    """The prompts of one request: each is rendered once, and each text tokenised once, for whoever asks.

    Admission, budget and engine share the tokens; the choices of one request may share the cache. `tools`, where they
    are given, are always those of the request.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rendered: dict[tuple[tuple[Message, ...], bool, bool | None, str], str] = {}
        self._prompts: dict[str, Prompt] = {}

    def render(
        self,
        messages: tuple[Message, ...],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        """The prompt's text, as `Engine.render_chat` makes it."""
        key = (messages, bool(tools), think, prefill)
        if key not in self._rendered:
            self._rendered[key] = self._engine.render_chat(messages, tools=tools, think=think, prefill=prefill)
        return self._rendered[key]

    def prompt(self, text: str) -> Prompt:
        """A text with its tokens."""
        if text not in self._prompts:
            self._prompts[text] = Prompt(text, self._engine.tokenize(text))
        return self._prompts[text]

    def continued(self, path: Path, insert: str = "") -> tuple[int, ...]:
        """What a continuation of a path begins with: its tokens as they were drawn, then those of `insert`.

        Tokens that ended it without being part of its text (an end of sequence, a mark that was cut off) go. A text
        that ends inside a token is read anew, since then only the text says where the path ends.
        """
        drawn, ids = path.text[len(path.prefill) :], path.token_ids
        for end in range(len(ids), max(len(ids) - LONGEST_END, 0) - 1, -1):
            if self._engine.detokenize(ids[:end]) == drawn:
                first = len(self.prompt("").ids)  # a beginning of sequence, where the model has one
                return (*path.prompt_ids, *ids[:end], *(self.prompt(insert).ids[first:] if insert else ()))
        return self.prompt(path.prompt + path.text + insert).ids


def answer_form(problem: Problem) -> Structured | None:
    """What the text of the final answer must be: JSON of a schema, or of a call of one of the request's tools; None
    where it is free.

    `tool_choice` `required`, or a function by name, is held by grammar: the answer begins with the template's mark of a
    call, and what follows is JSON of one of the allowed calls. A model that thinks by itself does not think first then.
    """
    if problem.structured or not must_call_tool(problem):
        return problem.structured
    only = problem.tool_choice
    named = cast(str, only["function"]["name"]) if isinstance(only, Mapping) else None
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in problem.tools
        if named in (None, tool["function"]["name"])
    ]
    return Structured(json_schema=json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls}))


def must_call_tool(problem: Problem) -> bool:
    """Whether the answer has to be a call of a tool."""
    return bool(problem.tools) and problem.tool_choice not in (None, "auto", "none")
