"""Examples to token ids with a loss weight a token, and token ids to padded batches.

A batch is one fair draw of examples, sorted by length and cut into micro-batches of few padded tokens; padding stands
on the right, where a causal model never looks, so no mask is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from reason_engine.data import Example
from reason_engine.data.formats.rows import Conversation, Text, Turns, turn_json
from reason_engine.errors import SetupError
from reason_engine.types import Message

I = TypeVar("I", bound="Item")  # noqa: E741


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a conversation; `weights[i]` is the loss weight of predicting token i."""

    ids: list[int]
    weights: list[float]


class Item(Protocol):
    """What an objective learns from at once; `ids` are all its tokens."""

    @property
    def ids(self) -> list[int]: ...


class Encoder:
    """Renders with the tokenizer's own chat template; checks once that the answer's place is where it should be."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer, self._max = tokenizer, max_length
        self._end = f"{tokenizer.eos_token}"

    def encode(self, rows: Sequence[Example | Conversation | Text]) -> list[Encoded]:
        """One entry a conversation, cut at the limit; plain text in as many pieces as it needs."""
        spoken = [row for row in rows if not isinstance(row, Text)]
        written = [row for row in rows if isinstance(row, Text)]
        return self._conversations(spoken) + [piece for row in written for piece in self._pieces(row)]

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

    @property
    def max_length(self) -> int:
        return self._max

    def _conversations(self, rows: Sequence[Example | Conversation]) -> list[Encoded]:
        if not rows:
            return []
        rendered = [self._render(row) for row in rows]
        table = self._tokenizer(
            [text for text, _, _ in rendered], add_special_tokens=False, return_offsets_mapping=True
        )
        found: list[Encoded] = []
        for row, (_, start, stop), ids, spans in zip(
            rows, rendered, table["input_ids"], table["offset_mapping"], strict=True
        ):
            ranges = [(start + a, start + b) for a, b in row.skip]
            weights = [
                row.weight if a >= start and b <= stop and not any(x <= a < y for x, y in ranges) else 0.0
                for a, b in spans
            ]
            if row.weight and not any(weights[1 : self._max]):
                raise SetupError(
                    f"an example of {len(ids)} tokens has no answer within max_length {self._max}"
                )
            found.append(Encoded(ids[: self._max], weights[: self._max]))
        return found

    def _pieces(self, row: Text) -> list[Encoded]:
        """Every token teaches but a piece's first."""
        ids, _ = self.tokens(row.text + self._end)
        parts = [ids[at : at + self._max] for at in range(0, len(ids), self._max)]
        return [Encoded(part, [0.0] + [1.0] * (len(part) - 1)) for part in parts if len(part) > 1]

    def _render(self, row: Example | Conversation) -> tuple[str, int, int]:
        """The rendered conversation and the place where the answer begins and ends, its end mark included."""
        if isinstance(row, Example):
            prompt = self._template(row.messages()[:-1], (), True)
            text = f"{prompt}{row.answer}{self._end}"
            return text, len(prompt), len(text)
        prompt = self._template([turn_json(turn) for turn in row.prompt], row.tools, True)
        if not row.answer.reasoning and not row.answer.tool_calls:
            text = f"{prompt}{row.answer.content}{self._end}"
            return text, len(prompt), len(text)
        whole = self._template([turn_json(turn) for turn in row.messages], row.tools, False)
        if not whole.startswith(prompt):
            raise SetupError(
                "the chat template writes a past answer with reasoning or tool calls otherwise than a new one: "
                "such rows cannot be learned with this tokenizer"
            )
        stop = whole.rfind(self._end, len(prompt))
        text = whole + self._end if stop < 0 else whole[: stop + len(self._end)]
        # Ranges to skip are of the content, which begins somewhere within what is learned.
        if row.skip:
            raise SetupError("`skip` cannot be told apart in an answer with reasoning or tool calls")
        return text, len(prompt), len(text)

    def _template(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any], mark: bool) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                list(turns), tools=list(tools) or None, tokenize=False, add_generation_prompt=mark
            )
        except Exception as error:  # a template raises whatever its writer liked
            raise SetupError(f"the chat template refuses a row: {error}") from None


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
    if len(groups) > 1 and 2 * size(groups[-1]) <= tokens:
        rest = groups.pop()
        both = groups.pop() + rest
        middle = len(both) // 2
        groups += [both[:middle], both[middle:]]
    return groups


def size(group: Sequence[Item]) -> int:
    """Padded tokens of a group, longest example first."""
    return len(group) * padded(len(group[0].ids))


def padded(length: int) -> int:
    """Lengths are padded to a multiple of 4: rows of equal alignment, little waste."""
    return -(-length // 4) * 4
