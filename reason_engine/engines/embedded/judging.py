"""Reward and embedding requests before the worker: which model, and the tokens to read at. Never loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reason_engine.engines._chat import ChatFormat
from reason_engine.engines._rewards import Kind, RewardFile, choose
from reason_engine.engines.embedded.admission import check_prompt, prompt_ids
from reason_engine.engines.embedded.messages import Rate
from reason_engine.engines.embedded.shape import read_shape
from reason_engine.errors import CapabilityMissing, RequestError
from reason_engine.types import Message, ScoreRequest


@dataclass(frozen=True, slots=True)
class Reader:
    """How a reward model reads: its format, context and vocabulary."""

    file: RewardFile
    chat: ChatFormat
    context: int
    vocab: int


class Judging:
    """The reward models of one engine by name. `chat`, `context` and `vocab` are the served model's."""

    def __init__(self, files: Mapping[str, RewardFile], chat: ChatFormat, context: int, vocab: int) -> None:
        """Reads the formats of those with a checkpoint of their own. Raises ModelLoadError."""
        self._chat, self._context, self._vocab = chat, context, vocab
        self._readers = {
            name: Reader(file, chat, context, vocab) if file.own else _reader(file)
            for name, file in files.items()
        }

    @property
    def kinds(self) -> dict[str, Kind]:
        """Of each by name."""
        return {name: reader.file.kind for name, reader in self._readers.items()}

    def message(self, identity: str, request: ScoreRequest) -> Rate:
        """The request in tokens. Raises RequestError kinds."""
        if not self._readers:
            raise CapabilityMissing(
                "no reward model is loaded; serve one beside the model with --reward-model NAME=PATH",
                param="reasoning.verifier",
                code="capability_missing",
            )
        name = choose(request, self.kinds)
        if request.ends and len(request.ends) != len(request.inputs):
            raise RequestError("ends and inputs differ in number", param="ends")
        if request.prompts and len(request.prompts) != len(request.inputs):
            raise RequestError("prompts and inputs differ in number", param="prompts")
        inputs: list[tuple[int, ...]] = []
        places: list[tuple[int, ...]] = []
        begins: list[int] = []
        for number, text in enumerate(request.inputs):
            ends = request.ends[number] if request.ends else None
            before = request.prompts[number] if request.prompts else ""
            ids, read, begin = _tokens(self._readers[name], request, text, ends, before)
            inputs.append(ids)
            places.append(read)
            begins.append(begin)
        return Rate(identity, name, tuple(inputs), tuple(places), tuple(begins))

    async def embedding(self, identity: str, inputs: Sequence[str]) -> Rate:
        """Texts to embed by the served model, in tokens, each cut to the context. Raises RequestError kinds."""
        cut = [(await prompt_ids(self._chat, text))[: self._context] for text in inputs]
        for ids in cut:
            check_prompt(ids, self._context + 1, self._vocab)
        return Rate(identity, None, tuple(cut), ((0,),) * len(cut), (0,) * len(cut))


def _reader(file: RewardFile) -> Reader:
    folder = Path(file.path)
    shape = read_shape(folder, heads=True)
    return Reader(file, ChatFormat.load(folder), shape.context, shape.vocab)


def _tokens(
    reader: Reader, request: ScoreRequest, text: str, ends: tuple[int, ...] | None, prompt: str
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(tokens of the whole text, places to read, where the answer begins): the last token is read for `reward`, else
    those where the ends are."""
    chat = reader.chat
    before = prompt if reader.file.own else ""
    if request.turns and not before:
        before = chat.render_chat(request.turns)
    # A model with a format of its own has seen finished turns; a head reads what the served model writes.
    if request.turns and not reader.file.own and request.task == "reward":
        whole = chat.render_chat((*request.turns, Message("assistant", text)), closed=True)
    else:
        whole = before + text
    ids = tuple(chat.tokenize(whole))
    check_prompt(ids, reader.context + 1, reader.vocab)
    if request.task == "reward" and reader.file.side is None:
        return ids, (len(ids) - 1,), 0
    starts = [start for start, _ in chat.tokenizer.encode(whole, add_special_tokens=False).offsets]
    first = len(ids) - len(starts)
    begin = first + sum(start < len(before) for start in starts)
    if request.task == "reward":
        return ids, (len(ids) - 1,), begin
    if ends is None:
        return ids, tuple(range(first, len(ids))), begin
    return ids, tuple(first + max(0, _last(starts, len(before) + end)) for end in ends), begin


def _last(starts: list[int], end: int) -> int:
    """The last token that begins before a place; the first one where none does."""
    return max((number for number, start in enumerate(starts) if start < end), default=0)
