"""Texts as vectors, by an endpoint with OpenAI's API of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from reason_engine.errors import CapabilityMissing, EngineError, UnknownModel
from reason_engine.types import ScoreRequest, Scores

if TYPE_CHECKING:
    from openai import AsyncOpenAI

SERVED = "served"
"""The model that answers, as an embedder."""


def choose_embedder(request: ScoreRequest, names: Sequence[str]) -> str:
    """The one a request means; the first where it names none. Raises CapabilityMissing, UnknownModel."""
    if not names:
        raise CapabilityMissing(
            "this engine embeds by endpoints only, and none is named: vllm serve MODEL --runner pooling --port 8001, "
            "then the setting knowledge_model=http://127.0.0.1:8001",
            param="model",
            code="capability_missing",
        )
    name = names[0] if request.model is None else request.model
    if name not in names:
        message = f"no model named {name!r} embeds here; one of: {', '.join(names)}"
        raise UnknownModel(message, param="model", code="model_not_found")
    return name


async def embed(client: AsyncOpenAI, name: str, model: str, inputs: Sequence[str]) -> Scores:
    """One vector a text, as the endpoint gives it; it cuts what is too long. `model`: its name there, or empty.

    Raises EngineError where it fails or answers anything else.
    """
    from openai import OpenAIError

    if not inputs:
        return Scores(())
    body: dict[str, Any] = {"input": list(inputs), "encoding_format": "float", "truncate_prompt_tokens": -1}
    if model:
        body["model"] = model
    path = "/embeddings" if str(client.base_url).rstrip("/").endswith("/v1") else "/v1/embeddings"
    try:
        reply = await client.post(path, body=body, cast_to=object)
    except OpenAIError as error:
        raise EngineError(f"embeddings by {name!r}: {error}") from None
    try:
        return _vectors(cast("Mapping[str, Any]", reply), len(inputs))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        why = f"the endpoint's reply is not an embeddings response: {error}"
        raise EngineError(f"embeddings by {name!r}: {why}") from None


def _vectors(reply: Mapping[str, Any], count: int) -> Scores:
    """In the order of the inputs, whatever the order of the reply."""
    rows = {int(one["index"]): tuple(map(float, one["embedding"])) for one in reply["data"]}
    if sorted(rows) != list(range(count)):
        raise ValueError(f"{len(rows)} vectors for {count} texts")
    if len({len(row) for row in rows.values()}) != 1 or not rows[0]:
        raise ValueError("its vectors differ in length or are empty")
    if not all(math.isfinite(value) for row in rows.values() for value in row):
        raise ValueError("a vector holds a value that is no finite number")
    tokens = int((reply.get("usage") or {}).get("prompt_tokens") or 0)
    return Scores(tuple(rows[number] for number in range(count)), tokens)
