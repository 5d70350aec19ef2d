"""Models, strategies, traces, tokens, health, metrics, pages."""

import re
from dataclasses import replace

import jsonschema
import pytest

from reason_engine.contracts import Health, Replica
from reason_engine.engines.scripted import Scripted
from reason_engine.settings import Settings
from reason_engine.strategies import strategies


async def test_models(local) -> None:
    async with local() as house:
        found = [model.id async for model in house.client.models.list()]
        assert found == ["scripted", *(f"scripted:{name}" for name in strategies)]
        one = await house.client.models.retrieve("scripted:direct")
        assert one.id == "scripted:direct" and one.owned_by == "reason-engine"
        assert (await house.http.get("/v1/models/")).status_code == 200


async def test_a_served_name_replaces_the_models_own(local) -> None:
    async with local(settings=Settings(served_name="house")) as house:
        assert (await house.chat(model="house:direct")).json()["model"] == "house:direct"
        assert (await house.chat(model="scripted")).status_code == 404


async def test_strategies_tell_their_schema(local) -> None:
    async with local() as house:
        data = (await house.http.get("/v1/strategies")).json()
        assert data["object"] == "list" and [entry["name"] for entry in data["data"]] == list(strategies)
        for entry in data["data"]:
            assert set(entry) == {"name", "summary", "paper", "schema"} and entry["summary"]
            jsonschema.Draft202012Validator.check_schema(entry["schema"])
            jsonschema.validate({}, entry["schema"])
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({"nonesuch": 1}, entry["schema"])


async def test_the_trace_of_a_response(local) -> None:
    async with local(settings=Settings(traces=2)) as house:
        got = (await house.chat(reasoning={"strategy": "self-consistency", "n": 3}, n=2)).json()
        ids = [choice["reason"]["trace"] for choice in got["choices"]]
        assert ids[0] == got["id"] == got["reason"]["trace"]
        for trace_id in ids:
            trace = (await house.http.get(f"/v1/traces/{trace_id}")).json()
            assert trace["id"] == trace_id and trace["strategy"] == "self-consistency" and "seed" in trace
            assert len([node for node in trace["nodes"] if node["role"] == "path"]) == 3
        await house.chat(n=2)
        assert (await house.http.get(f"/v1/traces/{ids[0]}")).status_code == 404, "the ring is bounded"
        assert "reason_trace_dropped 2.0" in (await house.http.get("/metrics")).text


async def test_tokens_there_and_back(local) -> None:
    async with local() as house:
        got = (await house.http.post("/tokenize", json={"prompt": "two words"})).json()
        assert got["count"] == len(got["tokens"]) == 2 and got["max_model_len"] == 4096
        back = await house.http.post("/detokenize", json={"tokens": got["tokens"]})
        assert back.json() == {"prompt": "two words"}
        turns = {"messages": [{"role": "user", "content": "hi"}]}
        assert (await house.http.post("/tokenize", json=turns)).json()["count"] == 4


async def test_health(local) -> None:
    async with local(started=False) as house:
        assert (await house.http.get("/health")).status_code == 503
        await house.engine.start()
        for path in ("/health", "/health/ready", "/health/live"):
            assert (await house.http.get(path)).status_code == 200
        house.engine.die()
        for path in ("/health", "/health/ready", "/health/live"):
            assert (await house.http.get(path)).status_code == 503


class Several(Scripted):
    """An engine with two endpoints behind it, one of them gone."""

    async def health(self) -> Health:
        replicas = (Replica("10.0.0.1:8000", True, 3), Replica("10.0.0.2:8000", False, 0, "cannot be reached"))
        return replace(await super().health(), replicas=replicas)


async def test_endpoints_are_counted_for_everybody_and_named_to_those_with_a_key(local) -> None:
    async with local(Several(lambda prompt, seed, index: "4")) as house:
        health = await house.http.get("/health")
        assert health.json() == {"status": "ready", "upstreams": {"up": 1, "all": 2}}
        text = (await house.http.get("/metrics")).text
        for line in (
            'reason_upstream_up{upstream="10.0.0.1:8000"} 1.0', 'reason_upstream_up{upstream="10.0.0.2:8000"} 0.0',
            'reason_upstream_sequences_running{upstream="10.0.0.1:8000"} 3.0',
        ):  # fmt: skip
            assert line in text
    async with local() as house:
        assert (await house.http.get("/health")).json() == {"status": "ready"}
        assert "reason_upstream_up{" not in (await house.http.get("/metrics")).text


async def test_metrics_follow_requests(local) -> None:
    async with local() as house:
        await house.chat(reasoning={"strategy": "self-consistency", "n": 4})
        await house.chat(reasoning={"strategy": "self-consistency", "n": 4}, budget={"samples": 1})
        await house.chat(n=0)
        text = (await house.http.get("/metrics")).text
        values = dict(re.findall(r"^(reason_\S+) (\S+)$", text, re.MULTILINE))
        assert values['reason_requests_total{outcome="done",strategy="self-consistency"}'] == "2.0"
        assert values['reason_branches_sum{strategy="self-consistency"}'] == "5.0"
        winner = float(values['reason_engine_tokens_total{role="winner"}'])
        discarded = float(values['reason_engine_tokens_total{role="discarded"}'])
        assert winner + discarded == house.engine.generated == float(values["reason_engine_generated_tokens"])
        assert values['reason_budget_exhausted_total{limit="samples"}'] == "1.0"
        assert values['reason_rejections_total{reason="invalid_value"}'] == "1.0"
        assert values["reason_sequences_running"] == "0.0"


async def test_a_callers_text_never_becomes_a_label(local) -> None:
    async with local() as house:
        await house.chat(model="secret-model", reasoning={"strategy": "secret-strategy"})
        await house.chat(user="secret-user", reasoning={"secret-key": 1})
        assert "secret" not in (await house.http.get("/metrics")).text


async def test_version(local) -> None:
    from reason_engine import __version__

    async with local() as house:
        assert (await house.http.get("/version")).json() == {"version": __version__}


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_load_nothing_from_elsewhere_and_may_not(local, path) -> None:
    async with local() as house:
        got = await house.http.get(path)
        policy = got.headers["content-security-policy"]
        assert got.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
        assert not re.search(r"(src|href|action)\s*=\s*[\"']?(https?:)?//|@import|url\(", got.text)
        assert not re.search(r"<[^>]*\s(on\w+|style)\s*=", got.text)
        banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|createContextualFragment"
        assert not re.search(banned, got.text)


async def test_the_openapi_document_names_every_route_and_error(local) -> None:
    async with local(Scripted()) as house:
        schema = (await house.http.get("/openapi.json")).json()
        operation = schema["paths"]["/v1/chat/completions"]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        assert {"messages", "reasoning", "budget", "n", "stream"} <= set(body["properties"])
        assert {"200", "400", "401", "404", "413", "429", "503"} <= set(operation["responses"])
        assert "text/event-stream" in operation["responses"]["200"]["content"]
        jsonschema.Draft202012Validator.check_schema(body)
