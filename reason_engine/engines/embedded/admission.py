"""Requests on their way to the worker: what is refused, each with the field at fault, and texts to score in tokens.

A prompt that comes as token ids is not tokenised again. Never loads torch.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reason_engine.contracts import Capabilities
from reason_engine.engines import check_counts, room_left
from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.embedded import grammar
from reason_engine.engines.embedded.messages import ScoreTexts
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.reward_models import RewardFile, RewardKind, choose_reward
from reason_engine.engines.text import token_ids_of
from reason_engine.errors import CapabilityMissing, RequestError
from reason_engine.types import GenerateRequest, Message, Prompt, ScoreRequest

LONG = 20_000
"""Characters above which a prompt is tokenised beside the event loop."""

RANGES = {
    "temperature": (0.0, 100.0), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0), "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0), "repetition_penalty": (1e-3, 100.0),
}  # fmt: skip


async def prompt_ids(chat: ChatFormat, prompt: str | Sequence[int]) -> tuple[int, ...]:
    """The prompt's tokens; those of a long text are made in a thread."""
    if isinstance(prompt, Prompt) or len(prompt) < LONG:
        return token_ids_of(prompt, chat.tokenize)
    return await asyncio.to_thread(token_ids_of, prompt, chat.tokenize)


def check_prompt(ids: Sequence[int], context: int, vocab: int) -> None:
    """At least one token, all of the vocabulary, and room for one more."""
    if ids and not 0 <= min(ids) <= max(ids) < vocab:
        raise RequestError(f"a prompt token is outside the vocabulary of {vocab}", param="prompt")
    room_left(len(ids), context)


def check(request: GenerateRequest, vocab: int, caps: Capabilities, running: Container[str]) -> None:
    """Everything else about a request."""
    sampling = request.sampling
    check_counts(request, running)
    for name, (low, high) in RANGES.items():
        value: float = getattr(sampling, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise RequestError(f"{name} must be in {low:g}..{high:g}, not {value:g}", param=name)
    if any(not math.isfinite(value) for _, value in sampling.logit_bias):
        raise RequestError("logit_bias must be finite", param="logit_bias")
    if sampling.top_k < -1:
        raise RequestError("top_k must be at least -1", param="top_k")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= caps.logprobs:
        raise RequestError(f"logprobs must be in 0..{caps.logprobs}", param="top_logprobs")
    if not all(sampling.stop):
        raise RequestError("a stop string must not be empty", param="stop")
    if any(not 0 <= token < vocab for token, _ in sampling.logit_bias):
        raise RequestError(f"a token of logit_bias is outside the vocabulary of {vocab}", param="logit_bias")
    if sampling.structured is not None:
        grammar.check(sampling.structured)


@dataclass(frozen=True, slots=True)
class _RewardModel:
    """How a reward model reads: its format, context and vocabulary."""

    file: RewardFile
    chat: ChatFormat
    context: int
    vocab: int


class ScoreInputs:
    """Texts to score, in tokens of the model that reads them: the served one to embed, or a reward model of `files`.
    `chat`, `context` and `vocab` are the served model's."""

    def __init__(self, files: Mapping[str, RewardFile], chat: ChatFormat, context: int, vocab: int) -> None:
        """Reads the formats of reward models with a checkpoint of their own. Raises ModelLoadError."""
        self._chat, self._context, self._vocab = chat, context, vocab
        self._models: dict[str, _RewardModel] = {}
        for name, file in files.items():
            read_by = (chat, context, vocab)
            if not file.own:
                shape = read_shape(Path(file.path), heads=True)
                read_by = (ChatFormat.load(Path(file.path)), shape.context, shape.vocab)
            self._models[name] = _RewardModel(file, *read_by)
        self.kinds: dict[str, RewardKind] = {name: file.kind for name, file in files.items()}
        """Of each reward model by name."""

    async def message(self, identity: str, request: ScoreRequest) -> ScoreTexts:
        """The request in tokens; texts to embed are cut to the context. Raises RequestError kinds."""
        if request.task == "embed":
            cut = [(await prompt_ids(self._chat, text))[: self._context] for text in request.inputs]
            for ids in cut:
                check_prompt(ids, self._context + 1, self._vocab)
            return ScoreTexts(identity, None, tuple(cut), ((0,),) * len(cut), (0,) * len(cut))
        if not self._models:
            message = "no reward model is loaded; serve one beside the model with --reward-model NAME=PATH"
            raise CapabilityMissing(message, param="reasoning.verifier", code="capability_missing")
        name = choose_reward(request, self.kinds)
        for field, given in (("ends", request.ends), ("prompts", request.prompts)):
            if given and len(given) != len(request.inputs):
                raise RequestError(f"{field} and inputs differ in number", param=field)
        made = [_tokens(self._models[name], request, number) for number in range(len(request.inputs))]
        inputs, places, begins = zip(*made, strict=True) if made else ((), (), ())
        return ScoreTexts(identity, name, inputs, places, begins)


def _tokens(model: _RewardModel, request: ScoreRequest, number: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Of one input: (tokens of the whole text, places to read, where the answer begins). The last token is read for
    `reward`, else those where the ends are."""
    chat, text = model.chat, request.inputs[number]
    ends = request.ends[number] if request.ends else None
    before = request.prompts[number] if request.prompts and model.file.own else ""
    if request.turns and not before:
        before = chat.render_chat(request.turns)
    # A model with a format of its own has seen finished turns; a head reads what the served model writes.
    finished = request.turns and not model.file.own and request.task == "reward"
    turns = (*request.turns, Message("assistant", text))
    whole = chat.render_chat(turns, closed=True) if finished else before + text
    ids = tuple(chat.tokenize(whole))
    check_prompt(ids, model.context + 1, model.vocab)
    if request.task == "reward" and model.file.side is None:
        return ids, (len(ids) - 1,), 0
    starts = [start for start, _ in chat.tokenizer.encode(whole, add_special_tokens=False).offsets]
    first = len(ids) - len(starts)
    begin = first + sum(start < len(before) for start in starts)
    if request.task == "reward" or ends is None:
        return ids, tuple(range(len(ids) - 1 if request.task == "reward" else first, len(ids))), begin
    # The last token that begins before an end; the first one where none does.
    last = (max((i for i, start in enumerate(starts) if start < len(before) + end), default=0) for end in ends)
    return ids, tuple(first + place for place in last), begin
