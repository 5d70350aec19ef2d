"""Examples to token ids with a loss weight a token, and token ids to padded batches.

A batch is one fair draw of examples, sorted by length and cut into micro-batches of few padded tokens; padding stands
on the right, where a causal model never looks, so no mask is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reason_engine.data import Example
from reason_engine.errors import SetupError


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a conversation; `weights[i]` is the loss weight of predicting token i."""

    ids: list[int]
    weights: list[float]


class Encoder:
    """Renders with the tokenizer's own chat template; checks once that the answer's place is where it should be."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer, self._max = tokenizer, max_length
        self._end = f"{tokenizer.eos_token}"

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """One entry an example; examples longer than the limit are cut at its end."""
        rendered = [self._render(example) for example in examples]
        texts = [text for text, _ in rendered]
        table = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        found: list[Encoded] = []
        for example, (_, start), ids, spans in zip(
            examples, rendered, table["input_ids"], table["offset_mapping"], strict=True
        ):
            stop = start + len(example.answer) + len(self._end)
            ranges = [(start + a, start + b) for a, b in example.skip]
            weights = [
                example.weight if a >= start and b <= stop and not any(x <= a < y for x, y in ranges) else 0.0
                for a, b in spans
            ]
            if not any(weights[: self._max]):
                raise SetupError(
                    f"an example of {len(ids)} tokens has no answer within max_length {self._max}"
                )
            found.append(Encoded(ids[: self._max], weights[: self._max]))
        return found

    def _render(self, example: Example) -> tuple[str, int]:
        """The rendered conversation and the place where the answer begins."""
        messages = example.messages()
        prompt = self._tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )
        return f"{prompt}{example.answer}{self._end}", len(prompt)


def micro_batches(batch: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
    """Groups of similar length of at most `tokens` padded tokens (a longer example stands alone).

    A small rest is shared with the group before it: compiled kernels are specialised on small sizes.
    """
    groups: list[list[Encoded]] = []
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


def size(group: Sequence[Encoded]) -> int:
    """Padded tokens of a group, longest example first."""
    return len(group) * padded(len(group[0].ids))


def padded(length: int) -> int:
    """Lengths are padded to a multiple of 4: rows of equal alignment, little waste."""
    return -(-length // 4) * 4
