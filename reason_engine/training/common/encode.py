"""From rows to batches: where examples come from, their token ids with a loss weight a token, micro-batches.

A source is a mixture's stream or a shuffled file; both can go on where they were. A batch is one fair draw of examples,
sorted by length and cut into micro-batches of few padded tokens; padding stands on the right, where a causal model
never looks, so no mask is needed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from reason_engine.data import Example
from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation, Row, Text, Turns, turn_json
from reason_engine.data.mixture import Stream
from reason_engine.errors import SetupError
from reason_engine.training.text.marks import AnswerMarks, find_marks
from reason_engine.types import Message

I = TypeVar("I", bound="Item")  # noqa: E741


class Position(Protocol):
    """A place in the data, with a state of plain values."""

    def state(self) -> list[Any]: ...
    def restore(self, state: Sequence[Any]) -> None: ...


class Source(Position, Protocol):
    """Rows without end."""

    def __next__(self) -> Any: ...


class FileSource:
    """A file's rows of some kinds, shuffled anew each epoch by the seed; `rows` are all of them in the file's order.
    Raises SetupError naming the first bad row."""

    def __init__(self, path: Path, kinds: Sequence[type[Row]], seed: int, format: str | None = None) -> None:
        self.rows: list[Any] = list(read_rows(path, *kinds, format=format))
        self._seed, self._epoch, self._place = seed, 0, 0
        self._order = self._shuffled()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._place == len(self.rows):
            self._epoch, self._place = self._epoch + 1, 0
            self._order = self._shuffled()
        self._place += 1
        return self.rows[self._order[self._place - 1]]

    def state(self) -> list[Any]:
        return [self._epoch, self._place]

    def restore(self, state: Sequence[Any]) -> None:
        self._epoch, self._place = state
        self._order = self._shuffled()

    def _shuffled(self) -> list[int]:
        order = list(range(len(self.rows)))
        random.Random(f"train-{self._seed}-{self._epoch}").shuffle(order)
        return order


def source_of(config: Any, kinds: Sequence[type[Row]]) -> Source:
    """The source that a config names."""
    if "mixture" in type(config).model_fields and config.mixture:
        return Stream(config.mixture, config.seed)
    return FileSource(config.data, kinds, config.seed, config.format)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a conversation; `weights[i]` is the loss weight of predicting token i."""

    ids: list[int]
    weights: list[float]


class Item(Protocol):
    """What an objective learns from at once; `ids` are all its tokens."""

    @property
    def ids(self) -> list[int]: ...


class LearnedItem(Protocol):
    """What an online method learns from at once: a rollout, or a pair of them."""

    @property
    def rollouts(self) -> Sequence[Rollout]: ...


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt and what was drawn after it, in tokens. Place t predicts token t + 1 of both together."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def rollouts(self) -> Sequence[Rollout]:
        return (self,)


class Encoder:
    """Renders with the tokenizer's own chat template; finds the place of the answer."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer, self.max_length = tokenizer, max_length
        self._end = f"{tokenizer.eos_token}"

    @cached_property
    def marks(self) -> AnswerMarks:
        """What the template writes around an answer. Raises SetupError where that cannot be found."""
        tokenizer = self._tokenizer
        source = f"{tokenizer.chat_template or ''}"
        return find_marks(lambda turns, mark: self._template(turns, (), mark), _specials(tokenizer), self._end, source)

    def encode(self, rows: Sequence[Example | Conversation | Text]) -> list[Encoded]:
        """One entry a conversation, cut at the limit; plain text, after them, in as many pieces as it needs."""
        pieces = [piece for row in rows if isinstance(row, Text) for piece in self._pieces(row)]
        return self._conversations([row for row in rows if not isinstance(row, Text)]) + pieces

    def answer(self, prompt: Turns, text: str) -> Encoded:
        """One answer to one prompt."""
        return self._conversations([Conversation((*prompt, Message("assistant", text)))])[0]

    def prompt(self, prompt: Turns) -> str:
        """The rendered prompt with its generation mark. Raises SetupError where the template refuses it."""
        return self._template([turn_json(turn) for turn in prompt], (), True)

    def closed(self, prompt: Turns, text: str) -> str:
        """The rendered conversation, its last turn finished."""
        turns = [turn_json(turn) for turn in (*prompt, Message("assistant", text))]
        return self._template(turns, (), False)

    def tokens(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids and where each begins in the text."""
        table = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return table["input_ids"], [start for start, _ in table["offset_mapping"]]

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Where the tokens of each text begin in it."""
        if not texts:
            return []
        table = self._tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [[start for start, _ in spans] for spans in table["offset_mapping"]]

    def _conversations(self, rows: Sequence[Example | Conversation]) -> list[Encoded]:
        if not rows:
            return []
        rendered = [self.render(row) for row in rows]
        texts = [text for text, _, _, _ in rendered]
        table = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        parts = zip(rows, rendered, table["input_ids"], table["offset_mapping"], strict=True)
        found: list[Encoded] = []
        for row, (_, start, stop, content), ids, spans in parts:
            ranges = [(content + a, content + b) for a, b in row.skip]
            weights = [
                row.weight if a >= start and b <= stop and not any(x <= a < y for x, y in ranges) else 0.0
                for a, b in spans
            ]
            if row.weight and not any(weights[1 : self.max_length]):
                raise SetupError(f"an example of {len(ids)} tokens has no answer within max_length {self.max_length}")
            found.append(Encoded(ids[: self.max_length], weights[: self.max_length]))
        return found

    def _pieces(self, row: Text) -> list[Encoded]:
        """Every token teaches but a piece's first."""
        ids, _ = self.tokens(row.text + self._end)
        parts = [ids[at : at + self.max_length] for at in range(0, len(ids), self.max_length)]
        return [Encoded(part, [0.0] + [1.0] * (len(part) - 1)) for part in parts if len(part) > 1]

    def render(self, row: Example | Conversation) -> tuple[str, int, int, int]:
        """The rendered conversation, where what is learned begins and ends, its end mark included, and where the
        answer's own text begins."""
        if isinstance(row, Example):
            return self._answered(self._template(row.messages()[:-1], (), True), row.answer)
        prompt = self._template([turn_json(turn) for turn in row.prompt], row.tools, True)
        if not row.answer.reasoning and not row.answer.tool_calls:
            return self._answered(prompt, row.answer.content)
        whole = self._template([turn_json(turn) for turn in row.messages], row.tools, False)
        if not whole.startswith(prompt):
            raise SetupError(
                "the chat template writes a past answer with reasoning or tool calls otherwise than a new one: "
                "such rows cannot be learned with this tokenizer"
            )
        end = self.marks.end
        stop = whole.rfind(end, len(prompt))
        text = whole + end if stop < 0 else whole[: stop + len(end)]
        # Ranges to skip are of the content, which begins somewhere within what is learned.
        if row.skip:
            raise SetupError("`skip` cannot be told apart in an answer with reasoning or tool calls")
        return text, len(prompt), len(text), len(prompt)

    def _answered(self, prompt: str, answer: str) -> tuple[str, int, int, int]:
        marks = self.marks
        text = f"{prompt}{marks.lead}{answer}{marks.end}"
        return text, len(prompt), len(text), len(prompt) + len(marks.lead)

    def _template(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any], mark: bool) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                list(turns), tools=list(tools) or None, tokenize=False, add_generation_prompt=mark
            )
        except Exception as error:  # a template raises whatever its writer liked
            raise SetupError(f"the chat template refuses a row: {error}") from None


def _specials(tokenizer: Any) -> list[str]:
    """All of a tokenizer's special tokens, those that no name is given to included."""
    return [f"{token}" for token in tokenizer.added_tokens_decoder.values() if token.special]


def micro_batches(batch: Sequence[I], tokens: int) -> list[list[I]]:
    """Groups of similar length of at most `tokens` padded tokens (a longer example stands alone).

    A small rest is shared with the group before it: compiled kernels are specialised on small sizes.
    """
    groups: list[list[I]] = []
    for one in sorted(batch, key=lambda e: (-len(e.ids), e.ids)):
        if groups and (len(groups[-1]) + 1) * padded(len(groups[-1][0].ids)) <= tokens:
            groups[-1].append(one)
        else:
            groups.append([one])
    if len(groups) > 1 and 2 * len(groups[-1]) * padded(len(groups[-1][0].ids)) <= tokens:
        both = groups[-2] + groups[-1]
        middle = len(both) // 2
        groups[-2:] = both[:middle], both[middle:]
    return groups


def padded(length: int) -> int:
    """Lengths are padded to a multiple of 4: rows of equal alignment, little waste."""
    return -(-length // 4) * 4
