"""The suffix automaton as a drafter of vLLM's (`method: custom_class`, runner V1): what `--draft sam` loads there.

SAM-Decoding, arXiv:2411.10666; the sources are those of the embedded engine, without given texts. vLLM
checks the drafts and names no requests, and rows move: a row is known by the end of its text before this step's tokens,
and rows with the same prompt are samples of one search. Which of two equal texts is whose makes no difference. vLLM's
own timing is not visible here, so a token is drafted while its chance to be right, as measured, is at least LEAST.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reason_engine.engines.drafting.sources import AcceptanceRates, Sam, SearchIndex, length_class
from reason_engine.engines.vllm.cpu_repairs import shield_drafting

log = logging.getLogger("reason_engine.engines.vllm")

LEAST = 0.3
SHORTEST = 2
TAIL = 64
"""Tokens by which a text is known."""
ROWS, SEARCHES = 1024, 64
"""Most texts and prompts that are remembered; the ones not seen for longest go first."""
PROMPT_TOKENS = 512
"""Of a prompt, taken in at a time."""

Key = tuple[int, bytes]


@dataclass(slots=True)
class _Row:
    sam: Sam
    search: SearchIndex
    hits: AcceptanceRates
    drafted: int = 0
    kind: int = 0


@dataclass(slots=True)
class _Asked:
    search: SearchIndex = field(default_factory=SearchIndex)
    hits: AcceptanceRates = field(default_factory=AcceptanceRates)


class SamDrafter:
    """Called by vLLM's model runner after each step."""

    def __init__(self, vllm_config: Any) -> None:
        self._most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._context = int(vllm_config.model_config.max_model_len)
        self._cpu = str(vllm_config.device_config.device) == "cpu"
        self._all = AcceptanceRates()
        self._rows: OrderedDict[Key, list[_Row | None]] = OrderedDict()
        self._asked: OrderedDict[bytes, _Asked] = OrderedDict()
        self.failures = 0

    def load_model(self, *_: Any) -> None:
        """There is none; but this is called where the model runs."""
        if self._cpu:
            shield_drafting()

    def propose(
        self,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
        slot_mappings: Any = None,
        **_: Any,
    ) -> list[list[int]]:
        """Drafts of each row; `token_ids_cpu[i, :num_tokens_no_spec[i]]` is its text, this step's tokens at the end."""
        return [
            self._row(token_ids_cpu[row, : int(num_tokens_no_spec[row])], len(sampled)) if sampled else []
            for row, sampled in enumerate(sampled_token_ids)
        ]

    def _row(self, text: NDArray[np.int32], gained: int) -> list[int]:
        """A row that throws goes on without drafts."""
        known: _Row | None = None
        try:
            known, fresh = self._find(text[:-gained])
            draft = [] if known is None else self._draft(known, text, gained, fresh)
        except Exception as error:  # boundary: whatever a drafter does, the answer goes on without it
            self.failures += 1
            log.warning("a drafter failed and is off for its request: %s: %s", type(error).__name__, error)
            known, draft = None, []
        self._rows.setdefault(_key(text), []).append(known)
        self._rows.move_to_end(_key(text))
        while len(self._rows) > ROWS:
            self._rows.popitem(last=False)
        return draft

    def _find(self, before: NDArray[np.int32]) -> tuple[_Row | None, bool]:
        """The row that had this text, or a new one for which it is the prompt; and whether it is new."""
        key = _key(before)
        if found := self._rows.get(key):
            row = found.pop()
            if not found:
                del self._rows[key]
            return row, False
        name = before.tobytes()
        asked = self._asked.pop(name, None) or _Asked(hits=AcceptanceRates(self._all))
        self._asked[name] = asked
        while len(self._asked) > SEARCHES:
            self._asked.popitem(last=False)
        return _Row(asked.search.sam(tuple(before.tolist())), asked.search, asked.hits), True

    def _draft(self, row: _Row, text: NDArray[np.int32], gained: int, fresh: bool) -> list[int]:
        if row.drafted and not fresh:
            row.hits.observe(row.kind, row.drafted, min(gained - 1, row.drafted))
        row.drafted = 0
        row.search.queue.advance(PROMPT_TOKENS)
        row.sam.feed(text[-gained:].tolist())
        length = row.sam.find()
        if length < SHORTEST:
            return []
        row.kind = length_class(length)
        worth = math.floor(math.log(LEAST) / math.log(row.hits.chance(row.kind)))
        draft = row.sam.draft(max(0, min(self._most, length, worth, self._context - len(text) - 1)))
        row.drafted = len(draft)
        return draft


def _key(text: NDArray[np.int32]) -> Key:
    return len(text), text[-TAIL:].tobytes()
