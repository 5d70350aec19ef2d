"""Reward models behind URLs: what is sent to vLLM's servers, what is read of their replies, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient
from openai import AsyncOpenAI
from pydantic import SecretStr

from reason_engine.engines.open import open_engine
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.engines.rewards.pooling import logit
from reason_engine.errors import CapabilityMissing, EngineError, SetupError
from reason_engine.settings import load_settings
from reason_engine.types import Message, ScoreRequest

TURNS = (Message("user", "2 + 3?"),)
TEXT, ENDS = "One.\n\nTwo.", (4, 10)
URL = "http://rewards"


class Server:
    """vLLM as it is seen from outside. A character is a token, but a full stop and a blank line are one (1000);
    `<extra_0>` is 1001. A row of a token is (0, its place), of an answer (its length). After a place p a language model
    prefers `+` to `-` by p / 100."""

    def __init__(self, replies: Mapping[str, Any] | None = None) -> None:
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str] = []
        self.replies = dict(replies or {})
        app = FastAPI()

        @app.post("/{path:path}")
        async def post(path: str, got: Request) -> Any:
            body = await got.json()
            self.keys.append(got.headers["authorization"])
            self.log.append((path, body))
            made = {"tokenize": self._tokenize, "pooling": self._pooling, "v1/completions": self._complete}[path]
            return self.replies.get(path) or made(body)

        transport = ASGITransport(app=app)
        self.client = AsyncOpenAI(
            base_url=URL, api_key="none", http_client=AsyncClient(transport=transport), max_retries=0
        )

    def passes(self) -> list[dict[str, Any]]:
        """What the model had to read."""
        return [body for path, body in self.log if path != "tokenize"]

    def _tokenize(self, body: dict[str, Any]) -> Any:
        return {"tokens": tokens(rendered(body) if "messages" in body else body["prompt"])}

    def _pooling(self, body: dict[str, Any]) -> Any:
        ids = tokens(rendered(body)) if "messages" in body else body["input"]
        ids = tokens(ids) if isinstance(ids, str) else ids
        rows = [[0.0, float(at)] for at, token in enumerate(ids) if 1001 not in ids or token == 1001]
        data = rows if body["task"] == "token_classify" else [float(len(ids))]
        return {"data": [{"data": data}], "usage": {"prompt_tokens": len(ids)}}

    def _complete(self, body: dict[str, Any]) -> Any:
        one = [{str(ord("+")): {"logprob": at / 100 - 3}, "45": {"logprob": -3.0}} for at in range(len(body["prompt"]))]
        found = [None, *one][: len(body["prompt"])]
        return {"choices": [{"prompt_logprobs": found}], "usage": {"prompt_tokens": len(body["prompt"])}}


def rendered(body: dict[str, Any]) -> str:
    *turns, last = [f"<{turn['role']}>{turn['content']}" for turn in body["messages"]]
    text = "".join(f"{turn}</>" for turn in turns) + last
    opened = body["continue_final_message"]
    return text + ("" if opened else "</>") + ("<assistant>" if body["add_generation_prompt"] else "")


def tokens(text: str) -> list[int]:
    made, place = list[int](), 0
    while place < len(text):
        word = next((w for w in (".\n\n", "<extra_0>") if text.startswith(w, place)), text[place])
        made.append({".\n\n": 1000, "<extra_0>": 1001}.get(word) or ord(word))
        place += len(word)
    return made


def ask(*inputs: str, **fields: Any) -> ScoreRequest:
    return ScoreRequest("r", inputs, **fields)


def steps(model: str, *texts: str, ends: tuple[tuple[int, ...], ...] = (ENDS,), **fields: Any) -> ScoreRequest:
    return ask(*texts or (TEXT,), model=model, task="token_reward", turns=TURNS, ends=ends, **fields)


async def scored(server: Server, url: str, request: ScoreRequest) -> tuple[float, ...]:
    made = Endpoints({"r": url}, client=server.client)
    return (await made.score(request)).values[0]


@pytest.mark.asyncio
async def test_a_whole_answer_is_classified() -> None:
    server = Server()
    made = Endpoints({"whole": f"{URL}/#skywork"}, client=server.client)
    assert made.kinds == {"whole": "outcome"}
    scores = await made.score(ask("abc", "de", model="whole", turns=TURNS))
    lengths = [len("<user>2 + 3?</><assistant></>") + n for n in (3, 2)]
    assert (scores.values, scores.prompt_tokens) == (tuple((float(n),) for n in lengths), sum(lengths))
    assert ("pooling", {
        "task": "classify", "use_activation": False, "model": "skywork", "add_generation_prompt": False,
        "continue_final_message": False,
        "messages": [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "abc"}],
    }) in server.log  # fmt: skip
    await made.close()


@pytest.mark.asyncio
async def test_qwens_process_model_gives_a_row_a_mark() -> None:
    server = Server()
    values = await scored(server, f"{URL}#Qwen/Qwen2.5-Math-PRM-7B", steps("r"))
    (body,) = [body for _, body in server.log]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant"]
    assert body["messages"][-1]["content"] == "One.<extra_0>Two.<extra_0>"
    ids = tokens(rendered(body))
    assert values == tuple(float(at) for at, token in enumerate(ids) if token == 1001)
    assert (body["task"], body["continue_final_message"]) == ("token_classify", True)


@pytest.mark.asyncio
async def test_a_token_classifier_is_read_at_its_separators() -> None:
    server = Server()
    values = await scored(server, f"{URL}#m&format=trl", steps("r"))
    (body,) = server.passes()
    pieces = ("2 + 3?\n\n", "One.", "\n\n", "Two.", "\n\n")
    assert body["input"] == [token for piece in pieces for token in tokens(piece)]
    assert 1000 not in body["input"]
    assert values == (13.0, 19.0)
    assert all(body["model"] == "m" for _, body in server.log)


@pytest.mark.asyncio
async def test_plain_steps_are_read_where_they_end() -> None:
    server = Server()
    values = await scored(server, f"process+{URL}#format=plain-steps", steps("r"))
    (body,) = server.passes()
    before = len("<user>2 + 3?</><assistant>")
    assert body["input"] == tokens(f"<user>2 + 3?</><assistant>{TEXT}")
    assert values == (before + 3.0, before + 7.0)  # the full stop and the blank line are one token


@pytest.mark.parametrize(
    ("format", "whole", "places"),
    [
        ("math-shepherd", "2 + 3? Step 1: One. \u043a\u0438\nStep 2: Two. \u043a\u0438", (21, 37)),
        ("versa-prm", "2 + 3? \n\nOne. \n\n\n\nTwo. \n\n\n\n", (17, 26)),
        ("rlhflow", "<user>2 + 3? One.</><assistant>+</><user>Two.</><assistant>+</>", (30, 58)),
    ],
)
@pytest.mark.asyncio
async def test_two_tokens_are_compared_after_each_mark(format: str, whole: str, places: tuple[int, ...]) -> None:
    server = Server()
    values = await scored(server, f"{URL}/v1#m&format={format}", steps("r"))
    (body,) = server.passes()
    assert body["prompt"] == [*tokens(whole), ord("+")]
    assert (body["prompt_logprobs"], body["max_tokens"]) == (20, 1)
    assert values == pytest.approx([place / 100 for place in places])


@pytest.mark.asyncio
async def test_a_path_is_one_pass_and_known_tokens_are_not_asked_again() -> None:
    server = Server()
    made = Endpoints({"r": f"{URL}#m&format=trl"}, client=server.client)
    for text, ends in (("One.", (4,)), (TEXT, ENDS), (f"{TEXT}\n\nSix.", (*ENDS, 16))):
        await made.score(steps("r", text, ends=(ends,)))
    assert len(server.passes()) == 3
    asked = [body["prompt"] for path, body in server.log if path == "tokenize"]
    assert asked == ["2 + 3?\n\n", "One.", "\n\n", "Two.", "Six."]


@pytest.mark.asyncio
async def test_an_outcome_model_with_an_ending_is_read_there() -> None:
    server = Server()
    (value,) = await scored(server, f"{URL}#internlm/internlm2-1_8b-reward", ask("5", turns=TURNS))
    (body,) = server.passes()
    assert body["input"] == tokens("<user>2 + 3?</><assistant>5</><|reward|>")
    assert (body["task"], value) == ("token_classify", len(body["input"]) - 1)


@pytest.mark.parametrize(
    "reply", [{"data": []}, {"data": [{"data": []}]}, {"data": [{"data": ["x"]}]}, {"data": [{"data": [1, 2, 3]}]}, [1]]
)
@pytest.mark.asyncio
async def test_a_pooling_server_that_answers_nonsense(reply: Any) -> None:
    with pytest.raises(EngineError, match="not a pooling response"):
        await scored(Server({"pooling": reply}), URL, ask("x"))


@pytest.mark.parametrize(
    ("format", "replies", "match"),
    [
        ("qwen-prm", {"pooling": {"data": [{"data": [[0, 1]] * 5}]}}, "5 values for 2 steps.*STEP pooling"),
        ("qwen-prm", {"pooling": {"data": [{"data": []}]}}, "0 values for 2 steps"),
        ("trl", {"pooling": {"data": [{"data": [[0, 1]] * 5}]}}, "5 values for 20 tokens"),
        ("trl", {"tokenize": {"count": 3}}, "holds no tokens"),
        ("plain-steps", {"tokenize": {"tokens": ["a"]}}, "holds no tokens"),
        ("versa-prm", {"v1/completions": {"choices": [{"text": "+"}]}}, r"no prompt_logprobs of '\+' and '-'"),
        (
            "versa-prm",
            {"v1/completions": {"choices": [{"prompt_logprobs": [{"7": {"logprob": -1.0}}] * 40}]}},
            "neither is among the likeliest",
        ),
    ],
)
@pytest.mark.asyncio
async def test_a_server_that_is_not_of_the_format(format: str, replies: dict[str, Any], match: str) -> None:
    with pytest.raises(EngineError, match=match):
        await scored(Server(replies), f"{URL}#m&format={format}", steps("r"))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        (f"process+{URL}", r"the endpoint's model, unnamed, is of no format in the table .* #format=NAME"),
        (f"process+{URL}#mine", r"the endpoint's model 'mine' is of no format"),
        (f"{URL}#mine&format=trll", "no format is called 'trll'"),
        (f"{URL}#launch/ThinkPRM-14B", "writes its judgement.*style: think-prm"),
        ("http://", "names no host"),
        ("process+http://host:99999#m&format=trl", "no port that there is"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_at_start(url: str, match: str) -> None:
    with pytest.raises(SetupError, match=match):
        Endpoints({"r": url})


@pytest.mark.asyncio
async def test_a_key_goes_to_its_endpoint_alone() -> None:
    server = Server()
    made = Endpoints({"a": URL, "b": URL}, keys={"a": SecretStr("open-sesame")}, client=server.client)
    for name in "ab":
        await made.score(ask("x", model=name))
    assert server.keys == ["Bearer open-sesame", "Bearer none"]
    with pytest.raises(SetupError, match=r"reward_keys: no endpoint .* 'c'"):
        Endpoints({"a": URL}, keys={"c": SecretStr("k")})


def test_keys_come_from_the_environment_and_are_not_shown(monkeypatch: pytest.MonkeyPatch, tiny_qwen3: Path) -> None:
    monkeypatch.setenv("REASON_REWARD_KEYS", json.dumps({"rm": "open-sesame"}))
    made = load_settings({"model": str(tiny_qwen3), "reward_models": {"rm": URL}})
    assert "open-sesame" not in f"{made!r} {made.model_dump_json()}"
    open_engine(made)
    with pytest.raises(SetupError, match=r"reward_keys: .* 'rm'"):
        open_engine(load_settings({"model": str(tiny_qwen3)}))


@pytest.mark.asyncio
async def test_a_folder_is_no_endpoint() -> None:
    with pytest.raises(SetupError, match="vllm serve /models/rm --runner pooling"):
        Endpoints({"r": "/models/rm"})
    with pytest.raises(CapabilityMissing, match="--runner pooling"):
        await Endpoints({}).score(ask("x"))
    with pytest.raises(ValueError, match="one label or two"):
        logit([1.0, 2.0, 3.0])
