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
        inputs: list[tuple[int, ...]] = []
        places: list[tuple[int, ...]] = []
        for number, text in enumerate(request.inputs):
            ends = request.ends[number] if request.ends else None
            ids, read = _tokens(self._readers[name], request, text, ends)
            inputs.append(ids)
            places.append(read)
        return Rate(identity, name, tuple(inputs), tuple(places))

    async def embedding(self, identity: str, inputs: Sequence[str]) -> Rate:
        """Texts to embed by the served model, in tokens, each cut to the context. Raises RequestError kinds."""
        cut = [(await prompt_ids(self._chat, text))[: self._context] for text in inputs]
        for ids in cut:
            check_prompt(ids, self._context + 1, self._vocab)
        return Rate(identity, None, tuple(cut), ((0,),) * len(cut))


def _reader(file: RewardFile) -> Reader:
    folder = Path(file.path)
    shape = read_shape(folder, heads=True)
    return Reader(file, ChatFormat.load(folder), shape.context, shape.vocab)


def _tokens(
    reader: Reader, request: ScoreRequest, text: str, ends: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(tokens of the whole text, places to read): the last token for `reward`, else where the ends are."""
    chat = reader.chat
    before = chat.render_chat(request.turns) if request.turns else ""
    # A model with a format of its own has seen finished turns; a head reads what the served model writes.
    if request.turns and not reader.file.own and request.task == "reward":
        whole = chat.render_chat((*request.turns, Message("assistant", text)), closed=True)
    else:
        whole = before + text
    ids = tuple(chat.tokenize(whole))
    check_prompt(ids, reader.context + 1, reader.vocab)
    if request.task == "reward":
        return ids, (len(ids) - 1,)
    starts = [start for start, _ in chat.tokenizer.encode(whole, add_special_tokens=False).offsets]
    first = len(ids) - len(starts)
    if ends is None:
        return ids, tuple(range(first, len(ids)))
    return ids, tuple(first + max(0, _last(starts, len(before) + end)) for end in ends)


def _last(starts: list[int], end: int) -> int:
    """The last token that begins before a place; the first one where none does."""
    return max((number for number, start in enumerate(starts) if start < end), default=0)
