"""The HTTP side with the real `openai` client over a mock transport: what is sent, what is read, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from httpx2 import AsyncClient, ConnectError, MockTransport, Request, Response

from reason_engine.errors import ContextLengthExceeded, EngineBusy, EngineDead, EngineError, RequestError, SetupError
from reason_engine.evals.solvers import EvalTarget, RemoteSolver
from reason_engine.evals.spec import Spec
from reason_engine.types import Limits, Problem

MESSAGE = {"role": "assistant", "content": "Answer: 18"}
REPLY: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 70,
        "total_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 5},
    },
}
REASON = {
    "answer": "18",
    "stopped": "decided",
    "samples": 4,
    "usage_by_stage": {
        "sample": {"prompt": 30, "cached": 10, "completion": 60},
        "value": {"prompt": 50, "cached": 45, "completion": 10},
    },
}


def server(handle: Callable[[Request], Response], **options: Any) -> RemoteSolver:
    return RemoteSolver(EvalTarget(url="http://there:8000", **options), AsyncClient(transport=MockTransport(handle)))


def error(status: int, code: str | None = None) -> Callable[[Request], Response]:
    body = {"error": {"message": "no good", "param": "reasoning.n", "code": code, "type": "x"}}
    return lambda request: Response(status, json=body, headers={"x-should-retry": "false"})


async def test_what_is_sent_and_read() -> None:
    sent: list[Any] = []

    def handle(request: Request) -> Response:
        if request.url.path == "/v1/models":
            return Response(200, json={"object": "list", "data": [{"id": "nano", "object": "model"}]})
        sent.append(json.loads(request.content))
        return Response(200, json={**REPLY, "reason": REASON})

    async with server(handle, limits=Limits(tokens=500), max_tokens=64) as http:
        assert http.name == "nano"
        reply = await http.answer(Problem("2 + 2?", reference="4"), Spec("best-of-n", {"n": 4, "verifier": "exact"}), 7)
    assert sent == [
        {
            "model": "nano",
            "messages": [{"role": "user", "content": "2 + 2?"}],
            "seed": 7,
            "max_completion_tokens": 64,
            "reasoning": {"strategy": "best-of-n", "n": 4, "verifier": "exact"},
            "budget": {"tokens": 500},
        }
    ]
    assert (reply.answer, reply.text, reply.completion_tokens) == ("18", "Answer: 18", 70)
    assert (reply.prompt_tokens, reply.stopped, reply.samples) == (25, "decided", 4)


async def test_a_server_without_reason_is_read_by_its_text() -> None:
    async with server(lambda request: Response(200, json=REPLY), model="m") as http:
        reply = await http.answer(Problem("?"), Spec("direct"), 0)
    assert (reply.answer, reply.completion_tokens, reply.prompt_tokens, reply.stopped) == ("18", 70, 25, "done")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", RequestError),
        (400, "context_length_exceeded", ContextLengthExceeded),
        (404, "model_not_found", RequestError),
        (401, None, SetupError),
        (429, None, EngineBusy),
        (500, None, EngineError),
        (503, None, EngineError),
    ],
)
async def test_refusals_and_failures_keep_their_kind(status: int, code: str | None, kind: type[Exception]) -> None:
    async with server(error(status, code), model="m") as http:
        with pytest.raises(kind, match="no good") as caught:
            await http.answer(Problem("?"), Spec("direct"), 0)
    if isinstance(caught.value, RequestError):
        assert caught.value.param == "reasoning.n"


async def test_nobody_there() -> None:
    def refuse(request: Request) -> Response:
        raise ConnectError("refused")

    with pytest.raises(EngineDead, match="no server answers at http://there:8000/v1"):
        async with server(refuse):
            pass


async def test_a_server_without_models() -> None:
    with pytest.raises(SetupError, match="lists no model"):
        async with server(lambda request: Response(200, json={"object": "list", "data": []})):
            pass


@pytest.mark.parametrize("url", ["", "there:8000", "ftp://there", "http://"])
def test_bad_addresses(url: str) -> None:
    with pytest.raises(SetupError, match="--url"):
        RemoteSolver(EvalTarget(url=url))


def test_a_path_in_the_address_is_kept() -> None:
    assert RemoteSolver(EvalTarget(url="http://there/api/v1/")).url == "http://there/api/v1"
    assert RemoteSolver(EvalTarget(url="http://there:8000/")).url == "http://there:8000/v1"
