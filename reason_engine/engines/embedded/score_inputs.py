"""Texts to score on their way to the worker: in tokens of the model that reads them, with the places to read.

A head over the served model's own states reads what that model wrote after the prompt it had; a model of its own reads
what its format shows it (`rewards.layout`). One pass a text, whatever the number of its steps. Never loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.admission import check_prompt, prompt_ids
from reason_engine.engines.embedded.messages import ScoreTexts
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.rewards.folders import RewardFile
from reason_engine.engines.rewards.formats import RewardKind
from reason_engine.engines.rewards.layout import show
from reason_engine.engines.rewards.naming import choose_reward
from reason_engine.engines.rewards.tokens import last_before, located, tokens_of
from reason_engine.errors import CapabilityMissing, RequestError
from reason_engine.types import Aggregate, Message, ScoreRequest

Read = tuple[tuple[int, ...], tuple[int, ...], int]
"""Of one input: tokens of the whole text, places to read, where the answer begins."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """How a reward model reads: its format, context and vocabulary; `opening` stands before a text without turns."""

    file: RewardFile
    chat: ChatFormat
    context: int
    vocab: int
    opening: str = ""


class ScoreInputs:
    """For the served model, which embeds, or a reward model of `files`. `chat`, `context` and `vocab` are the served
    model's."""

    def __init__(self, files: Mapping[str, RewardFile], chat: ChatFormat, context: int, vocab: int) -> None:
        """Reads the formats of reward models with a checkpoint of their own. Raises ModelLoadError."""
        self._chat, self._context, self._vocab = chat, context, vocab
        self._readers = {
            name: _Reader(file, chat, context, vocab) if file.own else _reader(file) for name, file in files.items()
        }
        self.kinds: dict[str, RewardKind] = {name: file.kind for name, file in files.items()}
        """Of each reward model by name."""
        self.aggregates: dict[str, Aggregate] = {
            name: file.format.aggregate for name, file in files.items() if file.kind == "process"
        }
        """How each step model's scores usually make a path's."""

    async def message(self, identity: str, request: ScoreRequest) -> ScoreTexts:
        """The request in tokens; texts to embed are cut to the context. Raises RequestError kinds."""
        if request.task == "embed":
            cut = [(await prompt_ids(self._chat, text))[: self._context] for text in request.inputs]
            for ids in cut:
                check_prompt(ids, self._context + 1, self._vocab)
            return ScoreTexts(identity, None, tuple(cut), ((0,),) * len(cut), (0,) * len(cut))
        if not self._readers:
            message = "no reward model is loaded; serve one beside the model with --reward-model NAME=PATH"
            raise CapabilityMissing(message, param="reasoning.verifier", code="capability_missing")
        name = choose_reward(request, self.kinds)
        for field, given in (("ends", request.ends), ("prompts", request.prompts)):
            if given and len(given) != len(request.inputs):
                raise RequestError(f"{field} and inputs differ in number", param=field)
        reader = self._readers[name]
        plain = reader.file.own or reader.file.format.read in ("step", "end")
        made = [(_plain if plain else _marked)(reader, request, number) for number in range(len(request.inputs))]
        for ids, _, _ in made:
            check_prompt(ids, reader.context + 1, reader.vocab)
        inputs, places, begins = zip(*made, strict=True) if made else ((), (), ())
        return ScoreTexts(identity, name, inputs, places, begins)


def _reader(file: RewardFile) -> _Reader:
    """Of a checkpoint of its own."""
    folder = Path(file.path)
    shape, chat, opening = read_shape(folder, heads=True), ChatFormat.load(folder), ""
    if file.format.layout == "text" and file.format.head == "labels":
        stored = ModelFolder(folder).read_json("tokenizer_config.json", missing={}).get("bos_token")
        found = stored.get("content") if isinstance(stored, dict) else stored
        if isinstance(found, str) and not chat.tokenize("")[:1]:  # a tokenizer that puts none before a text by itself
            opening = found
    return _Reader(file, chat, shape.context, shape.vocab, opening)


def _marked(reader: _Reader, request: ScoreRequest, number: int) -> Read:
    """In a format with marks; for `reward` the whole text is one step."""
    text = request.inputs[number]
    if request.task == "token_reward" and not request.ends:
        raise RequestError("a step model of this format needs the places where steps end", param="ends")
    ends = request.ends[number] if request.task == "token_reward" else (len(text),)
    shown = show(reader.file.format, request.turns, text, ends)
    ids, places = tokens_of(shown, reader.chat, opening=reader.opening)
    return tuple(ids), places, 0


def _plain(reader: _Reader, request: ScoreRequest, number: int) -> Read:
    """Without marks. The last token is read for `reward`, else those where the ends are, or all."""
    chat, file, text = reader.chat, reader.file, request.inputs[number]
    ends = request.ends[number] if request.ends else None
    before = request.prompts[number] if request.prompts and file.own else ""
    if request.turns and not before:
        before = chat.render_chat(request.turns)
    # A model with a format of its own has seen finished turns; a head reads what the served model writes.
    finished = request.turns and not file.own and request.task == "reward"
    turns = (*request.turns, Message("assistant", text))
    whole = chat.render_chat(turns, closed=True) if finished else before + text
    ids, starts = located(chat, [whole])
    if request.task == "reward" and file.side is None:
        return tuple(ids), (len(ids) - 1,), 0
    first = next((n for n, start in enumerate(starts) if start >= 0), 0)
    begin = first + sum(0 <= start < len(before) for start in starts)
    if request.task == "reward" or ends is None:
        return tuple(ids), tuple(range(len(ids) - 1 if request.task == "reward" else first, len(ids))), begin
    return tuple(ids), last_before(starts, [len(before) + end for end in ends]), begin
