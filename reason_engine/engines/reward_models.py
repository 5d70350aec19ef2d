"""Reward models as files and as endpoints: what an operator's `NAME=PATH` or `NAME=URL` stands for. Never loads torch.

A path is a checkpoint folder with a classification head (`…ForSequenceClassification`, one label or two: an outcome
model, read at the last token; `…ForTokenClassification`, `…ForProcessRewardModel`: a process model, read where steps
end), or a folder with `head.json` and safetensors: a small head over the served model's own hidden states. Those in
`heads/` beside the weights are found by themselves. A URL is an endpoint with vLLM's pooling API
(`vllm serve MODEL --runner pooling`); `process+http://…` where its model judges steps, `embed+http://…` where it
embeds (OpenAI's `POST /v1/embeddings`); `#model` names the model.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urldefrag, urlsplit

from pydantic import SecretStr

from reason_engine import errors
from reason_engine.engines.checkpoint.folder import CONFIG, ModelFolder
from reason_engine.errors import EngineError, ModelLoadError, RequestError, UnknownModel
from reason_engine.types import ScoreRequest, Scores

if TYPE_CHECKING:
    from openai import AsyncOpenAI

RewardKind = Literal["outcome", "process"]
HEAD, HEADS_FOLDER = "head.json", "heads"
HEAD_DIM = 32
"""Of the attention of a side network."""
SUFFIXES: Mapping[str, RewardKind] = {
    "ForSequenceClassification": "outcome",
    "ForTokenClassification": "process",
    "ForProcessRewardModel": "process",
}
PROCESS_PREFIX, EMBED_PREFIX = "process+", "embed+"
"""Before a URL: what the model behind it does, where that is not judging whole answers."""
AT_ONCE = 8
"""Requests to one endpoint at a time."""


@dataclass(frozen=True, slots=True)
class RewardFile:
    """A reward model in a folder. `own`: a head over the served model's hidden states."""

    name: str
    path: str
    kind: RewardKind
    own: bool
    side: tuple[int, int] | None = None
    """(width, depth) of a side network; None: linear layers."""


def is_url(text: str) -> bool:
    """Whether this names an endpoint."""
    return _address(text).startswith(("http://", "https://"))


def bundled_heads(folder: Path) -> dict[str, str]:
    """The heads and whole reward models that ship with a model."""
    found = (path for name in (HEAD, "config.json") for path in (folder / HEADS_FOLDER).glob(f"*/{name}"))
    return {path.parent.name: str(path.parent) for path in sorted(found)}


def read_reward(name: str, path: str) -> RewardFile:
    """What a folder holds. Raises ModelLoadError naming the file at fault."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ModelLoadError(f"reward model {name!r}: {folder}: no such folder")
    files = ModelFolder(folder)
    _ = files.weight_files
    if (folder / HEAD).is_file():
        head = files.read_json(HEAD)
        stated = head.get("kind")
        if stated not in ("outcome", "process"):
            raise ModelLoadError(f"{folder / HEAD}: kind must be 'outcome' or 'process', not {stated!r}")
        kind: RewardKind = "process" if stated == "process" else "outcome"
        return RewardFile(name, str(folder), kind, own=True, side=_side(folder, head.get("side")))
    named = files.architecture
    kinds: list[RewardKind] = [kind for suffix, kind in SUFFIXES.items() if named.endswith(suffix)]
    if not kinds:
        raise ModelLoadError(f"{folder / CONFIG}: {named} has no head that scores: {', '.join(SUFFIXES)} have")
    return RewardFile(name, str(folder), kinds[0], own=False)


def _side(folder: Path, stated: object) -> tuple[int, int] | None:
    if stated is None:
        return None
    sizes = [dict(stated).get(key) for key in ("width", "depth")] if isinstance(stated, dict) else [None]
    if not all(isinstance(size, int) and 0 < size <= 65536 for size in sizes) or cast(int, sizes[0]) % HEAD_DIM:
        wanted = f"a width, a multiple of {HEAD_DIM}, and a depth"
        raise ModelLoadError(f"{folder / HEAD}: side must hold {wanted}, not {stated!r}")
    return cast(tuple[int, int], tuple(sizes))


def choose_reward(request: ScoreRequest, kinds: Mapping[str, RewardKind]) -> str:
    """The reward model that a request means. Raises UnknownModel, or RequestError where it does not say which."""
    names, param = ", ".join(kinds), "reasoning.verifier.params.model"
    if request.model is None and len(kinds) != 1:
        raise RequestError(f"which reward model? one of: {names}", param=param)
    name = next(iter(kinds)) if request.model is None else request.model
    if name not in kinds:
        raise UnknownModel(f"no reward model named {name!r}; one of: {names}", param=param, code="model_not_found")
    if request.task == "token_reward" and kinds[name] == "outcome":
        raise RequestError(f"the reward model {name!r} judges whole answers only", param=param)
    return name


class Endpoints:
    """Models behind vLLM's pooling API, or OpenAI's of embeddings, each by its URL. `client` serves tests."""

    def __init__(
        self, urls: Mapping[str, str], *, keys: Mapping[str, SecretStr] | None = None, client: AsyncOpenAI | None = None
    ) -> None:
        """`keys` are sent to the endpoints of these names and to no other. Raises SetupError for a name without one."""
        for name, url in urls.items():
            if not is_url(url):
                raise errors.SetupError(
                    f"reward model {name!r}: this engine serves one model; serve {url} beside it "
                    f"(vllm serve {url} --runner pooling --port 8001) and name it {name}=http://127.0.0.1:8001"
                )
            if not _host(url):
                raise errors.SetupError(f"the endpoint {url!r} names no host, or no port that there is")
        self._keys = dict(keys or {})
        if stray := next((name for name in self._keys if name not in urls), None):
            raise errors.SetupError(f"reward_keys: no endpoint among the reward models is named {stray!r}")
        self._urls = dict(urls)
        self._given = client
        self._clients: dict[str, AsyncOpenAI] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self.embeds = tuple(name for name, url in urls.items() if url.startswith(EMBED_PREFIX))
        self.kinds: dict[str, RewardKind] = {
            name: "process" if url.startswith(PROCESS_PREFIX) else "outcome"
            for name, url in urls.items()
            if name not in self.embeds
        }
        """Of each reward model by name; `embeds`: the names of those that embed."""

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def score(self, request: ScoreRequest) -> Scores:
        """Raw values, before any squashing: one a text, or one an end; or vectors. Raises EngineError where the
        endpoint fails."""
        if request.task == "embed":
            name = choose_embedder(request, self.embeds)
            model = urldefrag(self._urls[name]).fragment
            async with self._turn:
                return await embed(self._client(name), name, model, request.inputs)
        if not self.kinds:
            raise errors.CapabilityMissing(
                "no reward model is served; serve one beside the model (vllm serve MODEL --runner pooling --port 8001) "
                "and name it with --reward-model NAME=http://127.0.0.1:8001",
                param="reasoning.verifier",
                code="capability_missing",
            )
        name = choose_reward(request, self.kinds)
        process = self.kinds[name] == "process"
        ends = request.ends if request.task == "token_reward" else tuple((len(t),) for t in request.inputs)
        if len(ends) != len(request.inputs):
            raise RequestError("a remote process model needs the places to read", param="ends")
        wanted = [text[:end] for text, its in zip(request.inputs, ends, strict=True) for end in its]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(name, request, text, process)) for text in wanted]
        except BaseExceptionGroup as group:
            raise errors.first_error(group) from None
        values, tokens = zip(*(task.result() for task in tasks), strict=True) if tasks else ((), ())
        left = iter(values)
        return Scores(tuple(tuple(islice(left, len(its))) for its in ends), sum(tokens))

    async def _one(self, name: str, request: ScoreRequest, text: str, process: bool) -> tuple[float, int]:
        """(the value at the text's last token, tokens read)."""
        from openai import OpenAIError

        body: dict[str, Any] = {"task": "token_classify" if process else "classify", "use_activation": False}
        if model := urldefrag(self._urls[name]).fragment:
            body["model"] = model
        if request.turns:
            turns = [{"role": turn.role, "content": turn.content} for turn in request.turns]
            body |= {"messages": [*turns, {"role": "assistant", "content": text}]}
            body |= {"add_generation_prompt": False, "continue_final_message": process}
        else:
            body["input"] = text
        async with self._turn:
            try:
                reply = await self._client(name).post("/pooling", body=body, cast_to=object)
            except OpenAIError as error:
                raise EngineError(f"reward model {name!r}: {error}") from None
        return _value(name, reply, process)

    def _client(self, name: str) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        if name not in self._clients:
            base = urldefrag(_address(self._urls[name])).url.rstrip("/")
            client = self._given or AsyncOpenAI(base_url=base, api_key="none", timeout=60)
            key = self._keys[name].get_secret_value() if name in self._keys else None
            self._clients[name] = client.with_options(base_url=base, api_key=key)
        return self._clients[name]


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(_address(url))
        return parts.hostname if parts.port != 0 else None
    except ValueError:
        return None


def _address(url: str) -> str:
    return url.removeprefix(PROCESS_PREFIX).removeprefix(EMBED_PREFIX)


def _value(name: str, reply: object, process: bool) -> tuple[float, int]:
    """The one logit, or the log-odds of the second of two, at the last place."""
    try:
        found = cast("Mapping[str, Any]", reply)
        data: Any = found["data"][0]["data"]
        row: Sequence[Any] = data[-1] if process or isinstance(data[0], list) else data
        tokens = int((found.get("usage") or {}).get("prompt_tokens") or 0)
        return logit([float(value) for value in row]), tokens
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(f"reward model {name!r}: the endpoint's reply is not a pooling response: {error}") from None


def logit(row: Sequence[float]) -> float:
    """One label: its value; two: the log-odds of the second. Raises ValueError for more."""
    if len(row) not in (1, 2):
        raise ValueError(f"a reward model has one label or two, not {len(row)}")
    return row[0] if len(row) == 1 else row[1] - row[0]


SERVED = "served"
"""The model that answers, as an embedder."""


def choose_embedder(request: ScoreRequest, names: Sequence[str]) -> str:
    """The one a request means; the first where it names none. Raises CapabilityMissing, UnknownModel."""
    if not names:
        raise errors.CapabilityMissing(
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
