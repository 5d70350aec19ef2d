"""One of vLLM's servers that judges: `POST /pooling` where a head scores tokens, `POST /v1/completions` where two
tokens of a language model do. A path is one pass of the model.

Where the server gives a row for each token, the tokens are its own (`POST /tokenize`, which runs no model and is
remembered): a place is found by the number of tokens up to it, and the request is made of those same tokens.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from reason_engine.engines.rewards.formats import RewardFormat
from reason_engine.engines.rewards.layout import Shown
from reason_engine.errors import EngineError
from reason_engine.types import Message, Turns

if TYPE_CHECKING:
    from openai import AsyncOpenAI

REMEMBERED = 4096
"""Texts whose tokens are kept."""
ALTERNATIVES = 20
"""Of each prompt token; vLLM's limit as shipped."""
Body = dict[str, Any]


class RewardServer:
    """`name`: in messages; `model`: its name there, or empty. Raises EngineError wherever the server fails or answers
    anything else."""

    def __init__(self, client: AsyncOpenAI, name: str, model: str) -> None:
        self._client, self._name, self._model = client, name, model
        self._known: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    async def outcome(self, turns: Turns, text: str, ending: str) -> tuple[float, int]:
        """(the value of a whole answer, tokens read); with an `ending` the value is that of its last token."""
        said = (*turns, Message("assistant", text))
        if ending:
            spoken = _messages(said, opened=False) if turns else {"prompt": text}
            ids = [*await self._tokens(spoken), *await self._tokens({"prompt": ending, "add_special_tokens": False})]
            rows, tokens = await self._pool("token_classify", {"input": ids})
            return self._only(rows), tokens
        rows, tokens = await self._pool("classify", _messages(said, opened=False) if turns else {"input": text})
        return self._only(rows), tokens

    async def steps(self, shown: Shown, format: RewardFormat) -> tuple[tuple[float, ...], int]:
        """(a value for each step, tokens read)."""
        if format.head == "labels" and format.pooled == "marks":
            said = (*shown.turns, Message("assistant", shown.text))
            rows, tokens = await self._pool("token_classify", _messages(said, opened=True))
            if len(rows) != len(shown.reads):
                raise EngineError(
                    f"reward model {self._name!r}: {len(rows)} values for {len(shown.reads)} steps; its server is to "
                    f"give one at each {format.mark!r} (--pooler-config with STEP pooling and that token)"
                )
            return self._values(rows), tokens
        ids, places = await self._located(shown)
        if format.head == "tokens":
            return await self._two_tokens(ids, places, format)
        rows, tokens = await self._pool("token_classify", {"input": ids})
        if len(rows) != len(ids):
            raise EngineError(
                f"reward model {self._name!r}: {len(rows)} values for {len(ids)} tokens; its server is to give one a "
                "token (pooling ALL), or another format is to be named"
            )
        return self._values([rows[place] for place in places]), tokens

    async def _located(self, shown: Shown) -> tuple[list[int], list[int]]:
        """(tokens, the token to read for each place)."""
        if shown.cuts:
            ids, ends = list[int](), dict[int, int]()
            for start, end in pairwise((0, *shown.cuts, len(shown.text))):
                if end > start:
                    piece = {"prompt": shown.text[start:end], "add_special_tokens": start == 0}
                    ids += await self._tokens(piece)
                    ends[end] = len(ids)
            return ids, [ends[place] - 1 for place in shown.reads]
        if shown.replies:
            whole = await self._tokens(_messages(shown.turns, opened=False))
            befores = [
                await self._tokens({**_messages(shown.turns[:n], opened=False), "add_generation_prompt": True})
                for n in shown.reads
            ]
        else:
            bodies = [self._spoken(shown.turns, shown.text[:place]) for place in (len(shown.text), *shown.reads)]
            whole, *befores = [await self._tokens(body) for body in bodies]
        if any(whole[: len(before) - 1] != before[:-1] for before in befores):
            raise EngineError(f"reward model {self._name!r}: its tokens of a text change with what follows it")
        return [*whole], [len(before) - 1 for before in befores]

    def _spoken(self, turns: Turns, text: str) -> Body:
        return _messages((*turns, Message("assistant", text)), opened=True) if turns else {"prompt": text}

    async def _two_tokens(
        self, ids: Sequence[int], places: Sequence[int], format: RewardFormat
    ) -> tuple[tuple[float, ...], int]:
        """The log-odds of the two tokens after each place, from the likeliest ones of the prompt's own tokens."""
        bare = [{"prompt": word, "add_special_tokens": False} for word in (format.good, format.bad)]
        good, bad = [(await self._tokens(body))[-1] for body in bare]
        body = {
            "prompt": [*ids, good], "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": ALTERNATIVES,
            "add_special_tokens": False,
        }  # fmt: skip
        reply = await self._post("/v1/completions", body)
        try:
            found = reply["choices"][0]["prompt_logprobs"]
            tops = [{int(key): float(one["logprob"]) for key, one in found[place + 1].items()} for place in places]
            tokens = int((reply.get("usage") or {}).get("prompt_tokens") or 0)
            return tuple(_log_odds(top, good, bad) for top in tops), tokens
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise EngineError(
                f"reward model {self._name!r}: the reply holds no prompt_logprobs of {format.good!r} and "
                f"{format.bad!r} (vllm serve MODEL, which generates): {error}"
            ) from None

    async def _tokens(self, body: Body) -> tuple[int, ...]:
        """The server's own tokens of a text or of turns."""
        key = repr(sorted(body.items()))
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        reply = await self._post("/tokenize", body)
        try:
            made = tuple(map(int, reply["tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"reward model {self._name!r}: the reply of /tokenize holds no tokens: {error}") from None
        self._known[key] = made
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return made

    async def _pool(self, task: str, body: Body) -> tuple[list[list[float]], int]:
        """(rows of values, tokens read)."""
        reply = await self._post("/pooling", {"task": task, "use_activation": False, **body})
        try:
            data: Any = reply["data"][0]["data"]
            rows = data if not data or isinstance(data[0], list) else [data]
            made = [[float(value) for value in row] for row in rows]
            return made, int((reply.get("usage") or {}).get("prompt_tokens") or 0)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._nonsense(error) from None

    def _only(self, rows: Sequence[Sequence[float]]) -> float:
        """Of the last row."""
        if not rows:
            raise self._nonsense(ValueError("it holds no values"))
        return self._values(rows[-1:])[0]

    def _values(self, rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
        try:
            return tuple(map(logit, rows))
        except ValueError as error:
            raise self._nonsense(error) from None

    def _nonsense(self, error: Exception) -> EngineError:
        return EngineError(f"reward model {self._name!r}: the endpoint's reply is not a pooling response: {error}")

    async def _post(self, path: str, body: Body) -> Mapping[str, Any]:
        from openai import OpenAIError

        named = {**body, "model": self._model} if self._model else body
        root = str(self._client.base_url).rstrip("/").removesuffix("/v1")
        try:
            reply = await self._client.post(root + path, body=named, cast_to=object)
        except OpenAIError as error:
            raise EngineError(f"reward model {self._name!r}: {error}") from None
        return cast("Mapping[str, Any]", reply) if isinstance(reply, dict) else {}


def logit(row: Sequence[float]) -> float:
    """One label: its value; two: the log-odds of the second. Raises ValueError for more."""
    if len(row) not in (1, 2):
        raise ValueError(f"a reward model has one label or two, not {len(row)}")
    return row[0] if len(row) == 1 else row[1] - row[0]


def _messages(turns: Turns, *, opened: bool) -> Body:
    """`opened`: the last turn goes on."""
    said = [{"role": turn.role, "content": turn.content} for turn in turns]
    return {"messages": said, "add_generation_prompt": False, "continue_final_message": opened}


def _log_odds(top: Mapping[int, float], good: int, bad: int) -> float:
    """A token that is not among the likeliest is at most as likely as the last of them."""
    if good not in top and bad not in top:
        raise ValueError("neither is among the likeliest tokens there")
    least = min(top.values())
    value = top.get(good, least) - top.get(bad, least)
    if not math.isfinite(value):
        raise ValueError("a log-probability is not finite")
    return value
