"""A begun answer that the endpoint is to go on with (a prefill): the ways in which endpoints take one, and which of
them this one knows.

    turn      the conversation ends in the assistant's turn; the endpoint goes on with it by itself (llama.cpp, Ollama)
    prefix    the same, and the turn says `prefix: true` (Mistral, DeepSeek)
    flags     the same, with `continue_final_message` (vLLM, SGLang)

No field of the API tells. So the endpoint is asked once at start, greedily and for a few tokens, to go on with a
sentence that ends inside a word: only one that continues the turn begins with the rest of that word. vLLM and SGLang
are known to have `flags`, OpenAI's own host to have nothing.

A thought stands in the begun turn as plain text, without its marks: templates drop, move or empty a marked thought of
the assistant's last turn, and none of them changes plain text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from reason_engine.errors import EngineBusy, EngineDead, EngineError, RequestError

Prefill = Literal["turn", "prefix", "flags"]
WAYS: tuple[Prefill, ...] = get_args(Prefill)
BEGUN, REST = "The weather in Lisbon is wonder", "ful"
QUESTION = "Repeat this sentence and nothing else: The weather in Lisbon is wonderful today."
PROBE_TOKENS = 4
PROBE_SECONDS = 20.0
"""Longest that the start waits for an answer to one question."""


async def find_prefill(ask: Callable[[Prefill], Awaitable[str]], ways: Sequence[Prefill] = WAYS) -> Prefill | None:
    """The first way in which the endpoint goes on with BEGUN; None where it does in no way.

    `ask` returns what the endpoint says to QUESTION with BEGUN as its own begun turn. Raises EngineBusy, EngineDead or
    TimeoutError where it cannot be asked now.
    """
    for way in ways:
        try:
            said = await ask(way)
        except (EngineBusy, EngineDead):
            raise
        except (EngineError, RequestError):  # it refuses this way; the next one may do
            continue
        if said.lstrip().startswith(REST):
            return way
    return None


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """How a begun answer is written for an endpoint. `think_start` and `think_end` stand around a thought in it."""

    way: Prefill
    think_start: str
    think_end: str

    @property
    def fields(self) -> Mapping[str, Any]:
        """What the body of the request says of it."""
        if self.way == "flags":
            return {"continue_final_message": True, "add_generation_prompt": False}
        # llama.cpp refuses a begun answer while the template would think first.
        return {"chat_template_kwargs": {"enable_thinking": False}} if self.way == "turn" else {}

    def turn(self, begun: str) -> dict[str, Any]:
        """The last turn of the conversation."""
        turn = {"role": "assistant", "content": self.unmarked(begun)}
        return {**turn, "prefix": True} if self.way == "prefix" else turn

    def unmarked(self, begun: str) -> str:
        """It with a finished thought as plain text; where it ends inside its thought it stays as it is."""
        thought, closed, rest = begun.partition(self.think_end)
        if not closed:
            return begun
        return f"{thought.lstrip().removeprefix(self.think_start).strip()}\n\n{rest.lstrip()}".lstrip()
