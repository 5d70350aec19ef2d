"""Random bodies: every answer is 200 or a 4xx in OpenAI's shape, and the server is unharmed."""

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from reason_engine.engines.scripted import Scripted
from reason_engine.serving.api.errors import parse_object
from reason_engine.serving.api.schema import REFUSED, ChatRequest
from reason_engine.strategies import strategies

scalars = (
    some.none()
    | some.booleans()
    | some.integers(-(2**70), 2**70)
    | some.integers(-3, 40)
    | some.floats(allow_nan=False)
    | some.text(max_size=12)
    | some.sampled_from(["auto", "none", "required", "text", "json_object", "function", "user", "tool", "\x00", "</s>"])
)
values = some.recursive(
    scalars,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
messages = some.lists(
    some.fixed_dictionaries(
        {"role": some.sampled_from(["user", "assistant", "tool", "system", "developer", "robot"]), "content": values},
        optional={"tool_calls": values, "tool_call_id": values, "reasoning": values, "name": values},
    ),
    max_size=4,
)
keys = sorted({key for name in strategies for key in strategies.get(name).model_fields} | {"effort", "exclude", "x"})
reasoning = some.fixed_dictionaries(
    {}, optional={"strategy": some.sampled_from([*strategies, "nonesuch"]), **dict.fromkeys(keys, scalars)}
)
fields = {name: values for name in [*ChatRequest.model_fields, *REFUSED] if name not in ("messages", "model")}
good = some.just([{"role": "user", "content": "What is 2 + 2?"}])
bodies = some.fixed_dictionaries(
    {"messages": good | messages | values},
    optional={
        **fields,
        "reasoning": reasoning | values,
        "model": some.just("scripted") | values,
        "stream": some.booleans(),
    },
)


def _sparse(body: dict[str, object], seed: int) -> dict[str, object]:
    """Most of the body's fields left out, so that a wrong one is met alone."""
    names = sorted(body)
    return {name: body[name] for i, name in enumerate(names) if name == "messages" or (seed >> i) % 8 == 0}


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(body=bodies, seed=some.integers(0, 2**60))
def test_any_body_gets_an_answer_or_a_reason(local, body, seed) -> None:
    async def ask() -> None:
        async with local(Scripted(lambda prompt, seed, index: "Answer: 4", context=256)) as house:
            for sent in (body, _sparse(body, seed)):
                got = await house.http.post("/v1/chat/completions", content=json.dumps(sent))
                if got.status_code != 200:
                    assert 400 <= got.status_code < 500, (sent, got.text)
                    assert set(got.json()["error"]) == {"message", "type", "param", "code"}
                assert house.app.state.service.gate.held == house.engine.running == 0

    asyncio.run(ask())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(some.binary(max_size=80) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_refused(body) -> None:
    from reason_engine.errors import RequestError

    try:
        assert isinstance(parse_object(body), dict)
    except RequestError as error:
        assert error.status == 400 and error.code == "invalid_json"
