"""An engine whose answers come from a function: for tests, demonstrations and measurements of everything else.

A token is one word with the whitespace before it; a token id is its place in the engine's own vocabulary, which grows
as it meets words, so that a continuation on token ids works as on a real engine. Nothing happens by time: a `gate`
decides when a sample may go on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reason_engine.contracts import Capabilities, Health, Parsed
from reason_engine.engines import check_adapter, check_counts, engines
from reason_engine.engines.text import StopFinder, token_ids_of
from reason_engine.errors import ContextLengthExceeded, EngineDead, RequestError
from reason_engine.types import (
    Choice,
    ChoiceRequest,
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    ModelInfo,
    ScoreRequest,
    Scores,
    Structured,
    TokenLogprob,
)

Reply = Callable[[str, int, int], str]
Gate = Callable[[GenerateRequest, int, int], Awaitable[None]]


def echo(prompt: str, seed: int, index: int) -> str:
    """The default reply: the last line that is no chat mark, as an answer."""
    lines = [line for line in prompt.splitlines() if line and not line.startswith("<")]
    return f"Answer: {lines[-1] if lines else ''}"


@engines.register("scripted")
class Scripted:
    """Answers with `reply(prompt, seed, index)`; sample i of a request sees seed + i and index i.

    `gate(request, index, position)` is awaited before each token. `logprob(prompt, token)` gives a token's
    log-probability, `choose(prompt, options)` the weights of options, `reward(text)` a score. `fail(request, index,
    position)` may raise an error at a token. A prompt of token ids that is exactly a sample cut by `max_tokens` goes on
    with the rest of that reply; every other prompt is a new call of `reply`.

    Counters: `requests`, `samples`, `chooses`, `prompt_tokens`, `generated`, `running`, `peak` (samples at once),
    `aborted` (samples that were cut), `log` (every request).
    """

    def __init__(
        self,
        reply: Reply = echo,
        *,
        gate: Gate | None = None,
        fail: Callable[[GenerateRequest, int, int], None] | None = None,
        logprob: Callable[[str, str], float] = lambda prompt, token: -0.5,
        choose: Callable[[str, tuple[str, ...]], Sequence[float]] | None = None,
        reward: Callable[[str], float] | None = None,
        context: int = 4096,
        name: str = "scripted",
        thinks: bool = False,
        caps: Capabilities | None = None,
    ) -> None:
        self.reply, self.gate, self.fail, self.logprob, self.reward = reply, gate, fail, logprob, reward
        self._option_weights = choose or (lambda prompt, options: [1.0] * len(options))
        self.caps = caps or Capabilities(
            logprobs=20, token_ids=True, continuation=True, choose=True, score=reward is not None, adapters=True,
            structured=True, drafting=("none",), exact_budget=True, sample_abort=True,
        )  # fmt: skip
        self.info = ModelInfo(
            name, f"scripted:{name}", context, thinks, fingerprint="scripted", think_on_request=thinks
        )
        self._words: list[str] = [EOS]
        self._ids: dict[str, int] = {EOS: 0}
        self._adapters: dict[str, str] = {}
        self._open: dict[str, list[asyncio.Event]] = {}
        self._cut: dict[tuple[int, ...], dict[int, list[int]]] = {}
        self._dead = self._started = False
        self.requests = self.samples = self.chooses = self.prompt_tokens = 0
        self.generated = self.running = self.peak = self.aborted = 0
        self.log: list[GenerateRequest] = []

    async def start(self) -> None:
        self._started = True

    async def close(self) -> None:
        self._started = False
        self._stop_all()

    def die(self) -> None:
        """From now on every request fails with EngineDead, open ones too."""
        self._dead = True
        self._stop_all()

    async def health(self) -> Health:
        return Health(self._started and not self._dead, not self._dead, self.running, 0, self.generated)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Stream word by word. Raises RequestError kinds before anything runs."""
        text, ids = self._admit(request)
        self.requests += 1
        self.samples += request.n
        self.prompt_tokens += len(ids)
        self.log.append(request)
        self.running += request.n
        self.peak = max(self.peak, self.running)
        stops, queue = [asyncio.Event() for _ in range(request.n)], asyncio.Queue[Chunk | BaseException]()
        self._open[request.id] = stops
        left = set(range(request.n))
        first = True
        tasks = [asyncio.create_task(self._sample(request, text, ids, *one, queue)) for one in enumerate(stops)]
        try:
            while left:
                item = await queue.get()
                if isinstance(item, BaseException):
                    raise item
                if item.finish_reason:
                    self.aborted += item.finish_reason == "abort"
                    left.discard(item.index)
                    self.running -= 1
                if first and item.index == 0:
                    first = False
                    item = replace(item, prompt_tokens=len(ids))
                yield item
        finally:
            self.running -= len(left)
            self.aborted += len(left)
            del self._open[request.id]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def abort(self, request_id: str, index: int | None = None) -> None:
        for place, stop in enumerate(self._open.get(request_id, ())):
            if index in (None, place):
                stop.set()

    async def choose(self, request: ChoiceRequest) -> Choice:
        """The given weights, normalised."""
        check_adapter(request.adapter, self._adapters)
        if not request.options:
            raise RequestError("no options to choose from", param="options")
        text, ids = self._text_and_ids(request.prompt)
        self.chooses += 1
        self.prompt_tokens += len(ids)
        weights = self._option_weights(text, request.options)
        total = sum(weights)
        return Choice(tuple(w / total for w in weights), min(1.0, total), prompt_tokens=len(ids))

    async def score(self, request: ScoreRequest) -> Scores:
        """One value a text, from `reward`."""
        if self.reward is None:
            raise RequestError("this engine scores nothing", param="score", code="capability_missing")
        return Scores(tuple((self.reward(text),) for text in request.inputs), sum(map(len, request.inputs)))

    async def load_adapter(self, name: str, path: str) -> None:
        self._adapters[name] = path

    async def unload_adapter(self, name: str) -> None:
        check_adapter(name, self._adapters)
        del self._adapters[name]

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """It does not draft."""

    def adapters(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    def tokenize(self, text: str) -> list[int]:
        return self._split(text)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return "".join(self._words[i] for i in token_ids)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        """`<role>` and the text on lines of their own, then `<assistant>`."""
        turns = [f"<tools> {json.dumps(list(tools))}\n"] if tools else []
        turns += [f"<{m.role}>\n{m.content}\n" for m in messages]
        opened = f"{self.info.think_start}\n" if think or (think is None and self.info.thinks) else ""
        return "".join(turns) + "<assistant>\n" + opened + prefill

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        start, end = self.info.think_start, self.info.think_end
        if text.startswith(start) or prompt.endswith(f"{start}\n"):
            reasoning, _, content = text.removeprefix(start).partition(end)
            return Parsed(content.lstrip("\n"), reasoning.strip() or None)
        return Parsed(text)

    def _admit(self, request: GenerateRequest) -> tuple[str, tuple[int, ...]]:
        if self._dead:
            raise EngineDead("the scripted engine was told to die")
        check_counts(request, self._open)
        check_adapter(request.adapter, self._adapters)
        return self._text_and_ids(request.prompt)

    def _stop_all(self) -> None:
        for stop in (stop for stops in self._open.values() for stop in stops):
            stop.set()

    def _text_and_ids(self, prompt: str | tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """A prompt both ways. Raises ContextLengthExceeded."""
        text, ids = prompt if isinstance(prompt, str) else self.detokenize(prompt), token_ids_of(prompt, self.tokenize)
        if len(ids) >= self.info.context:
            message = f"the prompt has {len(ids)} tokens; the model's context is {self.info.context}"
            raise ContextLengthExceeded(message, param="messages", code="context_length_exceeded")
        return text, ids

    async def _sample(
        self,
        request: GenerateRequest,
        prompt: str,
        prompt_ids: tuple[int, ...],
        index: int,
        stop: asyncio.Event,
        queue: asyncio.Queue[Chunk | BaseException],
    ) -> None:
        sampling, cut = request.sampling, StopFinder(request.sampling.stop, request.sampling.include_stop)
        limit = min(sampling.max_tokens, self.info.context - len(prompt_ids))
        held: list[TokenLogprob] = []

        def put(text: str, ids: tuple[int, ...], finish: FinishReason | None, why: str | int | None = None) -> None:
            self.generated += len(ids)
            queue.put_nowait(Chunk(index, text, ids, len(ids), tuple(held), finish, why))
            held.clear()

        async def run() -> None:
            seed = sampling.seed + index
            words = self._rest(request.prompt, seed)
            if words is None:
                words = self._split(self._answer(prompt, sampling.structured, seed, index))
                words += [] if sampling.ignore_eos else [self._ids[EOS]]
            for position, word in enumerate(words):
                if self.gate:
                    await self.gate(request, index, position)
                else:
                    await asyncio.sleep(0)
                if self.fail:
                    self.fail(request, index, position)
                if sampling.logprobs is not None:
                    held.append(self._logprob(prompt, word, sampling.logprobs))
                if word == self._ids[EOS] or word in sampling.stop_token_ids:
                    return put(cut.finish(), (word,), "stop", None if word == self._ids[EOS] else word)
                shown, found = cut.feed(self._words[word])
                if found is not None:
                    return put(shown, (word,), "stop", found)
                if position + 1 == limit:
                    whole = (*prompt_ids, *words[:limit])
                    self._cut.setdefault(whole, {})[seed] = words[limit:]
                    return put(shown + cut.finish(), (word,), "length")
                put(shown, (word,), None)
            put(cut.finish(), (), "stop")

        work, halt = asyncio.create_task(run()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((work, halt), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif self._dead:
                queue.put_nowait(EngineDead("the scripted engine was told to die"))
            else:
                put(cut.finish(), (), "abort")
        except Exception as error:  # boundary: a script's own error reaches whoever reads the stream
            queue.put_nowait(error)
        finally:
            work.cancel()
            halt.cancel()
            await asyncio.wait((work, halt))

    def _rest(self, prompt: str | tuple[int, ...], seed: int) -> list[int] | None:
        """What a sample that `max_tokens` cut had left to say; of several with the same text, the one of this seed."""
        found = self._cut.get(prompt) if isinstance(prompt, tuple) else None
        return found.get(seed, next(iter(found.values()))) if found else None

    def _answer(self, prompt: str, structured: Structured | None, seed: int, index: int) -> str:
        """The reply; where it breaks a constraint, something that keeps it."""
        text = self.reply(prompt, seed, index)
        if structured and structured.choice and text not in structured.choice:
            return structured.choice[seed % len(structured.choice)]
        if structured and (structured.json_object or structured.json_schema) and not _is_json(text):
            return "{}"
        return text

    def _logprob(self, prompt: str, word: int, count: int) -> TokenLogprob:
        token = self._words[word]
        value = self.logprob(prompt, token)
        others = ((word, token, value), *((-1 - i, f"other{i}", value - 1 - i) for i in range(count)))
        return TokenLogprob(word, token, value, others[:count])

    def _split(self, text: str) -> list[int]:
        return [self._id(word) for word in re.findall(r"\s*\S+|\s+\Z", text)]

    def _id(self, word: str) -> int:
        if word not in self._ids:
            self._ids[word] = len(self._words)
            self._words.append(word)
        return self._ids[word]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


EOS = "</s>"
