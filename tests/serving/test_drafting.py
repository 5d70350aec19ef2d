"""What was drafted, as clients and operators see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.contracts import Capabilities, Health
from reason_engine.engines.scripted import Scripted
from reason_engine.knowledge import Library
from reason_engine.serving.app import create_app
from reason_engine.settings import Settings
from reason_engine.types import Chunk, GenerateRequest
from tests.serving.conftest import Open, steps

CAPS = Capabilities(
    logprobs=20, token_ids=True, continuation=True, choose=True, drafting=("none", "sam"), exact_budget=True,
    sample_abort=True,
)  # fmt: skip


class Drafting(Scripted):
    """Says of every chunk that one drafted token was right and two were wrong."""

    def __init__(self) -> None:
        super().__init__(steps, caps=CAPS)
        self.texts: list[list[int]] = []
        self.lent = asyncio.Event()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        async for chunk in super().generate(request):
            yield replace(chunk, draft_accepted=1, draft_rejected=2)

    async def health(self) -> Health:
        return replace(await super().health(), draft_failures=7)

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        self.texts = [list(text) for text in texts]
        self.lent.set()


async def usage(lines: str) -> dict[str, int]:
    """The usage of a stream's last chunk."""
    data = [json.loads(line[6:]) for line in lines.splitlines() if line.startswith("data: {")]
    return data[-1]["usage"]["completion_tokens_details"]


@pytest.mark.parametrize("n", [1, 3])
async def test_usage_sums_what_every_branch_drafted(local: Open, n: int) -> None:
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    async with local(Drafting()) as house:
        reasoning = {"strategy": "self-consistency", "n": n, "draft": "sam"}
        whole = (await house.chat(reasoning=reasoning, seed=1)).json()["usage"]["completion_tokens_details"]
        asked = house.engine.log[-1]
        assert asked.sampling.draft == "sam"
        assert asked.search and asked.id.startswith(asked.search)
        assert whole["accepted_prediction_tokens"] >= n
        assert whole["rejected_prediction_tokens"] == 2 * whole["accepted_prediction_tokens"]
        got = await house.chat(reasoning=reasoning, seed=1, **streamed)
        assert await usage(got.text) == whole

        body = {"model": "scripted", "prompt": "2 + 2", "n": n, "seed": 1}
        plain = (await house.http.post("/v1/completions", json=body)).json()["usage"]
        details = plain["completion_tokens_details"]
        assert details["accepted_prediction_tokens"] >= n
        assert details["rejected_prediction_tokens"] == 2 * details["accepted_prediction_tokens"]
        got = await house.http.post("/v1/completions", json={**body, **streamed})
        assert await usage(got.text) == details

        text = (await house.http.get("/metrics")).text
        right = 2 * (whole["accepted_prediction_tokens"] + details["accepted_prediction_tokens"])
        assert f'reason_draft_tokens_total{{outcome="accepted"}} {right:.1f}' in text
        assert f'reason_draft_tokens_total{{outcome="rejected"}} {2 * right:.1f}' in text
        assert "reason_draft_failures 7.0" in text


async def test_the_default_leaves_it_to_the_engine(local: Open) -> None:
    async with local(Drafting()) as house:
        await house.chat()
        assert house.engine.log[-1].sampling.draft == "default"


@pytest.mark.parametrize(("draft", "message"), [("ngram", "cannot draft by 'ngram'"), ("sma", "sam")])
async def test_what_the_engine_lacks_is_named(local: Open, draft: str, message: str) -> None:
    async with local(Drafting()) as house:
        answer = await house.chat(reasoning={"strategy": "direct", "draft": draft})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "reasoning.draft"
        assert message in answer.json()["error"]["message"]
        assert house.engine.generated == 0


async def test_documents_are_lent_to_a_server_that_drafts(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("The bridge is green.\n")
    engine = Drafting()
    app = create_app(engine, None, Settings(draft="sam", knowledge=tmp_path))
    async with app.router.lifespan_context(app), asyncio.timeout(20):
        await engine.lent.wait()
    assert [engine.detokenize(text) for text in engine.texts] == ["The bridge is green."]


async def test_an_engine_that_fails_on_documents_is_only_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from reason_engine.errors import EngineDead

    class Dead(Drafting):
        async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
            raise EngineDead("gone")

    library = Library(tmp_path)
    await library.offer_drafts(Dead())
    assert "nothing is drafted from the documents: gone" in caplog.text
